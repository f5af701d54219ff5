import MartletModel

/// How a member comes to what it is to have. It gives up first, and is given what others have given up after that:
///
///                  +--nothing to give up, all is free------------> Stable
///                  |                                                 ^
///     a new target +--something to give up--> Unrevoked --given up---+ (looks again)
///                  |                                                 |
///                  +--something is another's--> Unreleased --free----+
///
/// While Unrevoked it stays in its epoch; otherwise it is in the target's. So who is in an epoch has nothing that this
/// epoch's target gives to somebody else, and a partition has one owner.
extension ConsumerGroupMachine {
    func reconciled(
        _ member: ConsumerMember, owned: PartitionSet?, hasChanged: Bool
    ) throws(ConsumerGroupRefusal) -> ConsumerMember {
        switch member.state {
        case .stable:
            guard hasChanged || member.epoch != group.targetEpoch else { return member }
            return next(member, from: member.epoch, owned: owned)
        case .unrevoked:
            guard !owns(owned, any: member.pendingRevocation) else {
                return hasChanged ? givingUpUnread(member) : member
            }
            return next(member, from: Self.following(member.epoch), owned: owned)
        case .unreleased: return next(member, from: member.epoch, owned: owned)
        case .unknown:
            guard let owned, owned.isEmpty else {
                throw ConsumerGroupRefusal(
                    .fencedMemberEpoch, "The member is in a state that is not known: join again with epoch 0.")
            }
            return next(member, from: group.targetEpoch, owned: owned)
        }
    }

    /// Who does not say what it has may have it still.
    private func owns(_ owned: PartitionSet?, any held: HeldPartitions) -> Bool {
        guard let owned else { return true }
        return owned.contains { topic, partitions in partitions.contains { held.contains(topic, $0) } }
    }

    /// What its target gives a member, of topics that it reads now: the target may be older than that.
    private func wanted(_ member: ConsumerMember) -> PartitionSet {
        guard let target = group.targets[member.id], !target.isEmpty else { return [:] }
        let read = readTopics(member)
        return target.filter { read.contains($0.key) }
    }

    private func readTopics(_ member: ConsumerMember) -> Set<UUID> {
        Set(group.topics(of: member).compactMap { surroundings.image.topic($0)?.id })
    }

    /// It still has what it is to give up, and has said that it does not read other topics any more, either.
    private func givingUpUnread(_ member: ConsumerMember) -> ConsumerMember {
        let read = readTopics(member)
        var member = member
        for topic in member.assigned.topics where !read.contains(topic) {
            member.pendingRevocation[topic] += member.assigned[topic]
            member.assigned[topic] = []
        }
        return member
    }

    /// One step from what it has towards what it is to have. `epoch` is the one that it stays in if it must give up first.
    private func next(_ member: ConsumerMember, from epoch: Int32, owned: PartitionSet?) -> ConsumerMember {
        let target = wanted(member)
        var kept = HeldPartitions(), leaving = HeldPartitions(), coming: [UUID: [HeldPartition]] = [:]
        var isWaiting = false
        for topic in Set(target.keys).union(member.assigned.topics).sorted() {
            let aims = target[topic] ?? [], held = member.assigned[topic]
            let aimed = Set(aims), has = Set(held.map(\.partition))
            kept[topic] = held.filter { aimed.contains($0.partition) }
            leaving[topic] = held.filter { !aimed.contains($0.partition) }
            for partition in aims where !has.contains(partition) {
                if group.owner(topic, partition, otherThan: member.id) == nil {
                    coming[topic, default: []].append(HeldPartition(partition: partition, since: group.targetEpoch))
                } else {
                    isWaiting = true
                }
            }
        }
        var member = member
        member.previousEpoch = member.epoch
        if !leaving.isEmpty, owns(owned, any: leaving) {
            member.epoch = epoch
            member.state = .unrevoked
            member.assigned = kept
            member.pendingRevocation = leaving
            return member
        }
        member.epoch = group.targetEpoch
        // in any order: topics have nothing to do with each other
        for (topic, partitions) in coming { kept[topic] += partitions }
        member.state = isWaiting ? .unreleased : .stable
        member.assigned = kept
        member.pendingRevocation = HeldPartitions()
        return member
    }

    /// Whether something that a member waits for has become free.
    func canGoOn(_ member: ConsumerMember) -> Bool {
        let held = member.assigned
        // in any order: it is a question
        return wanted(member).contains { topic, partitions in
            partitions.contains { !held.contains(topic, $0) && group.owner(topic, $0, otherThan: member.id) == nil }
        }
    }
}
