import MartletBasics
import MartletModel
import MartletReactor

/// The open connections of a broker, and the bounds on them (`max.connections`, `max.connections.per.ip`,
/// `connections.max.idle.ms`).
final class Connections: @unchecked Sendable {
    private static let sweepInterval = Interval.seconds(1)

    private let lock = Lock()
    // guarded by the lock:
    private var open: [UInt64: Connection] = [:]
    private var perAddress: [String: Int] = [:]
    private var perListener: [String: Int] = [:]
    private var admitted = 0
    private var nextID: UInt64 = 1
    private var isClosing = false
    /// Somebody waits for a place.
    private var isFull = false
    private var fullListeners: Set<String> = []
    private var counts = Statistics()

    private let running: RunningConfig
    private let log: Logger

    init(running: RunningConfig, log: Logger) {
        self.running = running
        self.log = log
    }

    struct Statistics: Sendable {
        var open = 0
        var opened: UInt64 = 0
        var closed: UInt64 = 0
        /// For want of a place.
        var refused: UInt64 = 0
    }

    var statistics: Statistics {
        lock.withLock {
            var counts = counts
            counts.open = open.count
            return counts
        }
    }

    /// For a world that stands still.
    var largestOutbox: Int { lock.withLock { open.values.map { $0.outbox.pending }.max() ?? 0 } }
    var count: Int { lock.withLock { open.count } }

    enum Admission {
        case admitted(UInt64)
        /// Its address has as many as it may have.
        case refused
        /// There is no place for anybody now.
        case full
        /// There is none for those who come by this listener.
        case listenerFull
    }

    /// A place for a connection from this address, by this listener.
    func admit(_ peer: SocketAddress, by listener: String) -> Admission {
        let config = running.current
        let limit = config.connectionLimitOverrides.first { $0.host == peer.host }?.count ?? config.connectionLimitPerAddress
        let (admission, refusal): (Admission, String?) = lock.withLock {
            if isClosing { return (.refused, "the broker is stopping") }
            if perAddress[peer.host, default: 0] >= Int(limit) {
                counts.refused += 1
                return (.refused, "max.connections.per.ip (\(limit)) are open from this address")
            }
            if admitted >= Int(config.connectionLimit) {
                let isNews = !isFull
                isFull = true
                return (.full, isNews ? "max.connections (\(config.connectionLimit)) are open: it waits for a place" : nil)
            }
            let most = config.settings.connectionLimit(ofListener: listener)
            if let most, perListener[listener, default: 0] >= Int(most) {
                let isNews = fullListeners.insert(listener).inserted
                let reason = "listener.name.\(listener.lowercased()).max.connections (\(most)) are open: it waits for a place"
                return (.listenerFull, isNews ? reason : nil)
            }
            isFull = false
            fullListeners.remove(listener)
            perListener[listener, default: 0] += 1
            perAddress[peer.host, default: 0] += 1
            admitted += 1
            nextID += 1
            return (.admitted(nextID), nil)
        }
        if let refusal { log.warning("a connection was not accepted", ("client", peer.description), ("reason", refusal)) }
        return admission
    }

    func opened(_ connection: Connection) {
        lock.withLock {
            open[connection.id] = connection
            counts.opened += 1
        }
        log.debug("connection opened", ("client", connection.socket.peer.description), ("listener", connection.listener.name))
    }

    func closed(_ connection: Connection, _ reason: String) {
        let host = connection.socket.peer.host
        let known = lock.withLock {
            let left = perAddress[host, default: 1] - 1
            perAddress[host] = left > 0 ? left : nil
            perListener[connection.listener.name, default: 1] -= 1
            admitted -= 1
            counts.closed += 1
            return open.removeValue(forKey: connection.id) != nil
        }
        precondition(known, "a connection is closed once")
        let isOrdinary = reason == "the peer closed" || reason == "the peer has gone" || reason == "idle"
        let fields = [("client", connection.socket.peer.description), ("reason", reason)]
        if isOrdinary { log.debug("connection closed", fields[0], fields[1]) } else { log.warning("connection closed", fields[0], fields[1]) }
    }

    /// Starts the look at idle and slow connections on each loop.
    func watch(_ loop: any EventLoop) {
        loop.execute { [weak self] in self?.sweep(loop) }
    }

    private func sweep(_ loop: any EventLoop) {
        let isOver = lock.withLock { isClosing }
        guard !isOver else { return }
        let now = loop.clock.now
        let idle = running.current.connectionIdleLimit ?? .milliseconds(.max)
        for connection in all(on: loop) { connection.checkPace(now: now, idleLimit: idle) }
        loop.schedule(after: Self.sweepInterval) { [weak self] in self?.sweep(loop) }
    }

    /// In the order in which they came.
    private func all(on loop: any EventLoop) -> [Connection] {
        lock.withLock { open.values.filter { $0.loop === loop } }.sorted { $0.id < $1.id }
    }

    /// Closes those of a loop that came by certain listeners, after a while. From any loop.
    func closeLater(on loop: any EventLoop, after delay: Interval, where isMeant: @escaping @Sendable (Listener) -> Bool) {
        loop.execute { [weak self] in
            loop.schedule(after: delay) {
                for connection in self?.all(on: loop) ?? [] where isMeant(connection.listener) {
                    connection.close("its listener was taken away")
                }
            }
        }
    }

    /// Closes those of a loop that hold the most memory, until they hold less by so much. On it.
    func closeLargest(on loop: any EventLoop, toFree bytes: Int) {
        var left = bytes
        for connection in all(on: loop).sorted(by: { $0.countedMemory > $1.countedMemory }) {
            guard left > 0, connection.countedMemory > 0 else { return }
            left -= connection.countedMemory
            let bytes = connection.countedMemory
            connection.close("memory is short, and it holds \(bytes) bytes of answers not taken, or of input that waits")
        }
    }

    /// Admits no more, and closes those of this loop. On it.
    func closeAll(on loop: any EventLoop) {
        lock.withLock { isClosing = true }
        for connection in all(on: loop) { connection.close("the broker is stopping") }
    }
}
