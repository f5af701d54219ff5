import MartletBasics
import MartletModel
import MartletWire

/// ListTransactions 0-2: the transactional ids that this broker coordinates, by state and producer; from version 1 on those
/// whose transaction is older than so long, from 2 on those whose id is of a pattern (a regular expression for the whole).
enum ListTransactionsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(ListTransactionsRequest.self)
        var response = ListTransactionsResponse()
        let shards = request.broker.transactions.allShards
        guard !shards.contains(where: \.isLoading) else {
            response.errorCode = .coordinatorLoadInProgress
            return try request.answer(response)
        }
        var pattern: TopicPattern?
        if let text = asked.transactionalIDPattern, !text.isEmpty {
            guard let known = try? TopicPattern(text) else {
                response.errorCode = .invalidRegularExpression
                return try request.answer(response)
            }
            pattern = known
        }
        let now = request.broker.clock.wallMilliseconds
        let (states, producers) = (Set(asked.stateFilters), Set(asked.producerIDFilters))
        response.unknownStateFilters = asked.stateFilters.filter { !TransactionState.names.contains($0) }
        var budget = AnswerBudget()
        for listing in shards.flatMap({ shard in (try? shard.read { $0.listings }.get()) ?? [] }) {
            guard states.isEmpty || states.contains(listing.state.name),
                producers.isEmpty || producers.contains(listing.producerID),
                asked.durationFilter < 0 || now &- listing.startTimestamp > asked.durationFilter,
                pattern?.matches(listing.id) ?? true
            else { continue }
            try budget.take(64 + listing.id.utf8.count)
            var state = ListTransactionsResponse.TransactionState()
            state.transactionalID = listing.id
            state.producerID = listing.producerID
            state.transactionState = listing.state.name
            response.transactionStates.append(state)
        }
        try request.answer(response)
    }
}
