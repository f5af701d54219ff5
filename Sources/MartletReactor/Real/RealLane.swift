import CMartlet

/// Threads that take work from one bounded queue. They start when work first finds none of them free.
package final class RealLane: Lane, @unchecked Sendable {
    static let stackBytes = 1 << 20

    package let name: String
    private let limit: Int
    private let monitor = Monitor()

    private struct Piece {
        var work: () -> Void
        var submitted: Int64
    }

    // Guarded by the monitor:
    /// A ring: `count` pieces from `head` on.
    private var ring: [Piece?]
    private var head = 0
    private var count = 0
    private var threadsLimit: Int
    private var threads: [Thread] = []
    /// Those of them that have not ended, there being too many.
    private var aliveCount = 0
    private var idle = 0
    private var isOpen = true
    private var counts = LaneStatus()

    init(_ name: String, threads: Int, limit: Int) {
        precondition(threads > 0 && limit > 0, "a lane has a thread and room for work")
        self.name = name
        threadsLimit = threads
        self.limit = limit
        ring = Array(repeating: nil, count: min(limit, 64))
    }

    package func submit<R: Sendable>(
        _ work: @escaping @Sendable () -> R,
        on loop: any EventLoop,
        then completion: @escaping @Sendable (R) -> Void
    ) -> Bool {
        add {
            let result = work()
            loop.execute { completion(result) }
        }
    }

    package var status: LaneStatus {
        monitor.withLock {
            var status = counts
            status.queued = count
            return status
        }
    }

    /// Of the threads that have not ended.
    package var threadCount: Int { monitor.withLock { aliveCount } }

    package func resize(threads: Int) {
        precondition(threads > 0, "a lane has a thread")
        monitor.withLock {
            threadsLimit = threads
            // what waits needs no further piece of work to bring it a thread
            var missing = count - idle
            while missing > 0, aliveCount < threadsLimit, isOpen, startThread() { missing -= 1 }
            // who has nothing to do ends, where there are too many
            monitor.broadcast()
        }
    }

    private func add(_ work: @escaping () -> Void) -> Bool {
        let now = martlet_monotonic_nanoseconds()
        let (isTaken, isAwaited) = monitor.withLock { take(Piece(work: work, submitted: now)) }
        // after the lock: who is woken wants it
        if isAwaited { monitor.signal() }
        return isTaken
    }

    /// Whether there was room for it, and whether a thread must be woken for it. Under the lock.
    private func take(_ piece: Piece) -> (Bool, Bool) {
        guard isOpen, count < limit else {
            counts.refused += 1
            return (false, false)
        }
        // the pieces that wait may already be as many as the threads that were woken for them
        if idle <= count, aliveCount < threadsLimit, !startThread(), aliveCount == 0 {
            counts.refused += 1
            return (false, false)
        }
        if count == ring.count { growRing() }
        ring[(head + count) % ring.count] = piece
        count += 1
        return (true, idle > 0)
    }

    /// False where the system gives no thread: those that are there carry on.
    private func startThread() -> Bool {
        let thread = try? Thread(name, stackBytes: Self.stackBytes, quiet: true) { [self] in serve() }
        guard let thread else { return false }
        threads.append(thread)
        aliveCount += 1
        return true
    }

    private func growRing() {
        var larger: [Piece?] = []
        larger.reserveCapacity(min(ring.count * 2, limit))
        for index in 0..<count { larger.append(ring[(head + index) % ring.count]) }
        larger.append(contentsOf: repeatElement(nil, count: min(ring.count * 2, limit) - count))
        ring = larger
        head = 0
    }

    private func serve() {
        while let piece = next() {
            let start = martlet_monotonic_nanoseconds()
            piece.work()
            let spent = martlet_monotonic_nanoseconds() - start
            monitor.withLock {
                counts.running -= 1
                counts.completed += 1
                counts.busyNanoseconds += spent
                counts.waitedNanoseconds += max(start - piece.submitted, 0)
            }
        }
    }

    private func next() -> Piece? {
        monitor.withLock {
            while count == 0, isOpen, aliveCount <= threadsLimit {
                idle += 1
                monitor.wait()
                idle -= 1
            }
            guard count > 0, aliveCount <= threadsLimit || !isOpen else {
                aliveCount -= 1
                return nil
            }
            let piece = ring[head]
            ring[head] = nil
            head = (head + 1) % ring.count
            count -= 1
            counts.running += 1
            return piece
        }
    }

    /// Takes no more, does what waits, and ends the threads. Not from the lane itself.
    func close() {
        let ending = monitor.withLock {
            isOpen = false
            monitor.broadcast()
            let ending = threads
            threads = []
            return ending
        }
        for thread in ending { thread.join() }
    }
}
