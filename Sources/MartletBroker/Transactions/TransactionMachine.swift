package import MartletBasics
import MartletModel

/// The transactional ids of one partition of `__transaction_state`, decided: events in, actions out.
///
/// What is decided goes into the log first and counts when it is durable; until then the id is busy, and who asks is told
/// CONCURRENT_TRANSACTIONS. An end is told to the producer when it is durable that the transaction will end so; then
/// every partition gets its marker (`writeMarkers`), as often as needed until all have theirs, and the id is free again. A
/// machine that is loaded goes on from there: so no crash leaves a transaction half ended.
///
/// Who may speak for an id is who has its producer id in the epoch that it has now. An epoch is raised by every
/// InitProducerId, by every abort that the coordinator itself decides on, and by every end where the client knows of KIP-890.
///
/// `+Ending` (EndTxn, time-outs, markers), `+Loading`, `+Telling` (what is asked without change, expiry).
package struct TransactionMachine: CoordinatorMachine {
    package typealias Record = TransactionRecord

    /// Tombstones that are written at a time.
    static let tombstonesPerAppend = 1_000
    /// How many additions to a transaction wait for the markers of the one before.
    static let additionsLimit = 16
    /// Before the end of a transaction that could not be written is tried again.
    static let retryDelay = Interval.seconds(1)

    let settings: TransactionSettings
    var transactions: [String: Transaction] = [:]
    /// When open transactions are to be aborted; looked at by `abortTimedOut`.
    var timeouts = DeadlineQueue()
    /// Ends to be tried again, by the moment.
    var retries = RingQueue<(due: Instant, transaction: Transaction)>()
    /// Additions that wait, by the moment until which they do.
    var waiting = RingQueue<(due: Instant, transaction: Transaction, ticket: CoordinatorTicket)>()
    var moment = CoordinatorMoment(now: Instant(nanoseconds: 0), wallMilliseconds: 0)
    var actions: [TransactionAction] = []
    var writes: [UInt64: PendingTransactionWrite] = [:]
    /// Who waits for a producer id.
    var allocations: [UInt64: AwaitedProducerID] = [:]
    /// What has been done, for metrics.
    package var counts = TransactionCounts()
    package internal(set) var bytes = 0
    private var lastWrite: UInt64 = 0
    private var lastAllocation: UInt64 = 0

    package init(settings: TransactionSettings) { self.settings = settings }

    package var nextDeadline: Instant? {
        guard let due = waiting.first?.due else { return retries.first?.due }
        return retries.first.map { min($0.due, due) } ?? due
    }

    package mutating func handle(_ event: TransactionEvent, at moment: CoordinatorMoment) -> [TransactionAction] {
        self.moment = moment
        switch event {
        case .initialize(let event, let ticket): initialize(event, ticket)
        case .addPartitions(let event, let ticket): addPartitions(event, ticket)
        case .end(let event, let ticket): end(event, ticket)
        case .allocated(let number, let id): allocated(number, id)
        case .markersWritten(let ending): markersWritten(ending)
        case .abortTimedOut: abortTimedOut()
        case .expire: expire()
        case .timePassed:
            retryDue()
            waitedLongEnough()
        case .written(let number, let outcome): written(number, outcome)
        }
        defer { actions = [] }
        return actions
    }

    // MARK: What has to be done

    mutating func answer(_ ticket: CoordinatorTicket, _ reply: TransactionReply) { actions.append(.answer(ticket, reply)) }

    mutating func answer(_ ticket: CoordinatorTicket, _ error: ErrorCode) { actions.append(.answer(ticket, .failed(error))) }

    mutating func append(_ records: [TransactionRecord], _ write: PendingTransactionWrite) {
        lastWrite += 1
        writes[lastWrite] = write
        actions.append(.append(lastWrite, records))
    }

    /// Decides: from now on the id is busy, until this is durable.
    mutating func decide(_ metadata: TransactionMetadata, for transaction: Transaction, then step: TransactionStep) {
        var metadata = metadata
        metadata.updateTimestamp = moment.wallMilliseconds
        transaction.pending = metadata
        transaction.pendingCount += 1
        append([TransactionRecord(transaction.id, metadata)], .decision(transaction, metadata, step))
    }

    /// Asks for a producer id, and goes on with the request when it is there.
    mutating func allocate(_ awaited: AwaitedProducerID) {
        lastAllocation += 1
        allocations[lastAllocation] = awaited
        actions.append(.effect(.allocateProducerID(lastAllocation)))
    }

    private mutating func allocated(_ number: UInt64, _ id: ProducerID?) {
        // a machine that was loaded since knows nothing of what the one before it asked for
        guard let awaited = allocations.removeValue(forKey: number) else { return }
        // meanwhile others may have decided something: the request is looked at anew
        switch (awaited, id) {
        case (.initialize(_, let ticket), nil), (.end(_, let ticket), nil): answer(ticket, .coordinatorLoadInProgress)
        case (.initialize(let event, let ticket), let id?): initialize(event, ticket, fresh: id)
        case (.end(let event, let ticket), let id?): end(event, ticket, fresh: id)
        }
    }

    mutating func recount(_ transaction: Transaction) {
        let bytes = transaction.bytes
        self.bytes += bytes - transaction.countedBytes
        transaction.countedBytes = bytes
    }

    // MARK: InitProducerId

    private mutating func initialize(_ event: InitProducerEvent, _ ticket: CoordinatorTicket, fresh: ProducerID? = nil) {
        guard !event.id.isEmpty else { return answer(ticket, .invalidRequest) }
        guard event.timeoutMs > 0, event.timeoutMs <= settings.timeoutLimitMs else {
            return answer(ticket, .invalidTransactionTimeout)
        }
        guard let transaction = transactions[event.id] else {
            guard !moment.isFull else { return answer(ticket, .coordinatorNotAvailable) }
            guard let fresh else { return allocate(.initialize(event, ticket)) }
            let begun = Transaction(
                event.id,
                TransactionMetadata(producerID: fresh, timeoutMs: event.timeoutMs, updateTimestamp: moment.wallMilliseconds))
            transactions[event.id] = begun
            recount(begun)
            return renew(begun, event, ticket, fresh: nil)
        }
        guard !transaction.isBeingRemoved else { return answer(ticket, .concurrentTransactions) }
        let known = transaction.metadata
        guard Self.mayContinue(event.expected, known) else { return answer(ticket, .producerFenced) }
        guard transaction.pending == nil, !known.state.isEnding else { return answer(ticket, .concurrentTransactions) }
        guard known.state == .ongoing else { return renew(transaction, event, ticket, fresh: fresh) }
        // whose transaction is open has the epoch of now
        if let expected = event.expected, expected.epoch != known.epoch { return answer(ticket, .producerFenced) }
        abort(transaction, for: ticket)
    }

    /// Whether a producer that tells who it was had this id, or the one before it to its last epoch.
    private static func mayContinue(_ expected: ProducerIdentity?, _ known: TransactionMetadata) -> Bool {
        guard let expected, known.epoch != TransactionMetadata.noEpoch else { return true }
        if expected.id == known.producerID || expected.id == known.nextProducerID { return true }
        return expected.id == known.previousProducerID && expected.epoch >= TransactionMetadata.lastEpoch
    }

    /// Gives out the next epoch, or the same again to who asks for it again.
    private mutating func renew(
        _ transaction: Transaction, _ event: InitProducerEvent, _ ticket: CoordinatorTicket, fresh: ProducerID?
    ) {
        var next = transaction.metadata
        let expected = event.expected?.epoch
        let isCurrent = expected == nil || next.epoch == TransactionMetadata.noEpoch || expected == next.epoch
        if next.isExhausted, isCurrent || expected == next.lastEpoch {
            guard let fresh else { return allocate(.initialize(event, ticket)) }
            next.previousProducerID = next.producerID
            next.lastEpoch = expected ?? TransactionMetadata.noEpoch
            next.producerID = fresh
            next.epoch = 0
        } else if isCurrent {
            next.lastEpoch = expected == nil ? TransactionMetadata.noEpoch : next.epoch
            next.epoch += 1
        } else if expected != next.lastEpoch {
            return answer(ticket, .producerFenced)
        }
        next.state = .empty
        next.nextProducerID = -1
        next.timeoutMs = event.timeoutMs
        next.partitions = []
        next.startTimestamp = -1
        decide(next, for: transaction, then: .answer(ticket, .producer(next.producer)))
    }

    // MARK: AddPartitionsToTxn

    private mutating func addPartitions(_ event: AddPartitionsEvent, _ ticket: CoordinatorTicket) {
        if let ending = transactions[event.id], ending.metadata.state.isEnding, event.producer == ending.metadata.successor {
            return wait(ending, event, ticket)
        }
        let transaction: Transaction
        switch speaker(event.id, event.producer) {
        case .failure(let failure): return answer(ticket, failure.error)
        case .success(let found): transaction = found
        }
        // more may be added while others are on their way
        var next = transaction.pending ?? transaction.metadata
        guard transaction.pending == nil || next.state == .ongoing && next.producer == event.producer,
            !transaction.metadata.state.isEnding, !transaction.isBeingRemoved
        else { return answer(ticket, .concurrentTransactions) }
        if transaction.pending == nil, next.state == .ongoing, event.partitions.allSatisfy(next.partitions.contains) {
            return answer(ticket, .done)
        }
        if next.state != .ongoing {
            next.startTimestamp = moment.wallMilliseconds
            next.state = .ongoing
            next.partitions = []
        }
        next.version = event.version
        next.partitions.formUnion(event.partitions)
        guard fits(transaction.id, next) else { return answer(ticket, .unknownServerError) }
        decide(next, for: transaction, then: .answer(ticket, .done))
    }

    private mutating func wait(_ ending: Transaction, _ event: AddPartitionsEvent, _ ticket: CoordinatorTicket) {
        guard ending.waiting.count < Self.additionsLimit else { return answer(ticket, .concurrentTransactions) }
        ending.waiting.append((event, ticket))
        waiting.append((moment.now + settings.additionPatience, ending, ticket))
    }

    private mutating func waitedLongEnough() {
        while let first = waiting.first, first.due <= moment.now {
            waiting.popFirst()
            guard let index = first.transaction.waiting.firstIndex(where: { $0.ticket == first.ticket }) else { continue }
            first.transaction.waiting.remove(at: index)
            answer(first.ticket, .concurrentTransactions)
        }
    }

    /// The transaction before has ended.
    private mutating func goOn(_ transaction: Transaction) {
        let ready = transaction.waiting
        transaction.waiting = []
        for one in ready { addPartitions(one.event, one.ticket) }
    }

    /// Whether its record, and that of its end, can be written.
    private func fits(_ id: String, _ metadata: TransactionMetadata) -> Bool {
        var topics: Set<String> = []
        var size = 256 + id.utf8.count
        for partition in metadata.partitions {
            size += 5
            if topics.insert(partition.topic).inserted { size += 16 + partition.topic.utf8.count }
        }
        return size <= settings.recordBytesLimit
    }

    /// The transactional id, if this producer may speak for it.
    func speaker(_ id: String, _ producer: ProducerIdentity) -> Result<Transaction, CoordinatorFailure> {
        guard !id.isEmpty else { return .failure(CoordinatorFailure(.invalidRequest)) }
        guard let transaction = transactions[id] else { return .failure(CoordinatorFailure(.invalidProducerIDMapping)) }
        // who was told already who it is from now on
        if transaction.metadata.state.isEnding, producer == transaction.metadata.successor {
            return .failure(CoordinatorFailure(.concurrentTransactions))
        }
        guard transaction.metadata.producerID == producer.id else {
            return .failure(CoordinatorFailure(.invalidProducerIDMapping))
        }
        guard transaction.metadata.epoch == producer.epoch else { return .failure(CoordinatorFailure(.producerFenced)) }
        return .success(transaction)
    }

    // MARK: What came back from the log

    private mutating func written(_ number: UInt64, _ outcome: Result<Offset, CoordinatorFailure>) {
        guard let write = writes.removeValue(forKey: number) else { preconditionFailure("an append is told of once") }
        switch (write, outcome) {
        case (.decision(let transaction, let metadata, let step), .success):
            transaction.pendingCount -= 1
            if transaction.pendingCount == 0 { transaction.pending = nil }
            transaction.metadata = metadata
            recount(transaction)
            follow(step, of: transaction)
        case (.decision(let transaction, _, let step), .failure(let failure)):
            transaction.pendingCount -= 1
            if transaction.pendingCount == 0 { transaction.pending = nil }
            failed(step, of: transaction, Self.coordinatorError(failure.error))
        case (.removal(let removed), let outcome): removalWritten(removed, outcome)
        }
    }

    private mutating func follow(_ step: TransactionStep, of transaction: Transaction) {
        switch step {
        case .answer(let ticket, let reply):
            answer(ticket, reply)
            if transaction.metadata.state == .ongoing {
                setTimeout(of: transaction)
            } else {
                timeouts.set(transaction, due: nil)
            }
        case .ending(let ticket, let reply):
            timeouts.set(transaction, due: nil)
            if let ticket { answer(ticket, reply) }
            writeMarkers(of: transaction)
        case .complete:
            if transaction.metadata.state == .completeCommit { counts.committed += 1 } else { counts.aborted += 1 }
            goOn(transaction)
        }
    }

    private mutating func failed(_ step: TransactionStep, of transaction: Transaction, _ error: ErrorCode) {
        switch step {
        case .answer(let ticket, _): answer(ticket, error)
        case .ending(let ticket, _):
            if let ticket { answer(ticket, error) }
            // who has timed out is looked at again
            if transaction.metadata.state == .ongoing { setTimeout(of: transaction) }
        case .complete: tryAgain(transaction)
        }
    }

    /// What of the log's errors producers are told.
    static func coordinatorError(_ error: ErrorCode) -> ErrorCode {
        switch error {
        case .unknownTopicOrPartition, .notEnoughReplicas, .notEnoughReplicasAfterAppend, .requestTimedOut:
            .coordinatorNotAvailable
        case .notLeaderOrFollower, .kafkaStorageError: .notCoordinator
        case .messageTooLarge, .recordListTooLarge: .unknownServerError
        default: error
        }
    }
}

/// What is done when records are durable, or are known not to be.
enum PendingTransactionWrite {
    case decision(Transaction, TransactionMetadata, TransactionStep)
    /// Ids that go.
    case removal([Transaction])
}

/// What follows a decision that is durable.
enum TransactionStep {
    case answer(CoordinatorTicket, TransactionReply)
    /// The markers; nobody asked where it is the coordinator that aborts.
    case ending(CoordinatorTicket?, TransactionReply)
    /// All have their markers.
    case complete
}

/// A request that needs a producer id.
enum AwaitedProducerID {
    case initialize(InitProducerEvent, CoordinatorTicket)
    case end(EndTransactionEvent, CoordinatorTicket)
}

/// What has been done since this broker leads the partition.
package struct TransactionCounts: Equatable, Sendable {
    package var committed: UInt64 = 0
    package var aborted: UInt64 = 0
    /// Aborted because they were open for longer than their producers had asked for.
    package var timedOut: UInt64 = 0

    package init() {}

    package static func + (one: Self, other: Self) -> Self {
        var sum = one
        sum.committed += other.committed
        sum.aborted += other.aborted
        sum.timedOut += other.timedOut
        return sum
    }
}
