import MartletBasics
import MartletBroker
import MartletModel
import Testing

@Suite struct ConsumerGroupsTests {
    private func world(
        _ topics: [String: Int32] = ["t": 4], _ change: (inout GroupSettings) -> Void = GroupWorld.stepwise
    ) -> GroupWorld {
        var world = GroupWorld(change)
        world.setTopics(topics)
        return world
    }

    private func pair(_ world: inout GroupWorld) -> (TestMember, TestMember) {
        let (a, b) = (TestMember("a"), TestMember("b"))
        world.settle([a])
        world.settle([a, b])
        #expect(a.count == 2 && b.count == 2 && a.epoch == b.epoch && world.stateName() == "Stable")
        return (a, b)
    }

    @Test("a partition is given to its next owner only after the one before gave it up")
    func revocationComesFirst() {
        var world = world()
        let (a, b) = (TestMember("a"), TestMember("b"))
        #expect(world.beat(a)?.assignment == [topicID("t"): [0, 1, 2, 3]] && a.epoch == 2)
        a.clings = true
        #expect(world.beat(b)?.assignment == [:] && b.epoch == 3)
        #expect(world.beat(a)?.assignment?[topicID("t")]?.count == 2 && a.epoch == 2, "it stays in its epoch until it gave up")
        #expect(world.stateName() == "Reconciling")
        for _ in 0..<3 {
            world.beat(a)
            #expect(world.beat(b)?.assignment == nil && b.count == 0)
        }
        (a.clings, a.owned) = (false, [topicID("t"): [0, 1]])
        world.beat(a) { $0.owned = [topicID("t"): [0, 1]] }
        #expect(a.epoch == 3)
        #expect(world.beat(b)?.assignment == [topicID("t"): [2, 3]] && world.stateName() == "Stable")
    }

    @Test("who does not give up in its rebalance timeout is out, and what it has is somebody else's")
    func revocationTimesOut() {
        var world = world()
        let (a, b) = (TestMember("a"), TestMember("b"))
        a.rebalanceMs = 1_000
        world.beat(a)
        a.clings = true
        world.beat(b)
        world.beat(a)
        for _ in 0..<9 {
            world.pass(100)
            world.beat(a)
            world.beat(b)
        }
        #expect(b.count == 0 && a.error == .none)
        world.pass(200)
        world.settle([b])
        #expect(b.count == 4)
        world.beat(a)
        #expect(a.error == .unknownMemberID)
    }

    @Test("who is silent for a session is out; each heartbeat begins it anew")
    func sessionsEnd() {
        var world = world()
        let (a, b) = pair(&world)
        for _ in 0..<4 {
            world.pass(20_000)
            world.beat(b)
        }
        world.settle([b])
        #expect(b.count == 4)
        world.beat(a)
        #expect(a.error == .unknownMemberID)
        world.pass(46_000)
        #expect(world.stateName() == "Empty" && world.consumer()?.members.isEmpty == true)
    }

    @Test("epochs of the future and the past are fenced, but for the one whose answer may have been lost")
    func epochsAreFenced() {
        var world = world()
        let (a, _) = pair(&world)
        let epoch = a.epoch
        func error(_ wrong: Int32, owned: PartitionSet?) -> ErrorCode {
            let probe = TestMember("a")
            world.beat(probe) {
                ($0.epoch, $0.owned, $0.topics, $0.rebalanceTimeoutMs) = (wrong, owned, nil, -1)
            }
            return probe.error
        }
        #expect(error(epoch + 1, owned: a.owned) == .fencedMemberEpoch)
        #expect(error(epoch - 1, owned: nil) == .fencedMemberEpoch)
        #expect(error(epoch - 1, owned: [topicID("t"): [0, 1, 2, 3]]) == .fencedMemberEpoch)
        #expect(error(epoch - 1, owned: a.owned) == .none)
        #expect(error(.max, owned: a.owned) == .fencedMemberEpoch)
    }

    @Test("nobody is told of an assignment that is not durable")
    func answersWaitForTheLog() {
        var world = world()
        world.syncsAtOnce = false
        let a = TestMember("a")
        let ticket = world.ask { .consumerHeartbeat(a.event(), $0) }
        #expect(world.isWaiting(ticket))
        // asked again, it says the same, and waits, too
        let again = world.ask { .consumerHeartbeat(a.event(), $0) }
        #expect(world.isWaiting(again))
        world.sync()
        guard case .consumerHeartbeat(let reply)? = world.replies[ticket] else { Issue.record("no answer"); return }
        #expect(reply.epoch == 2 && reply.assignment == [topicID("t"): [0, 1, 2, 3]])
        #expect(world.replies[again] == world.replies[ticket])
    }

    @Test("what the log refuses did not happen: the group is as before, for everybody")
    func whatIsRefusedIsTakenBack() {
        var world = world()
        let (a, b) = pair(&world)
        let before = world.consumer()
        world.syncsAtOnce = false
        let c = TestMember("c")
        let ticket = world.ask { .consumerHeartbeat(c.event(), $0) }
        let other = world.ask { .consumerHeartbeat(TestMember("d").event(), $0) }
        #expect(world.consumer()?.members.count == 4)
        world.sync(failing: .notEnoughReplicas)
        #expect(world.error(ticket) == .coordinatorNotAvailable && world.error(other) == .coordinatorNotAvailable)
        #expect(world.consumer()?.members == before?.members && world.consumer()?.epoch == before?.epoch)
        world.syncsAtOnce = true
        world.settle([a, b])
        #expect(a.error == .none && b.error == .none && world.stateName() == "Stable")
        // a group that could not begin is not there
        world.syncsAtOnce = false
        _ = world.ask { .consumerHeartbeat(TestMember("x", group: "other").event(), $0) }
        world.sync(failing: .notEnoughReplicas)
        #expect(world.consumer("other") == nil && !world.machine.listings.contains { $0.id == "other" })
    }

    @Test("after a kill members go on in their epochs, and a revocation that was under way goes on")
    func killed() {
        var world = world()
        let (a, b) = pair(&world)
        let (members, epoch) = (world.consumer()!.members, a.epoch)
        world.readAnew()
        #expect(world.consumer()!.members == members)
        #expect(world.beat(a) != nil && world.beat(b) != nil && a.epoch == epoch && a.count == 2)
        let c = TestMember("c")
        world.beat(c)
        (a.clings, b.clings, a.rebalanceMs) = (true, true, 30_000)
        world.beat(a)
        world.beat(b)
        world.readAnew()
        world.pass(29_000)
        #expect(world.consumer()!.members.count == 3)
        world.pass(2_000)
        #expect(world.consumer()!.members.count < 3, "who clings to a partition is out after its timeout")
    }

    @Test("a static member that is away keeps what it has, and its successor goes on with it")
    func staticMembers() {
        var world = world()
        let (a, b) = (TestMember("a"), TestMember("b"))
        a.instance = "i"
        world.settle([a, b])
        let mine = a.owned
        let stranger = TestMember("s")
        stranger.instance = "i"
        world.beat(stranger)
        #expect(stranger.error == .unreleasedInstanceID)
        world.leave(a, epoch: -2)
        #expect(world.beat(b)?.assignment == nil && b.count == 2)
        world.beat(stranger)
        #expect(stranger.error == .none && stranger.owned == mine && stranger.epoch == b.epoch)
        world.readAnew()
        world.beat(stranger)
        #expect(stranger.error == .none)
        world.beat(a) { ($0.epoch, $0.topics, $0.owned, $0.rebalanceTimeoutMs) = (3, nil, nil, -1) }
        #expect(a.error == .fencedInstanceID)
        world.leave(stranger, epoch: -2)
        world.pass(46_000)
        #expect(world.consumer()?.members["s"] == nil, "who is away for longer than a session is gone")
    }

    @Test("a commit counts in the epoch of its member, or in an older one for what it had then already")
    func commits() {
        var world = world()
        let (a, b) = pair(&world)
        func commit(_ id: String, _ epoch: Int32, _ partition: Int32, version9: Bool = true) -> ErrorCode {
            var event = OffsetCommitEvent(group: "g")
            (event.memberID, event.generation, event.knowsMemberEpochs) = (id, epoch, version9)
            event.partitions = [.init(topic: "t", topicID: topicID("t"), partition: partition, offset: 1)]
            let ticket = world.ask { .commit(event, $0) }
            return world.error(ticket)
        }
        let mine = a.owned[topicID("t")]![0], given = b.owned[topicID("t")]![0]
        #expect(commit("a", a.epoch, mine) == .none)
        #expect(commit("a", a.epoch - 1, mine) == .none, "held since then")
        #expect(commit("a", a.epoch - 1, given) == .staleMemberEpoch, "given up since then")
        #expect(commit("b", b.epoch - 1, given) == .staleMemberEpoch, "not yet held then")
        #expect(commit("a", a.epoch + 1, mine) == .staleMemberEpoch)
        #expect(commit("nobody", a.epoch, mine) == .unknownMemberID)
        #expect(commit("", -1, mine) == .unknownMemberID)
        #expect(commit("a", a.epoch, mine, version9: false) == .unsupportedVersion)
        #expect(world.machine.fetchFault("g", member: "a", epoch: a.epoch) == .none)
        #expect(world.machine.fetchFault("g", member: "a", epoch: a.epoch - 1) == .staleMemberEpoch)
        #expect(world.machine.fetchFault("g", member: "nobody", epoch: 1) == .unknownMemberID)
        #expect(world.machine.fetchFault("g", member: nil, epoch: -1) == .none)
    }

    @Test("topics that come, grow and go are followed at the next heartbeat")
    func topicsChange() {
        var world = world([:])
        let a = TestMember("a")
        world.beat(a)
        #expect(a.count == 0 && a.error == .none)
        for count: Int32 in [1, 3] {
            world.setTopics(["t": count])
            world.settle([a])
            #expect(a.count == Int(count))
        }
        world.setTopics(["u": 9])
        world.settle([a])
        #expect(a.count == 0 && world.stateName() == "Stable")
        let epoch = a.epoch
        world.setTopics(["u": 9, "v": 2])
        world.settle([a])
        #expect(a.epoch == epoch, "a topic that nobody reads is no reason")
    }

    @Test("expressions are followed as topics come and go, and a broken one is refused with nothing kept")
    func expressions() {
        var world = world(["eu-1": 1, "eu-2": 2, "us-1": 4])
        let a = TestMember("a", topics: nil)
        a.pattern = "eu-.*"
        world.settle([a])
        #expect(a.count == 3)
        world.pass(2_000)
        world.setTopics(["eu-1": 1, "eu-3": 5])
        world.settle([a])
        #expect(a.count == 6)
        world.beat(a) { $0.pattern = "(" }
        #expect(a.error == .invalidRegularExpression)
        world.beat(a) {
            $0.topics = ["eu-1"]; $0.pattern = ""
        }
        world.settle([a])
        #expect(a.count == 1 && world.consumer()?.patterns.isEmpty == true, "an expression that nobody has is forgotten")
        let broken = TestMember("b", group: "other", topics: nil)
        broken.pattern = "a(?=b)"
        world.beat(broken)
        #expect(broken.error == .invalidRegularExpression && world.consumer("other") == nil)
        world.readAnew()
        world.settle([a])
        #expect(a.count == 1 && a.error == .none)
    }

    @Test("while a search is under way nobody waits for it, and it is asked for once")
    func searchesAreNotWaitedFor() {
        var world = world(["eu-1": 1])
        world.searchesAtOnce = false
        let a = TestMember("a", topics: nil)
        a.pattern = "eu-.*"
        for _ in 0..<5 { world.beat(a) }
        #expect(a.error == .none && a.count == 0 && world.searches.count == 1)
        world.carryOutSearches()
        world.settle([a])
        #expect(a.count == 1)
    }

    @Test("assignments are not computed more often than the interval says, and what is not read any more goes at once")
    func assignmentsAreNotTooOften() {
        var world = world(["t": 4, "u": 2]) { $0.consumer.assignmentIntervalMs = 1_000 }
        let (a, b) = (TestMember("a", topics: ["t", "u"]), TestMember("b", topics: ["t", "u"]))
        world.beat(a)
        world.settle([a, b])
        #expect(a.count == 6 && b.count == 0 && b.epoch == a.epoch, "b waits")
        world.beat(a) { $0.topics = ["t"] }
        #expect(a.count == 4, "what it does not read is not its own any more")
        world.pass(1_100)
        world.settle([a, b])
        #expect(a.count == 3 && b.count == 3 || a.count == 2 && b.count == 4)
        world.setOverrides([
            "g": {
                var own = GroupOverrides(); own.assignmentIntervalMs = 0; return own
            }()
        ])
        let c = TestMember("c")
        world.settle([a, b, c])
        #expect(c.count > 0, "a group may have an interval of its own")
    }

    @Test("memory, sizes and records have bounds, and who is in goes on")
    func bounds() {
        var world = world {
            GroupWorld.stepwise(&$0); $0.consumer.sizeLimit = 2; $0.consumer.recordBytesLimit = 2_000
        }
        let (a, _) = pair(&world)
        let c = TestMember("c")
        world.beat(c)
        #expect(c.error == .groupMaxSizeReached)
        world.beat(a) { $0.topics = (0..<500).map { "topic-\($0)" } }
        #expect(a.error == .invalidRequest)
        world.beat(a)
        #expect(a.error == .none && a.count == 2)
    }

    @Test("an empty group is deleted with all its records, and what was committed expires")
    func deletion() {
        var world = world {
            GroupWorld.stepwise(&$0); $0.offsetsRetentionMs = 60_000
        }
        let (a, b) = pair(&world)
        #expect(world.error(world.ask { .deleteGroup("g", $0) }) == .nonEmptyGroup)
        world.leave(a)
        world.leave(b)
        #expect(world.stateName() == "Empty")
        #expect(world.error(world.ask { .deleteGroup("g", $0) }) == .none)
        #expect(world.machine.listings.isEmpty && world.machine.bytes == 0)
        world.readAnew()
        #expect(world.machine.listings.isEmpty)
        world.settle([a])
        let commit = world.commit(id: "a", generation: a.epoch, [("t", 0, 5), ("old", 0, 7)])
        #expect(world.error(commit) == .none)
        world.pass(40_000)
        world.beat(a)
        world.pass(40_000)
        world.beat(a)
        world.handle(.expireOffsets)
        #expect(world.committed("g", "t", 0) == 5 && world.committed("g", "old", 0) == -1, "what is read does not expire")
        world.leave(a)
        world.pass(100_000)
        world.handle(.expireOffsets)
        world.handle(.expireOffsets)
        #expect(world.machine.listings.isEmpty)
    }
}
