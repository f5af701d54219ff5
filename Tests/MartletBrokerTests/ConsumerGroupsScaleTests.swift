import MartletBasics
import MartletBroker
import MartletModel
import Testing

/// What must stay cheap however many members there are.
@Suite struct ConsumerGroupsScaleTests {
    private func settled(_ count: Int) -> (GroupWorld, [TestMember]) {
        var world = GroupWorld { $0.consumer.assignmentIntervalMs = 1_000 }
        world.setTopics(["t": 100])
        let members = (0..<count).map { TestMember("member-\($0)") }
        // all in one turn: what they ask is decided before any of it is durable
        world.syncsAtOnce = false
        let tickets = members.map { member in world.ask { .consumerHeartbeat(member.event(), $0) } }
        world.sync()
        world.syncsAtOnce = true
        for (member, ticket) in zip(members, tickets) { world.replies[ticket].map(member.take) }
        for _ in 0..<4 {
            world.pass(1_100)
            for member in members { world.beat(member) }
        }
        return (world, members)
    }

    @Test("a group of two thousand settles, and an idle heartbeat costs in it what it costs in one of twenty")
    func heartbeats() {
        func cost(_ count: Int) -> Duration {
            var (world, members) = settled(count)
            #expect(world.stateName() == "Stable" && members.reduce(0) { $0 + $1.count } == 100)
            #expect(Set(members.map(\.epoch)).count == 1)
            let written = world.log.count
            let spent = ContinuousClock().measure {
                for index in 0..<2_000 { world.beat(members[index % count]) }
            }
            #expect(world.log.count == written, "who has nothing to say has nothing written")
            return spent
        }
        let (few, many) = (cost(20), cost(2_000))
        #expect(many < few * 8 + .milliseconds(200), "\(few) among twenty, \(many) among two thousand")
    }
}
