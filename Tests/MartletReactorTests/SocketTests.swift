import MartletBasics
import MartletReactor
import Testing

/// One accepted connection and the client's side of it, on one loop.
struct Pair {
    let client: any StreamSocket
    let server: any StreamSocket
    let listener: any ListeningSocket
}

/// Listens on the first loop, on a free port unless one is named.
func listen(
    _ host: RealHost, _ address: String = "127.0.0.1", _ port: UInt16 = 0,
    accepted: @escaping @Sendable (any StreamSocket) -> Void
) throws -> any ListeningSocket {
    let address = SocketAddress(host: address, port: port)
    return try host.network.listen(on: address, loop: host.loops[0], accepted: accepted)
}

func makePair(_ host: RealHost, on address: String = "127.0.0.1") async throws -> Pair {
    let loop = host.loops[0]
    let accepted = Promise<any StreamSocket>()
    let listener = try listen(host, address) { accepted.keep($0) }
    let client = try await host.network.connect(to: listener.address, loop: loop)
    return Pair(client: client, server: await accepted.value, listener: listener)
}

/// Receives what has come: the bytes, and whether the stream has ended.
func drain(_ socket: any StreamSocket) -> (bytes: [UInt8], ended: Bool) {
    var bytes: [UInt8] = []
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * 1024, alignment: 16)
    defer { scratch.deallocate() }
    while true {
        switch socket.receive(into: scratch, UnsafeMutableRawBufferPointer(start: nil, count: 0)) {
        case .moved(let count): bytes += scratch[..<count]
        case .wouldBlock: return (bytes, false)
        case .ended: return (bytes, true)
        }
    }
}

@Suite(.timeLimit(.minutes(1))) struct SocketTests {
    @Test(arguments: ["127.0.0.1", "::1"])
    func whatIsSentComesBackFromAnEchoingServer(_ address: String) async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let pair = try await makePair(host, on: address)
            let bytes = pattern(300_000)
            let received = Confined<[UInt8]>([])
            let done = Promise<[UInt8]>()
            loop.execute {
                echo(pair.server, on: loop)
                let sent = Confined(0)
                let pump: @Sendable () -> Void = {
                    bytes.withUnsafeBytes { all in
                        while sent.value < all.count,
                            case .moved(let count) = pair.client.send(
                                UnsafeRawBufferPointer(rebasing: all[sent.value...]), more: false)
                        { sent.value += count }
                    }
                    pair.client.watch(sent.value < bytes.count ? [.readable, .writable] : .readable)
                }
                pair.client.attach(to: loop) { _ in
                    pump()
                    received.value += drain(pair.client).bytes
                    if received.value.count == bytes.count { done.keep(received.value) }
                }
                pump()
            }
            #expect(await done.value == bytes)
            #expect(pair.client.peer == pair.server.local)
            #expect(pair.server.peer == pair.client.local)
            #expect(pair.client.peer.host == address)
        }
    }

    /// Sends back whatever comes, keeping at most one piece in hand.
    private func echo(_ socket: any StreamSocket, on loop: any EventLoop) {
        let held = Confined<[UInt8]>([])
        socket.attach(to: loop) { _ in
            held.value += drain(socket).bytes
            held.value.withUnsafeBytes { all in
                guard all.count > 0 else { return }
                if case .moved(let count) = socket.send(all, more: false) { held.value.removeFirst(count) }
            }
            socket.watch(held.value.isEmpty ? .readable : [.readable, .writable])
        }
        socket.watch(.readable)
    }

    @Test func anIPv4AndAnIPv6ListenerShareOnePort() async throws {
        try await withHost { host in
            let four = try listen(host, "0.0.0.0") { $0.close() }
            let port = four.address.port
            let six = try listen(host, "::", port) { $0.close() }
            #expect(six.address == SocketAddress(host: "::", port: port))
            #expect(four.address == SocketAddress(host: "0.0.0.0", port: port))
        }
    }

    @Test func listeningTwiceOnOneAddressSaysThatItIsInUse() async throws {
        try await withHost { host in
            let first = try listen(host) { $0.close() }
            let error = #expect(throws: SystemError.self) {
                _ = try host.network.listen(on: first.address, loop: host.loops[0]) { $0.close() }
            }
            #expect(error?.kind == .addressInUse)
            #expect(error?.subject == first.address.description)
        }
    }

    @Test func aHostThatIsNoLiteralAddressIsRefused() async throws {
        try await withHost { host in
            let address = SocketAddress(host: "broker.example", port: 9092)
            let error = #expect(throws: SystemError.self) {
                _ = try host.network.listen(on: address, loop: host.loops[0]) { $0.close() }
            }
            #expect(error?.kind == .addressNotAvailable)
            await #expect(throws: SystemError.self) {
                _ = try await host.network.connect(to: address, loop: host.loops[0])
            }
        }
    }

    @Test func connectingWhereNobodyListensFails() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let closed = try listen(host) { $0.close() }
            await loop.run { closed.close() }
            let error = await #expect(throws: SystemError.self) {
                _ = try await host.network.connect(to: closed.address, loop: loop)
            }
            #expect(error?.kind == .connectionLost)
        }
    }

    @Test func localhostResolvesToALiteralAddressAndNonsenseSaysWhyNot() async throws {
        try await withHost { host in
            let found = try host.network.resolve("localhost")
            #expect(found.contains("127.0.0.1") || found.contains("::1"))
            #expect(Set(found).count == found.count)
            let error = #expect(throws: SystemError.self) { _ = try host.network.resolve("no.such.host.invalid") }
            #expect(error?.reason.isEmpty == false)
        }
    }

    @Test func whatAPeerSentBeforeItClosedItsSideIsReadBeforeTheEnd() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let client = try PlainClient()
            defer { client.close() }
            let accepted = Promise<any StreamSocket>()
            let listener = try listen(host) { accepted.keep($0) }
            try client.connect(listener.address.port)
            let server = await accepted.value
            let bytes = pattern(100_000)
            client.send(bytes)
            client.endSending()
            let done = Promise<[UInt8]>()
            loop.execute {
                let received = Confined<[UInt8]>([])
                server.attach(to: loop) { ready in
                    guard ready.contains(.readable) else { return }
                    let (bytes, ended) = drain(server)
                    received.value += bytes
                    if ended {
                        // the other direction still works
                        _ = Array("bye".utf8).withUnsafeBytes { server.send($0, more: false) }
                        server.close()
                        done.keep(received.value)
                    }
                }
                server.watch(.readable)
            }
            #expect(await done.value == bytes)
            #expect(client.receiveAll() == Array("bye".utf8))
        }
    }

    @Test(arguments: [false, true])
    func aConnectionThatReadsNothingIsToldOnceThatItsPeerHasGone(_ reset: Bool) async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let client = try PlainClient()
            let accepted = Promise<any StreamSocket>()
            let listener = try listen(host) { accepted.keep($0) }
            try client.connect(listener.address.port)
            let server = await accepted.value
            let told = Record<Readiness>()
            let first = Promise<Void>()
            await loop.run {
                server.attach(to: loop) {
                    told.note($0)
                    first.keep(())
                }
            }
            client.send([1, 2, 3])
            if reset { client.resetOnClose() }
            client.close()
            await first.value
            // were it level-triggered, more would come in this time
            await loop.sleep(for: .milliseconds(20))
            #expect(told.all == [.hungUp])
            let (bytes, ended) = await loop.run { drain(server) }
            #expect(ended)
            if !reset { #expect(bytes == [1, 2, 3]) }
        }
    }

    @Test func aSlowReaderStopsTheSenderUntilItReads() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let pair = try await makePair(host)
            let piece = pattern(64 * 1024)
            let told = Record<Readiness>()
            let writable = Promise<Void>()
            let fill: @Sendable () -> Int = {
                var sent = 0
                while case .moved(let count) = piece.withUnsafeBytes({ pair.server.send($0, more: false) }) {
                    sent += count
                }
                return sent
            }
            await loop.run {
                pair.server.attach(to: loop) {
                    told.note($0)
                    pair.server.watch([])
                    writable.keep(())
                }
            }
            // the system's own buffers fill first
            while await loop.run(fill) > 0 { await loop.sleep(for: .milliseconds(20)) }
            await loop.run { pair.server.watch(.writable) }
            await loop.sleep(for: .milliseconds(20))
            #expect(told.all == [])
            await loop.run {
                pair.client.attach(to: loop) { _ in _ = drain(pair.client) }
                pair.client.watch(.readable)
            }
            await writable.value
            #expect(told.all == [.writable])
            #expect(await loop.run(fill) > 0)
        }
    }

    @Test func readinessComesAgainUntilTheBytesAreRead() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let pair = try await makePair(host)
            let calls = Confined(0)
            let third = Promise<Void>()
            await loop.run {
                pair.client.attach(to: loop) { _ in }
                _ = [UInt8](repeating: 1, count: 10).withUnsafeBytes { pair.client.send($0, more: false) }
                pair.server.attach(to: loop) { ready in
                    #expect(ready == .readable)
                    calls.value += 1
                    if calls.value == 3 {
                        _ = drain(pair.server)
                        third.keep(())
                    }
                }
                pair.server.watch(.readable)
            }
            await third.value
            await loop.sleep(for: .milliseconds(20))
            #expect(await loop.run { calls.value } == 3)
        }
    }

    @Test func aSocketThatStopsWatchingHearsNothingUntilItWatchesAgain() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let pair = try await makePair(host)
            let told = Record<Readiness>()
            let heard = Promise<Void>()
            await loop.run {
                pair.client.attach(to: loop) { _ in }
                pair.server.attach(to: loop) {
                    told.note($0)
                    pair.server.watch([])
                    heard.keep(())
                }
                pair.server.watch(.readable)
                pair.server.watch([])
                _ = [UInt8](repeating: 1, count: 10).withUnsafeBytes { pair.client.send($0, more: false) }
            }
            await loop.sleep(for: .milliseconds(20))
            #expect(told.all == [])
            await loop.run { pair.server.watch(.readable) }
            await heard.value
            #expect(told.all == [.readable])
        }
    }

    @Test func receivingFillsTheFirstBufferBeforeTheSecond() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let pair = try await makePair(host)
            let bytes = pattern(1000)
            let result = Promise<(Transfer, [UInt8], [UInt8])>()
            loop.execute {
                _ = bytes.withUnsafeBytes { pair.client.send($0, more: false) }
                pair.server.attach(to: loop) { _ in
                    var first = [UInt8](repeating: 0, count: 300), second = [UInt8](repeating: 0, count: 5000)
                    let moved = first.withUnsafeMutableBytes { first in
                        second.withUnsafeMutableBytes { second in pair.server.receive(into: first, second) }
                    }
                    pair.server.watch([])
                    result.keep((moved, first, second))
                }
                pair.server.watch(.readable)
            }
            let (moved, first, second) = await result.value
            #expect(moved == .moved(1000))
            #expect(first == Array(bytes[..<300]))
            #expect(Array(second[..<700]) == Array(bytes[300...]))
        }
    }

    @Test func aClosedSocketHearsNothingAndMovesNothing() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let pair = try await makePair(host)
            let calls = Counter()
            await loop.run {
                pair.server.attach(to: loop) { _ in calls.increase() }
                pair.server.watch([.readable, .writable])
                pair.server.close()
                pair.server.close()
            }
            await loop.sleep(for: .milliseconds(10))
            #expect(calls.value == 0)
            let result = await loop.run { [1 as UInt8].withUnsafeBytes { pair.server.send($0, more: false) } }
            #expect(result == .ended)
            // and the peer learns of it
            let ended = Promise<Void>()
            await loop.run { pair.client.attach(to: loop) { if $0.contains(.hungUp) { ended.keep(()) } } }
            await ended.value
        }
    }

    @Test func aSocketMayCloseItselfWhileItIsToldOfReadiness() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            let pair = try await makePair(host)
            let calls = Counter()
            let closed = Promise<Void>()
            await loop.run {
                pair.server.attach(to: loop) { _ in
                    calls.increase()
                    pair.server.close()
                    closed.keep(())
                }
                pair.server.watch(.writable)
            }
            await closed.value
            await loop.sleep(for: .milliseconds(5))
            #expect(calls.value == 1)
        }
    }
}
