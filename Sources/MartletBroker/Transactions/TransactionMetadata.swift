package import MartletBasics
package import MartletModel
import MartletWire

/// Where a transaction is, by Kafka's names; the numbers are those of `__transaction_state`.
///
///     empty ──> ongoing ──> prepareCommit ──> completeCommit ──┐
///       ^          │ ^                                         │
///       │          │ └──────────── partitions are added ───────┤
///       │          └──────> prepareAbort ───> completeAbort ───┤
///       └────────────────── a producer begins anew ────────────┘
package enum TransactionState: Int8, CaseIterable, Sendable {
    case empty = 0
    case ongoing = 1
    case prepareCommit = 2
    case prepareAbort = 3
    case completeCommit = 4
    case completeAbort = 5

    package var name: String {
        switch self {
        case .empty: "Empty"
        case .ongoing: "Ongoing"
        case .prepareCommit: "PrepareCommit"
        case .prepareAbort: "PrepareAbort"
        case .completeCommit: "CompleteCommit"
        case .completeAbort: "CompleteAbort"
        }
    }

    /// Decided, and not told to all partitions yet.
    package var isEnding: Bool { self == .prepareCommit || self == .prepareAbort }

    /// All partitions have their markers.
    package var isOver: Bool { self == .completeCommit || self == .completeAbort }

    /// Names that a client may ask for; the last two are states that are over before anybody could see them.
    package static let names = Set(allCases.map(\.name) + ["Dead", "PrepareEpochFence"])
}

/// What is known of a transactional id: who may use it, and how far its transaction is. A plain value: what is decided
/// is a new one, and takes the place of the old one when its record is durable.
package struct TransactionMetadata: Equatable, Sendable {
    package static let noEpoch: ProducerEpoch = -1
    /// The last epoch that a producer may have. The one after it is for the end of its transaction.
    package static let lastEpoch: ProducerEpoch = .max - 1

    package var state = TransactionState.empty
    package var producerID: ProducerID
    /// Who had it before the epochs were used up; -1: nobody.
    package var previousProducerID: ProducerID = -1
    /// Who will have it when the transaction that is ending has ended, for this one's epochs are used up; else -1.
    package var nextProducerID: ProducerID = -1
    package var epoch = noEpoch
    /// What the producer had before its epoch was raised at its own wish or because its transaction was aborted. Who
    /// comes with it did not hear of that. Not in the log: after a restart it is known of ends only, which raise by one.
    package var lastEpoch = noEpoch
    package var timeoutMs: Int32
    /// What is written to, offsets of groups included.
    package var partitions: Set<TopicPartition> = []
    /// -1: no transaction was begun.
    package var startTimestamp: Int64 = -1
    package var updateTimestamp: Int64
    /// 2 where the end of the transaction has raised the epoch.
    package var version: Int16 = 0

    package init(producerID: ProducerID, timeoutMs: Int32, updateTimestamp: Int64) {
        self.producerID = producerID
        self.timeoutMs = timeoutMs
        self.updateTimestamp = updateTimestamp
    }

    package var producer: ProducerIdentity { ProducerIdentity(producerID, epoch) }

    /// What a producer is told that it has from now on, also while the end is still under way.
    package var successor: ProducerIdentity { nextProducerID >= 0 ? ProducerIdentity(nextProducerID, 0) : producer }

    /// No producer can have a further epoch of this id.
    package var isExhausted: Bool { epoch >= Self.lastEpoch }

    /// What it costs in memory, roughly.
    var bytes: Int { partitions.isEmpty ? 0 : partitions.reduce(64) { $0 + 64 + $1.topic.utf8.count } }
}

/// A record of `__transaction_state`; no metadata is a tombstone.
package struct TransactionRecord: Equatable, CoordinatorRecord, Sendable {
    /// Its fields are flexible, and tell of producer ids that follow each other, as Kafka 4.3 writes it.
    static let version: Int16 = 1

    package var id: String
    package var metadata: TransactionMetadata?

    package init(_ id: String, _ metadata: TransactionMetadata?) {
        self.id = id
        self.metadata = metadata
    }

    package func encode(key: inout ByteBuffer, value: inout ByteBuffer) throws(EncodingFault) -> Bool {
        var recordKey = TransactionLogKey()
        recordKey.transactionalID = id
        try recordKey.encodePrefixed(into: &key, version: 0)
        guard let metadata else { return false }
        try metadata.value.encodePrefixed(into: &value, version: Self.version)
        return true
    }

    /// Nil for what is none.
    package init?(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?) {
        var reader = ByteReader(key)
        do throws(DecodingFault) {
            guard try reader.int16() == TransactionLogKey.key else { return nil }
            id = try TransactionLogKey.decode(from: &reader, version: 0).transactionalID
            guard let value else { return }
            var valueReader = ByteReader(value)
            guard let known = TransactionMetadata(try TransactionLogValue.decodePrefixed(from: &valueReader)) else {
                return nil
            }
            metadata = known
        } catch {
            return nil
        }
    }
}

extension TransactionMetadata {
    var value: TransactionLogValue {
        var value = TransactionLogValue()
        value.producerID = producerID
        value.previousProducerID = previousProducerID
        value.nextProducerID = nextProducerID
        value.producerEpoch = epoch
        value.transactionTimeoutMs = timeoutMs
        value.transactionStatus = state.rawValue
        value.transactionLastUpdateTimestampMs = updateTimestamp
        value.transactionStartTimestampMs = startTimestamp
        value.clientTransactionVersion = version
        guard state != .empty else {
            value.transactionPartitions = nil
            return value
        }
        var topics: [TransactionLogValue.PartitionsSchema] = []
        for id in partitions.sorted() {
            if topics.last?.topic != id.topic {
                var topic = TransactionLogValue.PartitionsSchema()
                topic.topic = id.topic
                topics.append(topic)
            }
            topics[topics.count - 1].partitionIDs.append(id.partition)
        }
        value.transactionPartitions = topics
        return value
    }

    /// Nil for a state that is never written.
    init?(_ value: TransactionLogValue) {
        guard let state = TransactionState(rawValue: value.transactionStatus) else { return nil }
        self.init(
            producerID: value.producerID, timeoutMs: value.transactionTimeoutMs,
            updateTimestamp: value.transactionLastUpdateTimestampMs)
        self.state = state
        previousProducerID = value.previousProducerID
        nextProducerID = value.nextProducerID
        epoch = value.producerEpoch
        startTimestamp = value.transactionStartTimestampMs
        version = value.clientTransactionVersion
        for topic in value.transactionPartitions ?? [] {
            for partition in topic.partitionIDs { partitions.insert(TopicPartition(topic.topic, partition)) }
        }
        if version >= 2, state != .empty, state != .ongoing, epoch > 0 { lastEpoch = epoch - 1 }
    }
}

/// A transactional id on this broker.
final class Transaction: Timed {
    let id: String
    /// What is durable.
    var metadata: TransactionMetadata
    /// What was decided last, while that is on its way to the log.
    var pending: TransactionMetadata?
    /// How many decisions are.
    var pendingCount = 0
    /// Additions that wait for the end of the transaction before.
    var waiting: [(event: AddPartitionsEvent, ticket: CoordinatorTicket)] = []
    /// It is about to be forgotten.
    var isBeingRemoved = false
    var countedBytes = 0

    init(_ id: String, _ metadata: TransactionMetadata) {
        self.id = id
        self.metadata = metadata
    }

    var bytes: Int { 400 + 2 * id.utf8.count + metadata.bytes }
}
