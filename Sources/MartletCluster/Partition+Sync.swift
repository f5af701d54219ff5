package import MartletBasics
package import MartletLog
import MartletModel
package import MartletReactor

extension Partition {
    package func takeUnsynced() -> UnsyncedWrites? {
        lock.withLock {
            unsyncedSince = nil
            return log.takeUnsynced()
        }
    }

    package func synced(_ writes: UnsyncedWrites) {
        var effects = PartitionEffects()
        lock.withLock {
            guard offlineReason == nil else { return }
            log.synced(writes)
            durableMark.raise(to: log.durableOffset)
            while let waiter = durableWaiters.first, waiter.endOffset <= log.durableOffset {
                durableWaiters.popFirst()
                effects.complete(waiter, .none, logStartOffset: log.logStartOffset)
            }
            advanceHighWatermark(&effects)
        }
        effects.deliver()
        directory.durableRaised()
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
            effects.wake(watchers)
        }
        logger.error("partition offline", ("partition", id.description), ("reason", reason))
        effects.deliver()
    }

    /// `flush.ms`: asks for a sync if the oldest unsynced append has waited for that long. Called now and then.
    package func flushIfDue(now: Instant) {
        let isDue = lock.withLock {
            guard config.flushMs != .max, let since = unsyncedSince else { return false }
            return now - since >= .milliseconds(config.flushMs)
        }
        if isDue { directory.syncer.arm(self, urgent: true) }
    }
}
