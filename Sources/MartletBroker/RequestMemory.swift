import MartletBasics
package import MartletReactor

/// Who waits for request memory.
package protocol MemoryWaiter: AnyObject, Sendable {
    var loop: any EventLoop { get }
    /// On `loop`: so much is reserved for it now, and its to release, also when it wants it no more.
    func memoryGranted(_ count: Int)
}

/// The bound on the bytes of requests that are being received or handled (`queued.max.request.bytes`, or a bound of
/// our own where that is without limit). A frame that does not arrive in one piece reserves its whole size before its
/// body is read.
///
/// Large frames and small ones wait in lines of their own, each first come, first served, so that a few who send large
/// ones slowly hold up nobody else: large frames have at most three quarters of it, but for a single one that is larger.
/// While one waits, small ones keep to what it leaves, at least an eighth, so that it gets its turn.
package final class RequestMemory: @unchecked Sendable {
    package let limit: Int
    /// A frame above this is large.
    private let largeSize: Int
    private let largeLimit: Int
    private let smallLeast: Int
    private let lock = Lock()
    // guarded by the lock:
    private var small = Line()
    private var large = Line()

    private struct Line {
        var used = 0
        var waiting = RingQueue<(waiter: any MemoryWaiter, count: Int)>()
    }

    package init(limit: Int) {
        precondition(limit > 0, "a memory bound is a size")
        self.limit = limit
        largeSize = limit / 8
        largeLimit = limit / 4 * 3
        smallLeast = limit / 8
    }

    private func isLarge(_ count: Int) -> Bool { count > largeSize }

    /// True if the bytes are reserved now. Otherwise the waiter is told when they are. A frame larger than all there
    /// is gets its turn when no other large one is held.
    package func reserve(_ count: Int, for waiter: any MemoryWaiter) -> Bool {
        lock.withLock {
            if isLarge(count) {
                if large.waiting.isEmpty, largeFits(count) {
                    large.used += count
                    return true
                }
                large.waiting.append((waiter, count))
            } else {
                if small.waiting.isEmpty, smallFits(count) {
                    small.used += count
                    return true
                }
                small.waiting.append((waiter, count))
            }
            return false
        }
    }

    private func largeFits(_ count: Int) -> Bool {
        if large.used == 0 { return small.used <= smallLeast || count <= limit - small.used }
        return count <= largeLimit - large.used && count <= limit - large.used - small.used
    }

    private func smallFits(_ count: Int) -> Bool {
        if small.used == 0 { return true }
        guard let next = large.waiting.first else { return count <= max(limit - large.used, smallLeast) - small.used }
        return count <= max(limit - max(large.used, next.count), smallLeast) - small.used
    }

    package func release(_ count: Int) {
        guard count > 0 else { return }
        let granted = lock.withLock {
            if isLarge(count) { large.used -= count } else { small.used -= count }
            precondition(large.used >= 0 && small.used >= 0, "what is released was reserved")
            return grant()
        }
        tell(granted)
    }

    /// It waits no more: it is gone. What it was granted already, it is told of, and releases.
    package func withdraw(_ waiter: any MemoryWaiter) {
        let granted = lock.withLock {
            Self.withdraw(waiter, from: &small)
            Self.withdraw(waiter, from: &large)
            return grant()
        }
        tell(granted)
    }

    private static func withdraw(_ waiter: any MemoryWaiter, from line: inout Line) {
        var rest = RingQueue<(waiter: any MemoryWaiter, count: Int)>()
        while let entry = line.waiting.popFirst() { if entry.waiter !== waiter { rest.append(entry) } }
        line.waiting = rest
    }

    private func grant() -> [(waiter: any MemoryWaiter, count: Int)] {
        var granted: [(waiter: any MemoryWaiter, count: Int)] = []
        while let next = large.waiting.first, largeFits(next.count) {
            large.used += next.count
            granted.append(next)
            large.waiting.popFirst()
        }
        while let next = small.waiting.first, smallFits(next.count) {
            small.used += next.count
            granted.append(next)
            small.waiting.popFirst()
        }
        return granted
    }

    private func tell(_ granted: [(waiter: any MemoryWaiter, count: Int)]) {
        for (waiter, count) in granted { waiter.loop.execute { waiter.memoryGranted(count) } }
    }

    package var inUse: Int { lock.withLock { large.used + small.used } }
    package var waitingCount: Int { lock.withLock { large.waiting.count + small.waiting.count } }
    /// Somebody waits: what arrives now may have to wait as well.
    package var isShort: Bool { waitingCount > 0 }
    /// Somebody waits for what a frame of this size holds: if it is slow it holds up others.
    package func isShort(for count: Int) -> Bool {
        lock.withLock { isLarge(count) ? !large.waiting.isEmpty : !small.waiting.isEmpty }
    }
}
