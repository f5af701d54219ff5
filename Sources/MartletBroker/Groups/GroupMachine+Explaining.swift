import MartletBasics
package import MartletModel

/// What a group waits for, as its coordinator knows it.
package struct GroupExplanation: Sendable {
    package var reasons: [Reason] = []
    /// What it has committed, by partition.
    package var offsets: [(partition: TopicPartition, committed: CommittedOffset)] = []
    /// What of it belongs to transactions that are open.
    package var openOffsets: [(partition: TopicPartition, producer: ProducerID)] = []
    /// The client ids of its members, each once, sorted.
    package var clients: [String] = []
}

extension GroupMachine {
    /// Nil where there is no such group.
    package func explain(_ id: String, at moment: GroupMoment) -> GroupExplanation? {
        guard let group = groups[id] else { return nil }
        var explanation = GroupExplanation()
        explanation.offsets = group.offsets.sorted.map { ($0.id, $0.committed) }
        switch group.kind {
        case .classic(let classic):
            explanation.reasons = reasons(of: classic, moment)
            explanation.clients = Set(classic.members.map(\.clientID)).sorted()
        case .consumer(let consumer):
            explanation.reasons = reasons(of: consumer, id)
            explanation.clients = Set(consumer.members.values.map(\.clientID)).sorted()
        case .foreign(let foreign):
            explanation.reasons = [
                Reason(
                    "type-not-served", id,
                    "Its members are of the type \(foreign.type.rawValue), which this broker does not coordinate.")
            ]
        }
        explanation.openOffsets = group.offsets.openByProducer.map { ($0.id, $0.producer) }
        return explanation
    }

    private func reasons(of group: ClassicGroup, _ moment: GroupMoment) -> [Reason] {
        switch group.state {
        case .preparingRebalance: preparing(group, moment)
        case .completingRebalance: completing(group, moment)
        case .stable: group.members.compactMap { silence(of: $0, group, moment) }
        case .empty: [Reason("no-members", group.id, "It has no members: nobody reads.", since: group.stateTimestamp)]
        case .dead: []
        }
    }

    private func reasons(of group: ConsumerGroup, _ id: String) -> [Reason] {
        if group.members.isEmpty { return [Reason("no-members", id, "It has no members: nobody reads.")] }
        return group.memberIDs.compactMap { reason(for: group.members[$0]!, group) }
    }

    private func reason(for member: ConsumerMember, _ group: ConsumerGroup) -> Reason? {
        let title = Self.title(id: member.id, client: member.clientID, host: member.clientHost, instance: member.instanceID)
        if member.isAway {
            return Reason(
                "instance-away", member.id,
                "\(title) has left for a while: its partitions are kept for its instance until its session ends.")
        }
        switch member.state {
        case .unrevoked:
            return Reason(
                "member-not-revoked", member.id,
                "\(title) has yet to give up \(member.pendingRevocation.count) partitions that others are to get: it has "
                    + "\(Spoken.span(.milliseconds(Int64(max(member.rebalanceTimeoutMs, 0))))) for it, and is then removed.")
        case .unreleased:
            return Reason(
                "partitions-not-released", member.id,
                "\(title) waits for partitions that other members have not given up yet.")
        case .stable, .unknown:
            guard member.epoch < group.targetEpoch else { return nil }
            return Reason(
                "member-behind", member.id,
                "\(title) has not asked for its part of epoch \(group.targetEpoch): it is at epoch \(member.epoch).")
        }
    }

    private func preparing(_ group: ClassicGroup, _ moment: GroupMoment) -> [Reason] {
        let left = group.due.map { max($0 - moment.now, .zero) }
        if case .initialDelay = group.phase {
            let text = "It waits for more members before its first generation, for \(left.map(Spoken.span) ?? "a moment") "
                + "(group.initial.rebalance.delay.ms)."
            return [Reason("first-rebalance", group.id, text, since: group.stateTimestamp, left: left)]
        }
        let rebalance = "the rebalance that is under way" + Spoken.since(group.stateTimestamp, now: moment.wallMilliseconds)
        let patience = left.map { "the others wait for it for \(Spoken.span($0)) more at most, and then go on without it" }
            ?? "the others wait for it"
        let missing = group.members.filter { $0.awaitingJoin == nil }.map { member in
            Reason(
                "member-not-joined", member.id, "\(Self.title(member)) has not joined \(rebalance): \(patience).",
                since: group.stateTimestamp, left: left)
        }
        let newcomers = group.newcomerIDs.map { id in
            Reason(
                "newcomer-not-joined", id,
                "A member was given the id \(id) and has not joined with it \(rebalance): \(patience).",
                since: group.stateTimestamp, left: left)
        }
        return missing + newcomers
    }

    private func completing(_ group: ClassicGroup, _ moment: GroupMoment) -> [Reason] {
        let left = group.due.map { max($0 - moment.now, .zero) }
        let since = Spoken.since(group.stateTimestamp, now: moment.wallMilliseconds)
        let patience = left.map { "; the others wait for \(Spoken.span($0)) more at most, and then it is removed" } ?? ""
        let missing = group.members.filter(\.isPendingSync)
        if let leader = missing.first(where: { $0.id == group.leaderID }) {
            return [
                Reason(
                    "leader-not-synced", leader.id,
                    "\(Self.title(leader)) leads generation \(group.generation) and has not said who reads what\(since)"
                        + "\(patience).",
                    since: group.stateTimestamp, left: left)
            ]
        }
        guard !missing.isEmpty else {
            return [
                Reason(
                    "assignment-not-durable", group.id,
                    "The assignments of generation \(group.generation) are being written\(since).",
                    since: group.stateTimestamp)
            ]
        }
        return missing.map { member in
            Reason(
                "member-not-synced", member.id,
                "\(Self.title(member)) has joined generation \(group.generation) and not asked what it reads\(since)"
                    + "\(patience).",
                since: group.stateTimestamp, left: left)
        }
    }

    /// Nil for one that was heard of within half of its session.
    private func silence(of member: GroupMember, _ group: ClassicGroup, _ moment: GroupMoment) -> Reason? {
        guard let due = member.due else { return nil }
        let left = max(due - moment.now, .zero)
        let silence = member.sessionTimeout - left
        guard silence.nanoseconds > member.sessionTimeout.nanoseconds / 2 else { return nil }
        return Reason(
            "member-silent", member.id,
            "\(Self.title(member)) was not heard of for \(Spoken.span(silence)): after \(Spoken.span(left)) more its "
                + "session ends, and others get its partitions.",
            since: moment.wallMilliseconds - silence.milliseconds, left: left)
    }

    private static func title(_ member: GroupMember) -> String {
        title(id: member.id, client: member.clientID, host: member.clientHost, instance: member.instanceID)
    }

    private static func title(id: String, client: String, host: String, instance: String?) -> String {
        let instance = instance.map { ", instance \(Spoken.name($0))" } ?? ""
        return "Member \(Spoken.name(id)) (client \(Spoken.name(client)) at \(host)\(instance))"
    }
}
