import MartletBasics
import MartletBroker
import MartletModel
import Testing

@Suite struct GroupsMembersTests {
    @Test("two members share, and the follower's sync waits for the leader's")
    func twoMembersShare() {
        var world = GroupWorld()
        let a = world.enter()
        let first = world.join(id: a)
        #expect(world.joined(first).generation == 1 && world.joined(first).leader == a)
        #expect(world.synced(world.sync(id: a, generation: 1, [a: "all"])) == "all")
        let b = world.enter()
        let joinB = world.join(id: b)
        #expect(world.isWaiting(joinB))
        #expect(world.heartbeat(id: a, generation: 1) == .rebalanceInProgress)
        let joinA = world.join(id: a)
        #expect(world.joined(joinA).generation == 2 && world.joined(joinA).members.map(\.id) == [a, b])
        #expect(world.joined(joinB).members.isEmpty, "who does not lead needs no list")
        let syncB = world.sync(id: b, generation: 2)
        #expect(world.isWaiting(syncB))
        #expect(world.synced(world.sync(id: a, generation: 2, [a: "left", b: "right"])) == "left")
        #expect(world.synced(syncB) == "right")
        #expect(world.state() == .stable)
    }

    @Test("an assignment that is not durable is nobody's")
    func assignmentsWaitForTheLog() {
        var world = GroupWorld()
        let a = world.enter()
        _ = world.join(id: a)
        world.syncsAtOnce = false
        let sync = world.sync(id: a, generation: 1, [a: "all"])
        #expect(world.isWaiting(sync) && world.state() == .completingRebalance)
        world.sync()
        #expect(world.synced(sync) == "all" && world.state() == .stable)
    }

    @Test("a leader that sends its assignments twice has them written once, and both requests answered")
    func assignmentsSentTwice() {
        var world = GroupWorld()
        let a = world.enter()
        _ = world.join(id: a)
        world.syncsAtOnce = false
        let first = world.sync(id: a, generation: 1, [a: "all"])
        let second = world.sync(id: a, generation: 1, [a: "other"])
        #expect(world.underWay.count == 1)
        #expect(world.syncError(first) == .rebalanceInProgress)
        world.sync()
        #expect(world.synced(second) == "all")
    }

    @Test("where the log refuses the assignments all are told, and join again")
    func assignmentsThatFail() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 2)
        _ = world.join(id: ids[0])
        _ = world.join(id: ids[1])
        world.syncsAtOnce = false
        let leader = world.sync(id: ids[0], generation: generation + 1, [:])
        let follower = world.sync(id: ids[1], generation: generation + 1)
        world.sync(failing: .notEnoughReplicas)
        #expect(world.syncError(leader) == .coordinatorNotAvailable && world.syncError(follower) == .coordinatorNotAvailable)
        #expect(world.state() == .preparingRebalance)
    }

    @Test("assignments of a generation that is over when they are durable change nothing")
    func assignmentsOfAnEarlierGeneration() {
        var world = GroupWorld()
        let a = world.enter()
        _ = world.join(id: a)
        world.syncsAtOnce = false
        let sync = world.sync(id: a, generation: 1, [a: "old"])
        let b = world.enter()
        let joinB = world.join(id: b)
        #expect(world.syncError(sync) == .rebalanceInProgress, "who waits for a sync is sent back to join")
        world.sync()
        #expect(world.state() == .preparingRebalance)
        let joinA = world.join(id: a)
        #expect(world.joined(joinA).generation == 2 && world.joined(joinB).generation == 2)
    }

    @Test("members that come within the first delay share from the first generation on")
    func theFirstRebalanceIsDelayed() {
        var world = GroupWorld { $0.initialDelay = .milliseconds(3_000) }
        let a = world.enter(), first = world.join(id: a)
        world.pass(2_000)
        let b = world.enter(), second = world.join(id: b)
        #expect(world.isWaiting(first) && world.isWaiting(second), "all are there, and still others may come")
        world.pass(1_500)
        #expect(world.isWaiting(first), "somebody came: the delay began again")
        world.pass(3_000)
        #expect(world.joined(first).generation == 1 && world.joined(second).generation == 1)
        #expect(world.joined(first).members.count == 2)
    }

    @Test("however many come, the first delay ends with the rebalance timeout")
    func theFirstDelayEnds() {
        var world = GroupWorld { $0.initialDelay = .milliseconds(3_000) }
        let first = world.join(id: world.enter(), rebalance: 10_000)
        for _ in 0..<20 where world.isWaiting(first) {
            world.pass(1_000)
            _ = world.join(id: world.enter(), rebalance: 10_000)
        }
        #expect(!world.isWaiting(first) && world.now <= 10_000)
    }

    @Test("a member whose connection was lost as it joined does not hold up the group for ever")
    func aNewMemberThatWasLost() {
        var world = GroupWorld()
        let (ids, _) = world.settle(count: 1, session: 1_000_000)
        _ = world.join { $0.requiresKnownMember = false; $0.rebalanceTimeoutMs = 3_600_000 }
        #expect(world.state() == .preparingRebalance)
        world.pass(301_000)
        let again = world.join(id: ids[0])
        #expect(world.joined(again).members.map(\.id) == ids)
    }

    @Test("a member that is silent for its session is gone, and the others share what it had")
    func sessionsEnd() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 2)
        for _ in 0..<3 {
            world.pass(4_000)
            if world.heartbeat(id: ids[0], generation: generation) == .rebalanceInProgress { break }
        }
        #expect(world.heartbeat(id: ids[0], generation: generation) == .rebalanceInProgress)
        let again = world.join(id: ids[0])
        #expect(world.joined(again).members.map(\.id) == [ids[0]])
        #expect(world.heartbeat(id: ids[1], generation: generation) == .unknownMemberID)
    }

    @Test("a commit keeps a session alive as a heartbeat does")
    func commitsKeepSessionsAlive() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 1)
        for offset in 1...5 {
            world.pass(8_000)
            #expect(world.error(world.commit(id: ids[0], generation: generation, [("t", 0, Int64(offset))])) == .none)
        }
        #expect(world.heartbeat(id: ids[0], generation: generation) == .none)
    }

    @Test("who waits for the others to join is not thrown out for his silence")
    func waitingIsNoSilence() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 2, rebalance: 60_000)
        let waiting = world.join(id: ids[0], rebalance: 60_000)
        for _ in 0..<5 {
            world.pass(8_000)
            #expect(world.heartbeat(id: ids[1], generation: generation) == .rebalanceInProgress)
        }
        #expect(world.isWaiting(waiting))
        let last = world.join(id: ids[1], rebalance: 60_000)
        #expect(world.joined(waiting).members.count == 2 && world.joined(last).generation == generation + 1)
    }

    @Test("who does not join again within the rebalance timeout is left behind, heartbeats or not")
    func theRebalanceTimeout() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 2, session: 100_000, rebalance: 5_000)
        let leader = world.join(id: ids[0], session: 100_000, rebalance: 5_000)
        world.pass(4_000)
        #expect(world.heartbeat(id: ids[1], generation: generation) == .rebalanceInProgress)
        world.pass(1_500)
        #expect(world.joined(leader).members.map(\.id) == [ids[0]])
        #expect(world.heartbeat(id: ids[1], generation: generation) == .unknownMemberID)
    }

    @Test("a leader that has joined and does not come with assignments is out, and another leads")
    func aLeaderThatDoesNotSync() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 2, session: 100_000, rebalance: 5_000)
        _ = world.join(id: ids[0], session: 100_000, rebalance: 5_000)
        _ = world.join(id: ids[1], session: 100_000, rebalance: 5_000)
        let follower = world.sync(id: ids[1], generation: generation + 1)
        world.pass(6_000)
        #expect(world.syncError(follower) == .rebalanceInProgress)
        let next = world.join(id: ids[1])
        #expect(world.joined(next).leader == ids[1])
    }

    @Test("the last member to leave takes nothing with it: the group is empty, and its generations go on")
    func generationsGoOn() {
        var world = GroupWorld()
        let (ids, _) = world.settle(count: 1)
        #expect(world.leave("g", .init(id: ids[0])) == [.none])
        #expect(world.state() == .empty)
        world.readAnew()
        #expect(world.state() == .empty)
        let b = world.enter()
        #expect(world.joined(world.join(id: b)).generation == 3)
    }

    @Test("an id that was given and never used is forgotten, and disturbs nobody")
    func newcomersThatDoNotCome() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 1, session: 60_000)
        let newcomer = world.enter(session: 6_000)
        #expect(world.leave("g", .init(id: newcomer)) == [.none])
        let other = world.enter(session: 6_000)
        world.pass(7_000)
        #expect(world.joined(world.join(id: other)).error == .unknownMemberID)
        #expect(world.heartbeat(id: ids[0], generation: generation) == .none)
    }

    @Test("a full group refuses the next, and its members notice nothing")
    func fullGroups() {
        var world = GroupWorld { $0.sizeLimit = 2 }
        let (ids, generation) = world.settle(count: 2)
        #expect(world.joined(world.join()).error == .groupMaxSizeReached)
        #expect(world.joined(world.join(instance: "i")).error == .groupMaxSizeReached)
        for id in ids { #expect(world.heartbeat(id: id, generation: generation) == .none) }
    }

    @Test("a member whose metadata would burst the group's record is refused, and the others go on")
    func membersThatAreTooLarge() {
        var world = GroupWorld { $0.recordBytesLimit = 10_000 }
        let (ids, generation) = world.settle(count: 2)
        let large = world.join { $0.protocols = [GroupProtocol(name: "range", metadata: [UInt8](repeating: 1, count: 9_900))] }
        #expect(world.joined(large).error == .groupMaxSizeReached)
        for id in ids { #expect(world.heartbeat(id: id, generation: generation) == .none) }
    }

    @Test("a member that names thousands of protocols is refused: each vote would go through all of them")
    func membersThatKnowTooMuch() {
        var world = GroupWorld()
        #expect(world.joined(world.join(protocols: (0..<256).map { "p\($0)" })).error == .memberIDRequired)
        #expect(world.joined(world.join(protocols: (0..<257).map { "p\($0)" })).error == .inconsistentGroupProtocol)
    }

    @Test("where the memory for groups is used up nobody new is let in, and who is in goes on")
    func fullMemory() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 1)
        var moment = world.moment
        moment.isFull = true
        var event = JoinGroupEvent(group: "other")
        event.protocols = [GroupProtocol(name: "range", metadata: [])]
        let refused = world.machine.handle(.join(event, GroupTicket(number: 900)), at: moment)
        #expect(refused == [.answer(GroupTicket(number: 900), .joined(JoinGroupReply(.groupMaxSizeReached, memberID: "")))])
        let heartbeat = HeartbeatEvent(group: "g", memberID: ids[0], generation: generation)
        #expect(
            world.machine.handle(.heartbeat(heartbeat, GroupTicket(number: 901)), at: moment)
                == [.answer(GroupTicket(number: 901), .done)])
        #expect(world.machine.describe("other") == nil)
    }

    @Test("a protocol that only some know is not chosen, whoever prefers it")
    func protocolsAreVotedFor() {
        var world = GroupWorld()
        let a = world.enter(protocols: ["sticky", "range"])
        _ = world.join(id: a, protocols: ["sticky", "range"])
        let b = world.enter(protocols: ["range"])
        let joinB = world.join(id: b, protocols: ["range"])
        _ = world.join(id: a, protocols: ["sticky", "range"])
        #expect(world.joined(joinB).protocolName == "range")
        #expect(world.joined(world.join(protocols: ["sticky"])).error == .inconsistentGroupProtocol)
    }

    // MARK: Static members

    @Test func staticMembersThatAreAwayAndGiveEachOtherNoTimeHoldUpNobody() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 3, rebalance: 0, instances: true)
        #expect(world.leave("g", .init(id: ids[2], instanceID: "i2")) == [.none])
        world.pass(5_000)
        #expect(world.state() == .preparingRebalance)
        #expect(world.heartbeat(id: ids[0], generation: generation, instance: "i0") == .rebalanceInProgress)
        let back = world.join(id: ids[0], instance: "i0", rebalance: 0)
        world.pass(2_000)
        #expect(world.joined(back).error == .none && world.joined(back).generation > generation)
    }

    @Test("a static member that restarts has its partitions back, and the others notice nothing")
    func staticMembersReturn() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 2, instances: true)
        let back = world.join(instance: "i1")
        let id = world.joined(back).memberID
        #expect(world.joined(back).generation == generation && id != ids[1])
        #expect(world.synced(world.sync(id: id, generation: generation, instance: "i1")) == "part 1")
        #expect(world.heartbeat(id: ids[0], generation: generation, instance: "i0") == .none)
        #expect(world.heartbeat(id: ids[1], generation: generation, instance: "i1") == .fencedInstanceID)
    }

    @Test("a static member that restarts is known by its new id after a kill, too")
    func staticMembersReturnDurably() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 2, instances: true)
        world.syncsAtOnce = false
        let back = world.join(instance: "i1")
        #expect(world.isWaiting(back), "its new id is not durable yet")
        world.sync()
        let id = world.joined(back).memberID
        world.readAnew()
        #expect(world.heartbeat(id: id, generation: generation, instance: "i1") == .none)
        #expect(world.heartbeat(id: ids[1], generation: generation, instance: "i1") == .fencedInstanceID)
    }

    @Test("a static leader that restarts is told to lead without assigning")
    func staticLeadersReturn() {
        var world = GroupWorld()
        let (ids, _) = world.settle(count: 2, instances: true)
        let back = world.joined(world.join(instance: "i0"))
        #expect(back.skipAssignment && back.leader == back.memberID && back.members.count == 2)
        let older = world.joined(world.join(instance: "i0") { $0.canSkipAssignment = false })
        #expect(!older.skipAssignment && older.leader != older.memberID && older.members.isEmpty && older.memberID != ids[0])
    }

    @Test("who was waiting under a static member's old id is fenced, not forgotten")
    func staticMembersThatWaitAreFenced() {
        var world = GroupWorld()
        let (ids, _) = world.settle(count: 2, instances: true)
        let old = world.join(id: ids[0], instance: "i0")
        #expect(world.isWaiting(old))
        _ = world.join(instance: "i0")
        #expect(world.joined(old).error == .fencedInstanceID)
    }

    @Test("a static member that restarts between join and sync makes all join again: the leader knows the old id")
    func staticMembersReturnBetweenJoinAndSync() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 2, instances: true)
        _ = world.join(id: ids[0], instance: "i0")
        _ = world.join(id: ids[1], instance: "i1")
        _ = world.join(instance: "i1")
        #expect(world.state() == .preparingRebalance)
        #expect(world.syncError(world.sync(id: ids[0], generation: generation + 1, instance: "i0")) == .rebalanceInProgress)
    }

    // MARK: After a kill

    @Test("a stable group that is read anew goes on without a rebalance")
    func stableGroupsGoOn() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 3)
        world.pass(9_000)
        for id in ids { #expect(world.heartbeat(id: id, generation: generation) == .none) }
        world.readAnew()
        world.pass(9_000)
        for id in ids { #expect(world.heartbeat(id: id, generation: generation) == .none) }
        #expect(world.synced(world.sync(id: ids[2], generation: generation)) == "part 2")
        #expect(world.machine.describe("g")?.members.map(\.id) == ids)
    }

    @Test("members that do not come back after a kill are gone when their sessions end")
    func membersThatDoNotComeBack() {
        var world = GroupWorld()
        _ = world.settle(count: 2)
        world.readAnew()
        world.pass(10_500)
        world.pass(30_500)
        #expect(world.state() == .empty)
    }

    @Test("a generation whose assignments were not durable at the kill never was, and all join again")
    func groupsThatWereSynchronizing() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 2)
        _ = world.join(id: ids[0])
        _ = world.join(id: ids[1])
        world.syncsAtOnce = false
        let sync = world.sync(id: ids[0], generation: generation + 1, [:])
        #expect(world.isWaiting(sync))
        world.readAnew()
        world.syncsAtOnce = true
        #expect(world.syncError(world.sync(id: ids[0], generation: generation + 1)) == .illegalGeneration)
        _ = world.join(id: ids[0])
        #expect(world.state() == .preparingRebalance)
        #expect(world.joined(world.join(id: ids[1])).generation == generation + 1)
    }

    @Test("a thousand members rebalance without their number counting twice")
    func aThousandMembers() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 1_000)
        _ = world.join(id: ids[0])
        for id in ids.dropFirst() { _ = world.join(id: id) }
        let assignments = Dictionary(uniqueKeysWithValues: ids.map { ($0, $0) })
        let follower = world.sync(id: ids[999], generation: generation + 1)
        #expect(world.synced(world.sync(id: ids[0], generation: generation + 1, assignments)) == ids[0])
        #expect(world.synced(follower) == ids[999])
    }

    @Test("the same seed and events give the same actions")
    func replaysByteForByte() {
        func run() -> [GroupAction] {
            var machine = GroupMachine(settings: GroupSettings(), seed: 7)
            var actions: [GroupAction] = []
            for index in 0..<200 {
                var event = JoinGroupEvent(group: "g\(index % 7)")
                event.protocols = [GroupProtocol(name: "range", metadata: [1])]
                event.requiresKnownMember = index % 2 == 0
                let moment = GroupMoment(
                    now: Instant(nanoseconds: Int64(index) * 100_000_000), wallMilliseconds: Int64(index) * 100)
                actions += machine.handle(.join(event, GroupTicket(number: UInt64(index))), at: moment)
                actions += machine.handle(.timePassed, at: moment)
            }
            return actions
        }
        #expect(run() == run())
    }
}
