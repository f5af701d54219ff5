import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire
import Testing

/// A client that asks one thing after the other, and remembers every error that it was told.
private final class Asker {
    let client: RawClient
    private let next: (Int32) -> [UInt8]
    private let look: (RawClient, Int) throws -> ErrorCode
    private(set) var asked = 0
    private var seen = 0
    private(set) var errors: [ErrorCode] = []
    /// How many times it had a request under way while a replica changed hands.
    private(set) var waited = 0

    init(
        _ world: BrokerWorld, _ next: @escaping (Int32) -> [UInt8],
        _ look: @escaping (RawClient, Int) throws -> ErrorCode
    ) throws {
        client = try world.connect()
        self.next = next
        self.look = look
    }

    func takeAnswers() throws {
        let count = client.correlationIDs.count
        while seen < count {
            let error = try look(client, seen)
            if error != .none { errors.append(error) }
            seen += 1
        }
    }

    func goOn(isExchanging: Bool) throws {
        try takeAnswers()
        if isExchanging, seen < asked { waited += 1 }
        guard seen == asked else { return }
        asked += 1
        client.send(next(Int32(asked)))
    }

    var isIdle: Bool { client.frames.count == asked }
}

/// Offsets in the order in which a reader gets them.
private final class Reading { var offsets: [Offset] = [] }

@Suite struct AReplicaThatMovesUnderItsClients {
    private static let directories = ["/data/a", "/data/b"]

    private func producer(_ world: BrokerWorld, acks: Int16, _ bytes: Int, codec: CompressionCodec = .none) throws -> Asker {
        let records = noise(bytes, seed: UInt64(bytes), codec: codec)
        return try Asker(world) { id in
            produce("t", records, acks: acks, id: id)
        } _: { client, index in
            try client.answer(ProduceResponse.self, index, version: 9).responses[0].partitionResponses[0].errorCode
        }
    }

    private func reader(_ world: BrokerWorld, _ reading: Reading, minBytes: Int32) throws -> Asker {
        try Asker(world) { id in
            fetch("t", [Wanted(offset: (reading.offsets.last ?? -1) + 1)], maxWaitMs: 400, minBytes: minBytes, id: id)
        } _: { client, index in
            let part = try client.answer(FetchResponse.self, index, version: 11).responses[0].partitions[0]
            if case .owned(let bytes)? = part.records {
                bytes.withUnsafeBytes { buffer in
                    var walker = BatchWalker(buffer, checkingChecksums: true)
                    while case .batch(_, let header) = walker.next() {
                        reading.offsets += header.baseOffset..<header.nextOffset
                    }
                }
            }
            return part.errorCode
        }
    }

    private func lookingUp(_ world: BrokerWorld) throws -> [Asker] {
        let listing = try Asker(world) { id in
            var partition = ListOffsetsRequest.ListOffsetsPartition()
            partition.timestamp = -1
            var topic = ListOffsetsRequest.ListOffsetsTopic()
            (topic.name, topic.partitions) = ("t", [partition])
            var request = ListOffsetsRequest()
            request.topics = [topic]
            return frame(request, version: 5, id: id)
        } _: { client, index in
            try client.answer(ListOffsetsResponse.self, index, version: 5).topics[0].partitions[0].errorCode
        }
        let deleting = try Asker(world) { id in
            var partition = DeleteRecordsRequest.DeleteRecordsPartition()
            partition.offset = 0
            var topic = DeleteRecordsRequest.DeleteRecordsTopic()
            (topic.name, topic.partitions) = ("t", [partition])
            var request = DeleteRecordsRequest()
            request.topics = [topic]
            return frame(request, version: 2, id: id)
        } _: { client, index in
            try client.answer(DeleteRecordsResponse.self, index, version: 2).topics[0].partitions[0].errorCode
        }
        let epochs = try Asker(world) { id in
            var partition = OffsetForLeaderEpochRequest.OffsetForLeaderPartition()
            partition.leaderEpoch = 0
            var topic = OffsetForLeaderEpochRequest.OffsetForLeaderTopic()
            (topic.topic, topic.partitions) = ("t", [partition])
            var request = OffsetForLeaderEpochRequest()
            request.topics = [topic]
            return frame(request, version: 4, id: id)
        } _: { client, index in
            try client.answer(OffsetForLeaderEpochResponse.self, index, version: 4).topics[0].partitions[0].errorCode
        }
        return [listing, deleting, epochs]
    }

    @Test func keepsThemWaitingForAMomentAndTellsNoneOfThemToLookElsewhere() throws {
        var waited: Set<Int> = []
        for seed: UInt64 in 1...8 {
            let world = try BrokerWorld(
                seed: seed, loops: seed.isMultiple(of: 2) ? 1 : 2,
                [("log.dirs", Self.directories.joined(separator: ",")), ("log.segment.bytes", "300000")])
            try world.createTopic("t")
            try world.createTopic("other")
            let first = Reading(), second = Reading()
            let askers = try [
                producer(world, acks: 1, 1000), producer(world, acks: -1, 2000),
                // beyond what is checked on the loop
                producer(world, acks: -1, 120_000, codec: .gzip),
                reader(world, first, minBytes: 1), reader(world, second, minBytes: 1 << 20),
            ] + lookingUp(world)
            var moves = 0
            var target: String?
            for _ in 0..<4000 where moves < 3 {
                let isExchanging = world.broker.cluster.topics.areExchanging
                for (index, asker) in askers.enumerated() {
                    let before = asker.waited
                    try asker.goOn(isExchanging: isExchanging)
                    if asker.waited > before { waited.insert(index) }
                }
                world.simulated.run(for: .microseconds(300))
                let here = world.partition("t")!.directory.path
                if let wanted = target {
                    guard here == wanted else { continue }
                    (moves, target) = (moves + 1, nil)
                } else {
                    target = Self.directories.first { $0 != here }
                    #expect(try world.move("t", to: target!) == .none)
                }
            }
            #expect(moves == 3, "seed \(seed): the replica does not get anywhere")
            #expect(world.until { askers.allSatisfy(\.isIdle) }, "seed \(seed): somebody is never answered")
            for asker in askers { try asker.takeAnswers() }
            let errors = askers.flatMap(\.errors)
            #expect(errors.isEmpty, "seed \(seed): \(errors)")
            let end = world.partition("t")!.highWatermark
            for _ in 0..<100 where first.offsets.count < Int(end) {
                try askers[3].goOn(isExchanging: false)
                // nobody produces any more
                world.simulated.run(for: .milliseconds(10))
            }
            #expect(first.offsets == Array(0..<end), "seed \(seed)")
        }
        #expect(waited.isSuperset(of: 0...7), "only \(waited.sorted()) asked at such a moment: nothing was looked at")
    }

    @Test func isWaitedForByNobodyWhoWantsAnotherPartition() throws {
        let world = try BrokerWorld([("log.dirs", Self.directories.joined(separator: ","))])
        try world.createTopic("t")
        try world.createTopic("other")
        let client = try world.connect(), other = try world.connect()
        client.send(produce("t", noise(100_000, seed: 1, codec: .none), id: 1))
        #expect(world.until { client.frames.count == 1 })
        let from = world.partition("t")!.directory.path
        #expect(try world.move("t", to: Self.directories.first { $0 != from }!) == .none)
        var served = 0
        while world.partition("t")!.directory.path == from {
            let topics = world.broker.cluster.topics
            guard topics.areExchanging else {
                world.simulated.run(for: .microseconds(50))
                continue
            }
            let sent = other.frames.count
            other.send(produce("other", batch(["x"]), id: 1))
            #expect(world.until { other.frames.count > sent })
            if topics.areExchanging { served += 1 }
        }
        #expect(served > 0, "the exchange was over before anybody could be answered")
    }
}
