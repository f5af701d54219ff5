import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// Zeros behind the last batch, for what comes next: `PartitionLog+Room.swift`.
@Suite struct RoomAheadTests {
    private func kilobyte(_ number: Int) -> BatchBytes {
        batch(["\(number):" + String(repeating: "x", count: 1_000)], at: Int64(number))
    }

    /// A log with records of a kilobyte, each synced by itself; how often a sync found the file longer than the one before.
    private func grow(_ world: LogWorld, _ log: PartitionLog, by count: Int) throws -> Int {
        var (growths, known) = (0, try world.sizeOf(world.path(.log)))
        for _ in 0..<count {
            try log.append(kilobyte(Int(log.logEndOffset)))
            let writes = try #require(try log.takeUnsynced())
            let size = try world.sizeOf(world.path(.log))
            if size != known { growths += 1 }
            known = size
            for file in writes.files { try file.sync() }
            for folder in writes.folders { try world.disk.syncDirectory(folder) }
            log.synced(writes)
        }
        return growths
    }

    @Test func mostSyncsOfSmallAppendsFindTheFileLongEnough() throws {
        let world = LogWorld(seed: 1)
        world.config.segmentIndexBytes = 1 << 20
        let log = try world.create()
        let growths = try grow(world, log, by: 1_000)
        #expect(growths < 30, "16 before there is any room, then the room doubles up to 256 KiB")
        let size = try world.sizeOf(world.path(.log))
        #expect(size > log.size && size - log.size <= 256 * 1024)
        #expect(try log.records().count == 1_000, "readers do not see it")
    }

    @Test func largeAppendsGetNone() throws {
        let world = LogWorld(seed: 1)
        let log = try world.create()
        for number in 0..<20 {
            try log.append(batch(["\(number)" + String(repeating: "x", count: 100_000)]))
            try log.sync(world.disk)
            #expect(try world.sizeOf(world.path(.log)) == log.size)
        }
    }

    @Test func aRollAndACleanStopCutItOff() throws {
        let world = LogWorld(seed: 1)
        let log = try world.create()
        _ = try grow(world, log, by: 40)
        #expect(try world.sizeOf(world.path(.log)) > log.size)
        let first = log.size
        try log.roll()
        #expect(try world.sizeOf(world.path(.log)) == first)
        let base = log.logEndOffset
        for number in 0..<40 {
            try log.append(kilobyte(number))
            try log.sync(world.disk)
        }
        #expect(try world.sizeOf(world.path(.log, base)) > log.size - first)
        try log.close(clean: true)
        #expect(try world.sizeOf(world.path(.log, base)) == log.size - first)
        #expect(try world.open(clean: true).records().count == 80)
    }

    @Test func whatAKillLeavesOfItIsTakenAwayAndNotCalledACut() throws {
        let world = LogWorld(seed: 1)
        let log = try world.create()
        _ = try grow(world, log, by: 40)
        let records = try log.records()
        #expect(try world.sizeOf(world.path(.log)) > log.size)
        world.crash(powerCut: false)
        let repair = try LogRepair(world.folder, as: .partition(PartitionFolder(world.partition)), on: world.disk, aside: nil)
        #expect(!repair.isNeeded, "there is nothing for an operator to do")
        let next = try world.open(bound: 40)
        #expect(try next.records() == records)
        #expect(try world.sizeOf(world.path(.log)) == next.size)
        #expect(!world.lines.says("cutting"))
        #expect(try world.disk.status(world.cutDirectory) == nil, "zeros are not put aside")
    }

    @Test func zerosInThePlaceOfWhatWasSyncedAreDamage() throws {
        let world = LogWorld(seed: 1)
        let log = try world.create()
        _ = try grow(world, log, by: 40)
        let last = Int64(log.size) - Int64(log.size / 40)
        world.crash(powerCut: false)
        let size = try world.sizeOf(world.path(.log))
        try world.overwrite(world.path(.log), at: last, [UInt8](repeating: 0, count: Int(size - last)))
        let before = try world.disk.contents(world.path(.log))
        #expect { try world.open(bound: 40) } throws: { error in
            guard case LogError.damagedBelowDurable(_, offset: 39, _, _) = error else { return false }
            return true
        }
        #expect(try world.disk.contents(world.path(.log)) == before, "nothing is changed")
        #expect(try world.open(bound: 39).logEndOffset == 39)
    }

    /// The files of a segment get their last form with its roll; a sync that was begun before says nothing of them.
    @Test func theRecoveryPointWaitsForTheFilesOfASegmentThatWasRolled() throws {
        let world = LogWorld(seed: 1)
        let log = try world.create()
        _ = try grow(world, log, by: 40)
        try log.append(kilobyte(40))
        let writes = try #require(try log.takeUnsynced())
        try log.roll()
        for file in writes.files { try file.sync() }
        log.synced(writes)
        #expect(log.durableOffset == 41)
        #expect(log.recoveryPoint == 40, "or a start would not look at the segment whose end may come back untrimmed")
        try log.sync(world.disk)
        #expect(log.recoveryPoint == 41)
    }

    @Test func aDiskWithoutSpaceForItTakesRecordsAllTheSame() throws {
        let world = LogWorld(seed: 1)
        let log = try world.create()
        for number in 0..<200 {
            try log.append(kilobyte(number))
            world.host!.files.fail(.write, of: ".log", with: .noSpace)
            try log.sync(world.disk)
            world.host!.files.heal()
        }
        #expect(log.durableOffset == 200)
        let records = try log.records()
        world.crash(powerCut: true)
        let next = try world.open(bound: 200)
        #expect(try next.records() == records)
    }

    @Test func aDiskThatFailsUnderItIsToldInsteadOfASync() throws {
        let world = LogWorld(seed: 1)
        let log = try world.create()
        _ = try grow(world, log, by: 15)
        try log.append(kilobyte(15))
        world.host!.files.fail(.write, of: ".log", with: .inputOutput)
        for _ in 0..<2 {
            let error = #expect(throws: LogError.self) { try log.takeUnsynced() }
            #expect(error?.takesDirectoryOffline == true && error?.passes == false, "it does not pass with the next call")
        }
        #expect(log.durableOffset == 15)
        #expect(throws: LogError.self) { try log.close(clean: true) }
    }

    /// With rolls among them, of logs that are compacted too, where a gap between segments is no damage.
    @Test func powerCutsLoseNothingThatWasSyncedAndLeaveNothingThatIsTakenForDamage() throws {
        var untrimmed = 0
        for seed in UInt64(1)...150 {
            let world = LogWorld(seed: seed)
            world.config.segmentBytes = 6_000
            if seed % 2 == 0 { world.config.cleanupPolicy = .compact }
            var random = SeededRandom(seed: seed &* 131)
            var log = try world.create()
            try log.sync(world.disk)
            var written: [String] = []
            for round in 0..<4 {
                var (durable, recoveryPoint) = (log.durableOffset, log.recoveryPoint)
                world.host!.powerCut(afterDiskOperations: 20 + random.below(250))
                do {
                    while true {
                        let next = Int(log.logEndOffset)
                        written.removeLast(written.count - next)
                        written.append("\(next):s\(seed)-\(round)-" + String(repeating: "y", count: random.below(200)))
                        try log.append(batch([String(written[next].split(separator: ":")[1])], at: Int64(next)))
                        if random.chance(2, in: 3) {
                            try log.sync(world.disk)
                            (durable, recoveryPoint) = (log.durableOffset, log.recoveryPoint)
                        }
                    }
                } catch {}
                world.crash(powerCut: true)
                untrimmed += try closedSegmentsWithRoom(world)
                log = try world.open(recoveryPoint: recoveryPoint, bound: durable)
                let found = try log.records()
                #expect(found.count >= durable && found.count == log.logEndOffset, "seed \(seed), round \(round)")
                #expect(found == Array(written.prefix(found.count)), "seed \(seed), round \(round), durable \(durable)")
                #expect(try world.sizeOf(world.path(.log, log.activeSegmentBase)) <= 6_000, "seed \(seed)")
                written = found
            }
        }
        #expect(untrimmed > 0, "the power took the end of a roll now and then")
    }

    /// Segments before the last that end in zeros.
    private func closedSegmentsWithRoom(_ world: LogWorld) throws -> Int {
        let logs = try world.disk.list(world.folder).filter { $0.hasSuffix(".log") }.sorted()
        return try logs.dropLast().filter { name in
            try world.disk.contents("\(world.folder)/\(name)")?.suffix(64).allSatisfy { $0 == 0 } == true
        }.count
    }
}
