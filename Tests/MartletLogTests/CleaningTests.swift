import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// A log that is written to and cleaned, and the ledger of it.
final class CleaningWorld {
    let world: LogWorld
    var log: PartitionLog
    var ledger = CleaningLedger()
    var cleanedTo: Offset?
    var random: SeededRandom
    private var sequences: [ProducerID: Int32] = [:]
    private var openTransactions: Set<ProducerID> = []
    private var counter = 0
    var now: Int64 { world.clock.wallMilliseconds }

    init(seed: UInt64) throws {
        world = LogWorld(seed: seed)
        random = SeededRandom(seed: seed &* 7919)
        world.config.cleanupPolicy = .compact
        world.config.deleteRetentionMs = random.chance(1, in: 2) ? 0 : 1_000_000
        log = try world.create()
    }

    var tombstonesStay: Bool { world.config.deleteRetentionMs > 0 }

    func append(
        _ records: [(key: String?, value: String?)], codec: CompressionCodec = .none, identity: BatchIdentity = BatchIdentity()
    ) throws {
        var builder = BatchBuilder(identity)
        for (index, record) in records.enumerated() {
            builder.append(
                timestamp: now + Int64(index), key: record.key.map { Array($0.utf8) },
                value: record.value.map { Array($0.utf8) },
                headers: random.chance(1, in: 5) ? [RecordHeader([0x68], [1, 2])] : [])
        }
        var output = ByteBuffer()
        builder.finish(into: &output, codec: codec, contexts: CodecContexts())
        try write(BatchBytes(output.bytes))
    }

    func end(_ producer: ProducerID, _ type: ControlRecordType) throws {
        openTransactions.remove(producer)
        try write(marker(type, producer: producer, at: now), origin: .coordinator)
    }

    private func write(_ bytes: BatchBytes, origin: AppendOrigin = .client) throws {
        try log.append(bytes, origin: origin)
        try ledger.take(bytes.array)
        log.noteHighWatermark(log.logEndOffset)
    }

    /// Batches of all kinds, with rolls between them.
    func write(batches count: Int, keys: Int) throws {
        for _ in 0..<count {
            let producer = ProducerID(10 + random.below(4))
            switch random.below(10) {
            case 0: try log.roll()
            case 1 where openTransactions.contains(producer):
                try end(producer, random.chance(1, in: 2) ? .commit : .abort)
            case 2, 3, 4: try writeTransactional(producer, keys)
            case 5: try writeIdempotent(ProducerID(100 + random.below(3)), keys)
            default: try append(someRecords(keys), codec: someCodec())
            }
        }
    }

    private func writeTransactional(_ producer: ProducerID, _ keys: Int) throws {
        openTransactions.insert(producer)
        try writeSequenced(producer, keys, isTransactional: true)
    }

    private func writeIdempotent(_ producer: ProducerID, _ keys: Int) throws {
        try writeSequenced(producer, keys, isTransactional: false)
    }

    private func writeSequenced(_ producer: ProducerID, _ keys: Int, isTransactional: Bool) throws {
        let records = someRecords(keys)
        let sequence = sequences[producer] ?? 0
        sequences[producer] = sequence + Int32(records.count)
        try append(
            records, codec: someCodec(),
            identity: BatchIdentity(
                producerID: producer, epoch: 0, baseSequence: sequence, isTransactional: isTransactional))
    }

    func endAll() throws {
        for producer in openTransactions.sorted() { try end(producer, random.chance(1, in: 2) ? .commit : .abort) }
    }

    private func someCodec() -> CompressionCodec { CompressionCodec.allCases[random.below(CompressionCodec.allCases.count)] }

    private func someRecords(_ keys: Int) -> [(key: String?, value: String?)] {
        (0..<random.below(5) + 1).map { _ in
            counter += 1
            let key = random.chance(1, in: 20) ? nil : "k\(random.below(keys))"
            return (key, random.chance(1, in: 6) ? nil : "v\(counter)" + String(repeating: "x", count: random.below(40)))
        }
    }

    /// The active segment is never cleaned: what was written becomes an older one, and durable.
    func settle() throws {
        try log.roll()
        try log.sync(world.disk)
        try log.sync(world.disk)
    }

    @discardableResult
    func clean(_ what: String, limits: CleaningLimits = CleaningLimits()) throws -> Offset? {
        guard let end = try log.clean(from: cleanedTo, now: now, limits: limits) else { return nil }
        cleanedTo = end
        try ledger.expectNothingLostOrRevived(in: log, cleanedTo: end, what)
        try ledger.expectCleaned(log, to: end, tombstonesStay: tombstonesStay, what)
        try ledger.expectProducersSurvive(log, what)
        return end
    }

    func files(_ part: String) throws -> [String] { try world.disk.list(world.folder).filter { $0.contains(part) } }

    func records() throws -> [String] { try log.records() }
}

/// Seeds of the properties: few where nothing is optimised.
private let seeds: ClosedRange<UInt64> = {
    #if DEBUG
        1...20
    #else
        1...300
    #endif
}()

@Suite struct ACleanedLog {
    @Test func keepsTheLastRecordOfEachKeyWhereItWas() throws {
        let world = try CleaningWorld(seed: 1)
        try world.append([("a", "1"), ("b", "1"), ("c", "1")])
        try world.append([("a", "2"), ("d", "1")])
        try world.settle()
        try world.append([("b", "of the active segment")])
        #expect(try world.clean("once") == 5)
        #expect(try world.records() == ["1:1", "2:1", "3:2", "4:1", "5:of the active segment"])
        #expect(world.log.logStartOffset == 0 && world.log.logEndOffset == 6)
        // who asks for what is gone gets the next there is
        #expect(try world.log.records(from: 0, to: 3) == ["1:1", "2:1"])
    }

    @Test func isTheSameForWhoOpensItAgain() throws {
        let world = try CleaningWorld(seed: 2)
        for round in 0..<4 {
            try world.write(batches: 40, keys: 12)
            try world.endAll()
            try world.settle()
            try world.clean("round \(round)")
        }
        let before = try world.records()
        try world.log.close(clean: true)
        #expect(try world.files(".cleaned").isEmpty && world.files(".swap").isEmpty)
        world.log = try world.world.open(clean: true, recoveryPoint: world.log.logEndOffset)
        #expect(try world.records() == before)
        try world.ledger.expectProducersSurvive(world.log, "opened again")
    }

    @Test func dropsATombstoneOnlyAfterItsHorizon() throws {
        let world = try CleaningWorld(seed: 3)
        world.world.config.deleteRetentionMs = 5_000
        world.log.config = world.world.config
        try world.append([("a", "1"), ("b", "1")])
        try world.append([("a", nil), ("c", "1")])
        try world.settle()
        try world.log.clean(now: 10_000)
        #expect(try world.records() == ["1:1", "2:null", "3:1"])
        let marked = try world.log.batches().map { try LedgerBatch($0).header }[1]
        #expect(marked.hasDeleteHorizon && marked.baseTimestamp == 15_000)
        try world.append([("d", "1")])
        try world.settle()
        try world.log.clean(now: 14_999)
        #expect(try world.records() == ["1:1", "2:null", "3:1", "4:1"])
        try world.log.clean(now: 15_000)
        #expect(try world.records() == ["1:1", "3:1", "4:1"])
    }

    @Test func keepsTheEndOfATransactionAsLongAsAnyOfItsBatches() throws {
        let world = try CleaningWorld(seed: 4)
        world.world.config.deleteRetentionMs = 1_000
        world.log.config = world.world.config
        func identity(_ sequence: Int32) -> BatchIdentity {
            BatchIdentity(producerID: 7, epoch: 0, baseSequence: sequence, isTransactional: true)
        }
        try world.append([("a", "1")], identity: identity(0))
        try world.end(7, .commit)
        try world.append([("b", "dropped")], identity: identity(1))
        try world.end(7, .abort)
        try world.append([("b", "kept")], identity: identity(2))
        try world.end(7, .commit)
        try world.settle()
        try world.log.clean(now: 1_000)
        // the aborted record goes at once, its marker a horizon later
        #expect(try world.records() == ["0:1", "1:marker", "3:marker", "4:kept", "5:marker"])
        try world.log.clean(now: 1_000)
        #expect(try world.records() == ["0:1", "1:marker", "3:marker", "4:kept", "5:marker"])
        try world.log.clean(now: 2_000)
        #expect(try world.records() == ["0:1", "1:marker", "4:kept", "5:marker"])
        try world.append([("a", "2")])
        try world.settle()
        try world.log.clean(now: 3_000)
        try world.log.clean(now: 4_000)
        #expect(try world.records() == ["1:marker", "4:kept", "5:marker", "6:2"])
        try world.log.clean(now: 5_000)
        #expect(try world.records() == ["4:kept", "5:marker", "6:2"])
    }

    @Test func isNotTouchedWhereATransactionIsOpenOrTheLagIsNotOver() throws {
        let world = try CleaningWorld(seed: 5)
        try world.append([("a", "1")])
        try world.append([("a", "2")])
        try world.settle()
        try world.append(
            [("a", "3")], identity: BatchIdentity(producerID: 7, epoch: 0, baseSequence: 0, isTransactional: true))
        try world.settle()
        try world.append([("a", "4")])
        try world.settle()
        #expect(try world.clean("an open transaction") == 2)
        #expect(try world.records() == ["1:2", "2:3", "3:4"])
        try world.end(7, .abort)
        try world.settle()
        world.world.config.minCompactionLagMs = 60_000
        world.log.config = world.world.config
        #expect(try world.log.clean(from: 2, now: world.now + 59_000) == nil)
        #expect(try world.log.clean(from: 2, now: world.now + 61_000) == 5)
        #expect(try world.records() == ["3:4", "4:marker"])
    }

    @Test func isCleanedFurtherTheNextTimeWhereTheKeysDidNotFit() throws {
        let world = try CleaningWorld(seed: 6)
        for index in 0..<200 { try world.append([("k\(index % 100)", "\(index)"), ("l\(index)", "x")]) }
        try world.settle()
        var limits = CleaningLimits()
        limits.mapBytes = 24 * 50
        var rounds = 0
        while try world.clean("round \(rounds)", limits: limits) != nil, rounds < 50 { rounds += 1 }
        #expect(rounds > 6 && world.cleanedTo == 400)
    }

    @Test func losesNothingWhereTheMapIsFullInTheMiddleOfABatchWithMoreKeysThanAreLookedUpAtOnce() throws {
        let world = try CleaningWorld(seed: 12)
        for batch in 0..<2 {
            try world.append(
                (0..<600).map { index in
                    let value = world.random.chance(1, in: 6) ? nil : "\(batch).\(index)"
                    return ("k\(world.random.below(2000))", value)
                }, codec: .lz4)
        }
        try world.settle()
        var limits = CleaningLimits()
        limits.mapBytes = 24 * 530
        let first = try #require(try world.clean("the first part", limits: limits))
        #expect((513..<600).contains(first), "\(first)")
        var rounds = 1
        while try world.clean("round \(rounds)", limits: limits) != nil, rounds < 10 { rounds += 1 }
        #expect(rounds == 3 && world.cleanedTo == 1200, "\(rounds)")
    }

    @Test func hasItsSegmentsGroupedUpToTheirSize() throws {
        let world = try CleaningWorld(seed: 7)
        for index in 0..<30 {
            try world.append([("k\(index)", String(repeating: "x", count: 300))])
            try world.log.roll()
        }
        try world.settle()
        world.world.config.segmentBytes = 4096
        world.log.config = world.world.config
        try world.clean("grouped")
        #expect((3...5).contains(world.log.segmentCount), "\(world.log.segmentCount)")
        #expect(try world.files(".deleted").count > 60, "the old files wait to be removed")
    }

    @Test func letsGoOfAWholeGroupAndStillReachesToItsEnd() throws {
        let world = try CleaningWorld(seed: 8)
        for _ in 0..<3 {
            try world.append([("a", "1")])
            try world.log.roll()
        }
        try world.append([("a", "2")])
        try world.settle()
        // a cleaning that ends below what supersedes the rest leaves nothing in the first segments
        #expect(try world.clean("all") == 4)
        try world.append([("a", "3")])
        try world.settle()
        #expect(try world.clean("all again") == 5)
        #expect(try world.records() == ["4:3"])
        #expect(world.log.logStartOffset == 0)
    }

    @Test func isLeftAloneByACleaningThatMeetsDamage() throws {
        let world = try CleaningWorld(seed: 9)
        for index in 0..<20 { try world.append([("k\(index % 3)", "\(index)")]) }
        try world.settle()
        let size = try world.world.sizeOf(world.world.path(.log))
        try world.world.overwrite(world.world.path(.log), at: size - 4, [0xFF, 0xFE, 0xFD])
        #expect(throws: LogError.self) { try world.log.clean(now: world.now) }
        #expect(try world.files(".cleaned").isEmpty && world.files(".swap").isEmpty)
        #expect(try world.world.sizeOf(world.world.path(.log)) == size)
    }

    @Test func isNotCleanedByWhoWasOvertakenByATruncation() throws {
        let world = try CleaningWorld(seed: 10)
        for step in 0..<40 {
            try world.write(batches: 60, keys: 10)
            try world.endAll()
            try world.settle()
            guard let plan = try world.log.plan(cleanedTo: nil, now: world.now) else { continue }
            let cleaning = LogCleaning(plan, access: LogAccess(world.log), limits: CleaningLimits(), secret: (3, 4))
            for _ in 0..<step { if case .working = try cleaning.advance(atMost: 200) {} else { break } }
            let end = try world.log.truncate(to: Offset(world.random.below(Int(world.log.logEndOffset))))
            world.ledger.truncate(to: end)
            var outcome = LogCleaning.Outcome.working
            while case .working = outcome { outcome = try cleaning.advance(atMost: 200) }
            guard case .overtaken = outcome else { continue }
            #expect(try world.files(".cleaned").isEmpty && world.files(".swap").isEmpty)
            break
        }
        try world.log.sync(world.world.disk)
        #expect(try world.log.records().count > 0)
    }
}

@Suite struct CleaningsOfAllKinds {
    @Test func loseAndReviveNoKey() throws {
        for seed in seeds {
            let world = try CleaningWorld(seed: seed)
            for round in 0..<5 {
                try world.write(batches: 30, keys: 3 + world.random.below(30))
                if world.random.chance(2, in: 3) { try world.endAll() }
                try world.settle()
                var limits = CleaningLimits()
                if world.random.chance(1, in: 3) { limits.mapBytes = 24 * (4 + world.random.below(20)) }
                world.world.config.segmentBytes = world.random.chance(1, in: 2) ? 2_000 : 1 << 20
                world.log.config = world.world.config
                try world.clean("seed \(seed) round \(round)", limits: limits)
            }
        }
    }

    @Test func canBeInterruptedByAPowerCutAtAnyMoment() throws {
        var interrupted = 0
        for seed in seeds {
            let world = try CleaningWorld(seed: seed)
            var operations = Int(seed % 3)
            while operations < 200 {
                try world.write(batches: 12, keys: 8)
                try world.endAll()
                try world.settle()
                // of what was exchanged before the cut, what was superseded is gone
                let (point, end, limit) = (world.log.recoveryPoint, world.log.logEndOffset, world.log.activeSegmentBase)
                let what = "seed \(seed), power cut at disk operation \(operations)"
                world.world.host!.powerCut(afterDiskOperations: operations)
                let cleaned = try? world.log.clean(from: world.cleanedTo, now: world.now)
                let isThrough = world.world.host!.isAlive
                world.world.crash(powerCut: true)
                if isThrough, let cleaned { world.cleanedTo = cleaned }
                world.log = try world.world.open(recoveryPoint: point, bound: end)
                #expect(world.log.logEndOffset == end, "\(what)")
                world.log.noteHighWatermark(world.log.logEndOffset)
                try world.ledger.expectNothingLostOrRevived(
                    in: world.log, cleanedTo: isThrough ? world.cleanedTo ?? 0 : limit, what)
                if isThrough { break }
                interrupted += 1
                // two or three apart, so that the seeds together meet every one
                operations += 3
            }
            // and a cleaning that nobody interrupts makes good for all of them
            try world.settle()
            try world.clean("seed \(seed), after the power cuts")
        }
        #expect(interrupted > 100)
    }
}

@Suite struct AHashOfAKey {
    @Test func isSipHashAsItsAuthorsHaveIt() {
        // the first vectors of the reference, whose key is the bytes 0 to 15
        let secret = KeyHash.Secret(low: 0x0706_0504_0302_0100, high: 0x0F0E_0D0C_0B0A_0908)
        func hash(_ key: [UInt8]) -> KeyHash { key.withUnsafeBytes { KeyHash($0, secret) } }
        #expect(hash([]).low.byteSwapped == 0xA381_7F04_BA25_A8E6 && hash([]).high.byteSwapped == 0x6DF6_7214_C755_0293)
        #expect(hash([0]).low.byteSwapped == 0xDA87_C1D8_6B99_AF44)
    }
}
