import MartletCluster
import MartletModel
import MartletWire

/// OffsetFetch 1-10: what groups have committed. What is not committed is offset -1, without an error.
///
/// From version 2 on no list of topics means all that something is committed for, 5 tells leader epochs, 6 is
/// flexible, 7 can refuse offsets that an open transaction may change, 8 asks for several groups at once, 10 names
/// topics by id. From version 9 on a
/// member of a consumer group may say who it is and in which epoch, and is refused where that is over.
enum OffsetFetchHandler {
    private typealias Topic = OffsetFetchResponse.OffsetFetchResponseTopics

    static func handle(_ request: Request) throws {
        let asked = try request.decode(OffsetFetchRequest.self)
        var response = OffsetFetchResponse()
        var budget = AnswerBudget()
        if request.version >= 8 {
            response.groups = try asked.groups.map { group in
                try budget.take(cost(of: group.topics))
                var answered = OffsetFetchResponse.OffsetFetchResponseGroup()
                answered.groupID = group.groupID
                let member = request.version >= 9 ? (id: group.memberID, epoch: group.memberEpoch) : (nil, -1)
                switch fetch(group.groupID, group.topics, by: member, requireStable: asked.requireStable, request) {
                case .success(let topics):
                    try budget.take(topics.reduce(0) { $0 + $1.costBytes })
                    answered.topics = topics
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
        try budget.take(cost(of: topics))
        switch fetch(asked.groupID, topics, by: (nil, -1), requireStable: asked.requireStable, request) {
        case .success(let topics):
            try budget.take(topics.reduce(0) { $0 + $1.costBytes })
            response.topics = topics.map(older)
        case .failure(let failure) where request.version >= 2: response.errorCode = failure.error
        // version 1 has no place for an error of the whole but each partition
        case .failure(let failure): response.topics = (topics ?? []).map { failed($0, failure.error) }.map(older)
        }
        try request.answer(response)
    }

    /// What an answer comes to at least.
    private static func cost(of wanted: [OffsetFetchRequest.OffsetFetchRequestTopics]?) -> Int {
        (wanted ?? []).reduce(256) { $0 + 128 + 80 * $1.partitionIndexes.count }
    }

    private static func fetch(
        _ group: String, _ wanted: [OffsetFetchRequest.OffsetFetchRequestTopics]?, by member: (id: String?, epoch: Int32),
        requireStable: Bool, _ request: Request
    ) -> Result<[Topic], GroupWriteFailure> {
        let image = request.broker.metadata.current
        let byID = request.version >= 10
        return request.broker.groups.read(group) { machine -> Result<[Topic], GroupWriteFailure> in
            let fault = machine.fetchFault(group, member: member.id, epoch: member.epoch)
            guard fault == .none else { return .failure(GroupWriteFailure(fault)) }
            guard let wanted else { return .success(all(group, machine, image, byID: byID, requireStable: requireStable)) }
            let topics = wanted.map { topic in
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
            return .success(topics)
        }.flatMap { $0 }
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

extension OffsetFetchResponse.OffsetFetchResponseTopics {
    /// What comes to what was asked for.
    fileprivate var costBytes: Int {
        partitions.reduce(name.utf8.count) { $0 + ($1.metadata?.utf8.count ?? 0) }
    }
}
