import Glibc
import MartletBasics
import MartletReactor
import Synchronization
import Testing

/// Sends ranges of a file until all are sent, and closes.
private func sendFile(
    _ file: any DiskFile, _ count: Int, over socket: any StreamSocket, on loop: any EventLoop
) {
    let sent = Confined(0)
    let pump: @Sendable () -> Void = {
        do {
            while sent.value < count {
                switch try socket.send(file, at: Int64(sent.value), count: count - sent.value, more: false) {
                case .moved(let moved): sent.value += moved
                case .wouldBlock: return socket.watch(.writable)
                case .ended: return socket.close()
                }
            }
        } catch { Issue.record(error) }
        socket.close()
    }
    socket.attach(to: loop) { if $0.contains(.writable) { pump() } }
    pump()
}

/// A file of no system: its bytes are its offsets.
private final class InventedFile: DiskFile {
    let path = "invented"
    let length: Int64
    init(length: Int64) { self.length = length }
    func readSome(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) -> Int {
        let count = max(0, min(buffer.count, Int(length - offset)))
        for index in 0..<count { buffer[index] = UInt8(truncatingIfNeeded: (offset + Int64(index)) % 251) }
        return count
    }
    func readSomeCached(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) -> Int? {
        readSome(into: buffer, at: offset)
    }
    func writeSome(_: ArraySlice<UnsafeRawBufferPointer>, at _: Int64) -> Int { 0 }
    func sync() {}
    func truncate(to _: Int64) {}
    func allocate(_: Int64) {}
    func size() -> Int64 { length }
    func close() {}
}

private final class RecordingLog: LogSink {
    let lines = Record<String>()
    func wants(_: LogLevel, _: StaticString) -> Bool { true }
    func write(_ level: LogLevel, _ subsystem: StaticString, _ message: String, _: [(String, String)]) {
        lines.note("\(level) \(subsystem) \(message)")
    }
}

@Suite(.timeLimit(.minutes(1))) struct TransportTests {
    /// A plain client and the server's side of its connection.
    private func connected(_ host: RealHost) async throws -> (PlainClient, any StreamSocket) {
        let client = try PlainClient()
        let accepted = Promise<any StreamSocket>()
        let listener = try listen(host) { accepted.keep($0) }
        try client.connect(listener.address.port)
        return (client, await accepted.value)
    }

    @Test func tenMegabytesOfAFileArriveAsTheyAre() async throws {
        try await withHost { host in
            let bytes = pattern(10 << 20)
            let path = "/tmp/martlet-sendfile-\(getpid())"
            let file = try host.disk.open(path, .truncate)
            try host.disk.remove(path)
            try file.write(bytes)
            let (client, server) = try await connected(host)
            let reader = host.makeLane("reader", threads: 1, limit: 1)
            host.loops[0].execute { sendFile(file, bytes.count, over: server, on: host.loops[0]) }
            let received = try await reader.run(on: host.loops[0]) { client.receiveAll() }
            #expect(received == bytes)
        }
    }

    @Test func aFileThatIsNotTheSystemsOwnIsSentThroughMemory() async throws {
        try await withHost { host in
            let (client, server) = try await connected(host)
            let reader = host.makeLane("reader", threads: 1, limit: 1)
            let file = InventedFile(length: 1_000_000)
            host.loops[0].execute { sendFile(file, 1_000_000, over: server, on: host.loops[0]) }
            let received = try await reader.run(on: host.loops[0]) { client.receiveAll() }
            #expect(received == (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 % 251) })
        }
    }

    @Test func aFileThatEndsTooSoonOrIsClosedIsTheFilesFault() async throws {
        try await withHost { host in
            let path = "/tmp/martlet-short-\(getpid())"
            let file = try host.disk.open(path, .truncate)
            try host.disk.remove(path)
            try file.write([1, 2, 3])
            let (client, server) = try await connected(host)
            let errors = await host.loops[0].run { () -> [SystemError?] in
                server.attach(to: host.loops[0]) { _ in }
                func error(_ file: any DiskFile, at offset: Int64) -> SystemError? {
                    do throws(SystemError) {
                        _ = try server.send(file, at: offset, count: 5, more: false)
                    } catch {
                        return error
                    }
                    return nil
                }
                let past = [error(file, at: 3), error(InventedFile(length: 3), at: 3)]
                file.close()
                return past + [error(file, at: 0)]
            }
            let ends = "the file ends before the range"
            #expect(errors.map { $0?.reason } == [ends, ends, "the file was closed"])
            client.close()
        }
    }

    @Test func aPeerThatHasGoneIsTheConnectionsEnd() async throws {
        try await withHost { host in
            let file = try host.disk.open("/proc/self/exe", .read)
            let (client, server) = try await connected(host)
            let gone = Promise<Void>()
            await host.loops[0].run { server.attach(to: host.loops[0]) { _ in gone.keep(()) } }
            client.resetOnClose()
            client.close()
            await gone.value
            // neither throws, nor raises SIGPIPE
            let results = await host.loops[0].run { () -> [Transfer?] in
                let first = [UInt8](repeating: 1, count: 9).withUnsafeBytes { server.send($0, more: false) }
                let second = [UInt8](repeating: 1, count: 9).withUnsafeBytes { server.send($0, more: true) }
                let third = try? server.send(file, at: 0, count: 100, more: false)
                return [first, second, third, try? server.send(file, at: 0, count: 100, more: false)]
            }
            #expect(results == [.ended, .ended, .ended, .ended])
        }
    }

    @Test func bytesThatMoreIsSaidToFollowArriveWithIt() async throws {
        try await withHost { host in
            let (client, server) = try await connected(host)
            await host.loops[0].run {
                server.attach(to: host.loops[0]) { _ in }
                _ = Array("head ".utf8).withUnsafeBytes { server.send($0, more: true) }
                _ = Array("body".utf8).withUnsafeBytes { server.send($0, more: false) }
                server.close()
            }
            #expect(client.receiveAll() == Array("head body".utf8))
        }
    }

    @Test func aSocketAcceptedOnOneLoopLivesOnTheLoopThatAttachesIt() async throws {
        try await withHost(loops: 2) { host in
            let (client, server) = try await connected(host)
            let loop = host.loops[1]
            let received = Promise<([UInt8], Bool)>()
            loop.execute {
                server.attach(to: loop) { _ in
                    received.keep((drain(server).bytes, loop.isCurrent))
                    server.close()
                }
                server.watch(.readable)
            }
            client.send([1, 2, 3])
            let (bytes, wasCurrent) = await received.value
            #expect(bytes == [1, 2, 3])
            #expect(wasCurrent)
        }
    }

    @Test func aPausedListenerAcceptsNothingUntilThePauseIsOver() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let accepted = Record<Instant>()
            let first = Promise<Void>()
            let listener = try listen(host) { _ in
                accepted.note(loop.clock.now)
                first.keep(())
            }
            let start = await loop.run { () -> Instant in
                listener.pause(for: .seconds(100))
                listener.pause(for: .milliseconds(50))
                return loop.clock.now
            }
            let client = try PlainClient()
            try client.connect(listener.address.port)
            await first.value
            #expect(accepted.all.count == 1)
            #expect(accepted.all[0] - start >= .milliseconds(50))
        }
    }

    @Test func aListenerMayCloseWhileItAccepts() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let listener = Confined<(any ListeningSocket)?>(nil)
            let accepted = Counter()
            let made = try listen(host) { _ in
                accepted.increase()
                listener.value?.close()
            }
            let clients = try (0..<3).map { _ in try PlainClient() }
            await loop.run {
                listener.value = made
                // all three are there before the loop looks
                for client in clients { try? client.connect(made.address.port) }
            }
            await loop.sleep(for: .milliseconds(5))
            #expect(accepted.value == 1)
            await #expect(throws: SystemError.self) { _ = try await host.network.connect(to: made.address, loop: loop) }
        }
    }

    @Test func aListenerOutOfDescriptorsWaitsSaysSoOnceAndRecovers() async {
        await #expect(processExitsWith: .success) {
            let log = RecordingLog()
            let host = try RealHost(loops: 1, log: log)
            let loop = host.loops[0] as! UVEventLoop
            let accepted = Promise<any StreamSocket>()
            let listener = try listen(host) { accepted.keep($0) }
            let client = try PlainClient()
            // every descriptor is taken, also those that others of this process give back meanwhile
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            limit.rlim_cur = 256
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            var taken: [Int32] = []
            while case let descriptor = dup(0), descriptor >= 0 { taken.append(descriptor) }
            try client.connect(listener.address.port)
            let said = { log.lines.all.filter { $0.contains("cannot accept") }.count }
            for _ in 0..<200 where said() == 0 { await loop.sleep(for: .milliseconds(50)) }
            let turns = await loop.run { loop.turns }
            await loop.sleep(for: .milliseconds(350))
            let turned = await loop.run { loop.turns } - turns
            precondition(turned < 50, "the loop waits")
            precondition(said() == 1, "it is said once: \(log.lines.all)")
            for descriptor in taken { close(descriptor) }
            _ = await accepted.value
            host.stop()
            exit(0)
        }
    }

    @Test func aTerminationSignalIsHeardOnTheFirstLoopAndEndsTheRun() async {
        await #expect(processExitsWith: .exitCode(7)) {
            let process = SignalledProcess()
            process.run()
        }
    }

    @Test func stoppingWithOpenConnectionsClosesThem() async throws {
        let client = try PlainClient()
        try await withHost { host in
            let accepted = Promise<any StreamSocket>()
            let listener = try listen(host) { accepted.keep($0) }
            try client.connect(listener.address.port)
            let server = await accepted.value
            await host.loops[0].run { server.attach(to: host.loops[0]) { _ in } }
        }
        #expect(client.receiveAll() == [])
    }

    @Test func aConnectionThatIsBeingMadeWhenTheHostStopsIsToldThatItWillNotBe() async throws {
        let failed = Counter()
        try await withHost { host in
            // nobody answers there, or the system says at once that there is no way
            host.network.connect(to: SocketAddress(host: "198.51.100.1", port: 9092), loop: host.loops[0]) {
                if case .failure = $0 { failed.increase() }
            }
        }
        #expect(failed.value == 1)
    }
}

/// The life of a process with its first loop on the calling thread, in one place without suspension.
private struct SignalledProcess {
    func run() -> Never {
        guard let host = try? RealHost(loops: 1, firstLoop: .callingThread, log: SilentLog()) else { exit(1) }
        let told = Confined<[Int32]>([])
        host.onSignals([SIGINT, SIGTERM]) { signal in
            precondition(host.loops[0].isCurrent)
            told.value.append(signal)
            if told.value.count == 1 { kill(getpid(), SIGTERM) } else { host.requestStop() }
        }
        host.loops[0].execute { kill(getpid(), SIGINT) }
        host.run()
        host.stop()
        exit(told.value == [SIGINT, SIGTERM] ? 7 : 2)
    }
}
