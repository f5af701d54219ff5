package import MartletModel

/// A transactional id as DescribeTransactions tells it.
package struct TransactionDescription: Equatable, Sendable {
    package var state: TransactionState
    package var timeoutMs: Int32
    package var startTimestamp: Int64
    package var producer: ProducerIdentity
    /// Sorted.
    package var partitions: [TopicPartition]
}

/// A transactional id as ListTransactions tells it.
package struct TransactionListing: Equatable, Sendable {
    package var id: String
    package var producerID: ProducerID
    package var state: TransactionState
    package var startTimestamp: Int64
}

/// A transaction that is open, or whose end not all of its partitions know of, as those are told of it who wait for it.
package struct OpenTransaction: Equatable, Sendable {
    package var id: String
    package var state: TransactionState
    package var startTimestamp: Int64
    package var timeoutMs: Int32
}

/// What is asked of transactions without changing them.
extension TransactionMachine {
    /// Nil where nobody has used the id.
    package func describe(_ id: String) -> TransactionDescription? {
        guard let known = transactions[id]?.metadata, known.epoch != TransactionMetadata.noEpoch else { return nil }
        return TransactionDescription(
            state: known.state, timeoutMs: known.timeoutMs, startTimestamp: known.startTimestamp, producer: known.producer,
            partitions: known.partitions.sorted())
    }

    /// By id.
    package var listings: [TransactionListing] {
        sortedIDs.compactMap { id in
            guard let known = transactions[id]?.metadata, known.epoch != TransactionMetadata.noEpoch else { return nil }
            return TransactionListing(
                id: id, producerID: known.producerID, state: known.state, startTimestamp: known.startTimestamp)
        }
    }

    /// By the id of the producer whose transaction it is.
    package var open: [ProducerID: OpenTransaction] {
        var open: [ProducerID: OpenTransaction] = [:]
        // in any order: no two have the same producer id
        for (id, transaction) in transactions {
            let known = transaction.metadata
            guard known.state == .ongoing || known.state.isEnding else { continue }
            open[known.producerID] = OpenTransaction(
                id: id, state: known.state, startTimestamp: known.startTimestamp, timeoutMs: known.timeoutMs)
        }
        return open
    }

    /// How many ids there are in each state, by the state's number.
    package var stateCounts: [Int] {
        var counts = [Int](repeating: 0, count: TransactionState.allCases.count)
        // in any order: they are counted
        for transaction in transactions.values { counts[Int(transaction.metadata.state.rawValue)] += 1 }
        return counts
    }

    /// What speaks against a producer writing to these partitions in its transaction: whether all of them were added.
    package func verify(_ id: String, _ producer: ProducerIdentity, _ partitions: some Sequence<TopicPartition>) -> ErrorCode {
        // all have their markers, and only the note of it is on its way
        if let transaction = transactions[id], transaction.pending?.state.isOver == true, transaction.metadata.producer == producer {
            return .transactionAbortable
        }
        let known: TransactionMetadata
        switch speaker(id, producer) {
        case .failure(let failure): return failure.error
        case .success(let transaction): known = transaction.metadata
        }
        if known.state.isEnding { return .concurrentTransactions }
        // an end that is on its way to the log is as good as there: after its markers nothing may come
        if let pending = transactions[id]?.pending, pending.state != .ongoing { return .concurrentTransactions }
        return known.state == .ongoing && partitions.allSatisfy(known.partitions.contains) ? .none : .transactionAbortable
    }
}
