import MartletBasics
import MartletModel

/// The types of groups, by Kafka's names.
package enum GroupType: String, Sendable {
    case classic, consumer, share, streams
}

/// A group that a partition of `__consumer_offsets` has: what its members agree upon, by its type, and what it has
/// committed.
///
/// A further type of group is a further case of `Kind`, with a file of transitions beside `GroupMachine+Join`;
/// offsets, expiry, deletion, and the way to the log are the same for all.
final class Group {
    enum Kind {
        case classic(ClassicGroup)
        case consumer(ConsumerGroup)
        case foreign(ForeignGroup)
    }

    let id: String
    var kind: Kind
    var offsets = CommittedOffsets()
    /// Its tombstones are on their way: nobody enters any more.
    var isBeingDeleted = false
    /// What it was last counted with.
    var countedBytes = 0
    /// Of a consumer group: the appends that are under way, in the order of the log.
    var chain: [UInt64] = []
    /// Somebody looks which topics its expressions match.
    var isSearching = false
    private(set) var timersByMember: [String: ConsumerTimers] = [:]

    init(_ classic: ClassicGroup) {
        id = classic.id
        kind = .classic(classic)
    }

    init(_ consumer: ConsumerGroup) {
        id = consumer.id
        kind = .consumer(consumer)
    }

    init(_ id: String, _ foreign: ForeignGroup) {
        self.id = id
        kind = .foreign(foreign)
    }

    var classic: ClassicGroup? { if case .classic(let group) = kind { group } else { nil } }
    var consumer: ConsumerGroup? { if case .consumer(let group) = kind { group } else { nil } }

    /// What a member of a consumer group is due for.
    func timers(_ member: String) -> ConsumerTimers {
        if let known = timersByMember[member] { return known }
        let timers = ConsumerTimers(id, member)
        timersByMember[member] = timers
        return timers
    }

    var timedMembers: [String] { timersByMember.keys.sorted() }
    func knownTimers(_ member: String) -> ConsumerTimers? { timersByMember[member] }
    func removeTimers(_ member: String) -> ConsumerTimers? { timersByMember.removeValue(forKey: member) }

    var bytes: Int {
        let own =
            switch kind {
            case .classic(let group): group.bytes
            case .consumer(let group): group.bytes
            case .foreign(let group): group.bytes
            }
        return 300 + 2 * id.utf8.count + own + offsets.bytes
    }

    /// As ListGroups tells it.
    var stateName: String {
        switch kind {
        case .classic(let group): (isBeingDeleted ? ClassicGroupState.dead : group.state).rawValue
        case .consumer(let group): isBeingDeleted ? ClassicGroupState.dead.rawValue : group.state.rawValue
        case .foreign(let group): group.hasMembers ? "Stable" : "Empty"
        }
    }

    var isEmpty: Bool {
        switch kind {
        case .classic(let group): group.state == .empty
        case .consumer(let group): group.members.isEmpty
        case .foreign(let group): !group.hasMembers
        }
    }

    func isSubscribed(to topic: String) -> Bool {
        switch kind {
        case .classic(let group): group.isSubscribed(to: topic)
        case .consumer(let group): group.isSubscribed(to: topic)
        case .foreign(let group): group.hasMembers
        }
    }
}

/// A group of a type that is not coordinated here, as another broker's records tell of it. Its records stay as they
/// are; it is listed, its offsets are served. Its members cannot reach us: some time after the records were read they
/// count as gone.
struct ForeignGroup {
    var type: GroupType
    /// The keys of its records that have a value: what is to be written over to delete it.
    private(set) var keys: Set<[UInt8]> = []
    private var members: Set<String> = []
    private(set) var bytes = 0

    init(_ type: GroupType) { self.type = type }

    var hasMembers: Bool { !members.isEmpty }
    /// Nothing of it is left.
    var isGone: Bool { keys.isEmpty }
    var sortedKeys: [[UInt8]] { keys.sorted { $0.lexicographicallyPrecedes($1) } }

    mutating func apply(_ key: ForeignKey, bytes raw: [UInt8], exists: Bool) {
        if exists {
            if keys.insert(raw).inserted { bytes += 80 + raw.count }
            if let member = key.member { members.insert(member) }
        } else {
            if keys.remove(raw) != nil { bytes -= 80 + raw.count }
            if let member = key.member { members.remove(member) }
        }
    }

    mutating func membersAreGone() { members = [] }
}

/// What the key of a record says whose kind is of another type of group.
struct ForeignKey: Equatable {
    var type: GroupType
    var group: String
    /// Where the record says that there is such a member.
    var member: String?

    /// Every such key begins with its kind and the group's id; those of members go on with the member's. Nil for what
    /// is no such key.
    init?(_ key: UnsafeRawBufferPointer) {
        var reader = ByteReader(key)
        guard let kind = try? reader.int16(), let group = try? reader.string(flexible: false) else { return nil }
        switch kind {
        case ShareGroupMemberMetadataKey.key...ShareGroupStatePartitionMetadataKey.key: type = .share
        // 17 to 23 are those of streams groups
        case 17...23: type = .streams
        default: return nil
        }
        self.group = group
        // 19: a member of a streams group
        let tellsOfMembers = [ShareGroupMemberMetadataKey.key, 19].contains(kind)
        if tellsOfMembers { member = try? reader.string(flexible: false) }
    }
}
