import MartletModel
import MartletWire

/// DescribeTransactions 0: how far transactional ids are, and what their transactions write to.
enum DescribeTransactionsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(DescribeTransactionsRequest.self)
        var response = DescribeTransactionsResponse()
        var budget = AnswerBudget()
        response.transactionStates = try asked.transactionalIDs.map { id in
            let state = describe(id, request)
            try budget.take(
                state.topics.reduce(256 + id.utf8.count) { $0 + 64 + $1.topic.utf8.count + 4 * $1.partitions.count })
            return state
        }
        try request.answer(response)
    }

    private static func describe(_ id: String, _ request: Request) -> DescribeTransactionsResponse.TransactionState {
        var state = DescribeTransactionsResponse.TransactionState()
        state.transactionalID = id
        guard !id.isEmpty else {
            state.errorCode = .invalidRequest
            return state
        }
        switch request.broker.transactions.read(id, { $0.describe(id) }) {
        case .failure(let failure): state.errorCode = failure.error
        case .success(nil): state.errorCode = .transactionalIDNotFound
        case .success(let found?):
            state.transactionState = found.state.name
            state.transactionTimeoutMs = found.timeoutMs
            state.transactionStartTimeMs = found.startTimestamp
            state.producerID = found.producer.id
            state.producerEpoch = found.producer.epoch
            for partition in found.partitions {
                if state.topics.last?.topic != partition.topic {
                    var topic = DescribeTransactionsResponse.TopicData()
                    topic.topic = partition.topic
                    state.topics.append(topic)
                }
                state.topics[state.topics.count - 1].partitions.append(partition.partition)
            }
        }
        return state
    }
}
