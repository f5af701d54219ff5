import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// A broker that leads one partition; the disk is slow enough to look between a write and its sync.
private func leader(
    seed: UInt64 = 1, config: TopicConfig = smallTopic(), replicas: [BrokerID] = [1]
) throws -> (Broker, Producer) {
    let broker = try Broker(SimulatedWorld(seed: seed)).start()
    try broker.apply(replicas: replicas, config: config)
    // the new folder's own sync is over
    broker.world.run(for: .milliseconds(200))
    broker.host.files.syncLatency = Latency(.milliseconds(10), .milliseconds(10))
    broker.world.loopsAreNeverIdle = true
    return (broker, Producer(broker.host.loops[0]))
}

extension Broker {
    /// What a follower tells by its fetch.
    func followerFetches(_ id: BrokerID, at offset: Offset, durable: Offset?) {
        _ = partition().fetch(
            PartitionFetchRequest(
                offset: offset, maxBytes: 1 << 20, firstBatchWhole: true, currentLeaderEpoch: partition().leaderEpoch,
                follower: FollowerIdentity(broker: id, durable: durable)))
    }
}

@Suite struct AnAppend {
    @Test func ofAcksOneIsAnsweredWhenWrittenAndOfAcksAllWhenSynced() throws {
        let (broker, producer) = try leader()
        defer { broker.world.end() }
        broker.append(batch(["a"]), .written, producer, 1)
        broker.append(batch(["b"]), .committed, producer, 2)
        broker.world.run(for: .milliseconds(3))
        #expect(producer.error(1) == ErrorCode.none && producer.error(2) == nil)
        #expect(broker.partition().highWatermark == 0, "consumers see what is synced")
        broker.world.run(for: .milliseconds(30))
        #expect(producer.error(2) == ErrorCode.none)
        #expect(try broker.read() == ["0:a", "1:b"])
    }

    @Test func ofAcksOneIsSyncedSoonThoughNobodyWaits() throws {
        let (broker, producer) = try leader()
        defer { broker.world.end() }
        broker.append(batch(["a"]), .written, producer, 1)
        broker.world.run(for: .milliseconds(20))
        #expect(broker.partition().durableOffset == 1)
        #expect(try broker.read() == ["0:a"])
    }

    @Test func ofAcksAllWaitsForTheFollowersDisk() throws {
        let (broker, producer) = try leader(replicas: [1, 2])
        defer { broker.world.end() }
        broker.append(batch(["a"]), .committed, producer, 1)
        broker.world.run(for: .milliseconds(30))
        broker.followerFetches(2, at: 1, durable: 0)
        broker.world.run(for: .milliseconds(5))
        #expect(producer.error(1) == nil, "it is in the follower's log, and not on its disk")
        broker.followerFetches(2, at: 1, durable: 1)
        broker.world.run(for: .milliseconds(5))
        #expect(producer.error(1) == ErrorCode.none)
    }

    @Test func isAnsweredFromThePageCacheWhereTheTopicSaysSo() throws {
        let (broker, producer) = try leader(config: smallTopic { $0.durability = .pageCache })
        defer { broker.world.end() }
        broker.append(batch(["a"]), .committed, producer, 1)
        broker.world.run(for: .milliseconds(2))
        #expect(producer.error(1) == ErrorCode.none)
        #expect(broker.partition().durableOffset == 0)
        broker.world.run(for: .seconds(5))
        #expect(broker.partition().durableOffset == 0, "nothing asked for a sync")
    }

    @Test func waitsForTheDiskWhereFlushMessagesIsReached() throws {
        let (broker, producer) = try leader(config: smallTopic { ($0.durability, $0.flushMessages) = (.pageCache, 3) })
        defer { broker.world.end() }
        broker.append(batch(["a", "b"]), .written, producer, 1)
        broker.world.run(for: .milliseconds(2))
        #expect(producer.error(1) == ErrorCode.none)
        broker.append(batch(["c"]), .written, producer, 2)
        broker.append(batch(["d"]), .committed, producer, 3)
        broker.world.run(for: .milliseconds(3))
        #expect(producer.error(2) == nil, "the third record asks for a flush")
        broker.world.run(for: .milliseconds(30))
        #expect(producer.error(2) == ErrorCode.none && producer.error(3) == ErrorCode.none)
        #expect(broker.partition().durableOffset >= 3)
    }

    @Test func isFlushedWhenFlushMsIsOver() throws {
        let (broker, producer) = try leader(config: smallTopic { ($0.durability, $0.flushMs) = (.pageCache, 500) })
        defer { broker.world.end() }
        broker.append(batch(["a"]), .written, producer, 1)
        broker.world.run(for: .milliseconds(400))
        #expect(broker.partition().durableOffset == 0)
        broker.world.run(for: .milliseconds(300))
        #expect(broker.partition().durableOffset == 1)
    }

    @Test func thatFillsASegmentIsSyncedUnderThePageCacheToo() throws {
        let (broker, producer) = try leader(config: smallTopic { $0.durability = .pageCache })
        defer { broker.world.end() }
        for index in 0..<4 { broker.append(batch([String(repeating: "x", count: 1500)]), .written, producer, index) }
        broker.world.run(for: .milliseconds(100))
        #expect(broker.partition().durableOffset >= 2)
        #expect((0..<4).allSatisfy { producer.error($0) == ErrorCode.none })
    }

    @Test func thatWaitsTooLongIsTimedOutAndStaysInTheLog() throws {
        let (broker, producer) = try leader(replicas: [1, 2])
        defer { broker.world.end() }
        broker.append(batch(["a"]), .committed, producer, 1, timeout: .milliseconds(300))
        broker.append(batch(["b"]), .committed, producer, 2, timeout: .seconds(5))
        broker.world.run(for: .milliseconds(250))
        #expect(producer.error(1) == nil)
        broker.world.run(for: .milliseconds(250))
        #expect(producer.error(1) == .requestTimedOut && producer.error(2) == nil)
        broker.followerFetches(2, at: 2, durable: 2)
        broker.world.run(for: .milliseconds(20))
        #expect(producer.error(2) == ErrorCode.none && producer.order == [1, 2])
        #expect(try broker.read() == ["0:a", "1:b"])
    }

    @Test func isRefusedWithTooFewInSyncReplicasAndTellsWhenTheyBecameTooFew() throws {
        let config = smallTopic { $0.minInsyncReplicas = 2 }
        let (broker, producer) = try leader(config: config, replicas: [1, 2])
        defer { broker.world.end() }
        broker.append(batch(["a"]), .committed, producer, 1)
        try broker.apply(partitionEpoch: 1, replicas: [1, 2], inSync: [1], config: config)
        broker.world.run(for: .milliseconds(40))
        #expect(producer.error(1) == .notEnoughReplicasAfterAppend)
        let start = broker.append(batch(["b"]), .committed, producer, 2)
        guard case .refused(.notEnoughReplicas, _) = start else { Issue.record("\(start)"); return }
        broker.append(batch(["c"]), .written, producer, 3)
        broker.world.run(for: .milliseconds(5))
        #expect(producer.error(3) == ErrorCode.none, "acks=1 does not ask")
    }

    @Test func sentAgainIsAnsweredWhenItsFirstCopyIs() throws {
        let (broker, producer) = try leader()
        defer { broker.world.end() }
        let identity = BatchIdentity(producerID: 9, epoch: 0, baseSequence: 0)
        broker.append(batch(["a"], identity: identity), .committed, producer, 1)
        let again = broker.append(batch(["a"], identity: identity), .committed, producer, 2)
        guard case .duplicate(0, _, true) = again else { Issue.record("\(again)"); return }
        broker.world.run(for: .milliseconds(3))
        #expect(producer.outcomes.isEmpty)
        broker.world.run(for: .milliseconds(30))
        #expect(producer.error(1) == ErrorCode.none && producer.error(2) == ErrorCode.none)
        let late = broker.append(batch(["a"], identity: identity), .committed, producer, 3)
        guard case .duplicate(0, _, false) = late else { Issue.record("\(late)"); return }
        #expect(try broker.read() == ["0:a"])
    }
}

@Suite struct TheLossOfLeadership {
    @Test func failsWhoWaitsAndWhatWasNotYetWritten() throws {
        let (broker, producer) = try leader(replicas: [1, 2])
        defer { broker.world.end() }
        broker.append(batch(["a"]), .committed, producer, 1)
        broker.world.run(for: .milliseconds(30))
        broker.append(batch(["b"]), .written, producer, 2, isWritten: false)
        try broker.apply(leader: 2, epoch: 1, partitionEpoch: 1, replicas: [1, 2])
        broker.world.run(for: .milliseconds(5))
        #expect(producer.error(1) == .notLeaderOrFollower && producer.error(2) == .notLeaderOrFollower)
        #expect(broker.partition().logEndOffset == 1, "what a turn had reserved is not written in another's epoch")
        let start = broker.append(batch(["c"]), .written, producer, 3)
        guard case .refused(.notLeaderOrFollower, _) = start else { Issue.record("\(start)"); return }
    }

    @Test func doesNotLetARewrittenOffsetSatisfyAnOldWaiter() throws {
        let (broker, producer) = try leader(replicas: [1, 2])
        defer { broker.world.end() }
        broker.append(batch(["mine"]), .committed, producer, 1)
        broker.world.run(for: .milliseconds(30))
        try broker.apply(leader: 2, epoch: 1, partitionEpoch: 1, replicas: [1, 2])
        let other = batch(
            ["theirs"],
            identity: {
                var identity = BatchIdentity(); identity.leaderEpoch = 1; return identity
            }())
        let partition = broker.partition()
        try partition.follow(
            answer(partition, epoch: 1, diverging: EpochEnd(epoch: 0, endOffset: 0)),
            records: UnsafeRawBufferPointer(start: nil, count: 0))
        try partition.follow(answer(partition, epoch: 1, highWatermark: 1), records: UnsafeRawBufferPointer(other.all))
        try broker.apply(epoch: 2, partitionEpoch: 2, replicas: [1, 2], inSync: [1])
        broker.world.run(for: .milliseconds(50))
        #expect(producer.error(1) == .notLeaderOrFollower)
        #expect(try broker.read() == ["0:theirs"])
    }

    @Test func ofAnEpochThatTheSameBrokerLeadsOnKeepsWhatIsInTheLog() throws {
        let (broker, producer) = try leader(replicas: [1, 2])
        defer { broker.world.end() }
        broker.append(batch(["a"]), .committed, producer, 1)
        broker.append(batch(["b"]), .committed, producer, 2, isWritten: false)
        try broker.apply(epoch: 1, partitionEpoch: 1, replicas: [1, 2])
        broker.world.run(for: .milliseconds(20))
        #expect(producer.error(1) == nil && producer.error(2) == .notLeaderOrFollower)
        broker.append(batch(["c"]), .committed, producer, 3)
        broker.world.run(for: .milliseconds(20))
        broker.followerFetches(2, at: 2, durable: 2)
        broker.world.run(for: .milliseconds(20))
        #expect(producer.error(1) == ErrorCode.none && producer.error(3) == ErrorCode.none)
        #expect(try broker.read() == ["0:a", "1:c"])
    }

    @Test func isToldToWhoWaitsWhenTheReplicaIsStopped() throws {
        let (broker, producer) = try leader(replicas: [1, 2])
        defer { broker.world.end() }
        broker.append(batch(["a"]), .committed, producer, 1)
        try broker.stop(delete: false)
        broker.world.run(for: .milliseconds(20))
        #expect(producer.error(1) == .notLeaderOrFollower)
    }
}

/// What the leader answers to what the follower would ask now.
func answer(
    _ partition: Partition, epoch: LeaderEpoch, error: ErrorCode = .none, highWatermark: Offset = 0, logStart: Offset = 0,
    diverging: EpochEnd? = nil
) -> Partition.LeaderAnswer {
    var request = PartitionFetchRequest(offset: partition.logEndOffset, maxBytes: 1, firstBatchWhole: true)
    if let asked = partition.nextFollowerFetch() { request = asked }
    request.currentLeaderEpoch = epoch
    return Partition.LeaderAnswer(
        to: request, error: error, highWatermark: highWatermark, logStartOffset: logStart, divergingEpoch: diverging)
}

@Suite struct AFaultyDisk {
    @Test func thatIsFullFailsWhatWasReservedAndNothingElse() throws {
        let (broker, producer) = try leader()
        defer { broker.world.end() }
        broker.append(batch(["a"]), .committed, producer, 1)
        broker.world.run(for: .milliseconds(30))
        broker.host.files.fail(.write, of: ".log", with: .noSpace)
        broker.append(batch(["b"]), .written, producer, 2, isWritten: false)
        broker.append(batch(["c"]), .committed, producer, 3)
        broker.world.run(for: .milliseconds(5))
        #expect(producer.error(2) == .kafkaStorageError && producer.error(3) == .kafkaStorageError)
        #expect(broker.lines.says("the disk is full"))
        broker.append(batch(["d"]), .committed, producer, 4)
        broker.world.run(for: .milliseconds(30))
        #expect(producer.error(1) == ErrorCode.none && producer.error(4) == ErrorCode.none)
        #expect(try broker.read() == ["0:a", "1:d"])
    }

    @Test func thatHasNoRoomForANewSegmentDoesNotTakeTheDirectoryOffline() throws {
        let (broker, producer) = try leader()
        defer { broker.world.end() }
        broker.append(batch([String(repeating: "x", count: 3000)]), .committed, producer, 1)
        broker.world.run(for: .milliseconds(30))
        broker.host.files.fail(.open, of: "00001.log", with: .noSpace)
        let start = broker.append(batch([String(repeating: "y", count: 3000)]), .committed, producer, 2)
        guard case .refused(.kafkaStorageError, _) = start else { Issue.record("\(start)"); return }
        broker.append(batch([String(repeating: "z", count: 3000)]), .committed, producer, 3)
        broker.world.run(for: .milliseconds(50))
        #expect(producer.error(3) == ErrorCode.none && !broker.partition().isOffline)
    }

    @Test func whoseSyncFailsTakesItsDirectoryOfflineAndTheOtherServesOn() throws {
        let broker = try Broker(SimulatedWorld(seed: 3), directories: ["data/a", "data/b"]).start()
        defer { broker.world.end() }
        try broker.apply(0)
        try broker.apply(1)
        #expect(broker.partition(0).directory.path == "data/a" && broker.partition(1).directory.path == "data/b")
        broker.world.run(for: .milliseconds(200))
        let producer = Producer(broker.host.loops[0])
        broker.host.files.fail(.sync, of: "data/a/", with: .other)
        broker.append(batch(["a"]), .committed, producer, 1, partition: broker.partition(0))
        broker.append(batch(["b"]), .committed, producer, 2, partition: broker.partition(1))
        broker.world.run(for: .milliseconds(100))
        #expect(producer.error(1) == .kafkaStorageError && producer.error(2) == ErrorCode.none)
        #expect(broker.partition(0).isOffline && !broker.partition(1).isOffline)
        let refused = broker.append(batch(["c"]), .written, producer, 3, partition: broker.partition(0))
        guard case .refused(.kafkaStorageError, _) = refused else { Issue.record("\(refused)"); return }
        #expect(
            broker.partition(0).fetch(PartitionFetchRequest(offset: 0, maxBytes: 1, firstBatchWhole: true)).error
                == .kafkaStorageError)
        #expect(try broker.read(broker.partition(1)) == ["0:b"])
        // no second directory takes what may lie in the first
        #expect(throws: (any Error).self) { try broker.apply(2, isNew: false) }
        try broker.apply(2, isNew: true)
        #expect(broker.partition(2).directory.path == "data/b")
        broker.host.files.heal()
        try broker.restartCleanly()
        #expect(broker.replicas.wasUncleanStop, "a directory whose sync failed is recovered")
    }

    /// The write of the records succeeded: what fails is the index of the segment before.
    @Test func thatFailsBesideAnAppendTakesItsPartitionsOffline() throws {
        let (broker, producer) = try leader()
        defer { broker.world.end() }
        broker.append(batch([String(repeating: "x", count: 3000)]), .committed, producer, 1)
        broker.world.run(for: .milliseconds(30))
        broker.host.files.fail(.write, of: ".timeindex", with: .inputOutput)
        broker.append(batch([String(repeating: "y", count: 3000)]), .committed, producer, 2)
        broker.world.run(for: .milliseconds(50))
        #expect(producer.error(1) == ErrorCode.none && producer.error(2) == .kafkaStorageError)
        #expect(broker.partition().isOffline && broker.lines.says("log directory offline"))
    }

    @Test func whoseCheckpointFailsTakesItsPartitionsOffline() throws {
        let (broker, _) = try leader()
        defer { broker.world.end() }
        broker.host.files.fail(.write, of: "checkpoint", with: .other, times: 100)
        broker.world.run(for: .seconds(6))
        let producer = Producer(broker.host.loops[0])
        broker.append(batch(["a"]), .written, producer, 1)
        broker.world.run(for: .seconds(61))
        #expect(broker.partition().isOffline)
    }
}

@Suite struct IdlePartitions {
    /// Ten times a second all partitions were looked at for appends that wait and for `flush.ms`: ten thousand idle ones
    /// took 4 % of a core.
    @Test func areNotLookedAtAndThoseWithSomethingThatWaitsAre() throws {
        let (broker, producer) = try leader(replicas: [1, 2])
        defer { broker.world.end() }
        for index in 1..<200 as Range<Int32> { try broker.apply(index) }
        let lazy = smallTopic { ($0.durability, $0.flushMs) = (.pageCache, 5_000) }
        try broker.apply(topic: "lazy", id: UUID(high: 1, low: 1), config: lazy)
        broker.world.run(for: .seconds(1))
        var looks = LookCount(broker)
        broker.world.run(for: .seconds(10))
        #expect(looks.more() == 0)

        broker.append(batch(["a"]), .committed, producer, 1, timeout: .seconds(3))
        broker.world.run(for: .seconds(10))
        #expect(producer.error(1) == .requestTimedOut)
        #expect((25...35).contains(looks.more()), "while it waits, and no longer")

        broker.append(batch(["a"]), .written, producer, 2, partition: broker.partition(topic: "lazy"))
        broker.world.run(for: .seconds(4))
        #expect(producer.error(2) == ErrorCode.none && broker.partition(topic: "lazy").durableOffset == 0)
        broker.world.run(for: .seconds(10))
        #expect(broker.partition(topic: "lazy").durableOffset == 1)
        #expect((40...60).contains(looks.more()))
        broker.append(batch(["a"]), .committed, producer, 3, partition: broker.partition(7))
        broker.world.run(for: .seconds(10))
        #expect(producer.error(3) == ErrorCode.none)
        #expect(looks.more() <= 1, "what was over before the next look is looked at once")
    }

    @Test func thatAreToldOfFlushMsWhileSomethingIsNotSyncedAreFlushedAllTheSame() throws {
        let (broker, producer) = try leader(config: smallTopic { $0.durability = .pageCache })
        defer { broker.world.end() }
        broker.append(batch(["a"]), .written, producer, 1)
        broker.world.run(for: .seconds(2))
        #expect(broker.partition().durableOffset == 0)
        broker.host.files.syncLatency = Latency(.seconds(1), .seconds(1))
        broker.replicas.configChanged(topic: topicName, smallTopic { ($0.durability, $0.flushMs) = (.pageCache, 200) })
        broker.append(batch(["b"]), .written, producer, 2)
        broker.world.run(for: .seconds(4))
        #expect(broker.partition().durableOffset == 2)
    }
}

private struct LookCount {
    private let unit: LogDirectoryUnit
    private var before: UInt64

    init(_ broker: Broker) {
        unit = broker.replicas.units[0]
        before = unit.timed.lookCount
    }

    mutating func more() -> UInt64 {
        defer { before = unit.timed.lookCount }
        return unit.timed.lookCount - before
    }
}
