import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire
import Testing

/// What is done to all partitions of a topic costs so much for each, and not so much for each and every other.
@Suite struct ATopicOfManyPartitions {
    private let count: Int32 = 40

    private func produceToEach(_ world: BrokerWorld) throws {
        let client = try world.connect()
        for index in 0..<count { client.send(produce("t", batch(["a"]), acks: -1, partition: index, id: index)) }
        try #require(world.until { client.frames.count == Int(self.count) })
        for index in 0..<Int(count) {
            let answer = try client.answer(ProduceResponse.self, index, version: 9)
            #expect(answer.responses[0].partitionResponses[0].errorCode == .none)
        }
    }

    private func rows(_ world: BrokerWorld, _ checkpoint: String) throws -> Int {
        let text = String(decoding: try world.host.disk.contents("/a/" + checkpoint) ?? [], as: UTF8.self)
        return text.split(separator: "\n").count { $0.hasPrefix("t ") }
    }

    @Test func isDeletedWithOneWriteOfEachCheckpoint() throws {
        let world = try BrokerWorld([("log.dirs", "/a")])
        try world.createTopic("t", partitions: count)
        try produceToEach(world)
        world.simulated.run(for: .seconds(70))
        let checkpoints = [
            "replication-offset-checkpoint", "recovery-point-offset-checkpoint", "martlet-durable-offset-checkpoint",
        ]
        for checkpoint in checkpoints { #expect(try rows(world, checkpoint) == Int(count)) }
        let id = try #require(world.broker.cluster.metadata.current.topic("t")?.id)
        let before = world.host.files.timedCallsCount
        try world.run {
            let fault = await world.broker.cluster.deleteTopic("t", id: id)
            #expect(fault == nil)
        }
        // a log is synced and closed, its folder renamed and the name synced
        let calls = world.host.files.timedCallsCount - before
        #expect(calls < 10 * Int(count), "\(calls) calls that take time")
        for checkpoint in checkpoints { #expect(try rows(world, checkpoint) == 0) }
        // and nothing of it comes back, from no file
        world.host.powerCut()
        try world.startAfterKill()
        #expect(world.partition("t") == nil)
        try world.createTopic("t", partitions: count)
        try produceToEach(world)
        #expect((0..<count).allSatisfy { world.partition("t", $0)?.highWatermark == 1 })
    }
}

/// The image that clients are told of, after the controller's news.
@Suite struct NewsOfAController {
    private let id = UUID(high: 1, low: 2), other = UUID(high: 3, low: 4)

    private func news(_ topic: String, _ id: UUID, _ partitions: [(index: Int32, leader: BrokerID)]) -> UpdateMetadataRequest {
        var told = UpdateMetadataRequest.UpdateMetadataTopicState()
        (told.topicName, told.topicID) = (topic, id)
        told.partitionStates = partitions.map { index, leader in
            var state = UpdateMetadataRequest.UpdateMetadataPartitionState()
            (state.partitionIndex, state.leader) = (index, leader)
            return state
        }
        var request = UpdateMetadataRequest()
        request.topicStates = [told]
        return request
    }

    private let empty = MetadataImage(clusterID: "c", controllerID: 1, brokers: [], topics: [])

    private func leaders(_ image: MetadataImage) -> [Int32: BrokerID] {
        let partitions = image.topic("t")?.partitions ?? []
        #expect(partitions.map(\.index) == partitions.map(\.index).sorted())
        return Dictionary(uniqueKeysWithValues: partitions.map { ($0.index, $0.leader) })
    }

    @Test func changesWhatItNamesAndNothingElse() {
        let image = empty.updated(by: news("t", id, [(2, 1), (0, 1), (1, 2)]))
        #expect(leaders(image) == [0: 1, 1: 2, 2: 1])
        #expect(leaders(image.updated(by: news("t", id, [(1, 7), (3, 5)]))) == [0: 1, 1: 7, 2: 1, 3: 5])
        #expect(leaders(image.updated(by: news("t", id, [(1, 7), (1, 8)]))) == [0: 1, 1: 8, 2: 1], "the last counts")
        // -2: of a partition that is deleted
        #expect(leaders(image.updated(by: news("t", id, [(1, -2)]))) == [0: 1, 2: 1])
        #expect(leaders(image.updated(by: news("t", id, [(1, 9), (1, -2)]))) == [0: 1, 2: 1])
        #expect(leaders(image.updated(by: news("t", id, [(1, -2), (1, 9)]))) == [0: 1, 1: 9, 2: 1])
        #expect(image.updated(by: news("t", id, [(0, -2), (1, -2), (2, -2)])).topics.isEmpty)
        #expect(leaders(image.updated(by: news("t", other, [(0, 4)]))) == [0: 4], "made again under the same name")
    }

    @Test func ofTwentyThousandPartitionsIsTakenInAtOnce() {
        let all = (0..<20_000).map { (index: Int32($0), leader: BrokerID(1)) }
        let image = empty.updated(by: news("t", id, all))
        let took = ContinuousClock().measure { #expect(image.updated(by: news("t", id, all)).topic("t")?.partitions.count == 20_000) }
        // some ten milliseconds; a search for each took twenty seconds
        #expect(took < .seconds(3), "\(took)")
    }
}
