package import MartletBasics
package import MartletReactor

/// A loop of a simulated process. What becomes ready waits for the loop's next turn, which comes a seeded moment
/// later, so that one turn brings sometimes one thing and sometimes many.
/// Jobs that the turn's own work makes ready run in that turn, before what was put off to its end.
///
/// Jobs and work that another loop, a lane or the test hands over arrive after a seeded delay, in order for each
/// caller. When the process dies, what waits is dropped: a task whose job is never run is leaked with all that it
/// holds, on purpose, because a killed process does not unwind either.
package final class SimulatedLoop: EventLoop, @unchecked Sendable {
    private enum Item {
        case job(UnownedJob)
        case work(() -> Void)
        case timer(UInt64)
        case readiness(SimulatedSocket)
    }

    private struct Timer {
        var event: EventID
        var work: () -> Void
    }

    /// Jobs beyond this many that a turn makes ready wait for the next one.
    private static let jobsPerTurnLimit = 1024
    /// More rounds of end-of-turn work than this in one turn never end.
    private static let endOfTurnRoundsLimit = 1_000_000

    package let clock: any Clock
    let process: SimulatedProcess
    private let world: SimulatedWorld
    private let subject: Subject
    private let callerIndex: Int

    private var ready: [Item] = []
    private var spare: [Item] = []
    /// Jobs that this turn has made ready: they run in it, as many as a turn takes.
    private var jobs: [UnownedJob] = []
    private var endOfTurn: [() -> Void] = []
    private var timers: [UInt64: Timer] = [:]
    private var timersCount: UInt64 = 0
    private var isTurnDue = false
    /// By caller, when the last of what it handed over arrives.
    private var lastArrivals: ContiguousArray<Int64> = []

    init(process: SimulatedProcess, clock: SimulatedClock, name: String) {
        self.process = process
        self.clock = clock
        world = process.world
        subject = Subject(name)
        callerIndex = process.world.takeCallerIndex()
    }

    package var isCurrent: Bool { world.currentLoop === self }

    /// As the seed has it, where nothing waits: other threads are never seen from here.
    package var hasNothingReady: Bool {
        ready.isEmpty && jobs.isEmpty && !world.loopsAreNeverIdle && world.randomBits() & 1 == 0
    }

    package func enqueue(_ job: consuming ExecutorJob) {
        world.checkThread()
        let job = UnownedJob(job)
        if isCurrent { jobs.append(job) } else { hand(.job(job)) }
    }

    package func execute(_ work: @escaping @Sendable () -> Void) {
        world.checkThread()
        hand(.work(work))
    }

    package func atEndOfTurn(_ work: @escaping () -> Void) {
        precondition(isCurrent, "work is put off to the end of a turn from within that turn")
        endOfTurn.append(work)
    }

    @discardableResult
    package func schedule(after delay: Interval, _ work: @escaping () -> Void) -> TimerToken {
        precondition(isCurrent, "a timer is set on its loop")
        process.passSeam()
        timersCount += 1
        let id = timersCount
        guard process.isAlive else { return TimerToken(id: id) }
        let jitter = Int64(world.randomBits() % 1_000_000)
        let event = world.post(after: max(delay.nanoseconds, 0) &+ jitter) { [unowned self] in arrive(.timer(id)) }
        timers[id] = Timer(event: event, work: work)
        return TimerToken(id: id)
    }

    package func cancel(_ timer: TimerToken) {
        guard let cancelled = timers.removeValue(forKey: timer.id) else { return }
        world.cancel(cancelled.event)
    }

    /// Its turns take no time of the simulated world: they are counted, each as none.
    package private(set) var turnStatistics = TurnStatistics()

    // MARK: Inside the simulation

    /// Something of the process itself, or of its system, is ready now.
    func arrive(_ work: @escaping () -> Void) { arrive(.work(work)) }

    func arrive(_ socket: SimulatedSocket) { arrive(.readiness(socket)) }

    func stop() {
        // taken out first: what goes away with them may call back
        let dropped = (endOfTurn, timers)
        endOfTurn = []
        timers = [:]
        for id in dropped.1.keys.sorted() { if let timer = dropped.1[id] { world.cancel(timer.event) } }
        for item in ready { leak(item) }
        ready = []
    }

    /// Work that somebody waits for is not let go of when the process dies: that would tell him, and a killed process
    /// tells nobody.
    private func leak(_ item: Item) {
        if case .work(let work) = item { _ = Unmanaged.passRetained(LeakedWork(work)) }
    }

    private func hand(_ item: Item) {
        guard process.isAlive else { return leak(item) }
        let caller = world.callerIndex
        if caller == callerIndex { return arrive(item) }
        while lastArrivals.count <= caller { lastArrivals.append(0) }
        let delay = Int64(world.randomBits() & 0x3FFF)
        let time = max(world.now.nanoseconds + delay, lastArrivals[caller] + 1)
        lastArrivals[caller] = time
        world.post(at: time) { [self] in arrive(item) }
    }

    private func arrive(_ item: Item) {
        guard process.isAlive else { return leak(item) }
        ready.append(item)
        guard !isTurnDue else { return }
        isTurnDue = true
        // mostly at once, now and then after something that took the thread a while
        let bits = world.randomBits()
        let delay = bits & 15 == 0 ? Int64((bits >> 8) & 0x1FFFF) : 200 + Int64((bits >> 8) & 0xFFF)
        world.post(at: process.awake(world.now.nanoseconds + delay)) { [self] in turn() }
    }

    private func turn() {
        let paused = process.awake(world.now.nanoseconds)
        if paused > world.now.nanoseconds {
            world.post(at: paused) { [self] in turn() }
            return
        }
        isTurnDue = false
        guard process.isAlive, !ready.isEmpty else { return }
        turnStatistics.record(.zero)
        var items = spare
        spare = []
        swap(&items, &ready)
        world.currentLoop = self
        world.callerIndex = callerIndex
        for item in items {
            guard process.isAlive else { break }
            run(item)
        }
        var budget = Self.jobsPerTurnLimit
        repeat {
            runJobs(&budget)
            runEndOfTurn()
        } while !jobs.isEmpty && budget > 0 && process.isAlive
        let left = jobs
        jobs = []
        for job in left { arrive(.job(job)) }
        world.currentLoop = nil
        world.callerIndex = 0
        // what the process did not come to, or died in
        if !process.isAlive { for item in items { leak(item) } }
        items.removeAll(keepingCapacity: items.count < 1024)
        spare = items
    }

    private func run(_ item: Item) {
        switch item {
        case .job(let job): run(job)
        case .work(let work):
            world.note(.work, subject, 0)
            work()
        case .timer(let id):
            // cancelled between its time and this turn
            guard let timer = timers.removeValue(forKey: id) else { return }
            world.note(.timer, subject, id)
            timer.work()
            if !process.isAlive { leak(.work(timer.work)) }
        case .readiness(let socket):
            socket.tellReadiness()
        }
    }

    private func run(_ job: UnownedJob) {
        world.note(.job, subject, 0)
        job.runSynchronously(on: asUnownedTaskExecutor())
    }

    private func runJobs(_ budget: inout Int) {
        var index = 0
        while index < jobs.count, budget > 0, process.isAlive {
            run(jobs[index])
            index += 1
            budget -= 1
        }
        jobs.removeFirst(index)
    }

    private func runEndOfTurn() {
        var rounds = 0
        while !endOfTurn.isEmpty, process.isAlive {
            let round = endOfTurn
            endOfTurn = []
            world.note(.endOfTurn, subject, UInt64(round.count))
            for work in round where process.isAlive { work() }
            if !process.isAlive { for work in round { leak(.work(work)) } }
            rounds += 1
            precondition(rounds < Self.endOfTurnRoundsLimit, "end-of-turn work of \(subject.name) adds itself for ever")
        }
    }
}

private final class LeakedWork {
    private let work: () -> Void
    init(_ work: @escaping () -> Void) { self.work = work }
}
