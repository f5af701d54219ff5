import MartletModel

/// What members of groups were told, and whether a coordinator may have told them that.
///
/// The promises: a generation has one assignment, and in it a partition one owner. Who has been replaced, by a later
/// generation or by another process with the same instance id, is taken nothing from any more. A commit that was
/// acknowledged is what is read, until another may have followed it; what was read was durable. Each judgement looks at
/// when a request was sent and when its answer came, for between the two it may have been carried out at any moment.
///
/// Kept beside the members by who drives them, and shares nothing with the coordinator.
final class GroupLedger {
    /// A place in the order of everything that was sent and told.
    typealias Moment = Int

    /// The life of a member id: from the request that was answered with it.
    struct Member {
        var id: String
        var instance: String?
        var asked: Moment
        var told: Moment

        /// Who owns what, where a static member that comes back is who it was.
        var owner: String { instance.map { "instance " + $0 } ?? "member " + id }
    }

    enum CommitOutcome { case accepted, refused, unknown }

    private struct Commit {
        var place: Int
        var sent: Moment
        /// When it was surely there: it was acknowledged, or somebody read it.
        var there: Moment?
        /// When it surely was there, or surely would not be any more.
        var decided: Moment?
        var isRefused = false
    }

    private struct Told {
        var moment: Moment
        var generation: Int32
        var member: Member
    }

    private struct Generation {
        var token: Int64
        var owners: [(partition: Int32, owner: String)]
    }

    private struct GroupHistory {
        /// Sync answers, as they were told.
        var told: [Told] = []
        var generations: [Int32: Generation] = [:]
    }

    private static let violationsLimit = 20

    private(set) var violations: [String] = []
    /// Of groups in which members of both protocols live.
    private(set) lazy var epochs = EpochLedger { [unowned self] in violated($0) }
    private var moments = 0
    private var groups: [String: GroupHistory] = [:]
    private var commits: [Commit] = []
    /// Indexes of commits, by place.
    private var places: [[Int]] = []
    private var placeNumbers: [String: Int] = [:]
    /// Everything that was told, in its order.
    private(set) var digest: UInt64 = 0
    private(set) var assignmentsCount = 0
    private(set) var acknowledgedCount = 0
    private(set) var readCount = 0
    private(set) var refusedCount = 0

    func violated(_ sentence: String) {
        if violations.count < Self.violationsLimit { violations.append(sentence) }
    }

    /// The next moment: for a request that is sent.
    func moment() -> Moment {
        moments += 1
        return moments
    }

    func fold(_ value: Int64) {
        digest = (digest ^ UInt64(bitPattern: value)) &* 0x9E37_79B9_7F4A_7C15
        digest ^= digest >> 29
    }

    func fold(_ text: String) { for byte in text.utf8 { fold(Int64(byte)) } }

    // MARK: Assignments

    /// A member was told its partitions. `token` names the leader's one assignment of which they are a part.
    func assigned(
        _ group: String, generation: Int32, to member: Member, partitions: [Int32], token: Int64, asked: Moment
    ) {
        let now = moment()
        fold(group)
        fold(member.id)
        fold(Int64(generation))
        fold(token)
        assignmentsCount += 1
        judge("was given partitions", group, generation, member, asked: asked)
        var history = groups[group] ?? GroupHistory()
        var known = history.generations[generation] ?? Generation(token: token, owners: [])
        if known.token != token {
            violated("generation \(generation) of \(group) has two assignments: \(known.token) and \(token)")
        }
        for partition in partitions {
            if let other = known.owners.first(where: { $0.partition == partition }), other.owner != member.owner {
                violated(
                    "partition \(partition) of \(group) belongs to \(other.owner) and to \(member.owner) in generation "
                        + "\(generation)")
            }
            known.owners.append((partition, member.owner))
        }
        history.generations[generation] = known
        history.told.append(Told(moment: now, generation: generation, member: member))
        groups[group] = history
    }

    /// A heartbeat was answered without an error.
    func heartbeatAccepted(_ group: String, generation: Int32, by member: Member, asked: Moment) {
        fold(Int64(generation))
        judge("may go on", group, generation, member, asked: asked)
    }

    /// Whether this may have been said to a member at a time when it asked.
    private func judge(_ what: String, _ group: String, _ generation: Int32, _ member: Member, asked: Moment) {
        guard let history = groups[group] else { return }
        for told in history.told where told.moment < asked {
            if told.generation > generation {
                return violated(
                    "\(member.id) \(what) in generation \(generation) of \(group), and asked when "
                        + "\(told.member.id) had been told of generation \(told.generation)")
            }
            if let instance = member.instance, told.member.instance == instance, told.member.id != member.id,
                told.member.asked > member.told
            {
                return violated(
                    "\(member.id) \(what) in generation \(generation) of \(group), and asked when \(told.member.id) had taken "
                        + "its place as \(instance)")
            }
        }
    }

    // MARK: Commits

    private func place(_ group: String, _ partition: Int32) -> Int {
        let name = "\(group)/\(partition)"
        if let known = placeNumbers[name] { return known }
        placeNumbers[name] = places.count
        places.append([])
        return places.count - 1
    }

    /// A commit is about to be sent; the offset that names it among all.
    func commit(_ group: String, _ partition: Int32) -> Offset {
        let place = place(group, partition)
        places[place].append(commits.count)
        commits.append(Commit(place: place, sent: moment()))
        return Offset(commits.count - 1)
    }

    func committed(_ offset: Offset, _ group: String, generation: Int32, by member: Member, _ outcome: CommitOutcome) {
        decided(offset, outcome)
        if outcome == .accepted { judge("committed", group, generation, member, asked: commits[Int(offset)].sent) }
    }

    /// Of a member of a consumer group: `epochs` judges whether it may.
    func committedByEpoch(_ offset: Offset, _ outcome: CommitOutcome) { decided(offset, outcome) }

    /// A member of a consumer group has these partitions, as it was told.
    func owned(_ group: String, epoch: Int32, by owner: String, _ partitions: [Int32]) {
        fold(group)
        fold(owner)
        fold(Int64(epoch))
        for partition in partitions { fold(Int64(partition)) }
        assignmentsCount += 1
        epochs.assigned(group, epoch: epoch, to: owner, partitions: partitions, at: moment())
    }

    private func decided(_ offset: Offset, _ outcome: CommitOutcome) {
        let index = Int(offset)
        let now = moment()
        fold(offset)
        switch outcome {
        case .accepted:
            fold(1)
            acknowledgedCount += 1
            commits[index].there = commits[index].there ?? now
            commits[index].decided = commits[index].decided ?? now
        case .refused:
            fold(2)
            refusedCount += 1
            commits[index].isRefused = true
            commits[index].decided = now
        case .unknown: fold(3)
        }
    }

    /// The broker's life has ended: what was on its way to it is there, or never will be.
    func lifeEnded() {
        let now = moment()
        for index in commits.indices where commits[index].decided == nil { commits[index].decided = now }
    }

    /// What is committed for a partition was read; nil for nothing.
    func read(_ offset: Offset?, _ group: String, _ partition: Int32, asked: Moment) {
        let now = moment()
        let place = place(group, partition)
        readCount += 1
        fold(offset ?? -1)
        // a commit that was there when the question was asked hides all that were decided before it was sent
        let hiding = places[place].filter { commits[$0].there.map { $0 < asked } ?? false }
            .max { commits[$0].sent < commits[$1].sent }
        guard let offset else {
            if let hiding { violated("nothing is committed for \(group)/\(partition), and \(hiding) had been") }
            return
        }
        let index = Int(offset)
        guard commits.indices.contains(index), commits[index].place == place else {
            return violated("\(group)/\(partition) has the offset \(offset), which nobody committed there")
        }
        if commits[index].isRefused { violated("\(group)/\(partition) has the offset \(offset), which was refused") }
        if let hiding, hiding != index, let decided = commits[index].decided, decided < commits[hiding].sent {
            violated("\(group)/\(partition) went back to the offset \(offset), and \(hiding) had followed it")
        }
        commits[index].there = commits[index].there ?? now
        commits[index].decided = commits[index].decided ?? now
    }

    // MARK: The end

    /// Faults have stopped, and time has gone by: what each member believes it has.
    func settled(_ group: String, partitions: Int32, _ believed: [(member: String, generation: Int32, partitions: [Int32])]) {
        if let reason = Self.unsettled(partitions: partitions, believed) { violated("\(group) does not settle: \(reason)") }
    }

    /// Why a group is not in order; nil if every partition has an owner, and all are of one generation.
    static func unsettled(
        partitions: Int32, _ believed: [(member: String, generation: Int32, partitions: [Int32])]
    ) -> String? {
        guard let first = believed.first else { return "nobody is in it" }
        if let other = believed.first(where: { $0.generation != first.generation }) {
            return "\(first.member) is in generation \(first.generation), \(other.member) in \(other.generation)"
        }
        let all = believed.flatMap(\.partitions).sorted()
        return all == Array(0..<partitions) ? nil : "partitions \(all) of \(partitions) have an owner"
    }
}
