import MartletBasics
import MartletKeeper
import MartletReactor
import Testing

/// A machine in one thread: virtual time, loops that turn when they are told to, lanes whose work runs in an order that the
/// seed chooses, and a disk that loses power.
final class World: Host, @unchecked Sendable {
    var random: SeededRandom
    let time = VirtualClock()
    let memory: MemoryDisk
    private(set) var turning: [WorldLoop] = []
    fileprivate var lanes: [WorldLane] = []
    fileprivate weak var current: WorldLoop?
    /// Work on lanes is held back while this is set.
    var holdsLanes = false

    init(seed: UInt64 = 1, disk: MemoryDisk? = nil, loops: Int = 1) {
        random = SeededRandom(seed: seed)
        memory = disk ?? MemoryDisk(seed: seed)
        turning = (0..<loops).map { _ in WorldLoop(self) }
    }

    var clock: any Clock { time }
    var disk: any Disk { memory }
    var network: any Network { preconditionFailure("the keeper inside the process has no network") }
    var loops: [any EventLoop] { turning }
    var loop: WorldLoop { turning[0] }

    func makeLane(_ name: String, threads: Int, limit: Int) -> any Lane {
        let lane = WorldLane(name: name, limit: limit)
        lanes.append(lane)
        return lane
    }

    func randomBytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) } }

    /// One thing happens; false when nothing is ready.
    func step() -> Bool {
        let ready = turning.filter(\.isReady)
        let busy = holdsLanes ? [] : lanes.filter { !$0.queue.isEmpty }
        let choices = ready.count + busy.count
        guard choices > 0 else { return false }
        let choice = random.below(choices)
        if choice < ready.count { ready[choice].turn() } else { busy[choice - ready.count].queue.removeFirst()() }
        return true
    }

    /// Lets time pass to the next timer.
    func passTime(until limit: Instant) -> Bool {
        guard let next = turning.compactMap(\.nextTimer).min(), next <= limit else { return false }
        time.now = max(time.now, next)
        for loop in turning { loop.fireTimers() }
        return true
    }

    func settle() { while step() {} }

    func pass(_ interval: Interval) {
        let end = time.now + interval
        settle()
        while passTime(until: end) { settle() }
        time.now = end
    }

    /// Runs a task on the first loop to its end.
    func run(_ body: @escaping @Sendable (World) async throws -> Void, at location: SourceLocation = #_sourceLocation) {
        final class Outcome: @unchecked Sendable { var isDone = false }
        let outcome = Outcome()
        loop.spawn {
            do { try await body(self) } catch { Issue.record(error, sourceLocation: location) }
            outcome.isDone = true
        }
        var turns = 0
        while !outcome.isDone, turns < 1_000_000 {
            turns += 1
            if !step(), !passTime(until: time.now + .seconds(600)) { break }
        }
        #expect(outcome.isDone, "the task waits for something that never comes", sourceLocation: location)
    }

    func openKeeper(_ change: (inout KeeperSettings) -> Void = { _ in }) async throws(KeeperError) -> EmbeddedKeeper {
        var settings = KeeperSettings(directory: "/keeper")
        change(&settings)
        return try await EmbeddedKeeper.open(
            host: self, loop: loop, settings: settings, logger: Logger("keeper", to: SilentLog()))
    }
}

final class VirtualClock: Clock, @unchecked Sendable {
    var now = Instant(nanoseconds: 1_000_000_000)
    var wallMilliseconds: Int64 { 1_700_000_000_000 + now.nanoseconds / 1_000_000 }
}

final class WorldLane: Lane, @unchecked Sendable {
    let name: String
    let limit: Int
    var queue: [() -> Void] = []

    init(name: String, limit: Int) {
        self.name = name
        self.limit = limit
    }

    func submit<R: Sendable>(
        _ work: @escaping @Sendable () -> R, on loop: any EventLoop, then completion: @escaping @Sendable (R) -> Void
    ) -> Bool {
        guard queue.count < limit else { return false }
        queue.append {
            let result = work()
            loop.execute { completion(result) }
        }
        return true
    }
}

final class WorldLoop: EventLoop, @unchecked Sendable {
    private unowned let world: World
    private var ready: [() -> Void] = []
    private var endOfTurn: [() -> Void] = []
    private var timers: [(id: UInt64, at: Instant, work: () -> Void)] = []
    private var lastTimer: UInt64 = 0

    init(_ world: World) { self.world = world }

    var clock: any Clock { world.clock }
    var isCurrent: Bool { world.current === self }
    var isReady: Bool { !ready.isEmpty }
    var nextTimer: Instant? { timers.map(\.at).min() }

    func execute(_ work: @escaping @Sendable () -> Void) { ready.append(work) }
    func atEndOfTurn(_ work: @escaping () -> Void) { endOfTurn.append(work) }

    func schedule(after delay: Interval, _ work: @escaping () -> Void) -> TimerToken {
        lastTimer += 1
        timers.append((lastTimer, clock.now + delay, work))
        return TimerToken(id: lastTimer)
    }

    func cancel(_ timer: TimerToken) { timers.removeAll { $0.id == timer.id } }

    func enqueue(_ job: consuming ExecutorJob) {
        let unowned = UnownedJob(job)
        ready.append { [self] in unowned.runSynchronously(on: asUnownedTaskExecutor()) }
    }

    func fireTimers() {
        let due = timers.filter { $0.at <= clock.now }.sorted { $0.at == $1.at ? $0.id < $1.id : $0.at < $1.at }
        timers.removeAll { $0.at <= clock.now }
        ready += due.map(\.work)
    }

    func turn() {
        world.current = self
        let batch = ready
        ready = []
        for work in batch { work() }
        while !endOfTurn.isEmpty { endOfTurn.removeFirst()() }
        world.current = nil
    }
}

/// Collects what callbacks say, in order.
final class Record<Element>: @unchecked Sendable {
    var all: [Element] = []
    func add(_ element: Element) { all.append(element) }
}

extension KeeperSession {
    /// A watcher that writes `kind path` into a record.
    func recorder(_ record: Record<String>) -> Watcher { Watcher { record.add("\($0.kind) \($0.path)") } }
}

/// The code with which something is refused.
func refusal<R>(_ body: () async throws(KeeperError) -> R) async -> KeeperErrorCode? {
    do throws(KeeperError) {
        _ = try await body()
        return nil
    } catch { return error.code }
}
