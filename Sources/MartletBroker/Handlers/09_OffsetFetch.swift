import MartletCluster
import MartletModel
import MartletWire

/// OffsetFetch 1-10: what groups have committed. What is not committed is offset -1, without an error.
///
/// From version 2 on no list of topics means all that something is committed for, 5 tells leader epochs, 6 is
/// flexible, 7 can refuse offsets that an open transaction may change, 8 asks for several groups at once, 10 names
/// topics by id. Version 9 names a member too, which matters to groups of other types only.
enum OffsetFetchHandler {
    private typealias Topic = OffsetFetchResponse.OffsetFetchResponseTopics

    static func handle(_ request: Request) throws {
        let asked = try request.decode(OffsetFetchRequest.self)
        var response = OffsetFetchResponse()
        if request.version >= 8 {
            response.groups = asked.groups.map { group in
                var answered = OffsetFetchResponse.OffsetFetchResponseGroup()
                answered.groupID = group.groupID
                switch fetch(group.groupID, group.topics, requireStable: asked.requireStable, request) {
                case .success(let topics): answered.topics = topics
                case .failure(let failure): answered.errorCode = failure.error
                }
                return answered
            }
            return try request.answer(response)
        }
        let topics = asked.topics.map { topics in
            topics.map { topic in
                var wanted = OffsetFetchRequest.OffsetFetchRequestTopics()
                wanted.name = topic.name
                wanted.partitionIndexes = topic.partitionIndexes
                return wanted
            }
        }
        switch fetch(asked.groupID, topics, requireStable: asked.requireStable, request) {
        case .success(let topics): response.topics = topics.map(older)
        case .failure(let failure) where request.version >= 2: response.errorCode = failure.error
        // version 1 has no place for an error of the whole but each partition
        case .failure(let failure): response.topics = (topics ?? []).map { failed($0, failure.error) }.map(older)
        }
        try request.answer(response)
    }

    private static func fetch(
        _ group: String, _ wanted: [OffsetFetchRequest.OffsetFetchRequestTopics]?, requireStable: Bool, _ request: Request
    ) -> Result<[Topic], GroupWriteFailure> {
        let image = request.broker.metadata.current
        let byID = request.version >= 10
        return request.broker.groups.read(group) { machine in
            guard let wanted else { return all(group, machine, image, byID: byID, requireStable: requireStable) }
            return wanted.map { topic in
                let info = byID ? image.topic(topic.topicID) : image.topic(topic.name)
                if byID, info == nil { return failed(topic, .unknownTopicID) }
                var answered = Topic()
                answered.name = topic.name
                answered.topicID = topic.topicID
                answered.partitions = machine.fetchOffsets(
                    group, topic: info?.name ?? topic.name, topicID: info?.id ?? .zero, partitions: topic.partitionIndexes,
                    requireStable: requireStable
                ).map(described)
                return answered
            }
        }
    }

    private static func all(
        _ group: String, _ machine: GroupMachine, _ image: MetadataImage, byID: Bool, requireStable: Bool
    ) -> [Topic] {
        var topics: [Topic] = []
        for id in machine.committedPartitions(group, requireStable: requireStable) {
            let info = image.topic(id.topic)
            if byID, info == nil { continue }
            if topics.last?.name != id.topic {
                var topic = Topic()
                topic.name = id.topic
                topic.topicID = info?.id ?? .zero
                topics.append(topic)
            }
            topics[topics.count - 1].partitions += machine.fetchOffsets(
                group, topic: id.topic, partitions: [id.partition], requireStable: requireStable
            ).map(described)
        }
        return topics
    }

    private static func described(_ fetched: FetchedOffset) -> OffsetFetchResponse.OffsetFetchResponsePartitions {
        var partition = OffsetFetchResponse.OffsetFetchResponsePartitions()
        partition.partitionIndex = fetched.partition
        partition.errorCode = fetched.error
        partition.committedOffset = fetched.offset
        partition.committedLeaderEpoch = fetched.leaderEpoch
        partition.metadata = fetched.metadata
        return partition
    }

    private static func failed(_ wanted: OffsetFetchRequest.OffsetFetchRequestTopics, _ error: ErrorCode) -> Topic {
        var topic = Topic()
        topic.name = wanted.name
        topic.topicID = wanted.topicID
        topic.partitions = wanted.partitionIndexes.map { described(FetchedOffset(partition: $0, error: error)) }
        return topic
    }

    /// Before version 8.
    private static func older(_ topic: Topic) -> OffsetFetchResponse.OffsetFetchResponseTopic {
        var older = OffsetFetchResponse.OffsetFetchResponseTopic()
        older.name = topic.name
        older.partitions = topic.partitions.map { partition in
            var answered = OffsetFetchResponse.OffsetFetchResponsePartition()
            answered.partitionIndex = partition.partitionIndex
            answered.errorCode = partition.errorCode
            answered.committedOffset = partition.committedOffset
            answered.committedLeaderEpoch = partition.committedLeaderEpoch
            answered.metadata = partition.metadata
            return answered
        }
        return older
    }
}
