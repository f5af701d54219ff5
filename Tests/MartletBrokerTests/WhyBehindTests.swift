import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletWire
import Testing

/// What is waited for in consumer groups, behind transactions and partitions: each sentence from one that is really stuck
/// in this way. Classic groups and quotas are in `WhyIsItStuck`.
@Suite struct WhyIsItStuckBehind {
    // MARK: Consumer groups

    private func consumers(_ change: (inout GroupSettings) -> Void = GroupWorld.stepwise) -> GroupWorld {
        var world = GroupWorld(change)
        world.setTopics(["t": 4])
        return world
    }

    private func reasons(_ world: GroupWorld, _ group: String = "g") throws -> [Reason] {
        try #require(world.machine.explain(group, at: world.moment)).reasons
    }

    @Test func aMemberThatClingsToPartitionsAndTheOneThatWaitsForThemAreBothNamed() throws {
        var world = consumers()
        let (a, b) = (TestMember("a"), TestMember("b"))
        world.beat(a)
        a.clings = true
        world.beat(b)
        world.beat(a)
        world.beat(b)
        let found = try reasons(world)
        #expect(found.map(\.code) == ["member-not-revoked", "partitions-not-released"])
        #expect(found.map(\.subject) == ["a", "b"])
        let named = "Member a (client test at /10.0.0.1) has yet to give up 2 partitions that others are to get"
        #expect(found[0].text.contains(named), "\(found[0].text)")
        #expect(found[0].text.contains("it has 30 s for it"), "\(found[0].text)")
        #expect(found[1].text.contains("waits for partitions that other members have not given up yet"), "\(found[1].text)")
        (a.clings, a.owned) = (false, [topicID("t"): [0, 1]])
        world.beat(a) { $0.owned = a.owned }
        world.settle([a, b])
        #expect(try reasons(world).isEmpty)
    }

    @Test func aMemberThatHasNotHeardOfTheNewestEpochIsNamedWithBoth() throws {
        var world = consumers()
        let (a, b) = (TestMember("a"), TestMember("b"))
        world.settle([a, b])
        #expect(try reasons(world).isEmpty)
        let old = a.epoch
        world.leave(b)
        let found = try reasons(world)
        // the new target is there when somebody asks for it
        #expect(found.isEmpty)
        let c = TestMember("c")
        world.beat(c)
        let behind = try reasons(world).filter { $0.code == "member-behind" }
        #expect(behind.map(\.subject) == ["a"])
        let epoch = try #require(world.consumer()).targetEpoch
        #expect(
            behind[0].text.contains("has not asked for its part of epoch \(epoch): it is at epoch \(old)"), "\(behind[0].text)")
    }

    @Test func anInstanceThatIsAwayIsNamedForItsPartitionsAreKept() throws {
        var world = consumers()
        let (a, b) = (TestMember("a"), TestMember("b"))
        a.instance = "i"
        world.settle([a, b])
        world.leave(a, epoch: -2)
        let found = try reasons(world)
        #expect(found.map(\.code) == ["instance-away"])
        #expect(found[0].text.contains("instance i) has left for a while"), "\(found[0].text)")
    }

    @Test func aConsumerGroupWithoutMembersSaysThatNobodyReads() throws {
        var world = consumers()
        let a = TestMember("a")
        world.settle([a])
        world.leave(a)
        let found = try reasons(world)
        #expect(found.map(\.code) == ["no-members"])
        #expect(found[0].text.contains("nobody reads"))
    }

    @Test func aGroupOfATypeThatIsNotServedSaysWhichItIs() throws {
        var world = GroupWorld()
        let key: [UInt8] = [0, 11, 0, 5] + Array("share".utf8)
        key.withUnsafeBytes { bytes in _ = world.machine.load(foreign: bytes, exists: true) }
        _ = world.machine.finishLoading(at: world.moment)
        let found = try reasons(world, "share")
        #expect(found.map(\.code) == ["type-not-served"])
        #expect(found[0].text.contains("of the type share"), "\(found[0].text)")
    }

    // MARK: Transactions

    private func transactional() throws -> (BrokerWorld, TransactionClient) {
        let world = try BrokerWorld([
            ("transaction.state.log.num.partitions", "2"), ("offsets.topic.num.partitions", "1"),
        ])
        try world.createTopic("t")
        let client = try TransactionClient(world)
        try client.find("billing-1")
        return (world, client)
    }

    @Test func anOpenTransactionIsNamedByItsTransactionalIDAndSaysWhenItIsAborted() throws {
        let (world, client) = try transactional()
        let producer = try client.initialize("billing-1", timeoutMs: 50_000)
        #expect(try client.add("billing-1", producer, "t") == .none)
        #expect(try client.produce("billing-1", producer, "t") == .none)
        world.simulated.run(for: .seconds(20))
        let found = try world.explain(.topic, "t").reasons
        #expect(found.map(\.code) == ["open-transaction"])
        let text = found[0].text
        #expect(text.contains("t-0: transaction billing-1 of producer \(producer.producerID) (epoch 0)"), "\(text)")
        #expect(text.contains("It began 20 s ago, and is aborted if it is still open in 29 s (transaction.timeout.ms)."))
        #expect((29_000...30_000).contains(found[0].leftMs) && found[0].sinceMs > 0, "\(found[0])")
        #expect(try client.end("billing-1", producer) == .none)
        world.simulated.run(for: .seconds(1))
        #expect(try world.explain(.topic, "t").reasons.isEmpty)
    }

    @Test func aTransactionThatIsPastItsTimeIsSaidToBeAbortedSoon() throws {
        let (world, client) = try transactional()
        let producer = try client.initialize("billing-1", timeoutMs: 1_000)
        #expect(try client.add("billing-1", producer, "t") == .none)
        #expect(try client.produce("billing-1", producer, "t") == .none)
        // between two looks of the coordinator for what is open for too long
        let isPast = world.until(atMost: .seconds(5)) {
            world.broker.transactions.figures.counts.timedOut == 0 && world.host.clock.now > Instant(nanoseconds: 0)
                && (try? world.explain(.topic, "t"))?.reasons.first?.text.contains("and is about to be aborted.") == true
        }
        #expect(isPast)
        world.simulated.run(for: .seconds(12))
        #expect(try world.explain(.topic, "t").reasons.isEmpty)
    }

    @Test func offsetsInATransactionAreToldWithItsID() throws {
        let (world, client) = try transactional()
        var find = FindCoordinatorRequest()
        find.coordinatorKeys = ["g"]
        for _ in 0..<100 {
            let found: FindCoordinatorResponse = try client.ask(find, version: 4)
            if found.coordinators[0].errorCode == .none { break }
            world.simulated.run(for: .milliseconds(50))
        }
        let producer = try client.initialize("billing-1")
        #expect(try client.commit("billing-1", producer, group: "g", "t", 3) == .none)
        let found = try world.explain(.group, "g").reasons.filter { $0.code == "offset-in-transaction" }
        #expect(found.map(\.subject) == ["t-0"])
        let text = try #require(found.first).text
        let named = "An offset for t-0 belongs to transaction billing-1 of producer \(producer.producerID), which is open"
        #expect(text.contains(named), "\(text)")
        #expect(text.contains("wait until it ends. It began ") && text.contains("is still open in 59 s"), "\(text)")
        #expect(try client.end("billing-1", producer) == .none)
        world.simulated.run(for: .seconds(1))
        #expect(try !world.explain(.group, "g").reasons.contains { $0.code == "offset-in-transaction" })
    }

    @Test("while its partitions get their markers a transaction is said to commit, or to be aborted")
    func aTransactionThatEnds() throws {
        for commits in [true, false] {
            var world = TransactionWorld()
            let producer = world.producer("billing-1", timeoutMs: 5_000)
            #expect(world.add(producer, id: "billing-1") == .done)
            #expect(world.machine.open[producer.id]?.state == .ongoing)
            #expect(world.end(producer, commits: commits, id: "billing-1") != nil)
            let open = try #require(world.machine.open[producer.id])
            #expect(open.id == "billing-1" && open.state == (commits ? .prepareCommit : .prepareAbort))
            let text = Explainer.end(of: open, wall: world.wall)
            #expect(text == " \(commits ? "It commits" : "It is aborted"): its partitions are being told.")
            world.deliverMarkers()
            #expect(world.machine.open.isEmpty)
        }
    }

    // MARK: Partitions

    /// A committed offset of a group without members, far behind.
    private func behind(_ world: BrokerWorld) throws {
        let client = try TransactionClient(world)
        var find = FindCoordinatorRequest()
        find.coordinatorKeys = ["g"]
        for _ in 0..<100 {
            let found: FindCoordinatorResponse = try client.ask(find, version: 4)
            if found.coordinators[0].errorCode == .none { break }
            world.simulated.run(for: .milliseconds(50))
        }
        var partition = OffsetCommitRequest.OffsetCommitRequestPartition()
        partition.committedOffset = 1
        var topic = OffsetCommitRequest.OffsetCommitRequestTopic()
        (topic.name, topic.partitions) = ("t", [partition])
        var request = OffsetCommitRequest()
        (request.groupID, request.topics) = ("g", [topic])
        let answer: OffsetCommitResponse = try client.ask(request, version: 8)
        #expect(answer.topics[0].partitions[0].errorCode == .none)
    }

    private func withTopic(_ configs: [(String, String)] = []) throws -> BrokerWorld {
        let world = try BrokerWorld([("offsets.topic.num.partitions", "1")])
        try world.createTopic("t", configs: configs)
        let client = try world.connect()
        client.send(produce("t", batch(["a", "b", "c"]), acks: -1, id: 1))
        try #require(world.until { client.frames.count == 1 })
        return world
    }

    /// The cluster as it would be if this topic were another one.
    private func change(_ world: BrokerWorld, _ change: (inout PartitionInfo) -> Void) {
        let image = world.broker.cluster.metadata.current
        let topics = image.topics.map { topic in
            var topic = topic
            if topic.name == "t" { change(&topic.partitions[0]) }
            return topic
        }
        world.broker.cluster.metadata.current = MetadataImage(
            clusterID: image.clusterID, controllerID: image.controllerID, brokers: image.brokers, topics: topics)
    }

    @Test func aGroupThatIsBehindAndCommitsNothingIsToldSoAfterAWhile() throws {
        let world = try withTopic()
        try behind(world)
        #expect(try world.explain(.group, "g").reasons.map(\.code) == ["no-members"])
        world.simulated.run(for: .seconds(40))
        let found = try world.explain(.group, "g").reasons
        #expect(found.map(\.code) == ["no-members", "no-commits"])
        #expect(found[1].text.contains("t-0: 2 records behind, and nothing was committed for 40 s"), "\(found[1].text)")
        #expect(found[1].text.contains("it has no members that would read on"), "\(found[1].text)")
    }

    @Test func aGroupWhoseMembersDoNotCommitIsToldThatItIsTheirs() throws {
        let world = try withTopic()
        try behind(world)
        let member = TestMember("m")
        var request = ConsumerGroupHeartbeatRequest()
        (request.groupID, request.memberID, request.memberEpoch) = ("g", member.id, 0)
        (request.subscribedTopicNames, request.rebalanceTimeoutMs, request.topicPartitions) = (["t"], 300_000, [])
        #expect(try world.ask(request, version: 1).errorCode == .none)
        world.simulated.run(for: .seconds(40))
        let found = try world.explain(.group, "g").reasons.filter { $0.code == "no-commits" }
        #expect(found.map(\.subject) == ["t-0"])
        #expect(found[0].text.contains("its members do not commit, or do not get on"), "\(found[0].text)")
    }

    @Test func aPartitionThatIsGoneIsToldToTheGroupThatCommittedForIt() throws {
        let world = try withTopic()
        try behind(world)
        let image = world.broker.cluster.metadata.current
        world.broker.cluster.metadata.current = MetadataImage(
            clusterID: image.clusterID, controllerID: image.controllerID, brokers: image.brokers,
            topics: image.topics.filter { $0.name != "t" })
        let found = try world.explain(.group, "g").reasons
        #expect(found.map(\.code) == ["no-members", "no-partition"])
        #expect(found[1].text == "t-0 does not exist any more.")
    }

    @Test func aPartitionWithoutALeaderSaysWhereItsReplicasAre() throws {
        let world = try withTopic()
        change(world) { ($0.leader, $0.replicas) = (-1, [4, 7]) }
        let found = try world.explain(.topic, "t").reasons
        #expect(found.map(\.code) == ["no-leader"])
        #expect(found[0].text.contains("t-0 has no leader") && found[0].text.contains("(on 4, 7)"), "\(found[0].text)")
    }

    @Test func aPartitionWithTooFewReplicasInSyncSaysWhatItNeeds() throws {
        let world = try withTopic([("min.insync.replicas", "2")])
        #expect(try world.explain(.topic, "t").reasons.isEmpty, "no more is needed than there are")
        change(world) { $0.replicas = [$0.leader, 2, 3] }
        let found = try world.explain(.topic, "t").reasons
        #expect(found.map(\.code) == ["not-enough-replicas"])
        #expect(
            found[0].text.contains("t-0 has 1 of 3 replicas in sync, and needs 2 (min.insync.replicas)"), "\(found[0].text)")
    }
}
