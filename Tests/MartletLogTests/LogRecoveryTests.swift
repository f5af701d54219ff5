import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

@Suite struct LogRecoveryTests {
    /// A log of many small segments, all of it in the page cache, and the process gone.
    private func crashed(seed: UInt64, records: Int = 60, segmentBytes: Int32 = 700) throws -> (LogWorld, [[UInt8]]) {
        let world = LogWorld(seed: seed)
        world.config.segmentBytes = segmentBytes
        let log = try world.create()
        var random = SeededRandom(seed: seed &* 31)
        for index in 0..<records {
            let values = (0...random.below(3)).map {
                "v\(index).\($0)" + String(repeating: "x", count: random.below(40))
            }
            try log.append(batch(values, at: Int64(index), codec: random.chance(1, in: 2) ? .lz4 : .none))
        }
        let batches = try log.batches()
        world.crash(powerCut: false)
        return (world, batches)
    }

    private func segments(_ world: LogWorld) throws -> [Offset] {
        try world.disk.list(world.folder).compactMap { SegmentFile.parse($0) }.filter {
            $0.kind == .log && $0.suffix.isEmpty
        }
        .map(\.baseOffset).sorted()
    }

    /// The batches that lie whole before a byte of a segment.
    private func survivors(_ batches: [[UInt8]], _ bases: [Offset], segment: Offset, before byte: Int64) -> [[UInt8]] {
        var position: Int64 = 0
        return Array(
            batches.prefix { batch in
                let header = batch.withUnsafeBytes { BatchHeader($0) }
                if header.baseOffset < segment { return true }
                position += Int64(batch.count)
                return position <= byte
            })
    }

    @Test func aTailTornAnywhereIsCutAtTheLastWholeBatchAndPutAside() throws {
        for seed in UInt64(1)...60 {
            let (world, batches) = try crashed(seed: seed)
            var random = SeededRandom(seed: seed)
            let bases = try segments(world)
            let base = bases[bases.count - 1 - random.below(min(2, bases.count))]
            let path = world.path(.log, base)
            let size = try world.sizeOf(path)
            let byte = Int64(random.below(Int(size)))
            let kind = random.below(3)
            switch kind {
            case 0: try world.cutFile(path, to: byte)
            case 1: try world.overwrite(path, at: byte, [UInt8](repeating: 0, count: Int(size - byte)))
            default: world.host!.files.flipBits(path, in: byte..<byte + 1)
            }
            var left = survivors(batches, bases, segment: base, before: byte)
            let log = try world.open(bound: 0)
            var found = try log.batches()
            if kind == 2, found.count == batches.count {
                // offset and epoch lie outside the checksum, and so does nothing else: the flip was in an epoch
                let changed = zip(found, batches).filter { $0 != $1 }
                #expect(
                    changed.count == 1 && changed.allSatisfy { $0[..<12] == $1[..<12] && $0[16...] == $1[16...] },
                    "seed \(seed)")
                left = batches
                found = batches
            }
            #expect(
                found == left || kind == 1 && found.count >= left.count,
                "seed \(seed), kind \(kind), byte \(byte) of segment \(base)")
            #expect(
                log.logEndOffset == (found.last.map { $0.withUnsafeBytes { BatchHeader($0).nextOffset } } ?? bases[0]),
                "seed \(seed)")
            if found.count < batches.count {
                #expect(kind == 0 || kind == 1 || world.lines.says("cutting"), "seed \(seed)")
            }
            // what is appended then is found after another crash
            try log.append(batch(["after"], at: 1000))
            world.crash(powerCut: false)
            let again = try world.open()
            #expect(again.logEndOffset == log.logEndOffset, "seed \(seed)")
            #expect(try again.records().last == "\(log.logEndOffset - 1):after", "seed \(seed)")
        }
    }

    /// A system drops what a failed sync was to write and calls the pages clean: they are still seen, another sync of the
    /// file succeeds, and the power takes them.
    @Test func whatAFailedSyncDroppedIsWrittenAgainByTheNextProcess() throws {
        for seed in UInt64(1)...40 {
            let world = LogWorld(seed: seed)
            let log = try world.create()
            try log.append(batch(["synced"]))
            try log.sync(world.disk)
            for number in 0..<10 { try log.append(batch([String(repeating: "\(number)", count: 2_000)])) }
            world.host!.files.fail(.sync, of: ".log", with: .inputOutput)
            #expect(throws: SystemError.self) { try log.sync(world.disk) }
            world.host!.files.heal()
            world.crash(powerCut: false)
            let next = try world.open(bound: 1)
            let records = try next.records()
            #expect(records.count == 11, "seed \(seed): the page cache shows all of it")
            try next.sync(world.disk)
            world.crash(powerCut: true)
            let last = try world.open(bound: 11)
            #expect(try last.records() == records, "seed \(seed): what was called durable is there")
        }
    }

    @Test func whatIsCutIsKeptAsideByteForByte() throws {
        let (world, batches) = try crashed(seed: 7, records: 5, segmentBytes: 1 << 20)
        let path = world.path(.log)
        let all = try #require(try world.disk.contents(path))
        let third = batches[0].count + batches[1].count
        try world.overwrite(path, at: Int64(third + 70), [0xFF, 0xFE])
        let damaged = try #require(try world.disk.contents(path))
        let log = try world.open()
        #expect(try log.batches() == Array(batches[..<2]))
        #expect(try world.disk.contents(path) == Array(all[..<third]))
        let aside = try world.disk.list(world.cutDirectory)
        #expect(aside == ["topic-0.00000000000000000000.log.\(third)"])
        #expect(try world.disk.contents("\(world.cutDirectory)/\(aside[0])") == Array(damaged[third...]))
        #expect(world.lines.says("position=\(third)") && world.lines.says("bytes=\(damaged.count - third)"))
    }

    @Test func damageBelowWhatWasSyncedIsReportedAndNothingIsDropped() throws {
        for seed in UInt64(1)...20 {
            let (world, batches) = try crashed(seed: seed)
            var random = SeededRandom(seed: seed)
            let end = batches.last!.withUnsafeBytes { BatchHeader($0).nextOffset }
            let victim = random.below(batches.count)
            let header = batches[victim].withUnsafeBytes { BatchHeader($0) }
            let base = try segments(world).last { $0 <= header.baseOffset }!
            var position: Int64 = 0
            for other in batches[..<victim] where other.withUnsafeBytes({ BatchHeader($0).baseOffset }) >= base {
                position += Int64(other.count)
            }
            try world.overwrite(world.path(.log, base), at: position + 25, [0xAA, 0xBB, 0xCC, 0xDD])
            let files = try segments(world).map { world.path(.log, $0) }
            let before = try files.map { try world.disk.contents($0) }
            // the bound lies above the damaged batch: its records had been synced
            let bound = Offset.random(in: (header.baseOffset + 1)...end, using: &random)
            let error = #expect(throws: LogError.self) { try world.open(bound: bound) }
            guard case .damagedBelowDurable(_, let offset, bound, _) = error else {
                Issue.record("seed \(seed): \(String(describing: error))")
                continue
            }
            #expect(offset == header.baseOffset, "seed \(seed)")
            #expect(try files.map { try world.disk.contents($0) } == before, "seed \(seed)")
            // at or below it the crash may have left anything
            let log = try world.open(bound: header.baseOffset)
            #expect(log.logEndOffset == header.baseOffset, "seed \(seed)")
        }
    }

    @Test func recordsThatWereSyncedAndAreGoneAreDamage() throws {
        let (world, batches) = try crashed(seed: 3)
        let end = batches.last!.withUnsafeBytes { BatchHeader($0).nextOffset }
        let base = try segments(world).last!
        try world.cutFile(world.path(.log, base), to: 0)
        #expect(throws: LogError.self) { try world.open(bound: end) }
        #expect(try world.open(bound: base).logEndOffset == base)
    }

    /// Headers alone are read then, and those say that the log ends earlier than it did.
    @Test func aLastBatchThatTellsOfFewerOffsetsThanACleanStopSawIsDamage() throws {
        let world = LogWorld(seed: 3)
        let log = try world.create()
        try log.append(batch(["a", "b"]))
        let position = log.size
        try log.append(batch(["c", "d", "e"]))
        try log.close(clean: true)
        try world.overwrite(world.path(.log), at: position + Int64(BatchHeader.At.lastOffsetDelta), [0, 0, 0, 1])
        #expect { try world.open(clean: true, recoveryPoint: 5) } throws: { error in
            guard case LogError.damagedBelowDurable(_, offset: 2, _, _) = error else { return false }
            return true
        }
    }

    @Test func aSegmentThatLostItsEndTakesTheOnesAfterItAlong() throws {
        let (world, _) = try crashed(seed: 4)
        let bases = try segments(world)
        let log: PartitionLog
        let size = try world.sizeOf(world.path(.log, bases[2]))
        var scan = 0
        let bytes = try #require(try world.disk.contents(world.path(.log, bases[2])))
        var last = 0
        while scan < bytes.count {
            last = scan
            scan += bytes[scan...].withUnsafeBytes { BatchHeader($0).totalSize }
        }
        #expect(scan == Int(size) && last > 0)
        try world.cutFile(world.path(.log, bases[2]), to: Int64(last))
        let end = bytes[last...].withUnsafeBytes { BatchHeader($0).baseOffset }
        log = try world.open(bound: bases[1])
        #expect(log.logEndOffset == end)
        #expect(try segments(world) == Array(bases[...2]))
        #expect(try world.disk.list(world.cutDirectory).count == bases.count - 3)
        // a folder of Kafka's is taken as Kafka takes it
        let (kafka, batches) = try crashed(seed: 4)
        try kafka.cutFile(kafka.path(.log, bases[2]), to: Int64(last))
        #expect(try kafka.open().batches().count == batches.count - 1)
    }

    @Test func missingAndMalformedIndexesAreMadeAnew() throws {
        for seed in UInt64(1)...20 {
            let (world, batches) = try crashed(seed: seed)
            let closed = try world.open()
            let end = closed.logEndOffset
            try closed.close(clean: true)
            var random = SeededRandom(seed: seed)
            let bases = try segments(world)
            for base in bases {
                for kind in [SegmentFile.offsetIndex, .timeIndex] where random.chance(1, in: 2) {
                    switch random.below(3) {
                    case 0: try world.disk.remove(world.path(kind, base))
                    case 1: try world.disk.open(world.path(kind, base), .truncate).truncate(to: 29)
                    default:
                        let file = try world.disk.open(world.path(kind, base), .truncate)
                        let junk = (0..<48).map { _ in UInt8(truncatingIfNeeded: random.next()) }
                        try junk.withUnsafeBytes { try file.write($0, at: 0) }
                    }
                }
            }
            try world.disk.open(world.path(.offsetIndex, 99_999), .create).truncate(to: 8)
            let log = try world.open(clean: true, recoveryPoint: end)
            #expect(log.logEndOffset == end, "seed \(seed)")
            #expect(try log.batches() == batches, "seed \(seed)")
            for batch in batches {
                let header = batch.withUnsafeBytes { BatchHeader($0) }
                let slice = try log.read(from: header.lastOffset, maxBytes: 1, limit: end, firstBatchWhole: true)
                #expect(try log.bytes(slice) == batch, "seed \(seed)")
            }
            #expect(try world.sizeOf(world.path(.offsetIndex, 99_999)) == -1)
        }
    }

    @Test func recoveryReadsOnlyFromTheSegmentOfTheRecoveryPoint() throws {
        let (world, batches) = try crashed(seed: 8)
        let bases = try segments(world)
        // a bad batch below it is not looked at: it was checked by whoever synced it, and is found when it is read
        try world.overwrite(world.path(.log, bases[0]), at: 70, [0xFF, 0xFF])
        let log = try world.open(recoveryPoint: bases[2] + 1)
        #expect(
            try log.batches(from: bases[2]).count
                == batches.filter { $0.withUnsafeBytes { BatchHeader($0).baseOffset } >= bases[2] }.count)
        #expect(world.lines.says("from=\(bases[2])"))
    }

    @Test func aSnapshotThatDoesNotCheckGivesWayToTheOneBefore() throws {
        let world = LogWorld(seed: 9)
        world.config.segmentBytes = 300
        let log = try world.create()
        for index in 0..<20 {
            try log.append(
                batch(["v\(index)"], identity: BatchIdentity(producerID: 4, epoch: 0, baseSequence: Int32(index))))
        }
        let active = log.activeSegmentBase
        // the leader epochs reach the disk in three cycles, and the recovery point waits for them
        for _ in 0..<3 { try log.sync(world.disk) }
        #expect(log.recoveryPoint == 20)
        let recoveryPoint = log.recoveryPoint
        world.crash(powerCut: false)
        try world.overwrite(world.path(.snapshot, active), at: 12, [9, 9, 9])
        let again = try world.open(recoveryPoint: recoveryPoint)
        #expect(world.lines.says("producer snapshot that does not check"))
        let error = #expect(throws: LogError.self) {
            try again.append(batch(["z"], identity: BatchIdentity(producerID: 4, epoch: 0, baseSequence: 25)))
        }
        #expect(error?.code == .outOfOrderSequenceNumber)
        try again.append(batch(["z"], identity: BatchIdentity(producerID: 4, epoch: 0, baseSequence: 20)))
    }

    @Test func whatACompactionOrARemovalLeftIsFinished() throws {
        let world = LogWorld(seed: 10)
        world.config.segmentBytes = 200
        world.config.cleanupPolicy = .compact
        let log = try world.create()
        for index in 0..<12 { try log.append(batch(["v\(index)"])) }
        let bases = (0..<log.segmentCount).count
        #expect(bases > 3)
        try log.close(clean: true)
        let segmentBases = try segments(world)
        // the first two became one that kept the first batch alone; the crash came before the old files were gone
        let first = try #require(try world.disk.contents(world.path(.log, segmentBases[0])))
        let second = try #require(try world.disk.contents(world.path(.log, segmentBases[1])))
        let swap = try world.disk.open(world.path(.log, segmentBases[0]) + ".swap", .create)
        let lastOfSecond =
            second.withUnsafeBytes { BatchHeader($0).totalSize } == second.count
            ? second : Array(second.suffix(first.count))
        let merged = first + lastOfSecond
        try merged.withUnsafeBytes { try swap.write($0, at: 0) }
        // of the next segments another one was begun
        for name in ["00000000000000000007.index.cleaned", "00000000000000000007.log.deleted"] {
            _ = try world.disk.open("\(world.folder)/\(name)", .create)
        }
        world.crash(powerCut: false)
        let again = try world.open()
        #expect(
            try world.disk.list(world.folder).allSatisfy {
                !$0.hasSuffix(".swap") && !$0.hasSuffix(".cleaned") && !$0.hasSuffix(".deleted")
            })
        #expect(try world.disk.contents(world.path(.log, 0)) == merged)
        #expect(again.logEndOffset == 12)
        #expect(try again.records().last == "11:v11")
    }

    @Test func aCompactionOfWhichOnlySomeFilesHadTheirNameIsForgotten() throws {
        let world = LogWorld(seed: 10)
        world.config.segmentBytes = 200
        world.config.cleanupPolicy = .compact
        let log = try world.create()
        for index in 0..<12 { try log.append(batch(["v\(index)"])) }
        try log.close(clean: true)
        let before = try #require(try world.disk.contents(world.path(.offsetIndex)))
        for name in ["log.swap", "timeindex.swap", "index.cleaned"] {
            let file = try world.disk.open("\(world.folder)/00000000000000000000.\(name)", .create)
            try [UInt8](repeating: 7, count: 12).withUnsafeBytes { try file.write($0, at: 0) }
        }
        world.crash(powerCut: false)
        let again = try world.open(clean: true, recoveryPoint: 12)
        #expect(try world.disk.list(world.folder).allSatisfy { !$0.hasSuffix(".swap") && !$0.hasSuffix(".cleaned") })
        #expect(try world.disk.contents(world.path(.offsetIndex)) == before)
        #expect(try again.records() == (0..<12).map { "\($0):v\($0)" })
    }

    /// Ten thousand folders are opened by one start.
    @Test func afterACleanStopTheFolderIsListedOnce() throws {
        let world = LogWorld(seed: 12)
        world.config.segmentBytes = 200
        let log = try world.create()
        for index in 0..<12 { try log.append(batch(["v\(index)"])) }
        try log.close(clean: true)
        world.host!.files.fail(.list, of: world.folder, with: .inputOutput, skip: 1)
        let again = try world.open(clean: true, recoveryPoint: 12)
        #expect(again.logEndOffset == 12 && again.segmentCount == log.segmentCount)
        #expect(throws: SystemError.self) { try world.disk.list(world.folder) }
    }

    @Test func anEmptyFolderWithABoundIsDamage() throws {
        let world = LogWorld(seed: 11)
        try world.disk.makeDirectory(world.folder)
        #expect(throws: LogError.self) { try world.open(bound: 5) }
        #expect(try world.open(logStart: 5).logEndOffset == 5)
    }

    @Test func powerCutsBetweenAnyTwoDiskOperationsLoseNothingThatWasSynced() throws {
        for seed in UInt64(1)...120 {
            let world = LogWorld(seed: seed)
            world.host!.files.shortOneIn = Int(seed % 3)
            world.config.segmentBytes = 600
            var random = SeededRandom(seed: seed &* 77)
            var log = try world.create()
            try log.sync(world.disk)
            var durable: Offset = 0
            var recoveryPoint: Offset = 0
            var written: [String] = []
            for _ in 0..<3 {
                world.host!.powerCut(afterDiskOperations: 5 + random.below(80))
                do {
                    for _ in 0..<60 {
                        let next = Int(log.logEndOffset)
                        written.removeLast(written.count - next)
                        written.append("\(next):s\(seed)-\(random.below(1000))")
                        try log.append(batch([String(written[next].split(separator: ":")[1])], at: Int64(next)))
                        if random.chance(1, in: 4) {
                            try log.sync(world.disk)
                            durable = log.durableOffset
                            recoveryPoint = log.recoveryPoint
                        }
                        if random.chance(1, in: 20) {
                            try log.roll()
                        }
                    }
                } catch {}
                world.crash(powerCut: true)
                log = try world.open(recoveryPoint: recoveryPoint, bound: durable)
                let found = try log.records()
                #expect(found.count >= durable && found.count == log.logEndOffset, "seed \(seed)")
                #expect(found == Array(written.prefix(found.count)), "seed \(seed), durable \(durable)")
                written = found
            }
        }
    }

    @Test func noRefusalOfTheDiskEndsTheProcessOrLosesWhatWasPublished() throws {
        let operations: [DiskOperation] = [
            .open, .read, .write, .sync, .truncate, .rename, .remove, .syncDirectory, .list, .status,
        ]
        for seed in UInt64(1)...150 {
            let world = LogWorld(seed: seed)
            world.host!.files.shortOneIn = Int(seed % 3)
            world.config.segmentBytes = 500
            world.config.retentionMs = -1
            var random = SeededRandom(seed: seed &* 13)
            var log = try world.create()
            try log.sync(world.disk)
            var values: [String] = []
            var start: Offset = 0
            for round in 0..<4 {
                for _ in 0..<4 {
                    world.host!.files.fail(
                        operations[random.below(operations.count)],
                        with: random.chance(1, in: 2) ? .noSpace : .inputOutput,
                        skip: random.below(30))
                }
                for step in 0..<40 {
                    do {
                        switch random.below(12) {
                        case 0: try log.roll()
                        case 1:
                            if let writes = try log.takeUnsynced() {
                                do {
                                    for file in writes.files { try file.sync() }
                                    log.synced(writes)
                                } catch { log.syncFailed(writes, error) }
                            }
                        case 2 where random.chance(1, in: 3):
                            let end = try log.truncate(
                                to: Offset.random(in: log.logStartOffset...log.logEndOffset, using: &random))
                            values.removeLast(values.count - Int(end))
                        case 3 where random.chance(1, in: 3):
                            _ = try log.advanceLogStart(
                                to: Offset.random(in: log.logStartOffset...log.logEndOffset, using: &random))
                            _ = try log.applyRetention(now: 0, highWatermark: log.logEndOffset)
                        default:
                            let value = "\(round)-\(step)"
                            try log.append(batch([value], at: Int64(step)))
                            values.append(value)
                        }
                    } catch is LogError {}
                    // a truncation that broke down has cut what it had come to
                    values.removeLast(max(0, values.count - Int(log.logEndOffset)))
                }
                start = log.logStartOffset
                world.host!.files.heal()
                world.crash(powerCut: false)
                log = try world.open(bound: 0, logStart: start)
                let found = try log.records()
                let expected = values.enumerated().dropFirst(Int(log.logStartOffset)).map { "\($0):\($1)" }
                #expect(Array(found.prefix(expected.count)) == expected, "seed \(seed), round \(round)")
                // a write that failed may be found whole, where it could not be taken back
                values =
                    Array(repeating: "gone", count: Int(log.logStartOffset))
                    + found.map { String($0.split(separator: ":")[1]) }
                #expect(values.count == log.logEndOffset, "seed \(seed), round \(round)")
            }
        }
    }
}
