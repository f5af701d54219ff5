import MartletBasics
import MartletChecker
import MartletReactor
import MartletSimulation
import MartletSwarm

/// Groups whose members come and go, over several lives of a broker; then nothing fails any more, every group must settle, and
/// what is committed is read from the broker and, once more, from the one after it.
final class GroupWorld {
    /// How often it is looked whether the groups have settled.
    private static let look = Interval.milliseconds(100)

    private let broker: BrokerLives
    private let members: GroupMembers
    /// Of the groups in which members of both protocols live.
    private let modern: ModernMembers
    private var groups: [(group: GroupMembers.Group, isMixed: Bool)] = []

    private init(seed: UInt64) throws {
        broker = try BrokerLives(seed: seed, diskFailsOneIn: 5) { random in
            [
                ("offsets.topic.segment.bytes", "\(2048 << random.below(8))"), ("group.min.session.timeout.ms", "100"),
                ("group.consumer.min.session.timeout.ms", "100"),
                ("group.consumer.session.timeout.ms", "\(200 + random.below(200))"),
                ("group.consumer.min.heartbeat.interval.ms", "10"), ("group.consumer.heartbeat.interval.ms", "50"),
                ("group.consumer.assignment.interval.ms", random.chance(1, in: 2) ? "0" : "40"),
                ("group.initial.rebalance.delay.ms", random.chance(1, in: 2) ? "0" : "60"),
            ]
        }
        members = GroupMembers(broker.stage)
        modern = ModernMembers(members)
        for index in 0..<1 + broker.random.below(2) {
            let group = GroupMembers.Group(
                name: "group-\(index)", topic: "topic-\(index)", partitions: Int32(1 + broker.random.below(5)),
                sessionMs: Int32(200 + broker.random.below(200)), rebalanceMs: Int32(200 + broker.random.below(400)))
            groups.append((group, broker.random.chance(1, in: 2)))
        }
    }

    /// The whole story of a seed, what was wrong with it, and whether it tried anything.
    static func tell(seed: UInt64) throws -> (story: BrokerLives.Story, verdicts: [Verdict], triedSomething: Bool) {
        let world = try GroupWorld(seed: seed)
        defer { world.broker.simulated.end() }
        world.run()
        let record = world.broker.stage.record
        for sentence in world.members.ledger.violations { record.broken(sentence) }
        let wasRead = record.events.contains { if case .committed = $0.kind { true } else { false } }
        let assignments = world.members.ledger.assignmentsCount + world.modern.assignmentsCount
        return (world.broker.story, Checks.judge(record.events), wasRead && assignments > 0)
    }

    private func run() {
        guard broker.start(), broker.make(groups.map { ($0.group.topic, $0.group.partitions) }) else { return }
        for (group, isMixed) in groups { startMembers(of: group, isMixed) }
        guard broker.passLives(), broker.comeToRest() else { return }
        settleAndRead()
        guard broker.endOnceMore(oneIn: 2, thenLook: settleAndRead), broker.sendClientsHome() else { return }
        broker.stop()
    }

    private func startMembers(of group: GroupMembers.Group, _ isMixed: Bool) {
        for index in 0..<1 + broker.random.below(4) {
            let versions = GroupVersions.all[broker.random.below(GroupVersions.all.count)]
            let instance = broker.random.chance(1, in: 3) ? "\(group.name)-instance-\(index)" : nil
            let host = broker.someClient()
            if isMixed {
                modern.start(group, on: host, instance: instance, isClassic: broker.random.chance(1, in: 3))
            } else {
                members.start(group, on: host, instance: instance, versions: instance == nil ? versions : .newest)
            }
        }
    }

    private func settleAndRead() {
        for (group, isMixed) in groups {
            members.settle(group, look: Self.look) { isMixed ? modern.believed(group) : members.believed(group) }
        }
        broker.look { [groups, members] client async throws(ClientFault) in
            for (group, _) in groups { try await members.readAll(of: group, by: client) }
        }
    }
}
