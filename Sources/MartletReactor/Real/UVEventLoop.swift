import CMartlet
import CUV
package import MartletBasics
import Synchronization

/// The real event loop: one thread, libuv for readiness and its timer, everything else here.
///
/// A turn, in libuv's order:
///
///     poll      socket handlers; work that other threads handed over (one wake-up for all that waits)
///     timers    those that are due
///     prepare   calls put off to this turn (`execute` from the loop itself in the turn before), jobs of tasks, then
///               end-of-turn work; the timer is armed, and the loop waits unless something is left to do
///
/// Fields below "on the loop" are touched by its thread alone; `inbox` is what other threads reach.
package final class UVEventLoop: EventLoop, @unchecked Sendable {
    /// So many jobs of tasks run in one turn; a chain of tasks that never ends does not keep sockets waiting.
    static let jobsPerTurnLimit = 1024
    /// So many turns a stopping loop takes for work that makes new work.
    static let drainTurnsLimit = 1000
    /// Arrays that a burst made larger than this give their memory back.
    private static let keptCapacity = 4096

    private enum Work {
        case call(@Sendable () -> Void)
        case job(UnownedJob)
    }

    private struct Inbox {
        var work: [Work] = []
        /// A wake-up is under way for all that is in `work`.
        var isWoken = false
        var isOpen = true
    }

    package let clock: any Clock
    package let name: String
    private let realClock: RealClock
    private let inbox = Mutex(Inbox())
    /// Threads between leaving the inbox and having sent the wake-up: the loop's memory outlives them.
    private let wakers = Atomic<Int>(0)
    /// The thread that turns this loop; 0 before and after.
    private let owner = Atomic<UInt>(0)

    // On the loop:
    let uv = UnsafeMutablePointer<uv_loop_t>.allocate(capacity: 1)
    private let wakeUp: WakeUp
    private let turnEnd = UnsafeMutablePointer<uv_prepare_t>.allocate(capacity: 1)
    private let stayAwake = UnsafeMutablePointer<uv_idle_t>.allocate(capacity: 1)
    private let timer = UnsafeMutablePointer<uv_timer_t>.allocate(capacity: 1)
    private var timers = TimerHeap()
    private var armedDeadline: Instant?
    private var isKeptAwake = false
    private var batch: [Work] = []
    /// Calls of this turn for the next, and those of the turn before for this.
    private var later: [@Sendable () -> Void] = []
    private var due: [@Sendable () -> Void] = []
    private var jobs: [UnownedJob] = []
    private var endOfTurn: [() -> Void] = []
    private var isFinished = false
    /// How many turns were taken: for tests.
    package private(set) var turns: UInt64 = 0
    package private(set) var turnStatistics = TurnStatistics()
    /// When the last turn ended, and how long the loop had waited in all by then.
    private var turnEnded: Instant
    private var idleNanoseconds: Int64 = 0

    package init(name: String, clock: RealClock) throws(SystemError) {
        self.name = name
        self.clock = clock
        realClock = clock
        wakeUp = try WakeUp(name)
        turnEnded = clock.now
        let code = uv_loop_init(uv)
        guard code == 0 else {
            // an object that its own initializer leaves is deinitialized only with all fields set: they are
            isFinished = true
            throw SystemError(errno: code, "uv_loop_init", name)
        }
        let context = Unmanaged.passUnretained(self).toOpaque()
        let watchCode = wakeUp.startWatching(on: self)
        guard watchCode == 0 else {
            uv_loop_close(uv)
            isFinished = true
            throw SystemError(errno: watchCode, "uv_poll_init", name)
        }
        wakeUp.listen()
        // without it every wait would count as a long turn; it has been there for longer than any libuv we build with
        precondition(martlet_uv_count_idle_time(uv) == 0, "libuv counts the time that a loop waits")
        uv_prepare_init(uv, turnEnd)
        uv_idle_init(uv, stayAwake)
        uv_timer_init(uv, timer)
        turnEnd.pointee.data = context
        timer.pointee.data = context
        stayAwake.pointee.data = context
        uv_prepare_start(turnEnd) { handle in UVEventLoop.of(handle!.pointee.data).endTurn() }
    }

    deinit {
        precondition(isFinished, "a loop is finished before its last reference goes")
        uv.deallocate()
        turnEnd.deallocate()
        stayAwake.deallocate()
        timer.deallocate()
    }

    @inline(__always)
    private static func of(_ data: UnsafeMutableRawPointer?) -> UVEventLoop {
        Unmanaged<UVEventLoop>.fromOpaque(data!).takeUnretainedValue()
    }

    // MARK: Work

    package var isCurrent: Bool { owner.load(ordering: .relaxed) == martlet_thread_self() }

    package var hasNothingReady: Bool {
        precondition(isCurrent, "what is ready is asked on the loop")
        guard due.isEmpty, later.isEmpty, jobs.isEmpty else { return false }
        if let earliest = timers.earliest, earliest - realClock.now < .milliseconds(1) { return false }
        // the descriptor that libuv waits on can itself be asked
        return martlet_is_readable(uv_backend_fd(uv)) == 0
    }

    package func execute(_ work: @escaping @Sendable () -> Void) {
        if isCurrent {
            later.append(work)
        } else {
            handOver(.call(work))
        }
    }

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if isCurrent {
            jobs.append(job)
        } else {
            handOver(.job(job))
        }
    }

    package func atEndOfTurn(_ work: @escaping () -> Void) {
        precondition(isCurrent, "end-of-turn work is added on the loop")
        endOfTurn.append(work)
    }

    @discardableResult
    package func schedule(after delay: Interval, _ work: @escaping () -> Void) -> TimerToken {
        precondition(isCurrent, "a timer is set on its loop")
        return timers.add(realClock.now + max(delay, .zero), work)
    }

    package func cancel(_ timer: TimerToken) {
        precondition(isCurrent, "a timer is cancelled on its loop")
        timers.cancel(timer)
    }

    /// How many timers are set: for metrics and tests.
    package var timerCount: Int { timers.count }

    private func handOver(_ work: Work) {
        let mustWake = inbox.withLock { inbox -> Bool in
            guard inbox.isOpen else { return false }
            inbox.work.append(work)
            guard !inbox.isWoken else { return false }
            inbox.isWoken = true
            wakers.add(1, ordering: .relaxed)
            return true
        }
        guard mustWake else { return }
        wakeUp.send()
        wakers.subtract(1, ordering: .releasing)
    }

    fileprivate func takeInbox() {
        inbox.withLock { inbox in
            inbox.isWoken = false
            let taken = inbox.work
            inbox.work = batch
            batch = taken
        }
        let executor = asUnownedTaskExecutor()
        for work in batch {
            switch work {
            case .call(let call): call()
            case .job(let job): job.runSynchronously(on: executor)
            }
        }
        batch.removeAll(keepingCapacity: batch.capacity <= Self.keptCapacity)
    }

    // MARK: The turn

    private func endTurn() {
        turns &+= 1
        runDue()
        var budget = Self.jobsPerTurnLimit
        repeat {
            runJobs(&budget)
            runEndOfTurn()
        } while !jobs.isEmpty && budget > 0
        swap(&due, &later)
        armTimer()
        countTurn()
        let hasWork = !due.isEmpty || !jobs.isEmpty
        guard hasWork != isKeptAwake else { return }
        isKeptAwake = hasWork
        if hasWork {
            uv_idle_start(stayAwake) { _ in }
        } else {
            uv_idle_stop(stayAwake)
        }
    }

    private func countTurn() {
        let now = realClock.now
        let idle = Int64(clamping: uv_metrics_idle_time(uv))
        turnStatistics.record((now - turnEnded) - .nanoseconds(idle - idleNanoseconds))
        turnEnded = now
        idleNanoseconds = idle
    }

    private func runDue() {
        guard !due.isEmpty else { return }
        for call in due { call() }
        due.removeAll(keepingCapacity: due.capacity <= Self.keptCapacity)
    }

    private func runJobs(_ budget: inout Int) {
        guard !jobs.isEmpty else { return }
        let executor = asUnownedTaskExecutor()
        var index = 0
        while index < jobs.count, budget > 0 {
            let job = jobs[index]
            index += 1
            budget -= 1
            job.runSynchronously(on: executor)
        }
        if index == jobs.count {
            jobs.removeAll(keepingCapacity: jobs.capacity <= Self.keptCapacity)
        } else {
            jobs.removeFirst(index)
        }
    }

    private func runEndOfTurn() {
        guard !endOfTurn.isEmpty else { return }
        var index = 0
        while index < endOfTurn.count {
            let work = endOfTurn[index]
            index += 1
            work()
        }
        endOfTurn.removeAll(keepingCapacity: endOfTurn.capacity <= Self.keptCapacity)
    }

    private func runTimers() {
        armedDeadline = nil
        let now = realClock.now
        while let work = timers.popDue(now) { work() }
    }

    /// libuv counts whole milliseconds of the same clock: the first one at which the deadline has passed.
    private func armTimer() {
        let earliest = timers.earliest
        guard earliest != armedDeadline else { return }
        armedDeadline = earliest
        guard let earliest else {
            uv_timer_stop(timer)
            return
        }
        let dueMilliseconds = UInt64(max(earliest.nanoseconds, 0)) / 1_000_000 + 1
        let now = uv_now(uv)
        let wait = dueMilliseconds - min(now, dueMilliseconds)
        uv_timer_start(timer, { handle in UVEventLoop.of(handle!.pointee.data).runTimers() }, wait, 0)
    }

    // MARK: Life

    /// Makes the calling thread the loop's, before `run`: what it sets up then counts as done on the loop.
    func claim() { owner.store(martlet_thread_self(), ordering: .relaxed) }

    /// Turns until `requestStop`.
    func run() {
        claim()
        uv_run(uv, UV_RUN_DEFAULT)
    }

    /// Makes `run` return after the turn that takes this up. From any thread.
    func requestStop() {
        execute { [self] in uv_stop(uv) }
    }

    /// The end, on the loop's thread, after `run`: takes turns until nothing is left to do now (timers are not waited
    /// for), closes every socket, and gives all back. Work that comes later is dropped.
    func finish() {
        precondition(isCurrent, "a loop is finished by its own thread")
        var turnsLeft = Self.drainTurnsLimit
        repeat {
            uv_run(uv, UV_RUN_NOWAIT)
            turnsLeft -= 1
        } while turnsLeft > 0 && hasWork
        inbox.withLock { $0.isOpen = false }
        while wakers.load(ordering: .acquiring) != 0 { martlet_thread_yield() }
        uv_walk(
            uv,
            { handle, _ in
                guard let handle, uv_is_closing(handle) == 0 else { return }
                if handle.pointee.type == UV_POLL {
                    PollHandle.of(handle.pointee.data).loopEnds()
                } else if handle.pointee.type == UV_SIGNAL {
                    SignalHandle.of(handle.pointee.data).close()
                } else {
                    uv_close(handle, nil)
                }
            }, nil)
        uv_run(uv, UV_RUN_DEFAULT)
        let code = uv_loop_close(uv)
        precondition(code == 0, "every handle of a finished loop is closed")
        timers = TimerHeap()
        isFinished = true
        owner.store(0, ordering: .relaxed)
    }

    private var hasWork: Bool {
        !due.isEmpty || !later.isEmpty || !jobs.isEmpty || !endOfTurn.isEmpty || inbox.withLock { !$0.work.isEmpty }
    }
}

/// What another thread wakes a loop by: an eventfd of our own.
///
/// `uv_async_send` would do the same, but until the sender has returned from its system call the woken loop spins
/// (libuv 1.44, `uv__async_spin`): with a wake-up for every sync that cost more than all the rest of a small request.
private final class WakeUp: PollHandle, @unchecked Sendable {
    init(_ name: String) throws(SystemError) {
        let descriptor = martlet_event_make()
        super.init(descriptor: max(descriptor, -1))
        if descriptor < 0 { throw SystemError(errno: descriptor, "eventfd", name) }
    }

    deinit { if descriptor >= 0 { _ = martlet_close(descriptor) } }

    func listen() { arm(Int32(UV_READABLE.rawValue)) }

    /// From any thread.
    func send() { martlet_event_signal(descriptor) }

    override func became(_ events: Int32, failed: Bool) {
        precondition(!failed, "an eventfd does not fail")
        martlet_event_clear(descriptor)
        loop?.takeInbox()
    }

    override func loopEnds() { stopWatching() }
}
