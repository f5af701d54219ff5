import MartletBasics
package import MartletModel
package import MartletSimulation
package import MartletWire

/// The versions at which one client speaks of groups: old clients and new ones meet in one group.
package struct GroupVersions {
    package var join: Int16
    package var sync: Int16
    package var heartbeat: Int16
    package var leave: Int16
    package var commit: Int16

    /// For static members, whom older versions do not know.
    package static let newest = GroupVersions(join: 9, sync: 5, heartbeat: 4, leave: 5, commit: 9)
    package static let all = [
        newest, GroupVersions(join: 5, sync: 3, heartbeat: 3, leave: 3, commit: 7),
        GroupVersions(join: 2, sync: 1, heartbeat: 1, leave: 1, commit: 5),
    ]
}

/// A member, as it says who it is.
package struct GroupIdentity {
    package var group: String
    package var member: String
    package var instance: String?
    package var generation: Int32

    package init(group: String, member: String, instance: String? = nil, generation: Int32 = -1) {
        (self.group, self.member, self.instance, self.generation) = (group, member, instance, generation)
    }
}

/// The requests of a group's members.
extension SimulatedClient {
    private static let findCoordinatorVersion: Int16 = 2
    private static let offsetFetchVersion: Int16 = 7

    package func findCoordinator(of group: String) async throws(ClientFault) -> ErrorCode {
        var request = FindCoordinatorRequest()
        request.key = group
        return try await ask(request, version: Self.findCoordinatorVersion).errorCode
    }

    package func join(
        _ identity: GroupIdentity, _ versions: GroupVersions, sessionMs: Int32, rebalanceMs: Int32,
        protocols: [(name: String, metadata: [UInt8])]
    ) async throws(ClientFault) -> JoinGroupResponse {
        var request = JoinGroupRequest()
        request.groupID = identity.group
        request.memberID = identity.member
        request.groupInstanceID = identity.instance
        request.sessionTimeoutMs = sessionMs
        request.rebalanceTimeoutMs = rebalanceMs
        request.protocolType = "consumer"
        request.protocols = protocols.map { one in
            var offered = JoinGroupRequest.JoinGroupRequestProtocol()
            offered.name = one.name
            offered.metadata = .owned(one.metadata)
            return offered
        }
        return try await ask(request, version: versions.join)
    }

    package func sync(
        _ identity: GroupIdentity, _ versions: GroupVersions, protocolName: String,
        assignments: [(member: String, bytes: [UInt8])]
    ) async throws(ClientFault) -> (error: ErrorCode, assignment: [UInt8]) {
        var request = SyncGroupRequest()
        request.groupID = identity.group
        request.memberID = identity.member
        request.groupInstanceID = identity.instance
        request.generationID = identity.generation
        request.protocolType = "consumer"
        request.protocolName = protocolName
        request.assignments = assignments.map { one in
            var assigned = SyncGroupRequest.SyncGroupRequestAssignment()
            assigned.memberID = one.member
            assigned.assignment = .owned(one.bytes)
            return assigned
        }
        let response = try await ask(request, version: versions.sync)
        guard case .owned(let bytes) = response.assignment else { return (response.errorCode, []) }
        return (response.errorCode, bytes)
    }

    package func heartbeat(_ identity: GroupIdentity, _ versions: GroupVersions) async throws(ClientFault) -> ErrorCode {
        var request = HeartbeatRequest()
        request.groupID = identity.group
        request.memberID = identity.member
        request.groupInstanceID = identity.instance
        request.generationID = identity.generation
        return try await ask(request, version: versions.heartbeat).errorCode
    }

    package func leave(_ identity: GroupIdentity, _ versions: GroupVersions) async throws(ClientFault) -> ErrorCode {
        var request = LeaveGroupRequest()
        request.groupID = identity.group
        if versions.leave < 3 {
            request.memberID = identity.member
        } else {
            var member = LeaveGroupRequest.MemberIdentity()
            member.memberID = identity.member
            member.groupInstanceID = identity.instance
            request.members = [member]
        }
        let response = try await ask(request, version: versions.leave)
        return response.errorCode == .none ? response.members.first?.errorCode ?? .none : response.errorCode
    }

    /// Commits one offset.
    package func commit(
        _ identity: GroupIdentity, _ versions: GroupVersions, _ topic: String, _ partition: Int32, _ offset: Offset
    ) async throws(ClientFault) -> ErrorCode {
        var part = OffsetCommitRequest.OffsetCommitRequestPartition()
        part.partitionIndex = partition
        part.committedOffset = offset
        part.committedMetadata = "\(offset)"
        var named = OffsetCommitRequest.OffsetCommitRequestTopic()
        named.name = topic
        named.partitions = [part]
        var request = OffsetCommitRequest()
        request.groupID = identity.group
        request.memberID = identity.member
        request.groupInstanceID = identity.instance
        request.generationIDOrMemberEpoch = identity.generation
        request.topics = [named]
        let response = try await ask(request, version: versions.commit)
        guard let answer = response.topics.first?.partitions.first, answer.partitionIndex == partition else {
            throw .malformed("no answer for the commit of partition \(partition)")
        }
        return answer.errorCode
    }

    /// What is committed for some partitions of a topic; nil where the group cannot be asked now.
    package func committed(
        _ group: String, _ topic: String, _ partitions: [Int32]
    ) async throws(ClientFault) -> [(partition: Int32, offset: Offset?)]? {
        var named = OffsetFetchRequest.OffsetFetchRequestTopic()
        named.name = topic
        named.partitionIndexes = partitions
        var request = OffsetFetchRequest()
        request.groupID = group
        request.topics = [named]
        let response = try await ask(request, version: Self.offsetFetchVersion)
        guard response.errorCode == .none else { return nil }
        guard let answered = response.topics.first?.partitions, answered.map(\.partitionIndex) == partitions else {
            throw .malformed("not an answer for each partition that was asked for")
        }
        guard answered.allSatisfy({ $0.errorCode == .none }) else { return nil }
        for part in answered where part.committedOffset >= 0 && part.metadata != "\(part.committedOffset)" {
            throw .malformed("offset \(part.committedOffset) came with the metadata of \(part.metadata ?? "nothing")")
        }
        return answered.map { ($0.partitionIndex, $0.committedOffset < 0 ? nil : $0.committedOffset) }
    }
}
