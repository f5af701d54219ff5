package import MartletBasics
package import MartletLog
package import MartletModel
import MartletReactor

/// What became of an append at once.
package enum AppendStart {
    /// Offsets are given; the owner is told the rest, unless it wanted no acknowledgement.
    case reserved(baseOffset: Offset, isFirstOfTurn: Bool)
    /// The batch was appended before, at this offset; the owner is told when that is as durable as it asks for.
    case duplicate(baseOffset: Offset, logAppendTime: Int64, isWaiting: Bool)
    case refused(ErrorCode, String?)
}

/// Who appends, and what for.
package struct AppendRequest {
    package var acknowledgement: Acknowledgement
    /// Nil where nobody waits.
    package var owner: (any AppendOwner)?
    package var token: AppendToken
    package var deadline: Instant
    package var origin: AppendOrigin
    /// Who knows whether a producer has a transaction in the partition; nil where that is not asked.
    package var transactions: (any TransactionVerifier)?
    /// A marker of a transaction whose end raises the producer's epoch.
    package var endsInNextEpoch = false
    /// What an earlier batch of the producer was refused with that is to come again: where the log does not know the producer,
    /// this one is not its first.
    package var precedingRefusal = ErrorCode.none

    package init(
        _ acknowledgement: Acknowledgement, owner: (any AppendOwner)?, token: AppendToken, deadline: Instant,
        origin: AppendOrigin = .client, transactions: (any TransactionVerifier)? = nil
    ) {
        precondition(owner != nil || acknowledgement == .none, "an acknowledgement is for somebody")
        self.acknowledgement = acknowledgement
        self.owner = owner
        self.token = token
        self.deadline = deadline
        self.origin = origin
        self.transactions = transactions
    }
}

/// Knows whether a producer has told its coordinator that its transaction is in a partition.
package protocol TransactionVerifier: AnyObject, Sendable {
    /// What speaks against a batch of this producer. Called under the partition's lock: between the answer and the
    /// append no marker can end the transaction.
    func verify(_ producer: ProducerID, _ epoch: ProducerEpoch, in partition: TopicPartition) -> ErrorCode
}

extension Partition {
    /// Whether the producer has written to this partition in its transaction already, so that a marker will come.
    package func isInTransaction(_ producer: ProducerID, _ epoch: ProducerEpoch) -> Bool {
        lock.withLock { log.isInTransaction(producer, epoch) }
    }

    /// The refusal of a batch that would begin a transaction nobody knows of, and so nobody would end. Under the lock.
    private func verify(_ batches: UnsafeMutableRawBufferPointer, _ verifier: any TransactionVerifier) -> ErrorCode {
        let header = BatchHeader(UnsafeRawBufferPointer(batches))
        guard header.isTransactional, !log.isInTransaction(header.producerID, header.producerEpoch) else { return .none }
        return verifier.verify(header.producerID, header.producerEpoch, in: id)
    }

    /// Reserves a place for batches that were checked. They are written by the next `writeReserved`, until which the
    /// bytes must stay.
    package func append(_ batches: UnsafeMutableRawBufferPointer, _ request: AppendRequest) -> AppendStart {
        lock.withLock {
            let fault = leadershipFault(currentLeaderEpoch: -1)
            guard fault == .none else { return .refused(fault, nil) }
            guard !isMoving else {
                return .refused(.notLeaderOrFollower, "the replica is moved to another log directory just now")
            }
            // the partition hears of it a little later
            guard !directory.directory.isOffline else { return .refused(.kafkaStorageError, "its log directory is offline") }
            // min.insync.replicas beyond the number of replicas acts as that number: else such a topic could take nothing
            let needed = min(Int(config.minInsyncReplicas), leadership.replicas.count)
            if request.acknowledgement == .committed, leadership.inSyncReplicas.count < needed {
                return .refused(.notEnoughReplicas, "\(leadership.inSyncReplicas.count) of \(needed) replicas are in sync")
            }
            if let verifier = request.transactions {
                let fault = verify(batches, verifier)
                guard fault == .none else { return .refused(fault, "the transaction was not found in this partition") }
            }
            if request.precedingRefusal != .none,
                !log.knowsSequences(of: BatchHeader(UnsafeRawBufferPointer(batches)).producerID)
            {
                return .refused(request.precedingRefusal, Self.comesFirst)
            }
            let isFirst = !log.hasReservations
            do throws(LogError) {
                let reservation = try log.reserve(
                    batches, leaderEpoch: leadership.leaderEpoch, origin: request.origin, endsInNextEpoch: request.endsInNextEpoch)
                if reservation.isDuplicate {
                    let isWaiting = waitForDuplicate(reservation, request)
                    return .duplicate(
                        baseOffset: reservation.baseOffset, logAppendTime: reservation.logAppendTime, isWaiting: isWaiting)
                }
                wait(upTo: reservation.lastOffset + 1, request)
                received.recordsIn &+= UInt64(reservation.lastOffset + 1 - reservation.baseOffset)
                received.bytesIn &+= UInt64(batches.count)
                if request.acknowledgement != .committed { acknowledgedEnd = reservation.lastOffset + 1 }
                return .reserved(baseOffset: reservation.baseOffset, isFirstOfTurn: isFirst)
            } catch {
                // a new segment may have met a full disk
                if error.takesDirectoryOffline { directory.writeFailed(error, id) }
                return refusal(error, request)
            }
        }
    }

    private static let comesFirst = "an earlier batch of its producer was refused, and comes first"

    /// A batch behind one that was refused for a time is refused as that was: `UnwrittenProducers` tells why.
    private func refusal(_ error: LogError, _ request: AppendRequest) -> AppendStart {
        guard error.code == .outOfOrderSequenceNumber, request.precedingRefusal != .none else {
            return .refused(error.code, "\(error)")
        }
        return .refused(request.precedingRefusal, Self.comesFirst)
    }

    private func wait(upTo end: Offset, _ request: AppendRequest) {
        guard let owner = request.owner, request.acknowledgement != .none else { return }
        let waiter = AppendWaiter(
            owner: owner, token: request.token, endOffset: end, deadline: request.deadline, needsLocalSync: false)
        if request.acknowledgement == .written {
            writtenWaiters.append(waiter)
        } else {
            committedWaiters.append(waiter)
            beginTimed()
        }
    }

    /// A batch that was sent again is answered when its first copy would be; false if that is now.
    private func waitForDuplicate(_ reservation: Reservation, _ request: AppendRequest) -> Bool {
        let end = reservation.lastOffset + 1
        guard request.owner != nil else { return false }
        switch request.acknowledgement {
        case .none: return false
        case .written where end <= log.logEndOffset: return false
        case .committed where end <= leadership.highWatermark: return false
        case .written, .committed: break
        }
        // The waiters are in the order of their offsets, and this one may belong in the middle. Waiting for the last is
        // later than need be, never earlier.
        let queue = request.acknowledgement == .written ? writtenWaiters : committedWaiters
        let last = queue.isEmpty ? end : max(end, queue[queue.count - 1].endOffset)
        wait(upTo: last, request)
        return true
    }

    /// Writes what was reserved since the last call, publishes it, and collects whom that concerns.
    package func writeReserved(_ effects: inout PartitionEffects) {
        let (armed, urgent) = lock.withLock { () -> (Bool, Bool) in
            guard log.hasReservations else { return (false, false) }
            do throws(LogError) {
                try log.writeReserved()
            } catch {
                reservationsFailed(error, &effects)
                return (false, false)
            }
            return published(&effects)
        }
        if armed { directory.syncer.arm(self, urgent: urgent) }
    }

    /// What follows from a longer log: acknowledgements, the high watermark, a sync. Under the lock; whether to arm the
    /// syncer, and whether somebody waits for it.
    private func published(_ effects: inout PartitionEffects) -> (arm: Bool, urgent: Bool) {
        let end = log.logEndOffset
        let mustFlush = noteUnsynced()
        completeWritten(end, mustFlush: mustFlush, &effects)
        if mustFlush { markCommittedAsFlushed() }
        // followers copy what consumers must not see yet
        if !advanceHighWatermark(&effects), !leadership.followers.isEmpty { effects.wakeWatchers(of: self) }
        let waits = !committedWaiters.isEmpty || !durableWaiters.isEmpty
        return config.durability == .fsync ? (true, waits) : (mustFlush, !durableWaiters.isEmpty)
    }

    /// The log has grown. Whether it must be synced whatever the topic's durability: `flush.messages` is reached, or a
    /// segment is full (its files would else stay open, and recovery begin ever further back).
    func noteUnsynced() -> Bool {
        if unsyncedSince == nil { unsyncedSince = clock.now }
        if isFlushTimed { beginTimed() }
        let end = log.logEndOffset
        var mustFlush = log.activeSegmentBase != flushedSegmentBase
        flushedSegmentBase = log.activeSegmentBase
        if config.flushMessages != .max { mustFlush = mustFlush || end - max(log.durableOffset, flushRequestedUpTo) >= config.flushMessages }
        if mustFlush { flushRequestedUpTo = end }
        return mustFlush
    }

    private func completeWritten(_ end: Offset, mustFlush: Bool, _ effects: inout PartitionEffects) {
        while let waiter = writtenWaiters.first, waiter.endOffset <= end {
            writtenWaiters.popFirst()
            if mustFlush, isFlushAwaited {
                durableWaiters.append(waiter)
                beginTimed()
            } else {
                effects.complete(waiter, .none, logStartOffset: log.logStartOffset)
            }
        }
    }

    /// Whether clients wait for a flush: in Kafka an append that reaches `flush.messages` does, one that fills a
    /// segment does not.
    private var isFlushAwaited: Bool { config.flushMessages != .max }

    /// `flush.messages` was reached: who waits for the replicas waits for this disk too.
    private func markCommittedAsFlushed() {
        guard config.durability == .pageCache, isFlushAwaited else { return }
        for index in 0..<committedWaiters.count { committedWaiters[index].needsLocalSync = true }
    }

    /// Raises the high watermark as far as the in-sync replicas allow, and collects who waits for it; whether it moved.
    @discardableResult
    func advanceHighWatermark(_ effects: inout PartitionEffects) -> Bool {
        guard leadership.isLeader else { return false }
        let moved = leadership.advanceHighWatermark(
            localDurable: log.durableOffset, localEnd: log.logEndOffset, durability: config.durability)
        if moved {
            log.noteHighWatermark(leadership.highWatermark)
            effects.wakeWatchers(of: self)
        }
        completeCommitted(&effects)
        return moved
    }

    func completeCommitted(_ effects: inout PartitionEffects) {
        let committed = log.planted.contains(.earlyAcknowledgement) ? log.logEndOffset : leadership.highWatermark
        while let waiter = committedWaiters.first, waiter.endOffset <= committed,
            !waiter.needsLocalSync || waiter.endOffset <= log.durableOffset
        {
            committedWaiters.popFirst()
            // the in-sync set may have shrunk below the topic's minimum since: the record is there, but not as safe as
            // was asked for
            let needed = min(Int(config.minInsyncReplicas), leadership.replicas.count)
            let error: ErrorCode = leadership.inSyncReplicas.count < needed ? .notEnoughReplicasAfterAppend : .none
            effects.complete(waiter, error, logStartOffset: log.logStartOffset)
        }
    }

    // MARK: What fails

    /// The write of what was reserved failed: all of it, and the log is as before.
    private func reservationsFailed(_ error: LogError, _ effects: inout PartitionEffects) {
        directory.writeFailed(error, id)
        acknowledgedEnd = min(acknowledgedEnd, log.logEndOffset)
        fail(&writtenWaiters, above: log.logEndOffset, error.code, &effects)
        fail(&committedWaiters, above: log.logEndOffset, error.code, &effects)
    }

    /// Fails the waiters whose records are not below this offset (any more).
    func fail(
        _ waiters: inout RingQueue<AppendWaiter>, above offset: Offset, _ error: ErrorCode, _ effects: inout PartitionEffects
    ) {
        var kept = RingQueue<AppendWaiter>()
        while let waiter = waiters.popFirst() {
            if waiter.endOffset > offset {
                effects.complete(waiter, error, logStartOffset: -1)
            } else {
                kept.append(waiter)
            }
        }
        waiters = kept
    }

    func failAllWaiters(_ error: ErrorCode, _ effects: inout PartitionEffects) {
        fail(&writtenWaiters, above: -1, error, &effects)
        fail(&committedWaiters, above: -1, error, &effects)
        fail(&durableWaiters, above: -1, error, &effects)
    }

    /// Nothing that is reserved will be written: this replica may not append as it did.
    func abandonReservations(_ effects: inout PartitionEffects) {
        guard log.hasReservations else { return }
        log.abandonReservations()
        fail(&writtenWaiters, above: log.logEndOffset, .notLeaderOrFollower, &effects)
        fail(&committedWaiters, above: log.logEndOffset, .notLeaderOrFollower, &effects)
    }
}
