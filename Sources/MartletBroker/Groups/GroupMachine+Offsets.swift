import MartletBasics
import MartletModel

/// OffsetCommit: checked now, visible when it is durable. TxnOffsetCommit: held back when it is durable, and visible when
/// the marker is that ends the transaction.
extension GroupMachine {
    mutating func commit(_ event: OffsetCommitEvent, _ ticket: GroupTicket) {
        guard event.refusal == .none else { return answer(ticket, .failed(event.refusal)) }
        let group: Group
        switch committer(event) {
        case .failure(let failure): return answer(ticket, .failed(failure.error))
        case .success(let found): group = found
        }
        var codes: [ErrorCode] = []
        var partitions: [(id: TopicPartition, committed: CommittedOffset)] = []
        var records: [GroupRecord] = []
        codes.reserveCapacity(event.partitions.count)
        records.reserveCapacity(event.partitions.count)
        let expires = event.retentionMs < 0 ? -1 : moment.wallMilliseconds &+ event.retentionMs
        for partition in event.partitions {
            // Kafka counts as Java does
            guard (partition.metadata?.utf16.count ?? 0) <= settings.offsetMetadataLimit else {
                codes.append(.offsetMetadataTooLarge)
                continue
            }
            let committed = CommittedOffset(
                offset: partition.offset, leaderEpoch: partition.leaderEpoch, metadata: partition.metadata ?? "",
                commitTimestamp: moment.wallMilliseconds, expireTimestamp: expires, topicID: partition.topicID,
                recordOffset: -1)
            let id = TopicPartition(partition.topic, partition.partition)
            codes.append(.none)
            partitions.append((id, committed))
            records.append(.offset(Self.key(group.id, id), committed.value))
        }
        guard !records.isEmpty else { return answer(ticket, .partitions(codes)) }
        guard let producer = event.producer else {
            return append(records, .commit(group: group, partitions: partitions, codes: codes, ticket))
        }
        appendInTransaction(
            of: producer, records,
            .transactionalCommit(group: group, producer, partitions: partitions, codes: codes, ticket))
    }

    /// Keeps an offset until its transaction ends.
    mutating func hold(_ id: TopicPartition, _ committed: CommittedOffset?, of producer: ProducerID, in group: Group) {
        group.offsets.hold(id, committed, of: producer)
        guard inTransaction[producer]?.contains(where: { $0 === group }) != true else { return }
        inTransaction[producer, default: []].append(group)
    }

    mutating func endTransaction(_ end: TransactionEnd, _ ticket: GroupTicket) {
        append(end, .transactionEnd(end, ticket))
    }

    /// The group, if it takes this commit.
    private mutating func committer(_ event: OffsetCommitEvent) -> Result<Group, GroupWriteFailure> {
        func refused(_ error: ErrorCode) -> Result<Group, GroupWriteFailure> { .failure(GroupWriteFailure(error)) }
        guard let known = groups[event.group] else {
            guard event.generation < 0 else { return refused(event.absentGroupError) }
            guard !moment.isFull else { return refused(.coordinatorNotAvailable) }
            // who manages its partitions itself needs no group, only its name
            let group = Group(ClassicGroup(id: event.group))
            add(group)
            return .success(group)
        }
        guard !known.isBeingDeleted else { return refused(.coordinatorNotAvailable) }
        if let consumer = known.consumer {
            let isNobodys = event.generation < 0 && event.memberID.isEmpty && event.instanceID == nil
            if event.producer != nil, isNobodys { return .success(known) }
            let fault = consumerCommitFault(event, consumer)
            // producers know generations, whatever the group has
            let told = fault == .staleMemberEpoch && event.producer != nil ? ErrorCode.illegalGeneration : fault
            return told == .none ? .success(known) : refused(told)
        }
        guard let group = known.classic else {
            return known.isEmpty && event.generation < 0 ? .success(known) : refused(.unknownMemberID)
        }
        if event.generation < 0, group.state == .empty { return .success(known) }
        guard event.generation >= 0 || !event.memberID.isEmpty || event.instanceID != nil else {
            // producers older than KIP-447 do not say for whom they commit
            return event.producer != nil ? .success(known) : refused(.unknownMemberID)
        }
        let fault = group.fault(member: event.memberID, instance: event.instanceID)
        guard fault == .none, let member = group.member(event.memberID) else { return refused(fault) }
        guard event.generation == group.generation else { return refused(.illegalGeneration) }
        // it knows of the new generation, and has not its partitions yet
        guard group.state != .completingRebalance || event.producer != nil else { return refused(.rebalanceInProgress) }
        deadlines.set(member, due: moment.now + member.sessionTimeout)
        return .success(known)
    }

    static func key(_ group: String, _ id: TopicPartition) -> OffsetCommitKey {
        var key = OffsetCommitKey()
        key.group = group
        key.topic = id.topic
        key.partition = id.partition
        return key
    }

    // MARK: What came back from the log

    mutating func written(_ number: UInt64, _ outcome: Result<Offset, GroupWriteFailure>) {
        guard let write = writes.removeValue(forKey: number) else { preconditionFailure("an append is told of once") }
        var first: Offset = -1
        var failure: ErrorCode?
        switch outcome {
        case .success(let offset): first = offset
        case .failure(let error): failure = error.error
        }
        switch write {
        case .commit(let group, let partitions, let codes, let ticket):
            if let failure { return answer(ticket, .failed(Self.commitError(failure))) }
            for (index, partition) in partitions.enumerated() {
                var committed = partition.committed
                committed.recordOffset = first + Int64(index)
                group.offsets.apply(partition.id.topic, partition.id.partition, committed, recordOffset: committed.recordOffset)
            }
            recountIfHere(group)
            answer(ticket, .partitions(codes))
        case .transactionalCommit(let group, let producer, let partitions, let codes, let ticket):
            if let failure { return answer(ticket, .failed(Self.commitError(failure))) }
            for (index, partition) in partitions.enumerated() {
                var committed = partition.committed
                committed.recordOffset = first + Int64(index)
                hold(partition.id, committed, of: producer.id, in: group)
            }
            recountIfHere(group)
            answer(ticket, .partitions(codes))
        case .transactionEnd(let end, let ticket):
            // the caller tries again: the log's own error says how
            if let failure { return answer(ticket, .failed(failure)) }
            for group in endTransaction(of: end.producer.id, commits: end.marker.type == .commit) { recountIfHere(group) }
            answer(ticket, .done)
        case .removal(let group, let partitions, let asked):
            if failure == nil {
                for (index, id) in partitions.enumerated() {
                    group.offsets.apply(id.topic, id.partition, nil, recordOffset: first + Int64(index))
                }
                recountIfHere(group)
            }
            if let asked { answer(asked.ticket, failure.map { .failed(Self.groupError($0)) } ?? .partitions(asked.codes)) }
        case .deletion(let group, let ticket): deletionWritten(group, ticket, failure.map(Self.groupError))
        case .assignment(let group, let generation, let assignments):
            assignmentWritten(group, generation: generation, assignments, failure.map(Self.groupError))
        case .replacement(let group, let member, let reply):
            replacementWritten(group, member, reply, failure.map(Self.groupError))
        case .consumer(let group, let undo, let answers): consumerWritten(number, group, undo, answers, failure)
        case .note: break
        }
    }

    private mutating func recountIfHere(_ group: Group) {
        if groups[group.id] === group { recount(group) }
    }

    /// What of the log's errors members are told.
    static func groupError(_ error: ErrorCode) -> ErrorCode {
        switch error {
        case .unknownTopicOrPartition, .notEnoughReplicas, .notEnoughReplicasAfterAppend, .requestTimedOut:
            .coordinatorNotAvailable
        case .notLeaderOrFollower, .kafkaStorageError: .notCoordinator
        case .messageTooLarge, .recordListTooLarge, .invalidFetchSize: .unknownServerError
        default: error
        }
    }

    private static func commitError(_ error: ErrorCode) -> ErrorCode {
        switch error {
        case .messageTooLarge, .recordListTooLarge, .invalidFetchSize: .invalidCommitOffsetSize
        default: groupError(error)
        }
    }
}

extension CommittedOffset {
    var value: OffsetCommitValue {
        var value = OffsetCommitValue()
        value.offset = offset
        value.leaderEpoch = leaderEpoch
        value.metadata = metadata
        value.commitTimestamp = commitTimestamp
        value.expireTimestamp = expireTimestamp
        value.topicID = topicID
        return value
    }
}
