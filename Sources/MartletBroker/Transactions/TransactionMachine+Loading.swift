import MartletModel

/// What is read from the log, before anything else is handled; and what goes again.
extension TransactionMachine {
    package mutating func load(_ record: ReplayedRecord) -> Bool {
        guard !record.isControl, let known = TransactionRecord(key: record.key, value: record.value) else { return false }
        load(known)
        return true
    }

    package mutating func load(_ record: TransactionRecord) {
        guard let metadata = record.metadata else {
            if let gone = transactions.removeValue(forKey: record.id) { bytes -= gone.countedBytes }
            return
        }
        let transaction = transactions[record.id] ?? Transaction(record.id, metadata)
        transaction.metadata = metadata
        transactions[record.id] = transaction
        recount(transaction)
    }

    package var summary: Void { () }

    /// All is read: what was open is open for as long as it still may be, and what was ending goes on.
    package mutating func finishLoading(at moment: CoordinatorMoment) -> [TransactionAction] {
        self.moment = moment
        for id in sortedIDs {
            let transaction = transactions[id]!
            if transaction.metadata.state == .ongoing { setTimeout(of: transaction) }
            if transaction.metadata.state.isEnding { writeMarkers(of: transaction) }
        }
        defer { actions = [] }
        return actions
    }

    var sortedIDs: [String] { transactions.keys.sorted() }

    // MARK: Ids that nobody has used for long

    mutating func expire() {
        var expired: [Transaction] = []
        for id in sortedIDs {
            let transaction = transactions[id]!
            let known = transaction.metadata
            guard known.state != .ongoing, !known.state.isEnding, transaction.pending == nil, !transaction.isBeingRemoved,
                moment.wallMilliseconds &- known.updateTimestamp >= settings.expirationMs
            else { continue }
            transaction.isBeingRemoved = true
            expired.append(transaction)
        }
        for first in stride(from: 0, to: expired.count, by: Self.tombstonesPerAppend) {
            let some = Array(expired[first..<min(first + Self.tombstonesPerAppend, expired.count)])
            append(some.map { TransactionRecord($0.id, nil) }, .removal(some))
        }
    }

    mutating func removalWritten(_ removed: [Transaction], _ outcome: Result<Offset, CoordinatorFailure>) {
        for transaction in removed {
            transaction.isBeingRemoved = false
            guard case .success = outcome else { continue }
            transactions[transaction.id] = nil
            bytes -= transaction.countedBytes
        }
    }
}
