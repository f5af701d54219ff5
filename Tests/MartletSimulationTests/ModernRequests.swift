import MartletBasics
import MartletModel
import MartletSimulation
import MartletSwarm
import MartletWire

/// The requests of members of consumer groups.
extension SimulatedClient {
    struct ModernAnswer {
        var error: ErrorCode
        var epoch: Int32
        /// Nil: as it was.
        var partitions: [Int32]?
    }

    /// A heartbeat of a member that reads one topic.
    func modernHeartbeat(
        _ identity: GroupIdentity, epoch: Int32,
        joining: (topic: String, pattern: String?, rebalanceMs: Int32, assignor: String?)?,
        owned: (topic: UUID, partitions: [Int32])?
    ) async throws(ClientFault) -> ModernAnswer {
        var request = ConsumerGroupHeartbeatRequest()
        (request.groupID, request.memberID, request.memberEpoch) = (identity.group, identity.member, epoch)
        request.instanceID = identity.instance
        if let joining {
            request.rebalanceTimeoutMs = joining.rebalanceMs
            if let pattern = joining.pattern {
                request.subscribedTopicRegex = pattern
            } else {
                request.subscribedTopicNames = [joining.topic]
            }
            request.serverAssignor = joining.assignor
            request.topicPartitions = []
        } else if let owned {
            var topic = ConsumerGroupHeartbeatRequest.TopicPartitions()
            (topic.topicID, topic.partitions) = (owned.topic, owned.partitions)
            request.topicPartitions = owned.partitions.isEmpty ? [] : [topic]
        }
        let response = try await ask(request, version: 1)
        var answer = ModernAnswer(error: response.errorCode, epoch: response.memberEpoch)
        if let assignment = response.assignment {
            guard assignment.topicPartitions.count <= 1 else { throw .malformed("partitions of topics that it does not read") }
            answer.partitions = assignment.topicPartitions.first?.partitions ?? []
        }
        return answer
    }

    /// A topic's id; nil while it cannot be told.
    func topicID(_ name: String) async throws(ClientFault) -> UUID? {
        var topic = MetadataRequest.MetadataRequestTopic()
        topic.name = name
        var request = MetadataRequest()
        request.topics = [topic]
        let response = try await ask(request, version: 12)
        return response.topics.first { $0.errorCode == .none }?.topicID
    }
}

/// What consumers put into JoinGroup and SyncGroup.
enum ConsumerWords {
    static func subscription(_ topic: String, owned: [Int32], generation: Int32) -> [UInt8] {
        var said = ConsumerProtocolSubscription()
        said.topics = [topic]
        said.generationID = generation
        if !owned.isEmpty {
            var part = ConsumerProtocolSubscription.TopicPartition()
            (part.topic, part.partitions) = (topic, owned)
            said.ownedPartitions = [part]
        }
        return (try? said.prefixedBytes(version: 3)) ?? []
    }

    static func assignment(_ topic: String, _ partitions: [Int32]) -> [UInt8] {
        var assignment = ConsumerProtocolAssignment()
        if !partitions.isEmpty {
            var part = ConsumerProtocolAssignment.TopicPartition()
            (part.topic, part.partitions) = (topic, partitions)
            assignment.assignedPartitions = [part]
        }
        return (try? assignment.prefixedBytes(version: 3)) ?? []
    }

    /// Nil for what is no assignment.
    static func partitions(_ bytes: [UInt8]) -> [Int32]? {
        guard let assignment = try? ConsumerProtocolAssignment(prefixed: bytes) else { return nil }
        return assignment.assignedPartitions.flatMap(\.partitions).sorted()
    }
}
