import MartletBasics
import MartletModel

/// JoinGroup, and how a rebalance begins and is complete.
extension GroupMachine {
    mutating func join(_ event: JoinGroupEvent, _ ticket: GroupTicket) {
        if let refusal = decideJoin(event, ticket) { answer(ticket, .joined(refusal)) }
        recount(event.group)
    }

    /// The answer, where it is an error or known at once.
    private mutating func decideJoin(_ event: JoinGroupEvent, _ ticket: GroupTicket) -> JoinGroupReply? {
        func refused(_ error: ErrorCode) -> JoinGroupReply { JoinGroupReply(error, memberID: event.memberID) }
        guard !event.group.isEmpty else { return refused(.invalidGroupID) }
        guard settings.sessionTimeoutsMs.contains(event.sessionTimeoutMs) else { return refused(.invalidSessionTimeout) }
        guard !event.protocolType.isEmpty, 1...Self.protocolsLimit ~= event.protocols.count else {
            return refused(.inconsistentGroupProtocol)
        }
        let known = groups[event.group]
        guard known?.isBeingDeleted != true else { return refused(.coordinatorNotAvailable) }
        guard known != nil || event.memberID.isEmpty else { return refused(.unknownMemberID) }
        // an empty group of another type may become one of this
        if case .foreign(let foreign)? = known?.kind, foreign.hasMembers { return refused(.inconsistentGroupProtocol) }
        let saidBytes = event.protocols.reduce(0) { $0 + $1.name.utf8.count + $1.metadata.count }
        let isMember = known?.classic?.member(event.memberID) != nil || known?.consumer?.members[event.memberID] != nil
        guard saidBytes <= settings.recordBytesLimit, isMember || !moment.isFull else {
            return JoinGroupReply(.groupMaxSizeReached, memberID: "")
        }
        if let known, let consumer = known.consumer, !consumer.members.isEmpty { return consumerJoin(event, known, ticket) }
        let group = classicGroup(event.group)
        guard accepts(event, group, bytes: event.protocols.map(\.metadata.count).max() ?? 0) else {
            if let member = group.member(event.memberID) { drop(member, of: group, .groupMaxSizeReached) }
            if let newcomer = group.removeNewcomer(event.memberID) { deadlines.set(newcomer, due: nil) }
            return JoinGroupReply(.groupMaxSizeReached, memberID: "")
        }
        guard group.supports(type: event.protocolType, event.protocols) else { return refused(.inconsistentGroupProtocol) }
        return event.memberID.isEmpty ? joinUnknown(event, group, ticket) : joinKnown(event, group, ticket)
    }

    /// The group of this name, made where there is none; one of another type and without members is made over.
    mutating func classicGroup(_ id: String) -> ClassicGroup {
        guard let known = groups[id] else {
            let classic = ClassicGroup(id: id)
            add(Group(classic))
            return classic
        }
        var classic = ClassicGroup(id: id)
        var records: [GroupRecord] = []
        switch known.kind {
        case .classic(let classic): return classic
        case .foreign(let foreign): records = foreign.sortedKeys.map { .tombstone($0) }
        case .consumer(let consumer):
            // generations go on where epochs ended: whoever was fenced stays fenced
            var value = GroupMetadataValue()
            (value.protocolType, value.generation) = ("consumer", consumer.epoch)
            value.currentStateTimestamp = moment.wallMilliseconds
            classic = ClassicGroup(id: id, value)
            records = consumer.tombstones + [record(of: classic)]
            disarm(known)
        }
        for first in stride(from: 0, to: records.count, by: Self.tombstonesPerAppend) {
            append(Array(records[first..<min(first + Self.tombstonesPerAppend, records.count)]), .note)
        }
        known.kind = .classic(classic)
        return classic
    }

    /// Whether there is room. While a rebalance gathers members only those who have come count, so that those who
    /// come last are left out.
    private func accepts(_ event: JoinGroupEvent, _ group: ClassicGroup, bytes: Int) -> Bool {
        let member = group.member(event.memberID)
        // a record that fits no batch could not be written, and would hold up all others
        let before = member.map { $0.protocols.map(\.metadata.count).max() ?? 0 } ?? -256
        guard group.recordBytes - before + bytes <= settings.recordBytesLimit || bytes <= before else { return false }
        switch group.state {
        case .empty, .dead: return true
        case .preparingRebalance: return member?.awaitingJoin != nil || group.awaitingJoinCount < settings.sizeLimit
        case .completingRebalance, .stable: return member != nil || group.members.count < settings.sizeLimit
        }
    }

    // MARK: Who has no member id

    private mutating func joinUnknown(
        _ event: JoinGroupEvent, _ group: ClassicGroup, _ ticket: GroupTicket
    ) -> JoinGroupReply? {
        let id = (event.instanceID ?? event.clientID) + "-" + uuidText()
        if let instance = event.instanceID {
            guard let member = group.member(instance: instance) else {
                addMember(event, id, group, ticket)
                return nil
            }
            replace(member, by: id, event, group, ticket)
            return nil
        }
        guard event.requiresKnownMember else {
            addMember(event, id, group, ticket)
            return nil
        }
        let newcomer = Newcomer(groupID: group.id, id: id)
        group.addNewcomer(newcomer)
        deadlines.set(newcomer, due: moment.now + .milliseconds(Int64(event.sessionTimeoutMs)))
        return JoinGroupReply(.memberIDRequired, memberID: id)
    }

    /// A random UUID as text.
    mutating func uuidText() -> String {
        let (high, low) = (random.next(), random.next())
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(36)
        for index in 0..<32 {
            if [8, 12, 16, 20].contains(index) { text.append(UInt8(ascii: "-")) }
            let word = index < 16 ? high : low
            text.append(digits[Int(word >> UInt64(60 - 4 * (index % 16)) & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    private mutating func addMember(_ event: JoinGroupEvent, _ id: String, _ group: ClassicGroup, _ ticket: GroupTicket) {
        if let newcomer = group.removeNewcomer(id) { deadlines.set(newcomer, due: nil) }
        let member = GroupMember(
            groupID: group.id, id: id, instanceID: event.instanceID, clientID: event.clientID, clientHost: event.clientHost,
            sessionTimeout: .milliseconds(Int64(event.sessionTimeoutMs)),
            rebalanceTimeout: .milliseconds(Int64(max(event.rebalanceTimeoutMs, 0))), protocols: event.protocols)
        member.isNew = true
        if group.isPreparing, group.beganEmpty { group.hasNewMember = true }
        group.add(member, type: event.protocolType, awaiting: ticket)
        // it does not know its id yet and cannot send heartbeats; if its connection is lost it comes back as another,
        // and this one goes in time
        deadlines.set(member, due: moment.now + Self.newMemberTimeout)
        rebalanceOrCompleteJoin(group)
    }

    // MARK: Who has one

    mutating func joinKnown(_ event: JoinGroupEvent, _ group: ClassicGroup, _ ticket: GroupTicket) -> JoinGroupReply? {
        if group.newcomer(event.memberID) != nil {
            // ids are given in advance to members without instance ids only
            guard event.instanceID == nil else { return JoinGroupReply(.unknownServerError, memberID: event.memberID) }
            addMember(event, event.memberID, group, ticket)
            return nil
        }
        let fault = group.fault(member: event.memberID, instance: event.instanceID)
        guard fault == .none, let member = group.member(event.memberID) else {
            return JoinGroupReply(fault, memberID: event.memberID)
        }
        let isUnchanged = member.protocols == event.protocols
        switch group.state {
        case .preparingRebalance: break
        // it may not have received the answer to its first try
        case .completingRebalance where isUnchanged: return tell(member, group, skipAssignment: false)
        case .completingRebalance: break
        // a leader joins again when partitions have come or gone, of which its metadata says nothing
        case .stable where isUnchanged && group.leaderID != member.id: return tell(member, group, skipAssignment: false)
        case .stable: break
        case .empty, .dead: return JoinGroupReply(.unknownMemberID, memberID: event.memberID)
        }
        update(member, event, group, ticket)
        rebalanceOrCompleteJoin(group)
        return nil
    }

    private mutating func update(_ member: GroupMember, _ event: JoinGroupEvent, _ group: ClassicGroup, _ ticket: GroupTicket) {
        // who asks again on another connection has given up on the first
        if let earlier = member.awaitingJoin {
            answer(earlier, .joined(JoinGroupReply(.rebalanceInProgress, memberID: member.id)))
        }
        group.update(
            member, event.protocols, session: .milliseconds(Int64(event.sessionTimeoutMs)),
            rebalance: .milliseconds(Int64(max(event.rebalanceTimeoutMs, 0))))
        group.setAwaitingJoin(member, ticket)
    }

    /// What a member is told of the generation that it is in.
    func tell(_ member: GroupMember, _ group: ClassicGroup, skipAssignment: Bool) -> JoinGroupReply {
        var reply = JoinGroupReply(memberID: member.id)
        reply.generation = group.generation
        reply.protocolType = group.protocolType
        reply.protocolName = group.protocolName
        reply.leader = group.leaderID ?? ""
        reply.skipAssignment = skipAssignment
        guard group.leaderID == member.id else { return reply }
        reply.members = group.members.map {
            JoinGroupReply.Member(id: $0.id, instanceID: $0.instanceID, metadata: $0.metadata(for: group.protocolName) ?? [])
        }
        return reply
    }

    // MARK: Static members that come back

    /// The old member is fenced. Unless another protocol would be chosen now, a stable group goes on as it is.
    private mutating func replace(
        _ old: GroupMember, by id: String, _ event: JoinGroupEvent, _ group: ClassicGroup, _ ticket: GroupTicket
    ) {
        let leaderBefore = group.leaderID ?? ""
        release(old, of: group, .fencedInstanceID)
        deadlines.set(old, due: nil)
        let member = group.replace(old, by: id, clientID: event.clientID, clientHost: event.clientHost)
        group.update(
            member, event.protocols, session: .milliseconds(Int64(event.sessionTimeoutMs)),
            rebalance: .milliseconds(Int64(max(event.rebalanceTimeoutMs, 0))))
        deadlines.set(member, due: moment.now + member.sessionTimeout)
        switch group.state {
        case .stable where group.chosenProtocol == group.protocolName:
            var reply = tell(member, group, skipAssignment: event.canSkipAssignment && group.leaderID == id)
            if !event.canSkipAssignment {
                // told that it leads it would assign, and others rejoin: it is told that it does not
                reply.leader = leaderBefore
                reply.members = []
            }
            group.setAwaitingJoin(member, ticket)
            append([record(of: group)], .replacement(group: group, member: member, reply))
        case .stable, .preparingRebalance:
            group.setAwaitingJoin(member, ticket)
            rebalanceOrCompleteJoin(group)
        case .completingRebalance:
            // the leader may be assigning to the old id
            group.setAwaitingJoin(member, ticket)
            prepareRebalance(group)
        case .empty, .dead: preconditionFailure("a group with a member is neither empty nor dead")
        }
    }

    /// Not taken back where it failed: who is told so comes again without an id, and is replaced again.
    mutating func replacementWritten(
        _ group: ClassicGroup, _ member: GroupMember, _ reply: JoinGroupReply, _ failure: ErrorCode?
    ) {
        // a rebalance may have begun meanwhile, and will answer
        guard let ticket = member.awaitingJoin, !group.isPreparing, group.member(member.id) === member else { return }
        group.setAwaitingJoin(member, nil)
        deadlines.set(member, due: moment.now + member.sessionTimeout)
        answer(ticket, .joined(failure.map { JoinGroupReply($0, memberID: "") } ?? reply))
    }

    // MARK: The rebalance

    mutating func rebalanceOrCompleteJoin(_ group: ClassicGroup) {
        switch group.state {
        case .empty, .stable, .completingRebalance: prepareRebalance(group)
        case .preparingRebalance: completeJoinIfAllAreThere(group)
        case .dead: break
        }
    }

    /// Outside of the first rebalance, which has its delay.
    mutating func completeJoinIfAllAreThere(_ group: ClassicGroup) {
        if group.isPreparing, group.allHaveJoined, !group.beganEmpty { completeJoin(group) }
    }

    mutating func prepareRebalance(_ group: ClassicGroup) {
        if group.state == .completingRebalance { failSyncs(of: group, .rebalanceInProgress) }
        endPhase(of: group)
        let isFirst = group.state == .empty
        group.enter(.preparingRebalance, at: moment.wallMilliseconds)
        if isFirst {
            group.hasNewMember = false
            let delay = settings.initialDelay
            guard delay > .zero else { return completeJoin(group) }
            begin(.initialDelay(left: max(group.rebalanceTimeout - delay, .zero)), of: group, for: delay)
        } else if group.allHaveJoined {
            completeJoin(group)
        } else {
            begin(.joining, of: group, for: group.rebalanceTimeout)
        }
    }

    /// While members come, the first rebalance waits on: as long as they would wait for each other anyway.
    mutating func initialDelayEnded(_ group: ClassicGroup, left: Interval) {
        guard group.hasNewMember, left > .zero else { return completeJoin(group) }
        group.hasNewMember = false
        let delay = min(settings.initialDelay, left)
        begin(.initialDelay(left: max(left - settings.initialDelay, .zero)), of: group, for: delay)
    }

    /// Everybody is there, or those who are not have had their time.
    mutating func completeJoin(_ group: ClassicGroup) {
        guard group.isPreparing else { return }
        endPhase(of: group)
        // static members that are away keep their place until their sessions end
        for member in group.members where member.awaitingJoin == nil && member.instanceID == nil {
            deadlines.set(member, due: nil)
            group.remove(member)
        }
        guard group.members.isEmpty || group.electLeader() else {
            // members that give each other no time at all must not make it stand still
            return begin(.joining, of: group, for: max(group.rebalanceTimeout, Self.absencePatience))
        }
        group.beginGeneration(at: moment.wallMilliseconds)
        guard group.state == .completingRebalance else {
            append([record(of: group)], .note)
            return recount(group.id)
        }
        for member in group.members {
            let ticket = member.awaitingJoin
            group.setAwaitingJoin(member, nil)
            deadlines.set(member, due: moment.now + member.sessionTimeout)
            member.isNew = false
            group.setPendingSync(member, true)
            if let ticket { answer(ticket, .joined(tell(member, group, skipAssignment: false))) }
        }
        begin(.syncing, of: group, for: group.rebalanceTimeout)
        recount(group.id)
    }

    func record(of group: ClassicGroup, assignments: [String: [UInt8]]? = nil) -> GroupRecord {
        var key = GroupMetadataKey()
        key.group = group.id
        return .group(key, group.record(assignments: assignments))
    }
}
