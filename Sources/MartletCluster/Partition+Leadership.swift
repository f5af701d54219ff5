package import MartletBasics
package import MartletLog
package import MartletModel
import MartletReactor

extension Partition {
    /// Takes the part that the controller gave this replica. False for a decision that is over, or is in force already.
    @discardableResult
    package func apply(_ assignment: PartitionLeadership.Assignment) throws(LogError) -> Bool {
        var effects = PartitionEffects()
        let outcome = lock.withLock { () -> Result<Bool, LogError> in
            guard offlineReason == nil else { return .failure(.directoryOffline(path: directory.path, reason: offlineReason!)) }
            let change = leadership.apply(assignment, now: clock.now)
            do throws(LogError) {
                switch change {
                case .stale: return .success(false)
                case .contradiction:
                    logger.error(
                        "an epoch has one leader: a decision for another one is ignored", ("partition", id.description),
                        ("epoch", "\(assignment.leaderEpoch)"), ("leader", "\(leaderHint.leader)"), ("told", "\(assignment.leader)"))
                    return .success(false)
                case .becameLeader: try becameLeader(&effects)
                case .becameFollower: becameFollower(&effects)
                case .updated: advanceHighWatermark(&effects)
                }
                return .success(true)
            } catch {
                return .failure(error)
            }
        }
        effects.deliver()
        switch outcome {
        case .success(let changed):
            // whatever recovery found, or a new folder, becomes durable and counts
            directory.syncer.arm(self, urgent: false)
            return changed
        case .failure(let error):
            if error.takesDirectoryOffline { directory.failed(error) }
            throw error
        }
    }

    private func becameLeader(_ effects: inout PartitionEffects) throws(LogError) {
        // what a turn reserved in an earlier epoch carries that epoch
        abandonReservations(&effects)
        try log.beginEpoch(leadership.leaderEpoch)
        leadership.beginEpoch(at: log.logEndOffset)
        leadership.clamp(logStart: log.logStartOffset, logEnd: log.logEndOffset)
        log.noteHighWatermark(leadership.highWatermark)
        flushRequestedUpTo = min(flushRequestedUpTo, log.logEndOffset)
        // whatever moved: readers of the earlier epoch must hear of this one
        if !advanceHighWatermark(&effects) { effects.wakeWatchers(of: self) }
    }

    /// Who waits for an acknowledgement of this replica will not get it: a rewritten offset must never satisfy an old waiter.
    private func becameFollower(_ effects: inout PartitionEffects) {
        abandonReservations(&effects)
        failAllWaiters(.notLeaderOrFollower, &effects)
        effects.wakeWatchers(of: self)
    }

    // MARK: The in-sync set

    /// What a leader asks of the controller (AlterPartition).
    package struct InSyncProposal: Sendable, Equatable {
        package var leaderEpoch: LeaderEpoch
        package var partitionEpoch: Int32
        package var inSyncReplicas: [BrokerID]
    }

    /// The in-sync set that the controller should be asked for now. Its answer comes as an assignment of a later
    /// partition epoch, or as `inSyncProposalRefused`; until then replicas of both sets hold the high watermark.
    package func proposeInSync(now: Instant, lagLimit: Interval) -> InSyncProposal? {
        lock.withLock {
            guard offlineReason == nil else { return nil }
            let wanted = leadership.propose(
                now: now, lagLimit: lagLimit, localEnd: log.logEndOffset, durability: config.durability)
            return wanted.map {
                InSyncProposal(leaderEpoch: leadership.leaderEpoch, partitionEpoch: leadership.partitionEpoch, inSyncReplicas: $0)
            }
        }
    }

    /// The controller has not taken the proposal, and surely will not.
    package func inSyncProposalRefused(_ proposal: InSyncProposal) {
        var effects = PartitionEffects()
        lock.withLock {
            guard leadership.leaderEpoch == proposal.leaderEpoch, leadership.partitionEpoch == proposal.partitionEpoch else { return }
            leadership.proposalRefused()
            if offlineReason == nil { advanceHighWatermark(&effects) }
        }
        effects.deliver()
    }

    // MARK: Following

    /// What a follower asks its leader for next; nil while it follows nobody.
    package func nextFollowerFetch() -> PartitionFetchRequest? {
        lock.withLock {
            guard case .follower(let leader) = leadership.role, leader >= 0, offlineReason == nil else { return nil }
            return PartitionFetchRequest(
                offset: log.logEndOffset, maxBytes: Self.followerFetchBytes, firstBatchWhole: true,
                currentLeaderEpoch: leadership.leaderEpoch, lastFetchedEpoch: log.latestEpoch ?? -1,
                follower: FollowerIdentity(broker: leadership.brokerID, durable: log.durableOffset))
        }
    }

    /// `replica.fetch.max.bytes`.
    static let followerFetchBytes = 1 << 20

    /// What the leader answered to a fetch. It says something of this log only as that was when it asked: an answer
    /// that comes late (of an epoch that is over, or overtaken by another) is ignored.
    package struct LeaderAnswer: Sendable {
        package var request: PartitionFetchRequest
        package var error: ErrorCode
        package var highWatermark: Offset
        package var logStartOffset: Offset
        package var divergingEpoch: EpochEnd?

        package init(
            to request: PartitionFetchRequest, error: ErrorCode, highWatermark: Offset, logStartOffset: Offset,
            divergingEpoch: EpochEnd?
        ) {
            self.request = request
            self.error = error
            self.highWatermark = highWatermark
            self.logStartOffset = logStartOffset
            self.divergingEpoch = divergingEpoch
        }
    }

    private func isOfNow(_ request: PartitionFetchRequest) -> Bool {
        request.currentLeaderEpoch == leadership.leaderEpoch && request.offset == log.logEndOffset
            && request.lastFetchedEpoch == log.latestEpoch ?? -1
    }

    /// Appends what the leader sent, or goes back to where the logs part. Admitted: a truncation does its disk work
    /// here and under the lock, a few small files synced; a follower goes back once after a change of leaders, and
    /// serves nobody meanwhile.
    package func follow(_ answer: LeaderAnswer, records: UnsafeRawBufferPointer) throws(LogError) {
        var effects = PartitionEffects()
        var mustSync = false
        let failure = lock.withLock { () -> LogError? in
            guard case .follower = leadership.role, offlineReason == nil, !isMoving, isOfNow(answer.request) else { return nil }
            do throws(LogError) {
                let end = log.logEndOffset
                try carryOut(answer, records)
                mustSync = log.logEndOffset < end || log.logEndOffset > end && noteUnsynced() || config.durability == .fsync
                effects.wakeWatchers(of: self)
                return nil
            } catch {
                return error
            }
        }
        effects.deliver()
        if let failure {
            if failure.takesDirectoryOffline { directory.writeFailed(failure, id) }
            throw failure
        }
        if mustSync { directory.syncer.arm(self, urgent: true) }
    }

    private func carryOut(_ answer: LeaderAnswer, _ records: UnsafeRawBufferPointer) throws(LogError) {
        guard answer.error == .none else {
            if answer.error == .offsetOutOfRange { try startOver(at: answer.logStartOffset) }
            return
        }
        // how far the logs agree is not known yet: the high watermark is for the next answer
        if let diverging = answer.divergingEpoch { return try goBack(to: diverging) }
        try copy(records)
        leadership.follow(highWatermark: answer.highWatermark, localEnd: log.logEndOffset)
        log.noteHighWatermark(leadership.highWatermark)
        if answer.logStartOffset > log.logStartOffset, answer.logStartOffset <= log.logEndOffset {
            try log.advanceLogStart(to: answer.logStartOffset)
            leadership.clamp(logStart: log.logStartOffset, logEnd: log.logEndOffset)
        }
    }

    private func copy(_ records: UnsafeRawBufferPointer) throws(LogError) {
        guard records.count >= BatchHeader.size else { return }
        let first = BatchHeader(records)
        // The leader's log begins inside its first batch. An empty log takes that batch whole, and its start from the leader.
        if log.size == 0, first.baseOffset >= 0, first.baseOffset < log.logEndOffset, first.lastOffset >= log.logEndOffset {
            try directory.lower(id, to: 0)
            try log.truncateFully(startingAt: first.baseOffset)
        }
        guard try log.reserveAsFollower(records) != nil else { return }
        try log.writeReserved()
    }

    /// The leader's log of the epoch ends earlier, or it does not know the epoch: what lies above was never committed.
    ///
    ///     leader    epoch 0: 0..<5, epoch 2: 5..<9      asked with (offset 8, epoch 1), answers epoch 0 ends at 5
    ///     follower  epoch 0: 0..<6, epoch 1: 6..<8      epoch 0 ends here at 6: it goes back to 5
    private func goBack(to diverging: EpochEnd) throws(LogError) {
        var target = log.logEndOffset
        if diverging.epoch < 0 {
            target = leadership.highWatermark
        } else if let own = log.endOffset(for: diverging.epoch) {
            target = own.epoch == diverging.epoch ? min(own.endOffset, diverging.endOffset) : own.endOffset
        } else {
            target = diverging.endOffset
        }
        target = max(min(target, log.logEndOffset), log.logStartOffset)
        let end = try log.endAfterTruncating(to: target)
        if end < log.logEndOffset {
            logger.info(
                "truncated to the leader's log", ("partition", id.description), ("from", "\(log.logEndOffset)"), ("to", "\(end)"),
                ("epoch", "\(diverging.epoch)"), ("high-watermark", "\(leadership.highWatermark)"))
            // what the disk says of this log must be true before and after; a log with nothing left claims nothing
            try directory.lower(id, to: end > log.logStartOffset ? end : 0)
        }
        // also where nothing is cut: an epoch in which this replica led and wrote nothing goes, or it would be asked for again
        _ = try log.truncate(to: target)
        wentBack()
    }

    /// The leader has nothing at this replica's end any more.
    private func startOver(at offset: Offset) throws(LogError) {
        guard offset > log.logEndOffset else {
            // it can only lie behind the leader's start: an end above the leader's is a diverging epoch
            logger.warning(
                "the leader has nothing at the end of this log, and does not say where its own begins",
                ("partition", id.description), ("end", "\(log.logEndOffset)"), ("leader-start", "\(offset)"))
            return
        }
        logger.warning(
            "the log starts over where the leader's begins", ("partition", id.description), ("from", "\(log.logEndOffset)"),
            ("to", "\(offset)"))
        try directory.lower(id, to: 0)
        try log.truncateFully(startingAt: offset)
        wentBack()
    }

    private func wentBack() {
        leadership.clamp(logStart: log.logStartOffset, logEnd: log.logEndOffset)
        flushRequestedUpTo = min(flushRequestedUpTo, log.logEndOffset)
        flushedSegmentBase = log.activeSegmentBase
    }
}
