package import MartletModel

/// A group as DescribeGroups tells it.
package struct GroupDescription: Equatable, Sendable {
    package struct Member: Equatable, Sendable {
        package var id: String
        package var instanceID: String?
        package var clientID: String
        package var clientHost: String
        package var metadata: [UInt8]
        package var assignment: [UInt8]
    }

    package var state: ClassicGroupState
    package var protocolType: String
    package var protocolName: String
    package var generation: Int32
    package var members: [Member]
}

/// A group as ListGroups tells it.
package struct GroupListing: Equatable, Sendable {
    package var id: String
    package var protocolType: String
    package var state: String
    package var type: GroupType
    package var memberCount: Int

    package init(id: String, protocolType: String, state: String, type: GroupType, memberCount: Int) {
        self.id = id
        self.protocolType = protocolType
        self.state = state
        self.type = type
        self.memberCount = memberCount
    }
}

/// A committed offset as OffsetFetch tells it.
package struct FetchedOffset: Equatable, Sendable {
    package var partition: Int32
    package var error = ErrorCode.none
    /// -1: none.
    package var offset: Offset = -1
    package var leaderEpoch: LeaderEpoch = -1
    package var metadata = ""
}

/// What is asked of groups without changing them.
extension GroupMachine {
    /// Nil where there is no such group, or one that this API does not tell of.
    package func describe(_ id: String) -> GroupDescription? {
        guard let group = groups[id], !group.isBeingDeleted, let classic = group.classic else { return nil }
        let isStable = classic.state == .stable
        return GroupDescription(
            state: classic.state, protocolType: classic.protocolType ?? "",
            protocolName: isStable ? classic.protocolName ?? "" : "",
            generation: classic.generation,
            members: classic.members.map { member in
                // before all agree, what a member says of itself is not to be relied upon
                GroupDescription.Member(
                    id: member.id, instanceID: member.instanceID, clientID: member.clientID, clientHost: member.clientHost,
                    metadata: isStable ? member.metadata(for: classic.protocolName) ?? [] : [], assignment: member.assignment)
            })
    }

    /// A consumer group as it is; nil where there is none of this name.
    package func describeConsumer(_ id: String) -> (group: ConsumerGroup, assignor: PartitionAssignor)? {
        guard let group = groups[id], !group.isBeingDeleted, let consumer = group.consumer else { return nil }
        return (consumer, consumer.assignor(among: settings.consumer.assignors))
    }

    /// What a record of a member's word or standing would say now.
    package func record(like record: ConsumerRecord) -> ConsumerRecord? {
        guard let consumer = groups[record.group]?.consumer else { return nil }
        switch record {
        case .member(let group, let id, _): return .member(group, id, consumer.members[id]?.saidValue)
        case .current(let group, let id, _): return .current(group, id, consumer.members[id]?.currentValue)
        default: return nil
        }
    }

    /// By id.
    package var listings: [GroupListing] {
        sortedIDs.compactMap { id in
            guard let group = groups[id] else { return nil }
            switch group.kind {
            case .classic(let classic):
                return GroupListing(
                    id: id, protocolType: classic.protocolType ?? "", state: group.stateName, type: .classic,
                    memberCount: classic.members.count)
            case .consumer(let consumer):
                return GroupListing(
                    id: id, protocolType: "consumer", state: group.stateName, type: .consumer,
                    memberCount: consumer.members.count)
            case .foreign(let foreign):
                return GroupListing(
                    id: id, protocolType: foreign.type.rawValue, state: group.stateName, type: foreign.type, memberCount: 0)
            }
        }
    }

    /// What is committed for these partitions of a topic, in their order. `topicID` is the one that the topic of this
    /// name has now, zero where that does not matter. `requireStable`: offsets that a transaction may still change
    /// are an error.
    package func fetchOffsets(
        _ group: String, topic: String, topicID: UUID = .zero, partitions: [Int32], requireStable: Bool
    ) -> [FetchedOffset] {
        let offsets = groups[group]?.offsets
        return partitions.map { partition in
            var fetched = FetchedOffset(partition: partition)
            guard let offsets else { return fetched }
            if requireStable, offsets.isUnstable(TopicPartition(topic, partition)) {
                fetched.error = .unstableOffsetCommit
            } else if let committed = offsets.committed(topic, partition),
                topicID == .zero || committed.topicID == .zero || committed.topicID == topicID
            {
                fetched.offset = committed.offset
                fetched.leaderEpoch = committed.leaderEpoch
                fetched.metadata = committed.metadata
            }
            return fetched
        }
    }

    /// Every partition that a group has committed for, by topic and partition; with `requireStable` also those that
    /// transactions are about to.
    package func committedPartitions(_ group: String, requireStable: Bool) -> [TopicPartition] {
        guard let offsets = groups[group]?.offsets else { return [] }
        let visible = offsets.sorted.map(\.id)
        guard requireStable, offsets.hasOpenTransactions else { return visible }
        return Set(visible).union(offsets.sortedUnstable).sorted()
    }

    /// All offsets of all groups, by group, topic and partition.
    package func forEachCommittedOffset(
        _ body: (_ group: String, _ partition: TopicPartition, _ committed: CommittedOffset) -> Void
    ) {
        for id in sortedIDs {
            for (partition, committed) in groups[id]?.offsets.sorted ?? [] { body(id, partition, committed) }
        }
    }

    /// Topics that something is committed for, each once, where the commits say which of that name.
    package var committedTopics: [DeletedTopic] {
        var found: Set<DeletedTopic> = []
        // in any order: it makes a set
        for group in groups.values { group.offsets.addTopics(to: &found) }
        return found.sorted { ($0.name, "\($0.id)") < ($1.name, "\($1.id)") }
    }
}
