import MartletBasics
import MartletBroker
import MartletModel
import MartletSimulation
import MartletWire
import Testing

@Suite struct ConnectionsOfABroker {
    @Test func requestsAreAnsweredInOrderHoweverTheirBytesAreCut() throws {
        for seed: UInt64 in 1...6 {
            let world = try BrokerWorld(seed: seed, loops: 2)
            try world.createTopic("t")
            let client = try world.connect()
            client.pieceSize = [1, 3, 17, 100, 1000, .max][Int(seed) - 1]
            var bytes: [UInt8] = []
            for id: Int32 in 0..<60 {
                switch id % 5 {
                case 3: bytes += metadata(id: id)
                case 4: bytes += fetch("t", maxWaitMs: 10, minBytes: 1 << 20, id: id)
                default: bytes += produce("t", batch(["record \(id)"]), acks: id % 2 == 0 ? 1 : -1, id: id)
                }
            }
            client.send(bytes)
            #expect(world.until { client.frames.count == 60 }, "seed \(seed)")
            #expect(client.correlationIDs == Array(0..<60))
            let last = try client.answer(ProduceResponse.self, 57, version: 9)
            #expect(last.responses[0].partitionResponses[0].baseOffset == 35)
        }
    }

    @Test func whatIsProducedIsReadByTheFetchBehindIt() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let client = try world.connect()
        let records = batch(["a", "b"])
        client.send(produce("t", records, acks: 0, id: 1) + fetch("t", id: 2))
        #expect(world.until { client.frames.count == 1 })
        let answer = try client.answer(FetchResponse.self, 0, version: 11)
        guard case .owned(let read)? = answer.responses.first?.partitions.first?.records else { return #expect(Bool(false)) }
        #expect(read.count == records.count)
    }

    @Test func aClientThatPipelinesBehindALongPollIsNotRead() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let client = try world.connect()
        var bytes = fetch("t", maxWaitMs: 20_000, id: 0)
        let name = String(repeating: "x", count: 300)
        for id: Int32 in 1...10_000 { bytes += metadata(id: id, client: name) }
        client.send(bytes)
        world.simulated.run(for: .seconds(10))
        #expect(client.frames.isEmpty)
        #expect(client.sentCount < 1_600_000, "\(client.sentCount) of \(bytes.count) bytes were taken")
        #expect(world.until { client.frames.count == 10_001 })
        #expect(client.correlationIDs == Array(0...10_000))
    }

    @Test func aReaderThatNeverReadsIsAnsweredNoMoreThanItsOutboxHolds() throws {
        let world = try BrokerWorld()
        try world.createTopic("t", partitions: 500)
        let client = try world.connect()
        client.isReading = false
        client.read(false)
        var bytes: [UInt8] = []
        for id: Int32 in 0..<3000 { bytes += metadata(id: id) }
        client.send(bytes)
        world.simulated.run(for: .seconds(5))
        #expect(world.broker.largestOutbox < 5 << 20, "\(world.broker.largestOutbox) bytes wait to be sent")
        client.read(true)
        #expect(world.until(atMost: .seconds(300)) { client.frames.count == 3000 })
        #expect(client.correlationIDs == Array(0..<3000))
    }

    @Test func whatFollowsGoodFramesAndIsNoneEndsTheConnectionAfterTheirAnswers() throws {
        let world = try BrokerWorld()
        for garbage in [
            [0xFF, 0xFF, 0xFF, 0xFF], [0x7F, 0xFF, 0xFF, 0xFF, 1], Array("GET / HTTP/1.1\r\n\r\n".utf8), [0, 0, 0, 0],
            [0, 0, 0, 2, 0, 3],
        ] as [[UInt8]] {
            let client = try world.connect()
            client.send(metadata(id: 7) + garbage)
            #expect(world.until { client.hasEnded })
            #expect(client.correlationIDs == [7])
        }
        #expect(world.broker.connectionsCount == 0)
        #expect(world.sink.says("speaks HTTP"))
    }

    @Test func aClientThatEndsItsSideBehindItsRequestsHasThemCarriedOut() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let client = try world.connect()
        var bytes: [UInt8] = []
        for id: Int32 in 0..<20 { bytes += produce("t", batch(["\(id)"]), acks: 0, id: id) }
        client.send(
            bytes + produce("t", noise(200_000, seed: 1, codec: .gzip), acks: 0, id: 20)
                + produce("t", batch(["last"]), acks: 0, id: 21))
        client.finishSending()
        #expect(world.until { client.hasEnded })
        #expect(world.partition("t")?.logEndOffset == 221)
        #expect(world.broker.connectionsCount == 0)
    }

    @Test func aPollerThatGoesLeavesNobodyWaiting() throws {
        let world = try BrokerWorld(loops: 2)
        try world.createTopic("t")
        for isSession in [false, true] {
            let client = try world.connect()
            client.send(fetch("t", maxWaitMs: 600_000, session: isSession ? (0, 0) : (0, -1), id: 0))
            #expect(world.until { world.partition("t")!.watchersCount == 1 })
            client.close()
            #expect(world.until { world.broker.connectionsCount == 0 })
            if isSession { world.simulated.run(for: .seconds(200)) }
            #expect(world.partition("t")!.watchersCount == 0)
        }
    }

    @Test func aFailedProduceThatIsNotAcknowledgedEndsTheConnection() throws {
        let world = try BrokerWorld()
        let client = try world.connect()
        client.send(metadata(id: 1) + produce("nowhere", batch(["a"]), acks: 0, id: 2) + metadata(id: 3))
        #expect(world.until { client.hasEnded })
        #expect(client.correlationIDs == [1])
    }

    @Test func framesBeyondTheRequestMemoryWaitForThoseBeforeThem() throws {
        let world = try BrokerWorld([("queued.max.request.bytes", "300000"), ("socket.request.max.bytes", "300000")])
        try world.createTopic("t")
        let clients = try (0..<6).map { _ in try world.connect() }
        let records = noise(250_000, seed: 2, codec: .none)
        for (index, client) in clients.enumerated() {
            client.pieceSize = 1000 + index
            client.send(produce("t", records, id: Int32(index)))
        }
        var most = 0
        let isDone = world.until(atMost: .seconds(60)) {
            most = max(most, world.broker.requestBytesInUse)
            return clients.allSatisfy { $0.frames.count == 1 }
        }
        #expect(isDone)
        #expect(most > 200_000 && most <= 300_000)
        #expect(world.broker.requestBytesInUse == 0)
        #expect(world.partition("t")!.logEndOffset == 6 * 250)
    }

    @Test func whoGoesWhileWaitingForMemoryGivesUpItsPlace() throws {
        let world = try BrokerWorld([("queued.max.request.bytes", "300000"), ("socket.request.max.bytes", "300000")])
        try world.createTopic("t")
        let whole = produce("t", noise(250_000, seed: 3, codec: .none), id: 1)
        let (holder, waiter, last) = (try world.connect(), try world.connect(), try world.connect())
        holder.send(Array(whole[..<100_000]))
        world.simulated.run(for: .seconds(1))
        waiter.send(whole)
        world.simulated.run(for: .seconds(1))
        waiter.close()
        last.send(whole)
        world.simulated.run(for: .seconds(1))
        holder.close()
        #expect(world.until { last.frames.count == 1 })
        #expect(world.broker.requestBytesInUse == 0)
    }

    @Test func aTopicDeletedUnderAWaitingFetchIsSaidToBeUnknown() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let client = try world.connect()
        client.send(fetch("t", maxWaitMs: 600_000, id: 0))
        #expect(world.until { world.partition("t")!.watchersCount == 1 })
        let cluster = world.broker.cluster
        let id = cluster.metadata.current.topic("t")!.id
        try world.run { _ = await cluster.deleteTopic("t", id: id) }
        #expect(world.until { client.frames.count == 1 })
        let error = try client.answer(FetchResponse.self, 0, version: 11).responses[0].partitions[0].errorCode
        #expect(error == .unknownTopicOrPartition || error == .notLeaderOrFollower)
    }

    @Test func aBrokerThatStopsLeavesNoRequestWaiting() throws {
        let world = try BrokerWorld(loops: 2)
        try world.createTopic("t")
        let clients = try (0..<4).map { _ in try world.connect() }
        for client in clients { client.send(fetch("t", maxWaitMs: 600_000, id: 0)) }
        clients[3].send(produce("t", noise(300_000, seed: 4, codec: .gzip), id: 1))
        #expect(world.until { world.partition("t")!.watchersCount == 4 })
        try world.stop()
        #expect(world.until { clients.allSatisfy(\.hasEnded) })
        #expect(world.broker.connectionsCount == 0)
    }

    @Test func idleAndSlowConnectionsAreClosedAndBusyOnesAreNot() throws {
        let world = try BrokerWorld([("connections.max.idle.ms", "5000")])
        try world.createTopic("t")
        let (idle, poller, slow) = (try world.connect(), try world.connect(), try world.connect())
        poller.send(fetch("t", maxWaitMs: 60_000, id: 0))
        slow.send([0, 1, 0, 0, 0])
        world.simulated.run(for: .seconds(4))
        #expect(!idle.hasEnded)
        world.simulated.run(for: .seconds(4))
        #expect(idle.hasEnded && !poller.hasEnded && !slow.hasEnded)
        world.simulated.run(for: .seconds(30))
        #expect(slow.hasEnded && !poller.hasEnded)
        #expect(world.until(atMost: .seconds(60)) { poller.frames.count == 1 })
    }

    @Test func connectionsBeyondTheLimitsAreRefusedAndCountAgainWhenClosed() throws {
        let world = try BrokerWorld([("max.connections.per.ip", "2")])
        let (a, b, c) = (try world.connect(), try world.connect(), try world.connect())
        #expect(world.until { c.hasEnded })
        #expect(!a.hasEnded && !b.hasEnded)
        a.close()
        #expect(world.until { world.broker.connectionsCount == 1 })
        let d = try world.connect()
        d.send(metadata(id: 1))
        #expect(world.until { d.frames.count == 1 })

        let named = try BrokerWorld([
            ("max.connections.per.ip", "0"), ("max.connections.per.ip.overrides", "\(world.clients.address):1"),
        ])
        let (e, f) = (try named.connect(), try named.connect())
        #expect(named.until { f.hasEnded })
        #expect(!e.hasEnded)
        let few = try BrokerWorld([("max.connections", "1")])
        let (g, h) = (try few.connect(), try few.connect())
        h.send(metadata(id: 1))
        few.simulated.run(for: .seconds(2))
        #expect(!g.hasEnded && !h.hasEnded && h.frames.isEmpty, "as in Kafka it waits for a place")
        g.close()
        #expect(few.until { h.frames.count == 1 })
    }
}
