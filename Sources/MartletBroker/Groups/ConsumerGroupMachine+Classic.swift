import MartletBasics
import MartletModel

/// Members of a consumer group that speak the classic protocol, while the group is on its way from one to the other: JoinGroup
/// is the heartbeat that says everything, the generation is the member's epoch, and SyncGroup asks for what was assigned.
extension ConsumerGroupMachine {
    /// JoinGroup, by somebody who has a member id.
    mutating func join(_ event: JoinGroupEvent, as id: String) throws(ConsumerGroupRefusal) -> JoinGroupReply {
        let inconsistent = ConsumerGroupRefusal(.inconsistentGroupProtocol, "The group's members speak other protocols.")
        guard event.protocolType == "consumer", let first = event.protocols.first, let said = Self.subscription(first.metadata)
        else {
            throw inconsistent
        }
        let known = try classicJoining(event, id)
        var others = group
        others.remove(known.member.id)
        guard others.supports(event.protocols.map(\.name)) else { throw inconsistent }
        var member = known.member
        if let instance = event.instanceID { member.instanceID = instance }
        if let rack = said.rackID { member.rackID = rack }
        member.rebalanceTimeoutMs = event.rebalanceTimeoutMs
        member.assignor = nil
        member.topics = Set(said.topics).sorted()
        member.pattern = ""
        member.clientID = event.clientID
        member.clientHost = event.clientHost
        member.classic = ConsumerMember.Classic(sessionTimeoutMs: event.sessionTimeoutMs, protocols: event.protocols)
        let hasChanged = try changed(from: known.member, to: member, isNew: known.isNew)
        refreshTarget()
        if hasChanged || !member.isReconciled(to: group.targetEpoch) {
            member = try reconciled(member, owned: owned(said), hasChanged: hasChanged)
        }
        if known.isNew || member != group.members[member.id] { put(member) }
        var reply = JoinGroupReply(memberID: member.id)
        reply.generation = member.epoch
        reply.protocolType = "consumer"
        reply.protocolName = first.name
        return reply
    }

    private mutating func classicJoining(
        _ event: JoinGroupEvent, _ id: String
    ) throws(ConsumerGroupRefusal) -> (member: ConsumerMember, isNew: Bool) {
        if let instance = event.instanceID, let oldID = group.instances[instance], let old = group.members[oldID] {
            if oldID == id { return (old, false) }
            guard event.memberID.isEmpty else {
                throw ConsumerGroupRefusal(.fencedInstanceID, "Another member has the instance id.")
            }
            return (replace(old, by: id), true)
        }
        if let member = group.members[id] { return (member, false) }
        guard group.members.count < settings.sizeLimit else {
            throw ConsumerGroupRefusal(.groupMaxSizeReached, "The group has \(settings.sizeLimit) members, which is its limit.")
        }
        return (ConsumerMember(id: id), true)
    }

    static func subscription(_ metadata: [UInt8]) -> ConsumerProtocolSubscription? {
        metadata.withUnsafeBytes { bytes in
            var reader = ByteReader(bytes)
            // every version begins as those that are known
            guard let version = try? reader.int16(), version >= 0 else { return nil }
            return try? ConsumerProtocolSubscription.decode(
                from: &reader, version: min(version, ConsumerProtocolSubscription.versions.upperBound))
        }
    }

    private func owned(_ said: ConsumerProtocolSubscription) -> PartitionSet {
        var owned: PartitionSet = [:]
        for topic in said.ownedPartitions {
            if let id = surroundings.image.topic(topic.topic)?.id { owned[id, default: []] += topic.partitions }
        }
        return owned
    }

    private func classicMember(_ id: String, instance: String?) throws(ConsumerGroupRefusal) -> ConsumerMember {
        let member = try member(id, instance: instance)
        guard member.classic != nil else { throw .unknown(id) }
        return member
    }

    /// Whether a classic member is to join again: there is something new for it, or it has to say what it gave up.
    private func shouldJoin(_ member: ConsumerMember) -> Bool {
        switch member.state {
        case .unrevoked: true
        case .unreleased where canGoOn(member): true
        default: member.epoch < group.targetEpoch || isTargetDue
        }
    }

    /// The member's standing, and whether it is told to join again.
    func classicHeartbeat(_ event: HeartbeatEvent) throws(ConsumerGroupRefusal) -> (member: ConsumerMember, joins: Bool) {
        let member = try classicMember(event.memberID, instance: event.instanceID)
        guard event.generation == member.epoch else {
            throw ConsumerGroupRefusal(.illegalGeneration, "It is in another epoch.")
        }
        return (member, shouldJoin(member))
    }

    func classicSync(_ event: SyncGroupEvent) throws(ConsumerGroupRefusal) -> (member: ConsumerMember, reply: SyncGroupReply) {
        let member = try classicMember(event.memberID, instance: event.instanceID)
        guard event.generation == member.epoch else {
            throw ConsumerGroupRefusal(.illegalGeneration, "It is in another epoch.")
        }
        let name = member.classic?.protocols.first?.name
        guard event.protocolType ?? "consumer" == "consumer", event.protocolName ?? name == name else {
            throw ConsumerGroupRefusal(.inconsistentGroupProtocol, "It joined with another protocol.")
        }
        // who is to give something up must first be told what
        if member.epoch < group.targetEpoch, member.state != .unrevoked {
            throw ConsumerGroupRefusal(.rebalanceInProgress, "There is a new assignment: join again.")
        }
        var reply = SyncGroupReply()
        reply.protocolType = "consumer"
        reply.protocolName = name
        reply.assignment = classicAssignment(member.assigned.partitions, for: member)
        return (member, reply)
    }

    /// An assignment as classic members read it, in the version in which they speak.
    func classicAssignment(_ partitions: PartitionSet, for member: ConsumerMember) -> [UInt8] {
        var assignment = ConsumerProtocolAssignment()
        for topic in partitions.keys.sorted() {
            guard let name = surroundings.image.topic(topic)?.name else { continue }
            var entry = ConsumerProtocolAssignment.TopicPartition()
            entry.topic = name
            entry.partitions = partitions[topic]!
            assignment.assignedPartitions.append(entry)
        }
        let metadata = member.classic?.protocols.first?.metadata ?? []
        let said = metadata.count >= 2 ? Int16(metadata[0]) << 8 | Int16(metadata[1]) : 0
        let version = min(max(said, 0), ConsumerProtocolAssignment.versions.upperBound)
        guard let bytes = try? assignment.prefixedBytes(version: version) else {
            preconditionFailure("names and numbers of partitions can be written")
        }
        return bytes
    }

    // MARK: From one protocol to the other

    /// The ways of assigning that every client has. What their leaders put beside partitions is of no use to members:
    /// librdkafka sends back what each said of itself.
    private static let commonAssignors = ["range", "roundrobin", "sticky", "cooperative-sticky"]

    /// The consumer group that a classic group becomes, its members with what they have; nil where that cannot be: it is
    /// no group of consumers, or its members assign in a way of their own, which would be lost.
    static func converted(_ classic: ClassicGroup, _ surroundings: GroupSurroundings) -> ConsumerGroup? {
        guard classic.usesConsumerProtocol else { return nil }
        var group = ConsumerGroup(id: classic.id)
        group.epoch = max(classic.generation, ConsumerGroup.firstEpoch)
        group.targetEpoch = group.epoch
        let isCommon = classic.protocolName.map(commonAssignors.contains) ?? true
        var taken: Set<String> = []
        for old in classic.members {
            guard let metadata = old.metadata(for: classic.protocolName) ?? old.protocols.first?.metadata,
                let said = subscription(metadata), let assigned = assignment(old.assignment, withData: isCommon)
            else { return nil }
            var member = ConsumerMember(id: old.id)
            member.instanceID = old.instanceID
            member.rackID = said.rackID
            (member.clientID, member.clientHost) = (old.clientID, old.clientHost)
            member.topics = Set(said.topics).sorted()
            member.rebalanceTimeoutMs = Int32(clamping: old.rebalanceTimeout.milliseconds)
            member.classic = ConsumerMember.Classic(
                sessionTimeoutMs: Int32(clamping: old.sessionTimeout.milliseconds), protocols: old.protocols)
            (member.epoch, member.previousEpoch) = (group.epoch, group.epoch)
            for topic in assigned {
                guard let id = surroundings.image.topic(topic.topic)?.id else { continue }
                // what a leader gave to two members belongs to the first
                let own = Set(topic.partitions).filter { taken.insert("\(id) \($0)").inserted }
                // in any order: they are sorted as they are taken
                member.assigned[id] += own.map { HeldPartition(partition: $0, since: group.epoch) }
            }
            group.put(member)
            group.setTarget(old.id, member.assigned.partitions)
        }
        return group
    }

    /// Nil for bytes that are none, or that have more to say than partitions and may not.
    private static func assignment(_ bytes: [UInt8], withData: Bool) -> [ConsumerProtocolAssignment.TopicPartition]? {
        // who has not synced yet has nothing
        guard !bytes.isEmpty else { return [] }
        return bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            guard let version = try? reader.int16(), version >= 0,
                let assignment = try? ConsumerProtocolAssignment.decode(
                    from: &reader, version: min(version, ConsumerProtocolAssignment.versions.upperBound))
            else { return nil }
            return !withData && assignment.userData?.isEmpty == false ? nil : assignment.assignedPartitions
        }
    }

    /// Whether all who are left speak the classic protocol, so that the group can be theirs.
    var canBecomeClassic: Bool {
        settings.allowsDowngrade && !group.members.isEmpty && group.classicCount == group.members.count
            && group.members.count <= settings.classicSizeLimit
    }

    /// The record of the classic group that it becomes. Its generation is the epoch that members may be in.
    var classicValue: GroupMetadataValue {
        let members = group.memberIDs.map { group.members[$0]! }
        var value = GroupMetadataValue()
        value.protocolType = "consumer"
        value.generation = before.epoch
        let common = members[0].classic?.protocols.first { named in
            members.allSatisfy { $0.classic?.protocols.contains { $0.name == named.name } == true }
        }
        value.protocol = common?.name
        value.leader = members[0].id
        value.currentStateTimestamp = wall
        value.members = members.map { member in
            var written = GroupMetadataValue.MemberMetadata()
            written.memberID = member.id
            written.groupInstanceID = member.instanceID
            (written.clientID, written.clientHost) = (member.clientID, member.clientHost)
            written.rebalanceTimeout = member.rebalanceTimeoutMs
            written.sessionTimeout = member.classic?.sessionTimeoutMs ?? 0
            written.subscription = member.classic?.protocols.first { $0.name == common?.name }?.metadata ?? []
            written.assignment = classicAssignment(group.targets[member.id] ?? [:], for: member)
            return written
        }
        return value
    }
}
