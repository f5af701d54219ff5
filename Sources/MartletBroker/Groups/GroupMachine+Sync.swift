import MartletBasics
import MartletModel

/// SyncGroup: the leader brings everybody's assignment, the others wait for theirs.
extension GroupMachine {
    mutating func sync(_ event: SyncGroupEvent, _ ticket: GroupTicket) {
        if let reply = decideSync(event, ticket) { answer(ticket, .synced(reply)) }
    }

    private mutating func decideSync(_ event: SyncGroupEvent, _ ticket: GroupTicket) -> SyncGroupReply? {
        guard !event.group.isEmpty else { return SyncGroupReply(error: .invalidGroupID) }
        guard let known = groups[event.group] else { return SyncGroupReply(error: .unknownMemberID) }
        guard !known.isBeingDeleted else { return SyncGroupReply(error: .coordinatorNotAvailable) }
        if known.consumer != nil { return consumerSync(event, known, ticket) }
        guard let group = known.classic else { return SyncGroupReply(error: .unknownMemberID) }
        let fault = group.fault(member: event.memberID, instance: event.instanceID)
        guard fault == .none, let member = group.member(event.memberID) else { return SyncGroupReply(error: fault) }
        guard event.generation == group.generation else { return SyncGroupReply(error: .illegalGeneration) }
        func differs(_ said: String?, _ agreed: String?) -> Bool { said != nil && said != agreed }
        guard !differs(event.protocolType, group.protocolType), !differs(event.protocolName, group.protocolName) else {
            return SyncGroupReply(error: .inconsistentGroupProtocol)
        }
        switch group.state {
        case .empty, .dead: return SyncGroupReply(error: .unknownMemberID)
        case .preparingRebalance: return SyncGroupReply(error: .rebalanceInProgress)
        case .stable:
            received(member, group)
            return assignment(of: member, group)
        case .completingRebalance:
            if let earlier = member.awaitingSync { answer(earlier, .synced(SyncGroupReply(error: .rebalanceInProgress))) }
            member.awaitingSync = ticket
            received(member, group)
            if group.leaderID == member.id { store(event, group) }
            return nil
        }
    }

    private mutating func received(_ member: GroupMember, _ group: ClassicGroup) {
        group.setPendingSync(member, false)
        if group.pendingSyncCount == 0 { endPhase(of: group) }
    }

    private mutating func store(_ event: SyncGroupEvent, _ group: ClassicGroup) {
        // sent again, the first copy counts: it may be durable already
        let isUnderWay = writes.values.contains { write in
            if case .assignment(let other, let generation, _) = write {
                other === group && generation == group.generation
            } else {
                false
            }
        }
        guard !isUnderWay else { return }
        let known = event.assignments.filter { group.member($0.memberID) != nil }
        let assignments = Dictionary(known, uniquingKeysWith: { _, last in last })
        append(
            [record(of: group, assignments: assignments)],
            .assignment(
                group: group, generation: group.generation, assignments: assignments))
    }

    private func assignment(of member: GroupMember, _ group: ClassicGroup) -> SyncGroupReply {
        var reply = SyncGroupReply()
        reply.protocolType = group.protocolType
        reply.protocolName = group.protocolName
        reply.assignment = member.assignment
        return reply
    }

    /// The assignments are durable, or are not. A rebalance that has begun meanwhile knows nothing of them.
    mutating func assignmentWritten(
        _ group: ClassicGroup, generation: Int32, _ assignments: [String: [UInt8]], _ failure: ErrorCode?
    ) {
        guard group.state == .completingRebalance, group.generation == generation else { return }
        if let failure {
            failSyncs(of: group, failure)
            return prepareRebalance(group)
        }
        group.enter(.stable, at: moment.wallMilliseconds)
        for member in group.members {
            group.assign(member, assignments[member.id] ?? [])
            guard let ticket = member.awaitingSync else { continue }
            member.awaitingSync = nil
            deadlines.set(member, due: moment.now + member.sessionTimeout)
            answer(ticket, .synced(assignment(of: member, group)))
        }
        recount(group.id)
    }

    /// There will be no assignments of this generation.
    mutating func failSyncs(of group: ClassicGroup, _ error: ErrorCode) {
        for member in group.members {
            group.assign(member, [])
            guard let ticket = member.awaitingSync else { continue }
            member.awaitingSync = nil
            deadlines.set(member, due: moment.now + member.sessionTimeout)
            answer(ticket, .synced(SyncGroupReply(error: error)))
        }
    }

    /// Who has joined and not come for an assignment is out.
    mutating func syncTimeIsUp(_ group: ClassicGroup) {
        guard group.state == .completingRebalance || group.state == .stable, group.pendingSyncCount > 0 else { return }
        for member in group.members where member.isPendingSync {
            deadlines.set(member, due: nil)
            group.remove(member)
        }
        prepareRebalance(group)
        recount(group.id)
    }
}
