import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletWire
import Testing

extension BrokerWorld {
    func explain(_ kind: ExplainRequest.Kind, _ name: String) throws -> ExplainResponse {
        let client = try connect()
        defer { client.close() }
        client.send(frame(ExplainRequest(kind, name), version: 0, id: 1))
        try #require(until { client.frames.count == 1 })
        let bytes = client.frames[0]
        return try bytes.withUnsafeBytes { bytes in
            var reader = ByteReader(bytes)
            _ = try reader.int32()
            return try ExplainResponse.decode(from: &reader, version: 0)
        }
    }
}

/// Each sentence comes from a group or a topic that is really stuck in this way. Those of consumer groups, transactions
/// and partitions are in `WhyIsItStuckBehind`.
@Suite struct WhyIsItStuck {
    private func reasons(_ world: GroupWorld, _ group: String = "g") throws -> [Reason] {
        try #require(world.machine.explain(group, at: world.moment)).reasons
    }

    @Test func aMemberThatDoesNotComeBackForARebalanceIsNamedWithTheTimeItHas() throws {
        var world = GroupWorld()
        let (ids, _) = world.settle(count: 2)
        _ = world.join(id: world.enter())
        world.pass(4000)
        for id in ids { #expect(world.heartbeat(id: id, generation: 2) != .unknownMemberID) }
        let found = try reasons(world)
        #expect(found.map(\.code) == ["member-not-joined", "member-not-joined"])
        #expect(Set(found.map(\.subject)) == Set(ids))
        #expect(found[0].left == .seconds(26))
        #expect(found[0].text.contains("has not joined the rebalance that is under way for 4 s"), "\(found[0].text)")
        #expect(found[0].text.contains("for 26 s more at most"), "\(found[0].text)")
    }

    @Test func whoWasGivenAnIDAndStaysAwayIsNamed() throws {
        var world = GroupWorld()
        let (ids, _) = world.settle(count: 1)
        _ = world.join(id: world.enter())
        let newcomer = world.enter()
        _ = world.join(id: ids[0])
        let found = try reasons(world)
        #expect(found.map(\.code) == ["newcomer-not-joined"])
        #expect(found.map(\.subject) == [newcomer])
    }

    @Test func aLeaderThatAssignsNothingIsNamedBeforeAllOthers() throws {
        var world = GroupWorld()
        let id = world.enter()
        #expect(world.joined(world.join(id: id)).error == .none)
        world.pass(2000)
        let found = try reasons(world)
        #expect(found.map(\.code) == ["leader-not-synced"])
        #expect(found[0].subject == id)
        #expect(found[0].text.contains("has not said who reads what for 2 s"), "\(found[0].text)")
        #expect(found[0].left == .seconds(28))
    }

    @Test func aMemberThatDoesNotAskForItsAssignmentIsNamed() throws {
        var world = GroupWorld()
        let first = world.enter()
        let generation = world.joined(world.join(id: first)).generation
        _ = world.sync(id: first, generation: generation, [first: "a"])
        let second = world.enter()
        let joining = world.join(id: second)
        let next = world.joined(world.join(id: first)).generation
        #expect(world.joined(joining).error == .none)
        world.syncsAtOnce = false
        _ = world.sync(id: first, generation: next, [first: "a", second: "b"])
        let found = try reasons(world)
        #expect(found.map(\.code) == ["member-not-synced"])
        #expect(found.map(\.subject) == [second])
        _ = world.sync(id: second, generation: next)
        #expect(try reasons(world).map(\.code) == ["assignment-not-durable"])
        world.sync()
        #expect(try reasons(world).isEmpty)
    }

    @Test func aMemberThatFallsSilentIsNamedBeforeItsSessionEnds() throws {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 2)
        world.pass(3000)
        #expect(world.heartbeat(id: ids[0], generation: generation) == .none)
        #expect(try reasons(world).isEmpty)
        world.pass(4000)
        let found = try reasons(world)
        #expect(found.map(\.code) == ["member-silent"])
        #expect(found.map(\.subject) == [ids[1]])
        #expect(found[0].left == .seconds(3))
    }

    @Test func aGroupWithoutMembersAndOneThatWaitsForMoreSaySo() throws {
        var world = GroupWorld { $0.initialDelay = .seconds(3) }
        _ = world.commit("g", [("t", 0, 5)])
        #expect(try reasons(world).map(\.code) == ["no-members"])
        _ = world.join("h", id: world.enter("h"))
        let found = try reasons(world, "h")
        #expect(found.map(\.code) == ["first-rebalance"])
        #expect(found[0].left == .seconds(3))
        #expect(world.machine.explain("nobody", at: world.moment) == nil)
    }

    @Test func ofManyReasonsOfAKindTheFirstAreToldAndTheOthersCounted() {
        var reasons = Reasons()
        for number in 0..<1000 { reasons.add(Reason("lag", "\(number)", "…")) }
        reasons.add(Reason("other", "", "…"))
        #expect(reasons.all.count == Reasons.limitPerKind + 2)
        #expect(reasons.all.last?.text == "There are 980 more of the same kind (lag).")
    }

    // MARK: A whole broker

    private func explain(_ world: BrokerWorld, _ kind: ExplainRequest.Kind, _ name: String) throws -> ExplainResponse {
        try world.explain(kind, name)
    }

    @Test func anOpenTransactionIsNamedWithWhatItHoldsBack() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let partition = world.partition("t")!
        let batches: [(ProducerID?, [String])] = [(nil, ["a", "b"]), (7, ["c", "d"]), (nil, ["e"]), (9, ["f"])]
        for (producer, values) in batches {
            let identity = producer.map {
                BatchIdentity(producerID: $0, epoch: 3, baseSequence: 0, isTransactional: true)
            }
            var builder = BatchBuilder(identity ?? BatchIdentity())
            for value in values {
                builder.append(timestamp: 1_700_000_000_000, key: nil, value: Array(value.utf8), headers: [])
            }
            var output = ByteBuffer()
            builder.finish(into: &output, codec: .none, contexts: CodecContexts())
            let bytes = output.array
            world.host.loops[0].execute {
                var appended = bytes
                appended.withUnsafeMutableBytes { batch in
                    let token = AppendToken(answer: 0, index: 0)
                    let request = AppendRequest(.none, owner: nil, token: token, deadline: .distantFuture)
                    guard case .reserved = partition.append(batch, request) else { return #expect(Bool(false), "not appended") }
                    var effects = PartitionEffects()
                    partition.writeReserved(&effects)
                    effects.deliver()
                }
            }
            world.simulated.run(for: .milliseconds(100))
        }
        #expect(world.until { partition.highWatermark == 6 })
        let found = try explain(world, .topic, "t").reasons
        #expect(found.map(\.code) == ["open-transaction"])
        #expect(found[0].subject == "t-0")
        #expect(found[0].text.contains("a transaction of producer 7 (epoch 3)"), "\(found[0].text)")
        #expect(found[0].text.contains("since offset 2: 4 records from there on cannot be read"), "\(found[0].text)")
        #expect(found[0].text.contains("1 other transaction must end"), "\(found[0].text)")
    }

    @Test func aClientThatIsThrottledIsNamedWithItsQuota() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        #expect(try world.setQuotas([("client-id", "test")], ("producer_byte_rate", 1000)) == .none)
        let client = try world.connect()
        client.send(produce("t", batch([String(repeating: "x", count: 20_000)]), id: 1))
        try #require(world.until { client.frames.count == 1 })
        let found = try explain(world, .topic, "t").reasons
        #expect(found.map(\.code) == ["quota"])
        #expect(found[0].text.contains("producer_byte_rate holds back client test"), "\(found[0].text)")
        #expect((5_000...11_000).contains(found[0].leftMs))
        world.simulated.run(for: .seconds(15))
        #expect(try explain(world, .topic, "t").reasons.isEmpty)
    }

    @Test func whatIsNotThereIsAnErrorAndWhatCannotBeReadClosesTheConnection() throws {
        let world = try BrokerWorld()
        #expect(try explain(world, .topic, "nothing").errorCode == .unknownTopicOrPartition)
        let client = try world.connect()
        var bytes = frame(ExplainRequest(.topic, "t"), version: 0, id: 1)
        bytes[bytes.count - 4] = 9
        client.send(bytes)
        #expect(world.until { client.hasEnded })
    }

    @Test func onlyOurOwnClientIsToldThatItCanAsk() throws {
        let world = try BrokerWorld()
        for (name, isTold) in [("martlet", true), ("librdkafka", false)] {
            var request = ApiVersionsRequest()
            (request.clientSoftwareName, request.clientSoftwareVersion) = (name, "1")
            let keys = try world.ask(request, version: 4).apiKeys.map(\.apiKey)
            #expect(keys.contains(ExplainApi.key) == isTold)
        }
    }
}
