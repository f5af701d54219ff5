import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletSimulation
import MartletWire
import Testing

/// A client of one request at a time, that speaks of transactions.
final class TransactionClient {
    let world: BrokerWorld
    private let client: RawClient
    private var count: Int32 = 0

    init(_ world: BrokerWorld) throws {
        self.world = world
        client = try world.connect()
    }

    func ask<Q: WireRequest, A: WireResponse>(_ request: Q, version: Int16, _: A.Type = A.self) throws -> A {
        try ask(bytes: frame(request, version: version, id: count), version: version)
    }

    func ask<A: WireResponse>(bytes: [UInt8], version: Int16, _: A.Type = A.self) throws -> A {
        client.send(bytes)
        count += 1
        try #require(world.until { self.client.frames.count == Int(self.count) }, "no answer")
        return try client.answer(A.self, Int(count) - 1, version: version)
    }

    /// Until the coordinator is there.
    func find(_ id: String) throws {
        var request = FindCoordinatorRequest()
        request.coordinatorKeys = [id]
        request.keyType = 1
        for _ in 0..<200 {
            let found: FindCoordinatorResponse = try ask(request, version: 4)
            if found.coordinators[0].errorCode == .none { return }
            world.simulated.run(for: .milliseconds(50))
        }
        Issue.record("no coordinator for \(id)")
    }

    func initialize(_ id: String, timeoutMs: Int32 = 60_000) throws -> InitProducerIdResponse {
        var request = InitProducerIdRequest()
        request.transactionalID = id
        request.transactionTimeoutMs = timeoutMs
        for _ in 0..<200 {
            let answer: InitProducerIdResponse = try ask(request, version: 4)
            guard [.coordinatorLoadInProgress, .notCoordinator, .concurrentTransactions].contains(answer.errorCode) else {
                return answer
            }
            world.simulated.run(for: .milliseconds(50))
        }
        throw RequestFaultOfTest()
    }

    func add(_ id: String, _ producer: InitProducerIdResponse, _ topic: String) throws -> ErrorCode {
        var added = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic()
        added.name = topic
        added.partitions = [0]
        var request = AddPartitionsToTxnRequest()
        request.v3AndBelowTransactionalID = id
        request.v3AndBelowProducerID = producer.producerID
        request.v3AndBelowProducerEpoch = producer.producerEpoch
        request.v3AndBelowTopics = [added]
        let answer: AddPartitionsToTxnResponse = try ask(request, version: 3)
        return ErrorCode(rawValue: answer.resultsByTopicV3AndBelow[0].resultsByPartition[0].partitionErrorCode)
    }

    /// An offset of the first partition of a topic, for a group.
    func commit(
        _ id: String, _ producer: InitProducerIdResponse, group: String, _ topic: String, _ offset: Int64
    ) throws -> ErrorCode {
        var adding = AddOffsetsToTxnRequest()
        (adding.transactionalID, adding.producerID, adding.producerEpoch) = (id, producer.producerID, producer.producerEpoch)
        adding.groupID = group
        let added: AddOffsetsToTxnResponse = try ask(adding, version: 3)
        guard added.errorCode == .none else { return added.errorCode }
        var partition = TxnOffsetCommitRequest.TxnOffsetCommitRequestPartition()
        partition.committedOffset = offset
        var committed = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic()
        (committed.name, committed.partitions) = (topic, [partition])
        var request = TxnOffsetCommitRequest()
        (request.transactionalID, request.producerID, request.producerEpoch) = (id, producer.producerID, producer.producerEpoch)
        (request.groupID, request.topics) = (group, [committed])
        let answer: TxnOffsetCommitResponse = try ask(request, version: 3)
        return answer.topics[0].partitions[0].errorCode
    }

    func end(_ id: String, _ producer: InitProducerIdResponse, commits: Bool = true) throws -> ErrorCode {
        var request = EndTxnRequest()
        (request.transactionalID, request.producerID, request.producerEpoch) = (id, producer.producerID, producer.producerEpoch)
        request.committed = commits
        let answer: EndTxnResponse = try ask(request, version: 3)
        return answer.errorCode
    }

    func produce(
        _ id: String?, _ producer: InitProducerIdResponse, _ topic: String, sequence: Int32 = 0, version: Int16 = 9
    ) throws -> ErrorCode {
        var builder = BatchBuilder(
            BatchIdentity(
                producerID: producer.producerID, epoch: producer.producerEpoch, baseSequence: sequence, isTransactional: true))
        builder.append(timestamp: world.host.clock.wallMilliseconds, key: nil, value: Array("v".utf8))
        var bytes = ByteBuffer()
        builder.finish(into: &bytes, contexts: CodecContexts())
        let request = ProduceRequest(bytes.array, to: topic, acks: -1, transactionalID: id)
        let answer: ProduceResponse = try ask(request, version: version)
        return answer.responses[0].partitionResponses[0].errorCode
    }

    func state(_ id: String) throws -> DescribeTransactionsResponse.TransactionState {
        var request = DescribeTransactionsRequest()
        request.transactionalIDs = [id]
        let answer: DescribeTransactionsResponse = try ask(request, version: 0)
        return answer.transactionStates[0]
    }
}

private struct RequestFaultOfTest: Error {}

@Suite struct TransactionsBrokerTests {
    private func ready(
        _ settings: [(name: String, value: String)] = [], loops: Int = 1
    ) throws -> (BrokerWorld, TransactionClient) {
        let world = try BrokerWorld(loops: loops, [("transaction.state.log.num.partitions", "2")] + settings)
        try world.createTopic("t")
        let client = try TransactionClient(world)
        try client.find("x")
        return (world, client)
    }

    @Test func aTransactionLeftOpenIsAbortedAtTheNextLook() throws {
        let (world, client) = try ready([("transaction.abort.timed.out.transaction.cleanup.interval.ms", "7000")])
        let producer = try client.initialize("x", timeoutMs: 1_000)
        #expect(try client.add("x", producer, "t") == .none)
        #expect(try client.produce("x", producer, "t") == .none)
        world.simulated.run(for: .seconds(3))
        #expect(try client.state("x").transactionState == "Ongoing", "nobody has looked yet")
        world.simulated.run(for: .seconds(8))
        #expect(try client.state("x").transactionState == "CompleteAbort")
        let partition = try #require(world.partition("t"))
        #expect(partition.highWatermark == 2, "the marker is there")
        #expect(try client.produce("x", producer, "t", sequence: 1) == .invalidProducerEpoch)
    }

    @Test func aTimeoutBeyondWhatTheSettingAllowsIsRefused() throws {
        let (_, client) = try ready([("transaction.max.timeout.ms", "5000")])
        #expect(try client.initialize("x", timeoutMs: 5_001).errorCode == .invalidTransactionTimeout)
        #expect(try client.initialize("x", timeoutMs: 5_000).errorCode == .none)
    }

    @Test func recordsOfATransactionThatNobodyKnowsAreRefusedWhereThatIsVerified() throws {
        for verifies in [true, false] {
            let (_, client) = try ready([("transaction.partition.verification.enable", "\(verifies)")])
            let producer = try client.initialize("x")
            #expect(try client.produce("x", producer, "t") == (verifies ? .invalidTxnState : .none))
            // from version 12 on there is nothing that could be left out
            #expect(try client.produce("x", producer, "t", sequence: verifies ? 0 : 1, version: 12) == .none)
            #expect(try client.produce(nil, producer, "t", sequence: 2) == .transactionalIDAuthorizationFailed)
        }
    }

    @Test func aTransactionalIDThatNobodyUsesIsForgotten() throws {
        let (world, client) = try ready([
            ("transactional.id.expiration.ms", "20000"), ("transaction.remove.expired.transaction.cleanup.interval.ms", "5000"),
        ])
        _ = try client.initialize("x")
        world.simulated.run(for: .seconds(15))
        #expect(try client.state("x").errorCode == .none)
        world.simulated.run(for: .seconds(15))
        #expect(try client.state("x").errorCode == .transactionalIDNotFound)
        #expect(world.broker.transactions.figures.states.allSatisfy { $0 == 0 })
    }

    @Test func aLargeCompressedBatchThatBeginsATransactionIsCheckedOnTheLaneAndAnsweredOnce() throws {
        let (world, client) = try ready(loops: 2)
        let producer = try client.initialize("x")
        var builder = BatchBuilder(
            BatchIdentity(
                producerID: producer.producerID, epoch: producer.producerEpoch, baseSequence: 0, isTransactional: true))
        var random = SeededRandom(seed: 5)
        let value = (0..<200_000).map { _ in UInt8(truncatingIfNeeded: random.below(200)) }
        builder.append(timestamp: world.host.clock.wallMilliseconds, key: nil, value: value)
        var bytes = ByteBuffer()
        builder.finish(into: &bytes, codec: .zstd, contexts: CodecContexts())
        let request = ProduceRequest(bytes.array, to: "t", acks: -1, transactionalID: "x")
        let answer: ProduceResponse = try client.ask(request, version: 12)
        #expect(answer.responses[0].partitionResponses[0].errorCode == .none)
        #expect(try client.state("x").transactionState == "Ongoing")
        #expect(try client.produce("x", producer, "t", sequence: 1, version: 12) == .none)
    }

    @Test func anEndThatWasToldIsCarriedOutAlsoWhenThePowerGoesAtOnce() throws {
        let (world, client) = try ready()
        let producer = try client.initialize("x")
        #expect(try client.produce("x", producer, "t", version: 12) == .none)
        var request = EndTxnRequest()
        request.transactionalID = "x"
        request.producerID = producer.producerID
        request.producerEpoch = producer.producerEpoch
        request.committed = true
        let answer: EndTxnResponse = try client.ask(request, version: 5)
        #expect(answer.errorCode == .none && answer.producerEpoch == producer.producerEpoch + 1)
        let partition = try #require(world.partition("t"))
        #expect(world.until { partition.highWatermark == 2 })
        #expect(world.until { world.broker.transactions.figures.counts.committed == 1 })
    }

    @Test func aTopicThatIsDeletedHoldsUpNoTransaction() throws {
        let (world, client) = try ready()
        try world.createTopic("gone")
        world.simulated.run(for: .seconds(31))
        let producer = try client.initialize("x")
        #expect(try client.add("x", producer, "gone") == .none)
        #expect(try client.add("x", producer, "t") == .none)
        let cluster = world.broker.cluster
        let topicID = try #require(cluster.metadata.current.topic("gone")).id
        try world.run { _ = await cluster.deleteTopic("gone", id: topicID) }
        var request = EndTxnRequest()
        request.transactionalID = "x"
        request.producerID = producer.producerID
        request.producerEpoch = producer.producerEpoch
        request.committed = true
        let answer: EndTxnResponse = try client.ask(request, version: 3)
        #expect(answer.errorCode == .none)
        world.simulated.run(for: .seconds(2))
        #expect(try client.state("x").transactionState == "CompleteCommit")
    }
}
