import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletWire
import Testing

@Suite struct AnswersOfMetadata {
    private func image(_ random: inout SeededRandom) -> MetadataImage {
        func brokers() -> [BrokerID] { (0..<(random.next() % 4)).map { _ in BrokerID(random.next() % 5) } }
        let topics = (0..<(random.next() % 6)).map { number in
            let partitions = (0..<(random.next() % 5)).map { index in
                PartitionInfo(
                    index: Int32(index), leader: BrokerID(random.next() % 3) - 1, leaderEpoch: LeaderEpoch(random.next() % 9),
                    replicas: brokers(), inSyncReplicas: brokers(), offlineReplicas: brokers())
            }
            let name = random.next() % 5 == 0 ? "__consumer_offsets" : "topic-\u{E9}-\(number)"
            return TopicInfo(name: name + "\(number)", id: UUID(high: random.next(), low: random.next()), partitions: partitions)
        }
        let internalTopic = TopicInfo(name: "__consumer_offsets", id: UUID(high: 1, low: 2), partitions: [])
        return MetadataImage(clusterID: "c", controllerID: 1, brokers: [], topics: topics + [internalTopic])
    }

    private func described(_ info: TopicInfo, _ operations: Int32) -> MetadataResponse.MetadataResponseTopic {
        var topic = MetadataResponse.MetadataResponseTopic()
        topic.name = info.name
        topic.topicID = info.id
        topic.isInternal = info.isInternal
        topic.topicAuthorizedOperations = operations
        topic.partitions = info.partitions.map { partition in
            var described = MetadataResponse.MetadataResponsePartition()
            described.errorCode = partition.leader < 0 ? .leaderNotAvailable : .none
            described.partitionIndex = partition.index
            described.leaderID = partition.leader
            described.leaderEpoch = partition.leaderEpoch
            described.replicaNodes = partition.replicas
            described.isrNodes = partition.inSyncReplicas
            described.offlineReplicas = partition.offlineReplicas
            return described
        }
        return topic
    }

    @Test func sayTheSameAsTheGeneratedEncoderInEveryVersion() throws {
        var random = SeededRandom(seed: 3)
        let kept = KeptMetadata()
        for _ in 0..<200 {
            let image = image(&random)
            let version = Int16(random.next() % UInt64(MetadataResponse.versions.upperBound + 1))
            let operations: Int32 = version >= 8 && random.next() % 2 == 0 ? 3400 : .min
            var broker = MetadataResponse.MetadataResponseBroker()
            broker.nodeID = 7
            broker.host = "host"
            broker.rack = version >= 1 && random.next() % 2 == 0 ? "rack" : nil
            var expected = MetadataResponse()
            expected.brokers = [broker]
            if version >= 2 { expected.clusterID = "cluster" }
            if version >= 1 { expected.controllerID = 4 }
            if (8...10).contains(version) { expected.clusterAuthorizedOperations = 77 }
            let head = expected
            var topics: [MetadataAnswerEncoder.Topic]?
            if random.next() % 3 == 0 {
                expected.topics = image.topics.map { described($0, operations) }
            } else {
                topics = []
                for place in image.topics.indices where random.next() % 2 == 0 {
                    topics!.append(.known(place))
                    expected.topics.append(described(image.topics[place], operations))
                }
                var failed = MetadataResponse.MetadataResponseTopic()
                failed.name = version >= 12 ? nil : "gone"
                failed.topicID = version >= 10 ? UUID(high: 9, low: 9) : .zero
                failed.errorCode = .unknownTopicID
                failed.topicAuthorizedOperations = operations
                topics!.append(.failed(name: failed.name, id: failed.topicID, .unknownTopicID))
                expected.topics.append(failed)
            }
            var generated = ByteBuffer()
            var collected = ErrorCodes()
            try expected.encode(into: &generated, version: version)
            expected.collectErrors(&collected)
            let encoder = MetadataAnswerEncoder(version: version, image: image, topicOperations: operations)
            // the second time from what was kept, unless another image was told of between
            for _ in 0..<2 {
                var ours = ByteBuffer()
                var told = ErrorCodes()
                try encoder.encode(head, topics, kept: kept, into: &ours, &told)
                #expect(ours.array == generated.array, "version \(version)")
                #expect(told.all == collected.all)
            }
        }
    }
}
