package import MartletModel

/// What a partition knows of its producers: their epochs, sequences and last batches, and the transactions that hold
/// back readers.
///
/// An append is checked (`check`), then taken over (`apply`) when its offsets are reserved, so that batches that follow
/// in the same turn see it. Should the write fail, `restore` goes back to the savepoint that was taken before. A
/// follower and recovery only apply.
///
///     let savepoint = table.savepoint()
///     guard case .accepted = table.check(header) else { … }
///     table.apply(header, baseOffset: end)
///     // written and published: table.release(savepoint)       the write failed: table.restore(savepoint)
///
/// Memory is bounded: at `producerLimit` the producer that has been silent for longest is forgotten, which costs it the
/// recognition of duplicates and nothing else. A producer in a transaction is never forgotten; where all are, new
/// producers are refused. Only what may not be refused goes above the limit, until there is room: a marker, and what a
/// leader with a higher limit decided.
package struct ProducerStateTable: Sendable {
    /// 4 MB a partition at the most, for one that has seen so many producers within `producer.id.expiration.ms`.
    package static let defaultProducerLimit = 20_000
    /// Of producers whose batches were not written so many are remembered, those of late.
    package static let unwrittenLimit = 256

    package enum Verdict: Equatable, Sendable {
        case accepted
        /// Was appended before. Its offsets may still be above the durable offset or the high watermark: the answer
        /// waits for them like the first one.
        case duplicate(baseOffset: Offset, logAppendTime: Int64)
        case refused(ErrorCode, String)
    }

    let producerLimit: Int
    /// The offset after the last batch that was applied.
    package internal(set) var nextOffset: Offset = 0

    private var slots: [ProducerID: Int32] = [:]
    private var entries: [ProducerEntry] = []
    private var freeSlot: Int32 = -1
    /// Producers without an open transaction, from the one silent for longest to the last that appended.
    private var oldestIdle: Int32 = -1
    private var newestIdle: Int32 = -1

    var transactions = TransactionList()
    var undo = ProducerUndo()
    /// Which batches are to come again, because their write failed.
    var unwritten = UnwrittenProducers()

    package init(producerLimit: Int = ProducerStateTable.defaultProducerLimit) {
        precondition(producerLimit > 0, "a partition remembers at least one producer")
        self.producerLimit = producerLimit
    }

    package var producerCount: Int { slots.count }

    /// Those that are remembered, by id.
    package var active: [ActiveProducer] {
        slots.sorted { $0.key < $1.key }.map { ActiveProducer(entries[Int($0.value)]) }
    }
    package var isEmpty: Bool { slots.isEmpty }

    // MARK: Deciding

    /// Whether a batch of data may be appended. The order of the questions is Kafka's: a batch sent again is recognised
    /// before its epoch is looked at, as long as the epoch is still the producer's.
    package func check(_ header: BatchHeader, origin: AppendOrigin = .client) -> Verdict {
        guard header.hasProducer, origin != .replication else { return .accepted }
        if origin == .client, header.baseSequence < 0 {
            return .refused(.invalidRecord, "producer \(header.producerID) sent a batch without a sequence")
        }
        let isFull = transactions.openCount >= producerLimit
        guard let entry = entry(of: header.producerID) else {
            if origin == .client, unwritten.precede(header) { return behindUnwritten(header) }
            return isFull ? noRoom(for: header.producerID) : .accepted
        }
        if origin == .client, entry.epoch == header.producerEpoch,
            let known = entry.batch(firstSequence: header.baseSequence, lastSequence: header.lastSequence)
        {
            return .duplicate(baseOffset: known.firstOffset, logAppendTime: known.timestamp)
        }
        if header.producerEpoch < entry.epoch { return staleEpoch(header, entry) }
        if origin == .client, let refusal = checkSequence(header, entry) { return refusal }
        if entry.isInTransaction, !header.isTransactional {
            return .refused(
                .invalidTxnState,
                "producer \(header.producerID) sent a batch outside its transaction of offset \(entry.transactionStart)"
            )
        }
        if isFull, header.isTransactional, !entry.isInTransaction { return noRoom(for: header.producerID) }
        return .accepted
    }

    /// Whether a batch of this producer is held against what came before it; else any sequence may be its first.
    package func knowsSequences(of producer: ProducerID) -> Bool { (entry(of: producer)?.epoch ?? -1) >= 0 }

    /// Whether the producer has a transaction open here, in this epoch.
    package func isInTransaction(_ producer: ProducerID, _ epoch: ProducerEpoch) -> Bool {
        guard transactions.openCount > 0, let entry = entry(of: producer) else { return false }
        return entry.isInTransaction && entry.epoch == epoch
    }

    /// Whether a leader may append this end of a transaction. Where the end raises the epoch (KIP-890), a marker in the
    /// epoch of the open transaction's records is one for an earlier transaction that comes late.
    package func checkMarker(_ header: BatchHeader, coordinatorEpoch: Int32, endsInNextEpoch: Bool = false) -> Verdict {
        guard let entry = entry(of: header.producerID) else { return .accepted }
        if header.producerEpoch < entry.epoch { return staleEpoch(header, entry) }
        if endsInNextEpoch, entry.isInTransaction, header.producerEpoch == entry.epoch { return staleEpoch(header, entry) }
        if coordinatorEpoch < entry.coordinatorEpoch {
            return .refused(
                .transactionCoordinatorFenced,
                "producer \(header.producerID): a marker of coordinator epoch \(coordinatorEpoch) after \(entry.coordinatorEpoch)"
            )
        }
        return .accepted
    }

    private func checkSequence(_ header: BatchHeader, _ entry: ProducerEntry) -> Verdict? {
        // an entry without an epoch knows nothing that a sequence could be held against
        if entry.epoch < 0 { return nil }
        if header.producerEpoch == entry.epoch ? entry.follows(header.baseSequence) : header.baseSequence == 0 {
            return nil
        }
        if unwritten.precede(header) { return behindUnwritten(header) }
        let expected =
            header.producerEpoch == entry.epoch
            ? "after \(entry.last.lastSequence)" : "at the start of epoch \(header.producerEpoch)"
        return .refused(
            .outOfOrderSequenceNumber, "producer \(header.producerID) sent sequence \(header.baseSequence) \(expected)")
    }

    private func behindUnwritten(_ header: BatchHeader) -> Verdict {
        .refused(
            .kafkaStorageError,
            "producer \(header.producerID) sent sequence \(header.baseSequence), but a batch before it could not be written")
    }

    private func staleEpoch(_ header: BatchHeader, _ entry: ProducerEntry) -> Verdict {
        .refused(
            .invalidProducerEpoch,
            "producer \(header.producerID) has epoch \(entry.epoch) here, the batch is of \(header.producerEpoch)")
    }

    /// Retriable: transactions end, and then there is room.
    private func noRoom(for producer: ProducerID) -> Verdict {
        .refused(
            .throttlingQuotaExceeded,
            "producer \(producer) must wait: \(producerLimit) others have a transaction open in this partition"
        )
    }

    // MARK: Taking over

    /// A batch of data (or one without a producer) was given its offsets.
    package mutating func apply(_ header: BatchHeader, baseOffset: Offset) {
        let lastOffset = baseOffset + Int64(header.lastOffsetDelta)
        nextOffset = lastOffset + 1
        guard header.hasProducer, !header.isControl else { return }
        unwritten.remove(header.producerID)
        let slot = openSlot(
            for: header.producerID, epoch: header.producerEpoch, timestamp: header.maxTimestamp, at: lastOffset)
        let batch = ProducerBatch(
            lastSequence: header.lastSequence, offsetDelta: header.lastOffsetDelta, lastOffset: lastOffset,
            timestamp: header.maxTimestamp)
        unlink(slot)
        entries[slot].enter(header.producerEpoch)
        entries[slot].append(batch)
        entries[slot].lastTimestamp = header.maxTimestamp
        entries[slot].lastChange = lastOffset
        if header.isTransactional, !entries[slot].isInTransaction {
            entries[slot].transactionStart = baseOffset
            transactions.open(header.producerID, at: baseOffset)
        }
        link(slot)
    }

    /// The end of a transaction was given its offset. Nil where the producer had none open here, and for other control
    /// records.
    package mutating func applyMarker(
        _ header: BatchHeader, type: ControlRecordType, coordinatorEpoch: Int32, offset: Offset
    ) -> CompletedTransaction? {
        nextOffset = offset + 1
        guard header.hasProducer, type == .abort || type == .commit else { return nil }
        let slot = openSlot(
            for: header.producerID, epoch: header.producerEpoch, timestamp: header.maxTimestamp, at: offset)
        unlink(slot)
        let start = entries[slot].transactionStart
        entries[slot].enter(header.producerEpoch)
        entries[slot].coordinatorEpoch = coordinatorEpoch
        entries[slot].lastTimestamp = header.maxTimestamp
        entries[slot].lastChange = offset
        entries[slot].transactionStart = -1
        link(slot)
        guard start >= 0 else { return nil }
        transactions.complete(from: start, marker: offset)
        return CompletedTransaction(
            producerID: header.producerID, firstOffset: start, lastOffset: offset, isAborted: type == .abort,
            lastStableOffset: transactions.firstUndecided ?? offset + 1)
    }

    // MARK: Transactions and readers

    /// Where readers of committed records must stop: the start of the oldest transaction that is open, or whose marker
    /// the high watermark has not passed. Nil where none is.
    package var firstUnstableOffset: Offset? { transactions.first }

    /// Where the oldest open transaction begins.
    package var firstUndecidedOffset: Offset? { transactions.firstUndecided }

    /// Transactions whose marker lies below the high watermark hold nobody back any more.
    package mutating func advanceHighWatermark(to offset: Offset) { transactions.settle(below: offset) }

    /// What lies below the log's start holds nobody back.
    package mutating func advanceLogStart(to offset: Offset) { transactions.settle(below: offset) }

    // MARK: Forgetting

    /// Forgets producers that have no transaction open and whose last batch or marker is as old as that.
    /// `producer.id.expiration.ms`.
    package mutating func removeExpired(now: Int64, olderThanMs: Int64) {
        var slot = oldestIdle
        while slot >= 0 {
            let next = entries[Int(slot)].next
            // a client's timestamp may be anything: the difference must not trap
            let (age, overflow) = now.subtractingReportingOverflow(entries[Int(slot)].lastTimestamp)
            if overflow ? entries[Int(slot)].lastTimestamp < 0 : age >= olderThanMs { remove(Int(slot)) }
            slot = next
        }
    }

    /// Forgets all: the log starts again empty at this offset.
    package mutating func clear(startingAt offset: Offset) {
        self = ProducerStateTable(producerLimit: producerLimit)
        nextOffset = offset
    }

    /// Goes back to what was known before `offset`. False where that cannot be told from what is remembered (a producer
    /// has changed at or above it): then the table is empty, and must be loaded from the last snapshot at or below
    /// `offset` and the batches from there.
    package mutating func truncate(to offset: Offset) -> Bool {
        guard offset < nextOffset else { return true }
        let isExact =
            !transactions.hasMarker(from: offset) && !slots.values.contains { entries[Int($0)].lastChange >= offset }
        guard isExact else {
            clear(startingAt: offset)
            return false
        }
        undo = ProducerUndo()
        nextOffset = offset
        return true
    }

    // MARK: Entries

    func entry(of producer: ProducerID) -> ProducerEntry? {
        // the last that appended is the likeliest to append again: no hash for it
        if newestIdle >= 0, entries[Int(newestIdle)].producerID == producer { return entries[Int(newestIdle)] }
        guard let slot = slots[producer] else { return nil }
        return entries[Int(slot)]
    }

    /// All entries, in no order.
    func forEachEntry(_ body: (ProducerEntry) -> Void) { for slot in slots.values { body(entries[Int(slot)]) } }

    /// All entries, in the order of their ids.
    var sortedEntries: [ProducerEntry] {
        slots.values.map { entries[Int($0)] }.sorted { $0.producerID < $1.producerID }
    }

    /// In the order of their ids.
    package var producers: [ProducerDescription] {
        sortedEntries.map {
            ProducerDescription(
                producerID: $0.producerID, epoch: $0.epoch, lastSequence: $0.last.lastSequence,
                lastTimestamp: $0.lastTimestamp,
                coordinatorEpoch: $0.coordinatorEpoch, transactionStart: $0.transactionStart)
        }
    }

    /// The slot of the producer's entry, which is made where there is none; what it was is kept for `restore`.
    private mutating func openSlot(
        for producer: ProducerID, epoch: ProducerEpoch, timestamp: Int64, at offset: Offset
    ) -> Int {
        var found: Int?
        if newestIdle >= 0, entries[Int(newestIdle)].producerID == producer {
            found = Int(newestIdle)
        } else if let slot = slots[producer] {
            found = Int(slot)
        }
        if let found {
            if undo.isRecording { undo.record(producer, entries[found]) }
            return found
        }
        while slots.count >= producerLimit, oldestIdle >= 0 {
            if undo.isRecording { undo.record(entries[Int(oldestIdle)].producerID, entries[Int(oldestIdle)]) }
            remove(Int(oldestIdle))
        }
        if undo.isRecording { undo.record(producer, nil) }
        return insert(ProducerEntry(producer, epoch: epoch, timestamp: timestamp, at: offset))
    }

    /// Puts an entry where no entry of its producer is; the last in the order of use.
    private mutating func insert(_ entry: ProducerEntry) -> Int {
        var entry = entry
        (entry.previous, entry.next) = (-1, -1)
        let slot: Int
        if freeSlot >= 0 {
            slot = Int(freeSlot)
            freeSlot = entries[slot].next
            entries[slot] = entry
        } else {
            slot = entries.count
            entries.append(entry)
        }
        slots[entry.producerID] = Int32(slot)
        link(slot)
        return slot
    }

    private mutating func remove(_ slot: Int) {
        unlink(slot)
        slots[entries[slot].producerID] = nil
        entries[slot].next = freeSlot
        freeSlot = Int32(slot)
    }

    private mutating func link(_ slot: Int) {
        guard !entries[slot].isInTransaction else { return }
        entries[slot].previous = newestIdle
        entries[slot].next = -1
        if newestIdle >= 0 { entries[Int(newestIdle)].next = Int32(slot) } else { oldestIdle = Int32(slot) }
        newestIdle = Int32(slot)
    }

    private mutating func unlink(_ slot: Int) {
        guard !entries[slot].isInTransaction else { return }
        let (previous, next) = (entries[slot].previous, entries[slot].next)
        if previous >= 0 { entries[Int(previous)].next = next } else { oldestIdle = next }
        if next >= 0 { entries[Int(next)].previous = previous } else { newestIdle = previous }
        (entries[slot].previous, entries[slot].next) = (-1, -1)
    }

    /// What a snapshot could not tell of a producer: batches of its epoch that lie below `before`, at most `count` of
    /// them. Told once.
    mutating func takeGap(of producer: ProducerID) -> (before: Offset, epoch: ProducerEpoch, count: Int)? {
        guard let slot = slots[producer], entries[Int(slot)].mayHaveEarlier else { return nil }
        entries[Int(slot)].mayHaveEarlier = false
        let entry = entries[Int(slot)]
        guard entry.batchCount > 0, Int(entry.batchCount) < ProducerEntry.batchLimit else { return nil }
        return (entry.oldest.firstOffset, entry.epoch, ProducerEntry.batchLimit - Int(entry.batchCount))
    }

    /// Takes over a batch that came before those that are known of its producer; false where that cannot be.
    mutating func addEarlier(_ batch: ProducerBatch, of producer: ProducerID) -> Bool {
        guard let slot = slots[producer] else { return false }
        return entries[Int(slot)].addEarlier(batch)
    }

    /// Takes over an entry as it was saved: by a snapshot, or before a write that failed. Nil removes the producer's.
    mutating func put(_ producer: ProducerID, _ saved: ProducerEntry?) {
        var opened: Offset = -1
        if let slot = slots[producer] {
            opened = entries[Int(slot)].transactionStart
            remove(Int(slot))
        }
        if let saved { _ = insert(saved) }
        let wanted = saved?.transactionStart ?? -1
        guard opened != wanted else { return }
        if opened >= 0 { transactions.remove(from: opened) }
        if wanted >= 0 { transactions.reopen(producer, at: wanted) }
    }
}
