internal import MartletBasics
package import MartletReactor

/// A lane of a simulated process. A piece of work begins a seeded moment after a thread is free, has its effects on
/// the disk at that moment, and holds its thread for as long as those calls take by the disk's latencies; then its
/// result travels to the loop. A kill or a power cut may fall at each of these moments.
package final class SimulatedLane: Lane, @unchecked Sendable {
    package let name: String
    private let process: SimulatedProcess
    private let world: SimulatedWorld
    private let limit: Int
    private let subject: Subject
    private var threads: Int
    /// Those there are, which may be more while they are at work.
    private var aliveCount: Int
    private var counts = LaneStatus()
    /// Each piece gives back what remains to be done on its completion.
    private var queue: [() -> () -> Void] = []
    private var head = 0
    /// The callers' numbers of threads that have nothing to do.
    private var idle: [Int]

    init(process: SimulatedProcess, name: String, threads: Int, limit: Int) {
        precondition(threads > 0 && limit > 0, "a lane has a thread and a place in its queue")
        self.process = process
        self.name = name
        self.limit = limit
        self.threads = threads
        aliveCount = threads
        world = process.world
        subject = Subject("\(process.name)/\(name)")
        idle = (0..<threads).map { _ in process.world.takeCallerIndex() }
    }

    package var status: LaneStatus {
        var status = counts
        status.queued = queue.count - head
        status.running = aliveCount - idle.count
        return status
    }

    package func resize(threads: Int) {
        precondition(threads > 0, "a lane has a thread")
        self.threads = threads
        while aliveCount < threads {
            idle.append(process.world.takeCallerIndex())
            aliveCount += 1
        }
        endSurplus()
        for _ in 0..<idle.count { beginNext() }
    }

    private func endSurplus() {
        while aliveCount > threads, idle.popLast() != nil { aliveCount -= 1 }
    }

    package func submit<R: Sendable>(
        _ work: @escaping @Sendable () -> R, on loop: any EventLoop, then completion: @escaping @Sendable (R) -> Void
    ) -> Bool {
        world.checkThread()
        process.passSeam()
        // The power went in the middle of the handler that submits: what it does now never happens, and must not look
        // like a full queue.
        guard process.isAlive else { return true }
        guard queue.count - head < limit else {
            counts.refused += 1
            return false
        }
        queue.append {
            let result = work()
            return { loop.execute { completion(result) } }
        }
        beginNext()
        return true
    }

    func stop() {
        let dropped = queue
        queue = []
        head = 0
        withExtendedLifetime(dropped) {}
    }

    private func beginNext() {
        guard head < queue.count, let thread = idle.popLast() else { return }
        let piece = queue[head]
        head += 1
        if head == queue.count {
            queue.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 64, head * 2 > queue.count {
            queue.removeFirst(head)
            head = 0
        }
        let wait = 1_000 + Int64(world.randomBits() & 0x7FFF)
        world.post(after: wait) { [self] in run(piece, on: thread) }
    }

    private func run(_ piece: @escaping () -> () -> Void, on thread: Int) {
        let awake = process.awake(world.now.nanoseconds)
        guard awake == world.now.nanoseconds else {
            world.post(at: awake) { [self] in run(piece, on: thread) }
            return
        }
        guard process.isAlive else { return }
        world.note(.laneWork, subject, UInt64(thread))
        world.callerIndex = thread
        world.laneCost = 1_000 + Int64(world.randomBits() & 0x3FFF)
        let rest = piece()
        let cost = world.laneCost ?? 0
        world.laneCost = nil
        counts.busyNanoseconds += cost
        world.callerIndex = 0
        world.post(after: cost) { [self] in finish(rest, on: thread) }
    }

    private func finish(_ rest: @escaping () -> Void, on thread: Int) {
        guard process.isAlive else { return }
        world.note(.laneCompletion, subject, UInt64(thread))
        counts.completed += 1
        world.callerIndex = thread
        rest()
        world.callerIndex = 0
        idle.append(thread)
        endSurplus()
        beginNext()
    }
}
