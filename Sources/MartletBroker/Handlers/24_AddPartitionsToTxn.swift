import MartletCluster
import MartletModel
import MartletWire

/// AddPartitionsToTxn 0-5: a producer tells what its transaction will write to; from version 4 on brokers ask for several
/// transactions at once, to add to them or only to find out whether the partitions are there (KIP-890).
///
/// One partition that does not exist refuses all: the others are OPERATION_NOT_ATTEMPTED.
enum AddPartitionsToTxnHandler {
    private typealias TopicResult = AddPartitionsToTxnResponse.AddPartitionsToTxnTopicResult

    static func handle(_ request: Request) throws {
        let asked = try request.decode(AddPartitionsToTxnRequest.self)
        guard request.version >= 4 else { return older(asked, request) }
        let answers = Answers(asked.transactions.count, request.later())
        for (index, one) in asked.transactions.enumerated() {
            let producer = ProducerIdentity(one.producerID, one.producerEpoch)
            add(one.transactionalID, producer, one.topics, onlyVerifying: one.verifyOnly, request) { topics in
                var result = AddPartitionsToTxnResponse.AddPartitionsToTxnResult()
                result.transactionalID = one.transactionalID
                result.topicResults = topics
                answers.take(index, result)
            }
        }
        answers.allAreAsked()
    }

    private static func older(_ asked: AddPartitionsToTxnRequest, _ request: Request) {
        let producer = ProducerIdentity(asked.v3AndBelowProducerID, asked.v3AndBelowProducerEpoch)
        let responder = request.later()
        add(asked.v3AndBelowTransactionalID, producer, asked.v3AndBelowTopics, onlyVerifying: false, request) { topics in
            var response = AddPartitionsToTxnResponse()
            response.resultsByTopicV3AndBelow = topics
            responder.answer(response)
        }
    }

    /// The answers of several transactions, each of which comes at its own time.
    private final class Answers {
        private var results: [AddPartitionsToTxnResponse.AddPartitionsToTxnResult?]
        private var left: Int
        private let responder: Responder

        init(_ count: Int, _ responder: Responder) {
            results = Array(repeating: nil, count: count)
            left = count + 1
            self.responder = responder
        }

        func take(_ index: Int, _ result: AddPartitionsToTxnResponse.AddPartitionsToTxnResult) {
            results[index] = result
            allAreAsked()
        }

        func allAreAsked() {
            left -= 1
            guard left == 0 else { return }
            var response = AddPartitionsToTxnResponse()
            response.resultsByTransaction = results.map { $0! }
            responder.answer(response)
        }
    }

    private static func add(
        _ id: String, _ producer: ProducerIdentity, _ topics: [AddPartitionsToTxnRequest.AddPartitionsToTxnTopic],
        onlyVerifying: Bool, _ request: Request, _ then: @escaping ([TopicResult]) -> Void
    ) {
        let image = request.broker.metadata.current
        var isWhole = true
        var partitions: [TopicPartition] = []
        for topic in topics {
            let info = image.topic(topic.name)
            for index in topic.partitions {
                if info?.has(index) != true { isWhole = false }
                partitions.append(TopicPartition(topic.name, index))
            }
        }
        guard isWhole else {
            return then(
                results(topics) { image.topic($0)?.has($1) == true ? .operationNotAttempted : .unknownTopicOrPartition })
        }
        let version = request.version
        let transactions = request.broker.transactions
        if onlyVerifying {
            let whole = transactions.verify(id, producer, [])
            return then(
                results(topics) { name, index in
                    // what is wrong with the producer is wrong everywhere
                    let error =
                        whole == .none || whole == .transactionAbortable
                        ? transactions.verify(id, producer, CollectionOfOne(TopicPartition(name, index))) : whole
                    return error.forTransactions(fencedFrom: 2, version)
                })
        }
        transactions.submit(id, on: request.connection.loop) { reply in
            let error = reply.error.forTransactions(fencedFrom: 2, version)
            then(results(topics) { _, _ in error })
        } _: {
            .addPartitions(
                AddPartitionsEvent(id: id, producer: producer, partitions: partitions, version: version >= 4 ? 2 : 0), $0)
        }
    }

    private static func results(
        _ topics: [AddPartitionsToTxnRequest.AddPartitionsToTxnTopic], _ code: (String, Int32) -> ErrorCode
    ) -> [TopicResult] {
        topics.map { topic in
            var result = TopicResult()
            result.name = topic.name
            result.resultsByPartition = topic.partitions.map { index in
                var partition = AddPartitionsToTxnResponse.AddPartitionsToTxnPartitionResult()
                partition.partitionIndex = index
                partition.partitionErrorCode = code(topic.name, index).rawValue
                return partition
            }
            return result
        }
    }
}

extension TransactionReply {
    var error: ErrorCode { if case .failed(let error) = self { error } else { .none } }
}

extension ErrorCode {
    /// Clients before PRODUCER_FENCED know an old epoch as INVALID_PRODUCER_EPOCH.
    func forTransactions(fencedFrom first: Int16, _ version: Int16) -> ErrorCode {
        self == .producerFenced && version < first ? .invalidProducerEpoch : self
    }
}
