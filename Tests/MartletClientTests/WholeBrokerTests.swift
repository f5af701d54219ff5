import MartletBasics
import MartletBroker
import MartletClient
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// A broker of ours and a client, each on a machine of its own.
private final class World: @unchecked Sendable {
    let simulated: SimulatedWorld
    let server: SimulatedHost
    let machine: SimulatedHost
    let client: Client
    private let process: BrokerProcess

    init(seed: UInt64) throws {
        simulated = SimulatedWorld(seed: seed)
        server = simulated.makeHost("broker")
        machine = simulated.makeHost("client")
        let config = try BrokerConfig.resolve(overrides: [
            ("listeners", "PLAINTEXT://\(server.address):9092"), ("log.dirs", "/data"), ("martlet.keeper.dir", "/keeper"),
        ])
        process = BrokerProcess(host: server, config: config, sink: SilentLog(), memoryBytes: 1 << 30)
        var settings = ClientSettings(bootstrap: [BrokerEndpoint(host: server.address, port: 9092)])
        settings.requestTimeLimit = .seconds(5)
        client = Client(host: machine, loop: machine.loops[0], settings: settings)
        let process = process
        try run(on: server) { try await process.start() }
    }

    deinit { simulated.end() }

    private final class Ended: @unchecked Sendable {
        var isOver = false
        var error: (any Error)?
    }

    func run(on host: SimulatedHost? = nil, _ body: @escaping @Sendable () async throws -> Void) throws {
        let ended = Ended()
        (host ?? machine).loops[0].spawn {
            do { try await body() } catch { ended.error = error }
            ended.isOver = true
        }
        try #require(simulated.run(atMost: .seconds(600)) { ended.isOver }, "the task waits for something that never comes")
        if let error = ended.error { throw error }
    }
}

/// Everything that is in a topic, by partition.
private func contents(of topic: String, _ client: Client) async throws -> [[String]] {
    let partitions = try await client.topics(named: [topic])[0].partitions.map { TopicPartition(topic, $0.index) }
    let ends = try await client.offsets(.latest, of: partitions).map { $0.offset ?? 0 }
    let consumer = Consumer(client, from: partitions.map { ($0, 0) })
    var values = partitions.map { _ in [String]() }
    while zip(consumer.positions, ends).contains(where: { $0.offset < $1 }) {
        for records in try await consumer.poll() {
            let index = Int(records.partition.partition)
            while try records.nextBatch({ record in
                values[index].append(record.value.map { String(decoding: $0, as: UTF8.self) } ?? "null")
                return true
            }) {}
            consumer.advance(records)
        }
    }
    return values
}

@Suite struct AgainstABrokerOfOurs {
    @Test(arguments: CompressionCodec.allCases)
    func whatIsProducedIsConsumedInItsOrder(_ codec: CompressionCodec) throws {
        let world = try World(seed: 3)
        let client = world.client
        try world.run {
            #expect(try await client.createTopics([NewTopic("orders", partitions: 3)]) == [Outcome("orders", nil)])
            var settings = Producer.Settings()
            settings.codec = codec
            settings.batchBytes = 2000
            settings.bufferedBytesLimit = 20_000
            let producer = try await Producer.open(client, topic: "orders", settings: settings)
            for number in 0..<3000 {
                try await producer.append(ProducedRecord(value: Array("\(number)".utf8), partition: Int32(number % 3)))
            }
            try await producer.finish()
            #expect(producer.delivered.map(\.records) == [1000, 1000, 1000])
            #expect(producer.delivered.map(\.firstOffset) == [0, 0, 0])
            #expect(producer.delivered.map(\.lastOffset) == [999, 999, 999])
            let values = try await contents(of: "orders", client)
            for partition in 0..<3 {
                #expect(values[partition] == stride(from: partition, to: 3000, by: 3).map { "\($0)" })
            }
        }
    }

    /// Whatever befalls the connections: each record once, in its order.
    @Test func aConnectionThatIsCutAtAnyMomentCostsNoRecordAndDoublesNone() throws {
        for seed: UInt64 in 1...25 {
            let world = try World(seed: seed)
            let client = world.client
            for cut in 0..<12 {
                world.simulated.after(.milliseconds(40 + Int64(cut) * 7 + Int64(seed))) {
                    world.simulated.network.cut(world.machine, world.server)
                }
            }
            try world.run {
                var settings = Producer.Settings()
                settings.batchBytes = 600
                settings.bufferedBytesLimit = 1500
                let producer = try await Producer.open(client, topic: "orders", settings: settings)
                for number in 0..<1500 { try await producer.append(ProducedRecord(value: Array("\(number)".utf8))) }
                try await producer.finish()
                #expect(try await contents(of: "orders", client) == [(0..<1500).map { "\($0)" }], "seed \(seed)")
            }
        }
    }

    @Test func everyAcksWritesEverything() throws {
        for acks in [Producer.Acks.none, .leader, .all] {
            let world = try World(seed: 9)
            let client = world.client
            try world.run {
                var settings = Producer.Settings()
                settings.acks = acks
                let producer = try await Producer.open(client, topic: "orders", settings: settings)
                for size in 0..<200 { try await producer.append(ProducedRecord(value: [UInt8](repeating: 65, count: size))) }
                try await producer.finish()
                #expect(producer.delivered.first?.lastOffset == (acks == .none ? nil : 199))
            }
            world.simulated.run(for: .seconds(1))
            try world.run {
                let values = try await contents(of: "orders", client)
                #expect(values[0].map(\.count) == Array(0..<200))
            }
        }
    }

    @Test func whatCannotBeWrittenIsSaidWithItsReason() throws {
        let world = try World(seed: 4)
        let client = world.client
        try world.run {
            _ = try await client.createTopics([NewTopic("small", configs: [("max.message.bytes", "1000")])])
            let producer = try await Producer.open(client, topic: "small")
            try await producer.append(ProducedRecord(value: [UInt8](repeating: 1, count: 5000)))
            let error = await #expect(throws: ClientError.self) { try await producer.finish() }
            #expect(error?.code == .messageTooLarge)
            let again = await #expect(throws: ClientError.self) { try await producer.append(ProducedRecord(value: [1])) }
            #expect(again == error, "what follows is not written either")
            let none = await #expect(throws: ClientError.self) {
                try await producer.append(ProducedRecord(value: [1], partition: 7))
            }
            #expect(none != nil)
        }
    }

    @Test func offsetsAreFoundByPlaceAndTime() throws {
        let world = try World(seed: 5)
        let client = world.client
        try world.run {
            let producer = try await Producer.open(client, topic: "orders")
            for time: Int64 in [1000, 2000, 3000] {
                try await producer.append(ProducedRecord(value: [1], timestamp: 1_700_000_000_000 + time))
            }
            try await producer.finish()
            let place = TopicPartition("orders", 0)
            for (spec, expected) in [
                (.earliest, 0), (.latest, 3), (.time(1_700_000_001_500), 1), (.time(1_700_000_003_001), nil),
            ] as [(OffsetSpec, Offset?)] {
                let found = try await client.offsets(spec, of: [place])
                #expect(found.map(\.offset) == [expected])
            }
            let missing = try await client.offsets(.latest, of: [TopicPartition("orders", 9), TopicPartition("none", 0)])
            #expect(missing.map(\.error?.code) == [.unknownTopicOrPartition, .unknownTopicOrPartition])
        }
    }

    @Test func anOffsetThatIsNotThereIsSaidToBeOutOfRange() throws {
        let world = try World(seed: 6)
        let client = world.client
        try world.run {
            _ = try await client.createTopics([NewTopic("orders")])
            let consumer = Consumer(client, from: [(TopicPartition("orders", 0), 10)])
            let error = await #expect(throws: ClientError.self) { try await consumer.poll() }
            #expect(error?.code == .offsetOutOfRange)
        }
    }

    @Test func theSameSeedGivesTheSameHistory() throws {
        func history() throws -> UInt64 {
            let world = try World(seed: 11)
            let client = world.client
            try world.run {
                let producer = try await Producer.open(client, topic: "orders")
                for number in 0..<100 { try await producer.append(ProducedRecord(value: Array("\(number)".utf8))) }
                try await producer.finish()
                _ = try await contents(of: "orders", client)
            }
            return world.simulated.history
        }
        #expect(try history() == history())
    }
}
