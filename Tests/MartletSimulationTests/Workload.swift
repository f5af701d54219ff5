import MartletBasics
import MartletReactor
import MartletSimulation

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

extension Disk {
    func write(_ path: String, _ content: [UInt8], at offset: Int64 = 0, sync: Bool = false) throws {
        let file = try open(path, .create)
        defer { file.close() }
        try content.withUnsafeBytes { try file.write($0, at: offset) }
        if sync { try file.sync() }
    }
}

extension StreamSocket {
    /// Sends what fits now; how much.
    func sendSome(_ content: ArraySlice<UInt8>) -> Transfer {
        content.withUnsafeBytes { send($0, more: false) }
    }

    /// Receives at most so many bytes.
    func receiveSome(_ limit: Int = 8192) -> (Transfer, [UInt8]) {
        var buffer = [UInt8](repeating: 0, count: limit)
        let transfer = buffer.withUnsafeMutableBytes {
            receive(into: UnsafeMutableRawBufferPointer(rebasing: $0[0..<1]), UnsafeMutableRawBufferPointer(rebasing: $0[1...]))
        }
        if case .moved(let count) = transfer { return (transfer, Array(buffer.prefix(count))) }
        return (transfer, [])
    }
}

/// What a test gathers; the world is one thread, so nothing guards it.
final class Box<Value>: @unchecked Sendable {
    var value: Value
    init(_ value: Value) { self.value = value }
}

/// A waiter that a task suspends on and something on the same loop completes.
final class Signal: @unchecked Sendable {
    private var isSet = false
    private var waiters: [UnsafeContinuation<Void, Never>] = []

    func wait() async {
        if isSet { return }
        await withUnsafeContinuation { waiters.append($0) }
    }

    func set() {
        isSet = true
        let resumed = waiters
        waiters = []
        for waiter in resumed { waiter.resume() }
    }
}

/// A connection that sends bytes and gathers what comes back.
final class Exchange: @unchecked Sendable {
    let socket: any StreamSocket
    var received: [UInt8] = []
    var hasEnded = false
    var hungUpCount = 0
    var toSend: ArraySlice<UInt8> = []
    var echoes = false
    var wouldBlockCount = 0

    init(_ socket: any StreamSocket, on loop: any EventLoop, echoes: Bool = false, sending: [UInt8] = []) {
        self.socket = socket
        self.echoes = echoes
        toSend = sending[...]
        socket.attach(to: loop) { [unowned self] in ready($0) }
        socket.watch(toSend.isEmpty ? .readable : [.readable, .writable])
    }

    private func ready(_ readiness: Readiness) {
        if readiness.contains(.hungUp) { hungUpCount += 1 }
        if readiness.contains(.readable) { receive() }
        if readiness.contains(.writable) { flush() }
    }

    private func receive() {
        let (transfer, content) = socket.receiveSome()
        received += content
        if transfer == .ended {
            hasEnded = true
            return socket.close()
        }
        if echoes {
            toSend += content
            flush()
        }
    }

    private func flush() {
        while !toSend.isEmpty {
            guard case .moved(let count) = socket.sendSome(toSend) else {
                wouldBlockCount += 1
                break
            }
            toSend = toSend.dropFirst(count)
        }
        socket.watch(toSend.isEmpty ? .readable : [.readable, .writable])
    }
}

/// Tasks, timers, lanes, disks and sockets at once: a small server that keeps what it is sent and echoes it, a
/// client, and faults.
func runWorkload(seed: UInt64, keepsLines: Bool = false) throws -> (history: History, echoed: Int) {
    let world = SimulatedWorld(seed: seed, keepsLines: keepsLines)
    defer { world.end() }
    let server = world.makeHost("server")
    let client = world.makeHost("client")
    let kept = Box<[Exchange]>([])
    try serve(server, kept)
    client.loops[0].execute { connect(client, to: server, kept, round: 0) }
    world.after(.milliseconds(30)) { world.network.partition(client, server) }
    world.after(.milliseconds(45)) { world.network.heal() }
    world.after(.milliseconds(60)) {
        server.powerCut()
        let next = server.restart()
        do { try serve(next, kept) } catch { preconditionFailure("\(error)") }
        client.loops[0].execute { connect(client, to: next, kept, round: 1) }
    }
    world.run(for: .milliseconds(150))
    let echoed = kept.value.reduce(0) { $0 + $1.received.count }
    kept.value = []
    return (world.recorded, echoed)
}

private func serve(_ host: SimulatedHost, _ kept: Box<[Exchange]>) throws {
    let loop = host.loops[0]
    let lane = host.makeLane("sync", threads: 2, limit: 64)
    try host.disk.makeDirectory("/data")
    let log = try host.disk.open("/data/log", .create)
    _ = try host.network.listen(on: SocketAddress(host: "0.0.0.0", port: 9092), loop: loop) { socket in
        kept.value.append(Exchange(socket, on: loop, echoes: true))
    }
    loop.spawn {
        // a task of several steps: append, sync on the lane, wait a little
        for round in 0..<20 {
            let done = Signal()
            let content = host.randomBytes(3000)
            do { try content.withUnsafeBytes { try log.write($0, at: Int64(round * 3000)) } } catch { return }
            _ = lane.submit({ try? log.sync() }, on: loop) { _ in done.set() }
            await done.wait()
            let later = Signal()
            loop.schedule(after: .milliseconds(2)) { later.set() }
            await later.wait()
        }
    }
}

private func connect(_ client: SimulatedHost, to server: SimulatedHost, _ kept: Box<[Exchange]>, round: Int) {
    let loop = client.loops[0]
    for index in 0..<4 {
        client.network.connect(to: SocketAddress(host: server.address, port: 9092), loop: loop) { result in
            guard case .success(let socket) = result else { return }
            let content = (0..<20_000).map { UInt8(truncatingIfNeeded: $0 &* (index + 3) &+ round) }
            kept.value.append(Exchange(socket, on: loop, sending: content))
        }
    }
}
