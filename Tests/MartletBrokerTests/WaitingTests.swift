import MartletBasics
import MartletBroker
import MartletModel
import MartletSimulation
import MartletWire
import Testing

@Suite struct LargeBatches {
    @Test func largeCompressedBatchesAreAppendedInTheOrderOfTheirRequests() throws {
        for seed: UInt64 in 1...4 {
            let world = try BrokerWorld(seed: seed, loops: 2)
            try world.createTopic("t")
            let client = try world.connect()
            if seed > 2 { client.pieceSize = 5000 }
            var bytes: [UInt8] = []
            for id: Int32 in 0..<8 {
                switch id % 4 {
                case 0: bytes += produce("t", noise(150_000, seed: UInt64(id), codec: .gzip), acks: -1, id: id)
                case 1: bytes += produce("t", batch(["small"]), id: id)
                case 2: bytes += produce("t", noise(100_000, seed: UInt64(id), codec: .lz4), id: id)
                default: bytes += fetch("t", [Wanted(offset: 0)], maxWaitMs: 1, id: id)
                }
            }
            client.send(bytes)
            #expect(world.until { client.frames.count == 8 }, "seed \(seed)")
            #expect(client.correlationIDs == Array(0..<8))
            var offsets: [Int64] = []
            for index in [0, 1, 2, 4, 5, 6] {
                let answer = try client.answer(ProduceResponse.self, index, version: 9).responses[0].partitionResponses[0]
                #expect(answer.errorCode == .none)
                offsets.append(answer.baseOffset)
            }
            #expect(offsets == [0, 150, 151, 251, 401, 402])
            #expect(world.broker.requestBytesInUse == 0)
        }
    }

    @Test func aLargeBatchIsWrittenAnewInTheCodecOfItsTopicAndOneThatIsBrokenIsRefused() throws {
        let world = try BrokerWorld()
        try world.createTopic("t", configs: [("compression.type", "zstd")])
        let client = try world.connect()
        var broken = noise(200_000, seed: 2, codec: .gzip)
        broken[100_000] ^= 1
        client.send(
            produce("t", noise(200_000, seed: 1, codec: .none), id: 0) + produce("t", broken, id: 1)
                + produce("nowhere", noise(200_000, seed: 3, codec: .gzip), id: 2) + fetch("t", id: 3))
        #expect(world.until { client.frames.count == 4 })
        let errors = try (0..<3).map { try client.answer(ProduceResponse.self, $0, version: 9).responses[0].partitionResponses[0].errorCode }
        #expect(errors == [.none, .corruptMessage, .unknownTopicOrPartition])
        guard case .owned(let records)? = try client.answer(FetchResponse.self, 3, version: 11).responses[0].partitions[0].records else {
            return #expect(Bool(false))
        }
        #expect(records.withUnsafeBytes { BatchHeader($0).codec } == .zstd)
    }

    @Test func clientsThatSendMoreThanTheLaneTakesAreServedAllTheSame() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let records = noise(70_000, seed: 1, codec: .lz4)
        let clients = try (0..<90).map { _ in try world.connect() }
        for client in clients { client.send(produce("t", records, id: 1) + produce("t", records, id: 2)) }
        #expect(world.until(atMost: .seconds(60)) { clients.allSatisfy { $0.frames.count == 2 } })
        #expect(world.partition("t")!.logEndOffset == 90 * 140)
    }

    @Test func aClientThatGoesWhileItsBatchIsCheckedLeavesNothingBehind() throws {
        for seed: UInt64 in 1...10 {
            let world = try BrokerWorld(seed: seed)
            try world.createTopic("t")
            let client = try world.connect()
            client.send(produce("t", noise(300_000, seed: 1, codec: .gzip), id: 1))
            #expect(world.until { client.hasSentAll })
            client.close()
            #expect(world.until { world.broker.connectionsCount == 0 })
            world.simulated.run(for: .seconds(1))
            #expect(world.broker.requestBytesInUse == 0)
            #expect([0, 300].contains(world.partition("t")!.logEndOffset))
        }
    }
}

@Suite struct WaitingSessions {
    @Test func aSessionWatchesOnceHoweverOftenItPolls() throws {
        let world = try BrokerWorld()
        try world.createTopic("t", partitions: 3)
        let (consumer, producer) = (try world.connect(), try world.connect())
        consumer.send(fetch("t", [Wanted(partition: 0), Wanted(partition: 1)], maxWaitMs: 50, session: (0, 0), id: 0))
        #expect(world.until { consumer.frames.count == 1 })
        let session = try consumer.answer(FetchResponse.self, 0, version: 11).sessionID
        #expect(session > 0)
        for epoch: Int32 in 1...5 {
            consumer.send(fetch("t", [], maxWaitMs: 50, session: (session, epoch), id: epoch))
            #expect(world.until { consumer.frames.count == Int(epoch) + 1 })
            #expect((0..<3).map { world.partition("t", $0)!.watchersCount } == [1, 1, 0])
        }

        consumer.send(fetch("t", [], maxWaitMs: 100_000, session: (session, 6), id: 6))
        world.simulated.run(for: .milliseconds(100))
        producer.send(produce("t", batch(["x"]), partition: 1, id: 1))
        #expect(world.until(atMost: .seconds(2)) { consumer.frames.count == 7 }, "the append wakes the session's poll")
        let answer = try consumer.answer(FetchResponse.self, 6, version: 11)
        #expect(answer.responses[0].partitions.map(\.partitionIndex) == [1])

        consumer.send(fetch("t", [Wanted(partition: 2)], maxWaitMs: 50, session: (session, 7), forgotten: [0, 1], id: 7))
        #expect(world.until { consumer.frames.count == 8 })
        #expect((0..<3).map { world.partition("t", $0)!.watchersCount } == [0, 0, 1])
        consumer.send(fetch("t", [Wanted(partition: 2)], maxWaitMs: 0, session: (session, -1), id: 8))
        #expect(world.until { consumer.frames.count == 9 })
        #expect((0..<3).map { world.partition("t", $0)!.watchersCount } == [0, 0, 0])
    }

    @Test func aSessionThatNobodyUsesAnyMoreWatchesNothingAndWatchesAgainWhenItIsUsed() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let consumer = try world.connect()
        consumer.send(fetch("t", maxWaitMs: 10, session: (0, 0), id: 0))
        #expect(world.until { consumer.frames.count == 1 })
        #expect(world.partition("t")!.watchersCount == 1)
        world.simulated.run(for: .seconds(200))
        #expect(world.partition("t")!.watchersCount == 0)
        let session = try consumer.answer(FetchResponse.self, 0, version: 11).sessionID
        consumer.send(fetch("t", [], maxWaitMs: 100_000, session: (session, 1), id: 1))
        #expect(world.until { world.partition("t")!.watchersCount == 1 })
        let producer = try world.connect()
        producer.send(produce("t", batch(["x"]), id: 1))
        #expect(world.until(atMost: .seconds(2)) { consumer.frames.count == 2 })
    }

    @Test func enoughBytesOfSeveralPartitionsWakeAFetchAndFewerDoNot() throws {
        let world = try BrokerWorld(loops: 2)
        try world.createTopic("t", partitions: 3)
        let (consumer, producer) = (try world.connect(), try world.connect())
        let records = batch([String(repeating: "x", count: 1000)])
        consumer.send(
            fetch("t", (0..<3).map { Wanted(partition: $0) }, maxWaitMs: 100_000, minBytes: Int32(records.count * 3), id: 0))
        for partition: Int32 in 0..<3 {
            world.simulated.run(for: .seconds(1))
            #expect(consumer.frames.isEmpty)
            producer.send(produce("t", records, partition: partition, id: partition))
        }
        #expect(world.until(atMost: .seconds(2)) { consumer.frames.count == 1 })
        let sizes = try consumer.answer(FetchResponse.self, 0, version: 11).responses[0].partitions.map { $0.records?.count ?? 0 }
        #expect(sizes == [records.count, records.count, records.count])
        #expect((0..<3).allSatisfy { world.partition("t", $0)!.watchersCount == 0 })
    }

    @Test func aFetchThatWantsMoreThanItMayGetIsAnsweredWithWhatItMay() throws {
        let world = try BrokerWorld([("fetch.max.bytes", "2000")])
        try world.createTopic("t")
        let client = try world.connect()
        client.send(produce("t", batch([String(repeating: "x", count: 3000)]), id: 0) + fetch("t", maxWaitMs: 100_000, minBytes: 1 << 20, id: 1))
        #expect(world.until(atMost: .seconds(5)) { client.frames.count == 2 })
    }
}

@Suite struct TopicDeletionSwitchedOff {
    @Test func isToldWithTheErrorThatTheVersionKnowsAndTheTopicStays() throws {
        let world = try BrokerWorld([("delete.topic.enable", "false")])
        try world.createTopic("t")
        let client = try world.connect()
        for version: Int16 in 1...6 {
            var request = DeleteTopicsRequest()
            if version < 6 {
                request.topicNames = ["t", "nowhere"]
            } else {
                var topic = DeleteTopicsRequest.DeleteTopicState()
                topic.name = "t"
                request.topics = [topic]
            }
            client.send(frame(request, version: version, id: Int32(version)))
            #expect(world.until { client.frames.count == Int(version) })
            let answer = try client.answer(DeleteTopicsResponse.self, Int(version) - 1, version: version)
            #expect(answer.responses.allSatisfy { $0.errorCode == (version < 3 ? .invalidRequest : .topicDeletionDisabled) })
            #expect(answer.responses.allSatisfy { $0.errorMessage == nil && $0.topicID == .zero })
            #expect(answer.responses.first?.name == "t")
        }
        #expect(world.partition("t") != nil)
    }
}
