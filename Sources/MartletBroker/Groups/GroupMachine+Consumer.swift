import MartletBasics
package import MartletModel

/// What a member of a consumer group is due for. Each has two of them: its session, and the step that it is to take.
final class ConsumerTimer: Timed {
    enum Purpose: Equatable {
        case session
        /// To give up what it is to give up, in this epoch.
        case revocation(epoch: Int32)
        /// A classic member: to join again, or to ask for its assignment.
        case join, sync
    }

    let groupID: String
    let memberID: String
    var purpose: Purpose

    init(_ groupID: String, _ memberID: String, _ purpose: Purpose) {
        self.groupID = groupID
        self.memberID = memberID
        self.purpose = purpose
    }
}

/// What takes a change of a consumer group back. A thousand members may change in one turn: what did not change is not kept.
enum ConsumerUndo {
    /// The group was not there.
    case absent
    /// It was of another type, or is now.
    case kind(Group.Kind)
    case change(ConsumerGroupChange)
}

struct ConsumerTimers {
    let session: ConsumerTimer
    let step: ConsumerTimer

    init(_ groupID: String, _ memberID: String) {
        session = ConsumerTimer(groupID, memberID, .session)
        step = ConsumerTimer(groupID, memberID, .join)
    }
}

/// Consumer groups: `ConsumerGroupMachine` decides, and what it decides counts at once; who asked is told when it is
/// durable. What cannot be written is taken back, with all that was decided after it.
extension GroupMachine {
    /// Where a decision begins: the group, what has to be written before its records, and what it is converted from.
    private struct Entry {
        var known: Group?
        var machine: ConsumerGroupMachine
        var prelude: [GroupRecord] = []
        var converted: ClassicGroup?
    }

    func consumerSettings(_ group: String) -> ConsumerGroupSettings {
        settings.consumer.applying(moment.surroundings, to: group)
    }

    // MARK: ConsumerGroupHeartbeat

    mutating func consumerHeartbeat(_ event: ConsumerHeartbeatEvent, _ ticket: GroupTicket) {
        do throws(ConsumerGroupRefusal) { try decideHeartbeat(event, ticket) } catch {
            answer(ticket, .refused(error))
        }
    }

    private mutating func decideHeartbeat(
        _ event: ConsumerHeartbeatEvent, _ ticket: GroupTicket
    ) throws(ConsumerGroupRefusal) {
        var event = event
        let consumer = consumerSettings(event.group)
        guard consumer.isOffered else {
            throw ConsumerGroupRefusal(
                .unsupportedVersion, "This broker's group.coordinator.rebalance.protocols does not name the consumer protocol.")
        }
        if let fault = event.fault(offered: consumer.assignors) { throw fault }
        if event.memberID.isEmpty { event.memberID = uuidText() }
        let known = groups[event.group]
        guard known?.isBeingDeleted != true else {
            throw ConsumerGroupRefusal(.coordinatorNotAvailable, "The group is being deleted.")
        }
        if event.isJoin, moment.isFull, known?.consumer?.members[event.memberID] == nil {
            throw ConsumerGroupRefusal(.groupMaxSizeReached, "The memory for groups is used up.")
        }
        var entry = try enter(event.group, creates: event.isJoin, consumer)
        if event.isLeave {
            let reply = try entry.machine.leave(event)
            if event.epoch == ConsumerMember.awayEpoch {
                settle(entry, (ticket, .consumerHeartbeat(reply)))
            } else {
                settleRemoval(entry, (ticket, .consumerHeartbeat(reply)))
            }
            return
        }
        let reply = try entry.machine.heartbeat(event)
        let group = settle(entry, (ticket, .consumerHeartbeat(reply)))
        let session = group.timers(reply.memberID).session
        deadlines.set(session, due: moment.now + .milliseconds(Int64(consumer.sessionTimeoutMs)))
    }

    /// The group as a consumer group, made or made over where a member may begin it.
    private func enter(
        _ id: String, creates: Bool, _ consumer: ConsumerGroupSettings
    ) throws(ConsumerGroupRefusal) -> Entry {
        let absent = ConsumerGroupRefusal(.groupIDNotFound, "There is no consumer group '\(id.prefix(128))'.")
        let known = groups[id]
        func machine(_ group: ConsumerGroup) -> ConsumerGroupMachine {
            ConsumerGroupMachine(group, moment.surroundings, consumer, wallMilliseconds: moment.wallMilliseconds)
        }
        if let group = known?.consumer { return Entry(known: known, machine: machine(group)) }
        guard creates else { throw absent }
        switch known?.kind {
        case .classic(let classic) where classic.state == .empty:
            // epochs go on where generations ended: whoever was fenced stays fenced
            var group = ConsumerGroup(id: id)
            group.epoch = max(group.epoch, classic.generation)
            return Entry(
                known: known, machine: machine(group), prelude: [Self.tombstone(classic)], converted: classic)
        case .classic(let classic):
            guard consumer.allowsUpgrade, classic.members.count < consumer.sizeLimit,
                let group = ConsumerGroupMachine.converted(classic, moment.surroundings)
            else { throw absent }
            let machine = ConsumerGroupMachine(
                converted: group, moment.surroundings, consumer, wallMilliseconds: moment.wallMilliseconds)
            return Entry(known: known, machine: machine, prelude: [Self.tombstone(classic)], converted: classic)
        case .foreign(let foreign):
            guard !foreign.hasMembers else { throw absent }
            return Entry(
                known: known, machine: machine(ConsumerGroup(id: id)), prelude: foreign.sortedKeys.map { .tombstone($0) })
        case .consumer, nil: return Entry(known: known, machine: machine(ConsumerGroup(id: id)))
        }
    }

    static func tombstone(_ classic: ClassicGroup) -> GroupRecord {
        var key = GroupMetadataKey()
        key.group = classic.id
        return .group(key, nil)
    }

    // MARK: What was decided

    /// Makes a decision count, has it written, and has the answer given when it is.
    @discardableResult
    private mutating func settle(_ entry: Entry, _ answer: (GroupTicket, GroupReply)?) -> Group {
        let group: Group
        if let known = entry.known {
            group = known
        } else {
            group = Group(entry.machine.group)
            add(group)
        }
        let machine = entry.machine
        let undo: ConsumerUndo
        switch entry.known?.kind {
        case .consumer: undo = .change(machine.change)
        case .some(let kind): undo = .kind(kind)
        case nil: undo = .absent
        }
        group.kind = .consumer(machine.group)
        if let classic = entry.converted {
            dissolve(classic, .rebalanceInProgress)
            arm(group)
        }
        for id in machine.changedMembers { follow(id, machine, group) }
        write(entry.prelude + machine.records, group, undo, answer)
        if let search = machine.search, !group.isSearching {
            group.isSearching = true
            actions.append(.effect(search))
        }
        recount(group)
        return group
    }

    /// As `settle`, where somebody has gone: those who are left may be of the classic protocol, and the group theirs.
    private mutating func settleRemoval(_ entry: Entry, _ answer: (GroupTicket, GroupReply)?) {
        guard let group = entry.known, entry.machine.canBecomeClassic else {
            settle(entry, answer)
            return
        }
        let classic = makeClassic(entry, group, answer)
        prepareRebalance(classic)
        recount(group)
    }

    private mutating func makeClassic(
        _ entry: Entry, _ group: Group, _ answer: (GroupTicket, GroupReply)?
    ) -> ClassicGroup {
        guard let before = group.consumer else { preconditionFailure("what becomes a classic group is a consumer group") }
        let value = entry.machine.classicValue
        let classic = ClassicGroup(id: group.id, value)
        disarm(group)
        var key = GroupMetadataKey()
        key.group = group.id
        let undo = ConsumerUndo.kind(group.kind)
        group.kind = .classic(classic)
        // its members share what they have anew at once. Who is started before that is written must not take what they had
        // for all there is: members that it does not know join again
        var stored = value
        (stored.members, stored.leader, stored.protocol) = ([], nil, nil)
        write(before.tombstones + [.group(key, stored)], group, undo, answer)
        for member in classic.members { deadlines.set(member, due: moment.now + member.sessionTimeout) }
        return classic
    }

    /// Nobody waits for a classic group any more, and nothing of it is due.
    mutating func dissolve(_ classic: ClassicGroup, _ error: ErrorCode) {
        endPhase(of: classic)
        for member in classic.members {
            release(member, of: classic, error)
            deadlines.set(member, due: nil)
        }
        for newcomer in classic.removeNewcomers() { deadlines.set(newcomer, due: nil) }
    }

    // MARK: What is due

    /// Sessions begin anew for all members, and so does the time of those who are to give something up.
    mutating func arm(_ group: Group) {
        guard let consumer = group.consumer else { return }
        let settings = consumerSettings(group.id)
        for id in consumer.memberIDs {
            let member = consumer.members[id]!
            let sessionMs = member.classic?.sessionTimeoutMs ?? settings.sessionTimeoutMs
            deadlines.set(group.timers(id).session, due: moment.now + .milliseconds(Int64(sessionMs)))
            if member.classic == nil, member.state == .unrevoked { awaitRevocation(of: member, group) }
        }
    }

    mutating func disarm(_ group: Group) {
        for id in group.timedMembers { disarm(id, group) }
    }

    private mutating func disarm(_ id: String, _ group: Group) {
        guard let timers = group.removeTimers(id) else { return }
        deadlines.set(timers.session, due: nil)
        deadlines.set(timers.step, due: nil)
    }

    private mutating func awaitRevocation(of member: ConsumerMember, _ group: Group) {
        let step = group.timers(member.id).step
        step.purpose = .revocation(epoch: member.epoch)
        deadlines.set(step, due: moment.now + .milliseconds(Int64(max(member.rebalanceTimeoutMs, 0))))
    }

    /// Sets what a member is due for after a change.
    private mutating func follow(_ id: String, _ machine: ConsumerGroupMachine, _ group: Group) {
        guard let member = machine.group.members[id] else { return disarm(id, group) }
        guard member.classic == nil, machine.hasMoved(id) else { return }
        if member.state == .unrevoked {
            awaitRevocation(of: member, group)
        } else {
            deadlines.set(group.timers(id).step, due: nil)
        }
    }

    mutating func consumerIsLate(_ timer: ConsumerTimer) {
        guard let group = groups[timer.groupID], let timers = group.knownTimers(timer.memberID),
            timers.session === timer || timers.step === timer, let member = group.consumer?.members[timer.memberID]
        else { return }
        if case .revocation(let epoch) = timer.purpose, member.state != .unrevoked || member.epoch != epoch { return }
        evict([member.id], of: group)
    }

    private mutating func evict(_ ids: [String], of group: Group, _ answer: (GroupTicket, GroupReply)? = nil) {
        guard let consumer = group.consumer else { return }
        var machine = ConsumerGroupMachine(
            consumer, moment.surroundings, consumerSettings(group.id), wallMilliseconds: moment.wallMilliseconds)
        machine.remove(ids)
        settleRemoval(Entry(known: group, machine: machine), answer)
    }

    mutating func patternsFound(_ findings: PatternFindings) {
        guard let group = groups[findings.group] else { return }
        group.isSearching = false
        guard let consumer = group.consumer, !group.isBeingDeleted, findings.version >= 0 else { return }
        var machine = ConsumerGroupMachine(
            consumer, moment.surroundings, consumerSettings(group.id), wallMilliseconds: moment.wallMilliseconds)
        machine.resolve(findings)
        settle(Entry(known: group, machine: machine), nil)
    }

    // MARK: The log

    /// Several batches, where they do not fit into one: their order is such that a part of them is a state, too.
    private mutating func write(
        _ records: [GroupRecord], _ group: Group, _ undo: @autoclosure () -> ConsumerUndo, _ answer: (GroupTicket, GroupReply)?
    ) {
        var left = records[...]
        while !left.isEmpty {
            var bytes = 0
            let some = left.prefix { record in
                bytes += record.estimatedBytes
                return bytes <= settings.recordBytesLimit / 2
            }
            let count = max(some.count, 1)
            let isLast = count == left.count
            append(
                Array(left.prefix(count)),
                .consumer(group: group, undo: undo(), answers: isLast ? answer.map { [$0] } ?? [] : []))
            group.chain.append(lastWrite)
            left = left.dropFirst(count)
        }
        guard records.isEmpty, let answer else { return }
        // what it is told may be from a decision that is not durable yet
        guard let last = group.chain.last, case .consumer(let owner, let known, let answers)? = writes[last] else {
            return self.answer(answer.0, answer.1)
        }
        writes[last] = .consumer(group: owner, undo: known, answers: answers + [answer])
    }

    /// A record that waited too long is in the log all the same, and counts; any other failure is taken back.
    mutating func consumerWritten(
        _ number: UInt64, _ group: Group, _ undo: ConsumerUndo, _ answers: [(GroupTicket, GroupReply)], _ failure: ErrorCode?
    ) {
        var failure = failure
        if let place = group.chain.firstIndex(of: number) {
            if failure == nil || failure == .requestTimedOut {
                group.chain.remove(at: place)
            } else {
                // what was decided after it was decided upon it
                var undone = group.chain[(place + 1)...].reversed().compactMap { later -> ConsumerUndo? in
                    guard case .consumer(_, let undo, _)? = writes[later] else { return nil }
                    return undo
                }
                undone.append(undo)
                group.chain.removeSubrange(place...)
                restore(group, undone)
            }
        } else if failure == nil {
            failure = .coordinatorNotAvailable
        }
        for (ticket, reply) in answers { answer(ticket, failure.map { .failed(Self.groupError($0)) } ?? reply) }
    }

    private mutating func restore(_ group: Group, _ undone: [ConsumerUndo]) {
        guard groups[group.id] === group else { return }
        if let classic = group.classic { dissolve(classic, .coordinatorNotAvailable) }
        disarm(group)
        for undo in undone {
            switch undo {
            case .kind(let kind): group.kind = kind
            case .change(let change):
                guard var consumer = group.consumer else { preconditionFailure("a change of a consumer group is of one") }
                consumer.takeBack(change)
                group.kind = .consumer(consumer)
            case .absent where group.offsets.isEmpty && !group.offsets.hasOpenTransactions: return forget(group)
            case .absent: group.kind = .classic(ClassicGroup(id: group.id))
            }
        }
        arm(group)
        if let classic = group.classic {
            for member in classic.members { deadlines.set(member, due: moment.now + member.sessionTimeout) }
            // those who waited have been sent away, and come back
            if classic.state == .preparingRebalance || classic.state == .completingRebalance { prepareRebalance(classic) }
        }
        recount(group)
    }

    // MARK: Classic requests

    /// JoinGroup into a consumer group that has members.
    mutating func consumerJoin(_ event: JoinGroupEvent, _ group: Group, _ ticket: GroupTicket) -> JoinGroupReply? {
        guard let consumer = group.consumer else { preconditionFailure("the group is one of consumers") }
        let isNew = event.memberID.isEmpty
        let id = isNew ? (event.instanceID ?? event.clientID) + "-" + uuidText() : event.memberID
        var machine = ConsumerGroupMachine(
            consumer, moment.surroundings, consumerSettings(group.id), wallMilliseconds: moment.wallMilliseconds)
        let reply: JoinGroupReply
        do throws(ConsumerGroupRefusal) { reply = try machine.join(event, as: id) } catch {
            return JoinGroupReply(error.error, memberID: error.error == .groupMaxSizeReached ? "" : event.memberID)
        }
        if isNew, event.instanceID == nil, event.requiresKnownMember { return JoinGroupReply(.memberIDRequired, memberID: id) }
        let entry = Entry(known: group, machine: machine)
        guard !machine.canBecomeClassic else {
            // the last of the other protocol was replaced: the group is theirs, and this is a join like any other
            let classic = makeClassic(entry, group, nil)
            prepareRebalance(classic)
            var event = event
            event.memberID = id
            return joinKnown(event, classic, ticket)
        }
        settle(entry, (ticket, .joined(reply)))
        let timers = group.timers(id)
        deadlines.set(timers.session, due: moment.now + .milliseconds(Int64(event.sessionTimeoutMs)))
        timers.step.purpose = .sync
        deadlines.set(timers.step, due: moment.now + .milliseconds(Int64(max(event.rebalanceTimeoutMs, 0))))
        return nil
    }

    mutating func consumerSync(_ event: SyncGroupEvent, _ group: Group, _ ticket: GroupTicket) -> SyncGroupReply? {
        let machine = machine(of: group)
        do throws(ConsumerGroupRefusal) {
            let (member, reply) = try machine.classicSync(event)
            extendSession(of: member, group)
            let step = group.timers(member.id).step
            if step.purpose == .sync { deadlines.set(step, due: nil) }
            write([], group, .absent, (ticket, .synced(reply)))
            return nil
        } catch {
            return SyncGroupReply(error: error.error)
        }
    }

    mutating func consumerClassicHeartbeat(_ event: HeartbeatEvent, _ group: Group) -> ErrorCode {
        let machine = machine(of: group)
        do throws(ConsumerGroupRefusal) {
            let (member, joins) = try machine.classicHeartbeat(event)
            extendSession(of: member, group)
            guard joins else { return .none }
            let step = group.timers(member.id).step
            if step.purpose != .join || step.due == nil {
                step.purpose = .join
                deadlines.set(step, due: moment.now + .milliseconds(Int64(max(member.rebalanceTimeoutMs, 0))))
            }
            return .rebalanceInProgress
        } catch {
            return error.error
        }
    }

    mutating func consumerLeave(_ event: LeaveGroupEvent, _ group: Group, _ ticket: GroupTicket) {
        guard let consumer = group.consumer else { preconditionFailure("the group is one of consumers") }
        var leaving: [String] = []
        let codes = event.members.map { asked -> ErrorCode in
            let owner = asked.instanceID.flatMap { consumer.instances[$0] }
            let id = asked.id.isEmpty ? owner : asked.id
            guard let id, consumer.members[id] != nil, !leaving.contains(id) else { return .unknownMemberID }
            guard asked.instanceID == nil || owner == id else { return owner == nil ? .unknownMemberID : .fencedInstanceID }
            leaving.append(id)
            return .none
        }
        guard !leaving.isEmpty else { return answer(ticket, .left(codes)) }
        evict(leaving, of: group, (ticket, .left(codes)))
    }

    private func machine(of group: Group) -> ConsumerGroupMachine {
        guard let consumer = group.consumer else { preconditionFailure("the group is one of consumers") }
        return ConsumerGroupMachine(
            consumer, moment.surroundings, consumerSettings(group.id), wallMilliseconds: moment.wallMilliseconds)
    }

    private mutating func extendSession(of member: ConsumerMember, _ group: Group) {
        let sessionMs = member.classic?.sessionTimeoutMs ?? consumerSettings(group.id).sessionTimeoutMs
        deadlines.set(group.timers(member.id).session, due: moment.now + .milliseconds(Int64(sessionMs)))
    }

    // MARK: Offsets

    /// Whether a commit may be of a member, in this epoch or in one in which it had the partitions already.
    func consumerCommitFault(_ event: OffsetCommitEvent, _ consumer: ConsumerGroup) -> ErrorCode {
        if event.generation < 0, consumer.members.isEmpty { return .none }
        if let instance = event.instanceID, let owner = consumer.instances[instance], owner != event.memberID {
            return .fencedInstanceID
        }
        guard let member = consumer.members[event.memberID] else { return .unknownMemberID }
        guard member.classic != nil || event.knowsMemberEpochs else { return .unsupportedVersion }
        guard event.generation != member.epoch else { return .none }
        guard member.classic == nil else { return .illegalGeneration }
        let isHeld = event.partitions.allSatisfy { partition in
            let since =
                member.assigned.since(partition.topicID, partition.partition)
                ?? member.pendingRevocation.since(partition.topicID, partition.partition)
            return since.map { $0 <= event.generation } ?? false
        }
        return event.generation < member.epoch && isHeld ? .none : .staleMemberEpoch
    }

    /// Whether a member of a consumer group may read offsets, where it says that it is one.
    package func fetchFault(_ id: String, member: String?, epoch: Int32) -> ErrorCode {
        guard let consumer = groups[id]?.consumer, member != nil || epoch >= 0 else { return .none }
        guard let member = consumer.members[member ?? ""] else { return .unknownMemberID }
        guard member.epoch != epoch else { return .none }
        return member.classic == nil ? .staleMemberEpoch : .illegalGeneration
    }
}
