import MartletBasics

/// The bound on the bytes of requests that are being received or handled (`queued.max.request.bytes`, or a bound of our own where that
/// is without limit). A frame that does not arrive in one piece reserves its whole size before its body is read.
final class RequestMemory: @unchecked Sendable {
    let limit: Int
    private let lock = Lock()
    // guarded by the lock:
    private var used = 0
    private var waiting = RingQueue<Connection>()

    init(limit: Int) {
        precondition(limit > 0, "a memory bound is a size")
        self.limit = limit
    }

    /// True if the bytes are reserved now. Otherwise the connection is resumed, on its loop, when it is worth trying again. A frame larger
    /// than all there is gets its turn when nothing else is held.
    func reserve(_ count: Int, for connection: Connection) -> Bool {
        lock.withLock {
            if used == 0 || used + count <= limit {
                used += count
                return true
            }
            waiting.append(connection)
            return false
        }
    }

    func release(_ count: Int) {
        guard count > 0 else { return }
        let next: [Connection] = lock.withLock {
            used -= count
            precondition(used >= 0, "what is released was reserved")
            var woken: [Connection] = []
            while used < limit, woken.count < 8, let connection = waiting.popFirst() { woken.append(connection) }
            return woken
        }
        for connection in next { connection.loop.execute { connection.memoryMayBeFree() } }
    }

    var inUse: Int { lock.withLock { used } }
}
