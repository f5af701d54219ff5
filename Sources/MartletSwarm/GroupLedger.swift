import MartletModel

/// What members of groups were told, and whether a coordinator may have told them that.
///
/// The promises: a generation has one assignment, and in it a partition one owner. Who has been replaced, by a later
/// generation or by another process with the same instance id, is taken nothing from any more. A commit that was
/// acknowledged is what is read, until another may have followed it; what was read was durable. Each judgement looks at
/// when a request was sent and when its answer came, for between the two it may have been carried out at any moment.
///
/// Kept beside the members by who drives them, and shares nothing with the coordinator.
package final class GroupLedger {
    package init() {}

    /// A place in the order of everything that was sent and told.
    package typealias Moment = Int

    /// The life of a member id: from the request that was answered with it.
    package struct Member {
        package var id: String
        package var instance: String?
        package var asked: Moment
        package var told: Moment

        package init(id: String, instance: String?, asked: Moment, told: Moment) {
            self.id = id
            self.instance = instance
            self.asked = asked
            self.told = told
        }

        /// Who owns what, where a static member that comes back is who it was.
        var owner: String { instance.map { "instance " + $0 } ?? "member " + id }
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

    package private(set) var violations: [String] = []
    private var moments = 0
    private var groups: [String: GroupHistory] = [:]
    package private(set) var assignmentsCount = 0

    package func violated(_ sentence: String) {
        if violations.count < Self.violationsLimit { violations.append(sentence) }
    }

    /// The next moment: for a request that is sent.
    package func moment() -> Moment {
        moments += 1
        return moments
    }

    // MARK: Assignments

    /// A member was told its partitions. `token` names the leader's one assignment of which they are a part.
    package func assigned(
        _ group: String, generation: Int32, to member: Member, partitions: [Int32], token: Int64, asked: Moment
    ) {
        let now = moment()
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
    package func heartbeatAccepted(_ group: String, generation: Int32, by member: Member, asked: Moment) {
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

    /// A commit was answered without an error.
    package func commitAccepted(_ group: String, generation: Int32, by member: Member, asked: Moment) {
        judge("committed", group, generation, member, asked: asked)
    }

    // MARK: The end

    /// What a member believes to have.
    package typealias Belief = (member: String, generation: Int32, partitions: [Int32])

    /// Why a group is not in order; nil if every partition has an owner, and all are of one generation.
    package static func unsettled(partitions: Int32, _ believed: [Belief]) -> String? {
        guard let first = believed.first else { return "nobody is in it" }
        if let other = believed.first(where: { $0.generation != first.generation }) {
            return "\(first.member) is in generation \(first.generation), \(other.member) in \(other.generation)"
        }
        let all = believed.flatMap(\.partitions).sorted()
        return all == Array(0..<partitions) ? nil : "partitions \(all) of \(partitions) have an owner"
    }
}
