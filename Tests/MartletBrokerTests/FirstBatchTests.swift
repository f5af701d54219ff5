import MartletBasics
import MartletBroker
import MartletModel
import MartletSimulation
import MartletWire
import Testing

/// An idempotent producer has several batches in flight to a partition that does not know it, and the first of them is
/// refused.
@Suite struct TheFirstBatchOfAProducer {
    private struct Answer: Equatable {
        var error: ErrorCode
        var offset: Int64
    }

    private func batch(_ value: String, _ sequence: Int32, producer: ProducerID = 7, epoch: ProducerEpoch = 0) -> [UInt8] {
        var builder = BatchBuilder(BatchIdentity(producerID: producer, epoch: epoch, baseSequence: sequence))
        builder.append(timestamp: 1_700_000_000_000, key: nil, value: Array(value.utf8), headers: [])
        var output = ByteBuffer()
        builder.finish(into: &output, codec: .none, contexts: CodecContexts())
        return output.array
    }

    private func answer(_ client: RawClient, _ index: Int, in world: BrokerWorld) throws -> Answer {
        try #require(world.until { client.frames.count > index })
        let told = try client.answer(ProduceResponse.self, index, version: 9).responses[0].partitionResponses[0]
        return Answer(error: told.errorCode, offset: told.baseOffset)
    }

    @Test func isNotOvertakenByTheSecondWhenThePartitionWasNotOpen() throws {
        let world = try BrokerWorld()
        let client = try world.connect()
        client.send(produce("t", batch("a", 0), acks: -1, id: 0))
        #expect(try answer(client, 0, in: world).error == .unknownTopicOrPartition)
        try world.createTopic("t", partitions: 2)
        // in flight behind it, when the partition was opened
        client.send(produce("t", batch("b", 1), acks: -1, id: 1) + produce("t", batch("c", 2), acks: -1, id: 2))
        // refused as it was: who hears of a wrong order takes another epoch, and may write twice
        #expect(try answer(client, 1, in: world).error == .unknownTopicOrPartition)
        #expect(try answer(client, 2, in: world).error == .unknownTopicOrPartition)
        for (place, value) in ["a", "b", "c"].enumerated() {
            client.send(produce("t", batch(value, Int32(place)), acks: -1, id: Int32(3 + place)))
            #expect(try answer(client, 3 + place, in: world) == Answer(error: .none, offset: Int64(place)))
        }
        #expect(world.broker.refusedSequencesCount == 0)
    }

    @Test func isAwaitedOfItsProducerAndPartitionAlone() throws {
        let world = try BrokerWorld()
        let client = try world.connect()
        client.send(produce("t", batch("a", 4), acks: -1, id: 0))
        _ = try answer(client, 0, in: world)
        try world.createTopic("t", partitions: 2)
        // as Kafka: a log that does not know the producer takes any sequence for its first
        client.send(produce("t", batch("b", 5, producer: 8), acks: -1, id: 1))
        client.send(produce("t", batch("b", 5), acks: -1, partition: 1, id: 2))
        client.send(produce("t", batch("b", 0, epoch: 1), acks: -1, id: 3))
        for index in 1...3 { #expect(try answer(client, index, in: world).error == .none) }
        let other = try world.connect()
        other.send(produce("t", batch("b", 9, producer: 9), acks: -1, id: 0))
        #expect(try answer(other, 0, in: world).error == .none)
    }

    @Test func isNotOvertakenByASmallerOneThatTheFullDiskStillTakes() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let files = world.host.files
        files.capacityBytes = files.usedBytes + 40_000
        let client = try world.connect()
        let large = String(repeating: "x", count: 100_000)
        client.send(produce("t", batch(large, 0), acks: -1, id: 0))
        #expect(try answer(client, 0, in: world).error == .kafkaStorageError)
        client.send(produce("t", batch("small", 1), acks: -1, id: 1))
        #expect(try answer(client, 1, in: world).error == .kafkaStorageError)
        files.capacityBytes = files.usedBytes + 4_000_000
        client.send(produce("t", batch(large, 0), acks: -1, id: 2) + produce("t", batch("small", 1), acks: -1, id: 3))
        #expect(try answer(client, 2, in: world) == Answer(error: .none, offset: 0))
        #expect(try answer(client, 3, in: world) == Answer(error: .none, offset: 1))
    }

    /// A producer that the log knows, whose second batch finds no room, with others in flight behind it.
    @Test func ofThoseInFlightIsFollowedByWhatIsRefusedAsItWas() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let files = world.host.files
        let client = try world.connect()
        client.send(produce("t", batch("a", 0), acks: -1, id: 0))
        #expect(try answer(client, 0, in: world) == Answer(error: .none, offset: 0))
        files.capacityBytes = files.usedBytes + 40_000
        let large = String(repeating: "x", count: 100_000)
        client.send(produce("t", batch(large, 1), acks: -1, id: 1))
        #expect(try answer(client, 1, in: world).error == .kafkaStorageError)
        for index in 2...3 {
            client.send(produce("t", batch("small", Int32(index)), acks: -1, id: Int32(index)))
            #expect(try answer(client, index, in: world).error == .kafkaStorageError)
        }
        files.capacityBytes = files.usedBytes + 4_000_000
        for (place, value) in [large, "small", "small"].enumerated() {
            client.send(produce("t", batch(value, Int32(1 + place)), acks: -1, id: Int32(4 + place)))
            #expect(try answer(client, 4 + place, in: world) == Answer(error: .none, offset: Int64(1 + place)))
        }
        // after that, a gap is one
        client.send(produce("t", batch("b", 9), acks: -1, id: 7))
        #expect(try answer(client, 7, in: world).error == .outOfOrderSequenceNumber)
    }

    @Test func isForgottenWithItsConnection() throws {
        let world = try BrokerWorld()
        let client = try world.connect()
        client.send(produce("t", batch("a", 0), acks: -1, id: 0))
        _ = try answer(client, 0, in: world)
        #expect(world.broker.refusedSequencesCount == 1)
        client.close()
        #expect(world.until { world.broker.refusedSequencesCount == 0 })
    }

    @Test func isOneOfALimitedNumber() {
        var refused = RefusedSequences()
        func header(_ producer: ProducerID, _ sequence: Int32) -> BatchHeader {
            let bytes = batch("", sequence, producer: producer)
            return bytes.withUnsafeBytes { BatchHeader($0) }
        }
        func place(_ producer: ProducerID, _ partition: Int32) -> RefusedSequences.Place {
            RefusedSequences.Place(topicID: .zero, topicName: "t", partition: partition, producer: producer)
        }
        for partition in 0..<Int32(2 * RefusedSequences.limit) { refused.refused(header(1, 3), .kafkaStorageError, at: place(1, partition)) }
        #expect(refused.count == RefusedSequences.limit)
        #expect(refused.refusal(before: header(1, 4), at: place(1, 0)) == .kafkaStorageError)
        // the earliest counts
        refused.refused(header(1, 1), .kafkaStorageError, at: place(1, 0))
        refused.refused(header(1, 6), .kafkaStorageError, at: place(1, 0))
        #expect(refused.refusal(before: header(1, 2), at: place(1, 0)) == .kafkaStorageError)
        #expect(refused.refusal(before: header(1, 1), at: place(1, 0)) == .none)
        // with another id a producer sends nothing of the one before
        refused.refused(header(2, 0), .notEnoughReplicas, at: place(2, 0))
        #expect(refused.count == 1 && refused.refusal(before: header(2, 1), at: place(2, 0)) == .notEnoughReplicas)
    }
}
