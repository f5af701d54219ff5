import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

private let big = String(repeating: "x", count: 1500)

private func openBroker(
    _ seed: UInt64 = 1, directories: [String] = ["data/log"], settings: [(name: String, value: String)] = []
) throws -> Broker {
    try Broker(SimulatedWorld(seed: seed), directories: directories, settings).start()
}

extension Broker {
    func appendAll(_ count: Int, _ partition: Int32 = 0, topic: String = topicName) {
        let producer = Producer(host.loops[0])
        for index in 0..<count {
            append(batch([big]), .committed, producer, index, partition: self.partition(partition, topic: topic))
        }
        world.run(for: .milliseconds(200))
        #expect((0..<count).allSatisfy { producer.error($0) == ErrorCode.none })
    }
}

@Suite struct TheReplicasOfABroker {
    @Test func startAgainAfterACleanStopWithoutReadingAnything() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        try broker.apply()
        broker.appendAll(5)
        try broker.restartCleanly()
        #expect(!broker.replicas.wasUncleanStop)
        #expect(broker.replicas.foundTopics == [FoundTopic(name: topicName, id: topicID, partitions: [0])])
        #expect(broker.replicas.foundBrokerID == 1 && broker.replicas.foundClusterID == "cluster")
        try broker.apply(epoch: 1)
        #expect(!broker.lines.says("recovering"))
        #expect(broker.partition().highWatermark == 5 && broker.partition().logEndOffset == 5)
        #expect(try broker.read().count == 5)
    }

    @Test func areRecoveredAfterAnUncleanStop() throws {
        for seed in 1...20 as ClosedRange<UInt64> {
            let broker = try openBroker(seed)
            defer { broker.world.end() }
            try broker.apply()
            broker.appendAll(5)
            broker.crash(powerCut: seed % 2 == 0)
            try broker.start()
            #expect(broker.replicas.wasUncleanStop)
            try broker.apply(epoch: 1)
            broker.world.run(for: .milliseconds(100))
            #expect(broker.lines.says("recovered"))
            #expect(broker.partition().highWatermark == 5, "seed \(seed)")
        }
    }

    @Test func thatAreManyAreClosedByOneSyncAndAPowerCutBehindItTakesNothing() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        for index in 0..<80 as Range<Int32> { try broker.apply(index) }
        for index in [0, 33, 79] as [Int32] { broker.appendAll(3, index) }
        try broker.run { await $0.close() }
        broker.crash(powerCut: true)
        try broker.start()
        #expect(!broker.replicas.wasUncleanStop)
        for index in 0..<80 as Range<Int32> { try broker.apply(index, epoch: 1) }
        #expect(!broker.lines.says("recovering"))
        for index in 0..<80 as Range<Int32> {
            #expect(broker.partition(index).logEndOffset == ([0, 33, 79].contains(index) ? 3 : 0))
        }
    }

    @Test func thatAreManyAreNotCalledCleanlyClosedWhereTheirSyncFails() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        for index in 0..<80 as Range<Int32> { try broker.apply(index) }
        broker.appendAll(3, 5)
        broker.host.files.fail(.syncFileSystem, with: .inputOutput)
        try broker.run { await $0.close() }
        #expect(broker.lines.says("not closed cleanly"))
        broker.crash(powerCut: true)
        try broker.start()
        #expect(broker.replicas.wasUncleanStop)
        for index in 0..<80 as Range<Int32> { try broker.apply(index, epoch: 1) }
        #expect(broker.partition(5).logEndOffset == 3, "what was acknowledged was synced before")
    }

    @Test func thatWereNeverOpenedAreNotCalledCleanlyClosed() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        try broker.apply(0)
        try broker.apply(1)
        broker.appendAll(2, 0)
        broker.appendAll(2, 1)
        broker.crash(powerCut: false)
        try broker.start()
        try broker.apply(0, epoch: 1)
        try broker.restartCleanly()
        #expect(broker.replicas.wasUncleanStop, "nobody has looked at partition 1 since the crash")
        try broker.apply(0, epoch: 2)
        try broker.apply(1, epoch: 1)
        try broker.restartCleanly()
        #expect(!broker.replicas.wasUncleanStop)
    }

    @Test func keepTheirRowsInTheCheckpointsWhileTheyAreNotOpen() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        try broker.apply(0)
        broker.appendAll(5)
        #expect(try broker.partition().deleteRecords(before: 4).get() == 4)
        broker.world.run(for: .seconds(61))
        broker.crash(powerCut: true)
        try broker.start()
        broker.world.run(for: .seconds(130))
        #expect(broker.text("data/log/log-start-offset-checkpoint").contains("\(topicName) 0 4"))
        #expect(broker.text("data/log/replication-offset-checkpoint").contains("\(topicName) 0 5"))
        try broker.apply(0, epoch: 1)
        #expect(broker.partition().logStartOffset == 4)
        try broker.stop(delete: false)
        broker.world.run(for: .seconds(61))
        #expect(broker.text("data/log/log-start-offset-checkpoint").contains("\(topicName) 0 4"))
        try broker.apply(0, epoch: 2)
        #expect(broker.partition().logStartOffset == 4 && broker.partition().highWatermark == 5)
    }

    @Test func rememberDeletedRecordsWhenThatIsAnswered() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        try broker.apply()
        broker.appendAll(3)
        #expect(try broker.partition().deleteRecords(before: -1).get() == 3)
        #expect(broker.partition().deleteRecords(before: 4) == .failure(.offsetOutOfRange))
        try broker.deleteRecords(before: 3)
        broker.crash(powerCut: true)
        try broker.start()
        try broker.apply(epoch: 1)
        #expect(broker.partition().logStartOffset == 3)
    }

    @Test func writeTheirCheckpointsAtTheirIntervals() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        try broker.apply()
        broker.appendAll(5)
        let (recovery, highWatermark) = ("data/log/recovery-point-offset-checkpoint", "data/log/replication-offset-checkpoint")
        #expect(broker.text(highWatermark) == "")
        broker.world.run(for: .seconds(5))
        #expect(broker.text(highWatermark).contains("\(topicName) 0 5") && broker.text(recovery) == "")
        broker.world.run(for: .seconds(56))
        #expect(broker.text(recovery).contains("\(topicName) 0 5"))
    }

    @Test func thatAreDeletedAreRenamedAndRemovedLaterWhileAReaderReadsOn() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        try broker.apply()
        broker.appendAll(3)
        let found = broker.partition().fetch(PartitionFetchRequest(offset: 0, maxBytes: 1 << 20, firstBatchWhole: true))
        try broker.stop(delete: true)
        #expect(broker.replicas.topics.partition(first) == nil && broker.replicas.topics.table.topic(topicName) == nil)
        let folders = broker.files("data/log").filter { $0.hasPrefix(topicName) }
        #expect(folders.count == 1 && folders[0].hasSuffix("-delete"))
        #expect(batches(in: try bytes(found.slice)).count > 0, "what was handed out can be read")
        broker.world.run(for: .seconds(70))
        #expect(!broker.files("data/log").contains { $0.hasPrefix(topicName) })
    }

    @Test func thatAreMadeAnewUnderAnOldNameHaveNothingOfTheOld() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        try broker.apply()
        broker.appendAll(5)
        _ = broker.partition().deleteRecords(before: 5)
        broker.world.run(for: .seconds(61))
        try broker.stop(delete: true)
        let other = UUID(high: 1, low: 1)
        try broker.apply(id: other)
        broker.appendAll(2)
        broker.crash(powerCut: true)
        try broker.start()
        try broker.apply(id: other, epoch: 1)
        broker.world.run(for: .milliseconds(100))
        #expect(broker.partition().logStartOffset == 0 && broker.partition().highWatermark == 2)
    }

    /// Nothing in `partition.metadata` would show it: with another bit it names another topic.
    @Test func areServedWhicheverBitOfTheirTopicsIdIsDamaged() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        let id = UUID(high: 0x0d61_a8f2_447c_4be9, low: 0xb35e_17c0_9a48_d2f6)
        try broker.apply(id: id)
        broker.appendAll(3)
        let path = "data/log/\(topicName)-0/partition.metadata"
        let sound = try #require(try broker.host.disk.contents(path))
        for bit in 0..<sound.count * 8 {
            try broker.restartCleanly()
            var bytes = sound
            bytes[bit / 8] ^= 1 << (bit % 8)
            try broker.host.disk.replace(path, with: bytes)
            try broker.apply(id: id, epoch: LeaderEpoch(bit + 1))
            #expect(broker.partition().logEndOffset == 3, "bit \(bit)")
            let written = try #require(try broker.host.disk.contents(path))
            #expect(try PartitionMetadata.decode(written, path: path).topicID == id, "bit \(bit)")
        }
        #expect(!broker.files("data/log").contains { $0.hasSuffix("-stray") })
    }

    @Test func ofATopicThatWasMadeAnewMeanwhileAreKeptAside() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        try broker.apply()
        broker.appendAll(3)
        let other = UUID(high: 0x7b1e_93d0_5a2f_4c68, low: 0x9f04_d1c7_e83b_62a5)
        #expect(throws: (any Error).self) { try broker.apply(id: other) }
        #expect(broker.partition().logEndOffset == 3, "what is served is not replaced")
        try broker.restartCleanly()
        try broker.apply(id: other)
        #expect(broker.partition().logEndOffset == 0)
        #expect(broker.files("data/log").contains { $0.hasPrefix(topicName) && $0.hasSuffix("-stray") })
    }

    @Test func areDeletedAlsoWhenTheyWereNotOpen() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        try broker.apply()
        try broker.restartCleanly()
        try broker.stop(delete: true)
        #expect(!broker.files("data/log").contains("\(topicName)-0"))
    }

    @Test func takeOneOrderAfterAnother() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        let assignment = PartitionLeadership.Assignment(
            leader: 1, leaderEpoch: 0, partitionEpoch: 0, replicas: [1], inSyncReplicas: [1])
        let replicas = broker.replicas!
        let count = Unchecked(Counter())
        for order in 0..<4 {
            broker.host.loops[0].spawn {
                if order == 2 {
                    try? await replicas.stop(topic: topicName, partition: 0, delete: true)
                } else {
                    try? await replicas.apply(
                        topic: topicName, id: topicID, config: smallTopic(), partition: 0, assignment: assignment, isNew: true)
                }
                count.value.count += 1
            }
        }
        broker.world.run(for: .seconds(5))
        #expect(count.value.count == 4)
        broker.appendAll(2)
        #expect(broker.files("data/log").filter { $0 == "\(topicName)-0" }.count == 1)
    }
}

private final class Counter { var count = 0 }

@Suite struct SeveralLogDirectories {
    @Test func areFilledEvenly() throws {
        let broker = try openBroker(directories: ["data/a", "data/b", "data/c"])
        defer { broker.world.end() }
        for index in 0..<6 as Range<Int32> { try broker.apply(index) }
        for path in ["data/a", "data/b", "data/c"] {
            #expect(broker.files(path).filter { $0.hasPrefix(topicName) }.count == 2)
        }
        try broker.restartCleanly()
        try broker.apply(6)
        try broker.apply(0, epoch: 1)
        #expect(broker.partition(0).directory.path == "data/a" && broker.partition(6).directory.path == "data/a")
    }

    @Test func mayHaveOneThatCannotBeUsedAtTheStart() throws {
        let broker = try openBroker(directories: ["data/a", "data/b"])
        defer { broker.world.end() }
        try broker.apply(0)
        try broker.apply(1)
        try broker.run { await $0.close() }
        broker.host.kill()
        broker.host = broker.host.restart()
        broker.host.files.fail(.list, of: "data/a", with: .other, times: 100)
        try broker.start()
        #expect(broker.lines.says("log directory cannot be used"))
        #expect(throws: (any Error).self) { try broker.apply(0, epoch: 1, isNew: false) }
        try broker.apply(1, epoch: 1, isNew: false)
        try broker.apply(2, isNew: true)
        #expect(broker.partition(2).directory.path == "data/b")
    }

    @Test func areEachOpenOnce() throws {
        let broker = try openBroker()
        defer { broker.world.end() }
        let other = broker.world.makeProcess("another", beside: broker.host)
        #expect { _ = try ReplicaHost.open(host: other, config: broker.config, sink: LinesOfLog()) } throws: { error in
            error as? LogError == .directoryLocked(path: "data/log")
        }
        broker.host.kill()
        _ = try ReplicaHost.open(host: other, config: broker.config, sink: LinesOfLog())
    }
}

@Suite struct Retention {
    @Test func givesUpWhatIsTooOld() throws {
        let broker = try openBroker(settings: [(name: "log.retention.check.interval.ms", value: "10000")])
        defer { broker.world.end() }
        try broker.apply(config: smallTopic { ($0.retentionMs, $0.fileDeleteDelayMs) = (60_000, 5_000) })
        let producer = Producer(broker.host.loops[0])
        for index in 0..<5 {
            broker.append(batch([big], at: broker.host.clock.wallMilliseconds), .committed, producer, index)
        }
        broker.world.run(for: .seconds(40))
        #expect(broker.partition().logStartOffset == 0)
        broker.world.run(for: .seconds(40))
        #expect(broker.partition().logStartOffset == 5)
        #expect(!broker.files("data/log/\(topicName)-0").contains("00000000000000000000.log"))
        broker.world.run(for: .seconds(20))
        #expect(!broker.files("data/log/\(topicName)-0").contains { $0.hasSuffix(".deleted") })
    }

    @Test func givesUpWhatIsTooMuch() throws {
        let broker = try openBroker(settings: [(name: "log.retention.check.interval.ms", value: "10000")])
        defer { broker.world.end() }
        try broker.apply(config: smallTopic { ($0.retentionMs, $0.retentionBytes) = (-1, 5_000) })
        broker.appendAll(9)
        broker.world.run(for: .seconds(40))
        #expect(broker.partition().logStartOffset > 0 && broker.partition().logStartOffset < 9)
        #expect(broker.partition().sizeBytes >= 5_000)
    }
}
