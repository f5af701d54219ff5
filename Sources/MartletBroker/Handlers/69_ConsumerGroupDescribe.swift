import MartletCluster
import MartletModel
import MartletWire

/// ConsumerGroupDescribe 0-1: consumer groups with their members, what those have and what they are to have. Version 1
/// tells which protocol a member speaks. A classic group is GROUP_ID_NOT_FOUND, as with Kafka: DescribeGroups tells of it.
enum ConsumerGroupDescribeHandler {
    private typealias Group = ConsumerGroupDescribeResponse.DescribedGroup

    static func handle(_ request: Request) throws {
        let asked = try request.decode(ConsumerGroupDescribeRequest.self)
        var response = ConsumerGroupDescribeResponse()
        var budget = AnswerBudget()
        response.groups = try asked.groupIDs.map { id in
            var group = describe(id, request)
            try budget.take(group.members.reduce(256 + id.utf8.count) { $0 + $1.costBytes })
            group.groupID = id
            if asked.includeAuthorizedOperations, group.errorCode == .none {
                group.authorizedOperations = AuthorizedOperations.group
            }
            return group
        }
        try request.answer(response)
    }

    private static func describe(_ id: String, _ request: Request) -> Group {
        func failed(_ error: ErrorCode, _ message: String) -> Group {
            var group = Group()
            group.errorCode = error
            group.errorMessage = message
            return group
        }
        guard !id.isEmpty else { return failed(.invalidGroupID, "A group has an id.") }
        switch request.broker.groups.read(id, { $0.describeConsumer(id) }) {
        case .failure(let failure): return failed(failure.error, "The group's coordinator cannot answer: \(failure.error).")
        case .success(nil): return failed(.groupIDNotFound, "There is no consumer group '\(id.prefix(128))'.")
        case .success(let found?): return describe(found.group, found.assignor, request.broker.metadata.current)
        }
    }

    private static func describe(_ found: ConsumerGroup, _ assignor: PartitionAssignor, _ image: MetadataImage) -> Group {
        var group = Group()
        group.groupState = found.state.rawValue
        group.groupEpoch = found.epoch
        group.assignmentEpoch = found.targetEpoch
        group.assignorName = assignor.rawValue
        group.members = found.memberIDs.map { id in
            let member = found.members[id]!
            var described = ConsumerGroupDescribeResponse.Member()
            described.memberID = id
            described.instanceID = member.instanceID
            described.rackID = member.rackID
            described.memberEpoch = member.epoch
            described.clientID = member.clientID
            described.clientHost = member.clientHost
            described.subscribedTopicNames = member.topics
            described.subscribedTopicRegex = member.pattern
            described.assignment = assignment(member.assigned.partitions, image)
            described.targetAssignment = assignment(found.targets[id] ?? [:], image)
            described.memberType = member.classic == nil ? 1 : 0
            return described
        }
        return group
    }

    /// Topics that are gone have no name to be told by.
    private static func assignment(
        _ partitions: PartitionSet, _ image: MetadataImage
    ) -> ConsumerGroupDescribeResponse.Assignment {
        var assignment = ConsumerGroupDescribeResponse.Assignment()
        assignment.topicPartitions = partitions.keys.sorted().compactMap { topic in
            image.topic(topic).map { info in
                var entry = ConsumerGroupDescribeResponse.TopicPartitions()
                entry.topicID = topic
                entry.topicName = info.name
                entry.partitions = partitions[topic]!
                return entry
            }
        }
        return assignment
    }
}

extension ConsumerGroupDescribeResponse.Member {
    fileprivate var costBytes: Int {
        func cost(_ assignment: ConsumerGroupDescribeResponse.Assignment) -> Int {
            assignment.topicPartitions.reduce(0) { $0 + 64 + $1.topicName.utf8.count + 4 * $1.partitions.count }
        }
        return subscribedTopicNames.reduce(300 + memberID.utf8.count + clientID.utf8.count) { $0 + 16 + $1.utf8.count }
            + cost(assignment) + cost(targetAssignment)
    }
}
