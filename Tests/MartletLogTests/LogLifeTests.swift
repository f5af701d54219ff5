import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// A log's life: made, written, read, closed, opened again.
@Suite struct LogLifeTests {
    @Test func whatIsAppendedIsReadBackAndSurvivesACleanStop() throws {
        let world = LogWorld(seed: 1)
        let log = try world.create()
        for index in 0..<50 { try log.append(batch(["a\(index)", "b\(index)"])) }
        let expected = (0..<50).flatMap { ["\($0 * 2):a\($0)", "\($0 * 2 + 1):b\($0)"] }
        #expect(try log.records() == expected)
        try log.close(clean: true)

        let again = try world.open(clean: true, recoveryPoint: 100)
        #expect(again.logEndOffset == 100)
        #expect(again.topicID == UUID(high: 7, low: 9))
        #expect(again.latestEpoch == 0)
        #expect(try again.records() == expected)
        #expect(again.durableOffset == 100)
        try again.append(batch(["more"]))
        #expect(try again.records(from: 99) == ["98:a49", "99:b49", "100:more"])
    }

    /// A producer has five batches in flight when the broker stops; all were appended, none was answered, and all come again.
    @Test func batchesThatAreSentAgainAfterARestartAreKnownAlsoTheFirst() throws {
        for isClean in [true, false] {
            let world = LogWorld(seed: 11)
            let log = try world.create()
            func sent(_ sequence: Int32) -> BatchBytes {
                batch(["v\(sequence)"], identity: BatchIdentity(producerID: 4, epoch: 0, baseSequence: sequence))
            }
            for sequence in 0..<8 as Range<Int32> { try log.append(sent(sequence)) }
            // a process that ends without a stop is recovered from the start of the last segment
            if isClean { try log.close(clean: true) } else { try log.roll() }
            try log.sync(world.disk)
            if !isClean { world.crash(powerCut: false) }
            let again = try world.open(clean: isClean, recoveryPoint: 8, bound: 8)
            for sequence in 3..<8 as Range<Int32> {
                let bytes = sent(sequence)
                let reservation = try again.reserve(bytes.all, leaderEpoch: 0)
                #expect(reservation.isDuplicate && reservation.baseOffset == Offset(sequence), "clean \(isClean)")
            }
            try again.append(sent(8))
            #expect(again.logEndOffset == 9)
        }
    }

    @Test func whatWasSyncedSurvivesAPowerCut() throws {
        for seed in UInt64(1)...40 {
            let world = LogWorld(seed: seed)
            world.config.segmentBytes = 700
            let log = try world.create()
            try log.sync(world.disk)
            var random = SeededRandom(seed: seed)
            var durable: Offset = 0
            for index in 0..<60 {
                try log.append(batch(["v\(index)"], at: Int64(index)))
                if random.chance(1, in: 9) {
                    try log.sync(world.disk)
                    durable = log.durableOffset
                }
            }
            let recoveryPoint = log.recoveryPoint
            #expect(durable == log.durableOffset)
            world.crash(powerCut: true)
            let again = try world.open(recoveryPoint: recoveryPoint, bound: durable)
            #expect(again.logEndOffset >= durable, "seed \(seed)")
            #expect(again.logEndOffset <= 60)
            #expect(try again.records() == (0..<again.logEndOffset).map { "\($0):v\($0)" }, "seed \(seed)")
            try again.append(batch(["after"], at: 100))
            #expect(try again.records().last == "\(again.logEndOffset - 1):after", "seed \(seed)")
        }
    }

    /// A process makes a folder and is killed; another finds it, and syncs records in it. Their folder must outlive the
    /// power too.
    @Test func whatWasSyncedInAFolderThatAKilledProcessMadeSurvivesAPowerCut() throws {
        for seed in UInt64(1)...40 {
            let world = LogWorld(seed: seed)
            _ = try world.create()
            world.crash(powerCut: false)
            let log = try world.open()
            try log.append(batch(["kept"]))
            try log.sync(world.disk)
            #expect(log.durableOffset == 1)
            world.crash(powerCut: true)
            let again = try world.open(bound: 1)
            #expect(try again.records() == ["0:kept"], "seed \(seed)")
        }
    }

    @Test func whatWasWrittenSurvivesTheEndOfTheProcess() throws {
        let world = LogWorld(seed: 3)
        world.config.segmentBytes = 700
        let log = try world.create()
        for index in 0..<60 { try log.append(batch(["v\(index)"])) }
        world.crash(powerCut: false)
        let again = try world.open()
        #expect(again.logEndOffset == 60)
        #expect(again.segmentCount > 3)
        #expect(try again.records() == (0..<60).map { "\($0):v\($0)" })
    }
}
