import MartletBasics
import MartletModel

/// What happens to one consumer group: from the group as it is, and what somebody asks, the group as it shall be, the
/// records that say so, and the answer. It knows no clock, no tickets and no log; a refusal changes nothing.
///
///     var machine = ConsumerGroupMachine(group, surroundings, settings, wallMilliseconds: now)
///     let reply = try machine.heartbeat(event)
///     machine.records                                   to be written before the reply is told
///     machine.group                                     what is true from then on
///
/// Four steps, each of which may change nothing: what a member says is taken over; where somebody now reads something
/// else, or topics are not what they were, the group's epoch rises; where it is above the target's, partitions are
/// assigned anew; and the member goes one step towards its target. `+Reconciling` has the last, `+Classic` the members
/// that speak the classic protocol.
package struct ConsumerGroupMachine {
    /// How often expressions are looked for again while topics come and go.
    static let patternsInterval: Int64 = 1_000

    package internal(set) var group: ConsumerGroup
    let surroundings: GroupSurroundings
    let settings: ConsumerGroupSettings
    let wall: Int64
    let before: ConsumerGroup
    /// Whose records may have changed; what did is found by comparing.
    private var touched: Set<String> = []
    private var touchedPatterns: Set<String> = []
    private var isConverted = false
    /// Expressions are to be looked for: `PatternSearch` says which.
    package private(set) var search: PatternSearch?

    package init(
        _ group: ConsumerGroup, _ surroundings: GroupSurroundings, _ settings: ConsumerGroupSettings, wallMilliseconds: Int64
    ) {
        self.group = group
        before = group
        self.surroundings = surroundings
        self.settings = settings
        wall = wallMilliseconds
    }

    /// A group that was a classic one: nothing of it is in the log yet.
    init(
        converted group: ConsumerGroup, _ surroundings: GroupSurroundings, _ settings: ConsumerGroupSettings,
        wallMilliseconds: Int64
    ) {
        self.group = group
        before = ConsumerGroup(id: group.id)
        self.surroundings = surroundings
        self.settings = settings
        wall = wallMilliseconds
        touched = Set(group.members.keys)
        isConverted = true
    }

    /// Members whose standing is another one than before, or that are new or gone.
    var changedMembers: [String] { touched.sorted() }

    /// Whether a member stands elsewhere than before.
    func hasMoved(_ id: String) -> Bool {
        guard let now = group.members[id], let old = before.members[id] else { return true }
        return !now.standsTheSame(as: old)
    }

    // MARK: Heartbeats

    package mutating func heartbeat(_ event: ConsumerHeartbeatEvent) throws(ConsumerGroupRefusal) -> ConsumerHeartbeatReply {
        let known = try event.isJoin ? joining(event) : continuing(event)
        var member = known.member
        try takeOver(event, &member)
        let hasChanged = try changed(from: known.member, to: member, isNew: known.isNew)
        refreshTarget()
        let mayHaveMoved = hasChanged || !member.isReconciled(to: group.targetEpoch)
        if mayHaveMoved { member = try reconciled(member, owned: event.owned, hasChanged: hasChanged) }
        if known.isNew || member != group.members[member.id] { put(member) }
        var reply = ConsumerHeartbeatReply(
            memberID: member.id, epoch: member.epoch, heartbeatIntervalMs: settings.heartbeatIntervalMs)
        if event.isJoin || event.isWhole || member.assigned.partitions != known.member.assigned.partitions {
            reply.assignment = member.assigned.partitions
        }
        return reply
    }

    private typealias Known = (member: ConsumerMember, isNew: Bool)

    /// Epoch 0: a new member, one that lost what it knew, or a static one that comes back under another id.
    private mutating func joining(_ event: ConsumerHeartbeatEvent) throws(ConsumerGroupRefusal) -> Known {
        if group.members.count >= settings.sizeLimit, group.members[event.memberID] == nil {
            throw ConsumerGroupRefusal(.groupMaxSizeReached, "The group has \(settings.sizeLimit) members, which is its limit.")
        }
        if let instance = event.instanceID, let id = group.instances[instance], id != event.memberID,
            let old = group.members[id]
        {
            guard old.isAway else {
                throw ConsumerGroupRefusal(
                    .unreleasedInstanceID,
                    "The member with instance id '\(instance.prefix(128))' is there: it has to leave first.")
            }
            return (replace(old, by: event.memberID), true)
        }
        if let member = group.members[event.memberID] {
            guard member.isAway else { return (member, false) }
            // it left for a while, and comes back under its old id
            var back = member
            (back.epoch, back.previousEpoch) = (0, 0)
            return (back, false)
        }
        return (ConsumerMember(id: event.memberID), true)
    }

    /// A static member goes on under another id, with what it had.
    mutating func replace(_ old: ConsumerMember, by id: String) -> ConsumerMember {
        var member = ConsumerMember(id: id)
        member.instanceID = old.instanceID
        (member.rackID, member.topics, member.pattern) = (old.rackID, old.topics, old.pattern)
        (member.rebalanceTimeoutMs, member.assignor) = (old.rebalanceTimeoutMs, old.assignor)
        member.assigned = old.assigned
        let target = group.targets[old.id]
        remove(old.id)
        put(member)
        group.setTarget(id, target)
        return member
    }

    private func continuing(_ event: ConsumerHeartbeatEvent) throws(ConsumerGroupRefusal) -> Known {
        let member = try member(event.memberID, instance: event.instanceID)
        try checkEpoch(event.epoch, of: member, owned: event.owned)
        return (member, false)
    }

    func member(_ id: String, instance: String?) throws(ConsumerGroupRefusal) -> ConsumerMember {
        if let instance {
            guard let owner = group.instances[instance] else { throw .unknown(id) }
            guard owner == id else {
                throw ConsumerGroupRefusal(.fencedInstanceID, "Another member has instance id '\(instance.prefix(128))'.")
            }
        }
        guard let member = group.members[id] else { throw .unknown(id) }
        return member
    }

    /// The epoch before is good, too, if the answer with the new one may have been lost: then the member cannot have more
    /// than was assigned to it.
    private func checkEpoch(_ epoch: Int32, of member: ConsumerMember, owned: PartitionSet?) throws(ConsumerGroupRefusal) {
        guard epoch != member.epoch else { return }
        let mayBeLate = epoch < member.epoch && epoch == member.previousEpoch
        if mayBeLate, let owned,
            owned.allSatisfy({ topic, partitions in partitions.allSatisfy { member.assigned.contains(topic, $0) } })
        {
            return
        }
        throw ConsumerGroupRefusal(
            .fencedMemberEpoch, "The member is in epoch \(member.epoch), and this one says \(epoch): join again with epoch 0.")
    }

    /// What the member says of itself now.
    private func takeOver(_ event: ConsumerHeartbeatEvent, _ member: inout ConsumerMember) throws(ConsumerGroupRefusal) {
        if let instance = event.instanceID { member.instanceID = instance }
        if let rack = event.rackID { member.rackID = rack }
        if event.rebalanceTimeoutMs != -1 { member.rebalanceTimeoutMs = event.rebalanceTimeoutMs }
        if let assignor = event.assignor { member.assignor = assignor }
        if let topics = event.topics { member.topics = Set(topics).sorted() }
        if let pattern = event.pattern { member.pattern = pattern }
        member.clientID = event.clientID
        member.clientHost = event.clientHost
        member.classic = nil
    }

    // MARK: The group's epoch

    /// Takes up what a member says now; whether that is about which topics it reads.
    mutating func changed(
        from known: ConsumerMember, to member: ConsumerMember, isNew: Bool
    ) throws(ConsumerGroupRefusal) -> Bool {
        guard member.recordBytes <= settings.recordBytesLimit || member.recordBytes <= known.recordBytes else {
            throw ConsumerGroupRefusal(.invalidRequest, "What the member says of itself is larger than a record may be.")
        }
        var reads = known.topics != member.topics
        if known.pattern != member.pattern {
            if !member.pattern.isEmpty, group.patterns[member.pattern] == nil { try check(member.pattern) }
            reads =
                reads || group.patterns[member.pattern]?.topics.isEmpty == false
                || group.patterns[known.pattern]?.topics.isEmpty == false
        }
        if isNew || !known.saysTheSame(as: member) || known.epoch != group.members[member.id]?.epoch { put(member) }
        if known.pattern != member.pattern { forgetPattern(known.pattern) }
        // the first member of all is a change, even if it reads nothing
        raiseEpoch(if: reads || (isNew && group.targetEpoch == 0))
        lookForPatterns()
        return reads
    }

    private func check(_ pattern: String) throws(ConsumerGroupRefusal) {
        do throws(TopicPatternFault) { _ = try TopicPattern(pattern) } catch {
            throw ConsumerGroupRefusal(
                .invalidRegularExpression, "'\(pattern.prefix(128))' is no regular expression in RE2's syntax: \(error).")
        }
    }

    private mutating func forgetPattern(_ pattern: String) {
        guard group.patterns[pattern] != nil, !group.uses(pattern) else { return }
        group.setPattern(pattern, nil)
        touchedPatterns.insert(pattern)
    }

    /// The epoch rises by one where there is a reason, or topics that are read are not what they were.
    mutating func raiseEpoch(if hasReason: Bool) {
        guard hasReason || group.seenVersion != surroundings.version else { return }
        group.seenVersion = surroundings.version
        let hash = surroundings.hash(of: group.subscribedTopics)
        guard hasReason || hash != group.metadataHash else { return }
        group.metadataHash = hash
        group.epoch = Self.following(group.epoch)
    }

    /// No group lives to see the last epoch, but a damaged or hostile record can say that it has.
    static func following(_ epoch: Int32) -> Int32 { epoch < .max ? epoch + 1 : .max }

    private mutating func lookForPatterns() {
        guard group.patternCount > 0 else { return }
        let wanted = Set(group.members.values.lazy.map(\.pattern).filter { !$0.isEmpty })
        let isNew = wanted.contains { group.patterns[$0] == nil }
        let isOld =
            group.patternsVersion != surroundings.version
            && (wall &- group.patternsTimestamp).magnitude >= UInt64(Self.patternsInterval)
        guard isNew || isOld else { return }
        search = PatternSearch(group: group.id, patterns: wanted.sorted())
    }

    /// What expressions match has been found.
    package mutating func resolve(_ findings: PatternFindings) {
        var hasChanged = false
        for (pattern, names) in findings.topics where group.uses(pattern) {
            let known = group.patterns[pattern]
            guard known?.topics != names else { continue }
            hasChanged = hasChanged || known != nil || !names.isEmpty
            group.setPattern(pattern, ResolvedPattern(topics: names, version: findings.version, timestamp: wall))
            touchedPatterns.insert(pattern)
        }
        group.patternsVersion = findings.version
        group.patternsTimestamp = wall
        if hasChanged { raiseEpoch(if: true) }
    }

    // MARK: The target

    /// Whether partitions may be assigned anew now: not too often, for each time members may move.
    var isTargetDue: Bool {
        guard group.epoch > group.targetEpoch else { return false }
        let passed = wall &- group.targetTimestamp
        return group.targets.isEmpty || passed < 0 || passed >= Int64(settings.assignmentIntervalMs)
    }

    mutating func refreshTarget() {
        guard isTargetDue else { return }
        let ids = group.memberIDs
        var described: [UUID: AssignedTopic] = [:]
        let members = ids.map { id in
            let member = group.members[id]!
            let read = group.topics(of: member).compactMap { surroundings.image.topic($0) }
            for topic in read where described[topic.id] == nil { described[topic.id] = surroundings.assignedTopic(topic) }
            return AssignedMember(
                id: id, instanceID: member.instanceID, rack: member.rackID, topics: read.map(\.id).sorted(),
                before: group.targets[id] ?? [:])
        }
        let targets = group.assignor(among: settings.assignors).assign(members, described)
        for (id, target) in zip(ids, targets) where group.targets[id] != target {
            group.setTarget(id, target)
            touched.insert(id)
        }
        group.targetEpoch = group.epoch
        group.targetTimestamp = wall
    }

    // MARK: Leaving

    package mutating func leave(_ event: ConsumerHeartbeatEvent) throws(ConsumerGroupRefusal) -> ConsumerHeartbeatReply {
        var member = try member(event.memberID, instance: event.instanceID)
        if event.epoch == ConsumerMember.awayEpoch {
            guard member.instanceID != nil else { throw .unknown(event.memberID) }
            member.epoch = ConsumerMember.awayEpoch
            member.pendingRevocation = HeldPartitions()
            member.state = .stable
            put(member)
        } else {
            remove([member.id])
        }
        return ConsumerHeartbeatReply(memberID: event.memberID, epoch: event.epoch)
    }

    /// Members that go, of their own will or because they are late.
    package mutating func remove(_ ids: [String]) {
        for id in ids {
            guard let member = group.members[id] else { continue }
            remove(id)
            forgetPattern(member.pattern)
        }
        raiseEpoch(if: true)
    }

    // MARK: What has changed

    /// What it was before, of what may have changed.
    var change: ConsumerGroupChange {
        ConsumerGroupChange(
            epoch: before.epoch, metadataHash: before.metadataHash, targetEpoch: before.targetEpoch,
            targetTimestamp: before.targetTimestamp,
            standings: touched.sorted().map { ($0, before.members[$0], before.targets[$0]) },
            expressions: touchedPatterns.sorted().map { ($0, before.patterns[$0]) })
    }

    mutating func put(_ member: ConsumerMember) {
        group.put(member)
        touched.insert(member.id)
    }

    mutating func remove(_ id: String) {
        group.remove(id)
        group.setTarget(id, nil)
        touched.insert(id)
    }

    /// What differs from before, in Kafka's order: who is gone, what members say, the epoch, the target, where they stand.
    package var records: [GroupRecord] {
        guard
            !touched.isEmpty || !touchedPatterns.isEmpty || group.epoch != before.epoch
                || group.targetEpoch != before.targetEpoch
        else { return [] }
        let ids = touched.sorted()
        let id = group.id
        var records: [GroupRecord] = []
        for member in ids where group.members[member] == nil && before.members[member] != nil {
            records.append(.consumer(.current(id, member, nil)))
            records.append(.consumer(.target(id, member, nil)))
            records.append(.consumer(.member(id, member, nil)))
        }
        for member in ids {
            guard let now = group.members[member], before.members[member].map({ !$0.saysTheSame(as: now) }) ?? true else {
                continue
            }
            records.append(.consumer(.member(id, member, now.saidValue)))
        }
        for pattern in touchedPatterns.sorted() where group.patterns[pattern] != before.patterns[pattern] {
            records.append(.consumer(.pattern(id, pattern, group.patterns[pattern]?.value)))
        }
        if group.epoch != before.epoch || group.metadataHash != before.metadataHash || isConverted {
            records.append(.consumer(.epoch(id, group.epochValue)))
        }
        for member in ids where group.members[member] != nil && group.targets[member] != before.targets[member] {
            records.append(.consumer(.target(id, member, (group.targets[member] ?? [:]).value)))
        }
        if group.targetEpoch != before.targetEpoch { records.append(.consumer(.targetEpoch(id, group.targetEpochValue))) }
        for member in ids {
            guard let now = group.members[member], before.members[member].map({ !$0.standsTheSame(as: now) }) ?? true else {
                continue
            }
            records.append(.consumer(.current(id, member, now.currentValue)))
        }
        return records
    }
}
