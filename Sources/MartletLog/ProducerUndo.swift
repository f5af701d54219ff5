internal import MartletModel

/// What entries were before reserved writes changed them, so that a write that fails can be taken back. Nothing is kept
/// while no write is under way, which is the case for a replay and between the turns of a loop.
struct ProducerUndo: Sendable {
    /// More changes than this between a savepoint and the newest are not kept: going back then means a reload
    /// (`restore` says so).
    static let limit = 4096

    private struct Change {
        var producerID: ProducerID
        var before: ProducerEntry?
    }

    private var changes: [Change] = []
    /// The position of the first of `changes`; positions only rise.
    private var base: UInt64 = 0
    private var taken: UInt64 = 0
    private var released: UInt64 = 0

    var isRecording: Bool { released < taken }
    var position: UInt64 { base + UInt64(changes.count) }

    mutating func take() -> UInt64 {
        taken += 1
        return taken
    }

    mutating func record(_ producer: ProducerID, _ before: ProducerEntry?) {
        if changes.count == Self.limit { forgetAll() }
        changes.append(Change(producerID: producer, before: before))
    }

    /// The write behind savepoint `id`, which begins at `position`, and all before it can no longer fail.
    mutating func release(_ id: UInt64, at position: UInt64) {
        guard id > released else { return }
        released = id
        if !isRecording { return forgetAll() }
        // those of this savepoint itself stay until the next is released: their end is not known here
        guard position > base else { return }
        changes.removeFirst(Int(min(position - base, UInt64(changes.count))))
        base = max(base, position)
    }

    /// Newest first, what was changed since `position`; nil where that is not known any more.
    mutating func takeBack(to position: UInt64, id: UInt64) -> [(ProducerID, ProducerEntry?)]? {
        guard position >= base, id > released else { return nil }
        let count = Int(position - base)
        let undone = changes[count...].reversed().map { ($0.producerID, $0.before) }
        changes.removeSubrange(count...)
        taken = id - 1
        if !isRecording { forgetAll() }
        return undone
    }

    private mutating func forgetAll() {
        base = position
        changes.removeAll(keepingCapacity: changes.capacity <= 16)
    }
}

/// Of producers whose batches were taken back because their write failed, the first of these. What was in flight behind it
/// is refused for the same reason until it has been sent again: who is told that it is out of order instead may take
/// another epoch, and what it sends again in that, of other partitions too, would no longer be known for duplicates. A log that
/// does not know a producer would even take any sequence for its first.
struct UnwrittenProducers: Sendable {
    private struct First {
        var producerID: ProducerID
        var epoch: ProducerEpoch
        var sequence: ProducerSequence
    }

    private var firsts: [First] = []

    func precede(_ header: BatchHeader) -> Bool {
        firsts.contains {
            $0.producerID == header.producerID && $0.epoch == header.producerEpoch
                && ProducerSequence(header.baseSequence).isAfter($0.sequence)
        }
    }

    mutating func add(_ producer: ProducerID, _ epoch: ProducerEpoch, firstSequence: Int32) {
        guard firstSequence >= 0 else { return }
        remove(producer)
        if firsts.count == ProducerStateTable.unwrittenLimit { firsts.removeFirst() }
        firsts.append(First(producerID: producer, epoch: epoch, sequence: ProducerSequence(firstSequence)))
    }

    mutating func remove(_ producer: ProducerID) {
        if !firsts.isEmpty { firsts.removeAll { $0.producerID == producer } }
    }
}

extension ProducerStateTable {
    /// A moment to come back to: before a write whose offsets are about to be reserved.
    package struct Savepoint: Sendable, Equatable {
        let id: UInt64
        let position: UInt64
        let nextOffset: Offset
    }

    package mutating func savepoint() -> Savepoint {
        let position = undo.position
        return Savepoint(id: undo.take(), position: position, nextOffset: nextOffset)
    }

    /// The write behind this savepoint was published, and so were all that were reserved before it.
    package mutating func release(_ savepoint: Savepoint) { undo.release(savepoint.id, at: savepoint.position) }

    /// Takes back everything that was applied since the savepoint, with later savepoints. False where too much has
    /// happened since: then the table is empty, and must be loaded again as after `truncate`.
    package mutating func restore(_ savepoint: Savepoint) -> Bool {
        guard let undone = undo.takeBack(to: savepoint.position, id: savepoint.id) else {
            clear(startingAt: savepoint.nextOffset)
            return false
        }
        for (producer, before) in undone {
            // newest first, so that the first of a producer's batches is what is left here
            if let entry = entry(of: producer), entry.batchCount > 0, entry.last.lastOffset != before?.last.lastOffset {
                unwritten.add(producer, entry.epoch, firstSequence: entry.last.firstSequence)
            }
            put(producer, before)
        }
        nextOffset = savepoint.nextOffset
        return true
    }
}
