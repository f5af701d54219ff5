import MartletBasics
import MartletModel

/// What goes: offsets that are deleted or have expired, those of topics that are gone, and groups.
extension GroupMachine {
    // MARK: OffsetDelete

    mutating func deleteOffsets(_ event: OffsetDeleteEvent, _ ticket: GroupTicket) {
        guard !event.group.isEmpty else { return answer(ticket, .failed(.invalidGroupID)) }
        guard let group = groups[event.group], !group.isBeingDeleted else { return answer(ticket, .failed(.groupIDNotFound)) }
        // of a live group that is not of consumers nobody knows what it reads
        guard group.isEmpty || group.consumer != nil || group.classic?.usesConsumerProtocol ?? true else {
            return answer(ticket, .failed(.nonEmptyGroup))
        }
        var codes: [ErrorCode] = []
        var removed: [TopicPartition] = []
        for id in event.partitions {
            guard !group.isSubscribed(to: id.topic) else {
                codes.append(.groupSubscribedToTopic)
                continue
            }
            codes.append(.none)
            if has(group, id) { removed.append(id) }
        }
        guard !removed.isEmpty else { return answer(ticket, .partitions(codes)) }
        append(tombstones(group, removed), .removal(group: group, partitions: removed, (ticket, codes)))
    }

    /// Whether there is an offset, or one is on its way to the log.
    private func has(_ group: Group, _ id: TopicPartition) -> Bool {
        group.offsets.committed(id.topic, id.partition) != nil || partitionsUnderWay(group).contains(id)
    }

    /// For which partitions commits of a group are on their way.
    private func partitionsUnderWay(_ group: Group) -> Set<TopicPartition> {
        var found: Set<TopicPartition> = []
        // in any order: it is a set
        for write in writes.values {
            switch write {
            case .commit(let other, let items, _, _) where other === group: found.formUnion(items.map(\.id))
            case .transactionalCommit(let other, _, let items, _, _) where other === group: found.formUnion(items.map(\.id))
            default: break
            }
        }
        return found
    }

    private func tombstones(_ group: Group, _ partitions: some Sequence<TopicPartition>) -> [GroupRecord] {
        partitions.map { .offset(Self.key(group.id, $0), nil) }
    }

    /// Writes tombstones for many offsets, some at a time.
    private mutating func remove(_ partitions: [TopicPartition], of group: Group) {
        for first in stride(from: 0, to: partitions.count, by: Self.tombstonesPerAppend) {
            let some = Array(partitions[first..<min(first + Self.tombstonesPerAppend, partitions.count)])
            append(tombstones(group, some), .removal(group: group, partitions: some, nil))
        }
    }

    // MARK: DeleteGroups

    mutating func deleteGroup(_ id: String, _ ticket: GroupTicket) {
        guard let group = groups[id], !group.isBeingDeleted else { return answer(ticket, .failed(.groupIDNotFound)) }
        guard group.isEmpty else { return answer(ticket, .failed(.nonEmptyGroup)) }
        delete(group, ticket)
    }

    /// Writes a group's end; with a ticket, for somebody who asked for it.
    private mutating func delete(_ group: Group, _ ticket: GroupTicket?) {
        group.isBeingDeleted = true
        if let classic = group.classic { endPhase(of: classic) }
        let committed = Set(group.offsets.sorted.map(\.id)).union(partitionsUnderWay(group))
        remove(committed.sorted(), of: group)
        var last: [GroupRecord] = []
        switch group.kind {
        case .classic:
            var key = GroupMetadataKey()
            key.group = group.id
            last = [.group(key, nil)]
        case .consumer(let consumer): last = consumer.tombstones
        case .foreign(let foreign): last = foreign.sortedKeys.map { .tombstone($0) }
        }
        append(last, .deletion(group: group, ticket))
    }

    mutating func deletionWritten(_ group: Group, _ ticket: GroupTicket?, _ failure: ErrorCode?) {
        group.isBeingDeleted = false
        if failure == nil, groups[group.id] === group {
            // what a transaction is yet to commit outlives the group, as it does where the log is read anew
            if group.offsets.hasOpenTransactions {
                group.kind = .classic(ClassicGroup(id: group.id))
                recount(group)
            } else {
                forget(group)
            }
        }
        if let ticket { answer(ticket, failure.map { .failed($0) } ?? .done) }
    }

    // MARK: Topics that are gone

    mutating func topicsDeleted(_ topics: [DeletedTopic]) {
        for id in sortedIDs {
            guard let group = groups[id], !group.isBeingDeleted else { continue }
            let underWay = partitionsUnderWay(group)
            var gone: [TopicPartition] = []
            for topic in topics {
                // one of the same name may have been made since
                let offsets = group.offsets.partitions(of: topic.name).filter {
                    $0.committed.topicID == .zero || $0.committed.topicID == topic.id
                }
                let visible = offsets.map { TopicPartition(topic.name, $0.partition) }
                let coming = underWay.filter { $0.topic == topic.name && !visible.contains($0) }
                gone += visible + coming.sorted()
            }
            remove(gone, of: group)
        }
    }

    // MARK: Expiry

    mutating func expireOffsets() {
        for id in sortedIDs {
            guard let group = groups[id], !group.isBeingDeleted else { continue }
            let expired: [TopicPartition]
            let isIdle: Bool
            switch group.kind {
            case .foreign: continue
            case .classic(let classic):
                expired = expiredPartitions(group, classic)
                isIdle = classic.state == .empty && !classic.hasNewcomers
            case .consumer(let consumer):
                // an offset that nobody reads expires by itself, whatever the members do
                expired = unneeded(group, since: nil)
                isIdle = consumer.members.isEmpty && group.chain.isEmpty
            }
            let isLast = expired.count == group.offsets.count && !group.offsets.hasOpenTransactions
            if isLast, isIdle, partitionsUnderWay(group).isEmpty {
                delete(group, nil)
            } else {
                remove(expired, of: group)
            }
        }
    }

    private func expiredPartitions(_ group: Group, _ classic: ClassicGroup) -> [TopicPartition] {
        guard !group.offsets.isEmpty else { return [] }
        let isSimple = classic.protocolType == nil
        // members that are there keep what they read; of a group that is not of consumers nobody knows what that is
        let mayExpire = isSimple || classic.state == .empty || (classic.state == .stable && classic.usesConsumerProtocol)
        guard mayExpire else { return [] }
        // from when the last member left, where there were members
        return unneeded(group, since: isSimple || classic.state != .empty ? nil : classic.stateTimestamp)
    }

    /// Offsets that nobody needs, and that were committed, or not needed any more, so long ago.
    private func unneeded(_ group: Group, since: Int64?) -> [TopicPartition] {
        group.offsets.sorted.filter { id, committed in
            guard !group.isSubscribed(to: id.topic), !group.offsets.isUnstable(id) else { return false }
            if committed.expireTimestamp >= 0 { return moment.wallMilliseconds >= committed.expireTimestamp }
            return moment.wallMilliseconds &- (since ?? committed.commitTimestamp) >= settings.offsetsRetentionMs
        }.map(\.id)
    }
}
