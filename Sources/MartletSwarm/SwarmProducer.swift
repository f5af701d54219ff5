import MartletBasics
import MartletChecker
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire

/// Sends batches to the partitions of a topic, several in flight.
final class SwarmProducer: @unchecked Sendable {
    /// As many as the broker remembers of a producer.
    private static let inFlightLimit = 5

    /// So many that most are written again, and that some stay removed.
    private static let keysCount = 48

    private struct Batch {
        var names: [RecordName] = []
        var bytes: [UInt8] = []
        var keys: [String] = []
        var tombstones: [Int] = []
    }

    /// What is on its way to one partition.
    private struct Stream {
        var nextSequence: Int32 = 0
        var unacknowledged: [Batch] = []
        var inFlight = 0
        /// Something was not acknowledged: nothing new until all that was sent is answered, and sent again.
        var isStalled = false
    }

    private let stage: Stage
    private let client: SimulatedClient
    private let topicIndex: Int
    private let acks: Int16
    private let isIdempotent: Bool
    private let codec: CompressionCodec
    private let number: Int32
    private let contexts = CodecContexts()
    private var random: SeededRandom
    private var streams: [Stream] = []
    private var identity: (id: ProducerID, epoch: ProducerEpoch)?
    private var recordsCount: Int32 = 0
    /// By a batch's first record: to which life of the broker it went first, and up to where anybody had been told that the
    /// partition goes when it went again.
    private var sendings: [Int32: (life: Int, again: Int64?)] = [:]
    /// The machine that it runs on.
    private let machine: Int

    private var record: Recorder { stage.record }
    private var topic: StageTopic { stage.topics[topicIndex] }

    init(
        _ stage: Stage, _ client: SimulatedClient, machine: Int, topic: Int, acks: Int16, isIdempotent: Bool,
        codec: CompressionCodec, random: SeededRandom
    ) {
        precondition(!isIdempotent || acks == -1, "an idempotent producer asks for acks=all")
        self.stage = stage
        self.client = client
        self.machine = machine
        topicIndex = topic
        self.acks = acks
        self.isIdempotent = isIdempotent
        self.codec = codec
        self.random = random
        number = stage.record.addProducer()
    }

    /// Whether there is something that must still be sent.
    private var owes: Bool { isIdempotent && streams.contains { !$0.unacknowledged.isEmpty } }

    func run() async {
        while !stage.isOver || owes {
            do throws(ClientFault) {
                if !client.isConnected { try await client.connect(to: stage.broker) }
                if isIdempotent, identity == nil { identity = try await client.initProducerID() }
            } catch {
                stage.note(error, of: client.name)
            }
            if client.isConnected, !isIdempotent || identity != nil { sendSome() }
            await stage.rest(client.loop, &random, busy: 1_000..<25_000)
        }
        // an answer that never comes ends with its connection
        for _ in 0..<200 where client.inFlightCount > 0 { await stage.rest(client.loop, &random) }
        client.close()
    }

    private func sendSome() {
        while streams.count < Int(topic.partitions) { streams.append(Stream()) }
        for partition in streams.indices where streams[partition].isStalled && streams[partition].inFlight == 0 {
            streams[partition].isStalled = false
            for batch in streams[partition].unacknowledged { put(batch, on: partition) }
        }
        guard !stage.isOver else { return }
        for _ in 0...random.below(3) {
            let partition = random.below(streams.count)
            guard !streams[partition].isStalled, streams[partition].inFlight < Self.inFlightLimit else { continue }
            let batch = makeBatch(for: partition)
            if isIdempotent { streams[partition].unacknowledged.append(batch) }
            put(batch, on: partition)
        }
    }

    private func makeBatch(for partition: Int) -> Batch {
        let count = 1 + random.below(4)
        var batchIdentity = BatchIdentity()
        if let known = identity {
            batchIdentity = BatchIdentity(
                producerID: known.id, epoch: known.epoch, baseSequence: streams[partition].nextSequence)
            streams[partition].nextSequence += Int32(count)
        }
        var builder = BatchBuilder(batchIdentity)
        var batch = Batch()
        for index in 0..<count {
            let name = RecordName(producer: number, number: recordsCount)
            recordsCount += 1
            batch.names.append(name)
            let now = client.loop.clock.wallMilliseconds
            guard topic.isCompacted else {
                builder.append(timestamp: now, key: nil, value: name.value)
                continue
            }
            let key = "key-\(random.below(Self.keysCount))"
            batch.keys.append(key)
            if random.chance(1, in: 6) {
                batch.tombstones.append(index)
                builder.append(timestamp: now, key: Array(key.utf8), value: nil, headers: [RecordHeader([], name.value)])
            } else {
                builder.append(timestamp: now, key: Array(key.utf8), value: name.value)
            }
        }
        var output = ByteBuffer()
        builder.finish(into: &output, codec: codec, contexts: contexts)
        batch.bytes = output.array
        return batch
    }

    private func put(_ batch: Batch, on partition: Int) {
        let operation = record.operation()
        record.note(
            .send(
                SentBatch(
                    operation: operation, producer: "p\(number)", place: Place(topic.name, partition),
                    values: batch.names.map(\.text), acks: Int(acks), isIdempotent: isIdempotent, keys: batch.keys,
                    tombstones: batch.tombstones)))
        if acks != 0 { streams[partition].inFlight += 1 }
        if isIdempotent {
            stage.waits(1, on: machine)
            noteSending(of: batch, to: partition)
        }
        client.produce(batch.bytes, to: topic.name, Int32(partition), acks: acks) { [self] outcome in
            streams[partition].inFlight -= 1
            if isIdempotent { stage.waits(-1, on: machine) }
            answered(batch, operation, on: partition, outcome)
        }
    }

    private func noteSending(of batch: Batch, to partition: Int) {
        let known = record.highWatermarks[Place(topic.name, partition)] ?? 0
        let first = batch.names[0].number
        sendings[first] = sendings[first].map { ($0.life, known) } ?? (stage.life, nil)
    }

    private func answered(_ batch: Batch, _ operation: Int, on partition: Int, _ outcome: ProduceOutcome) {
        let isFirst = streams[partition].unacknowledged.first?.names == batch.names
        switch outcome {
        case .appended(let offset):
            if offset < 0 { record.broken("\(batch.names[0].text) was acknowledged at offset \(offset)") }
            acknowledged(batch, operation, on: partition, at: offset < 0 ? nil : offset)
        case .refused(.duplicateSequenceNumber) where isIdempotent:
            acknowledged(batch, operation, on: partition, at: nil)
        case .refused(let error):
            let follows = error == .outOfOrderSequenceNumber && isIdempotent && (!isFirst || streams[partition].isStalled)
            // The time that was allowed passed: the record may be there all the same.
            let isOpen = error == .requestTimedOut || error == .kafkaStorageError || error == .notLeaderOrFollower
            record.note(.told(operation: operation, isOpen ? .unknown("\(error)") : .refused("\(error)")))
            let passes =
                Self.passing.contains(error)
                || (error == .kafkaStorageError && stage.mayStorageFail(Place(topic.name, partition)))
            if !follows, !passes, !topic.mayRot {
                record.broken("\(batch.names[0].text) was refused with \(error)")
            }
            // refused once, and sent again with the same sequence numbers: then it is not surely absent
            streams[partition].isStalled = isIdempotent
        case .unknown(let fault):
            record.note(.told(operation: operation, .unknown("\(fault)")))
            stage.note(fault, of: client.name)
            streams[partition].isStalled = isIdempotent
        }
    }

    private func acknowledged(_ batch: Batch, _ operation: Int, on partition: Int, at offset: Offset?) {
        record.note(.told(operation: operation, .accepted(at: offset)))
        streams[partition].unacknowledged.removeAll { $0.names == batch.names }
        if isIdempotent { record.acknowledgedBatchesCount += 1 }
        guard let sending = sendings.removeValue(forKey: batch.names[0].number), sending.life == stage.life else { return }
        if let end = sending.again { record.resendAnswered(wasWritten: offset.map { $0 < end } ?? true) }
    }

    /// What a producer may be told of a partition that is not made yet or not led yet.
    private static let passing: Set<ErrorCode> = [
        .unknownTopicOrPartition, .leaderNotAvailable, .notLeaderOrFollower, .requestTimedOut,
    ]
}
