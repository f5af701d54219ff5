import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletSimulation
import MartletWire
import Testing

extension BrokerWorld {
    @discardableResult
    func setQuotas(_ entity: [(String, String?)], _ values: (String, Double?)...) throws -> ErrorCode {
        var entry = AlterClientQuotasRequest.EntryData()
        entry.entity = entity.map { type, name in
            var data = AlterClientQuotasRequest.EntityData()
            (data.entityType, data.entityName) = (type, name)
            return data
        }
        entry.ops = values.map { key, value in
            var op = AlterClientQuotasRequest.OpData()
            (op.key, op.value, op.remove) = (key, value ?? 0, value == nil)
            return op
        }
        var request = AlterClientQuotasRequest()
        request.entries = [entry]
        return try ask(request, version: 1).entries[0].errorCode
    }
}

/// A producer, or a consumer, that does what it is told to: it waits, or it does not care.
private final class Pumper: @unchecked Sendable {
    let client: RawClient
    let name: String
    private let world: BrokerWorld
    private(set) var answered = 0
    private(set) var throttled = 0
    private(set) var bytes = 0
    private var offset: Int64 = 0

    init(_ world: BrokerWorld, _ name: String) throws {
        client = try world.connect()
        self.name = name
        self.world = world
    }

    /// Sends one request if the last was answered.
    func produce(_ records: [UInt8]) throws {
        try take(ProduceResponse.self, version: 9) { ($0.throttleTimeMs, 0) }
        guard answered == sent else { return }
        sent += 1
        let request = ProduceRequest(records, to: "t", acks: 1)
        let bytes = frame(request, version: 9, id: Int32(sent), client: name)
        self.bytes += bytes.count
        client.send(bytes)
    }

    func consume() throws {
        try take(FetchResponse.self, version: 11) { response in
            let records = response.responses.first?.partitions.first?.records?.count ?? 0
            if records > 0 { self.offset += 1 }
            return (response.throttleTimeMs, records)
        }
        guard answered == sent else { return }
        sent += 1
        client.send(fetchRequest(from: offset % 100))
    }

    private var sent = 0

    /// Where the first frame begins that was not looked at: all of them each time would take their square.
    private var seen = 0

    private func take<R: WireResponse>(_: R.Type, version: Int16, _ read: (R) -> (Int32, Int)) throws {
        while client.received.count - seen >= 4 {
            let size = client.received[seen..<(seen + 4)].reduce(0) { $0 << 8 | Int($1) }
            guard client.received.count - seen - 4 >= size else { return }
            let (throttle, count) = try client.received[(seen + 4)..<(seen + 4 + size)].withUnsafeBytes { bytes in
                var reader = ByteReader(bytes)
                _ = try reader.int32()
                if ApiKey(rawValue: R.apiKey)!.responseHeaderVersion(version) >= 1 { try reader.skipTaggedFields() }
                return read(try R.decode(from: &reader, version: version))
            }
            seen += 4 + size
            answered += 1
            bytes += count
            if throttle > 0 { throttled += 1 }
        }
    }

    private func fetchRequest(from offset: Int64) -> [UInt8] {
        var partition = FetchRequest.FetchPartition()
        partition.fetchOffset = offset
        partition.partitionMaxBytes = 20_000
        var topic = FetchRequest.FetchTopic()
        topic.topic = "t"
        topic.partitions = [partition]
        var request = FetchRequest()
        (request.minBytes, request.maxWaitMs, request.maxBytes, request.sessionEpoch) = (1, 500, 1 << 20, -1)
        request.topics = [topic]
        return frame(request, version: 11, id: Int32(sent), client: name)
    }
}

@Suite struct Throttling {
    /// Runs the steps every 20 ms of a simulated time.
    private func run(_ world: BrokerWorld, seconds: Int, _ step: () throws -> Void) throws {
        for _ in 0..<(seconds * 50) {
            try step()
            world.simulated.run(for: .milliseconds(20))
        }
    }

    @Test func aProducerIsHeldToItsQuotaOverTimeAndAnotherIsNotDisturbed() throws {
        for seed: UInt64 in 1...2 {
            let world = try BrokerWorld(seed: seed, loops: 2)
            try world.createTopic("t")
            #expect(try world.setQuotas([("client-id", "greedy")], ("producer_byte_rate", 20_000)) == .none)
            let records = batch([String(repeating: "x", count: 1000)])
            let greedy = try Pumper(world, "greedy"), twin = try Pumper(world, "greedy"), other = try Pumper(world, "other")
            try run(world, seconds: 120) {
                try greedy.produce(records)
                try twin.produce(records)
                try other.produce(records)
            }
            // what may come at once is spread over the two minutes
            let rate = Double(greedy.bytes + twin.bytes) / 120
            #expect((19_000...22_500).contains(rate), "seed \(seed): \(rate)")
            #expect(greedy.throttled > 5)
            #expect(other.throttled == 0 && other.answered > 5900, "\(other.answered)")
        }
    }

    @Test func aConsumerIsHeldToItsQuotaAndAnotherIsNotDisturbed() throws {
        let world = try BrokerWorld(seed: 5)
        try world.createTopic("t")
        let filler = try world.connect()
        for id: Int32 in 0..<101 { filler.send(produce("t", batch([String(repeating: "x", count: 2000)]), id: id)) }
        #expect(world.until { filler.frames.count == 101 })
        #expect(try world.setQuotas([("user", nil), ("client-id", "greedy")], ("consumer_byte_rate", 50_000)) == .none)
        let greedy = try Pumper(world, "greedy"), other = try Pumper(world, "other")
        try run(world, seconds: 120) {
            try greedy.consume()
            try other.consume()
        }
        let rate = Double(greedy.bytes) / 120
        #expect((45_000...55_000).contains(rate), "\(rate)")
        #expect(greedy.throttled > 5)
        #expect(other.throttled == 0 && other.bytes > 10 * greedy.bytes, "\(other.bytes)")
    }

    @Test func aConsumerWhoseQuotaIsSmallerThanABatchGetsItNowAndThen() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let filler = try world.connect()
        filler.send(produce("t", batch([String(repeating: "x", count: 50_000)]), id: 1))
        #expect(world.until { filler.frames.count == 1 })
        #expect(try world.setQuotas([("client-id", nil)], ("consumer_byte_rate", 100)) == .none)
        let client = try world.connect()
        for id: Int32 in 0..<3 { client.send(fetch("t", id: id)) }
        try #require(world.until(atMost: .seconds(30)) { client.frames.count == 3 })
        let answers = try (0..<3).map { try client.answer(FetchResponse.self, $0, version: 11) }
        #expect(answers.map { $0.responses.isEmpty } == [false, true, false])
        #expect(answers[1].throttleTimeMs > 0)
    }

    @Test func aThrottledFetchKeepsItsSessionAndANewOneGetsNone() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let filler = try world.connect()
        for id: Int32 in 0..<4 { filler.send(produce("t", batch([String(repeating: "x", count: 9000)]), id: id)) }
        #expect(world.until { filler.frames.count == 4 })
        #expect(try world.setQuotas([("client-id", nil)], ("consumer_byte_rate", 2000)) == .none)
        let client = try world.connect()
        client.send(fetch("t", session: (0, 0), id: 1))
        try #require(world.until { client.frames.count == 1 })
        let first = try client.answer(FetchResponse.self, 0, version: 11)
        #expect(first.sessionID != 0 && first.throttleTimeMs == 0)
        client.send(fetch("t", [Wanted(offset: 2)], session: (first.sessionID, 1), id: 2))
        try #require(world.until { client.frames.count == 2 })
        let second = try client.answer(FetchResponse.self, 1, version: 11)
        #expect(second.throttleTimeMs > 0 && second.sessionID == first.sessionID && second.responses.isEmpty)
        client.send(fetch("t", [], session: (first.sessionID, 2), id: 3))
        try #require(world.until(atMost: .seconds(60)) { client.frames.count == 3 })
        #expect(try client.answer(FetchResponse.self, 2, version: 11).responses.count == 1)
        client.send(fetch("t", [Wanted(offset: 0)], session: (0, 0), id: 4))
        try #require(world.until(atMost: .seconds(60)) { client.frames.count == 4 })
        let last = try client.answer(FetchResponse.self, 3, version: 11)
        #expect(last.throttleTimeMs > 0 && last.sessionID == 0)
    }

    @Test func aMutedConnectionIsAnsweredAtOnceAndReadNoFurtherUntilItsTime() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        #expect(try world.setQuotas([("client-id", "test")], ("producer_byte_rate", 1000)) == .none)
        let client = try world.connect()
        let one = produce("t", batch([String(repeating: "x", count: 15_000)]), id: 1)
        client.send(one + metadata(id: 2) + metadata(id: 3))
        #expect(world.until(atMost: .milliseconds(500)) { client.frames.count == 1 })
        let wait = try client.answer(ProduceResponse.self, 0, version: 9).throttleTimeMs
        #expect((5000...5300).contains(wait), "\(wait)")
        world.simulated.run(for: .milliseconds(Int64(wait) - 1000))
        #expect(client.frames.count == 1)
        #expect(world.until(atMost: .milliseconds(1500)) { client.frames.count == 3 })
        #expect(client.correlationIDs == [1, 2, 3])
    }

    @Test func whoLeavesWhileHeIsMutedLeavesNothingBehindAndWhatHeSentCounts() throws {
        for seed: UInt64 in 1...8 {
            let world = try BrokerWorld(seed: seed)
            try world.createTopic("t")
            #expect(try world.setQuotas([("client-id", "test")], ("producer_byte_rate", 1000)) == .none)
            let client = try world.connect()
            let records = batch([String(repeating: "x", count: 12_000)])
            client.send(produce("t", records, acks: 0, id: 1) + produce("t", records, acks: 0, id: 2))
            // what is sent is taken up by the client's loop first
            world.simulated.run(for: .milliseconds(5))
            #expect(world.until { client.hasSentAll })
            client.finishSending()
            #expect(world.until(atMost: .seconds(60)) { world.broker.connectionsCount == 0 }, "seed \(seed)")
            #expect(world.partition("t")!.logEndOffset == 2, "seed \(seed)")
            #expect(world.broker.requestBytesInUse == 0)
        }
    }

    @Test func quotasTakenBackLetGoAtOnce() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        #expect(try world.setQuotas([("user", "ANONYMOUS")], ("producer_byte_rate", 1000)) == .none)
        let records = batch([String(repeating: "x", count: 12_000)])
        let client = try world.connect()
        client.send(produce("t", records, id: 1))
        try #require(world.until { client.frames.count == 1 })
        #expect(try client.answer(ProduceResponse.self, 0, version: 9).throttleTimeMs > 0)
        #expect(try world.setQuotas([("user", "ANONYMOUS")], ("producer_byte_rate", nil)) == .none)
        client.send(produce("t", records, id: 2))
        try #require(world.until { client.frames.count == 2 })
        #expect(try client.answer(ProduceResponse.self, 1, version: 9).throttleTimeMs == 0)
    }

    @Test func changesOfPartitionsBeyondTheQuotaAreRefusedToNewClientsAndSlowDownOldOnes() throws {
        let world = try BrokerWorld()
        #expect(try world.setQuotas([("client-id", "test")], ("controller_mutation_rate", 1)) == .none)
        func create(_ name: String, _ partitions: Int32, version: Int16) throws -> (ErrorCode, Int32) {
            var topic = CreateTopicsRequest.CreatableTopic()
            (topic.name, topic.numPartitions, topic.replicationFactor) = (name, partitions, 1)
            var request = CreateTopicsRequest()
            (request.topics, request.timeoutMs) = ([topic], 10_000)
            let answer = try world.ask(request, version: version)
            return (answer.topics[0].errorCode, answer.throttleTimeMs)
        }
        let first = try create("a", 14, version: 7)
        #expect(first.0 == .none && (3000...4100).contains(first.1), "\(first)")
        let refused = try create("b", 1, version: 6)
        #expect(refused.0 == .throttlingQuotaExceeded && refused.1 > 0)
        // what is wrong besides is said first
        #expect(try create("b", -7, version: 6).0 == .invalidPartitions)
        let old = try create("b", 1, version: 5)
        #expect(old.0 == .none && old.1 > 0)
        world.simulated.run(for: .seconds(10))
        #expect(try create("c", 1, version: 7) == (.none, 0))
    }

    @Test func theWindowsOfChangesOfPartitionsAreAsLongAsIsSet() throws {
        let world = try BrokerWorld([("controller.quota.window.size.seconds", "30"), ("controller.quota.window.num", "3")])
        try world.setQuotas([("client-id", "test")], ("controller_mutation_rate", 1))
        func create(_ name: String, _ partitions: Int32) throws -> Int32 {
            var topic = CreateTopicsRequest.CreatableTopic()
            (topic.name, topic.numPartitions, topic.replicationFactor) = (name, partitions, 1)
            var request = CreateTopicsRequest()
            (request.topics, request.timeoutMs) = ([topic], 10_000)
            return try world.ask(request, version: 7).throttleTimeMs
        }
        #expect(try create("within", 50) == 0)
        #expect((4_000...20_000).contains(try create("beyond", 30)))
    }

    @Test func anAddressThatConnectsTooOftenIsClosedAfterAWhile() throws {
        let world = try BrokerWorld()
        #expect(try world.setQuotas([("ip", world.clients.address)], ("connection_creation_rate", 1)) == .none)
        for _ in 0..<9 { _ = try world.connect() }
        // one of the ten was the question's own, before there was a quota
        let last = try (0..<3).map { _ in try world.connect() }
        #expect(world.until { last[2].hasEnded })
        #expect(world.broker.connectionsCount >= 9)
    }

    @Test func beyondTheRateOfConnectionsTheyAreAcceptedLaterAndAllInTheEnd() throws {
        let world = try BrokerWorld([("listener.name.plaintext.max.connection.creation.rate", "2")])
        let clients = try (0..<26).map { _ in try world.connect() }
        for client in clients { client.send(metadata(id: 1)) }
        world.simulated.run(for: .milliseconds(200))
        let early = clients.count { !$0.frames.isEmpty }
        #expect((18...21).contains(early), "\(early)")
        #expect(world.until(atMost: .seconds(30)) { clients.allSatisfy { !$0.frames.isEmpty } })
    }

    @Test func whoseRequestsTakeMoreTimeThanItMayHaveIsToldToWaitAndReadNoFurtherForSoLong() throws {
        let world = try BrokerWorld()
        world.host.workPerLook = .microseconds(500)
        // a hundredth of a processor, of which ten seconds' worth may come at once
        #expect(try world.setQuotas([("client-id", "busy")], ("request_percentage", 1)) == .none)
        let busy = try world.connect(), other = try world.connect()
        var count = 0
        func ask(_ client: RawClient, _ name: String) throws -> Int32 {
            let before = client.frames.count
            client.send(metadata(id: 1, client: name))
            try #require(world.until { client.frames.count > before })
            return try client.answer(MetadataResponse.self, before, version: 9).throttleTimeMs
        }
        var wait: Int32 = 0
        while wait == 0, count < 400 { (wait, count) = (try ask(busy, "busy"), count + 1) }
        // 100 ms of work, of at least one millisecond and at most five a request
        #expect((20...101).contains(count), "\(count) requests before it had to wait")
        #expect((1...1000).contains(wait), "\(wait) ms: a window at most")
        for _ in 0..<50 { #expect(try ask(other, "other") == 0, "who has no quota never waits") }
        // beyond it by far the wait is a whole window, and the connection takes nothing for as long
        for _ in 0..<200 where wait < 1000 { wait = try ask(busy, "busy") }
        #expect(wait == 1000)
        let muted = busy.frames.count
        busy.send(metadata(id: 2, client: "busy"))
        world.simulated.run(for: .milliseconds(950))
        #expect(busy.frames.count == muted, "it was read all the same")
        #expect(world.until(atMost: .milliseconds(200)) { busy.frames.count == muted + 1 })
        // when all windows are over nothing is owed
        world.simulated.run(for: .seconds(15))
        #expect(try ask(busy, "busy") == 0)
    }

    @Test func beyondTheLimitOfAListenerTheyWaitForAPlaceAndOtherListenersServe() throws {
        let world = try BrokerWorld([
            ("listeners", "INTERNAL://10.0.0.1:9092,EXTERNAL://10.0.0.1:9093"),
            ("listener.security.protocol.map", "INTERNAL:PLAINTEXT,EXTERNAL:PLAINTEXT"),
            ("inter.broker.listener.name", "INTERNAL"), ("listener.name.external.max.connections", "2"),
        ])
        func connect(_ port: UInt16) throws -> RawClient {
            let client = RawClient(world)
            client.connect(port: port)
            try #require(world.until { client.isConnected })
            client.send(metadata(id: 1))
            world.simulated.run(for: .seconds(2))
            return client
        }
        let outside = try (0..<3).map { _ in try connect(9093) }
        #expect(outside.map(\.frames.count) == [1, 1, 0])
        #expect(try (0..<3).allSatisfy { _ in try connect(9092).frames.count == 1 })
        #expect(outside[2].frames.isEmpty && !outside[2].hasEnded)
        let told = world.sink.all.filter { $0.contains("listener.name.external.max.connections (2)") }
        #expect(told.count == 1, "\(told)")
        outside[0].close()
        #expect(world.until { outside[2].frames.count == 1 })
    }

    @Test func quotasAreThereAfterARestart() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        #expect(try world.setQuotas([("user", "ANONYMOUS"), ("client-id", nil)], ("producer_byte_rate", 1000)) == .none)
        #expect(try world.setQuotas([("client-id", "a/b <c>")], ("request_percentage", 12.5)) == .none)
        try world.restart()
        var request = DescribeClientQuotasRequest()
        request.components = []
        let entries = try world.ask(request, version: 1).entries ?? []
        #expect(entries.map { $0.entity.map { $0.entityName ?? "<default>" } } == [["ANONYMOUS", "<default>"], ["a/b <c>"]])
        #expect(entries.map { $0.values.map(\.value) } == [[1000], [12.5]])
        let client = try world.connect()
        client.send(produce("t", batch([String(repeating: "x", count: 15_000)]), id: 1))
        try #require(world.until { client.frames.count == 1 })
        #expect(try client.answer(ProduceResponse.self, 0, version: 9).throttleTimeMs > 0)
    }
}
