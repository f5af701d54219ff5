import MartletBasics
package import MartletLog
package import MartletModel
import MartletReactor

extension Partition {
    /// Gives up what retention does not keep; the files to remove later.
    package func applyRetention(now: Int64) throws(LogError) -> [String] {
        let paths = try lock.withLock { () throws(LogError) -> [String] in
            guard offlineReason == nil else { return [] }
            let removed = try log.applyRetention(now: now, highWatermark: leadership.highWatermark)
            return removed.flatMap(\.paths)
        }
        // a power cut may else bring back what was deleted
        if !paths.isEmpty { directory.syncer.arm(self, urgent: false) }
        return paths
    }

    package func removeExpiredProducers(now: Int64, olderThanMs: Int64) {
        lock.withLock { log.expireProducers(now: now, olderThanMs: olderThanMs) }
    }

    /// Who wrote of late, as a leader remembers.
    package func describeProducers() -> Result<[ActiveProducer], ErrorCode> {
        lock.withLock {
            let fault = leadershipFault(currentLeaderEpoch: -1)
            return fault == .none ? .success(log.producers.active) : .failure(fault)
        }
    }

    /// The log's start, where it has one. Kafka leaves out what the first segment's name says; but a segment that went
    /// may be back after a power cut, and with it records that were deleted.
    package var logStartToRemember: Offset? {
        lock.withLock { log.logStartOffset > 0 ? log.logStartOffset : nil }
    }

    /// Ends the replica's work on this broker: who waits is told to look elsewhere. One that was offline is not closed
    /// cleanly: a sync failed, and another one that succeeds would mean nothing.
    package func stop(clean: Bool) throws(LogError) {
        var effects = PartitionEffects()
        let failure = lock.withLock { () -> LogError? in
            let clean = clean && offlineReason == nil
            endService(&effects)
            do throws(LogError) {
                try log.close(clean: clean)
                wasClosedCleanly = clean
                return nil
            } catch {
                return error
            }
        }
        effects.deliver()
        if let failure { throw failure }
    }

    /// The first half of a clean stop: what has to be on the disk before `finishStop`, which is the caller's to see to.
    /// Nil for one that was offline, or was stopped before.
    package func beginStop() throws(LogError) -> UnsyncedWrites? {
        var effects = PartitionEffects()
        let result = lock.withLock { () -> Result<UnsyncedWrites?, LogError> in
            let wasServing = offlineReason == nil
            endService(&effects)
            do throws(LogError) {
                if wasServing { return .success(try log.beginClose()) }
                try log.close(clean: false)
                return .success(nil)
            } catch {
                return .failure(error)
            }
        }
        effects.deliver()
        return try result.get()
    }

    /// The second half: whether what `beginStop` gave is on the disk.
    package func finishStop(_ writes: UnsyncedWrites, isSynced: Bool) throws(LogError) {
        try lock.withLock { () throws(LogError) in
            guard isSynced else { return try log.close(clean: false) }
            try log.finishClose(writes)
            wasClosedCleanly = true
        }
    }

    /// Under the lock.
    private func endService(_ effects: inout PartitionEffects) {
        if offlineReason == nil { offlineReason = "stopped" }
        leadership.goOffline()
        abandonReservations(&effects)
        failAllWaiters(.notLeaderOrFollower, &effects)
        effects.wakeWatchers(of: self)
    }

    // MARK: Moving to another log directory

    /// What can be copied of the log while it is in use, and how often it was cut or cleaned: what was copied before the
    /// next time may be in it no more. Nil where it is offline, and for the moments in which a cleaning exchanges files.
    func copyPlan() -> (extents: [SegmentExtent], generation: UInt64)? {
        lock.withLock { offlineReason == nil && !log.isExchanging ? (log.extents, log.generation &+ log.exchanges) : nil }
    }

    /// From now on nothing is appended. What the controller decided last; nil where nothing can be moved.
    func pause() -> PartitionLeadership.Assignment? {
        lock.withLock {
            guard offlineReason == nil, !log.isExchanging, let assignment = leadership.assignment else { return nil }
            isMoving = true
            movingSince = clock.now
            return assignment
        }
    }

    /// It is not replaced after all; where it was stopped for that, it is a replica that failed.
    func resume() {
        lock.withLock { isMoving = false }
        exchangeIsOver()
    }

    /// Whoever waited looks for the partition again: the copy is in its place, or it is what it was.
    func exchangeIsOver() {
        var effects = PartitionEffects()
        lock.withLock {
            isReplaced = isMoving
            while let waiter = exchangeWaiters.popFirst() { effects.complete(waiter, .none, logStartOffset: -1) }
        }
        effects.deliver()
    }

    /// Requests wait so long for an exchange; those that come later, or waited in vain, are told to look again.
    static let exchangeWaitLimit = Interval.seconds(10)

    /// Calls the owner when the replica has been exchanged for its copy in another log directory, or was not after all;
    /// false if there is nothing to wait for. Until the log is closed for it, only those who append have to wait.
    package func whenExchanged(_ owner: any AppendOwner, _ token: AppendToken, toAppend: Bool) -> Bool {
        lock.withLock {
            let deadline = movingSince + Self.exchangeWaitLimit
            guard isMoving, !isReplaced, toAppend || offlineReason != nil, clock.now < deadline else { return false }
            exchangeWaiters.append(
                AppendWaiter(owner: owner, token: token, endOffset: 0, deadline: deadline, needsLocalSync: false))
            beginTimed()
            return true
        }
    }

    /// Whether everybody who was promised something has it.
    var isSettled: Bool {
        lock.withLock {
            let nobodyWaits = writtenWaiters.isEmpty && committedWaiters.isEmpty && durableWaiters.isEmpty
            guard nobodyWaits, !log.hasReservations else { return false }
            return !leadership.isLeader || leadership.highWatermark == log.logEndOffset
        }
    }

    /// What has to be remembered of it once it is stopped.
    func asClosed(isClean: Bool) -> ClosedReplica {
        lock.withLock {
            ClosedReplica(
                recoveryPoint: log.recoveryPoint, highWatermark: leadership.highWatermark,
                logStart: log.logStartOffset > 0 ? log.logStartOffset : nil, isClean: isClean,
                durableBound: log.durableOffset)
        }
    }
}
