import MartletBasics
import MartletBroker
import MartletModel
import Testing

/// Groups on their way from one protocol to the other, with members of both.
@Suite struct ConsumerMigrationTests {
    private func world(_ change: (inout GroupSettings) -> Void = { _ in }) -> GroupWorld {
        var world = GroupWorld {
            GroupWorld.stepwise(&$0)
            change(&$0)
        }
        world.setTopics(["t": 4])
        return world
    }

    /// What a classic member says of itself: the topic, and what it has.
    private func said(_ owned: [Int32]) -> [UInt8] {
        var said = ConsumerProtocolSubscription()
        said.topics = ["t"]
        if !owned.isEmpty {
            var topic = ConsumerProtocolSubscription.TopicPartition()
            (topic.topic, topic.partitions) = ("t", owned)
            said.ownedPartitions = [topic]
        }
        return (try? said.prefixedBytes(version: 3)) ?? []
    }

    private func assignment(_ partitions: [Int32], userData: [UInt8]? = nil) -> [UInt8] {
        var assignment = ConsumerProtocolAssignment()
        var topic = ConsumerProtocolAssignment.TopicPartition()
        (topic.topic, topic.partitions) = ("t", partitions)
        (assignment.assignedPartitions, assignment.userData) = ([topic], userData)
        return (try? assignment.prefixedBytes(version: 3)) ?? []
    }

    private func partitions(_ ticket: UInt64, _ world: GroupWorld) -> [Int32]? {
        guard case .synced(let reply)? = world.replies[ticket], reply.error == .none,
            let assignment = try? ConsumerProtocolAssignment(prefixed: reply.assignment)
        else { return nil }
        return assignment.assignedPartitions.first?.partitions ?? []
    }

    private final class Classic {
        var id = ""
        var generation: Int32 = -1
        var owned: [Int32] = []
        var instance: String?
        var needsJoin = true
        var assignor = "range"
    }

    private func join(_ member: Classic, _ world: inout GroupWorld) -> UInt64 {
        if member.id.isEmpty, member.instance == nil {
            member.id = world.joined(world.join(protocols: [member.assignor]) { $0.protocols[0].metadata = said([]) }).memberID
        }
        let ticket = world.join(id: member.id, instance: member.instance, protocols: [member.assignor]) {
            $0.protocols[0].metadata = said(member.owned)
        }
        take(member, ticket, world)
        return ticket
    }

    private func take(_ member: Classic, _ ticket: UInt64, _ world: GroupWorld) {
        let joined = world.joined(ticket)
        if joined.error == .none { (member.id, member.generation) = (joined.memberID, joined.generation) }
    }

    private func sync(_ member: Classic, _ world: inout GroupWorld, _ assignments: [(String, [UInt8])] = []) -> UInt64 {
        var event = SyncGroupEvent(group: "g", memberID: member.id, generation: member.generation)
        event.instanceID = member.instance
        event.assignments = assignments.map { ($0.0, $0.1) }
        let ticket = world.ask { .sync(event, $0) }
        if let found = partitions(ticket, world) { member.owned = found }
        return ticket
    }

    /// One round of a classic member in a consumer group: heartbeat, and join and sync where it is told so.
    private func round(_ member: Classic, _ world: inout GroupWorld) {
        if !member.needsJoin {
            let error = world.heartbeat(id: member.id, generation: member.generation, instance: member.instance)
            guard error != .none else { return }
        }
        member.needsJoin = false
        _ = join(member, &world)
        if world.syncError(sync(member, &world)) != ErrorCode.none { member.needsJoin = true }
    }

    /// A classic group of one that has everything.
    private func alone(_ world: inout GroupWorld, userData: [UInt8]? = nil, assignor: String = "range") -> Classic {
        let member = Classic()
        member.assignor = assignor
        _ = join(member, &world)
        _ = sync(member, &world, [(member.id, assignment([0, 1, 2, 3], userData: userData))])
        #expect(member.owned == [0, 1, 2, 3] && world.state() == .stable)
        member.needsJoin = false
        return member
    }

    @Test("a group goes from the classic protocol to the new one while it lives, and no partition has two owners")
    func upgrade() {
        var world = world()
        let old = alone(&world)
        #expect(world.error(world.commit(id: old.id, generation: old.generation, [("t", 0, 5)])) == .none)
        let new = TestMember("new")
        world.beat(new)
        #expect(new.error == .none && new.count == 0 && world.machine.describe("g") == nil)
        #expect(world.heartbeat(id: old.id, generation: old.generation) == .rebalanceInProgress)
        for _ in 0..<6 {
            round(old, &world)
            world.beat(new)
            #expect(Set(old.owned).isDisjoint(with: new.owned[topicID("t")] ?? []))
        }
        #expect(old.owned.count == 2 && new.count == 2 && world.stateName() == "Stable")
        #expect(world.committed() == 5)
        #expect(world.error(world.commit(id: old.id, generation: old.generation, [("t", 0, 6)])) == .none)
        #expect(world.error(world.commit(id: old.id, generation: old.generation - 1, [("t", 0, 6)])) == .illegalGeneration)
        world.readAnew()
        world.beat(new)
        round(old, &world)
        #expect(new.error == .none && world.stateName() == "Stable" && world.committed() == 6)
    }

    @Test("when the last member of the new protocol is gone the group is classic again, and its members begin a generation")
    func downgrade() {
        var world = world()
        let old = Classic(), new = TestMember("new")
        world.beat(new)
        for _ in 0..<6 {
            round(old, &world)
            world.beat(new)
        }
        #expect(old.owned.count == 2 && new.count == 2)
        world.leave(new)
        #expect(world.state() == .preparingRebalance)
        #expect(world.heartbeat(id: old.id, generation: old.generation) == .rebalanceInProgress)
        world.readAnew()
        // what its members had until then is not all there is: nobody goes on with it
        #expect(world.state() == .empty && world.heartbeat(id: old.id, generation: old.generation) == .unknownMemberID)
        (old.id, old.owned) = ("", [])
        let ticket = join(old, &world)
        #expect(world.joined(ticket).leader == old.id && world.joined(ticket).members.count == 1)
        _ = sync(old, &world, [(old.id, assignment([0, 1, 2, 3]))])
        #expect(old.owned.count == 4 && world.state() == .stable)
        #expect(world.machine.describeConsumer("g") == nil)
    }

    @Test("the silent death of the last member of the new protocol downgrades, too")
    func downgradeByTimeout() {
        var world = world()
        let old = Classic(), new = TestMember("new")
        world.beat(new)
        for _ in 0..<6 {
            round(old, &world)
            world.beat(new)
        }
        for _ in 0..<12 {
            world.pass(4_000)
            if world.machine.describe("g") == nil { round(old, &world) }
        }
        #expect(world.machine.describe("g") != nil)
    }

    @Test("a policy that forbids a direction is kept to", arguments: [(true, false), (false, true), (false, false)])
    func policies(_ upgrade: Bool, _ downgrade: Bool) {
        var world = world { ($0.consumer.allowsUpgrade, $0.consumer.allowsDowngrade) = (upgrade, downgrade) }
        let old = alone(&world)
        let new = TestMember("new")
        world.beat(new)
        #expect(new.error == (upgrade ? .none : .groupIDNotFound))
        #expect((world.machine.describe("g") == nil) == upgrade)
        var other = self.world { ($0.consumer.allowsUpgrade, $0.consumer.allowsDowngrade) = (upgrade, downgrade) }
        let modern = TestMember("new"), classic = Classic()
        other.beat(modern)
        round(classic, &other)
        other.leave(modern)
        #expect((other.machine.describe("g") != nil) == downgrade)
        _ = old
    }

    @Test("a group whose members assign in a way of their own is not taken over: that would be lost")
    func customAssignors() {
        for (assignor, error) in [("mine", ErrorCode.groupIDNotFound), ("cooperative-sticky", .none)] {
            var world = world()
            _ = alone(&world, userData: [1, 2, 3], assignor: assignor)
            let new = TestMember("new")
            world.beat(new)
            #expect(new.error == error, "\(assignor)")
            #expect((world.state() == .stable) == (error != .none))
        }
    }

    @Test("who does not join again, or does not sync, in its time is out of a consumer group, too")
    func classicMembersAreLate() {
        var world = world()
        let old = Classic(), new = TestMember("new")
        world.beat(new)
        round(old, &world)
        #expect(world.consumer()?.members.count == 2)
        // it is told to join, and only goes on with its heartbeats
        for _ in 0..<8 {
            world.pass(5_000)
            world.beat(new)
            _ = world.heartbeat(id: old.id, generation: old.generation)
        }
        #expect(world.consumer()?.members.count == 1)
        let late = Classic()
        _ = join(late, &world)
        for _ in 0..<8 {
            world.pass(5_000)
            world.beat(new)
            _ = world.heartbeat(id: late.id, generation: late.generation)
        }
        #expect(world.consumer()?.members.count == 1, "it never asked for its assignment")
    }

    @Test("a static member that comes back with the other protocol has the place that it had, both ways")
    func staticMembersChangeProtocol() {
        var world = world()
        let old = Classic(), keeper = TestMember("keeper")
        old.instance = "i"
        world.beat(keeper)
        for _ in 0..<6 {
            round(old, &world)
            world.beat(keeper)
        }
        let mine = old.owned
        #expect(mine.count == 2)
        let new = TestMember("new")
        new.instance = "i"
        world.beat(new)
        #expect(new.error == .unreleasedInstanceID)
        #expect(world.leave("g", .init(id: old.id, instanceID: "i")) == [.none])
        world.settle([new, keeper])
        #expect(new.count == 2 && keeper.count == 2)
        // and back: the keeper leaves, the last of the new protocol is replaced, and the group is classic
        world.leave(keeper)
        world.settle([new])
        let again = Classic()
        again.instance = "i"
        let ticket = join(again, &world)
        #expect(world.joined(ticket).error == .none && world.state() == .completingRebalance)
        #expect(world.joined(ticket).leader == again.id)
    }

    @Test("an empty group takes the type of whoever comes, and keeps what was committed")
    func emptyGroups() {
        var world = world()
        #expect(world.error(world.commit([("t", 0, 33)])) == .none)
        let new = TestMember("new")
        world.beat(new)
        #expect(world.consumer() != nil && world.committed() == 33)
        #expect(world.error(world.commit([("t", 0, 34)])) == .unknownMemberID, "there are members now")
        world.leave(new)
        #expect(world.error(world.commit([("t", 0, 35)])) == .none)
        let old = Classic()
        _ = join(old, &world)
        #expect(world.state() == .completingRebalance && world.committed() == 35)
        world.readAnew()
        #expect(world.consumer() == nil && world.committed() == 35, "the tombstones of the other type are there")
        let again = TestMember("again")
        world.beat(again)
        #expect(again.epoch > new.epoch && world.consumer()!.epoch >= old.generation, "epochs never come back")
    }

    @Test("what cannot be written leaves the group of the type that it was, in both directions")
    func conversionsThatFail() {
        var world = world()
        let old = alone(&world)
        world.syncsAtOnce = false
        let ticket = world.ask { .consumerHeartbeat(TestMember("new").event(), $0) }
        #expect(world.machine.describe("g") == nil)
        world.sync(failing: .notEnoughReplicas)
        #expect(world.error(ticket) == .coordinatorNotAvailable && world.state() == .stable)
        world.syncsAtOnce = true
        #expect(world.heartbeat(id: old.id, generation: old.generation) == .none)
        let new = TestMember("new")
        world.beat(new)
        round(old, &world)
        world.beat(new)
        world.syncsAtOnce = false
        var leaving = new.event()
        leaving.epoch = -1
        let left = world.ask { .consumerHeartbeat(leaving, $0) }
        #expect(world.machine.describe("g") != nil)
        world.sync(failing: .notEnoughReplicas)
        #expect(world.error(left) == .coordinatorNotAvailable && world.consumer()?.members.count == 2)
    }

    @Test("classic requests with the id of a member of the new protocol are of nobody, but for leaving")
    func classicRequestsOfConsumerMembers() {
        var world = world()
        let (a, b) = (TestMember("a"), TestMember("b"))
        world.settle([a, b])
        #expect(world.heartbeat(id: "a", generation: a.epoch) == .unknownMemberID)
        #expect(world.syncError(world.sync(id: "a", generation: a.epoch)) == .unknownMemberID)
        #expect(world.joined(world.join(type: "connect")).error == .inconsistentGroupProtocol)
        #expect(world.leave("g", .init(id: "a"), .init(id: "nobody")) == [.none, .unknownMemberID])
        world.beat(a)
        #expect(a.error == .unknownMemberID)
    }
}
