import MartletBasics
package import MartletLog
import MartletModel

/// What a cleaner knows of a replica, and what it has done for it since the replica was opened.
package struct PartitionUpkeep: Sendable, Equatable {
    /// As the last look found it; nil before the first.
    package var cleanability: Cleanability?
    package var cleanings: UInt64 = 0
    /// Bytes of segments that were exchanged, less those that came in their place.
    package var savedBytes: Int64 = 0
    package var droppedRecords: Int64 = 0
    /// When the last one ended, in wall milliseconds; 0 before the first.
    package var lastCleaned: Int64 = 0
    /// Why it is not cleaned any more; nil where it is.
    package var fault: String?
}

extension Partition: CleaningAccess {
    package func withLog<R>(_ body: (PartitionLog) throws(LogError) -> R) throws(LogError) -> R {
        try lock.withLock { () throws(LogError) -> R in
            guard offlineReason == nil, !isMoving else { throw .closed("the log of \(id)") }
            return try body(log)
        }
    }

    /// Looks how much there is to clean; nil where its topic is not compacted, or it cannot be.
    func lookForCleaning(now: Int64) throws(LogError) -> Cleanability? {
        let cleanedUpTo = directory.cleanedUpTo(id)
        return try lock.withLock { () throws(LogError) -> Cleanability? in
            guard offlineReason == nil, !isMoving, config.cleanupPolicy.contains(.compact) else {
                upkeep.cleanability = nil
                return nil
            }
            let found = try log.cleanability(cleanedUpTo: cleanedUpTo, lastStable: lastStableOffset, now: now)
            upkeep.cleanability = found
            return found
        }
    }

    func planCleaning(now: Int64) throws(LogError) -> CleaningPlan? {
        let cleanedUpTo = directory.cleanedUpTo(id)
        return try withLog { (log) throws(LogError) in
            try log.planCleaning(cleanedUpTo: cleanedUpTo, lastStable: lastStableOffset, now: now)
        }
    }

    /// A cleaning has come to its end: what is below its end offset need not be looked at again. Nothing is said of a log
    /// that went back meanwhile.
    func cleaned(_ cleaning: LogCleaning, now: Int64) throws(LogError) {
        let token = lock.withLock { () -> UInt64? in
            guard cleaning.plan.isOf(log) else { return nil }
            upkeep.cleanings += 1
            upkeep.savedBytes += cleaning.figures.oldBytes - cleaning.figures.newBytes
            upkeep.droppedRecords += cleaning.figures.droppedRecords
            upkeep.lastCleaned = now
            return directory.loweringsSoFar
        }
        if let token { try directory.noteCleaned(id, upTo: cleaning.endOffset, unlessLoweredSince: token) }
    }

    /// It is not cleaned any more until its log goes back, or the replica is opened again.
    func noteUncleanable(_ reason: String) {
        lock.withLock {
            upkeep.fault = reason
            uncleanableGeneration = log.generation
        }
    }

    var isUncleanable: Bool {
        lock.withLock {
            if upkeep.fault != nil, uncleanableGeneration != log.generation { upkeep.fault = nil }
            return upkeep.fault != nil
        }
    }
}
