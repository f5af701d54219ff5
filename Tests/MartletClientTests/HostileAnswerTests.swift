import MartletBasics
import MartletClient
import MartletModel
import MartletSimulation
import MartletWire
import Testing

@Suite struct NoAnswerStopsTheProgram {
    @Test(arguments: [
        [0, 0, 0, 3, 1, 2, 3], [0, 0, 0, 0], [0xFF, 0xFF, 0xFF, 0xFF], [0x7F, 0xFF, 0xFF, 0xFF, 0],
        Array("HTTP/1.1 400 Bad Request\r\n".utf8), [0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46],
        [0, 0, 0, 4, 0, 0, 0, 99],
    ] as [[UInt8]])
    func whatIsNoAnswerOfABrokerIsSaidToBeNone(_ frame: [UInt8]) throws {
        let world = try ClientWorld()
        world.broker.on(ApiVersionsRequest.self) { _, _ in .frame(frame) }
        let error = try #require(try world.run { try await $0.refresh(topics: nil) }.error)
        #expect("\(error)".contains("cannot be read"))
    }

    @Test func anAnswerThatNeverEndsIsGivenUp() throws {
        let world = try ClientWorld { $0.requestTimeLimit = .seconds(2) }
        world.broker.on(MetadataRequest.self) { _, _ in .frame([0x01, 0, 0, 0, 0, 0]) }
        let error = try #require(try world.run { try await $0.refresh(topics: nil) }.error)
        #expect("\(error)".contains("did not answer Metadata within 2000 ms") || error.concernsConnection)
    }

    /// Any bytes in place of any answer: an error or a value, and never the end of the process.
    @Test func bytesOfChanceAreAnError() throws {
        for seed: UInt64 in 1...60 {
            let world = try ClientWorld(seed: seed) {
                $0.requestTimeLimit = .seconds(1)
                $0.operationTimeLimit = .seconds(3)
            }
            var random = world.simulated.makeRandom("answers")
            func noise(_ limit: Int) -> [UInt8] {
                // small numbers are what counts and lengths are made of
                (0..<random.below(limit)).map { _ in
                    UInt8(truncatingIfNeeded: random.below(random.chance(2, in: 3) ? 4 : 256))
                }
            }
            world.broker.on(FetchRequest.self) { _, _ in .bytes(noise(300)) }
            world.broker.on(ListOffsetsRequest.self) { _, _ in .bytes(noise(60)) }
            world.broker.on(DescribeGroupsRequest.self) { _, _ in .bytes(noise(200)) }
            world.broker.on(FindCoordinatorRequest.self) { _, _ in .bytes(noise(60)) }
            world.broker.on(CreateTopicsRequest.self) { _, _ in .bytes(noise(100)) }
            world.broker.on(DescribeConfigsRequest.self) { _, _ in .bytes(noise(200)) }
            world.broker.on(ListGroupsRequest.self) { _, _ in .bytes(noise(60)) }
            _ = try world.run { try await $0.refresh(topics: nil) }.get()
            let place = TopicPartition("orders", 0)
            for _ in 0..<20 {
                _ = try world.run { try await $0.offsets(.latest, of: [place]) }
                _ = try world.run { try await $0.createTopics([NewTopic("a")]) }
                _ = try world.run { try await $0.configs(of: .cluster) }
                _ = try world.run { try await $0.groups() }
            }
            _ = try world.run { try await $0.group("billing") }
            _ = try world.run { client in
                let consumer = Consumer(client, from: [(place, 0)])
                for records in try await consumer.poll() { while try records.nextBatch({ _ in true }) {} }
            }
            if seed % 4 == 0 {
                world.broker.on(MetadataRequest.self) { _, _ in .bytes(noise(300)) }
                _ = try world.run { try await $0.refresh(topics: nil) }
            }
        }
    }

    @Test func metadataThatNamesImpossibleBrokersIsReadWithoutThem() throws {
        let world = try ClientWorld()
        world.broker.on(MetadataRequest.self) { _, _ in
            var response = MetadataResponse()
            response.brokers = ([-1, 0, 65_536, 9092] as [Int32]).map { port in
                var broker = MetadataResponse.MetadataResponseBroker()
                broker.nodeID = port
                broker.host = "somewhere"
                broker.port = port
                return broker
            }
            response.controllerID = -1
            return .answer(response)
        }
        #expect(try world.run { try await $0.refresh(topics: nil) }.get().brokers.map(\.id) == [9092])
    }

    @Test func anAnswerThatLeavesOutWhatWasAskedIsAnError() throws {
        let world = try ClientWorld()
        world.broker.on(ListOffsetsRequest.self) { _, _ in .answer(ListOffsetsResponse()) }
        world.broker.on(FetchRequest.self) { _, _ in .answer(FetchResponse()) }
        world.broker.on(DescribeConfigsRequest.self) { _, _ in .answer(DescribeConfigsResponse()) }
        let place = TopicPartition("orders", 0)
        let found = try world.run { try await $0.offsets(.latest, of: [place]) }.get()
        #expect("\(try #require(found.first?.error))".contains("it says nothing of orders-0"))
        let fetched = try world.run { client in
            try await Consumer(client, from: [(place, 0)]).poll().count
        }
        #expect("\(try #require(fetched.error))".contains("it says nothing of orders-0"))
        let configs = try world.run { try await $0.configs(of: .cluster) }
        #expect("\(try #require(configs.error))".contains("it is empty"))
    }

    // MARK: Records

    private func fetched(_ records: [UInt8], from offset: Offset = 0) throws -> Result<[Offset], ClientError> {
        let world = try ClientWorld()
        world.broker.on(FetchRequest.self) { request, _ in
            var part = FetchResponse.PartitionData()
            part.partitionIndex = 0
            part.highWatermark = 100
            part.records = .owned(records)
            var topic = FetchResponse.FetchableTopicResponse()
            topic.topic = "orders"
            topic.partitions = [part]
            var response = FetchResponse()
            response.responses = [topic]
            return .answer(response)
        }
        return try world.run { client in
            let consumer = Consumer(client, from: [(TopicPartition("orders", 0), offset)])
            var offsets: [Offset] = []
            for records in try await consumer.poll() {
                while try records.nextBatch({
                    offsets.append($0.offset)
                    return true
                }) {}
                consumer.advance(records)
            }
            return offsets + [consumer.positions[0].offset]
        }
    }

    private func batch(_ values: [String], at offset: Offset, codec: CompressionCodec = .none) -> [UInt8] {
        var identity = BatchIdentity()
        identity.baseOffset = offset
        var builder = BatchBuilder(identity)
        for value in values { builder.append(timestamp: 1, key: nil, value: Array(value.utf8)) }
        var output = ByteBuffer()
        builder.finish(into: &output, codec: codec, contexts: CodecContexts())
        return output.array
    }

    @Test(arguments: CompressionCodec.allCases)
    func recordsOfEveryCodecAreReadFromWhereOneWants(_ codec: CompressionCodec) throws {
        let bytes = batch(["a", "b", "c"], at: 4, codec: codec) + batch(["d"], at: 7, codec: codec)
        #expect(try fetched(bytes, from: 5).get() == [5, 6, 7, 8])
    }

    @Test func aBatchThatIsCutOffIsLeftForTheNextTime() throws {
        let whole = batch(["a", "b"], at: 0), second = batch(["c"], at: 2)
        #expect(try fetched(whole + second.dropLast()).get() == [0, 1, 2])
        #expect(try fetched(whole + second.prefix(9)).get() == [0, 1, 2])
    }

    @Test func aBatchThatWasChangedOnTheWayIsNotShown() throws {
        for position in [22, 40, 61, 65] {
            var bytes = batch(["some text", "b"], at: 0)
            bytes[position] ^= 1
            let error = try #require(try fetched(bytes).error, "byte \(position)")
            #expect("\(error)".contains("checksum"), "byte \(position)")
        }
        var old = batch(["a"], at: 0)
        old[16] = 1
        #expect("\(try #require(try fetched(old).error))".contains("format 1"))
    }

    @Test func recordsOfTransactionsThatWereAbortedAreLeftOut() throws {
        func transactional(_ producer: ProducerID, _ offset: Offset) -> [UInt8] {
            var identity = BatchIdentity(producerID: producer, epoch: 0, baseSequence: 0, isTransactional: true)
            identity.baseOffset = offset
            var builder = BatchBuilder(identity)
            builder.append(timestamp: 1, key: nil, value: [1])
            var output = ByteBuffer()
            builder.finish(into: &output, contexts: CodecContexts())
            return output.array
        }
        func marker(_ producer: ProducerID, _ type: ControlRecordType, _ offset: Offset) -> [UInt8] {
            var output = ByteBuffer()
            BatchBuilder.write(
                EndTransactionMarker(type, coordinatorEpoch: 0), producerID: producer, epoch: 0, timestamp: 1,
                baseOffset: offset, into: &output, contexts: CodecContexts())
            return output.array
        }
        let bytes =
            transactional(7, 0) + transactional(8, 1) + batch(["plain"], at: 2) + marker(7, .abort, 3)
            + marker(8, .commit, 4) + transactional(7, 5) + marker(7, .commit, 6)
        let world = try ClientWorld()
        world.broker.on(FetchRequest.self) { _, _ in
            var aborted = FetchResponse.AbortedTransaction()
            aborted.producerID = 7
            aborted.firstOffset = 0
            var part = FetchResponse.PartitionData()
            part.records = .owned(bytes)
            part.abortedTransactions = [aborted]
            var topic = FetchResponse.FetchableTopicResponse()
            topic.topic = "orders"
            topic.partitions = [part]
            var response = FetchResponse()
            response.responses = [topic]
            return .answer(response)
        }
        for (isCommitted, expected) in [(true, [1, 2, 5]), (false, [0, 1, 2, 5])] as [(Bool, [Offset])] {
            let offsets = try world.run { client in
                var settings = Consumer.Settings()
                settings.isCommitted = isCommitted
                var offsets: [Offset] = []
                for records in try await Consumer(client, from: [(TopicPartition("orders", 0), 0)], settings: settings).poll() {
                    while try records.nextBatch({
                        offsets.append($0.offset)
                        return true
                    }) {}
                    offsets.append(records.nextOffset)
                }
                return offsets
            }.get()
            #expect(offsets == expected + [7])
        }
    }
}
