import MartletBasics
package import MartletLog
import MartletModel
package import MartletReactor

extension Partition {
    package func takeUnsynced() -> UnsyncedWrites? {
        var refusal: LogError?
        let taken: UnsyncedWrites? = lock.withLock {
            guard offlineReason == nil else { return nil }
            do throws(LogError) {
                if let writes = try log.takeUnsynced() {
                    unsyncedSince = nil
                    return writes
                }
            } catch { refusal = error }
            mustRetrySync = log.hasUnsynced
            if mustRetrySync { beginTimed() }
            return nil
        }
        if let refusal { directory.refused(refusal) { "what was appended to \(id) cannot be synced yet" } }
        return taken
    }

    package func synced(_ writes: UnsyncedWrites) {
        var effects = PartitionEffects()
        let mustGoOn = lock.withLock {
            guard offlineReason == nil else { return false }
            log.synced(writes)
            durableMark.raise(to: log.durableOffset)
            while let waiter = durableWaiters.first, waiter.endOffset <= log.durableOffset {
                durableWaiters.popFirst()
                effects.complete(waiter, .none, logStartOffset: log.logStartOffset)
            }
            // who reached `flush.messages` waits for this disk also where the high watermark does not
            if !advanceHighWatermark(&effects), leadership.isLeader { completeCommitted(&effects) }
            return log.hasUnsynced
        }
        effects.deliver()
        directory.durableRaised()
        // the file of leader epochs takes several cycles, and more may have been written meanwhile
        if mustGoOn { directory.syncer.arm(self, urgent: false) }
    }

    package func syncFailed(_ writes: UnsyncedWrites, _ error: SystemError) {
        goOffline("a sync failed: \(error)")
    }

    /// Serves nothing any more; who waits is told. The records that were written may or may not be on the disk.
    package func goOffline(_ reason: String) {
        var effects = PartitionEffects()
        lock.withLock {
            guard offlineReason == nil else { return }
            offlineReason = reason
            leadership.goOffline()
            failAllWaiters(.kafkaStorageError, &effects)
            abandonReservations(&effects)
            effects.wakeWatchers(of: self)
        }
        logger.error("partition offline", ("partition", id.description), ("reason", reason))
        effects.deliver()
        directory.partitionFailed()
    }
}
