import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// DescribeTopicPartitions 0: topics in the order of their names, a page of partitions at a time. No topics means all of them; the cursor of
/// one answer is where the next begins. A page has at least one partition, and never more than `max.request.partition.size.limit`.
enum DescribeTopicPartitionsHandler {
    private typealias Response = DescribeTopicPartitionsResponse

    static func handle(_ request: Request) throws {
        let asked = try request.decode(DescribeTopicPartitionsRequest.self)
        let image = request.broker.metadata.current
        var response = Response()
        if let cursor = asked.cursor, cursor.partitionIndex < 0 {
            response.topics = asked.topics.map { failed($0.name, .invalidRequest) }
            return try request.answer(response)
        }
        var names = asked.topics.isEmpty ? image.topics.map(\.name) : Set(asked.topics.map(\.name)).sorted()
        if let cursor = asked.cursor { names.removeAll { $0 < cursor.topicName } }
        var room = Int(max(1, min(asked.responsePartitionLimit, request.broker.config.describedPartitionsLimit)))
        for name in names {
            guard let info = image.topic(name) else {
                response.topics.append(failed(name, TopicName.isValid(name) ? .unknownTopicOrPartition : .invalidTopicException))
                continue
            }
            guard room > 0 else {
                response.nextCursor = cursor(name, 0)
                break
            }
            let first = asked.cursor.flatMap { $0.topicName == name ? $0.partitionIndex : nil } ?? 0
            let left = info.partitions.filter { $0.index >= first }
            response.topics.append(describe(info, left.prefix(room)))
            if left.count > room {
                response.nextCursor = cursor(name, left[room].index)
                break
            }
            room -= left.count
        }
        try request.answer(response)
    }

    private static func cursor(_ name: String, _ index: Int32) -> Response.Cursor {
        var cursor = Response.Cursor()
        cursor.topicName = name
        cursor.partitionIndex = index
        return cursor
    }

    private static func failed(_ name: String, _ error: ErrorCode) -> Response.DescribeTopicPartitionsResponseTopic {
        var topic = Response.DescribeTopicPartitionsResponseTopic()
        topic.name = name
        topic.errorCode = error
        topic.topicAuthorizedOperations = AuthorizedOperations.topic
        return topic
    }

    private static func describe(
        _ info: TopicInfo, _ partitions: ArraySlice<PartitionInfo>
    ) -> Response.DescribeTopicPartitionsResponseTopic {
        var topic = Response.DescribeTopicPartitionsResponseTopic()
        topic.name = info.name
        topic.topicID = info.id
        topic.isInternal = info.isInternal
        topic.topicAuthorizedOperations = AuthorizedOperations.topic
        topic.partitions = partitions.map { partition in
            var described = Response.DescribeTopicPartitionsResponsePartition()
            described.errorCode = partition.leader < 0 ? .leaderNotAvailable : .none
            described.partitionIndex = partition.index
            described.leaderID = partition.leader
            described.leaderEpoch = partition.leaderEpoch
            described.replicaNodes = partition.replicas
            described.isrNodes = partition.inSyncReplicas
            described.eligibleLeaderReplicas = []
            described.lastKnownElr = []
            described.offlineReplicas = partition.offlineReplicas
            return described
        }
        return topic
    }
}
