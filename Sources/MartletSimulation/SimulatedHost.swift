package import MartletBasics
package import MartletReactor

/// One incarnation of a process: the token that everything of it looks at before it acts. Once dead it stays so.
final class SimulatedProcess: @unchecked Sendable {
    let world: SimulatedWorld
    let name: String
    let address: String
    var isAlive = true
    /// Until then its loops and lanes stand still.
    var pausedUntil: Int64 = 0
    var wallOffset: Interval
    /// By how many parts of a million its wall clock runs fast, and since when.
    var wallDrift: (perMillion: Int64, since: Int64) = (0, 0)
    /// What it has worked, where that takes time, and how much of it between two looks at its clock.
    private var worked = Interval.zero
    var workPerLook = Interval.zero
    /// How many more calls of any seam it makes before it is killed.
    var seamCallsLeft: Int?
    /// By open file. Never iterated where the order could be seen.
    var openInodes: [ObjectIdentifier: Inode] = [:]
    /// How many more changing calls its disk takes before the power goes.
    var diskOperationsLeft: Int?
    /// Its open sockets; each knows its place.
    var sockets: ContiguousArray<SimulatedSocket> = []
    weak var host: SimulatedHost?

    init(world: SimulatedWorld, name: String, address: String, wallOffset: Interval) {
        self.world = world
        self.name = name
        self.address = address
        self.wallOffset = wallOffset
    }

    func lookAtClock() -> Instant {
        worked = worked + workPerLook
        return world.now + worked
    }

    var wallMilliseconds: Int64 {
        SimulatedClock.epochMilliseconds + (world.now.nanoseconds + drifted) / 1_000_000 + wallOffset.milliseconds
    }

    private var drifted: Int64 {
        wallDrift.perMillion == 0 ? 0 : (world.now.nanoseconds - wallDrift.since) / 1_000_000 * wallDrift.perMillion
    }

    func drift(_ perMillion: Int64) {
        wallOffset = wallOffset + .nanoseconds(drifted)
        wallDrift = (perMillion, world.now.nanoseconds)
    }

    /// A call of the disk, the network, a timer or a lane. May be the last.
    func passSeam() {
        guard let left = seamCallsLeft, isAlive else { return }
        seamCallsLeft = left - 1
        if left <= 0 { host?.kill() }
    }

    /// The moment itself, or the end of the pause that it lies in.
    func awake(_ time: Int64) -> Int64 { max(time, pausedUntil) }
}

package final class SimulatedClock: Clock, @unchecked Sendable {
    /// The wall clock at the beginning of every world, 2023-11-14T22:13:20Z.
    package static let epochMilliseconds: Int64 = 1_700_000_000_000

    private let process: SimulatedProcess

    init(process: SimulatedProcess) { self.process = process }

    package var now: Instant { process.lookAtClock() }

    package var wallMilliseconds: Int64 { process.wallMilliseconds }
}

/// A process on a simulated machine. It dies once; `restart` gives its successor, on the same disk.
package final class SimulatedHost: Host, @unchecked Sendable {
    package let world: SimulatedWorld
    package let name: String
    package let address: String
    package let incarnation: Int
    /// What the disk holds, and its faults; it outlives the process.
    package let files: SimulatedFileSystem
    package let clock: any Clock
    package let disk: any Disk
    package let network: any Network
    package let loops: [any EventLoop]

    let process: SimulatedProcess
    private let simulatedLoops: [SimulatedLoop]
    private var simulatedLanes: [SimulatedLane] = []
    private var random: SeededRandom
    private let subject: Subject

    init(
        world: SimulatedWorld, name: String, address: String, files: SimulatedFileSystem, incarnation: Int,
        loopsCount: Int, wallOffset: Interval
    ) {
        precondition(loopsCount > 0, "a host has at least one loop")
        self.world = world
        self.name = name
        self.address = address
        self.files = files
        self.incarnation = incarnation
        let process = SimulatedProcess(world: world, name: name, address: address, wallOffset: wallOffset)
        self.process = process
        let clock = SimulatedClock(process: process)
        self.clock = clock
        disk = SimulatedDisk(process: process, files: files)
        network = SimulatedNetwork(process: process)
        simulatedLoops = (0..<loopsCount).map {
            SimulatedLoop(process: process, clock: clock, name: "\(name)/loop-\($0)")
        }
        loops = simulatedLoops
        random = world.makeRandom("\(name)#\(incarnation)")
        subject = Subject(name)
        process.host = self
        world.note(.hostStart, subject, UInt64(incarnation))
    }

    package var isAlive: Bool { process.isAlive }

    /// How far its wall clock is off; may be changed at any time, in both directions.
    package var wallOffset: Interval {
        get { process.wallOffset }
        set { process.wallOffset = newValue }
    }

    /// By how many parts of a million its wall clock runs fast from now on; negative for slow.
    package var wallDrift: Int64 {
        get { process.wallDrift.perMillion }
        set { process.drift(newValue) }
    }

    /// How much it works between two looks at its clock, which runs ahead of the world's by as much: for what counts the
    /// time that requests take. Nothing takes any otherwise.
    package var workPerLook: Interval {
        get { process.workPerLook }
        set { process.workPerLook = newValue }
    }

    package func makeLane(_ name: String, threads: Int, limit: Int) -> any Lane {
        let lane = SimulatedLane(process: process, name: name, threads: threads, limit: limit)
        simulatedLanes.append(lane)
        return lane
    }

    package var lanes: [any Lane] { simulatedLanes }

    /// The machine that it runs on is none of its own.
    package func processUsage() -> ProcessUsage { ProcessUsage() }

    /// Bugs that the broker under test is to have: for tests of what finds them.
    package var planted: PlantedBugs = []

    package func randomBytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next() >> 24) }
    }

    // MARK: What befalls it

    /// The process is killed: nothing of it runs again, its sockets are closed by the system, its locks are released.
    /// What it wrote is in the page cache, and so is there after a restart. A second kill is ignored.
    package func kill() {
        world.checkThread()
        guard process.isAlive else { return }
        world.note(.hostKill, subject, UInt64(incarnation))
        stop(silently: false)
    }

    /// The machine loses power: as `kill` for every process on it, and what was not synced is lost, kept or torn, as
    /// the seed says. Peers learn of it late (`SimulatedFabric.powerCutSilence`).
    package func powerCut() {
        world.checkThread()
        world.note(.powerCut, subject, UInt64(incarnation))
        hasPower = false
        for host in world.hosts where host.files === files && host.process.isAlive { host.stop(silently: true) }
        if process.isAlive { stop(silently: true) }
        files.losePower()
    }

    /// Cuts the power just before the disk call that changes something after so many others, wherever that falls,
    /// also in the midst of one piece of work.
    package func powerCut(afterDiskOperations count: Int) { process.diskOperationsLeft = count }

    /// Kills the process at the call of a seam (disk, network, timer, lane) after so many others, in the midst of whatever
    /// makes it.
    package func kill(afterSeamCalls count: Int) { process.seamCallsLeft = count }

    /// What was to befall it after so many calls does not.
    package func forgetCountdowns() {
        process.diskOperationsLeft = nil
        process.seamCallsLeft = nil
    }

    /// Whether its machine did not lose power when it died.
    package private(set) var hasPower = true

    /// The process stands still, as in a long pause of the machine; what happens meanwhile waits for it.
    package func pause(for span: Interval) {
        world.note(.pause, subject, UInt64(bitPattern: span.nanoseconds))
        process.pausedUntil = max(process.pausedUntil, (world.now + span).nanoseconds)
    }

    /// The next incarnation, on the same disk at the same address. One that lives is killed first.
    package func restart() -> SimulatedHost {
        kill()
        let successor = SimulatedHost(
            world: world, name: name, address: address, files: files, incarnation: incarnation + 1,
            loopsCount: simulatedLoops.count, wallOffset: process.wallOffset)
        successor.planted = planted
        successor.process.wallDrift = process.wallDrift
        world.replace(self, with: successor)
        return successor
    }

    private func stop(silently: Bool) {
        process.isAlive = false
        for loop in simulatedLoops { loop.stop() }
        for lane in simulatedLanes { lane.stop() }
        files.closeAll(of: process)
        world.network.closeSockets(of: process, silently: silently)
    }

    // MARK: The script of a test

    /// Runs a task on one of its loops to the task's end, and throws what it throws; false where it comes to none in this
    /// time, or the process dies before.
    package func run<Fault: Error>(
        atMost span: Interval, on loop: Int = 0, _ body: @escaping @Sendable () async throws(Fault) -> Void
    ) throws(Fault) -> Bool {
        let ending = TaskEnding<Fault>()
        loops[loop].spawn {
            do throws(Fault) {
                try await body()
                ending.result = .success(())
            } catch {
                ending.result = .failure(error)
            }
        }
        _ = world.run(atMost: span) { ending.result != nil || !self.isAlive }
        try ending.result?.get()
        return ending.result != nil
    }
}

/// What a task of a test's script came to; the world is one thread, so nothing guards it.
private final class TaskEnding<Fault: Error>: @unchecked Sendable {
    var result: Result<Void, Fault>?
}
