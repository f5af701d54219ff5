import MartletBasics
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire

/// What the clients of one run share. All of it lives on the world's thread.
final class Audience: @unchecked Sendable {
    static let brokerPort: UInt16 = 9092

    let ledger = Ledger()
    /// No client starts anything new; producers that resend go on until all is acknowledged.
    var isOver = false
    private(set) var runningCount = 0
    private(set) var running: [String] = []
    let broker: SocketAddress

    init(brokerAddress: String) { broker = SocketAddress(host: brokerAddress, port: Self.brokerPort) }

    func start(_ name: String, on loop: any EventLoop, _ body: @escaping @Sendable () async -> Void) {
        runningCount += 1
        running.append(name)
        loop.spawn { [self] in
            await body()
            runningCount -= 1
            running.removeAll { $0 == name }
        }
    }
}

/// Sends batches to the partitions of a topic, several in flight.
final class Sender: @unchecked Sendable {
    /// As many as the broker remembers of a producer.
    private static let inFlightLimit = 5

    private struct Batch {
        var first: RecordName
        var count: Int
        var bytes: [UInt8]
    }

    /// What is on its way to one partition.
    private struct Stream {
        var nextSequence: Int32 = 0
        var unacknowledged: [Batch] = []
        var inFlight = 0
        /// Something was not acknowledged: nothing new until all that was sent is answered, and sent again.
        var isStalled = false
        /// The broker knows the producer in this partition. Before that it takes any sequence for its first, as Kafka
        /// does, so that a second batch in flight could overtake one that is refused.
        var isKnown = false
    }

    private let audience: Audience
    private let client: SimulatedClient
    private let topic: String
    private let acks: Int16
    private let isIdempotent: Bool
    private let codec: CompressionCodec
    private let number: Int32
    private let contexts = CodecContexts()
    private var random: SeededRandom
    private var streams: [Stream]
    private var identity: (id: ProducerID, epoch: ProducerEpoch)?
    private var life = 0

    private var ledger: Ledger { audience.ledger }

    init(
        _ audience: Audience, _ client: SimulatedClient, topic: String, partitions: Int32, acks: Int16, isIdempotent: Bool,
        codec: CompressionCodec, random: SeededRandom
    ) {
        precondition(!isIdempotent || acks == -1, "an idempotent producer asks for acks=all")
        self.audience = audience
        self.client = client
        self.topic = topic
        self.acks = acks
        self.isIdempotent = isIdempotent
        self.codec = codec
        self.random = random
        streams = [Stream](repeating: Stream(), count: Int(partitions))
        number = audience.ledger.addProducer()
    }

    /// Whether there is something that must still be sent.
    private var owes: Bool { isIdempotent && streams.contains { !$0.unacknowledged.isEmpty } }

    func run() async {
        while !audience.isOver || owes {
            do throws(ClientFault) {
                if !client.isConnected {
                    life = ledger.life
                    try await client.connect(to: audience.broker)
                }
                if isIdempotent, identity == nil { identity = try await client.initProducerID() }
            } catch {
                note(error)
            }
            if client.isConnected, !isIdempotent || identity != nil { sendSome() }
            await pause()
        }
        while client.inFlightCount > 0 { await pause() }
        client.close()
    }

    private func pause() async {
        let span = client.isConnected ? 300 + random.below(7_000) : 5_000 + random.below(30_000)
        await client.loop.sleep(for: .microseconds(Int64(span)))
    }

    private func note(_ fault: ClientFault) {
        if case .malformed(let what) = fault { ledger.violated("producer \(number): \(what)") }
    }

    private func sendSome() {
        for partition in streams.indices where streams[partition].isStalled && streams[partition].inFlight == 0 {
            streams[partition].isStalled = false
            for batch in streams[partition].unacknowledged { put(batch, on: partition) }
        }
        guard !audience.isOver else { return }
        for _ in 0...random.below(3) {
            let partition = random.below(streams.count)
            let limit = isIdempotent && !streams[partition].isKnown ? 1 : Self.inFlightLimit
            guard !streams[partition].isStalled, streams[partition].inFlight < limit else { continue }
            let batch = makeBatch(for: partition)
            if isIdempotent { streams[partition].unacknowledged.append(batch) }
            put(batch, on: partition)
        }
    }

    private func makeBatch(for partition: Int) -> Batch {
        let count = 1 + random.below(4)
        var identity = BatchIdentity()
        if let known = self.identity {
            identity = BatchIdentity(
                producerID: known.id, epoch: known.epoch, baseSequence: streams[partition].nextSequence)
            streams[partition].nextSequence += Int32(count)
        }
        var builder = BatchBuilder(identity)
        var first: RecordName?
        for _ in 0..<count {
            let name = ledger.send(number, to: TopicPartition(topic, Int32(partition)), acks: acks)
            first = first ?? name
            builder.append(timestamp: client.loop.clock.wallMilliseconds, key: nil, value: name.value)
        }
        var output = ByteBuffer()
        builder.finish(into: &output, codec: codec, contexts: contexts)
        return Batch(first: first!, count: count, bytes: output.array)
    }

    private func put(_ batch: Batch, on partition: Int) {
        if acks != 0 { streams[partition].inFlight += 1 }
        client.produce(batch.bytes, to: topic, Int32(partition), acks: acks) { [self] outcome in
            streams[partition].inFlight -= 1
            answered(batch, on: partition, outcome)
        }
    }

    private func answered(_ batch: Batch, on partition: Int, _ outcome: ProduceOutcome) {
        let isFirst = streams[partition].unacknowledged.first?.first == batch.first
        switch outcome {
        case .appended(let offset):
            streams[partition].isKnown = true
            ledger.acknowledged(batch.first, count: batch.count, at: offset, life: life)
            streams[partition].unacknowledged.removeAll { $0.first == batch.first }
        case .refused(.duplicateSequenceNumber) where isIdempotent:
            ledger.acknowledged(batch.first, count: batch.count, at: nil, life: life)
            streams[partition].unacknowledged.removeAll { $0.first == batch.first }
        case .refused(let error):
            let follows = error == .outOfOrderSequenceNumber && isIdempotent && (!isFirst || streams[partition].isStalled)
            if !follows, !Self.passing.contains(error) {
                ledger.violated("\(batch.first) was refused with \(error)")
            }
            streams[partition].isStalled = isIdempotent
        case .unknown(let fault):
            note(fault)
            streams[partition].isStalled = isIdempotent
        }
    }

    /// What a producer may be told of a partition that is not made yet, not led yet, or whose disk is full or broken.
    private static let passing: Set<ErrorCode> = [
        .unknownTopicOrPartition, .leaderNotAvailable, .notLeaderOrFollower, .kafkaStorageError, .requestTimedOut,
    ]
}

/// Reads a topic from its beginning, and tells the ledger.
final class Reader: @unchecked Sendable {
    private let audience: Audience
    private let client: SimulatedClient
    private let topic: String
    private let contexts = CodecContexts()
    private var positions: [Offset]
    private var highWatermarks: [Offset]
    private var random: SeededRandom

    private var ledger: Ledger { audience.ledger }

    init(_ audience: Audience, _ client: SimulatedClient, topic: String, partitions: Int32, random: SeededRandom) {
        self.audience = audience
        self.client = client
        self.topic = topic
        self.random = random
        positions = [Offset](repeating: 0, count: Int(partitions))
        highWatermarks = positions
    }

    func run() async {
        while !audience.isOver {
            do throws(ClientFault) {
                if !client.isConnected {
                    try await client.connect(to: audience.broker)
                    // A broker that has begun anew tells of records as it finds them on the disk: its high watermark
                    // may be behind for a moment.
                    highWatermarks = highWatermarks.map { _ in 0 }
                }
                // one that has read all now and then begins again: what it saw must still be there
                if random.chance(1, in: 24) { positions = positions.map { _ in 0 } }
                _ = try await read(waitMilliseconds: Int32(random.below(40)))
            } catch {
                if case .malformed(let what) = error { ledger.violated("reader of \(topic): \(what)") }
            }
            await client.loop.sleep(for: .milliseconds(Int64(1 + random.below(12))))
        }
        client.close()
    }

    /// Reads all that there is, when nobody writes any more; false while the broker does not serve it all.
    func readToTheEnd() async throws(ClientFault) -> Bool {
        for partition in positions.indices {
            let (error, end) = try await client.offset(of: topic, Int32(partition), at: -1)
            guard error == .none else { return false }
            positions[partition] = 0
            while positions[partition] < end {
                let before = positions[partition]
                guard try await read(waitMilliseconds: 0, only: partition) else { return false }
                if positions[partition] == before {
                    ledger.violated("\(topic)-\(partition) ends at offset \(end), and a fetch from \(before) gives nothing")
                    break
                }
            }
            let (_, start) = try await client.offset(of: topic, Int32(partition), at: -2)
            ledger.close(TopicPartition(topic, Int32(partition)), start: start, end: end)
        }
        return true
    }

    /// False where a partition could not be read.
    private func read(waitMilliseconds: Int32, only partition: Int? = nil) async throws(ClientFault) -> Bool {
        let places = positions.indices.filter { partition == nil || $0 == partition }.map { (Int32($0), positions[$0]) }
        var isWhole = true
        for part in try await client.fetch(topic, places, waitMilliseconds: waitMilliseconds) {
            guard positions.indices.contains(Int(part.partition)) else { throw .malformed("partition \(part.partition)") }
            if part.error == .none { take(part) } else { isWhole = false }
            if part.error == .offsetOutOfRange {
                ledger.violated(
                    "\(topic)-\(part.partition) was read up to offset \(positions[Int(part.partition)]), which is now out of range")
            }
        }
        return isWhole
    }

    private func take(_ part: FetchedPartition) {
        let place = TopicPartition(topic, part.partition)
        let index = Int(part.partition)
        if part.highWatermark < highWatermarks[index] {
            ledger.violated("the high watermark of \(place) went from \(highWatermarks[index]) to \(part.highWatermark)")
        }
        highWatermarks[index] = part.highWatermark
        ledger.sawHighWatermark(part.highWatermark, of: place)
        part.records.withUnsafeBytes { bytes in
            var walker = BatchWalker(bytes, checkingChecksums: true)
            while case .batch(let position, let header) = walker.next() {
                guard header.nextOffset > positions[index] else { continue }
                if header.baseOffset > positions[index] {
                    ledger.violated("\(place) was read from \(positions[index]), and the next batch begins at \(header.baseOffset)")
                }
                if header.nextOffset > part.highWatermark {
                    ledger.violated("\(place) gave offset \(header.lastOffset), with a high watermark of \(part.highWatermark)")
                }
                let whole = UnsafeRawBufferPointer(rebasing: bytes[position..<position + header.totalSize])
                ledger.saw(header, names(in: whole, header), at: place)
                positions[index] = header.nextOffset
            }
        }
    }

    private func names(in batch: UnsafeRawBufferPointer, _ header: BatchHeader) -> [RecordName?] {
        var output = ByteBuffer()
        var names: [RecordName?] = []
        do {
            guard let codec = header.codec else { return [nil] }
            try contexts.decompress(
                UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...]), codec: codec, into: &output, limit: 1 << 20)
            var cursor = RecordCursor(output.bytes, count: header.recordCount)
            while let record = try cursor.next() { names.append(cursor.bytes(in: record.value).flatMap { RecordName($0) }) }
        } catch {
            ledger.violated("a batch at offset \(header.baseOffset) cannot be read: \(error)")
        }
        return names
    }
}

/// Makes topics, some of them to delete them again.
final class Administrator: @unchecked Sendable {
    enum Order { case make(String, partitions: Int32), delete(String) }

    private let audience: Audience
    private let client: SimulatedClient
    private let orders: [Order]
    private var random: SeededRandom

    private var ledger: Ledger { audience.ledger }

    init(_ audience: Audience, _ client: SimulatedClient, _ orders: [Order], random: SeededRandom) {
        self.audience = audience
        self.client = client
        self.orders = orders
        self.random = random
    }

    func run() async {
        for order in orders {
            var attempts = 0
            while true {
                do throws(ClientFault) {
                    if !client.isConnected { try await client.connect(to: audience.broker) }
                    attempts += 1
                    if try await carryOut(order, isFirst: attempts == 1) { break }
                } catch {
                    if case .malformed(let what) = error { ledger.violated("the administrator: \(what)") }
                }
                await client.loop.sleep(for: .milliseconds(Int64(3 + random.below(30))))
            }
            await client.loop.sleep(for: .milliseconds(Int64(random.below(60))))
        }
        client.close()
    }

    /// False where it is to be tried again.
    private func carryOut(_ order: Order, isFirst: Bool) async throws(ClientFault) -> Bool {
        switch order {
        case .make(let name, let partitions):
            let answer = try await client.createTopic(name, partitions: partitions)
            switch answer.errorCode {
            case .none: ledger.topicMade(name, id: answer.topicID, partitions: partitions)
            case .topicAlreadyExists:
                if isFirst { ledger.violated("topic \(name) was there before it was made") }
                guard let found = try await client.metadata(of: [name]).topics.first, found.errorCode == .none else { return false }
                ledger.topicMade(name, id: found.topicID, partitions: partitions)
            default: return false
            }
        case .delete(let name):
            let error = try await client.deleteTopic(name)
            guard error == .none || error == .unknownTopicOrPartition else { return false }
            if isFirst, error != .none { ledger.violated("topic \(name) was to be deleted, and was not there") }
            ledger.topicDeleted(name)
        }
        return true
    }
}
