import MartletBasics
import MartletModel

/// Heartbeats, sessions that end, and members that leave.
extension GroupMachine {
    mutating func heartbeat(_ event: HeartbeatEvent, _ ticket: GroupTicket) {
        let error = decideHeartbeat(event)
        answer(ticket, error == .none ? .done : .failed(error))
    }

    private mutating func decideHeartbeat(_ event: HeartbeatEvent) -> ErrorCode {
        guard !event.group.isEmpty else { return .invalidGroupID }
        guard let known = groups[event.group] else { return .unknownMemberID }
        guard !known.isBeingDeleted else { return .coordinatorNotAvailable }
        if known.consumer != nil { return consumerClassicHeartbeat(event, known) }
        guard let group = known.classic else { return .unknownMemberID }
        let fault = group.fault(member: event.memberID, instance: event.instanceID)
        guard fault == .none, let member = group.member(event.memberID) else { return fault }
        guard event.generation == group.generation else { return .illegalGeneration }
        guard group.state != .empty, group.state != .dead else { return .unknownMemberID }
        // between join and sync too: consumers send them from another thread
        deadlines.set(member, due: moment.now + member.sessionTimeout)
        return group.isPreparing ? .rebalanceInProgress : .none
    }

    // MARK: Sessions

    mutating func sessionMayHaveEnded(_ member: GroupMember) {
        guard let group = groups[member.groupID]?.classic, group.member(member.id) === member else { return }
        // who waits for an answer of ours cannot send heartbeats; a new member's time is the one to be told its first
        // generation
        guard member.isNew || (member.awaitingJoin == nil && member.awaitingSync == nil) else {
            return deadlines.set(member, due: moment.now + max(member.sessionTimeout, .milliseconds(1)))
        }
        drop(member, of: group, .unknownMemberID)
        changed(group)
    }

    mutating func newcomerIsLate(_ newcomer: Newcomer) {
        guard let group = groups[newcomer.groupID]?.classic, group.newcomer(newcomer.id) === newcomer else { return }
        _ = group.removeNewcomer(newcomer.id)
        completeJoinIfAllAreThere(group)
        recount(group.id)
    }

    /// Takes a member out, and tells it why, if it waits.
    mutating func drop(_ member: GroupMember, of group: ClassicGroup, _ error: ErrorCode) {
        release(member, of: group, error)
        deadlines.set(member, due: nil)
        group.remove(member)
    }

    /// Answers what a member waits for.
    mutating func release(_ member: GroupMember, of group: ClassicGroup, _ error: ErrorCode) {
        if let ticket = member.awaitingJoin {
            group.setAwaitingJoin(member, nil)
            let id = error == .fencedInstanceID ? member.id : ""
            answer(ticket, .joined(JoinGroupReply(error, memberID: id)))
        }
        if let ticket = member.awaitingSync {
            member.awaitingSync = nil
            answer(ticket, .synced(SyncGroupReply(error: error)))
        }
    }

    /// Somebody has gone: the others share what he had, or need not wait for him.
    private mutating func changed(_ group: ClassicGroup) {
        switch group.state {
        case .stable, .completingRebalance: prepareRebalance(group)
        case .preparingRebalance: completeJoinIfAllAreThere(group)
        case .empty, .dead: break
        }
        recount(group.id)
    }

    // MARK: LeaveGroup

    mutating func leave(_ event: LeaveGroupEvent, _ ticket: GroupTicket) {
        guard !event.group.isEmpty else { return answer(ticket, .failed(.invalidGroupID)) }
        let known = groups[event.group]
        if let known, known.consumer != nil {
            guard !known.isBeingDeleted else { return answer(ticket, .failed(.coordinatorNotAvailable)) }
            return consumerLeave(event, known, ticket)
        }
        guard let group = known?.classic else { return answer(ticket, .left(event.members.map { _ in .unknownMemberID })) }
        guard known?.isBeingDeleted != true else { return answer(ticket, .failed(.coordinatorNotAvailable)) }
        let before = group.members.count
        answer(ticket, .left(event.members.map { leave($0, group) }))
        if group.members.count < before { changed(group) } else { completeJoinIfAllAreThere(group) }
        recount(group.id)
    }

    private mutating func leave(_ leaving: LeaveGroupEvent.Member, _ group: ClassicGroup) -> ErrorCode {
        if leaving.id.isEmpty {
            // by who administers the group: it knows the instance id alone
            guard let member = leaving.instanceID.flatMap({ group.member(instance: $0) }) else { return .unknownMemberID }
            drop(member, of: group, .unknownMemberID)
            return .none
        }
        if let newcomer = group.removeNewcomer(leaving.id) {
            deadlines.set(newcomer, due: nil)
            return .none
        }
        let fault = group.fault(member: leaving.id, instance: leaving.instanceID)
        guard fault == .none, let member = group.member(leaving.id) else { return fault }
        drop(member, of: group, .unknownMemberID)
        return .none
    }
}
