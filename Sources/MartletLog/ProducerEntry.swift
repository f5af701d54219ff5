package import MartletModel

/// One of the last batches of a producer: enough to recognise it when it is sent again.
struct ProducerBatch {
    var lastSequence: Int32
    var offsetDelta: Int32
    var lastOffset: Offset
    /// The batch's highest timestamp.
    var timestamp: Int64

    static let none = ProducerBatch(lastSequence: -1, offsetDelta: 0, lastOffset: -1, timestamp: -1)

    var firstOffset: Offset { lastOffset - Int64(offsetDelta) }
    var firstSequence: Int32 {
        lastSequence < 0 ? -1 : Int32((Int64(lastSequence) - Int64(offsetDelta)) & 0x7FFF_FFFF)
    }
}

/// What is told of a producer.
package struct ActiveProducer: Sendable, Equatable {
    package var id: ProducerID
    package var epoch: ProducerEpoch
    package var lastSequence: Int32
    package var lastTimestamp: Int64
    package var coordinatorEpoch: Int32
    /// -1 where no transaction is open.
    package var transactionStart: Offset

    init(_ entry: ProducerEntry) {
        id = entry.producerID
        epoch = entry.epoch
        lastSequence = entry.last.lastSequence
        lastTimestamp = entry.lastTimestamp
        coordinatorEpoch = entry.coordinatorEpoch
        transactionStart = entry.transactionStart
    }
}

/// What a partition knows of one producer. A plain value of fixed size, so that an older one is kept by a copy.
struct ProducerEntry {
    /// Kafka's producers have at most five requests in flight, and so this many batches to send again.
    static let batchLimit = 5

    let producerID: ProducerID
    var epoch: ProducerEpoch
    var coordinatorEpoch: Int32 = -1
    var lastTimestamp: Int64
    /// Where the open transaction begins; -1 where none is open.
    var transactionStart: Offset = -1
    /// The offset that last changed this entry: a truncation above it leaves the entry right.
    var lastChange: Offset
    /// A ring: `newest` is the place of the last, and `batchCount` says how many there are.
    private var batches = InlineArray<5, ProducerBatch>(repeating: .none)
    private var newest: UInt8 = 0
    private(set) var batchCount: UInt8 = 0
    /// It comes from a snapshot, which holds a producer's last batch alone: the log may tell of earlier ones that can
    /// be sent again.
    var mayHaveEarlier = false
    /// The neighbours in the order of use; -1 where there is none. `next` also chains the free slots.
    var previous: Int32 = -1
    var next: Int32 = -1

    init(_ producerID: ProducerID, epoch: ProducerEpoch, timestamp: Int64, at offset: Offset) {
        self.producerID = producerID
        self.epoch = epoch
        lastTimestamp = timestamp
        lastChange = offset
    }

    var isInTransaction: Bool { transactionStart >= 0 }
    var last: ProducerBatch { batchCount == 0 ? .none : batches[Int(newest)] }

    mutating func append(_ batch: ProducerBatch) {
        newest = batchCount == 0 ? 0 : (newest + 1) % UInt8(Self.batchLimit)
        batches[Int(newest)] = batch
        batchCount = min(batchCount + 1, UInt8(Self.batchLimit))
    }

    /// A batch before all that are known, as the log tells of it. False where it cannot have been that.
    mutating func addEarlier(_ batch: ProducerBatch) -> Bool {
        guard batchCount > 0, Int(batchCount) < Self.batchLimit else { return false }
        let oldest = batches[place(back: Int(batchCount) - 1)]
        guard batch.lastSequence >= 0, batch.offsetDelta >= 0, Int64(batch.offsetDelta) <= batch.lastOffset,
            batch.lastOffset < oldest.firstOffset
        else { return false }
        batches[place(back: Int(batchCount))] = batch
        batchCount += 1
        return true
    }

    /// The oldest batch that is remembered.
    var oldest: ProducerBatch { batchCount == 0 ? .none : batches[place(back: Int(batchCount) - 1)] }

    /// Where the batch lies that came so many before the newest.
    private func place(back: Int) -> Int { (Int(newest) + Self.batchLimit - back) % Self.batchLimit }

    /// Another epoch begins: nothing of the one before counts as a duplicate, and sequences begin at 0.
    mutating func enter(_ newEpoch: ProducerEpoch) {
        guard newEpoch != epoch else { return }
        epoch = newEpoch
        batchCount = 0
    }

    /// The remembered batch with exactly these sequences, newest first.
    func batch(firstSequence: Int32, lastSequence: Int32) -> ProducerBatch? {
        var place = Int(newest)
        for _ in 0..<Int(batchCount) {
            let batch = batches[place]
            if batch.lastSequence == lastSequence, batch.firstSequence == firstSequence { return batch }
            place = place == 0 ? Self.batchLimit - 1 : place - 1
        }
        return nil
    }

    /// Whether `sequence` is the one that comes next in the epoch.
    func follows(_ sequence: Int32) -> Bool {
        let last = self.last.lastSequence
        return last == .max ? sequence == 0 : sequence == last + 1
    }
}

/// A producer as DescribeProducers tells it.
package struct ProducerDescription: Equatable, Sendable {
    package var producerID: ProducerID
    package var epoch: ProducerEpoch
    package var lastSequence: Int32
    package var lastTimestamp: Int64
    package var coordinatorEpoch: Int32
    /// -1 where no transaction is open.
    package var transactionStart: Offset
}

/// Who appends: what a batch's producer fields are checked for depends on it.
package enum AppendOrigin: Sendable {
    /// A Produce request: epochs, sequences and duplicates.
    case client
    /// The group or transaction coordinator: epochs only. Its transactional batches all carry sequence 0.
    case coordinator
    /// A follower or recovery, which takes what the leader decided.
    case replication
}

/// A transaction that a marker has ended in this partition.
package struct CompletedTransaction: Equatable, Sendable {
    package var producerID: ProducerID
    package var firstOffset: Offset
    /// The marker's.
    package var lastOffset: Offset
    package var isAborted: Bool
    /// The last stable offset after this transaction: where the oldest one that is still open begins, or the marker's
    /// successor.
    package var lastStableOffset: Offset

    package init(
        producerID: ProducerID, firstOffset: Offset, lastOffset: Offset, isAborted: Bool, lastStableOffset: Offset
    ) {
        self.producerID = producerID
        self.firstOffset = firstOffset
        self.lastOffset = lastOffset
        self.isAborted = isAborted
        self.lastStableOffset = lastStableOffset
    }
}
