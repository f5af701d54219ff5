package import MartletBasics
import MartletModel

/// The groups of one partition of `__consumer_offsets`, decided: events in, actions out. It waits for nothing, reads
/// no clock and writes nothing.
///
///     var machine = GroupMachine(settings: settings, seed: seed)
///     machine.load(record, at: offset)                  each record of the log, then once
///     machine.finishLoading(at: moment)
///     let actions = machine.handle(event, at: moment)   carried out in order
///     machine.nextDeadline                              `handle(.timePassed)` is wanted then, or a little earlier
///
/// Who asks has a `GroupTicket`, and each ticket is answered once, by an action of this event or of a later one.
/// Records go out as `append` and come back as `written`, in any order; **what a client is told of offsets and
/// assignments is what came back**: an offset is visible, and a group Stable, from then on. Heartbeats, joins and
/// leaves are answered without the log, as in Kafka: a group that is read anew stands where it last was Stable or
/// Empty.
///
/// Times are two: `now` of the monotonic clock for sessions and rebalances, the wall's milliseconds for records and
/// retention. The same seed and the same events give the same actions, byte for byte: what is gone through in an
/// order that can be seen lies in arrays or is sorted first.
///
/// Consumer groups (KIP-848) are decided by `ConsumerGroupMachine` and carried out by `+Consumer`: there all that is told
/// is durable first, heartbeats included.
///
/// `+Join`, `+Sync`, `+Members` (heartbeat, leave, sessions), `+Offsets`, `+Removal` (deletion, expiry), `+Loading`,
/// `+Telling` (what is asked without change).
package struct GroupMachine: CoordinatorMachine {
    /// How long a member may take to be told its first generation.
    static let newMemberTimeout = Interval.seconds(300)
    /// While all members are static and away, none of them is looked for more often than this.
    static let absencePatience = Interval.seconds(1)
    /// Ways of assigning that one member may name. Clients know a handful.
    static let protocolsLimit = 256
    /// Tombstones that are written at a time.
    static let tombstonesPerAppend = 1_000

    let settings: GroupSettings
    var random: SeededRandom
    var groups: [String: Group] = [:]
    var deadlines = DeadlineQueue()
    var moment = GroupMoment(now: Instant(nanoseconds: 0), wallMilliseconds: 0)
    var actions: [GroupAction] = []
    /// What is on its way to the log, by number.
    var writes: [UInt64: PendingWrite] = [:]
    private(set) var lastWrite: UInt64 = 0
    /// Whose offsets wait for the end of a producer's transaction, each group once.
    var inTransaction: [ProducerID: [Group]] = [:]
    /// Until then the members of other brokers' groups count as there.
    var foreignMembersUntil: Instant?
    /// What the groups take of memory, roughly.
    package private(set) var bytes = 0

    package init(settings: GroupSettings, seed: UInt64) {
        self.settings = settings
        random = SeededRandom(seed: seed)
    }

    package var nextDeadline: Instant? {
        guard let until = foreignMembersUntil else { return deadlines.next }
        return deadlines.next.map { min($0, until) } ?? until
    }

    /// How many entries speak of deadlines: about as many as there are members.
    package var deadlineCount: Int { deadlines.count }

    package mutating func handle(_ event: GroupEvent, at moment: GroupMoment) -> [GroupAction] {
        self.moment = moment
        switch event {
        case .consumerHeartbeat(let event, let ticket): consumerHeartbeat(event, ticket)
        case .patternsFound(let findings): patternsFound(findings)
        case .join(let event, let ticket): join(event, ticket)
        case .sync(let event, let ticket): sync(event, ticket)
        case .heartbeat(let event, let ticket): heartbeat(event, ticket)
        case .leave(let event, let ticket): leave(event, ticket)
        case .commit(let event, let ticket): commit(event, ticket)
        case .endTransaction(let end, let ticket): endTransaction(end, ticket)
        case .deleteOffsets(let event, let ticket): deleteOffsets(event, ticket)
        case .deleteGroup(let id, let ticket): deleteGroup(id, ticket)
        case .topicsDeleted(let topics): topicsDeleted(topics)
        case .expireOffsets: expireOffsets()
        case .timePassed: timePassed()
        case .written(let number, let outcome): written(number, outcome)
        }
        defer { actions = [] }
        return actions
    }

    // MARK: What has to be done

    mutating func answer(_ ticket: GroupTicket, _ reply: GroupReply) { actions.append(.answer(ticket, reply)) }

    mutating func append(_ records: [GroupRecord], _ write: PendingWrite) {
        lastWrite += 1
        writes[lastWrite] = write
        actions.append(.append(lastWrite, records))
    }

    mutating func appendInTransaction(of producer: ProducerIdentity, _ records: [GroupRecord], _ write: PendingWrite) {
        lastWrite += 1
        writes[lastWrite] = write
        actions.append(.appendInTransaction(lastWrite, records, producer))
    }

    mutating func append(_ end: TransactionEnd, _ write: PendingWrite) {
        lastWrite += 1
        writes[lastWrite] = write
        actions.append(.endTransaction(lastWrite, end))
    }

    private mutating func timePassed() {
        if let until = foreignMembersUntil, until <= moment.now { foreignMembersAreGone() }
        while let due = deadlines.popDue(moment.now) {
            switch due {
            case let member as GroupMember: sessionMayHaveEnded(member)
            case let newcomer as Newcomer: newcomerIsLate(newcomer)
            case let group as ClassicGroup: phaseEnded(group)
            case let timer as ConsumerTimer: consumerIsLate(timer)
            default: preconditionFailure("members, newcomers and groups are due, and nothing else")
            }
        }
    }

    private mutating func phaseEnded(_ group: ClassicGroup) {
        let phase = group.phase
        group.phase = .none
        switch phase {
        case .none: break
        case .initialDelay(let left): initialDelayEnded(group, left: left)
        case .joining: completeJoin(group)
        case .syncing: syncTimeIsUp(group)
        }
    }

    mutating func begin(_ phase: ClassicGroup.Phase, of group: ClassicGroup, for span: Interval) {
        group.phase = phase
        deadlines.set(group, due: moment.now + span)
    }

    mutating func endPhase(of group: ClassicGroup) {
        group.phase = .none
        deadlines.set(group, due: nil)
    }

    // MARK: The registry

    /// Takes up what a group's change cost or freed.
    mutating func recount(_ group: Group) {
        let bytes = group.bytes
        self.bytes += bytes - group.countedBytes
        group.countedBytes = bytes
    }

    mutating func recount(_ id: String) { if let group = groups[id] { recount(group) } }

    mutating func add(_ group: Group) {
        groups[group.id] = group
        recount(group)
    }

    mutating func forget(_ group: Group) {
        groups[group.id] = nil
        bytes -= group.countedBytes
        group.countedBytes = 0
    }

    var sortedIDs: [String] { groups.keys.sorted() }
}

/// What is done when records are durable, or are known not to be.
enum PendingWrite {
    /// The offsets of a commit, and how each of its partitions is answered.
    case commit(group: Group, partitions: [(id: TopicPartition, committed: CommittedOffset)], codes: [ErrorCode], GroupTicket)
    /// The same in a transaction of this producer.
    case transactionalCommit(
        group: Group, ProducerIdentity, partitions: [(id: TopicPartition, committed: CommittedOffset)], codes: [ErrorCode],
        GroupTicket)
    /// The end of the transactions of a producer, in all groups.
    case transactionEnd(TransactionEnd, GroupTicket)
    /// Offsets that go; who asked for it, and what he is told.
    case removal(group: Group, partitions: [TopicPartition], (ticket: GroupTicket, codes: [ErrorCode])?)
    /// A group that goes. Where its tombstones are many, the last of them.
    case deletion(group: Group, GroupTicket?)
    /// The leader's assignments for a generation.
    case assignment(group: ClassicGroup, generation: Int32, assignments: [String: [UInt8]])
    /// A static member that came back without a rebalance, and what it is told.
    case replacement(group: ClassicGroup, member: GroupMember, JoinGroupReply)
    /// A change of a consumer group, what takes it back, and who is told what when it is durable. Where its records are
    /// many, a part of it.
    case consumer(group: Group, undo: ConsumerUndo, answers: [(GroupTicket, GroupReply)])
    /// Nobody waits for it.
    case note
}
