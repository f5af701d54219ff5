import MartletBasics
package import MartletLog
package import MartletModel
import MartletReactor

/// The broker that fetches as a follower.
package struct FollowerIdentity: Sendable, Equatable {
    package var broker: BrokerID
    /// Everything below is on its disk, as it tells; nil from a broker that cannot tell.
    package var durable: Offset?

    package init(broker: BrokerID, durable: Offset? = nil) {
        self.broker = broker
        self.durable = durable
    }
}

/// What a fetch wants of one partition.
package struct PartitionFetchRequest: Sendable {
    package var offset: Offset
    package var maxBytes: Int
    /// The first batch comes whole, however large.
    package var firstBatchWhole: Bool
    package var currentLeaderEpoch: LeaderEpoch
    package var lastFetchedEpoch: LeaderEpoch
    package var readCommitted: Bool
    package var follower: FollowerIdentity?

    package init(
        offset: Offset, maxBytes: Int, firstBatchWhole: Bool, currentLeaderEpoch: LeaderEpoch = -1,
        lastFetchedEpoch: LeaderEpoch = -1, readCommitted: Bool = false, follower: FollowerIdentity? = nil
    ) {
        self.offset = offset
        self.maxBytes = maxBytes
        self.firstBatchWhole = firstBatchWhole
        self.currentLeaderEpoch = currentLeaderEpoch
        self.lastFetchedEpoch = lastFetchedEpoch
        self.readCommitted = readCommitted
        self.follower = follower
    }
}

package struct EpochEnd: Sendable, Equatable {
    package var epoch: LeaderEpoch
    package var endOffset: Offset

    package init(epoch: LeaderEpoch, endOffset: Offset) {
        self.epoch = epoch
        self.endOffset = endOffset
    }
}

/// What one partition answers to a fetch.
package struct PartitionFetch: Sendable {
    package var error: ErrorCode
    package var highWatermark: Offset = -1
    package var lastStableOffset: Offset = -1
    package var logStartOffset: Offset = -1
    /// Where the reader's log and this one part: it has nothing to copy before it has gone back.
    package var divergingEpoch: EpochEnd?
    package var currentLeader: LeaderHint?
    package var abortedTransactions: [AbortedTransaction] = []
    package var slice: LogSlice?
    /// More was acknowledged than may be read yet, and only this broker's own sync is in the way.
    package var isUnsettled = false

    package init(error: ErrorCode) { self.error = error }
}

/// A place in a log that can be asked for.
package enum LogPlace: Sendable, Equatable {
    case earliest, latest, highestTimestamp, nowhere
    case time(Int64)
}

package struct LogPosition: Sendable, Equatable {
    package var offset: Offset
    package var timestamp: Int64
    package var leaderEpoch: LeaderEpoch
}

extension Partition {
    /// Reads from an offset: for consumers up to the high watermark (or the last stable offset), for followers up to
    /// the log's end.
    package func fetch(_ request: PartitionFetchRequest) -> PartitionFetch {
        var effects = PartitionEffects()
        var failure: LogError?
        let found = lock.withLock { () -> PartitionFetch in
            let fault = leadershipFault(currentLeaderEpoch: request.currentLeaderEpoch)
            guard fault == .none else {
                var found = PartitionFetch(error: fault)
                if fault == .notLeaderOrFollower || fault == .fencedLeaderEpoch { found.currentLeader = leaderHint }
                return found
            }
            var found = PartitionFetch(error: .none)
            if let diverging = divergence(request) {
                // a consumer that has read in an epoch nobody here knows gets no place to go back to
                if diverging.epoch < 0, request.follower == nil { return PartitionFetch(error: .offsetOutOfRange) }
                found.divergingEpoch = diverging
            } else {
                failure = read(request, &found)
                // what a replica asks for where this log has nothing says nothing of what it has of this log
                if let follower = request.follower, found.error == .none, !note(follower, request.offset, &effects) {
                    return PartitionFetch(error: .unknownLeaderEpoch)
                }
            }
            // a follower out of range starts over where this log begins
            guard found.error == .none || found.error == .offsetOutOfRange && request.follower != nil else { return found }
            found.isUnsettled = isUnsettled && found.slice?.count ?? 0 < request.maxBytes
            found.highWatermark = leadership.highWatermark
            found.lastStableOffset = lastStableOffset
            found.logStartOffset = log.logStartOffset
            return found
        }
        effects.deliver()
        if let failure { readFailed(failure) }
        return found
    }

    /// Where the reader's log parts from this one, by the epoch of its last record.
    private func divergence(_ request: PartitionFetchRequest) -> EpochEnd? {
        guard request.lastFetchedEpoch >= 0 else { return nil }
        guard let end = log.endOffset(for: request.lastFetchedEpoch) else {
            return EpochEnd(epoch: -1, endOffset: -1)
        }
        guard end.epoch < request.lastFetchedEpoch || end.endOffset < request.offset else { return nil }
        return EpochEnd(epoch: end.epoch, endOffset: end.endOffset)
    }

    private func note(_ follower: FollowerIdentity, _ offset: Offset, _ effects: inout PartitionEffects) -> Bool {
        let known = leadership.followerFetched(
            follower.broker, logEnd: offset, durable: follower.durable, leaderEnd: log.logEndOffset,
            durability: config.durability, now: clock.now)
        if known { advanceHighWatermark(&effects) }
        return known
    }

    private func read(_ request: PartitionFetchRequest, _ found: inout PartitionFetch) -> LogError? {
        var limit = request.readCommitted ? lastStableOffset : leadership.highWatermark
        if request.follower != nil { limit = log.logEndOffset }
        // between the limit and the log's end there is something, but not for this reader yet
        guard request.offset >= log.logStartOffset, request.offset <= log.logEndOffset else {
            found = PartitionFetch(error: .offsetOutOfRange)
            return nil
        }
        if log.planted.contains(.readsAboveHighWatermark) { limit = log.logEndOffset }
        guard request.offset < limit else { return nil }
        do throws(LogError) {
            found.slice = try log.read(
                from: request.offset, maxBytes: request.maxBytes, limit: limit, firstBatchWhole: request.firstBatchWhole)
            if request.readCommitted, found.slice?.isEmpty == false, !log.planted.contains(.untoldAborts) {
                found.abortedTransactions = try log.abortedTransactions(from: request.offset, upTo: limit)
            }
            return nil
        } catch {
            logger.error("a read failed", ("partition", id.description), ("offset", "\(request.offset)"), ("reason", "\(error)"))
            found = PartitionFetch(error: error.isDamage ? .kafkaStorageError : error.code)
            return error
        }
    }

    // MARK: Lookups

    /// What is promised to be found: what this leader has acknowledged, and what was in the log when it began, of which
    /// an earlier one may have acknowledged all. Under the lock.
    private var promisedEnd: Offset { max(acknowledgedEnd, leadership.epochStart) }

    /// Under the lock.
    private var isUnsettled: Bool {
        promisedEnd > leadership.highWatermark && leadership.inSyncReplicas == [leadership.brokerID]
    }

    /// Calls the owner when everything that was acknowledged until now is committed, if only this broker's own sync is
    /// in the way; false if nothing is. Who has produced with acks=0 or 1 finds his records so, as with Kafka, although
    /// consumers see what is synced only.
    package func whenSettled(_ owner: any AppendOwner, _ token: AppendToken) -> Bool {
        let waits = lock.withLock {
            guard offlineReason == nil, leadership.isLeader, isUnsettled else { return false }
            committedWaiters.append(
                AppendWaiter(
                    owner: owner, token: token, endOffset: promisedEnd,
                    deadline: .distantFuture, needsLocalSync: false))
            return true
        }
        if waits { directory.syncer.arm(self, urgent: true) }
        return waits
    }

    package func lookUp(
        _ place: LogPlace, currentLeaderEpoch: LeaderEpoch, readCommitted: Bool, forReplica: Bool
    ) -> Result<LogPosition?, ErrorCode> {
        var failure: LogError?
        defer { if let failure { readFailed(failure) } }
        return lock.withLock {
            let fault = leadershipFault(currentLeaderEpoch: currentLeaderEpoch)
            guard fault == .none else { return .failure(fault) }
            let limit = forReplica ? log.logEndOffset : readCommitted ? lastStableOffset : leadership.highWatermark
            switch place {
            case .nowhere: return .success(nil)
            case .latest where !forReplica && !leadership.knowsWhatWasCommitted,
                .time where !forReplica && !leadership.knowsWhatWasCommitted,
                .highestTimestamp where !forReplica && !leadership.knowsWhatWasCommitted:
                // what an earlier leader had committed would seem to be gone
                return .failure(.offsetNotAvailable)
            case .earliest:
                let start = log.logStartOffset
                let epoch = log.epochs.epoch(at: start) ?? (log.latestEpoch == nil ? leadership.leaderEpoch : -1)
                return .success(LogPosition(offset: start, timestamp: -1, leaderEpoch: epoch))
            case .latest:
                return .success(LogPosition(offset: limit, timestamp: -1, leaderEpoch: leadership.leaderEpoch))
            case .highestTimestamp, .time:
                do throws(LogError) {
                    return .success(try search(place, limit: limit))
                } catch {
                    logger.error("a lookup failed", ("partition", id.description), ("reason", "\(error)"))
                    failure = error
                    return .failure(error.isDamage ? .kafkaStorageError : error.code)
                }
            }
        }
    }

    private func search(_ place: LogPlace, limit: Offset) throws(LogError) -> LogPosition? {
        // made for each lookup: they are rare, and the codecs' memory need not be kept with every partition
        var search = TimeSearch(contexts: CodecContexts())
        let found: TimestampedOffset?
        if case .time(let timestamp) = place {
            found = try log.firstOffset(atOrAfter: timestamp, limit: limit, &search)
        } else {
            found = try log.offsetOfMaxTimestamp(&search)
        }
        return found.flatMap { $0.offset < limit ? $0 : nil }.map { LogPosition(offset: $0.offset, timestamp: $0.timestamp, leaderEpoch: $0.leaderEpoch) }
    }

    /// Where a leader epoch ends. An epoch that is not known has none: -1 and -1.
    package func epochEnd(of epoch: LeaderEpoch, currentLeaderEpoch: LeaderEpoch) -> Result<EpochEnd, ErrorCode> {
        lock.withLock {
            let fault = leadershipFault(currentLeaderEpoch: currentLeaderEpoch)
            guard fault == .none else { return .failure(fault) }
            if epoch == leadership.leaderEpoch { return .success(EpochEnd(epoch: epoch, endOffset: log.logEndOffset)) }
            guard let end = log.endOffset(for: epoch) else {
                return .success(EpochEnd(epoch: -1, endOffset: -1))
            }
            return .success(EpochEnd(epoch: end.epoch, endOffset: end.endOffset))
        }
    }

    /// Moves the log's start up; the new start. Durable when the directory's log starts are written (`keepLogStarts`).
    package func deleteRecords(before offset: Offset) -> Result<Offset, ErrorCode> {
        lock.withLock {
            let fault = leadershipFault(currentLeaderEpoch: -1)
            guard fault == .none else { return .failure(fault) }
            guard config.cleanupPolicy.contains(.delete) else { return .failure(.policyViolation) }
            let target = offset == -1 ? leadership.highWatermark : offset
            guard target >= 0, target <= leadership.highWatermark else { return .failure(.offsetOutOfRange) }
            do throws(LogError) {
                try log.advanceLogStart(to: target)
                return .success(log.logStartOffset)
            } catch {
                if error.takesDirectoryOffline { directory.writeFailed(error, id) }
                return .failure(error.code)
            }
        }
    }
}
