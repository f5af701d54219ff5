package import MartletBasics
internal import MartletReactor

/// The network between all machines of a world, and its faults.
///
/// Every direction of a connection keeps its order; everything else may overtake. What meets a block (a partition, a
/// stalled direction) is held back and comes when the block is lifted, as TCP would send it again; connecting over a
/// block is tried again a few times and then fails.
package final class SimulatedFabric: @unchecked Sendable {
    private struct Direction: Hashable {
        var from: String
        var to: String
    }

    /// How many bytes a sender may have on the way and unread.
    package var pipeBytesLimit = 256 << 10
    /// How long a message takes between two machines, and within one.
    package var latency = Latency(.microseconds(60), .microseconds(250), slowOneIn: 128, slowest: .milliseconds(5))
    package var loopbackLatency = Latency(.microseconds(4), .microseconds(30))
    /// Peers of a machine that lost power learn of it after at most so long.
    package var powerCutSilence = Interval.seconds(2)
    /// Connections that wait to be accepted; more are as if the network had lost them.
    package static let backlogLimit = 511
    static let connectAttemptsLimit = 5

    var random: SeededRandom
    private unowned let world: SimulatedWorld
    private var blocked: Set<Direction> = []
    private var delays: [Direction: Interval] = [:]
    private var listeners: [SocketAddress: SimulatedListener] = [:]
    private var nextPorts: [String: UInt16] = [:]
    private let subject = Subject("network")
    private var socketsCount = 0
    /// How many messages have travelled between machines, and how often something met a block.
    package private(set) var messagesCount = 0
    package internal(set) var heldCount = 0

    init(world: SimulatedWorld) {
        self.world = world
        random = world.makeRandom("network")
    }

    // MARK: Faults

    /// Nothing passes between the two machines, in both directions.
    package func partition(_ a: SimulatedHost, _ b: SimulatedHost) {
        stall(from: a, to: b)
        stall(from: b, to: a)
    }

    /// Nothing passes in this direction.
    package func stall(from: SimulatedHost, to: SimulatedHost) {
        world.note(.fault, subject, stableHash(from.address) &+ 3 &* stableHash(to.address))
        blocked.insert(Direction(from: from.address, to: to.address))
    }

    package func heal(_ a: SimulatedHost, _ b: SimulatedHost) {
        blocked.remove(Direction(from: a.address, to: b.address))
        blocked.remove(Direction(from: b.address, to: a.address))
        releaseHeld()
    }

    /// No partitions, stalls and delays from now on.
    package func heal() {
        blocked = []
        delays = [:]
        releaseHeld()
    }

    /// Every message in this direction takes so much longer.
    package func delay(from: SimulatedHost, to: SimulatedHost, by interval: Interval) {
        delays[Direction(from: from.address, to: to.address)] = interval
    }

    /// Resets every connection between the two machines, on both sides; how many ends that were.
    @discardableResult
    package func cut(_ a: SimulatedHost, _ b: SimulatedHost) -> Int {
        var count = 0
        world.note(.fault, subject, 5 &* stableHash(a.address) &+ stableHash(b.address))
        let addresses = [a.address, b.address]
        for socket in allSockets() where addresses.contains(socket.process.address) {
            guard let other = socket.other, addresses.contains(other.process.address) else { continue }
            guard a.address == b.address || other.process.address != socket.process.address else { continue }
            if !socket.isReset { count += 1 }
            socket.reset()
        }
        return count
    }

    /// Leaves every connection between the two machines half open: the first has lost it, and the other is not told
    /// before it sends something. Gives their number.
    @discardableResult
    package func leaveHalfOpen(lostBy a: SimulatedHost, keptBy b: SimulatedHost) -> Int {
        var count = 0
        world.note(.fault, subject, 7 &* stableHash(a.address) &+ stableHash(b.address))
        for socket in allSockets() where socket.process.address == a.address {
            guard let other = socket.other, other.process.address == b.address else { continue }
            if !socket.isReset { count += 1 }
            socket.reset()
        }
        return count
    }

    /// How many connections are open between the two machines.
    package func connectionsCount(_ a: SimulatedHost, _ b: SimulatedHost) -> Int {
        a.process.sockets.count { !$0.isReset && $0.other?.process.address == b.address }
    }

    // MARK: For the sockets

    func isBlocked(from: String, to: String) -> Bool {
        !blocked.isEmpty && blocked.contains(Direction(from: from, to: to))
    }

    func delay(from: String, to: String) -> Int64 {
        if from != to { messagesCount += 1 }
        let base = from == to ? loopbackLatency.draw(&random) : latency.draw(&random)
        guard !delays.isEmpty, let more = delays[Direction(from: from, to: to)] else { return base }
        return base + more.nanoseconds
    }

    func takeSocketNumber() -> Int {
        socketsCount += 1
        return socketsCount
    }

    private func allSockets() -> [SimulatedSocket] {
        world.hosts.flatMap { Array($0.process.sockets) }
    }

    private func releaseHeld() {
        world.note(.fault, subject, 0)
        for socket in allSockets() { socket.inbound.releaseHeld() }
    }

    func closeSockets(of process: SimulatedProcess, silently: Bool) {
        for listener in listeners.values.filter({ $0.process === process }).sorted(by: { $0.number < $1.number }) {
            listener.close()
        }
        for socket in Array(process.sockets) { socket.processEnded(silently: silently) }
    }

    func end() { listeners = [:] }

    // MARK: Addresses

    /// Loopback addresses are each machine's own, and so is what listens on all of a machine's addresses.
    private static func key(_ address: SocketAddress, at machine: String) -> SocketAddress {
        if isWildcard(address.host) { return wildcardKey(address, at: machine) }
        guard isLoopback(address.host) else { return address }
        return SocketAddress(host: "\(address.host)@\(machine)", port: address.port)
    }

    /// `0.0.0.0` and `::` are families of their own, and go beside each other.
    private static func wildcardKey(_ address: SocketAddress, at machine: String) -> SocketAddress {
        SocketAddress(host: "\(address.host.contains(":") ? "::" : "0.0.0.0")@\(machine)", port: address.port)
    }

    static func isLoopback(_ host: String) -> Bool { host.hasPrefix("127.") || host == "::1" }
    static func isWildcard(_ host: String) -> Bool { host == "0.0.0.0" || host == "::" }

    func takePort(at machine: String) -> UInt16 {
        let port = nextPorts[machine] ?? 32_768
        nextPorts[machine] = port == 60_999 ? 32_768 : port + 1
        return port
    }

    /// Gives the address with its port, or nil where it is taken.
    func register(_ listener: SimulatedListener, on asked: SocketAddress, at machine: String) -> SocketAddress? {
        let attempts = asked.port == 0 ? 28_232 : 1
        for _ in 0..<attempts {
            let address = SocketAddress(host: asked.host, port: asked.port == 0 ? takePort(at: machine) : asked.port)
            let key = Self.key(address, at: machine)
            guard listeners[key] == nil, !collides(address, at: machine) else { continue }
            listeners[key] = listener
            listener.key = key
            return address
        }
        return nil
    }

    private func collides(_ address: SocketAddress, at machine: String) -> Bool {
        let hosts = address.host.contains(":") ? ["::1@\(machine)"] : [machine, "127.0.0.1@\(machine)"]
        let own = hosts.map { SocketAddress(host: $0, port: address.port) }
        if Self.isWildcard(address.host) { return own.contains { listeners[$0] != nil } }
        guard own.contains(Self.key(address, at: machine)) else { return false }
        return listeners[Self.wildcardKey(address, at: machine)] != nil
    }

    func unregister(_ listener: SimulatedListener) {
        if let key = listener.key, listeners[key] === listener { listeners[key] = nil }
    }

    /// The machine that an address leads to from another.
    func machine(of address: SocketAddress, from machine: String) -> String {
        if Self.isLoopback(address.host) || Self.isWildcard(address.host) { return machine }
        return listeners[address]?.process.address ?? address.host
    }

    func listener(at address: SocketAddress, from machine: String) -> SimulatedListener? {
        let target = self.machine(of: address, from: machine)
        return listeners[Self.key(address, at: machine)] ?? listeners[Self.wildcardKey(address, at: target)]
    }

    func address(named name: String) -> String? { world.hosts.first { $0.name == name }?.address }
}
