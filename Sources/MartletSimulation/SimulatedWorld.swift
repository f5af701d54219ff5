import Glibc
package import MartletBasics

/// Machines, their disks and the network between them, in virtual time, on one thread, from one seed.
///
/// Whatever happens is an event of one queue; the seed decides delays, the order of what is due at once, and what
/// faults take. So a seed run twice gives the same `history`, in any process. docs/design/simulation.md says what
/// code under simulation must keep to for that.
///
/// A world belongs to the thread that made it: every entrance checks, because a task that strayed to Swift's global
/// pool would run at a moment that no seed decides. Hosts refer to their world and the world to its hosts; `end()`
/// parts them.
package final class SimulatedWorld: @unchecked Sendable {
    package let seed: UInt64
    package private(set) var now = Instant(nanoseconds: 0)
    /// How many events have run.
    package private(set) var eventsCount = 0
    package private(set) var recorded: History
    /// Machines and processes in the order of their making, a restarted one in its predecessor's place.
    package private(set) var hosts: [SimulatedHost] = []
    /// The network between the machines, with its faults.
    package private(set) var network: SimulatedFabric! = nil

    /// The hash of all that has happened.
    package var history: UInt64 { recorded.hash }

    private var queue = EventQueue()
    private var scheduling: SeededRandom
    private let thread = pthread_self()
    private let script = Subject("script")
    private var isStepping = false
    private var callersCount = 1

    /// The loop whose turn runs; nil on lanes and in the test's own code.
    var currentLoop: SimulatedLoop?
    /// Who calls: 0 is the test's own code, each loop and each thread of a lane has a number of its own.
    var callerIndex = 0
    /// What the work that runs on a lane has cost so far; nil outside of lanes.
    var laneCost: Int64?
    /// Loops always have something else to do: for tests that want every sync on its lane, where it takes its time.
    package var loopsAreNeverIdle = false

    /// `onLine` takes each line of the history as it comes, instead of their being kept.
    package init(seed: UInt64, keepsLines: Bool = false, onLine: ((String) -> Void)? = nil) {
        self.seed = seed
        recorded = History(keepsLines: keepsLines, onLine: onLine)
        scheduling = SeededRandom(seed: seed)
        network = SimulatedFabric(world: self)
    }

    // MARK: Running

    /// Runs the next event; false where there is none.
    @discardableResult
    package func step() -> Bool {
        checkThread()
        precondition(!isStepping, "a world is run from outside, not from one of its own events")
        guard let time = queue.nextTime() else { return false }
        runNext(at: time)
        return true
    }

    /// Runs everything that is due up to this moment, which it then is.
    package func run(until end: Instant) {
        checkThread()
        precondition(!isStepping, "a world is run from outside, not from one of its own events")
        while let time = queue.nextTime(), time <= end.nanoseconds { runNext(at: time) }
        now = max(now, end)
    }

    package func run(for span: Interval) { run(until: now + span) }

    /// Runs until the condition holds, which is asked after every event; false where the span passed before that.
    package func run(atMost span: Interval, until condition: () -> Bool) -> Bool {
        checkThread()
        precondition(!isStepping, "a world is run from outside, not from one of its own events")
        let end = now + span
        if condition() { return true }
        while let time = queue.nextTime(), time <= end.nanoseconds {
            runNext(at: time)
            if condition() { return true }
        }
        now = max(now, end)
        return false
    }

    /// Runs until nothing is left to happen, timers included; false where that took more events than the limit.
    @discardableResult
    package func runUntilIdle(limit: Int = 10_000_000) -> Bool {
        for _ in 0..<limit where !step() { return true }
        return queue.isEmpty
    }

    private func runNext(at time: Int64) {
        precondition(time >= now.nanoseconds, "time does not go back")
        now = Instant(nanoseconds: time)
        eventsCount += 1
        let body = queue.pop()
        isStepping = true
        body()
        isStepping = false
    }

    /// Kills every host and forgets every event, so that nothing keeps anything alive. The world cannot be used
    /// afterwards.
    package func end() {
        checkThread()
        for host in hosts { host.kill() }
        queue.removeAll()
        hosts = []
        network.end()
    }

    // MARK: The script of a test

    /// Runs a part of the test's own script, as an event: a fault, a look at what is.
    package func after(_ delay: Interval, _ work: @escaping () -> Void) {
        post(after: max(delay.nanoseconds, 0)) { [unowned self] in
            note(.script, script, 0)
            work()
        }
    }

    /// A generator of its own for a test or a workload, the same for the same seed and name.
    package func makeRandom(_ name: String) -> SeededRandom { SeededRandom(seed: seed ^ stableHash(name)) }

    // MARK: Hosts

    /// A machine of its own with an empty disk; its address is 10.0.0.N, N counting from 1.
    @discardableResult
    package func makeHost(_ name: String, loops: Int = 1) -> SimulatedHost {
        let number = hosts.count + 1
        let address = "10.0.\(number >> 8).\(number & 255)"
        return makeHost(name, address: address, files: SimulatedFileSystem(world: self, name: name), loops: loops)
    }

    /// Another process on the machine of a host: the same address and disk.
    @discardableResult
    package func makeProcess(_ name: String, beside other: SimulatedHost, loops: Int = 1) -> SimulatedHost {
        makeHost(name, address: other.address, files: other.files, loops: loops)
    }

    private func makeHost(_ name: String, address: String, files: SimulatedFileSystem, loops: Int) -> SimulatedHost {
        checkThread()
        precondition(!hosts.contains { $0.name == name }, "each host has a name of its own")
        let host = SimulatedHost(
            world: self, name: name, address: address, files: files, incarnation: 1, loopsCount: loops,
            wallOffset: .zero)
        hosts.append(host)
        return host
    }

    func replace(_ old: SimulatedHost, with new: SimulatedHost) {
        guard let place = hosts.firstIndex(where: { $0 === old }) else {
            preconditionFailure("a host is restarted once, and its successor after that")
        }
        hosts[place] = new
    }

    // MARK: Events

    func note(_ kind: HistoryKind, _ subject: Subject, _ digest: UInt64) {
        recorded.note(now.nanoseconds, kind, subject, digest)
    }

    @discardableResult
    func post(after delay: Int64, _ body: @escaping () -> Void) -> EventID {
        post(at: now.nanoseconds &+ delay, body)
    }

    @discardableResult
    func post(at time: Int64, _ body: @escaping () -> Void) -> EventID {
        queue.push(at: max(time, now.nanoseconds), tieBreak: scheduling.next(), body)
    }

    func cancel(_ event: EventID) { queue.cancel(event) }

    /// Bits of the scheduler's own generator, for small delays.
    func randomBits() -> UInt64 { scheduling.next() }

    func takeCallerIndex() -> Int {
        callersCount += 1
        return callersCount - 1
    }

    /// Refuses callers on other threads.
    func checkThread() {
        precondition(
            pthread_equal(thread, pthread_self()) != 0,
            "something under simulation ran on a thread of its own: a Task that was not started by loop.spawn?")
    }
}
