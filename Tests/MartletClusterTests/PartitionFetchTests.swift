import MartletBasics
import MartletCluster
import MartletModel
import MartletSimulation
import Testing

private func leader(
    replicas: [BrokerID] = [1], config: TopicConfig = smallTopic(), epoch: LeaderEpoch = 0
) throws -> (Broker, Producer) {
    let broker = try Broker(SimulatedWorld(seed: 5)).start()
    try broker.apply(epoch: epoch, replicas: replicas, config: config)
    broker.world.run(for: .milliseconds(200))
    return (broker, Producer(broker.host.loops[0]))
}

private var nothing: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: nil, count: 0) }

private func followerBatch(_ values: [String], at offset: Offset, epoch: LeaderEpoch) -> BatchBytes {
    var identity = BatchIdentity()
    (identity.baseOffset, identity.leaderEpoch) = (offset, epoch)
    return batch(values, identity: identity)
}

@Suite struct AFetch {
    @Test func givesTheFirstBatchWholeAndWatchesTheLimitAfterwards() throws {
        let (broker, producer) = try leader()
        defer { broker.world.end() }
        for index in 0..<3 { broker.append(batch([String(repeating: "x", count: 300)]), .committed, producer, index) }
        broker.world.run(for: .milliseconds(50))
        let partition = broker.partition()
        let whole = partition.fetch(PartitionFetchRequest(offset: 1, maxBytes: 1, firstBatchWhole: true))
        #expect(batches(in: try bytes(whole.slice)).map(\.base) == [1])
        let cut = partition.fetch(PartitionFetchRequest(offset: 1, maxBytes: 100, firstBatchWhole: false))
        #expect(try bytes(cut.slice).count == 100)
    }

    @Test func outOfRangeIsRefusedAndAtTheEndIsEmpty() throws {
        let (broker, producer) = try leader()
        defer { broker.world.end() }
        broker.append(batch(["a", "b"]), .committed, producer, 1)
        broker.world.run(for: .milliseconds(50))
        let partition = broker.partition()
        #expect(
            partition.fetch(PartitionFetchRequest(offset: 3, maxBytes: 1, firstBatchWhole: true)).error == .offsetOutOfRange)
        let end = partition.fetch(PartitionFetchRequest(offset: 2, maxBytes: 1, firstBatchWhole: true))
        #expect(end.error == .none && end.slice == nil && end.highWatermark == 2)
        #expect(try partition.deleteRecords(before: 1).get() == 1)
        let below = partition.fetch(PartitionFetchRequest(offset: 0, maxBytes: 1, firstBatchWhole: true))
        #expect(below.error == .offsetOutOfRange && below.logStartOffset == -1)
        let follower = PartitionFetchRequest(
            offset: 0, maxBytes: 1, firstBatchWhole: true, follower: FollowerIdentity(broker: 1, durable: 0))
        #expect(partition.fetch(follower).logStartOffset == 1, "a follower learns where to start over")
    }

    @Test func ofAConsumerEndsAtTheHighWatermarkAndOfAFollowerAtTheLogsEnd() throws {
        let (broker, producer) = try leader(replicas: [1, 2])
        defer { broker.world.end() }
        broker.append(batch(["a"]), .written, producer, 1)
        broker.world.run(for: .milliseconds(50))
        let partition = broker.partition()
        let consumer = partition.fetch(PartitionFetchRequest(offset: 0, maxBytes: 100, firstBatchWhole: true))
        #expect(consumer.error == .none && consumer.slice == nil)
        let follower = partition.fetch(
            PartitionFetchRequest(
                offset: 0, maxBytes: 100, firstBatchWhole: true, currentLeaderEpoch: 0,
                follower: FollowerIdentity(broker: 2, durable: 0)))
        #expect(batches(in: try bytes(follower.slice)).map(\.base) == [0])
        let stranger = partition.fetch(
            PartitionFetchRequest(
                offset: 0, maxBytes: 100, firstBatchWhole: true, currentLeaderEpoch: 0, follower: FollowerIdentity(broker: 9)))
        #expect(stranger.error == .unknownLeaderEpoch)
    }

    @Test func ofAnotherEpochIsFenced() throws {
        let (broker, _) = try leader(epoch: 4)
        defer { broker.world.end() }
        func error(_ epoch: LeaderEpoch) -> ErrorCode {
            broker.partition().fetch(
                PartitionFetchRequest(offset: 0, maxBytes: 1, firstBatchWhole: true, currentLeaderEpoch: epoch)
            ).error
        }
        #expect(error(3) == .fencedLeaderEpoch && error(4) == .none && error(5) == .unknownLeaderEpoch)
    }

    @Test func readingCommittedStopsAtAnOpenTransactionAndNamesTheAborted() throws {
        let (broker, producer) = try leader()
        defer { broker.world.end() }
        let open = BatchIdentity(producerID: 7, epoch: 0, baseSequence: 0, isTransactional: true)
        broker.append(batch(["before"]), .committed, producer, 1)
        broker.append(batch(["undecided"], identity: open), .committed, producer, 2)
        broker.append(batch(["after"]), .committed, producer, 3)
        broker.world.run(for: .milliseconds(50))
        #expect(try broker.read(committed: true) == ["0:before"])
        #expect(try broker.read() == ["0:before", "1:undecided", "2:after"])
        broker.append(marker(.abort, producer: 7), .committed, producer, 4, origin: .coordinator)
        broker.world.run(for: .milliseconds(50))
        let found = broker.partition().fetch(
            PartitionFetchRequest(offset: 0, maxBytes: 1 << 20, firstBatchWhole: true, readCommitted: true))
        #expect(found.lastStableOffset == 4)
        #expect(found.abortedTransactions.map(\.producerID) == [7] && found.abortedTransactions.map(\.firstOffset) == [1])
    }

    @Test func ofALogThatDivergesIsToldWhere() throws {
        let (broker, producer) = try leader(replicas: [1, 2])
        defer { broker.world.end() }
        broker.append(batch(["a", "b", "c"]), .written, producer, 1)
        try broker.apply(epoch: 3, partitionEpoch: 1, replicas: [1, 2])
        broker.append(batch(["d"]), .written, producer, 2)
        func diverging(_ offset: Offset, _ epoch: LeaderEpoch) -> EpochEnd? {
            broker.partition().fetch(
                PartitionFetchRequest(
                    offset: offset, maxBytes: 1, firstBatchWhole: true, currentLeaderEpoch: 3, lastFetchedEpoch: epoch,
                    follower: FollowerIdentity(broker: 2, durable: 0))
            ).divergingEpoch
        }
        #expect(diverging(5, 0) == EpochEnd(epoch: 0, endOffset: 3))
        #expect(diverging(5, 2) == EpochEnd(epoch: 0, endOffset: 3), "an epoch that wrote nothing here")
        #expect(diverging(3, 0) == nil && diverging(4, 3) == nil)
        #expect(diverging(9, 3) == EpochEnd(epoch: 3, endOffset: 4))
    }
}

@Suite struct AWatcher {
    @Test func isWokenOnceForEachPieceOfNews() throws {
        let (broker, producer) = try leader()
        defer { broker.world.end() }
        let watcher = Watcher()
        let token = broker.partition().watch(watcher)
        broker.append(batch(["a"]), .written, producer, 1)
        broker.append(batch(["b"]), .written, producer, 2)
        broker.world.run(for: .milliseconds(100))
        #expect((1...2).contains(watcher.takeCount()), "once for each time that the high watermark moved")
        broker.world.run(for: .seconds(1))
        #expect(watcher.takeCount() == 0)
        try broker.apply(leader: 2, epoch: 1, partitionEpoch: 1, replicas: [1, 2])
        broker.world.run(for: .milliseconds(5))
        #expect(watcher.takeCount() == 1, "that another leads is news")
        broker.partition().unwatch(token)
        try broker.apply(epoch: 2, partitionEpoch: 2, replicas: [1, 2])
        broker.world.run(for: .milliseconds(5))
        #expect(watcher.takeCount() == 0)
    }

    @Test func thatFollowsIsWokenByWhatIsNotCommittedYet() throws {
        let (broker, producer) = try leader(replicas: [1, 2])
        defer { broker.world.end() }
        let watcher = Watcher()
        _ = broker.partition().watch(watcher)
        broker.append(batch(["a"]), .committed, producer, 1)
        broker.world.run(for: .milliseconds(1))
        #expect(watcher.takeCount() == 1, "else the follower learns of it only when its wait is over")
    }
}

@Suite struct AFollower {
    private func follower(epoch: LeaderEpoch = 1) throws -> (Broker, Partition) {
        let broker = try Broker(SimulatedWorld(seed: 6)).start()
        try broker.apply(leader: 2, epoch: epoch, replicas: [1, 2])
        broker.world.run(for: .milliseconds(100))
        return (broker, broker.partition())
    }

    @Test func copiesAndTellsWhatIsOnItsDisk() throws {
        let (broker, partition) = try follower()
        defer { broker.world.end() }
        let bytes = followerBatch(["a", "b"], at: 0, epoch: 1)
        try partition.follow(answer(partition, epoch: 1, highWatermark: 1), records: UnsafeRawBufferPointer(bytes.all))
        #expect(partition.nextFollowerFetch()?.offset == 2 && partition.nextFollowerFetch()?.follower?.durable == 0)
        #expect(partition.nextFollowerFetch()?.lastFetchedEpoch == 1 && partition.highWatermark == 1)
        broker.world.run(for: .milliseconds(100))
        #expect(partition.nextFollowerFetch()?.follower?.durable == 2)
    }

    @Test func ignoresAnswersOfAnEpochThatIsOver() throws {
        let (broker, partition) = try follower()
        defer { broker.world.end() }
        try broker.apply(leader: 2, epoch: 2, partitionEpoch: 1, replicas: [1, 2])
        let bytes = followerBatch(["old"], at: 0, epoch: 1)
        try partition.follow(answer(partition, epoch: 1, highWatermark: 1), records: UnsafeRawBufferPointer(bytes.all))
        #expect(partition.logEndOffset == 0)
        try broker.apply(leader: -1, epoch: 3, partitionEpoch: 2, replicas: [1, 2])
        #expect(partition.nextFollowerFetch() == nil, "it follows nobody")
    }

    @Test func ignoresAnAnswerThatAnotherHasOvertaken() throws {
        let (broker, partition) = try follower()
        defer { broker.world.end() }
        let old = followerBatch(["a", "b", "c"], at: 0, epoch: 0)
        try partition.follow(answer(partition, epoch: 1), records: UnsafeRawBufferPointer(old.all))
        let (back, again) = (
            answer(partition, epoch: 1, diverging: EpochEnd(epoch: 0, endOffset: 2)),
            answer(partition, epoch: 1, diverging: EpochEnd(epoch: 0, endOffset: 2))
        )
        try partition.follow(back, records: nothing)
        #expect(partition.logEndOffset == 0, "the batch that reaches over the end goes whole")
        let new = followerBatch(["x", "y", "z"], at: 0, epoch: 1)
        try partition.follow(answer(partition, epoch: 1, highWatermark: 3), records: UnsafeRawBufferPointer(new.all))
        try partition.follow(again, records: nothing)
        #expect(partition.logEndOffset == 3 && partition.highWatermark == 3, "what was committed is not cut by an old answer")
    }

    @Test func forgetsAnEpochInWhichItLedAndWroteNothing() throws {
        let (broker, partition) = try follower()
        defer { broker.world.end() }
        let bytes = followerBatch(["a"], at: 0, epoch: 1)
        try partition.follow(answer(partition, epoch: 1), records: UnsafeRawBufferPointer(bytes.all))
        try broker.apply(leader: 1, epoch: 2, partitionEpoch: 1, replicas: [1, 2])
        try broker.apply(leader: 2, epoch: 3, partitionEpoch: 2, replicas: [1, 2])
        #expect(partition.nextFollowerFetch()?.lastFetchedEpoch == 2)
        try partition.follow(answer(partition, epoch: 3, diverging: EpochEnd(epoch: 1, endOffset: 1)), records: nothing)
        #expect(partition.nextFollowerFetch()?.lastFetchedEpoch == 1, "else it would ask for ever")
        #expect(partition.logEndOffset == 1)
    }

    @Test func doesNotTakeTheHighWatermarkOfAnAnswerThatSendsItBack() throws {
        let (broker, partition) = try follower()
        defer { broker.world.end() }
        let bytes = followerBatch(["a", "b", "c"], at: 0, epoch: 0)
        let more = followerBatch(["d", "e"], at: 3, epoch: 1)
        try partition.follow(answer(partition, epoch: 1), records: UnsafeRawBufferPointer(bytes.all))
        try partition.follow(answer(partition, epoch: 1), records: UnsafeRawBufferPointer(more.all))
        try partition.follow(
            answer(partition, epoch: 1, highWatermark: 5, diverging: EpochEnd(epoch: 0, endOffset: 3)), records: nothing)
        #expect(partition.logEndOffset == 3 && partition.highWatermark == 0)
        try partition.follow(answer(partition, epoch: 1, highWatermark: 2), records: nothing)
        #expect(partition.highWatermark == 2)
    }

    @Test func isCutBeforeItsDiskSaysLessAndStartsAgainAfterAPowerCut() throws {
        for seed in 1...40 as ClosedRange<UInt64> {
            let broker = try Broker(SimulatedWorld(seed: seed)).start()
            defer { broker.world.end() }
            try broker.apply(leader: 2, epoch: 0, replicas: [1, 2])
            for index in 0..<6 {
                let bytes = followerBatch([String(repeating: "x", count: 1500)], at: Offset(index), epoch: 0)
                try broker.partition().follow(answer(broker.partition(), epoch: 0), records: UnsafeRawBufferPointer(bytes.all))
            }
            // the recovery point and the lower bound say 6
            broker.world.run(for: .seconds(61))
            try broker.apply(leader: 2, epoch: 1, partitionEpoch: 1, replicas: [1, 2])
            broker.host.powerCut(afterDiskOperations: Int(seed))
            try? broker.partition().follow(
                answer(broker.partition(), epoch: 1, diverging: EpochEnd(epoch: 0, endOffset: 1)), records: nothing)
            broker.world.run(for: .milliseconds(Int64(seed)))
            if broker.host.isAlive { broker.host.powerCut() }
            broker.host = broker.host.restart()
            try broker.start()
            try broker.apply(leader: 2, epoch: 1, partitionEpoch: 1, replicas: [1, 2])
            #expect([1, 2, 4, 6].contains(broker.partition().logEndOffset), "seed \(seed)")
        }
    }

    @Test func startsOverWhereTheLeadersLogBegins() throws {
        let (broker, partition) = try follower()
        defer { broker.world.end() }
        let bytes = followerBatch(["a"], at: 0, epoch: 1)
        try partition.follow(answer(partition, epoch: 1), records: UnsafeRawBufferPointer(bytes.all))
        try partition.follow(answer(partition, epoch: 1, error: .offsetOutOfRange, logStart: -1), records: nothing)
        #expect(partition.logEndOffset == 1, "a leader that does not say where has not said anything")
        try partition.follow(answer(partition, epoch: 1, error: .offsetOutOfRange, logStart: 50), records: nothing)
        #expect(partition.logStartOffset == 50 && partition.logEndOffset == 50 && partition.highWatermark == 50)
        // the leader's log begins inside its first batch
        let reaching = followerBatch(["48", "49", "50", "51"], at: 48, epoch: 1)
        try partition.follow(
            answer(partition, epoch: 1, highWatermark: 52, logStart: 50), records: UnsafeRawBufferPointer(reaching.all))
        #expect(partition.logStartOffset == 50 && partition.logEndOffset == 52)
        broker.world.run(for: .milliseconds(300))
        broker.crash(powerCut: true)
        try broker.start()
        try broker.apply(leader: 2, epoch: 1, replicas: [1, 2])
        #expect(broker.partition().logEndOffset == 52)
    }

    @Test func waitsOutAFullDisk() throws {
        let (broker, partition) = try follower()
        defer { broker.world.end() }
        let bytes = followerBatch(["a"], at: 0, epoch: 1)
        broker.host.files.fail(.write, of: ".log", with: .noSpace)
        #expect(throws: (any Error).self) {
            try partition.follow(answer(partition, epoch: 1), records: UnsafeRawBufferPointer(bytes.all))
        }
        #expect(!partition.isOffline && partition.nextFollowerFetch()?.offset == 0)
        try partition.follow(answer(partition, epoch: 1), records: UnsafeRawBufferPointer(bytes.all))
        #expect(partition.logEndOffset == 1)
    }
}
