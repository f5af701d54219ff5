import MartletBasics
package import MartletModel

/// A partition that a member of a consumer group has, and the epoch in which it was given.
package struct HeldPartition: Equatable, Sendable {
    package var partition: Int32
    package var since: Int32
}

/// What a member has, by topic; the partitions of each rise.
package struct HeldPartitions: Equatable, Sendable {
    package private(set) var byTopic: [UUID: [HeldPartition]] = [:]

    var isEmpty: Bool { byTopic.isEmpty }
    var count: Int { byTopic.values.reduce(0) { $0 + $1.count } }
    var topics: [UUID] { byTopic.keys.sorted() }
    package var partitions: PartitionSet { byTopic.mapValues { $0.map(\.partition) } }

    func since(_ topic: UUID, _ partition: Int32) -> Int32? { byTopic[topic]?.first { $0.partition == partition }?.since }

    func contains(_ topic: UUID, _ partition: Int32) -> Bool { since(topic, partition) != nil }

    /// In any order: for what does not depend on it.
    func forEach(_ body: (UUID, Int32) -> Void) {
        // in any order: so does who asks
        for (topic, held) in byTopic { for one in held { body(topic, one.partition) } }
    }

    subscript(topic: UUID) -> [HeldPartition] {
        get { byTopic[topic] ?? [] }
        set { byTopic[topic] = newValue.isEmpty ? nil : newValue.sorted { $0.partition < $1.partition } }
    }
}

extension UUID {
    /// As the bytes go.
    static func < (a: UUID, b: UUID) -> Bool { (a.high, a.low) < (b.high, b.low) }
}

extension Sequence<UUID> {
    func sorted() -> [UUID] { sorted { $0 < $1 } }
}

/// A member of a consumer group: what it says of itself, and how far it has come.
package struct ConsumerMember: Equatable, Sendable {
    /// How far a member is on its way to what it is to have.
    package enum State: Int8, Sendable {
        /// It has what was assigned to it.
        case stable = 0
        /// It is to give up partitions, and has not said that it did.
        case unrevoked = 1
        /// It waits for partitions that others have not given up.
        case unreleased = 2
        /// Of another release's making: it says anew what it has.
        case unknown = 127
    }

    /// What one says of itself who speaks the classic protocol.
    package struct Classic: Equatable, Sendable {
        package var sessionTimeoutMs: Int32
        package var protocols: [GroupProtocol]
    }

    /// A static member that is away for a while.
    static let awayEpoch: Int32 = -2

    package var id: String
    package var instanceID: String?
    package var rackID: String?
    package var clientID = ""
    package var clientHost = ""
    /// Rising, each once.
    package var topics: [String] = []
    /// Empty: none.
    package var pattern = ""
    package var rebalanceTimeoutMs: Int32 = -1
    package var assignor: String?
    package var classic: Classic?
    package var epoch: Int32 = 0
    package var previousEpoch: Int32 = 0
    package var state = State.stable
    package var assigned = HeldPartitions()
    package var pendingRevocation = HeldPartitions()

    package init(id: String) { self.id = id }

    var isAway: Bool { epoch == Self.awayEpoch }

    func isReconciled(to epoch: Int32) -> Bool { state == .stable && self.epoch == epoch }

    /// Whether the record of what it says of itself is another one.
    func saysTheSame(as other: ConsumerMember) -> Bool {
        topics == other.topics && pattern == other.pattern && rackID == other.rackID && instanceID == other.instanceID
            && clientID == other.clientID && clientHost == other.clientHost && rebalanceTimeoutMs == other.rebalanceTimeoutMs
            && assignor == other.assignor && classic == other.classic
    }

    func standsTheSame(as other: ConsumerMember) -> Bool {
        epoch == other.epoch && previousEpoch == other.previousEpoch && state == other.state && assigned == other.assigned
            && pendingRevocation == other.pendingRevocation
    }

    /// What the record of what it says is at most.
    var recordBytes: Int {
        let names = topics.reduce(0) { $0 + $1.utf8.count + 4 }
        let said = classic?.protocols.reduce(0) { $0 + $1.name.utf8.count + $1.metadata.count + 8 } ?? 0
        return 96 + 2 * id.utf8.count + (instanceID?.utf8.count ?? 0) + (rackID?.utf8.count ?? 0) + clientID.utf8.count
            + clientHost.utf8.count + pattern.utf8.count + (assignor?.utf8.count ?? 0) + names + said
    }

    var bytes: Int { 700 + recordBytes + 16 * topics.count + 24 * (assigned.count + pendingRevocation.count) }
}

/// What an expression is known to match.
package struct ResolvedPattern: Equatable, Sendable {
    package var topics: [String]
    /// Of the cluster's metadata.
    package var version: Int64
    package var timestamp: Int64
}

/// What a change of a group changed, as it was before.
struct ConsumerGroupChange {
    var epoch: Int32
    var metadataHash: Int64
    var targetEpoch: Int32
    var targetTimestamp: Int64
    var standings: [(id: String, member: ConsumerMember?, target: PartitionSet?)]
    var expressions: [(text: String, resolved: ResolvedPattern?)]
}

/// A group in Kafka's second protocol (KIP-848), as its records tell of it. A value: what is decided is another one, and
/// the one before is there if that cannot be written.
///
///     Empty --a member joins--> Assigning --a target is computed--> Reconciling --all have what is theirs--> Stable
///
/// The state follows from the epochs: the group's rises with every change of who reads what; the target's says for which
/// of them partitions were last assigned; each member's says to which target it has come.
package struct ConsumerGroup: Sendable {
    /// Before the first change. A member's epoch is above it: 1 and 0 have a meaning of their own.
    static let firstEpoch: Int32 = 1

    package let id: String
    package var epoch = ConsumerGroup.firstEpoch
    /// Of what the topics are like that are read.
    var metadataHash: Int64 = 0
    package var targetEpoch: Int32 = 0
    var targetTimestamp: Int64 = 0
    package private(set) var members: [String: ConsumerMember] = [:]
    package private(set) var targets: [String: PartitionSet] = [:]
    package private(set) var patterns: [String: ResolvedPattern] = [:]
    private(set) var instances: [String: String] = [:]
    /// Who has a partition, or has not given it up.
    private var owners: [UUID: [Int32: String]] = [:]
    private(set) var classicCount = 0
    /// Members with an expression.
    private(set) var patternCount = 0
    private(set) var bytes = 0
    // of this process alone:
    /// Members of whom only the standing has been read.
    var undescribed: Set<String> = []
    /// The metadata by which the hash was last computed, and the patterns resolved.
    var seenVersion: Int64 = -1
    var patternsVersion: Int64 = -1
    var patternsTimestamp: Int64 = 0

    package init(id: String) { self.id = id }

    package var memberIDs: [String] { members.keys.sorted() }

    package enum State: String { case empty = "Empty", assigning = "Assigning", reconciling = "Reconciling", stable = "Stable" }

    package var state: State {
        if members.isEmpty { return .empty }
        if epoch > targetEpoch { return .assigning }
        return members.values.allSatisfy { $0.isReconciled(to: targetEpoch) } ? .stable : .reconciling
    }

    /// Who has it, if it is not him.
    func owner(_ topic: UUID, _ partition: Int32, otherThan id: String) -> String? {
        owners[topic]?[partition].flatMap { $0 == id ? nil : $0 }
    }

    mutating func put(_ member: ConsumerMember) {
        remove(member.id)
        members[member.id] = member
        bytes += member.bytes
        if member.classic != nil { classicCount += 1 }
        if !member.pattern.isEmpty { patternCount += 1 }
        if let instance = member.instanceID { instances[instance] = member.id }
        for held in [member.assigned, member.pendingRevocation] {
            held.forEach { owners[$0, default: [:]][$1] = member.id }
        }
    }

    mutating func remove(_ id: String) {
        guard let member = members.removeValue(forKey: id) else { return }
        bytes -= member.bytes
        if member.classic != nil { classicCount -= 1 }
        if !member.pattern.isEmpty { patternCount -= 1 }
        if let instance = member.instanceID, instances[instance] == id { instances[instance] = nil }
        for held in [member.assigned, member.pendingRevocation] {
            held.forEach { topic, partition in
                guard owners[topic]?[partition] == id else { return }
                owners[topic]![partition] = nil
                if owners[topic]!.isEmpty { owners[topic] = nil }
            }
        }
    }

    mutating func takeBack(_ change: ConsumerGroupChange) {
        (epoch, metadataHash) = (change.epoch, change.metadataHash)
        (targetEpoch, targetTimestamp) = (change.targetEpoch, change.targetTimestamp)
        // first all go: who has a partition, or an instance id, may be another one
        for (id, _, _) in change.standings { remove(id) }
        for (id, member, target) in change.standings {
            if let member { put(member) }
            setTarget(id, target)
        }
        for (text, resolved) in change.expressions { setPattern(text, resolved) }
        (seenVersion, patternsVersion) = (-1, -1)
    }

    mutating func setTarget(_ id: String, _ target: PartitionSet?) {
        func cost(_ target: PartitionSet?) -> Int { target.map { $0.values.reduce(100) { $0 + 64 + 4 * $1.count } } ?? 0 }
        bytes += cost(target) - cost(targets[id])
        targets[id] = target
    }

    mutating func setPattern(_ text: String, _ resolved: ResolvedPattern?) {
        func cost(_ resolved: ResolvedPattern?) -> Int {
            resolved.map { $0.topics.reduce(100 + text.utf8.count) { $0 + 16 + $1.utf8.count } } ?? 0
        }
        bytes += cost(resolved) - cost(patterns[text])
        patterns[text] = resolved
    }

    /// The names that a member reads: those it gives, and those that its expression matches.
    func topics(of member: ConsumerMember) -> [String] {
        guard let matched = patterns[member.pattern]?.topics, !matched.isEmpty else { return member.topics }
        return Set(member.topics).union(matched).sorted()
    }

    var subscribedTopics: Set<String> {
        var found: Set<String> = []
        // in any order: it makes a set
        for member in members.values {
            found.formUnion(member.topics)
            if let matched = patterns[member.pattern]?.topics { found.formUnion(matched) }
        }
        return found
    }

    func isSubscribed(to topic: String) -> Bool {
        members.values.contains { $0.topics.contains(topic) || patterns[$0.pattern]?.topics.contains(topic) == true }
    }

    func uses(_ pattern: String) -> Bool { members.values.contains { $0.pattern == pattern } }

    /// The one that most members ask for; where nobody does, and of several, the first that the broker names.
    package func assignor(among offered: [PartitionAssignor]) -> PartitionAssignor {
        var votes: [PartitionAssignor: Int] = [:]
        // in any order: they are counted
        for member in members.values {
            if let wish = member.assignor.flatMap(PartitionAssignor.init) { votes[wish, default: 0] += 1 }
        }
        var best = offered.first ?? .uniform
        for assignor in offered where votes[assignor, default: 0] > votes[best, default: 0] { best = assignor }
        return best
    }

    /// Whether somebody with these protocols of the classic kind can be in it with those who have some already.
    func supports(_ names: [String]) -> Bool {
        // in any order: it is a question about all
        let others = members.values.compactMap(\.classic)
        return names.contains { name in others.allSatisfy { $0.protocols.contains { $0.name == name } } }
    }
}
