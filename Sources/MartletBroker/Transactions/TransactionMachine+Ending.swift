import MartletBasics
import MartletModel

/// How transactions end: because their producer says so, because another takes its place, or because they took too long.
extension TransactionMachine {
    /// EndTxn. Up to version 4 the epoch stays; from 5 on (KIP-890) the end raises it, so that a request which is sent again
    /// is known by its epoch, and a transaction without a partition can be aborted too.
    mutating func end(_ event: EndTransactionEvent, _ ticket: CoordinatorTicket, fresh: ProducerID? = nil) {
        guard !event.id.isEmpty else { return answer(ticket, .invalidRequest) }
        guard let transaction = transactions[event.id], !transaction.isBeingRemoved else {
            return answer(ticket, .invalidProducerIDMapping)
        }
        let known = transaction.metadata
        // it knows who it is from now on, and comes before all have their markers
        if known.state.isEnding, event.version >= 2, event.producer == known.successor {
            return answer(ticket, .concurrentTransactions)
        }
        let isOverflow = event.version >= 2 && Self.isRetryAfterOverflow(event.producer, known)
        guard known.producerID == event.producer.id || isOverflow else { return answer(ticket, .invalidProducerIDMapping) }
        let isRetry = event.version >= 2 && (isOverflow || Int(known.epoch) == Int(event.producer.epoch) + 1)
        guard Self.isValid(event, known, isRetry: isRetry) else { return answer(ticket, .producerFenced) }
        guard transaction.pending == nil else { return answer(ticket, .concurrentTransactions) }
        switch known.state {
        case .ongoing: break
        case .prepareCommit, .prepareAbort:
            return answer(ticket, event.commits == (known.state == .prepareCommit) ? .concurrentTransactions : .invalidTxnState)
        case .completeCommit where event.commits, .completeAbort where !event.commits:
            // the first protocol cannot tell one that is sent again from one for a transaction that was never begun
            if isRetry || event.version < 2 { return answer(ticket, .producer(known.producer)) }
            guard !event.commits else { return answer(ticket, .invalidTxnState) }
        case .empty, .completeCommit, .completeAbort:
            guard event.version >= 2, !event.commits, !isRetry else { return answer(ticket, .invalidTxnState) }
        }
        prepareEnd(transaction, event, ticket, fresh: fresh)
    }

    /// The end was told in the last epoch of a producer id that another has followed.
    private static func isRetryAfterOverflow(_ producer: ProducerIdentity, _ known: TransactionMetadata) -> Bool {
        known.previousProducerID == producer.id && known.epoch == 0 && producer.epoch == TransactionMetadata.lastEpoch
    }

    private static func isValid(_ event: EndTransactionEvent, _ known: TransactionMetadata, isRetry: Bool) -> Bool {
        let isCurrent = event.producer.epoch == known.epoch
        guard event.version >= 2 else { return isCurrent }
        switch known.state {
        case .empty, .ongoing: return isCurrent
        case .prepareCommit, .prepareAbort: return isRetry
        case .completeCommit, .completeAbort: return isRetry || isCurrent
        }
    }

    private mutating func prepareEnd(
        _ transaction: Transaction, _ event: EndTransactionEvent, _ ticket: CoordinatorTicket, fresh: ProducerID?
    ) {
        var next = transaction.metadata
        if event.version >= 2 {
            if next.isExhausted {
                guard let fresh else { return allocate(.end(event, ticket)) }
                next.nextProducerID = fresh
            }
            next.lastEpoch = next.epoch
            // beyond the last there is none: an abort of our own has used it up, and whoever comes with it is at the end
            if next.epoch < .max { next.epoch += 1 }
        }
        if next.state != .ongoing { next.startTimestamp = moment.wallMilliseconds }
        next.version = event.version
        next.state = event.commits ? .prepareCommit : .prepareAbort
        decide(next, for: transaction, then: .ending(ticket, .producer(next.successor)))
    }

    /// The coordinator ends a transaction that its producer has not. The epoch rises, so that nothing of this producer is
    /// taken any more; it can go on by asking for its epoch. Who asked is to come again when the abort is over.
    mutating func abort(_ transaction: Transaction, for ticket: CoordinatorTicket?) {
        var next = transaction.metadata
        precondition(next.state == .ongoing && transaction.pending == nil, "what is aborted is open, and not ending")
        next.lastEpoch = next.epoch
        if next.epoch < .max { next.epoch += 1 }
        next.version = 2
        next.state = .prepareAbort
        decide(next, for: transaction, then: .ending(ticket, .failed(.concurrentTransactions)))
    }

    // MARK: Markers

    mutating func writeMarkers(of transaction: Transaction) {
        let ending = Self.ending(transaction)
        guard !ending.partitions.isEmpty else { return complete(transaction) }
        actions.append(.effect(.writeMarkers(ending)))
    }

    private static func ending(_ transaction: Transaction) -> EndingTransaction {
        let known = transaction.metadata
        return EndingTransaction(
            id: transaction.id, producer: known.producer, commits: known.state == .prepareCommit,
            version: Int8(clamping: known.version),
            partitions: known.partitions.sorted())
    }

    mutating func markersWritten(_ ending: EndingTransaction) {
        guard let transaction = transactions[ending.id], transaction.pending == nil, transaction.metadata.state.isEnding,
            Self.ending(transaction) == ending
        else { return }
        complete(transaction)
    }

    private mutating func complete(_ transaction: Transaction) {
        var next = transaction.metadata
        next.state = next.state == .prepareCommit ? .completeCommit : .completeAbort
        next.partitions = []
        if next.nextProducerID >= 0 {
            next.previousProducerID = next.producerID
            next.producerID = next.nextProducerID
            next.nextProducerID = -1
            next.epoch = 0
        }
        decide(next, for: transaction, then: .complete)
    }

    /// That all have their markers could not be written: the id stays busy until it can.
    mutating func tryAgain(_ transaction: Transaction) { retries.append((moment.now + Self.retryDelay, transaction)) }

    mutating func retryDue() {
        while let first = retries.first, first.due <= moment.now {
            retries.popFirst()
            if first.transaction.metadata.state.isEnding, first.transaction.pending == nil { complete(first.transaction) }
        }
    }

    // MARK: Time

    mutating func setTimeout(of transaction: Transaction) {
        let known = transaction.metadata
        let elapsed = max(moment.wallMilliseconds &- known.startTimestamp, 0)
        let left = max(Int64(known.timeoutMs) - elapsed, 0)
        timeouts.set(transaction, due: moment.now + .milliseconds(left))
    }

    mutating func abortTimedOut() {
        var waiting: [Transaction] = []
        while let due = timeouts.popDue(moment.now) {
            guard let transaction = due as? Transaction else { preconditionFailure("transactions are due, and nothing else") }
            guard transaction.metadata.state == .ongoing else { continue }
            // its own end is on its way, or more partitions: the next look decides
            guard transaction.pending == nil else {
                waiting.append(transaction)
                continue
            }
            counts.timedOut += 1
            abort(transaction, for: nil)
        }
        for transaction in waiting { timeouts.set(transaction, due: moment.now) }
    }
}
