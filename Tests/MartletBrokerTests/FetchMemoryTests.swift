import MartletBasics
import MartletBroker
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire
import Testing

/// A client may name one partition again and again.
private func many(_ count: Int) -> [Wanted] { [Wanted](repeating: Wanted(), count: count) }

@Suite struct FetchMemoryIsBounded {
    private func world(seed: UInt64 = 1) throws -> BrokerWorld {
        let world = try BrokerWorld(seed: seed)
        world.simulated.network.pipeBytesLimit = 4 << 20
        try world.createTopic("t")
        return world
    }

    @Test func sessionsLeaveRoomToFetchesAndClientsToFollowers() {
        let memory = FetchMemory(limit: 1000)
        #expect(memory.takeFetch(750, isFollower: false))
        #expect(!memory.takeFetch(1, isFollower: false))
        #expect(memory.takeFetch(250, isFollower: true))
        #expect(!memory.takeFetch(1, isFollower: true))
        memory.releaseFetch(750)
        #expect(memory.takeFetch(500, isFollower: false))
        for bytes in [250, 500] { memory.releaseFetch(bytes) }
        #expect(memory.inUse == 0)
    }

    @Test func whoNamesMoreThanThereIsRoomForIsTold() throws {
        let world = try world()
        let limit = world.broker.fetchMemory.partitionsLimit
        #expect(limit > 25_000)
        let (most, over) = (try world.connect(), try world.connect())
        most.send(fetch("t", many(limit), maxWaitMs: 0, id: 1))
        over.send(fetch("t", many(limit + 1), maxWaitMs: 0, id: 1))
        #expect(world.until { most.frames.count == 1 && over.hasEnded })
        #expect(try most.answer(FetchResponse.self, 0, version: 11).responses[0].partitions.count == limit)
        #expect(over.frames.isEmpty)
        #expect(world.sink.says("a fetch of \(limit + 1) partitions"))
        #expect(world.until { world.broker.fetchMemory.inUse == 0 })
    }

    /// A hundred that wait for what never comes, each with two thousand partitions, would hold a hundred megabytes.
    @Test func thoseThatFindNoRoomArePutOffAndServedWhenThereIsSome() throws {
        let world = try world()
        let memory = world.broker.fetchMemory
        let clients = try (0..<100).map { _ in try world.connect() }
        for client in clients { client.send(fetch("t", many(2_000), maxWaitMs: 20_000, id: 1)) }
        world.simulated.run(for: .seconds(2))
        let putOff = clients.filter { !$0.frames.isEmpty }
        #expect(putOff.count > 50 && putOff.count < 100)
        #expect(memory.inUse > memory.limit / 2 && memory.inUse <= memory.limit / 4 * 3)
        for client in putOff {
            let answer = try client.answer(FetchResponse.self, 0, version: 11)
            #expect(answer.throttleTimeMs > 0 && answer.errorCode == .none && answer.responses.isEmpty)
        }
        // a fetch of few partitions, and a producer, need none of it
        let bystander = try world.connect()
        bystander.send(produce("t", batch(["x"]), acks: -1, id: 1) + fetch("t", maxWaitMs: 0, id: 2))
        #expect(world.until(atMost: .seconds(1)) { bystander.frames.count == 2 })
        // what was written has ended the waits of all
        #expect(world.until(atMost: .seconds(5)) { clients.allSatisfy { !$0.frames.isEmpty } && memory.inUse == 0 })
        putOff[0].send(fetch("t", many(2_000), maxWaitMs: 0, id: 2))
        #expect(world.until(atMost: .seconds(5)) { putOff[0].frames.count == 2 })
        #expect(try putOff[0].answer(FetchResponse.self, 1, version: 11).responses[0].partitions.count == 2_000)
    }

    @Test func clientsThatGoGiveItBack() throws {
        let world = try world()
        let memory = world.broker.fetchMemory
        let clients = try (0..<10).map { _ in try world.connect() }
        for client in clients { client.send(fetch("t", many(1_000), maxWaitMs: 100_000, session: (0, 0), id: 1)) }
        world.simulated.run(for: .milliseconds(500))
        #expect(memory.inUse >= 10 * 1_000 * FetchMemory.sessionBytes)
        for client in clients { client.close() }
        #expect(world.until { world.broker.connectionsCount == 0 })
        // the sessions stay until others need their room
        world.simulated.run(for: .seconds(1))
        #expect(memory.inUse == 10 * 1_000 * FetchMemory.sessionBytes)
    }

    @Test func sessionsGiveWayAndWhereNoneDoesThereIsNone() throws {
        let world = try world()
        let memory = world.broker.fetchMemory
        let count = memory.sessionsLimit / FetchMemory.sessionBytes / 4
        func open(_ wanted: [Wanted]) throws -> (client: RawClient, id: Int32) {
            let client = try world.connect()
            client.send(fetch("t", wanted, maxWaitMs: 0, session: (0, 0), id: 1))
            #expect(world.until { client.frames.count == 1 })
            return (client, try client.answer(FetchResponse.self, 0, version: 11).sessionID)
        }
        let four = try (0..<4).map { _ in try open(many(count)) }
        #expect(four.allSatisfy { $0.id != 0 })
        #expect(try open(many(count)).id == 0, "it is answered all the same")
        // one that grows finds no room, ends, and its client begins again
        let (grown, id) = four[0]
        grown.send(fetch("u", many(1), maxWaitMs: 0, session: (id, 1), id: 2))
        grown.send(fetch("t", (1..<900).map { Wanted(partition: Int32($0)) }, maxWaitMs: 0, session: (id, 2), id: 3))
        #expect(world.until { grown.frames.count == 3 })
        #expect(try grown.answer(FetchResponse.self, 2, version: 11).errorCode == .fetchSessionIDNotFound)
        #expect(memory.inUse <= 3 * count * FetchMemory.sessionBytes)
        #expect(try open(many(count)).id != 0)
        world.simulated.run(for: FetchSessionCache.evictionAge + .seconds(1))
        #expect(try open(many(count)).id != 0, "those that nobody uses have given way")
        #expect(memory.inUse <= memory.sessionsLimit)
    }
}

@Suite struct RequestsThatBecomeLarge {
    /// Frames beside Produce are at most sixteen megabytes: what they become in memory is a multiple.
    @Test func areRefusedByTheirSizeUnlessTheyProduce() throws {
        let world = try BrokerWorld()
        func begin(_ key: Int16, _ size: Int32, pieces: Int, headBytes: Int = 8) throws -> RawClient {
            let client = try world.connect()
            client.pieceSize = pieces
            var head = ByteBuffer()
            head.int32(size)
            head.int16(key)
            head.int16(4)
            head.int32(1)
            client.send(Array(head.array.prefix(4 + headBytes)))
            world.simulated.run(for: .milliseconds(50))
            return client
        }
        for pieces in 1...12 {
            #expect(try begin(ApiKey.fetch.rawValue, 16 << 20 + 1, pieces: pieces).hasEnded)
            #expect(try begin(ApiKey.metadata.rawValue, 100 << 20, pieces: pieces).hasEnded)
            #expect(try !begin(ApiKey.fetch.rawValue, 16 << 20, pieces: pieces).hasEnded)
            #expect(try !begin(ApiKey.produce.rawValue, 100 << 20, pieces: pieces).hasEnded)
            #expect(try !begin(ApiKey.metadata.rawValue, 100 << 20, pieces: pieces, headBytes: 2).hasEnded, "as with Kafka")
        }
        #expect(world.sink.says("for fetch, where 16777216 are the most for what is not Produce"))
    }

    @Test func areRefusedByWhatTheyWouldBeAnsweredWith() throws {
        let world = try BrokerWorld()
        world.simulated.network.pipeBytesLimit = 4 << 20
        try world.createTopic("t")
        var resource = DescribeConfigsRequest.DescribeConfigsResource()
        (resource.resourceType, resource.resourceName, resource.configurationKeys) = (2, "t", nil)
        var described = DescribeConfigsRequest()
        described.includeSynonyms = true
        var created = CreateTopicsRequest()
        created.validateOnly = true
        created.topics = (0..<100_000).map { index in
            var topic = CreateTopicsRequest.CreatableTopic()
            (topic.name, topic.numPartitions, topic.replicationFactor) = ("n\(index)", 1, 1)
            return topic
        }
        var produced = ProduceRequest()
        var data = ProduceRequest.TopicProduceData()
        data.name = "t"
        data.partitionData = [ProduceRequest.PartitionProduceData](repeating: .init(), count: 500_000)
        produced.topicData = [data]
        produced.acks = 1
        described.resources = [DescribeConfigsRequest.DescribeConfigsResource](repeating: resource, count: 100_000)
        for bytes in [
            frame(described, version: 4, id: 1), frame(created, version: 7, id: 1), frame(produced, version: 9, id: 1),
        ] {
            let client = try world.connect()
            client.send(bytes)
            #expect(world.until(atMost: .seconds(120)) { client.hasEnded })
            #expect(client.frames.isEmpty)
        }
        // what is asked for in reason is answered
        described.resources = [DescribeConfigsRequest.DescribeConfigsResource](repeating: resource, count: 100)
        let client = try world.connect()
        client.send(frame(described, version: 4, id: 1))
        #expect(world.until { client.frames.count == 1 })
        #expect(try client.answer(DescribeConfigsResponse.self, 0, version: 4).results.count == 100)
    }
}
