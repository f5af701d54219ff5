import MartletBasics
package import MartletReactor

/// Who waits for request memory.
package protocol MemoryWaiter: AnyObject, Sendable {
    var loop: any EventLoop { get }
    /// On `loop`: so much is reserved for it now, and its to release, also when it wants it no more.
    func memoryGranted(_ count: Int)
}

/// The bound on the bytes of requests that are being received or handled (`queued.max.request.bytes`, or a bound of our own where that
/// is without limit). A frame that does not arrive in one piece reserves its whole size before its body is read.
///
/// First come, first served: a large frame is not overtaken for ever by small ones.
package final class RequestMemory: @unchecked Sendable {
    package let limit: Int
    private let lock = Lock()
    // guarded by the lock:
    private var used = 0
    private var waiting = RingQueue<(waiter: any MemoryWaiter, count: Int)>()

    package init(limit: Int) {
        precondition(limit > 0, "a memory bound is a size")
        self.limit = limit
    }

    /// True if the bytes are reserved now. Otherwise the waiter is told when they are. A frame larger than all there is gets its turn
    /// when nothing else is held.
    package func reserve(_ count: Int, for waiter: any MemoryWaiter) -> Bool {
        lock.withLock {
            if waiting.isEmpty, fits(count) {
                used += count
                return true
            }
            waiting.append((waiter, count))
            return false
        }
    }

    private func fits(_ count: Int) -> Bool { used == 0 || count <= limit - used }

    package func release(_ count: Int) {
        guard count > 0 else { return }
        let granted = lock.withLock {
            used -= count
            precondition(used >= 0, "what is released was reserved")
            return grant()
        }
        tell(granted)
    }

    /// It waits no more: it is gone. What it was granted already, it is told of, and releases.
    package func withdraw(_ waiter: any MemoryWaiter) {
        let granted = lock.withLock {
            var rest = RingQueue<(waiter: any MemoryWaiter, count: Int)>()
            while let entry = waiting.popFirst() { if entry.waiter !== waiter { rest.append(entry) } }
            waiting = rest
            return grant()
        }
        tell(granted)
    }

    private func grant() -> [(waiter: any MemoryWaiter, count: Int)] {
        var granted: [(waiter: any MemoryWaiter, count: Int)] = []
        while let next = waiting.first, fits(next.count) {
            used += next.count
            granted.append(next)
            waiting.popFirst()
        }
        return granted
    }

    private func tell(_ granted: [(waiter: any MemoryWaiter, count: Int)]) {
        for (waiter, count) in granted { waiter.loop.execute { waiter.memoryGranted(count) } }
    }

    package var inUse: Int { lock.withLock { used } }
    package var waitingCount: Int { lock.withLock { waiting.count } }
}
