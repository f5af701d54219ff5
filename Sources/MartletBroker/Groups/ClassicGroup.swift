import MartletBasics
import MartletModel

package typealias GroupTicket = CoordinatorTicket

/// A way of assigning partitions that a member knows, and what it says of itself for that way.
package struct GroupProtocol: Equatable, Sendable {
    package var name: String
    package var metadata: [UInt8]

    package init(name: String, metadata: [UInt8]) {
        self.name = name
        self.metadata = metadata
    }
}

/// The states of a group whose members assign among themselves, by Kafka's names.
package enum ClassicGroupState: String, Sendable {
    case empty = "Empty"
    case preparingRebalance = "PreparingRebalance"
    case completingRebalance = "CompletingRebalance"
    case stable = "Stable"
    case dead = "Dead"
}

/// A member of a classic group. It is due when its session ends.
final class GroupMember: Timed {
    let groupID: String
    let id: String
    let instanceID: String?
    let clientID: String
    let clientHost: String
    fileprivate(set) var sessionTimeout: Interval
    fileprivate(set) var rebalanceTimeout: Interval
    fileprivate(set) var protocols: [GroupProtocol]
    fileprivate(set) var assignment: [UInt8] = []
    fileprivate(set) var awaitingJoin: GroupTicket?
    var awaitingSync: GroupTicket?
    /// It has not been told its id yet, and so cannot send heartbeats.
    var isNew = false
    fileprivate(set) var isPendingSync = false

    init(
        groupID: String, id: String, instanceID: String?, clientID: String, clientHost: String, sessionTimeout: Interval,
        rebalanceTimeout: Interval, protocols: [GroupProtocol]
    ) {
        self.groupID = groupID
        self.id = id
        self.instanceID = instanceID
        self.clientID = clientID
        self.clientHost = clientHost
        self.sessionTimeout = sessionTimeout
        self.rebalanceTimeout = rebalanceTimeout
        self.protocols = protocols
    }

    func metadata(for name: String?) -> [UInt8]? { protocols.first { $0.name == name }?.metadata }

    /// What its part of the group's record is at most, without its assignment.
    fileprivate var recordBytes: Int {
        64 + id.utf8.count + (instanceID?.utf8.count ?? 0) + clientID.utf8.count + clientHost.utf8.count
            + (protocols.map(\.metadata.count).max() ?? 0)
    }

    fileprivate var bytes: Int { 400 + recordBytes + assignment.count + protocols.reduce(0) { $0 + 48 + $1.metadata.count } }
}

/// Someone who was given a member id and has not joined with it yet. It is due when the id is forgotten.
final class Newcomer: Timed {
    let groupID: String
    let id: String

    init(groupID: String, id: String) {
        self.groupID = groupID
        self.id = id
    }
}

/// A group in Kafka's first protocol: its members elect a leader by coming first, and the leader assigns.
///
///     Empty ----join----> PreparingRebalance --all have joined, or time is up--> CompletingRebalance
///       ^                   |   ^      ^                                           |      |
///       +----nobody left----+   |      +----a member joins, leaves or is gone------+      leader's sync is durable
///                               |                                                         v
///                               +-----------a member joins, leaves or is gone---------- Stable
///
/// What a group is, and what holds between its parts; `GroupMachine` says what happens to it. It is due when its
/// phase ends: the first rebalance's delay, the time to join, or the time to sync.
final class ClassicGroup: Timed {
    /// Which end of a phase it is due for.
    enum Phase {
        case none
        /// Before the first generation: others may come, and `left` is what the wait may be extended by.
        case initialDelay(left: Interval)
        case joining
        case syncing
    }

    let id: String
    private(set) var state = ClassicGroupState.empty
    /// It was Empty before it began to rebalance.
    private(set) var beganEmpty = false
    /// When the state was entered, in milliseconds since 1970; nil where an old record did not say.
    private(set) var stateTimestamp: Int64?
    private(set) var generation: Int32 = 0
    private(set) var protocolType: String?
    private(set) var protocolName: String?
    private(set) var leaderID: String?
    /// In the order in which they came.
    private(set) var members: [GroupMember] = []
    private(set) var awaitingJoinCount = 0
    private(set) var pendingSyncCount = 0
    var phase = Phase.none
    /// Somebody came while the first rebalance was delayed.
    var hasNewMember = false
    private(set) var bytes = 0
    /// What its record is at most, without assignments.
    private(set) var recordBytes = 0
    private var byID: [String: GroupMember] = [:]
    private var byInstance: [String: GroupMember] = [:]
    private var newcomers: [String: Newcomer] = [:]
    private var protocolCounts: [String: Int] = [:]
    private var subscribed: (generation: Int32, topics: Set<String>?)?

    init(id: String) { self.id = id }

    /// As a record says that it was.
    init(id: String, _ value: GroupMetadataValue) {
        self.id = id
        state = value.members.isEmpty ? .empty : .stable
        generation = value.generation
        protocolType = value.protocolType.isEmpty ? nil : value.protocolType
        protocolName = value.protocol
        stateTimestamp = value.currentStateTimestamp < 0 ? nil : value.currentStateTimestamp
        super.init()
        for member in value.members where byID[member.memberID] == nil {
            let rebalanceTimeout = member.rebalanceTimeout < 0 ? member.sessionTimeout : member.rebalanceTimeout
            let loaded = GroupMember(
                groupID: id, id: member.memberID, instanceID: member.groupInstanceID, clientID: member.clientID,
                clientHost: member.clientHost, sessionTimeout: .milliseconds(Int64(member.sessionTimeout)),
                rebalanceTimeout: .milliseconds(Int64(rebalanceTimeout)),
                protocols: [GroupProtocol(name: value.protocol ?? "", metadata: member.subscription)])
            loaded.assignment = member.assignment
            add(loaded, awaiting: nil)
        }
        leaderID = value.leader.flatMap { byID[$0] == nil ? nil : $0 } ?? members.first?.id
    }

    // MARK: Who is in it

    func member(_ id: String) -> GroupMember? { byID[id] }
    func member(instance: String) -> GroupMember? { byInstance[instance] }
    func newcomer(_ id: String) -> Newcomer? { newcomers[id] }
    var newcomerIDs: [String] { newcomers.keys.sorted() }
    var hasNewcomers: Bool { !newcomers.isEmpty }
    var usesConsumerProtocol: Bool { protocolType == "consumer" }
    var allHaveJoined: Bool { awaitingJoinCount == members.count && newcomers.isEmpty }
    var isPreparing: Bool { state == .preparingRebalance }

    /// The longest that one of the members asks for.
    var rebalanceTimeout: Interval { members.reduce(.zero) { max($0, $1.rebalanceTimeout) } }

    /// Whether someone who says so is a member, and the one of his instance.
    func fault(member id: String, instance: String?) -> ErrorCode {
        if let instance {
            guard let known = byInstance[instance] else { return .unknownMemberID }
            guard known.id == id else { return .fencedInstanceID }
        }
        return byID[id] == nil ? .unknownMemberID : .none
    }

    /// Whether somebody with these protocols can be in it with those who are.
    func supports(type: String, _ protocols: [GroupProtocol]) -> Bool {
        guard state != .empty else { return !type.isEmpty && !protocols.isEmpty }
        // also while a rebalance gathers members and the only one has gone: nobody then disagrees
        return type == protocolType && protocols.contains { protocolCounts[$0.name, default: 0] == members.count }
    }

    func addNewcomer(_ newcomer: Newcomer) {
        newcomers[newcomer.id] = newcomer
        bytes += 200 + newcomer.id.utf8.count
    }

    /// Nil where there was none.
    func removeNewcomer(_ id: String) -> Newcomer? {
        guard let newcomer = newcomers.removeValue(forKey: id) else { return nil }
        bytes -= 200 + id.utf8.count
        return newcomer
    }

    /// All of them, by id.
    func removeNewcomers() -> [Newcomer] {
        newcomers.keys.sorted().compactMap { removeNewcomer($0) }
    }

    func add(_ member: GroupMember, type: String? = nil, awaiting ticket: GroupTicket?) {
        precondition(byID[member.id] == nil, "a member is in a group once")
        if members.isEmpty, let type { protocolType = type }
        if leaderID == nil { leaderID = member.id }
        members.append(member)
        byID[member.id] = member
        if let instance = member.instanceID { byInstance[instance] = member }
        count(member, 1)
        setAwaitingJoin(member, ticket)
    }

    func remove(_ member: GroupMember) {
        setAwaitingJoin(member, nil)
        setPendingSync(member, false)
        count(member, -1)
        byID[member.id] = nil
        if let instance = member.instanceID, byInstance[instance] === member { byInstance[instance] = nil }
        members.remove(at: place(of: member))
        if leaderID == member.id { leaderID = members.first?.id }
    }

    /// A static member came back: it goes on in the old one's place under a new id.
    func replace(_ old: GroupMember, by id: String, clientID: String, clientHost: String) -> GroupMember {
        precondition(old.awaitingJoin == nil && old.awaitingSync == nil, "who is replaced has been answered")
        let member = GroupMember(
            groupID: self.id, id: id, instanceID: old.instanceID, clientID: clientID, clientHost: clientHost,
            sessionTimeout: old.sessionTimeout, rebalanceTimeout: old.rebalanceTimeout, protocols: old.protocols)
        member.assignment = old.assignment
        count(old, -1)
        count(member, 1)
        if old.isPendingSync {
            old.isPendingSync = false
            member.isPendingSync = true
        }
        members[place(of: old)] = member
        byID[old.id] = nil
        byID[id] = member
        if let instance = member.instanceID { byInstance[instance] = member }
        if leaderID == old.id { leaderID = id }
        return member
    }

    private func place(of member: GroupMember) -> Int {
        guard let place = members.firstIndex(where: { $0 === member }) else { preconditionFailure("a member is in its group") }
        return place
    }

    func update(_ member: GroupMember, _ protocols: [GroupProtocol], session: Interval, rebalance: Interval) {
        count(member, -1)
        member.protocols = protocols
        member.sessionTimeout = session
        member.rebalanceTimeout = rebalance
        count(member, 1)
        subscribed = nil
    }

    func assign(_ member: GroupMember, _ assignment: [UInt8]) {
        bytes += assignment.count - member.assignment.count
        member.assignment = assignment
    }

    func setAwaitingJoin(_ member: GroupMember, _ ticket: GroupTicket?) {
        awaitingJoinCount += (ticket == nil ? 0 : 1) - (member.awaitingJoin == nil ? 0 : 1)
        member.awaitingJoin = ticket
    }

    func setPendingSync(_ member: GroupMember, _ pending: Bool) {
        guard member.isPendingSync != pending else { return }
        pendingSyncCount += pending ? 1 : -1
        member.isPendingSync = pending
    }

    private func count(_ member: GroupMember, _ sign: Int) {
        bytes += sign * member.bytes
        recordBytes += sign * member.recordBytes
        // a protocol that a member names twice is one
        for (index, named) in member.protocols.enumerated()
        where !member.protocols[..<index].contains(where: { $0.name == named.name }) {
            let count = protocolCounts[named.name, default: 0] + sign
            protocolCounts[named.name] = count == 0 ? nil : count
        }
    }

    // MARK: Where it stands

    func enter(_ next: ClassicGroupState, at wallMilliseconds: Int64) {
        beganEmpty = state == .empty
        state = next
        stateTimestamp = wallMilliseconds
    }

    /// The next generation begins: of those who are there, or of nobody.
    func beginGeneration(at wallMilliseconds: Int64) {
        // a generation below zero would mean "none" to clients
        generation = generation == .max ? 1 : generation + 1
        for member in members { setPendingSync(member, false) }
        protocolName = members.isEmpty ? nil : chosenProtocol
        enter(members.isEmpty ? .empty : .completingRebalance, at: wallMilliseconds)
    }

    /// The first of those who have joined leads, where the leader has not. False if nobody can.
    func electLeader() -> Bool {
        guard let leaderID, let leader = byID[leaderID] else { return false }
        if leader.awaitingJoin != nil { return true }
        guard let next = members.first(where: { $0.awaitingJoin != nil }) else { return false }
        self.leaderID = next.id
        return true
    }

    /// What all know and most prefer; of several, what the earliest member prefers.
    var chosenProtocol: String? {
        var votes: [(name: String, count: Int)] = []
        for member in members {
            guard let vote = member.protocols.first(where: { protocolCounts[$0.name] == members.count })?.name else { continue }
            if let index = votes.firstIndex(where: { $0.name == vote }) {
                votes[index].count += 1
            } else {
                votes.append((vote, 1))
            }
        }
        return votes.reduce(nil as (name: String, count: Int)?) { best, vote in
            best.map { vote.count > $0.count } ?? true ? vote : best
        }?.name
    }

    /// Whether its members read a topic; where that cannot be known, they do.
    func isSubscribed(to topic: String) -> Bool {
        guard usesConsumerProtocol, !members.isEmpty else { return false }
        if subscribed?.generation != generation { subscribed = (generation, subscribedTopics) }
        return subscribed?.topics?.contains(topic) ?? true
    }

    /// Nil where a member's metadata is nothing that consumers say.
    private var subscribedTopics: Set<String>? {
        var topics: Set<String> = []
        for member in members {
            guard let metadata = member.metadata(for: protocolName), let said = Self.topics(of: metadata) else { return nil }
            topics.formUnion(said)
        }
        return topics
    }

    private static func topics(of metadata: [UInt8]) -> [String]? {
        metadata.withUnsafeBytes { bytes in
            var reader = ByteReader(bytes)
            // every version begins as the first one does
            guard let version = try? reader.int16(), version >= 0 else { return nil }
            return try? ConsumerProtocolSubscription.decode(from: &reader, version: 0).topics
        }
    }

    // MARK: Its record

    /// What is written of it, with assignments that are not given yet.
    func record(assignments: [String: [UInt8]]? = nil) -> GroupMetadataValue {
        var value = GroupMetadataValue()
        value.protocolType = protocolType ?? ""
        value.generation = generation
        value.protocol = protocolName
        value.leader = members.isEmpty ? nil : leaderID
        value.currentStateTimestamp = stateTimestamp ?? -1
        value.members = members.map { member in
            var written = GroupMetadataValue.MemberMetadata()
            written.memberID = member.id
            written.groupInstanceID = member.instanceID
            written.clientID = member.clientID
            written.clientHost = member.clientHost
            written.rebalanceTimeout = Int32(clamping: member.rebalanceTimeout.milliseconds)
            written.sessionTimeout = Int32(clamping: member.sessionTimeout.milliseconds)
            written.subscription = member.metadata(for: protocolName) ?? []
            written.assignment = assignments.map { $0[member.id] ?? [] } ?? member.assignment
            return written
        }
        return value
    }
}
