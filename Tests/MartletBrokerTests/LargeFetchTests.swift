import MartletBasics
import MartletBroker
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire
import Testing

/// Asks again as soon as it is answered.
private final class Bystander {
    private let client: RawClient
    private(set) var answers = 0
    private var received = 0

    init(_ world: BrokerWorld) throws { client = try world.connect() }

    func ask() { client.send(produce("bystander", batch(["x"]), id: Int32(answers))) }

    /// Whether one more answer has come since the last call; then it asks again.
    func goOn() {
        guard client.received.count > received else { return }
        received = client.received.count
        answers += 1
        ask()
    }
}

/// A broker beside whose turns the network takes no time, so that what is answered a turn later comes a turn later.
private func quickWorld(seed: UInt64) throws -> BrokerWorld {
    let world = try BrokerWorld(seed: seed)
    world.simulated.network.latency = Latency(.nanoseconds(1), .nanoseconds(20))
    world.simulated.network.pipeBytesLimit = 2 << 20
    try world.createTopic("bystander")
    return world
}

extension BrokerWorld {
    /// All that is sent meanwhile arrives in one turn of the broker.
    fileprivate func arrivingTogether(_ send: () -> Void) {
        host.pause(for: .milliseconds(5))
        send()
        simulated.run(for: .milliseconds(4))
    }
}

private func partitions(of answer: FetchResponse) -> [Int32] {
    answer.responses.flatMap { $0.partitions.map(\.partitionIndex) }
}

@Suite struct OthersHaveTheirTurn {
    /// Sixty-four megabytes, a megabyte for each of as many consumers, went out in one turn of the loop: a producer waited
    /// for all of them.
    @Test func betweenLargeAnswers() throws {
        for seed: UInt64 in 1...3 {
            let world = try quickWorld(seed: seed)
            try world.createTopic("t")
            let writer = try world.connect()
            for id: Int32 in 0..<2 { writer.send(produce("t", noise(900_000, seed: UInt64(id), codec: .none), id: id)) }
            #expect(world.until { writer.frames.count == 2 })
            world.simulated.run(for: .seconds(1))
            let consumers = try (0..<64).map { _ in try world.connect() }
            let bystanders = try (0..<8).map { _ in try Bystander(world) }
            for consumer in consumers { consumer.read(false) }
            world.arrivingTogether {
                for consumer in consumers { consumer.send(fetch("t", maxWaitMs: 0, id: 1)) }
                for bystander in bystanders { bystander.ask() }
            }
            #expect(world.until { world.broker.outboxBytes > 4 << 20 }, "seed \(seed): what does not go in a turn waits")
            #expect(
                world.until {
                    for bystander in bystanders { bystander.goOn() }
                    return world.broker.outboxBytes == 0
                })
            #expect(bystanders.reduce(0) { $0 + $1.answers } > bystanders.count, "seed \(seed): what they asked meanwhile")
            for consumer in consumers { consumer.read(true) }
            #expect(world.until { consumers.allSatisfy { $0.received.count > 1 << 20 } })
            #expect(Set(consumers.map { $0.received.count }).count == 1)
        }
    }

    /// Sixteen consumers of 512 partitions each, all of them looked at in one turn of the loop.
    @Test func betweenPartitionsThatAreLookedAt() throws {
        let world = try quickWorld(seed: 5)
        try world.createTopic("wide", partitions: 512)
        let consumers = try (0..<16).map { _ in try world.connect() }
        let bystander = try Bystander(world)
        let wanted = (0..<512).map { Wanted(partition: $0) }
        world.arrivingTogether {
            for consumer in consumers { consumer.send(fetch("wide", wanted, maxWaitMs: 0, id: 1)) }
            bystander.ask()
        }
        #expect(world.until { bystander.goOn(); return consumers.allSatisfy { $0.received.count > 512 * 20 } })
        #expect(bystander.answers >= 3)
        for consumer in consumers {
            #expect(partitions(of: try consumer.answer(FetchResponse.self, 0, version: 11)) == Array(0..<512))
        }
    }
}

@Suite struct FetchesOfManyPartitions {
    private static let wide: Int32 = 300

    private func wanted(_ extra: [Wanted] = []) -> [Wanted] { (0..<Self.wide).map { Wanted(partition: $0) } + extra }

    @Test func areAnsweredWithAllThatIsThereAndBehindItWhatIsNot() throws {
        let world = try BrokerWorld()
        try world.createTopic("wide", partitions: Self.wide)
        let (consumer, producer) = (try world.connect(), try world.connect())
        for partition in stride(from: Int32(0), to: Self.wide, by: 7) {
            let records = noise(20_000, seed: UInt64(partition), codec: .none)
            producer.send(produce("wide", records, partition: partition, id: partition))
        }
        #expect(world.until { producer.frames.count == 43 })
        // other clients' requests come in between
        consumer.send(fetch("wide", [Wanted(partition: 999)] + wanted(), maxWaitMs: 0, id: 1) + metadata(id: 2))
        #expect(world.until { consumer.frames.count == 2 })
        #expect(consumer.correlationIDs == [1, 2])
        let answer = try consumer.answer(FetchResponse.self, 0, version: 11)
        #expect(partitions(of: answer) == Array(0..<Self.wide) + [999])
        for part in answer.responses[0].partitions {
            #expect(part.errorCode == (part.partitionIndex == 999 ? .unknownTopicOrPartition : .none))
            guard case .owned(let records)? = part.records, !records.isEmpty else {
                #expect(part.partitionIndex % 7 != 0 || part.partitionIndex == 999)
                continue
            }
            #expect(part.partitionIndex % 7 == 0 && records.count > 20_000)
            #expect(records.withUnsafeBytes { BatchHeader($0).recordCount } == 20)
        }
    }

    @Test func thatWaitAreWokenByTheLastOfThemAndAnsweredAtTheirTime() throws {
        for seed: UInt64 in 1...4 {
            let world = try BrokerWorld(seed: seed, loops: seed > 2 ? 2 : 1)
            try world.createTopic("wide", partitions: Self.wide)
            let (consumer, producer) = (try world.connect(), try world.connect())
            consumer.send(fetch("wide", wanted(), maxWaitMs: 300, session: (0, 0), id: 0))
            #expect(world.until(atMost: .seconds(1)) { consumer.frames.count == 1 }, "its time is up")
            let session = try consumer.answer(FetchResponse.self, 0, version: 11).sessionID
            #expect(session > 0)
            consumer.send(fetch("wide", [], maxWaitMs: 100_000, session: (session, 1), id: 1))
            // as it begins to wait, or later
            world.simulated.run(for: .microseconds(Int64(seed) * 150))
            producer.send(produce("wide", batch(["x"]), acks: -1, partition: Self.wide - 1, id: 1))
            #expect(world.until(atMost: .seconds(5)) { consumer.frames.count == 2 }, "seed \(seed)")
            #expect(partitions(of: try consumer.answer(FetchResponse.self, 1, version: 11)) == [Self.wide - 1])
        }
    }

    @Test func whoseClientGoesOrWhoseTopicGoesEndInOrder() throws {
        for seed: UInt64 in 1...4 {
            let world = try BrokerWorld(seed: seed)
            try world.createTopic("wide", partitions: Self.wide)
            let (gone, stays) = (try world.connect(), try world.connect())
            for client in [gone, stays] { client.send(fetch("wide", wanted(), maxWaitMs: 2_000, session: (0, 0), id: 1)) }
            world.simulated.run(for: .microseconds(Int64(seed) * 120))
            gone.close()
            let cluster = world.broker.cluster
            let id = try #require(cluster.topics.table.topic("wide")).id
            try world.run { _ = await cluster.deleteTopic("wide", id: id) }
            let isOver = world.until(atMost: .seconds(5)) { stays.frames.count == 1 && world.broker.connectionsCount == 1 }
            #expect(isOver, "seed \(seed)")
            #expect(partitions(of: try stays.answer(FetchResponse.self, 0, version: 11)).sorted() == Array(0..<Self.wide))
        }
    }
}
