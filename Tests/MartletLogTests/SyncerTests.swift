import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// A log as the syncer sees it: it writes, arms, and hears what became of it.
private final class WrittenLog: SyncParticipant, @unchecked Sendable {
    let arming = SyncArming()
    let file: any DiskFile
    private(set) var end: Offset = 0
    private(set) var durable: Offset = 0
    private(set) var failures: [SystemError] = []
    private(set) var syncedCount = 0
    private(set) var syncedAt: Instant?
    /// What arrived for an end that a truncation had taken back.
    private(set) var staleCount = 0
    private var generation: UInt64 = 0
    private var unsyncedBytes = 0
    private var newFolders: [String] = []
    private let syncer: Syncer
    private let clock: any Clock

    init(_ path: String, _ bench: Bench) throws {
        file = try bench.host.disk.open(path, .create)
        (syncer, clock) = (bench.syncer, bench.host.clock)
    }

    func append(_ count: Int = 1, urgent: Bool, newFolder: String? = nil) {
        let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: end), count: count * 10)
        do { try bytes.withUnsafeBytes { try file.write($0, at: end * 10) } } catch { Issue.record("\(error)") }
        end += Int64(count)
        unsyncedBytes += bytes.count
        if let newFolder { newFolders.append(newFolder) }
        syncer.arm(self, urgent: urgent)
    }

    func truncate(to offset: Offset) {
        end = offset
        durable = min(durable, offset)
        generation += 1
        unsyncedBytes = 0
    }

    func takeUnsynced() -> UnsyncedWrites? {
        guard unsyncedBytes > 0 else { return nil }
        defer { (unsyncedBytes, newFolders) = (0, []) }
        return UnsyncedWrites(
            files: [file], folders: newFolders, endOffset: end, generation: generation, bytes: unsyncedBytes)
    }

    func synced(_ writes: UnsyncedWrites) {
        syncedCount += 1
        syncedAt = clock.now
        if writes.generation == generation { durable = writes.endOffset } else { staleCount += 1 }
    }

    func syncFailed(_ writes: UnsyncedWrites, _ error: SystemError) { failures.append(error) }
}

private final class Bench {
    let world: SimulatedWorld
    let host: SimulatedHost
    let syncer: Syncer
    let reported = Reported()

    final class Reported: @unchecked Sendable { var failures: [SystemError] = [] }

    init(
        seed: UInt64 = 1, threads: Int = 8, limit: Int = 64, settings: Syncer.Settings = Syncer.Settings(),
        loopIsIdle: Bool = false
    ) throws {
        world = SimulatedWorld(seed: seed)
        world.loopsAreNeverIdle = !loopIsIdle
        host = world.makeHost("broker")
        try host.disk.makeDirectory("/d")
        try host.disk.syncDirectory("/")
        let reported = reported
        syncer = Syncer(
            disk: host.disk, path: "/d", lane: host.makeLane("sync", threads: threads, limit: limit),
            loop: host.loops[0], settings: settings
        ) { reported.failures.append($0) }
    }

    deinit { world.end() }

    /// Runs on the loop, as handlers do.
    func onLoop(_ work: @escaping @Sendable () -> Void) { host.loops[0].execute(work) }

    func logs(_ count: Int) throws -> [WrittenLog] { try (0..<count).map { try WrittenLog("/d/\($0).log", self) } }
    func durableCount(_ name: String) -> Int { host.files.durableBytes("/d/\(name)")?.count ?? 0 }
}

@Suite struct SyncsInPlace {
    private func append(_ logs: [WrittenLog], _ bench: Bench, urgent: Bool = true) {
        bench.onLoop { for log in logs { log.append(urgent: urgent) } }
        bench.world.runUntilIdle()
    }

    @Test func oneAwaitedFileOnAnIdleLoopIsSyncedByTheLoopItselfOnceTheDiskWasQuick() throws {
        let bench = try Bench(loopIsIdle: true)
        bench.host.files.syncLatency = Latency(.microseconds(100), .microseconds(200))
        let logs = try bench.logs(1)
        append(logs, bench)
        // nothing was known of the disk yet
        #expect(bench.syncer.statistics.inPlace == 0)
        for _ in 0..<100 { append(logs, bench) }
        // the seed says each time whether the loop is idle
        #expect((20...80).contains(bench.syncer.statistics.inPlace))
        #expect(logs[0].durable == 101 && logs[0].syncedCount == 101)
    }

    @Test func severalFilesAndWritesThatNobodyWaitsForGoToTheLane() throws {
        let bench = try Bench(loopIsIdle: true)
        bench.host.files.syncLatency = Latency(.microseconds(100), .microseconds(200))
        let logs = try bench.logs(2)
        for _ in 0..<50 { append(logs, bench) }
        for _ in 0..<50 { append([logs[0]], bench, urgent: false) }
        #expect(bench.syncer.statistics.inPlace == 0)
        #expect(logs.map(\.durable) == [100, 50])
    }

    @Test func aSlowDiskIsLeftToTheLane() throws {
        let bench = try Bench(loopIsIdle: true)
        bench.host.files.syncLatency = Latency(.milliseconds(8), .milliseconds(9))
        let logs = try bench.logs(1)
        for _ in 0..<50 { append(logs, bench) }
        #expect(bench.syncer.statistics.inPlace == 0)
        #expect(logs[0].durable == 50)
    }

    @Test func aFailedSyncInPlaceFailsTheDirectoryAsOneOnTheLaneDoes() throws {
        var inPlace = 0
        for seed in 1...20 as ClosedRange<UInt64> {
            let bench = try Bench(seed: seed, loopIsIdle: true)
            bench.host.files.syncLatency = Latency(.microseconds(100), .microseconds(200))
            let logs = try bench.logs(1)
            append(logs, bench)
            let before = bench.syncer.statistics.inPlace
            bench.host.files.fail(.sync, of: "/d/0.log", with: .inputOutput)
            append(logs, bench)
            inPlace += Int(bench.syncer.statistics.inPlace - before)
            #expect(logs[0].failures.map(\.kind) == [.inputOutput] && logs[0].durable == 1)
            #expect(bench.reported.failures.map(\.kind) == [.inputOutput])
            append(logs, bench)
            #expect(logs[0].failures.count == 2, "a directory that failed stays so")
        }
        #expect((3...17).contains(inPlace))
    }

    @Test func stallsTakeATwentiethOfTheTimeAndADebtIsWorkedOff() {
        var stalls = StallAllowance()
        func isLeft(afterMilliseconds time: Int64) -> Bool { stalls.isLeft(at: Instant(nanoseconds: time * 1_000_000)) }
        #expect(isLeft(afterMilliseconds: 0))
        stalls.charge(.milliseconds(200))
        #expect(!isLeft(afterMilliseconds: 3_199))
        #expect(isLeft(afterMilliseconds: 3_201))
        // an hour of quiet saves no more than the most
        #expect(isLeft(afterMilliseconds: 3_600_000))
        stalls.charge(.milliseconds(41))
        #expect(!isLeft(afterMilliseconds: 3_600_000))
    }
}

@Suite struct GroupCommits {
    @Test func whatATurnAppendsSharesOneCycle() throws {
        let bench = try Bench()
        let logs = try bench.logs(5)
        bench.onLoop { for log in logs { for _ in 0..<3 { log.append(urgent: true) } } }
        bench.world.runUntilIdle()
        #expect(logs.allSatisfy { $0.durable == 3 && $0.syncedCount == 1 })
        #expect(bench.syncer.statistics.cycles == 1)
        #expect(bench.syncer.statistics.files == 5)
        #expect(bench.syncer.statistics.bytes == 150)
        #expect(bench.syncer.statistics.latency.total == 1)
    }

    @Test func whatIsDurableIsOnTheDiskWhenItIsTold() throws {
        let bench = try Bench()
        let log = try WrittenLog("/d/a.log", bench)
        bench.onLoop { log.append(4, urgent: true, newFolder: "/d") }
        #expect(bench.world.run(atMost: .seconds(1)) { log.durable == 4 })
        #expect(bench.durableCount("a.log") == 40)
        #expect(bench.syncer.statistics.folders == 1)
    }

    @Test func aFolderThatWasMovedAwayMeanwhileIsNoFaultOfTheDisk() throws {
        let bench = try Bench()
        let logs = try bench.logs(2)
        // a compaction changed the folder, and a move took it away before the cycle came to it
        bench.onLoop {
            logs[0].append(urgent: true, newFolder: "/d/moved-0")
            logs[1].append(urgent: true)
        }
        #expect(bench.world.run(atMost: .seconds(1)) { logs.allSatisfy { $0.durable == 1 } })
        #expect(logs.allSatisfy { $0.failures.isEmpty } && bench.reported.failures.isEmpty)
        // the log directory itself is another matter
        bench.host.files.fail(.syncDirectory, of: "/d", with: .inputOutput)
        bench.onLoop { logs[0].append(urgent: true, newFolder: "/d/moved-0") }
        #expect(bench.world.run(atMost: .seconds(1)) { logs[0].failures.map(\.kind) == [.inputOutput] })
    }

    @Test func appendsWhileACycleRunsMakeUpTheNextAndItBeginsAtOnce() throws {
        let bench = try Bench()
        bench.host.files.syncLatency = Latency(.milliseconds(10), .milliseconds(10))
        let log = try WrittenLog("/d/a.log", bench)
        bench.onLoop { log.append(urgent: true) }
        for step in 1...4 {
            bench.world.after(.milliseconds(Int64(step))) { bench.onLoop { log.append(urgent: true) } }
        }
        #expect(bench.world.run(atMost: .milliseconds(15)) { log.durable == 1 })
        #expect(bench.world.run(atMost: .milliseconds(12)) { log.durable == 5 })
        #expect(bench.syncer.statistics.cycles == 2)
    }

    @Test func whereNobodyWaitsTheSyncBeginsAfterTheDelayCountedFromTheFirstAppend() throws {
        let bench = try Bench()
        bench.host.files.syncLatency = Latency(.zero, .zero)
        let log = try WrittenLog("/d/a.log", bench)
        bench.onLoop { log.append(urgent: false) }
        for step in 1...19 {
            bench.world.after(.microseconds(Int64(step * 100))) { bench.onLoop { log.append(urgent: false) } }
        }
        bench.world.run(for: .microseconds(1900))
        #expect(log.durable == 0)
        // a timer is precise to a millisecond
        #expect(bench.world.run(atMost: .microseconds(1400)) { log.durable == 20 })
        #expect(bench.syncer.statistics.cycles == 1)
    }

    @Test func whoWaitsDoesNotWaitForTheDelay() throws {
        let bench = try Bench()
        bench.host.files.syncLatency = Latency(.zero, .zero)
        let logs = try bench.logs(2)
        bench.onLoop { logs[0].append(urgent: false) }
        bench.world.after(.microseconds(100)) { bench.onLoop { logs[0].append(urgent: true) } }
        bench.world.after(.microseconds(100)) { bench.onLoop { logs[1].append(urgent: false) } }
        #expect(bench.world.run(atMost: .milliseconds(1)) { logs[0].durable == 2 })
        bench.world.runUntilIdle()
        #expect(logs[1].durable == 1)
    }

    @Test func fewFilesAreSyncedAtTheSameTime() throws {
        let bench = try Bench()
        bench.host.files.syncLatency = Latency(.milliseconds(10), .milliseconds(10))
        let logs = try bench.logs(8)
        bench.onLoop { for log in logs { log.append(urgent: true) } }
        #expect(bench.world.run(atMost: .milliseconds(12)) { logs.allSatisfy { $0.durable == 1 } })
    }

    @Test func moreFilesThanTheThresholdAreSyncedAsAFileSystem() throws {
        let bench = try Bench()
        bench.host.files.syncLatency = Latency(.milliseconds(10), .milliseconds(10))
        let logs = try bench.logs(200)
        bench.onLoop { for log in logs { log.append(urgent: true) } }
        #expect(bench.world.run(atMost: .milliseconds(12)) { logs.allSatisfy { $0.durable == 1 } })
        #expect(bench.syncer.statistics.fileSystemSyncs == 1)
        #expect(bench.syncer.statistics.files == 200)
        #expect((0..<200).allSatisfy { bench.durableCount("\($0).log") == 10 })
    }

    @Test func aTruncationDuringASyncIsNotUndoneByItsEnd() throws {
        let bench = try Bench()
        bench.host.files.syncLatency = Latency(.milliseconds(10), .milliseconds(10))
        let log = try WrittenLog("/d/a.log", bench)
        bench.onLoop { log.append(9, urgent: true) }
        bench.world.after(.milliseconds(5)) {
            bench.onLoop {
                log.truncate(to: 3)
                log.append(urgent: true)
            }
        }
        #expect(bench.world.run(atMost: .milliseconds(12)) { log.staleCount == 1 })
        #expect(log.durable == 0)
        bench.world.runUntilIdle()
        #expect(log.durable == 4)
    }

    @Test func aFullLaneIsAskedAgain() throws {
        let bench = try Bench(threads: 1, limit: 1)
        let logs = try bench.logs(4)
        bench.onLoop { for log in logs { log.append(urgent: true) } }
        bench.world.runUntilIdle()
        #expect(logs.allSatisfy { $0.durable == 1 })
        #expect(bench.syncer.statistics.cycles == 1)
        #expect(bench.syncer.statistics.refusals > 0)
    }

    @Test func drainingWaitsForAllThatWasArmedAndForNoDelay() throws {
        var settings = Syncer.Settings()
        settings.delay = .seconds(60)
        let bench = try Bench(settings: settings)
        let log = try WrittenLog("/d/a.log", bench)
        let drained = Bench.Reported()
        let (syncer, reported) = (
            bench.syncer, SystemError(.other, code: 0, operation: "drained", subject: "", reason: "")
        )
        syncer.drain { drained.failures.append(reported) }
        #expect(bench.world.run(atMost: .milliseconds(1)) { drained.failures.count == 1 })
        bench.onLoop {
            log.append(urgent: false)
            syncer.drain { if log.durable == 1 { drained.failures.append(reported) } }
        }
        #expect(bench.world.run(atMost: .milliseconds(30)) { drained.failures.count == 2 })
    }
}

@Suite struct FailedSyncs {
    @Test func whatDidNotReachTheDiskIsNeverCalledDurable() throws {
        let bench = try Bench()
        let logs = try bench.logs(3)
        bench.host.files.fail(.sync, of: "/d/1.log", with: .inputOutput)
        bench.onLoop { for log in logs { log.append(urgent: true) } }
        bench.world.runUntilIdle()
        #expect(logs.map(\.durable) == [1, 0, 1])
        #expect(logs[1].failures.map(\.kind) == [.inputOutput])
        #expect(bench.reported.failures.map(\.kind) == [.inputOutput])
        #expect(bench.syncer.statistics.failures == 1)
    }

    @Test func afterOneFailedSyncALaterSuccessIsNotBelieved() throws {
        let bench = try Bench()
        let logs = try bench.logs(2)
        bench.host.files.fail(.sync, of: "/d/0.log", with: .inputOutput)
        bench.onLoop { logs[0].append(urgent: true) }
        bench.world.runUntilIdle()
        bench.onLoop { for log in logs { log.append(urgent: true) } }
        bench.world.runUntilIdle()
        #expect(logs.map(\.durable) == [0, 0])
        #expect(logs.map(\.failures.count) == [2, 1])
        #expect(bench.reported.failures.count == 1, "the directory goes offline once")
    }

    @Test func aFailedSyncOfTheFileSystemFailsEverybody() throws {
        let bench = try Bench()
        let logs = try bench.logs(70)
        bench.host.files.fail(.syncFileSystem, with: .inputOutput)
        bench.onLoop { for log in logs { log.append(urgent: true) } }
        bench.world.runUntilIdle()
        #expect(logs.allSatisfy { $0.durable == 0 && $0.failures.count == 1 })
    }

    @Test func aFolderThatCannotBeSyncedFailsItsLog() throws {
        let bench = try Bench()
        let logs = try bench.logs(2)
        bench.host.files.fail(.syncDirectory, of: "/d", with: .inputOutput)
        bench.onLoop {
            logs[0].append(urgent: true)
            logs[1].append(urgent: true, newFolder: "/d")
        }
        bench.world.runUntilIdle()
        #expect(logs.map(\.durable) == [1, 0])
    }

    /// Logs, appends, delays and power cuts at any moment: what was called durable is on the disk.
    @Test(arguments: 0..<30) func whatWasCalledDurableSurvivesAPowerCut(seed: Int) throws {
        let bench = try Bench(seed: UInt64(seed))
        var random = bench.world.makeRandom("appends")
        let logs = try bench.logs(6)
        try bench.host.disk.syncDirectory("/d")
        for step in 0..<200 {
            let log = logs[random.below(logs.count)]
            let (count, urgent) = (1 + random.below(5), random.chance(1, in: 2))
            bench.world.after(.microseconds(Int64(step * 100))) { bench.onLoop { log.append(count, urgent: urgent) } }
        }
        bench.world.run(for: .microseconds(Int64(random.below(22_000))))
        bench.host.powerCut()
        for (index, log) in logs.enumerated() {
            #expect(bench.durableCount("\(index).log") >= Int(log.durable) * 10, "seed \(seed)")
        }
    }
}
