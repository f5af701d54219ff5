import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// A log directory that somebody has to do something about, on a simulated disk.
private final class RepairWorld {
    let world: LogWorld
    var disk: any Disk { world.disk }
    let directory = "data/log"
    var folder: String { world.folder }
    let partition = TopicPartition("topic", 0)
    private(set) var batches: [[UInt8]] = []

    /// Twelve segments and their small files, as after a clean stop.
    init(seed: UInt64, segmentBytes: Int32 = 600) throws {
        world = LogWorld(seed: seed)
        world.config.segmentBytes = segmentBytes
        let log = try world.create()
        for index in 0..<60 {
            let identity = BatchIdentity(producerID: 5, epoch: 0, baseSequence: Int32(index))
            let value = "v\(index)" + String(repeating: "x", count: index % 30)
            try log.append(batch([value], at: Int64(1000 + index), identity: identity))
        }
        batches = try log.batches()
        try log.close(clean: true)
        let rows = OffsetCheckpoint([partition: 60])
        for checkpoint in [LogDirectory.Checkpoint.recoveryPoint, .highWatermark] {
            try disk.replace("\(directory)/\(checkpoint.rawValue)", with: rows.encode())
        }
        let identity = MetaProperties(brokerID: 1, clusterID: "c", wallMilliseconds: 0)
        try disk.replace("\(directory)/meta.properties", with: identity.encode())
        try disk.replace("\(directory)/.kafka_cleanshutdown", with: CleanShutdownMarker.encode(brokerEpoch: -1))
    }

    var bases: [Offset] {
        get throws {
            try disk.list(folder).compactMap { SegmentFile.parse($0) }.filter { $0.kind == .log && $0.suffix.isEmpty }
                .map(\.baseOffset).sorted()
        }
    }

    /// Everything that lies in the directory, by path.
    func contents(_ folder: String) throws -> [String: [UInt8]] {
        var all: [String: [UInt8]] = [:]
        for name in try disk.list(folder) where name != ".lock" {
            let path = folder + "/" + name
            if try disk.status(path)?.isDirectory == true {
                all.merge(try contents(path)) { first, _ in first }
            } else {
                all[path] = try disk.contents(path)
            }
        }
        return all
    }

    func repair(aside: String? = nil) throws -> LogRepair { try LogRepair(directory, as: .directory, on: disk, aside: aside) }

    func perform(givingUpRecords: Bool) throws -> [RepairStep] {
        let repair = try repair()
        defer { repair.close() }
        return try repair.perform(
            givingUpRecords: givingUpRecords, clock: world.clock, logger: Logger("repair", to: world.lines))
    }

    func findings() throws -> [Finding] {
        var verifier = LogVerifier(disk: disk)
        try verifier.verify(directory, as: .directory)
        return verifier.findings.filter { $0.severity == .damage }
    }

    func spoil(_ path: String, at offset: Int64) throws { try world.overwrite(path, at: offset, [0xDE, 0xAD, 0xBE, 0xEF]) }
}

@Suite struct RepairsOfLogDirectories {
    @Test func aSoundDirectoryIsLeftAsItIs() throws {
        let world = try RepairWorld(seed: 1)
        let before = try world.contents(world.directory)
        let repair = try world.repair()
        #expect(!repair.isNeeded && repair.steps.isEmpty)
        repair.close()
        #expect(try world.contents(world.directory) == before)
    }

    @Test func aDirectoryInUseIsNotTouched() throws {
        let world = try RepairWorld(seed: 1)
        let lock = try #require(try world.disk.lock("\(world.directory)/.lock"))
        defer { lock.close() }
        let error = #expect(throws: LogError.self) { try world.repair() }
        #expect(error == .directoryLocked(path: world.directory))
    }

    @Test func lookingChangesNothing() throws {
        let world = try RepairWorld(seed: 2)
        try world.spoil(world.world.path(.log, try world.bases[3]), at: 70)
        try world.disk.remove(world.world.path(.timeIndex, 0))
        let before = try world.contents("data")
        let repair = try world.repair()
        #expect(repair.isNeeded && repair.givesUpRecords && repair.steps.count >= 2)
        repair.close()
        #expect(try world.contents("data") == before)
    }

    @Test(arguments: [
        SegmentFile.offsetIndex.rawValue, SegmentFile.timeIndex.rawValue, SegmentFile.snapshot.rawValue,
        LeaderEpochHistory.fileName,
    ]) func whatRepeatsTheBatchesIsMadeAnewAndTheOldOneKept(kind: String) throws {
        let world = try RepairWorld(seed: 3)
        let name = try #require(try world.disk.list(world.folder).sorted().last { $0.hasSuffix(kind) })
        let path = "\(world.folder)/\(name)"
        let sound = try #require(try world.disk.contents(path))
        try world.spoil(path, at: 0)
        let damaged = try #require(try world.disk.contents(path))
        #expect(try !world.findings().isEmpty)
        #expect(try world.perform(givingUpRecords: false).isEmpty)
        #expect(try world.disk.contents("data/log-set-aside/topic-0/\(name)") == damaged)
        // how densely an index is made is a setting of the topic, which is not in its folder
        let isIndex = kind == SegmentFile.offsetIndex.rawValue || kind == SegmentFile.timeIndex.rawValue
        #expect(try isIndex || world.disk.contents(path) == sound, "\(name) says again what it said")
        #expect(try world.findings().isEmpty)
        #expect(try world.world.open(recoveryPoint: 60).batches() == world.batches)
    }

    @Test func damageInTheMiddleCostsRecordsOnlyWhereSomebodySaysSo() throws {
        for seed in UInt64(1)...12 {
            let world = try RepairWorld(seed: seed)
            var random = SeededRandom(seed: seed)
            let bases = try world.bases
            let base = bases[random.below(bases.count - 1)]
            let path = world.world.path(.log, base)
            try world.spoil(path, at: 62 + Int64(random.below(Int(try world.world.sizeOf(path)) - 70)))
            let before = try world.contents(world.directory)

            let left = try world.perform(givingUpRecords: false)
            #expect(left.contains { $0.givesUpRecords && $0.path == path }, "seed \(seed)")
            var after = try world.contents(world.directory)
            // only the claim of a clean stop went
            after["\(world.directory)/.kafka_cleanshutdown"] = before["\(world.directory)/.kafka_cleanshutdown"]
            #expect(after == before, "seed \(seed)")

            #expect(try world.perform(givingUpRecords: true).isEmpty, "seed \(seed)")
            let damaged = try #require(before[path])
            let kept = try #require(try world.disk.contents(path))
            let aside = "data/log-set-aside/topic-0/\(SegmentFile.log.name(base)).from-\(kept.count)"
            let taken = try #require(try world.disk.contents(aside), "seed \(seed): nothing set aside from \(kept.count) on")
            #expect(kept + taken == damaged, "seed \(seed): not a byte is lost")
            for later in bases where later > base {
                let name = SegmentFile.log.name(later)
                #expect(try world.disk.contents("data/log-set-aside/topic-0/\(name)") == before["\(world.folder)/\(name)"])
            }
            #expect(try world.findings().isEmpty, "seed \(seed)")
            let point = try OffsetCheckpoint.read(world.disk, "\(world.directory)/recovery-point-offset-checkpoint")
            let log = try world.world.open(recoveryPoint: try #require(point[world.partition]))
            let served = try log.batches()
            #expect(served == Array(world.batches[..<served.count]) && served.count < world.batches.count, "seed \(seed)")
            #expect(log.logEndOffset == point[world.partition])
            // the log can be written to where it ends now
            let next = BatchIdentity(producerID: 5, epoch: 0, baseSequence: Int32(served.count))
            try log.append(batch(["again"], identity: next))
        }
    }

    @Test func aTornTailIsNoLossAndIsCutWithoutBeingAskedTwice() throws {
        let world = try RepairWorld(seed: 5)
        for name in [".kafka_cleanshutdown", "recovery-point-offset-checkpoint"] {
            try world.disk.remove("\(world.directory)/\(name)")
        }
        let path = world.world.path(.log, try #require(try world.bases.last))
        try world.world.cutFile(path, to: try world.world.sizeOf(path) - 3)
        let repair = try world.repair()
        #expect(repair.isNeeded && !repair.givesUpRecords, "\(repair.steps)")
        repair.close()
        #expect(try world.perform(givingUpRecords: false).isEmpty)
        #expect(try world.world.open().batches() == Array(world.batches.dropLast()))
    }

    @Test func aTailThatWasSyncedIsNoTornOne() throws {
        let world = try RepairWorld(seed: 6)
        let path = world.world.path(.log, try #require(try world.bases.last))
        try world.world.cutFile(path, to: try world.world.sizeOf(path) - 3)
        let repair = try world.repair()
        #expect(repair.givesUpRecords, "the recovery point lies behind it")
        repair.close()
    }

    @Test func aDamagedCheckpointIsSetAside() throws {
        let world = try RepairWorld(seed: 7)
        let path = "\(world.directory)/replication-offset-checkpoint"
        try world.disk.replace(path, with: Array("0\n9\n".utf8))
        #expect(try world.perform(givingUpRecords: false).isEmpty)
        #expect(try world.disk.contents(path) == nil)
        #expect(try world.disk.contents("data/log-set-aside/replication-offset-checkpoint") == Array("0\n9\n".utf8))
    }

    @Test func aPowerCutInTheMiddleOfARepairLosesNothing() throws {
        for operations in stride(from: 1, through: 160, by: 3) {
            let world = try RepairWorld(seed: 8)
            let (base, bases) = (try world.bases[4], try world.bases)
            try world.spoil(world.world.path(.log, base), at: 70)
            let before = try world.contents(world.folder)
            // what was there before was on the disk
            for folder in [world.folder, world.directory, "data"] { try world.disk.syncDirectory(folder) }
            for path in before.keys.sorted() { try world.disk.open(path, .readWrite).sync() }
            for name in try world.disk.list(world.directory) {
                let path = "\(world.directory)/\(name)"
                if try world.disk.status(path)?.isDirectory == false { try world.disk.open(path, .readWrite).sync() }
            }
            world.world.host!.powerCut(afterDiskOperations: operations)
            _ = try? world.perform(givingUpRecords: true)
            world.world.crash(powerCut: true)
            for other in bases {
                let path = world.world.path(.log, other)
                let name = SegmentFile.log.name(other)
                let whole = try #require(before[path])
                let left = try world.disk.contents(path) ?? []
                let whole2 = try world.disk.contents("data/log-set-aside/topic-0/\(name)")
                let end = try world.disk.contents("data/log-set-aside/topic-0/\(name).from-\(left.count)")
                let isThere = left == whole || whole2 == whole || left + (end ?? []) == whole
                #expect(isThere, "\(name) after \(operations) operations")
            }
        }
    }
}
