package import MartletBasics

/// Names one scheduled timer, to cancel it.
package struct TimerToken: Hashable, Sendable {
    package var id: UInt64
    package init(id: UInt64) { self.id = id }
}

/// One thread that turns: it takes what is ready (sockets, timers, work from other threads), runs the handlers to
/// completion, then what was put off to the end of the turn. As a `TaskExecutor` it also runs the jobs of tasks that
/// prefer it, in the order in which they became ready, before the end-of-turn work.
///
/// When the host stops, a loop still does what it was handed, within a bound of turns; what is handed to it later is
/// dropped, and timers that are not due never run.
///
/// State that belongs to a loop is touched on that loop only; `precondition(loop.isCurrent)` guards the doors.
package protocol EventLoop: TaskExecutor {
    var clock: any Clock { get }

    /// Whether the caller runs on this loop.
    var isCurrent: Bool { get }

    /// Whether the loop would now sleep for a millisecond at least: nothing else is ready or due. On the loop only, at
    /// the end of a turn.
    var hasNothingReady: Bool { get }

    /// Runs `work` in a later turn. From any thread; in order for one calling thread. A sleeping loop is woken once for
    /// all that waits.
    func execute(_ work: @escaping @Sendable () -> Void)

    /// Runs `work` when this turn has handled all that was ready, before the loop waits again. On the loop only. Work
    /// added from inside such work still runs in this turn: whoever adds bounds it.
    func atEndOfTurn(_ work: @escaping () -> Void)

    /// Runs `work` once, not before `delay` has passed. On the loop only. Precise to a millisecond.
    @discardableResult
    func schedule(after delay: Interval, _ work: @escaping () -> Void) -> TimerToken

    /// A timer that already ran, or was cancelled, is ignored.
    func cancel(_ timer: TimerToken)

    /// How it has spent its time so far. On the loop only.
    var turnStatistics: TurnStatistics { get }
}

extension EventLoop {
    /// Starts a task on this loop: the one door for background work of several steps (a test, the swarm and tidiness
    /// rely on it).
    @discardableResult
    package func spawn(_ work: sending @escaping @isolated(any) () async -> Void) -> Task<Void, Never> {
        Task(executorPreference: self, operation: work)
    }
}

/// A few threads with a bounded queue for work that blocks or takes long. A lane never delays another.
package protocol Lane: AnyObject, Sendable {
    /// What the metric and the log call it: `sync`, `cold-reads`, `codec`, `bulk`.
    var name: String { get }

    /// What it is doing now. From any thread.
    var status: LaneStatus { get }

    /// From now on so many threads at most; what runs on others is done first. From any thread.
    func resize(threads: Int)

    /// Runs `work` on a thread of the lane and then hands its result to `completion` on `loop`. From any thread.
    /// False when the queue is full: nothing will run, and the caller decides what that means.
    func submit<R: Sendable>(
        _ work: @escaping @Sendable () -> R,
        on loop: any EventLoop,
        then completion: @escaping @Sendable (R) -> Void
    ) -> Bool
}
