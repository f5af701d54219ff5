import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletSimulation
import MartletWire
import Testing

/// A client of one request at a time.
final class GroupClient {
    let world: BrokerWorld
    private let client: RawClient
    private var count: Int32 = 0

    init(_ world: BrokerWorld) throws {
        self.world = world
        client = try world.connect()
    }

    func send<Q: WireRequest>(_ request: Q, version: Int16) {
        client.send(frame(request, version: version, id: count))
        count += 1
    }

    func answer<A: WireResponse>(_: A.Type, version: Int16, atMost span: Interval = .seconds(30)) throws -> A {
        try #require(world.until(atMost: span) { self.client.frames.count == Int(self.count) }, "no answer")
        return try client.answer(A.self, Int(count) - 1, version: version)
    }

    var hasEnded: Bool { client.hasEnded }
    var isAnswered: Bool { client.frames.count == Int(count) }

    /// Until the group's coordinator is there, and has read its groups.
    func find(_ group: String) throws {
        var request = FindCoordinatorRequest()
        request.coordinatorKeys = [group]
        for _ in 0..<200 {
            send(request, version: 4)
            let found = try answer(FindCoordinatorResponse.self, version: 4).coordinators[0]
            if found.errorCode == .none, try offset(group, "t", 0) != nil { return }
            world.simulated.run(for: .milliseconds(50))
        }
        Issue.record("no coordinator for \(group)")
    }

    /// Nil while there is no coordinator.
    func offset(_ group: String, _ topic: String, _ partition: Int32) throws -> Offset? {
        var wanted = OffsetFetchRequest.OffsetFetchRequestTopics()
        wanted.name = topic
        wanted.partitionIndexes = [partition]
        var asked = OffsetFetchRequest.OffsetFetchRequestGroup()
        asked.groupID = group
        asked.topics = [wanted]
        var request = OffsetFetchRequest()
        request.groups = [asked]
        send(request, version: 9)
        let found = try answer(OffsetFetchResponse.self, version: 9).groups[0]
        return found.errorCode == .none ? found.topics[0].partitions[0].committedOffset : nil
    }

    func commitRequest(_ group: String, _ topic: String, _ offset: Offset, metadata: String = "") -> OffsetCommitRequest {
        var partition = OffsetCommitRequest.OffsetCommitRequestPartition()
        partition.committedOffset = offset
        partition.committedMetadata = metadata
        var committed = OffsetCommitRequest.OffsetCommitRequestTopic()
        committed.name = topic
        committed.partitions = [partition]
        var request = OffsetCommitRequest()
        request.groupID = group
        request.topics = [committed]
        return request
    }

    func commit(_ group: String, _ topic: String, _ offset: Offset, metadata: String = "") throws -> ErrorCode {
        send(commitRequest(group, topic, offset, metadata: metadata), version: 8)
        return try answer(OffsetCommitResponse.self, version: 8).topics[0].partitions[0].errorCode
    }

    func joinRequest(_ group: String, id: String = "", session: Int32 = 10_000) -> JoinGroupRequest {
        var named = JoinGroupRequest.JoinGroupRequestProtocol()
        named.name = "range"
        named.metadata = .owned(subscription(["t"]))
        var request = JoinGroupRequest()
        request.groupID = group
        request.memberID = id
        request.sessionTimeoutMs = session
        request.rebalanceTimeoutMs = 30_000
        request.protocolType = "consumer"
        request.protocols = [named]
        return request
    }

    func join(_ group: String, id: String = "", session: Int32 = 10_000) throws -> JoinGroupResponse {
        send(joinRequest(group, id: id, session: session), version: 7)
        return try answer(JoinGroupResponse.self, version: 7)
    }

    func heartbeat(_ group: String, _ id: String, _ generation: Int32) throws -> ErrorCode {
        var request = HeartbeatRequest()
        request.groupID = group
        request.memberID = id
        request.generationID = generation
        send(request, version: 3)
        return try answer(HeartbeatResponse.self, version: 3).errorCode
    }
}

@Suite struct GroupsBrokerTests {
    private let atOnce = [(name: "group.initial.rebalance.delay.ms", value: "0")]

    private func ready(
        _ settings: [(name: String, value: String)], seed: UInt64 = 1, loops: Int = 1
    ) throws -> (
        BrokerWorld, GroupClient
    ) {
        let world = try BrokerWorld(seed: seed, loops: loops, settings)
        try world.createTopic("t")
        let client = try GroupClient(world)
        try client.find("g")
        return (world, client)
    }

    @Test("the topic of committed offsets is made for the first who asks for a group")
    func theTopicIsMade() throws {
        let (world, client) = try ready(atOnce)
        #expect(world.broker.cluster.topics.table.topic("__consumer_offsets")?.partitions.count == 50)
        #expect(try client.commit("g", "t", 5) == .none)
        #expect(try client.offset("g", "t", 0) == 5)
    }

    @Test("groups lie in the partitions where Kafka looks for them")
    func groupsLieWhereKafkaLooks() {
        // as Kafka 4.3 and 3.9 placed them, among three partitions
        for (group, partition): (String, Int32) in [
            ("g-consumer", 0), ("g-simple", 1), ("g-partly", 1), ("g-txn", 2), ("g-members", 2), ("g-deleted", 2),
        ] {
            #expect(GroupCoordinator.partition(of: group, count: 3) == partition)
        }
        // a hash of -2^31 has no absolute value
        #expect(GroupCoordinator.partition(of: "polygenelubricants", count: 50) == 0)
    }

    @Test("commits that came in one turn are one batch in the log")
    func commitsShareABatch() throws {
        let (world, first) = try ready(atOnce)
        let clients = try (0..<8).map { _ in try GroupClient(world) }
        #expect(try first.commit("g", "t", 0) == .none)
        let partition = try #require(world.partition("__consumer_offsets", GroupCoordinator.partition(of: "g", count: 50)))
        let start = partition.logEndOffset
        var batches = 0
        for (index, client) in clients.enumerated() { client.send(client.commitRequest("g", "t", Int64(index)), version: 8) }
        for client in clients {
            #expect(try client.answer(OffsetCommitResponse.self, version: 8).topics[0].partitions[0].errorCode == .none)
        }
        let found = partition.fetch(PartitionFetchRequest(offset: start, maxBytes: 1 << 20, firstBatchWhole: true))
        let slice = try #require(found.slice)
        var bytes = [UInt8](repeating: 0, count: slice.count)
        let file = try #require(slice.file)
        _ = try bytes.withUnsafeMutableBytes { try file.read(into: $0, at: slice.position) }
        bytes.withUnsafeBytes { raw in
            var walker = BatchWalker(raw)
            while case .batch = walker.next() { batches += 1 }
        }
        #expect(partition.logEndOffset == start + 8 && batches < 8)
    }

    @Test(
        "no offset that was acknowledged goes back when the power is cut, and groups go on where they stood",
        arguments: 1...6 as ClosedRange<UInt64>)
    func afterAPowerCut(seed: UInt64) throws {
        let (world, client) = try ready(atOnce, seed: seed)
        var told: [String: Offset] = [:]
        for turn in 0..<Int64(10 + seed * 3) {
            let group = "g\(turn % 4)"
            if try client.commit(group, "t", turn) == .none { told[group] = turn }
        }
        let id = try client.join("live").memberID
        let joined = try client.join("live", id: id)
        var sync = SyncGroupRequest()
        (sync.groupID, sync.memberID, sync.generationID) = ("live", id, joined.generationID)
        client.send(sync, version: 3)
        #expect(try client.answer(SyncGroupResponse.self, version: 3).errorCode == .none)
        client.send(client.commitRequest("g0", "t", 1_000), version: 8)
        world.simulated.run(for: .microseconds(Int64(seed) * 200))
        world.host.powerCut()
        let again = try RestartedWorld(world, atOnce)
        defer { again.end() }
        try again.run { [told] in
            for (group, offset) in told.sorted(by: { $0.key < $1.key }) {
                let now = again.committed(group)
                #expect(
                    now == offset || group == "g0" && now == 1_000,
                    "seed \(seed): \(group) is at \(now), and was acknowledged at \(offset)")
            }
            let live = again.broker.groups.listings.first { $0.id == "live" }
            #expect(live?.state == "Stable" && live?.memberCount == 1, "seed \(seed)")
        }
    }

    @Test("a member that waits for the others is answered when the last of them has gone")
    func waitingMembersAreAnswered() throws {
        let (world, first) = try ready(atOnce)
        let second = try GroupClient(world)
        let a = try first.join("g").memberID
        #expect(try first.join("g", id: a).generationID == 1)
        let b = try second.join("g").memberID
        second.send(second.joinRequest("g", id: b), version: 7)
        world.simulated.run(for: .seconds(2))
        #expect(!second.isAnswered)
        // the first has gone silent, and its session ends
        let joined = try second.answer(JoinGroupResponse.self, version: 7, atMost: .seconds(60))
        #expect(joined.errorCode == .none && joined.members.map(\.memberID) == [b])
    }

    @Test("groups are the same on every loop, and answers find their way home")
    func severalLoops() throws {
        let (world, first) = try ready(atOnce, loops: 3)
        let clients = try (0..<6).map { _ in try GroupClient(world) }
        for (index, client) in clients.enumerated() { #expect(try client.commit("g\(index % 2)", "t", Int64(index)) == .none) }
        #expect(try first.offset("g1", "t", 0) == 5)
        for client in clients { #expect(try client.offset("g0", "t", 0) == 4) }
        let a = try clients[0].join("shared").memberID
        #expect(try clients[1].join("shared", id: a).generationID == 1)
    }

    @Test("a deleted topic takes its offsets along")
    func deletedTopics() throws {
        let (world, client) = try ready(atOnce)
        #expect(try client.commit("g", "t", 5) == .none)
        let cluster = world.broker.cluster
        let id = try #require(cluster.metadata.current.topic("t")).id
        try world.run { _ = await cluster.deleteTopic("t", id: id) }
        #expect(world.until { (try? client.offset("g", "t", 0)) == -1 })
    }

    @Test("who asks for the same large thing again and again is cut off, and nobody else notices")
    func answersAreBounded() throws {
        let (_, client) = try ready(atOnce)
        #expect(try client.commit("g", "t", 5, metadata: String(repeating: "x", count: 4_000)) == .none)
        let other = try GroupClient(client.world)
        var wanted = OffsetFetchRequest.OffsetFetchRequestTopic()
        wanted.name = "t"
        wanted.partitionIndexes = [Int32](repeating: 0, count: 20_000)
        var request = OffsetFetchRequest()
        request.groupID = "g"
        request.topics = [wanted]
        other.send(request, version: 5)
        #expect(client.world.until { other.hasEnded })
        #expect(try client.offset("g", "t", 0) == 5)
    }

    // MARK: Settings

    @Test("the first rebalance waits as long as is set")
    func theFirstRebalanceWaits() throws {
        let (world, client) = try ready([("group.initial.rebalance.delay.ms", "4000")])
        let id = try client.join("g").memberID
        client.send(client.joinRequest("g", id: id), version: 7)
        world.simulated.run(for: .milliseconds(3_900))
        #expect(!client.isAnswered)
        world.simulated.run(for: .milliseconds(300))
        #expect(client.isAnswered)
    }

    @Test("session timeouts lie within the bounds that are set, and groups have at most the size that is set")
    func sessionsAndSizes() throws {
        let (_, client) = try ready(
            atOnce + [
                ("group.min.session.timeout.ms", "500"), ("group.max.session.timeout.ms", "700"), ("group.max.size", "1"),
            ])
        #expect(try client.join("g", session: 499).errorCode == .invalidSessionTimeout)
        #expect(try client.join("g", session: 701).errorCode == .invalidSessionTimeout)
        let id = try client.join("g", session: 700).memberID
        let joined = try client.join("g", id: id, session: 700)
        #expect(joined.errorCode == .none)
        #expect(try client.join("g", session: 500).errorCode == .groupMaxSizeReached)
        #expect(try client.heartbeat("g", id, joined.generationID) == .none)
    }

    @Test("metadata of a commit is bounded as is set")
    func metadataIsBounded() throws {
        let (_, client) = try ready(atOnce + [("offset.metadata.max.bytes", "3")])
        #expect(try client.commit("g", "t", 1, metadata: "abc") == .none)
        #expect(try client.commit("g", "t", 2, metadata: "abcd") == .offsetMetadataTooLarge)
        #expect(try client.offset("g", "t", 0) == 1)
    }

    @Test("offsets are looked through at the interval that is set, and go after the retention that is set")
    func offsetsExpire() throws {
        let (world, client) = try ready(
            atOnce + [("offsets.retention.minutes", "2"), ("offsets.retention.check.interval.ms", "30000")])
        #expect(try client.commit("g", "t", 5) == .none)
        world.simulated.run(for: .seconds(110))
        #expect(try client.offset("g", "t", 0) == 5)
        world.simulated.run(for: .seconds(50))
        #expect(try client.offset("g", "t", 0) == -1)
        #expect(world.broker.groups.listings.isEmpty)
    }

    @Test("a commit that is not durable in the time that is set is told so")
    func commitsTimeOut() throws {
        let (world, client) = try ready(atOnce + [("offsets.commit.timeout.ms", "1500")])
        #expect(try client.commit("g", "t", 1) == .none)
        world.simulated.loopsAreNeverIdle = true
        world.host.files.syncLatency = Latency(.seconds(20), .seconds(20))
        client.send(client.commitRequest("g", "t", 2), version: 8)
        world.simulated.run(for: .milliseconds(1_400))
        #expect(!client.isAnswered)
        let answer = try client.answer(OffsetCommitResponse.self, version: 8, atMost: .milliseconds(400))
        #expect(answer.topics[0].partitions[0].errorCode == .coordinatorNotAvailable)
        #expect(try client.offset("g", "t", 0) == 1)
    }
}

/// The broker of a world that has lost its power, started again on the same disk.
private final class RestartedWorld: @unchecked Sendable {
    private let world: BrokerWorld
    private let host: SimulatedHost
    private let process: BrokerProcess

    var broker: Broker { process.broker! }

    init(_ world: BrokerWorld, _ settings: [(name: String, value: String)]) throws {
        self.world = world
        host = world.host.restart()
        let config = try BrokerConfig.resolve(
            overrides: [
                ("listeners", "PLAINTEXT://\(host.address):9092"), ("log.dirs", "/data"), ("martlet.keeper.dir", "/keeper"),
            ] + settings)
        process = BrokerProcess(host: host, config: config, sink: world.sink, memoryBytes: 1 << 30)
        let process = process
        try run { try await process.start() }
        // groups are read beside
        let areRead = world.simulated.run(atMost: .seconds(60)) { process.broker?.groups.isLoading == false }
        try #require(areRead, "groups are read in time")
    }

    func run(_ body: @escaping @Sendable () async throws -> Void) throws {
        let hasEnded = try host.run(atMost: .seconds(600), body)
        try #require(hasEnded, "the task waits for something that never comes")
    }

    func committed(_ group: String) -> Offset {
        var found: Offset = -1
        broker.groups.forEachCommittedOffset { name, _, committed in if name == group { found = committed.offset } }
        return found
    }

    func end() {
        let process = process
        try? run { await process.stop() }
    }
}
