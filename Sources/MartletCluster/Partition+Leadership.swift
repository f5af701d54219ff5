import MartletBasics
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
        case .failure(let error): throw error
        }
    }

    private func becameLeader(_ effects: inout PartitionEffects) throws(LogError) {
        try log.beginEpoch(leadership.leaderEpoch)
        leadership.clamp(logStart: log.logStartOffset, logEnd: log.logEndOffset)
        advanceHighWatermark(&effects)
    }

    /// Who waits for an acknowledgement of this replica will not get it: a rewritten offset must never satisfy an old waiter.
    private func becameFollower(_ effects: inout PartitionEffects) {
        failAllWaiters(.notLeaderOrFollower, &effects)
        effects.wake(watchers)
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

    /// What the leader answered to a fetch of the epoch it was asked in; answers of an epoch that is over are ignored.
    package struct LeaderAnswer: Sendable {
        package var leaderEpoch: LeaderEpoch
        package var error: ErrorCode
        package var highWatermark: Offset
        package var logStartOffset: Offset
        package var divergingEpoch: EpochEnd?

        package init(
            leaderEpoch: LeaderEpoch, error: ErrorCode, highWatermark: Offset, logStartOffset: Offset, divergingEpoch: EpochEnd?
        ) {
            self.leaderEpoch = leaderEpoch
            self.error = error
            self.highWatermark = highWatermark
            self.logStartOffset = logStartOffset
            self.divergingEpoch = divergingEpoch
        }
    }

    /// Appends what the leader sent, or goes back to where the logs part.
    package func follow(_ answer: LeaderAnswer, records: UnsafeRawBufferPointer) throws(LogError) {
        var effects = PartitionEffects()
        let failure = lock.withLock { () -> LogError? in
            guard case .follower = leadership.role, offlineReason == nil, answer.leaderEpoch == leadership.leaderEpoch else { return nil }
            do throws(LogError) {
                if answer.error == .offsetOutOfRange {
                    try startOver(at: answer.logStartOffset)
                } else if answer.error == .none {
                    if let diverging = answer.divergingEpoch { try goBack(to: diverging) } else { try copy(records) }
                    if answer.logStartOffset > log.logStartOffset, answer.logStartOffset <= log.logEndOffset {
                        try log.advanceLogStart(to: answer.logStartOffset)
                    }
                    leadership.follow(highWatermark: answer.highWatermark, localEnd: log.logEndOffset)
                    log.noteHighWatermark(leadership.highWatermark)
                    if !watchers.isEmpty { effects.wake(watchers) }
                }
                return nil
            } catch {
                return error
            }
        }
        effects.deliver()
        if let failure {
            if failure.takesDirectoryOffline { directory.failed(failure) }
            throw failure
        }
        directory.syncer.arm(self, urgent: true)
    }

    private func copy(_ records: UnsafeRawBufferPointer) throws(LogError) {
        guard records.count > 0, try log.reserveAsFollower(records) != nil else { return }
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
        guard target < log.logEndOffset else { return }
        logger.info(
            "truncated to the leader's log", ("partition", id.description), ("from", "\(log.logEndOffset)"), ("to", "\(target)"),
            ("epoch", "\(diverging.epoch)"), ("high-watermark", "\(leadership.highWatermark)"))
        try directory.directory.durableOffsets.lower(id, to: target)
        _ = try log.truncate(to: target)
        leadership.clamp(logStart: log.logStartOffset, logEnd: log.logEndOffset)
    }

    /// The leader has nothing at this replica's end any more.
    private func startOver(at offset: Offset) throws(LogError) {
        guard offset >= 0 else { return }
        logger.warning(
            "the log starts over where the leader's begins", ("partition", id.description), ("from", "\(log.logEndOffset)"),
            ("to", "\(offset)"))
        try directory.directory.durableOffsets.lower(id, to: offset)
        try log.truncateFully(startingAt: offset)
        leadership.clamp(logStart: log.logStartOffset, logEnd: log.logEndOffset)
    }
}
