internal import MartletModel

/// What a cleaning knows of the transactions whose batches it goes through: which were aborted, whose records it drops;
/// and of which nothing is left, so that their markers can go.
struct CleaningTransactions {
    /// Aborted ones whose start was not reached yet, by falling first offset.
    private var waiting: [AbortedTransaction] = []
    private var aborted: [ProducerID: Aborted] = [:]
    /// Producers of whose transaction batches were passed, and that was not among the aborted ones.
    private var committed: Set<ProducerID> = []

    private struct Aborted {
        var transaction: AbortedTransaction
        var hasBatches = false
    }

    /// Tells of transactions that were aborted, before their first batch is passed.
    mutating func add(_ transactions: [AbortedTransaction]) {
        guard !transactions.isEmpty else { return }
        waiting += transactions
        waiting.sort { ($0.firstOffset, $0.producerID) > ($1.firstOffset, $1.producerID) }
    }

    /// A batch of data is passed; whether its records were aborted.
    mutating func passBatch(_ header: BatchHeader) -> Bool {
        begin(upTo: header.lastOffset)
        guard header.isTransactional else { return false }
        if aborted[header.producerID] != nil {
            aborted[header.producerID]!.hasBatches = true
            return true
        }
        committed.insert(header.producerID)
        return false
    }

    /// A control batch is passed. `isNeeded` as long as there is a batch of the transaction that it ends; `aborted` is
    /// what the transaction index has to say of it then. A type of nil: its record was dropped before.
    mutating func passMarker(_ header: BatchHeader, _ type: ControlRecordType?, isEmpty: Bool)
        -> (isNeeded: Bool, aborted: AbortedTransaction?)
    {
        begin(upTo: header.lastOffset)
        if isEmpty { return (false, nil) }
        switch type {
        case .abort:
            guard let ended = aborted.removeValue(forKey: header.producerID), ended.hasBatches else { return (false, nil) }
            return (true, ended.transaction)
        case .commit:
            return (committed.remove(header.producerID) != nil, nil)
        default:
            return (true, nil)
        }
    }

    private mutating func begin(upTo offset: Offset) {
        while let next = waiting.last, next.firstOffset <= offset {
            waiting.removeLast()
            if aborted[next.producerID] == nil { aborted[next.producerID] = Aborted(transaction: next) }
        }
    }
}

/// The last that a log remembers of a producer: as long as it does, this must not be cleaned away.
struct LastOfProducer {
    /// Of its last batch of data; nil where it has none in its epoch.
    var dataOffset: Offset?
    var epoch: ProducerEpoch

    /// Whether a batch of this producer is what carries its sequence, or its epoch.
    func isCarried(by header: BatchHeader) -> Bool {
        if let dataOffset { return header.lastOffset == dataOffset }
        return header.isControl && header.producerEpoch == epoch
    }
}
