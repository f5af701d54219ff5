package import MartletBasics
package import MartletModel
import MartletWire

package struct ListedGroup: Sendable, Equatable {
    package var id: String
    /// `consumer`, `connect`, or what else its members speak; empty where it has committed offsets only.
    package var protocolType: String
    /// Empty where the broker is too old to say.
    package var state: String
    package var type: String
    package var coordinator: BrokerID
}

package struct GroupMember: Sendable, Equatable {
    package var id: String
    package var instanceID: String?
    package var clientID: String
    package var clientHost: String
    /// Sorted; empty for a group whose members do not consume.
    package var assigned: [TopicPartition]
}

/// A group at one moment. A class, as `ClusterView` is.
package final class GroupDescription: Sendable {
    package let id: String
    package let state: String
    package let protocolType: String
    /// The assignor that was agreed on.
    package let assignor: String
    package let members: [GroupMember]

    init(id: String, state: String, protocolType: String, assignor: String, members: [GroupMember]) {
        self.id = id
        self.state = state
        self.protocolType = protocolType
        self.assignor = assignor
        self.members = members
    }

    /// Whether its members may commit at any moment.
    package var isActive: Bool { !members.isEmpty || !(state == "Empty" || state == "Dead") }
}

package struct CommittedOffset: Sendable, Equatable {
    package var partition: TopicPartition
    package var offset: Offset
    package var leaderEpoch: LeaderEpoch
    package var metadata: String?
}

/// Groups.
extension Client {
    /// The groups of all brokers, by id. Brokers that could not be asked are told with their fault.
    package func groups() async throws(ClientError) -> (groups: [ListedGroup], faults: [ClientError]) {
        try await refresh(topics: [])
        let results = await concurrently(cluster.brokers.map(\.id)) { [self] id in await listed(at: id) }
        var groups: [ListedGroup] = []
        var faults: [ClientError] = []
        for result in results {
            switch result {
            case .success(let some): groups += some
            case .failure(let error): faults.append(error)
            }
        }
        if groups.isEmpty, let fault = faults.first { throw fault }
        return (groups.sorted { $0.id < $1.id }, faults)
    }

    private func listed(at broker: BrokerID) async -> Result<[ListedGroup], ClientError> {
        do throws(ClientError) {
            let answer = try await ask(.broker(broker), judging: { $0.errorCode }) {
                (_) throws(ClientError) -> ListGroupsRequest in ListGroupsRequest()
            }
            guard answer.message.errorCode == .none else {
                throw .refused(what: "the groups of broker \(broker)", answer.message.errorCode, message: nil)
            }
            return .success(
                answer.message.groups.map { group in
                    ListedGroup(
                        id: group.groupID, protocolType: group.protocolType, state: group.groupState,
                        type: group.groupType, coordinator: broker)
                })
        } catch {
            return .failure(error)
        }
    }

    /// A group with its members. One that is not there is refused with GROUP_ID_NOT_FOUND, also by brokers that would
    /// call it dead.
    package func group(_ id: String) async throws(ClientError) -> GroupDescription {
        let answer = try await ask(.coordinator(of: id), judging: { $0.groups.first?.errorCode ?? .none }) {
            (_) throws(ClientError) -> DescribeGroupsRequest in
            var request = DescribeGroupsRequest()
            request.groups = [id]
            return request
        }
        guard let group = answer.message.groups.first else {
            throw .malformedAnswer(what: "DescribeGroups", broker: answer.broker, reason: "it is empty")
        }
        guard group.errorCode == .none else {
            let refusal = ClientError.refused(what: "group \(id)", group.errorCode, message: group.errorMessage)
            // it may be one of the newer protocol, which has a question of its own
            guard group.errorCode == .groupIDNotFound else { throw refusal }
            return try await consumerGroup(id, else: refusal)
        }
        guard group.groupState != "Dead" else {
            throw .refused(what: "group \(id)", .groupIDNotFound, message: "there is no such group")
        }
        let frame = answer.frame.bytes
        let members = group.members.map { member in
            GroupMember(
                id: member.memberID, instanceID: member.groupInstanceID, clientID: member.clientID,
                clientHost: member.clientHost,
                assigned: group.protocolType == "consumer"
                    ? ConsumerAssignment.partitions(member.memberAssignment.array(in: frame)) : [])
        }
        return GroupDescription(
            id: group.groupID, state: group.groupState, protocolType: group.protocolType, assignor: group.protocolData,
            members: members.sorted { ($0.clientID, $0.id) < ($1.clientID, $1.id) })
    }

    /// A group of the protocol in which the broker assigns (KIP-848); `refusal` where it is none, or the broker knows of
    /// no such groups.
    private func consumerGroup(_ id: String, else refusal: ClientError) async throws(ClientError) -> GroupDescription {
        let found: Answer<ConsumerGroupDescribeResponse>
        do throws(ClientError) {
            found = try await ask(.coordinator(of: id), judging: { $0.groups.first?.errorCode ?? .none }) {
                (_) throws(ClientError) -> ConsumerGroupDescribeRequest in
                var request = ConsumerGroupDescribeRequest()
                request.groupIDs = [id]
                return request
            }
        } catch {
            throw error.isUnsupported ? refusal : error
        }
        guard let group = found.message.groups.first, group.errorCode == .none else { throw refusal }
        let members = group.members.map { member in
            GroupMember(
                id: member.memberID, instanceID: member.instanceID, clientID: member.clientID,
                clientHost: member.clientHost,
                assigned: member.assignment.topicPartitions.flatMap { topic in
                    topic.partitions.map { TopicPartition(topic.topicName, $0) }
                }.sorted())
        }
        return GroupDescription(
            id: group.groupID, state: group.groupState, protocolType: "consumer", assignor: group.assignorName,
            members: members.sorted { ($0.clientID, $0.id) < ($1.clientID, $1.id) })
    }

    package func deleteGroup(_ id: String) async throws(ClientError) {
        let answer = try await ask(
            .coordinator(of: id), isRepeatable: false, judging: { $0.results.first?.errorCode ?? .none }
        ) { (_) throws(ClientError) -> DeleteGroupsRequest in
            var request = DeleteGroupsRequest()
            request.groupsNames = [id]
            return request
        }
        let code = answer.message.results.first?.errorCode ?? .unknownServerError
        guard code == .none else {
            throw .refused(
                what: "group \(id) was not deleted", code, message: answer.message.results.first?.errorMessage)
        }
    }

    // MARK: Committed offsets

    /// What a group has committed, by partition.
    package func committed(by group: String) async throws(ClientError) -> [CommittedOffset] {
        // from version 10 on topics go by id
        let answer = try await ask(
            .coordinator(of: group), atMost: 9, judging: { $0.groups.first?.errorCode ?? $0.errorCode }
        ) { (version) throws(ClientError) -> OffsetFetchRequest in
            var request = OffsetFetchRequest()
            guard version >= 2 else { throw .invalid("this broker is too old to list what a group has committed") }
            if version >= 8 {
                var wanted = OffsetFetchRequest.OffsetFetchRequestGroup()
                wanted.groupID = group
                wanted.topics = nil
                request.groups = [wanted]
            } else {
                request.groupID = group
                request.topics = nil
            }
            return request
        }
        let message = answer.message
        let code = message.groups.first?.errorCode ?? message.errorCode
        guard code == .none else { throw .refused(what: "the offsets of group \(group)", code, message: nil) }
        var found: [CommittedOffset] = []
        for topic in message.groups.first?.topics ?? [] {
            for part in topic.partitions where part.errorCode == .none && part.committedOffset >= 0 {
                found.append(
                    CommittedOffset(
                        partition: TopicPartition(topic.name, part.partitionIndex), offset: part.committedOffset,
                        leaderEpoch: part.committedLeaderEpoch, metadata: part.metadata))
            }
        }
        for topic in message.topics {
            for part in topic.partitions where part.errorCode == .none && part.committedOffset >= 0 {
                found.append(
                    CommittedOffset(
                        partition: TopicPartition(topic.name, part.partitionIndex), offset: part.committedOffset,
                        leaderEpoch: part.committedLeaderEpoch, metadata: part.metadata))
            }
        }
        return found.sorted { $0.partition < $1.partition }
    }

    /// Commits for a group: as one of its members, or from outside of it, which brokers allow while it has none.
    package func commit(
        _ offsets: [(partition: TopicPartition, offset: Offset)], for group: String,
        as member: (id: String, generation: Int32)? = nil
    ) async throws(ClientError) -> [Outcome] {
        let names = offsets.map(\.partition).topicNames
        let answer = try await ask(
            .coordinator(of: group), atMost: 9,
            judging: { $0.topics.lazy.flatMap(\.partitions).map(\.errorCode).firstForAnotherTry }
        ) { (_) throws(ClientError) -> OffsetCommitRequest in
            var request = OffsetCommitRequest()
            request.groupID = group
            if let member {
                request.memberID = member.id
                request.generationIDOrMemberEpoch = member.generation
            }
            request.topics = names.map { name in
                var topic = OffsetCommitRequest.OffsetCommitRequestTopic()
                topic.name = name
                topic.partitions = offsets.filter { $0.partition.topic == name }.map { one in
                    var part = OffsetCommitRequest.OffsetCommitRequestPartition()
                    part.partitionIndex = one.partition.partition
                    part.committedOffset = one.offset
                    part.committedMetadata = ""
                    return part
                }
                return topic
            }
            return request
        }
        return answer.message.topics.flatMap { topic in
            topic.partitions.map { part in
                let partition = TopicPartition(topic.name, part.partitionIndex)
                return Outcome("\(partition)", "the offset of \(partition) was not committed", part.errorCode, nil)
            }
        }
    }
}

/// What an assignor tells a consumer, in bytes that the broker only passes on (`ConsumerProtocolAssignment`).
package enum ConsumerAssignment {
    /// The partitions, sorted; none where the bytes are something else, for they are the members' own affair.
    package static func partitions(_ bytes: [UInt8]) -> [TopicPartition] {
        let read = bytes.withUnsafeBytes { raw in
            Result { () throws(DecodingFault) in
                var reader = ByteReader(raw)
                // later versions only add to the end
                _ = try reader.int16()
                return try ConsumerProtocolAssignment.decode(from: &reader, version: 0).assignedPartitions
            }
        }
        let parts = (try? read.get()) ?? []
        return parts.flatMap { part in part.partitions.map { TopicPartition(part.topic, $0) } }.sorted()
    }

    package static func bytes(_ partitions: [TopicPartition]) throws(EncodingFault) -> [UInt8] {
        var assignment = ConsumerProtocolAssignment()
        for name in partitions.topicNames {
            var part = ConsumerProtocolAssignment.TopicPartition()
            part.topic = name
            part.partitions = partitions.filter { $0.topic == name }.map(\.partition).sorted()
            assignment.assignedPartitions.append(part)
        }
        return try assignment.prefixedBytes(version: 0)
    }
}
