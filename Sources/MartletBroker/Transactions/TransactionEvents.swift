package import MartletBasics
package import MartletModel

/// What a broker's settings say of transactions.
package struct TransactionSettings: Sendable {
    package var timeoutLimitMs: Int32 = 900_000
    package var expirationMs: Int64 = 604_800_000
    /// How long the first partition of a transaction waits for the markers of the one before: clients that are told
    /// CONCURRENT_TRANSACTIONS come again later than most ends take.
    package var additionPatience = Interval.milliseconds(100)
    /// What the record of one transaction may be: it has to fit into one batch of the log.
    package var recordBytesLimit = 1 << 20

    package init() {}
}

/// InitProducerId with a transactional id.
package struct InitProducerEvent: Sendable {
    package var id: String
    package var timeoutMs: Int32
    /// Who it was so far, from a producer that goes on after an error.
    package var expected: ProducerIdentity?

    package init(id: String, timeoutMs: Int32, expected: ProducerIdentity? = nil) {
        self.id = id
        self.timeoutMs = timeoutMs
        self.expected = expected
    }
}

/// AddPartitionsToTxn, AddOffsetsToTxn, and what is produced without either (KIP-890).
package struct AddPartitionsEvent: Sendable {
    package var id: String
    package var producer: ProducerIdentity
    package var partitions: [TopicPartition]
    package var version: Int16

    package init(id: String, producer: ProducerIdentity, partitions: [TopicPartition], version: Int16) {
        self.id = id
        self.producer = producer
        self.partitions = partitions
        self.version = version
    }
}

/// EndTxn.
package struct EndTransactionEvent: Sendable {
    package var id: String
    package var producer: ProducerIdentity
    package var commits: Bool
    /// From 2 on the end raises the epoch.
    package var version: Int16

    package init(id: String, producer: ProducerIdentity, commits: Bool, version: Int16) {
        self.id = id
        self.producer = producer
        self.commits = commits
        self.version = version
    }
}

/// A transaction's end that all its partitions are to be told of.
package struct EndingTransaction: Equatable, Sendable {
    package var id: String
    package var producer: ProducerIdentity
    package var commits: Bool
    package var version: Int8
    /// Sorted.
    package var partitions: [TopicPartition]
}

/// What happens to the transactional ids of a partition of `__transaction_state`.
package enum TransactionEvent: CoordinatorEvent, Sendable {
    case initialize(InitProducerEvent, CoordinatorTicket)
    case addPartitions(AddPartitionsEvent, CoordinatorTicket)
    case end(EndTransactionEvent, CoordinatorTicket)
    /// A producer id that was asked for by this number; nil: there is none now.
    case allocated(UInt64, ProducerID?)
    /// Every partition of it has its marker.
    case markersWritten(EndingTransaction)
    /// It is time to look for transactions that have been open for too long.
    case abortTimedOut
    /// It is time to look for ids that nobody has used for long.
    case expire
    case timePassed
    case written(UInt64, Result<Offset, CoordinatorFailure>)
}

package enum TransactionReply: Equatable, CoordinatorReply {
    case failed(ErrorCode)
    case done
    /// Who the producer is from now on.
    case producer(ProducerIdentity)
}

package enum TransactionEffect: Equatable, Sendable {
    case allocateProducerID(UInt64)
    case writeMarkers(EndingTransaction)
}

package typealias TransactionAction = CoordinatorAction<TransactionReply, TransactionRecord, TransactionEffect>
