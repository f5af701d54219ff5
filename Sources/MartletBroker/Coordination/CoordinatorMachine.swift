package import MartletBasics
package import MartletModel

/// What a coordinator keeps in one partition of an internal topic, decided: events in, actions out. Groups are one such
/// machine, transactions another; `CoordinatorShard` carries out what any of them decides.
///
/// A machine waits for nothing and has no clock. It is loaded from its partition's records first. Each ticket is
/// answered once, by an action of its own event or of a later one; each append is told of once, by `written`.
package protocol CoordinatorMachine {
    associatedtype Event: CoordinatorEvent
    associatedtype Reply: CoordinatorReply
    associatedtype Record: CoordinatorRecord
    /// When an event happens, and what else of the world it is decided by.
    associatedtype Moment: Sendable
    /// What it wants of the world besides its log.
    associatedtype Effect
    /// What is worth knowing of what was loaded, found out where that may take long.
    associatedtype Summary: Sendable
    typealias Action = CoordinatorAction<Reply, Record, Effect>

    /// What it takes of memory, roughly.
    var bytes: Int { get }
    /// `timePassed` is wanted then, or a little earlier.
    var nextDeadline: Instant? { get }
    mutating func handle(_ event: Event, at moment: Moment) -> [Action]
    /// Takes a record of the log; false for one of no known kind, which is left alone.
    mutating func load(_ record: ReplayedRecord) -> Bool
    /// All is read.
    mutating func finishLoading(at moment: Moment) -> [Action]
    var summary: Summary { get }
}

package protocol CoordinatorEvent {
    /// `nextDeadline` may have come.
    static var timePassed: Self { get }
    /// What became of an append: its first record's offset, or why it is not there.
    static func written(_ number: UInt64, _ outcome: Result<Offset, CoordinatorFailure>) -> Self
}

package protocol CoordinatorReply: Sendable {
    static func failed(_ error: ErrorCode) -> Self
}

package protocol CoordinatorRecord {
    /// Appends the key, and the value if there is one; false for a tombstone.
    func encode(key: inout ByteBuffer, value: inout ByteBuffer) throws(EncodingFault) -> Bool
}

/// Names a request that waits for its answer.
package struct CoordinatorTicket: Hashable, Sendable {
    package var number: UInt64
    package init(number: UInt64) { self.number = number }
}

/// When an event happens, for a machine that has no clock.
package struct CoordinatorMoment: Sendable {
    package var now: Instant
    /// What records carry.
    package var wallMilliseconds: Int64
    /// The broker's memory for coordinators is used up: nobody new is let in.
    package var isFull: Bool

    package init(now: Instant, wallMilliseconds: Int64, isFull: Bool = false) {
        self.now = now
        self.wallMilliseconds = wallMilliseconds
        self.isFull = isFull
    }
}

package struct CoordinatorFailure: Error, Equatable, Sendable {
    package var error: ErrorCode
    package init(_ error: ErrorCode) { self.error = error }
}

/// A producer's id and the epoch it has it in.
package struct ProducerIdentity: Hashable, Sendable {
    package var id: ProducerID
    package var epoch: ProducerEpoch

    package init(_ id: ProducerID, _ epoch: ProducerEpoch) {
        self.id = id
        self.epoch = epoch
    }
}

/// How a transaction of a producer ends in the partitions that it has written to.
package struct TransactionEnd: Equatable, Sendable {
    package var producer: ProducerIdentity
    package var marker: EndTransactionMarker
    /// From 2 on (KIP-890) a transaction ends in an epoch above that of its records.
    package var version: Int8

    package init(_ producer: ProducerIdentity, _ marker: EndTransactionMarker, version: Int8) {
        self.producer = producer
        self.marker = marker
        self.version = version
    }
}

/// What a machine wants done, in this order. What is written comes in the log after that of earlier actions.
package enum CoordinatorAction<Reply, Record, Effect> {
    case answer(CoordinatorTicket, Reply)
    /// These records go into the log, one after the other and in one batch; `written` with this number says what became
    /// of them.
    case append(UInt64, [Record])
    /// The same in a batch of a transaction of this producer.
    case appendInTransaction(UInt64, [Record], ProducerIdentity)
    /// The marker that ends a producer's transaction in this partition.
    case endTransaction(UInt64, TransactionEnd)
    case effect(Effect)
}

extension CoordinatorAction: Equatable where Reply: Equatable, Record: Equatable, Effect: Equatable {}
extension CoordinatorAction: Sendable where Reply: Sendable, Record: Sendable, Effect: Sendable {}

/// A record as it is read back. Its bytes live until `load` returns.
package struct ReplayedRecord {
    package var offset: Offset
    package var key: UnsafeRawBufferPointer
    /// Nil: a tombstone.
    package var value: UnsafeRawBufferPointer?
    package var isControl: Bool
    /// Whose transaction it is of, if it is of one.
    package var transactionOf: ProducerID?

    package init(
        offset: Offset, key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?, isControl: Bool, transactionOf: ProducerID?
    ) {
        self.offset = offset
        self.key = key
        self.value = value
        self.isControl = isControl
        self.transactionOf = transactionOf
    }
}
