/// A partition of a topic. A topic that is deleted and made again has another name in a history.
package struct Place: Hashable, Sendable, Comparable, CustomStringConvertible {
    package var topic: String
    package var partition: Int

    package init(_ topic: String, _ partition: Int) {
        self.topic = topic
        self.partition = partition
    }

    package var description: String { "\(topic)-\(partition)" }

    package static func < (a: Place, b: Place) -> Bool {
        a.topic == b.topic ? a.partition < b.partition : a.topic < b.topic
    }
}

/// A record as a consumer was given it.
package struct SeenRecord: Hashable, Sendable {
    package var offset: Int64
    package var value: String

    package init(_ offset: Int64, _ value: String) {
        self.offset = offset
        self.value = value
    }
}

/// What became of something that was asked, as far as the one who asked was told.
package enum Outcome: Hashable, Sendable {
    /// Done; of a batch the offset of its first record, where that was told.
    case accepted(at: Int64?)
    /// Surely not done, and never will be.
    case refused(String)
    /// No answer, or one that leaves it open.
    case unknown(String)
}

/// How a process of the broker ended.
package enum LifeEnd: String, Hashable, Sendable, CaseIterable {
    case stop, kill
    /// What was not synced may be lost: the power went, or the disk failed.
    case powerCut
}

/// A batch of records that a producer sent. One that is sent again is another event with the same values.
package struct SentBatch: Hashable, Sendable {
    package var operation: Int
    package var producer: String
    package var place: Place
    /// No two records of a history have the same value.
    package var values: [String]
    /// -1 for all in-sync replicas.
    package var acks: Int
    /// Sequence numbers go with it: sent again or not, each is there once, in order.
    package var isIdempotent: Bool
    package var transaction: String?
    /// Of each value its key; empty where nobody judges keys.
    package var keys: [String]
    /// Which of the values, by index, are tombstones: their names travel beside them.
    package var tombstones: [Int]

    package init(
        operation: Int, producer: String, place: Place, values: [String], acks: Int, isIdempotent: Bool,
        transaction: String? = nil, keys: [String] = [], tombstones: [Int] = []
    ) {
        self.operation = operation
        self.producer = producer
        self.place = place
        self.values = values
        self.acks = acks
        self.isIdempotent = isIdempotent
        self.transaction = transaction
        self.keys = keys
        self.tombstones = tombstones
    }
}

/// What a consumer was told of one partition by a fetch.
package struct SeenPart: Hashable, Sendable {
    package var consumer: String
    package var place: Place
    /// When it asked.
    package var asked: Int64
    package var from: Int64
    package var records: [SeenRecord]
    /// Nil where the client's library does not tell.
    package var highWatermark: Int64?
    package var logStart: Int64?
    /// The last stable offset; nil where it was not told.
    package var lastStable: Int64?
    /// Read with `read_committed`.
    package var isCommitted: Bool

    package init(
        consumer: String, place: Place, asked: Int64, from: Int64, records: [SeenRecord], highWatermark: Int64?,
        logStart: Int64? = nil, lastStable: Int64? = nil, isCommitted: Bool = false
    ) {
        self.consumer = consumer
        self.place = place
        self.asked = asked
        self.from = from
        self.records = records
        self.highWatermark = highWatermark
        self.logStart = logStart
        self.lastStable = lastStable
        self.isCommitted = isCommitted
    }
}

/// One thing that a client asked, was told or saw, or that befell the broker, with its time in nanoseconds. Times of
/// one history come from one clock; what is asked after another thing was told has a later time.
///
/// docs/design/checkers.md gives the line that each is written as.
package struct HistoryEvent: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        case send(SentBatch)
        case endTransaction(operation: Int, transaction: String, commits: Bool)
        case deleteRecords(operation: Int, place: Place, before: Int64)
        /// `offset` is nil for a commit that is removed. One of a transaction is carried out by its end.
        case commit(operation: Int, group: String, place: Place, offset: Int64?, transaction: String? = nil)
        case makeTopic(operation: Int, topic: String, partitions: Int)
        case deleteTopic(operation: Int, topic: String)
        /// What became of the operation with this number.
        case told(operation: Int, Outcome)

        case saw(SeenPart)
        /// An end (or a beginning) of a partition, as ListOffsets tells it without isolation.
        case listed(consumer: String, place: Place, asked: Int64, start: Int64?, end: Int64?)
        case outOfRange(consumer: String, place: Place, asked: Int64, from: Int64)
        /// This consumer has read all of the partition from `start` to `end`, when nobody wrote any more.
        case whole(consumer: String, place: Place, start: Int64, end: Int64)
        case committed(group: String, place: Place, asked: Int64, offset: Int64?)
        /// All topics, each with how many partitions it has.
        case topics(asked: Int64, [String: Int])

        case ended(LifeEnd)
        /// Stored bytes of this partition were damaged: what it had may be gone, and nothing else may be seen.
        case damaged(Place)
        /// This topic is compacted from here on: what a later record of its key supersedes may be gone.
        case compacted(topic: String)
        /// Each transaction that was begun has been ended by now, or its time is over: none may hold back readers.
        case transactionsOver
        /// What a client found wrong by itself: an answer that cannot be read, an error that nothing explains.
        case broken(String)
        /// For who reads the history; judged by nobody.
        case note(String)
    }

    package var time: Int64
    package var kind: Kind

    package init(_ time: Int64, _ kind: Kind) {
        self.time = time
        self.kind = kind
    }
}
