internal import MartletBasics
package import MartletReactor

/// The network as one process has it.
package final class SimulatedNetwork: Network, @unchecked Sendable {
    private let process: SimulatedProcess
    private let world: SimulatedWorld
    private let subject: Subject

    init(process: SimulatedProcess) {
        self.process = process
        world = process.world
        subject = Subject("\(process.name)/network")
    }

    package var localName: String { process.name }

    /// A literal is its own answer, the name of a host its address.
    package func resolve(_ host: String) throws(SystemError) -> [String] {
        if host == "localhost" { return ["127.0.0.1"] }
        let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
        let isIPv4 = host.utf8.allSatisfy { $0 == UInt8(ascii: ".") || digits.contains($0) }
        if isIPv4 || host.contains(":") { return [host] }
        guard let address = world.network.address(named: host) else {
            throw SystemError(
                .notFound, code: -2, operation: "getaddrinfo", subject: host, reason: "Name or service not known")
        }
        return [address]
    }

    package func listen(
        on address: SocketAddress, options _: ListenOptions, loop: any EventLoop,
        accepted: @escaping @Sendable (any StreamSocket) -> Void
    ) throws(SystemError) -> any ListeningSocket {
        world.checkThread()
        guard process.isAlive else { throw refusal(.other, "bind", address) }
        let listener = SimulatedListener(process: process, loop: Self.simulated(loop), accepted: accepted)
        guard let taken = world.network.register(listener, on: address, at: process.address) else {
            throw refusal(.addressInUse, "bind", address)
        }
        listener.address = taken
        return listener
    }

    package func connect(
        to address: SocketAddress, loop: any EventLoop,
        completion: @escaping @Sendable (Result<any StreamSocket, SystemError>) -> Void
    ) {
        world.checkThread()
        process.passSeam()
        guard process.isAlive else { return }
        let attempt = Attempt(address: address, loop: Self.simulated(loop), completion: completion)
        let away = world.network.delay(from: process.address, to: machine(of: address))
        world.post(after: away) { [self] in arrive(attempt, tries: 1) }
    }

    private struct Attempt {
        var address: SocketAddress
        var loop: SimulatedLoop
        var completion: @Sendable (Result<any StreamSocket, SystemError>) -> Void

        func fail(code: Int32, _ reason: String) {
            let error = SystemError(
                .other, code: code, operation: "connect", subject: "\(address)", reason: reason)
            loop.arrive { completion(.failure(error)) }
        }
    }

    private func machine(of address: SocketAddress) -> String {
        world.network.machine(of: address, from: process.address)
    }

    private func arrive(_ attempt: Attempt, tries: Int) {
        guard process.isAlive else { return }
        let fabric = world.network!
        let target = machine(of: attempt.address)
        let isLost = fabric.isBlocked(from: process.address, to: target)
            || fabric.isBlocked(from: target, to: process.address)
        let listener = isLost ? nil : fabric.listener(at: attempt.address, from: process.address)
        world.note(.connect, subject, UInt64(tries))
        if isLost { fabric.heldCount += 1 }
        if isLost || listener?.isFull == true {
            guard tries < SimulatedFabric.connectAttemptsLimit else {
                return attempt.fail(code: 110, "Connection timed out")
            }
            // as long as Linux waits before it asks again: 1, 2, 4, … seconds
            world.post(after: 1_000_000_000 << Int64(tries - 1)) { [self] in arrive(attempt, tries: tries + 1) }
            return
        }
        let back = fabric.delay(from: target, to: process.address)
        guard let listener else {
            world.post(after: back) { attempt.fail(code: 111, "Connection refused") }
            return
        }
        let isLocal = SimulatedFabric.isLoopback(attempt.address.host)
        let port = fabric.takePort(at: process.address)
        let own = SocketAddress(host: isLocal ? attempt.address.host : process.address, port: port)
        let (near, far) = SimulatedSocket.makePair(
            world: world, near: (process, own), far: (listener.process, attempt.address))
        listener.arrive(far)
        world.post(after: back) { attempt.loop.arrive { attempt.completion(.success(near)) } }
    }

    private static func simulated(_ loop: any EventLoop) -> SimulatedLoop {
        guard let simulated = loop as? SimulatedLoop else {
            preconditionFailure("simulated sockets are served by simulated loops")
        }
        return simulated
    }

    private func refusal(_ kind: SystemError.Kind, _ operation: StaticString, _ address: SocketAddress) -> SystemError {
        let (code, reason) = SimulatedDisk.words(for: kind)
        return SystemError(kind, code: code, operation: operation, subject: "\(address)", reason: reason)
    }
}

final class SimulatedListener: ListeningSocket, @unchecked Sendable {
    var address = SocketAddress(host: "", port: 0)
    var key: SocketAddress?
    let process: SimulatedProcess
    let number: Int
    private let loop: SimulatedLoop
    private let world: SimulatedWorld
    private let subject: Subject
    private var accepted: (@Sendable (any StreamSocket) -> Void)?
    private var backlog: [SimulatedSocket] = []
    private var pausedUntil: Int64 = 0

    init(process: SimulatedProcess, loop: SimulatedLoop, accepted: @escaping @Sendable (any StreamSocket) -> Void) {
        self.process = process
        self.loop = loop
        self.accepted = accepted
        world = process.world
        number = process.world.network.takeSocketNumber()
        subject = Subject("\(process.name)/listener")
    }

    var isFull: Bool { backlog.count >= SimulatedFabric.backlogLimit }

    func arrive(_ socket: SimulatedSocket) {
        backlog.append(socket)
        if world.now.nanoseconds >= pausedUntil { loop.arrive { [self] in acceptAll() } }
    }

    private func acceptAll() {
        while let accepted, !backlog.isEmpty, world.now.nanoseconds >= pausedUntil {
            let socket = backlog.removeFirst()
            world.note(.accept, subject, UInt64(socket.number))
            accepted(socket)
        }
    }

    func pause(for delay: Interval) {
        pausedUntil = max(pausedUntil, (world.now + delay).nanoseconds)
        world.post(at: pausedUntil) { [self] in loop.arrive { [self] in acceptAll() } }
    }

    func close() {
        guard accepted != nil else { return }
        accepted = nil
        world.network.unregister(self)
        let waiting = backlog
        backlog = []
        for socket in waiting { socket.abort() }
    }
}
