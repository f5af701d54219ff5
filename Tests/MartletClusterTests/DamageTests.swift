import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire
import Testing

/// One replica of a broker is damaged, or one of its disks fails; the others go on.
@Suite struct ABrokerWithDamage {
    /// Two partitions with records, stopped cleanly, and bytes of the first one's batches changed.
    private func damaged(_ seed: UInt64 = 1, directories: [String] = ["data/log"]) throws -> Broker {
        let broker = try Broker(SimulatedWorld(seed: seed), directories: directories).start()
        for index in [0, 1] as [Int32] {
            try broker.apply(index)
            broker.appendAll(6, index)
        }
        let path = broker.partition(0).directory.path + "/\(topicName)-0/00000000000000000000.log"
        try broker.run { await $0.close() }
        broker.host.files.flipBits(path, in: 700..<701)
        broker.host.kill()
        broker.host = broker.host.restart()
        try broker.start()
        return broker
    }

    /// Fetches as a connection does: checks what nobody has checked.
    private func fetch(_ broker: Broker, _ index: Int32) -> PartitionFetch {
        let question = PartitionFetchRequest(offset: 0, maxBytes: 1 << 20, firstBatchWhole: true)
        let found = broker.partition(index).fetch(question)
        guard let slice = found.slice, slice.needsCheck, let verdict = slice.check() else { return found }
        broker.partition(index).noteChecked(verdict)
        return broker.partition(index).fetch(question)
    }

    @Test func takesThatPartitionOfflineWhenItIsReadAndServesTheOther() throws {
        let broker = try damaged()
        defer { broker.world.end() }
        var told = 0
        broker.replicas.onAvailability = { told += 1 }
        for index in [0, 1] as [Int32] { try broker.apply(index, epoch: 1) }
        let found = fetch(broker, 0)
        broker.world.run(for: .milliseconds(10))
        #expect(found.error == .kafkaStorageError && found.slice == nil)
        #expect(broker.partition(0).isOffline && broker.partition(0).hasFailed && !broker.partition(0).isLeader)
        #expect(told == 1, "whoever decides about leaders hears of it")
        #expect(broker.lines.says("partition offline"))
        #expect(broker.lines.says("martlet log verify --repair data/log/\(topicName)-0"))
        #expect(broker.lines.says("damaged at offset 0"), "the offset is told")
        #expect(!broker.replicas.units[0].directory.isOffline, "one rotten batch is no failed disk")
        #expect(fetch(broker, 1).error == .none)
        broker.appendAll(3, 1)
        let producer = Producer(broker.host.loops[0])
        let start = broker.append(batch(["x"]), .committed, producer, 0, partition: broker.partition(0))
        guard case .refused(.kafkaStorageError, _) = start else {
            Issue.record("\(start)")
            return
        }
        // the next start looks at the whole directory again
        try broker.run { await $0.close() }
        #expect(broker.lines.says("not closed cleanly"))
    }

    @Test func thatCannotOpenAReplicaSaysWhoseFaultItIs() throws {
        let broker = try Broker(SimulatedWorld(seed: 2)).start()
        defer { broker.world.end() }
        for index in [0, 1] as [Int32] {
            try broker.apply(index)
            broker.appendAll(6, index)
        }
        broker.world.run(for: .seconds(1))
        broker.crash(powerCut: false)
        broker.host.files.flipBits("data/log/\(topicName)-0/00000000000000000000.log", in: 700..<701)
        try broker.start()
        #expect(throws: LogError.self) { try broker.apply(0, epoch: 1) }
        try broker.apply(1, epoch: 1)
        let topic = try #require(broker.replicas.topics.table.topic(topicName))
        #expect(topic.partition(0) == nil && topic.hasFailed(0) && !topic.hasFailed(1) && topic.failedCount == 1)
        #expect(broker.partition(1).highWatermark == 6)
        // deleting the topic takes it away all the same
        try broker.stop(0, delete: true)
        #expect(!topic.hasFailed(0))
        #expect(!broker.files("data/log").contains("\(topicName)-0"))
    }

    @Test func withAFailedDirectoryGoesOnWithTheOther() throws {
        for operation in [DiskOperation.sync, .write] {
            let broker = try Broker(SimulatedWorld(seed: 3), directories: ["data/a", "data/b"]).start()
            defer { broker.world.end() }
            var ended: [String] = []
            broker.replicas.onNothingLeft = { ended.append($0) }
            for index in [0, 1] as [Int32] { try broker.apply(index) }
            let (first, second) = (broker.partition(0).directory.path, broker.partition(1).directory.path)
            #expect(first != second, "each new replica goes where there are fewest")
            broker.host.files.fail(operation, of: "\(first)/\(topicName)-0", with: .inputOutput)
            let producer = Producer(broker.host.loops[0])
            broker.append(batch(["x"]), .committed, producer, 0, partition: broker.partition(0))
            broker.world.run(for: .seconds(1))
            #expect(producer.error(0) == .kafkaStorageError, "\(operation)")
            #expect(broker.partition(0).isOffline && !broker.partition(1).isOffline)
            broker.appendAll(4, 1)
            #expect(broker.replicas.missingDirectories == [first])
            #expect(ended.isEmpty)
            broker.host.files.fail(operation, of: "\(second)/\(topicName)-1", with: .inputOutput)
            broker.append(batch(["x"]), .committed, producer, 1, partition: broker.partition(1))
            broker.world.run(for: .seconds(1))
            #expect(ended.count == 1 && ended[0].contains("No log directory can be used any more"))
        }
    }

    @Test func thatRunsOutOfDescriptorsBlamesNoDisk() throws {
        let broker = try Broker(SimulatedWorld(seed: 4)).start()
        defer { broker.world.end() }
        try broker.apply()
        broker.appendAll(6)
        try broker.restartCleanly()
        try broker.apply(epoch: 1)
        // a file that nobody has opened since the start
        broker.host.files.fail(.open, of: "00000000000000000000.log", with: .tooManyFiles, times: 1000)
        let question = PartitionFetchRequest(offset: 0, maxBytes: 1 << 20, firstBatchWhole: true)
        #expect(broker.partition().fetch(question).error == .kafkaStorageError)
        broker.world.run(for: .milliseconds(10))
        #expect(!broker.replicas.units[0].directory.isOffline && !broker.partition().isOffline)
        broker.host.files.heal()
        #expect(fetch(broker, 0).error == .none, "as soon as there is one")
    }
}

@Suite struct TheControllerOfABrokerWithDamage {
    @Test func learnsFromTheAnswersWhichReplicasAreOfflineAndTellsClients() throws {
        let facts = [0, 1].map { PartitionFacts(index: $0, replicas: [1], state: nil) }
        let id = UUID(high: 1, low: 2)
        var state = ControllerState(brokerID: 1, epoch: 1)
        let broker = LiveBroker(id: 1, epoch: 7, endpoints: [], rack: nil)
        _ = state.handle(.elected(
            brokers: [broker], topics: [TopicFacts(name: "t", id: id, partitions: facts)], deletions: [], areAllowed: true,
            raisesOwnEpochs: false))
        let actions = state.handle(.replicasFailed(1))
        let asked = actions.compactMap { action -> LeaderAndIsrRequest? in
            if case .send(.leaderAndIsr(let request), to: 1) = action { request } else { nil }
        }
        let request = try #require(asked.first)
        #expect(request.topicStates[0].partitionStates.map(\.partitionIndex).sorted() == [0, 1], "it is asked for all")
        var response = LeaderAndIsrResponse()
        var topic = LeaderAndIsrResponse.LeaderAndIsrTopicError()
        topic.topicID = id
        for index in [0, 1] as [Int32] {
            var error = LeaderAndIsrResponse.LeaderAndIsrPartitionError()
            error.partitionIndex = index
            error.errorCode = index == 0 ? .kafkaStorageError : .staleControllerEpoch
            topic.partitionErrors.append(error)
        }
        response.topics = [topic]
        let told = state.handle(.answered(by: 1, .leaderAndIsr(request), .leaderAndIsr(response)))
        let states = told.compactMap { action -> [UpdateMetadataRequest.UpdateMetadataPartitionState]? in
            guard case .send(.updateMetadata(let request), to: 1) = action else { return nil }
            return request.topicStates.flatMap(\.partitionStates)
        }.flatMap { $0 }
        let offline = try #require(states.last { $0.partitionIndex == 0 })
        #expect(offline.leader == -1 && offline.offlineReplicas == [1])
        #expect(!states.contains { $0.partitionIndex == 1 && $0.leader != 1 })
    }
}
