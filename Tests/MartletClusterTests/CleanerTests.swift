import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// A broker on a simulated machine that leads partitions of a compacted topic.
private final class CompactingBroker: LeadingReplicas, @unchecked Sendable {
    /// Settings stand before what makes the cleaner look often, and at small segments.
    init(_ settings: [(name: String, value: String)], partitions: Int32 = 1) {
        var all: [String: String] = [
            "log.segment.bytes": "4000", "log.cleanup.policy": "compact", "log.cleaner.backoff.ms": "100",
            "log.cleaner.min.cleanable.ratio": "0.01", "log.retention.ms": "-1",
        ]
        for (name, value) in settings { all[name] = value }
        let overrides = all.sorted { $0.key < $1.key }.map { (name: $0.key, value: $0.value) }
        super.init(seed: 21, overrides, partitions: partitions)
    }

    /// Ten records of each of ten keys, and then enough of one other for a new segment.
    func fill(_ index: Int32 = 0) {
        for round in 0..<10 {
            append((0..<10).map { ("k\($0)", "\(round)" + String(repeating: "x", count: 50)) }, partition: index)
        }
        rollOver(index)
    }

    func rollOver(_ index: Int32 = 0) {
        for _ in 0..<2 { append([("filler", String(repeating: "y", count: 3000))], partition: index) }
        world.run(for: .milliseconds(50))
    }

    func wait(_ seconds: Int64) { world.run(for: .seconds(seconds)) }

    var counts: LogActivity.Counts { replicas.activity.counts }

    func underWay() -> Int {
        final class Told: @unchecked Sendable { var count = 0 }
        let told = Told()
        run { made in told.count = made.replicas.cleaningsCount }
        return told.count
    }
}

@Suite struct TheCleanerOfABroker {
    @Test(arguments: [("100", true), ("3600000", false)])
    func theCleanerLooksAsOftenAsItIsTold(backoff: String, cleans: Bool) {
        let broker = CompactingBroker([("log.cleaner.backoff.ms", backoff)])
        broker.fill()
        broker.wait(5)
        #expect((broker.counts.cleanings > 0) == cleans)
        #expect(!cleans || broker.counts.cleanerDroppedRecords == 90)
    }

    @Test func nothingIsCompactedWhereTheCleanerIsSwitchedOff() {
        let broker = CompactingBroker([("log.cleaner.enable", "false")])
        broker.fill()
        broker.wait(5)
        #expect(broker.counts.cleanings == 0)
    }

    @Test(arguments: [("134217728", "0.9", 1...1), ("1048610", "0.9", 1...1), ("1048610", "0.1", 2...4)])
    func theMemoryForKeysIsWhatIsSet(bytes: String, factor: String, cleanings: ClosedRange<UInt64>) {
        let broker = CompactingBroker([
            ("log.cleaner.dedupe.buffer.size", bytes), ("log.cleaner.io.buffer.load.factor", factor),
            ("log.segment.bytes", "10000000"), ("log.cleaner.backoff.ms", "10000"),
        ])
        // 43,692 places: 39,322 keys, or 4,369
        for batch in 0..<9 { broker.append((0..<1000).map { ("key-\(batch)-\($0)", "v") }) }
        for _ in 0..<2 { broker.append([("filler", String(repeating: "y", count: 9_900_000))]) }
        broker.wait(60)
        #expect(cleanings.contains(broker.counts.cleanings), "\(broker.counts.cleanings)")
        #expect(broker.counts.cleanerDroppedRecords <= 1)
    }

    @Test(arguments: [("0", 100 as UInt64), ("86400000", 90)])
    func tombstonesGoWhenTheBrokersRetentionOfThemIsOver(retention: String, dropped: UInt64) {
        let broker = CompactingBroker([("log.cleaner.delete.retention.ms", retention)])
        for round in 0..<9 { broker.append((0..<10).map { ("k\($0)", "\(round)") }) }
        broker.append((0..<10).map { ("k\($0)", nil) })
        broker.rollOver()
        broker.wait(5)
        #expect(broker.counts.cleanerDroppedRecords == 90)
        let fillers = broker.counts.cleanerDroppedRecords
        broker.append([("other", "1")])
        broker.rollOver()
        broker.wait(5)
        // the fillers supersede one another as well
        #expect((broker.counts.cleanerDroppedRecords - fillers) / 10 * 10 + 90 == dropped)
    }

    @Test(arguments: [("5000", true), ("9223372036854775807", false)])
    func whatIsTooOldIsCompactedWhateverItsShare(lag: String, cleans: Bool) {
        let broker = CompactingBroker([("log.cleaner.max.compaction.lag.ms", lag), ("log.cleaner.min.cleanable.ratio", "1.0")])
        broker.fill()
        broker.wait(2)
        #expect(broker.counts.cleanings == 0)
        broker.wait(8)
        #expect((broker.counts.cleanings > 0) == cleans)
    }

    /// Both, as Kafka does: what is too old goes whole, and of the rest the last record of each key stays.
    @Test(arguments: [
        ("compact", "5000", false, true), ("compact,delete", "5000", true, true), ("compact,delete", "86400000", false, true),
        ("delete", "5000", true, false),
    ])
    func aLogThatIsCompactedAndDeletedFromIsBoth(policy: String, retention: String, deletes: Bool, compacts: Bool) throws {
        let broker = CompactingBroker([
            ("log.cleanup.policy", policy), ("log.retention.ms", retention), ("log.retention.check.interval.ms", "500"),
        ])
        broker.fill()
        broker.wait(3)
        let partition = try #require(broker.replicas.topics.partition(TopicPartition("t", 0)))
        #expect(broker.counts.cleanerDroppedRecords == (compacts ? 90 : 0) && partition.logStartOffset == 0)
        broker.wait(20)
        #expect((partition.logStartOffset > 0) == deletes)
        // what comes later is compacted as before, and stays for its time
        broker.fill()
        broker.wait(2)
        let dropped = broker.counts.cleanerDroppedRecords
        #expect(compacts ? dropped >= 180 : dropped == 0)
    }

    @Test func whatIsYoungStaysAsItIs() {
        let broker = CompactingBroker([("log.cleaner.min.compaction.lag.ms", "30000")])
        broker.fill()
        broker.wait(25)
        #expect(broker.counts.cleanings == 0)
        broker.wait(10)
        #expect(broker.counts.cleanings > 0)
    }

    @Test(arguments: [("1", 1), ("3", 3)])
    func asManyPartitionsAtATimeAsThereAreThreads(threads: String, atATime: Int) {
        let broker = CompactingBroker(
            [
                ("log.cleaner.threads", threads), ("log.cleaner.io.max.bytes.per.second", "500"),
                ("log.cleaner.backoff.ms", "10000"),
            ], partitions: 4)
        for index in 0..<4 { broker.fill(Int32(index)) }
        broker.wait(12)
        #expect(broker.underWay() == atATime)
    }

    @Test(arguments: [("1000", ErrorCode.none), ("600000", .outOfOrderSequenceNumber)])
    func producersAreLookedThroughAsOftenAsIsSet(interval: String, answer: ErrorCode) {
        let broker = CompactingBroker([
            ("producer.id.expiration.check.interval.ms", interval), ("producer.id.expiration.ms", "2000"),
        ])
        func send(_ sequence: Int32) -> ErrorCode {
            broker.append([("k", "v")], identity: BatchIdentity(producerID: 7, epoch: 0, baseSequence: sequence))
        }
        #expect(send(0) == .none)
        broker.wait(10)
        #expect(send(90) == answer)
    }
}

@Suite struct AReplicaThatIsCompacted {
    @Test func losesNoKeyWhileItMovesToAndFro() throws {
        let directories = ["data/a", "data/b"]
        for seed in 1...6 as ClosedRange<UInt64> {
            let broker = try Broker(
                SimulatedWorld(seed: seed), directories: directories, [("log.cleaner.backoff.ms", "5")]
            ).start()
            defer { broker.world.end() }
            try broker.apply(
                config: smallTopic {
                    $0.cleanupPolicy = .compact
                    $0.minCleanableDirtyRatio = 0.01
                })
            let producer = Producer(broker.host.loops[0])
            var last: [Int: String] = [:]
            var moves = 0
            for round in 0..<120 {
                let (key, value) = (round % 7, "round-\(round)-" + String(repeating: "x", count: 700))
                var builder = BatchBuilder()
                builder.append(timestamp: 1_000, key: Array("k\(key)".utf8), value: Array(value.utf8))
                var output = ByteBuffer()
                builder.finish(into: &output, codec: .none, contexts: CodecContexts())
                if case .refused = broker.append(BatchBytes(output.bytes), .written, producer, round) {
                } else {
                    last[key] = value
                }
                broker.world.run(for: .milliseconds(Int64(seed) * 3))
                guard round % 15 == 7 else { continue }
                let from = broker.partition().directory.path
                try broker.run { _ = await $0.move(first, to: directories.first { $0 != from }!) }
                moves += 1
            }
            broker.world.run(for: .seconds(5))
            #expect(moves > 5 && broker.replicas.activity.counts.cleanings > 3, "seed \(seed)")
            let there = try broker.read()
            for (key, value) in last.sorted(by: { $0.key < $1.key }) {
                #expect(there.contains { $0.hasSuffix(":\(value)") }, "seed \(seed): the last record of key \(key)")
            }
            #expect(there.count < 60, "seed \(seed): \(there.count) records are left")
            let home = broker.partition().directory.path
            #expect(broker.text(home + "/cleaner-offset-checkpoint").contains("\(topicName) 0 "), "seed \(seed)")
            try broker.restartCleanly()
            try broker.apply(config: smallTopic { $0.cleanupPolicy = .compact })
            #expect(try broker.read() == there && !broker.lines.says("recovering"), "seed \(seed)")
        }
    }
}
