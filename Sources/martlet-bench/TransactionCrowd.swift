import MartletBasics
import MartletModel
import MartletReactor
import MartletWire

/// Producers of transactions, a connection each. A transaction is a record to each of two partitions, and its end; every
/// answer is looked at before the next request goes out, as with clients.
final class TransactionCrowd {
    private static let patience = Interval.seconds(60)
    private static let betweenRounds = Interval.milliseconds(20)
    private static let roundsLimit = 500
    private static let timeoutMs: Int32 = 60_000
    /// So often in a row a producer is told to come again.
    private static let repeatsLimit = 1000

    private enum Step { case adding, producing, ending }

    private struct Producer {
        var id: ProducerID = -1
        var epoch: ProducerEpoch = -1
        var sequence: Int32 = 0
        var step = Step.adding
        var began = Instant(nanoseconds: 0)
        var repeats = 0
    }

    /// Requests that a transaction takes.
    static func requests(_ spoken: Case.TransactionProtocol) -> Int { spoken == .first ? 3 : 2 }

    private let names: [String]
    private let topic: String
    private let partitions: Int32
    private let spoken: Case.TransactionProtocol
    private let swarm: Swarm
    private let host: any Host
    private let value = [UInt8](repeating: 0x6D, count: RecordSource.valueBytes)
    private let contexts = CodecContexts()
    private var producers: [Producer]

    init(
        _ name: String, topic: String, partitions: Int32, _ spoken: Case.TransactionProtocol, swarm: Swarm, host: any Host
    ) {
        names = (0..<swarm.count).map { "\(name)-\($0)" }
        self.topic = topic
        self.partitions = partitions
        self.spoken = spoken
        self.swarm = swarm
        self.host = host
        producers = Array(repeating: Producer(), count: swarm.count)
    }

    // MARK: Beginning

    /// Every producer gets its id and epoch.
    func initialize() async throws(BenchFault) {
        var last = ErrorCode.none
        for _ in 0..<Self.roundsLimit {
            try await swarm.run(within: Self.patience) { (index) throws(BenchFault) in
                try producers[index].id < 0 ? initialization(index) : nil
            } answered: {
                [self] (index, answer) throws(BenchFault) in
                let response = try decoded(InitProducerIdResponse.self, answer, version: SpokenVersion.initProducerID)
                switch response.errorCode {
                case .none:
                    producers[index].id = response.producerID
                    producers[index].epoch = response.producerEpoch
                case .coordinatorLoadInProgress, .coordinatorNotAvailable, .notCoordinator, .concurrentTransactions:
                    last = response.errorCode
                default: throw BenchFault("InitProducerId was answered with \(response.errorCode)")
                }
                return nil
            }
            if producers.allSatisfy({ $0.id >= 0 }) { return }
            await host.loops[0].sleep(for: Self.betweenRounds)
        }
        throw BenchFault("InitProducerId is answered with \(last) again and again")
    }

    private func initialization(_ index: Int) throws(BenchFault) -> Frame {
        var request = InitProducerIdRequest()
        request.transactionalID = names[index]
        request.transactionTimeoutMs = Self.timeoutMs
        return try Frame(request, version: SpokenVersion.initProducerID, correlationID: 0)
    }

    // MARK: Transactions

    /// One transaction after the other, until the meter is done and what was begun is ended.
    func run(_ meter: Meter) async throws(BenchFault) {
        try await swarm.run(within: Self.patience) { (index) throws(BenchFault) in
            try begin(index)
        } answered: {
            [self] (index, answer) throws(BenchFault) in
            switch try outcome(answer, producers[index].step) {
            case .none: producers[index].repeats = 0
            case .concurrentTransactions:
                // the end of the one before is still under way
                producers[index].repeats += 1
                guard producers[index].repeats < Self.repeatsLimit else {
                    throw BenchFault("a transaction before its next does not end")
                }
                return try request(index)
            case let error: throw BenchFault("\(producers[index].step) in a transaction was answered with \(error)")
            }
            switch producers[index].step {
            case .adding: producers[index].step = .producing
            case .producing:
                producers[index].sequence += 1
                producers[index].step = .ending
            case .ending:
                try ended(index, answer)
                try meter.finished(sent: producers[index].began, records: 2, bytes: 0)
                return meter.isOver ? nil : try begin(index)
            }
            return try request(index)
        }
    }

    private func begin(_ index: Int) throws(BenchFault) -> Frame {
        producers[index].began = host.clock.now
        producers[index].step = spoken == .first ? .adding : .producing
        return try request(index)
    }

    private func request(_ index: Int) throws(BenchFault) -> Frame {
        switch producers[index].step {
        case .adding: try addition(index)
        case .producing: try records(index, isTransactional: true)
        case .ending: try end(index)
        }
    }

    /// What went wrong, by the first error that there is.
    private func outcome(_ answer: UnsafeRawBufferPointer, _ step: Step) throws(BenchFault) -> ErrorCode {
        switch step {
        case .adding:
            let response = try decoded(AddPartitionsToTxnResponse.self, answer, version: SpokenVersion.addPartitions)
            let codes = response.resultsByTopicV3AndBelow.flatMap { $0.resultsByPartition.map(\.partitionErrorCode) }
            guard codes.count == 2 else { throw BenchFault("AddPartitionsToTxn tells of \(codes.count) partitions") }
            return ErrorCode(rawValue: codes.first { $0 != 0 } ?? 0)
        case .producing: return try produced(answer)
        case .ending:
            let version = SpokenVersion.endTransaction(in: spoken)
            return try decoded(EndTxnResponse.self, answer, version: version).errorCode
        }
    }

    private func produced(_ answer: UnsafeRawBufferPointer) throws(BenchFault) -> ErrorCode {
        let response = try decoded(ProduceResponse.self, answer, version: SpokenVersion.produce(in: spoken))
        let codes = response.responses.flatMap { $0.partitionResponses.map(\.errorCode) }
        guard codes.count == 2 else { throw BenchFault("Produce tells of \(codes.count) partitions") }
        return codes.first { $0 != .none } ?? .none
    }

    /// In the second protocol an end says who the producer is from now on.
    private func ended(_ index: Int, _ answer: UnsafeRawBufferPointer) throws(BenchFault) {
        guard spoken == .second else { return }
        let response = try decoded(EndTxnResponse.self, answer, version: SpokenVersion.endTransaction(in: spoken))
        let before = producers[index]
        guard response.producerID >= 0, response.producerID != before.id || response.producerEpoch != before.epoch else {
            throw BenchFault("EndTxn was answered without a new epoch")
        }
        producers[index].id = response.producerID
        producers[index].epoch = response.producerEpoch
        producers[index].sequence = 0
    }

    // MARK: The same without transactions

    /// The same records to the same partitions, one request after the other on each connection.
    func runPlain(_ meter: Meter) async throws(BenchFault) {
        try await swarm.run(within: Self.patience) { (index) throws(BenchFault) in
            producers[index].began = host.clock.now
            return try records(index, isTransactional: false)
        } answered: {
            [self] (index, answer) throws(BenchFault) in
            let code = try produced(answer)
            guard code == .none else { throw BenchFault("Produce was answered with \(code)") }
            try meter.finished(sent: producers[index].began, records: 2, bytes: 0)
            producers[index].began = host.clock.now
            return meter.isOver ? nil : try records(index, isTransactional: false)
        }
    }

    // MARK: Requests

    private func pair(_ index: Int) -> [Int32] {
        [Int32(2 * index) % partitions, Int32(2 * index + 1) % partitions]
    }

    private func addition(_ index: Int) throws(BenchFault) -> Frame {
        var added = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic()
        added.name = topic
        added.partitions = pair(index)
        var request = AddPartitionsToTxnRequest()
        request.v3AndBelowTransactionalID = names[index]
        request.v3AndBelowProducerID = producers[index].id
        request.v3AndBelowProducerEpoch = producers[index].epoch
        request.v3AndBelowTopics = [added]
        return try Frame(request, version: SpokenVersion.addPartitions, correlationID: 0)
    }

    private func records(_ index: Int, isTransactional: Bool) throws(BenchFault) -> Frame {
        let producer = producers[index]
        let identity =
            isTransactional
            ? BatchIdentity(
                producerID: producer.id, epoch: producer.epoch, baseSequence: producer.sequence, isTransactional: true)
            : BatchIdentity()
        var builder = BatchBuilder(identity, capacity: value.count + 32)
        builder.append(timestamp: host.clock.wallMilliseconds, key: nil, value: value)
        var batch = ByteBuffer(capacity: value.count + 128)
        builder.finish(into: &batch, contexts: contexts)
        let bytes = batch.array
        var data = ProduceRequest.TopicProduceData()
        data.name = topic
        data.partitionData = pair(index).map { partition in
            var part = ProduceRequest.PartitionProduceData()
            part.index = partition
            part.records = .owned(bytes)
            return part
        }
        var request = ProduceRequest()
        request.transactionalID = isTransactional ? names[index] : nil
        request.acks = -1
        request.timeoutMs = 30_000
        request.topicData = [data]
        return try Frame(request, version: SpokenVersion.produce(in: spoken), correlationID: 0)
    }

    private func end(_ index: Int) throws(BenchFault) -> Frame {
        var request = EndTxnRequest()
        request.transactionalID = names[index]
        request.producerID = producers[index].id
        request.producerEpoch = producers[index].epoch
        request.committed = true
        return try Frame(request, version: SpokenVersion.endTransaction(in: spoken), correlationID: 0)
    }
}
