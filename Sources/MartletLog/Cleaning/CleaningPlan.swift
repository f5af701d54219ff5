package import MartletModel
internal import MartletReactor

/// How much of a log a cleaning would go through, as Kafka reckons it.
package struct Cleanability: Equatable, Sendable {
    /// The first offset that no cleaning has looked at.
    package var firstDirty: Offset
    /// Nothing at or above it may be cleaned yet.
    package var firstUncleanable: Offset
    /// Bytes of the segments before the first dirty offset, and of those up to the first that is uncleanable.
    package var cleanBytes: Int64
    package var cleanableBytes: Int64
    /// For how long something has been there that `max.compaction.lag.ms` wants cleaned; 0 where nothing has.
    package var overdueMs: Int64

    /// The share of what would be read that no cleaning has looked at.
    package var dirtyRatio: Double {
        let total = cleanBytes + cleanableBytes
        return total > 0 ? Double(cleanableBytes) / Double(total) : 0
    }

    /// Whether `min.cleanable.dirty.ratio`, or the lag, asks for a cleaning.
    package func isDue(minimumRatio: Double) -> Bool {
        guard cleanableBytes > 0 else { return false }
        return overdueMs > 0 || dirtyRatio > minimumRatio
    }
}

/// A segment as a cleaning means to read it. None of its files changes any more, unless the log goes back.
struct PlannedSegment {
    let segment: LogSegment
    let baseOffset: Offset
    /// Where the next one begins.
    let endOffset: Offset
    let size: Int
    let transactions: TransactionIndex
}

/// What one cleaning is to do, as decided under the log's lock.
package struct CleaningPlan {
    package let partition: TopicPartition
    package let cleanability: Cleanability
    let folder: String
    let config: TopicConfig
    let files: LogFiles
    /// As they were: the log must not have gone back since.
    let generation: UInt64
    let segments: [PlannedSegment]
    /// Those of the segments that come after.
    let laterTransactions: [TransactionIndex]
    let lastOfProducers: [ProducerID: LastOfProducer]
    let nowMilliseconds: Int64
    let planted: PlantedBugs

    /// What must be on the disk of the recovery point before anything is exchanged: recovery takes no gaps above it.
    package var neededRecoveryPoint: Offset { segments.last?.endOffset ?? 0 }

    /// Whether it was made of this log, which has not gone back since. Under the log's lock.
    package func isOf(_ log: PartitionLog) -> Bool { log.generation == generation && log.folder == folder }
}

extension PartitionLog {
    /// Looks how much there is to clean.
    ///
    /// - Parameters:
    ///   - cleanedUpTo: the partition's row in the cleaner's checkpoint.
    ///   - lastStable: nothing at or above it is decided.
    package func cleanability(cleanedUpTo: Offset?, lastStable: Offset, now: Int64) throws(LogError) -> Cleanability {
        try requireOpen()
        var firstDirty = cleanedUpTo ?? offsets.logStart
        // what was cleaned went, or is there no more: begin anew
        if firstDirty < offsets.logStart || firstDirty > offsets.logEnd { firstDirty = offsets.logStart }
        let first = segmentIndex(of: firstDirty)
        let limit = min(lastStable, offsets.recoveryPoint, segments[sealedCount].baseOffset)
        var uncleanable = segments[segmentIndex(of: limit)].baseOffset
        if config.minCompactionLagMs > 0 {
            for index in first..<max(first, sealedCount) where segments[index].baseOffset < uncleanable {
                guard try age(of: segments[index], now) < config.minCompactionLagMs else { continue }
                uncleanable = segments[index].baseOffset
            }
        }
        var found = Cleanability(
            firstDirty: firstDirty, firstUncleanable: max(uncleanable, segments[0].baseOffset), cleanBytes: 0,
            cleanableBytes: 0, overdueMs: 0)
        for index in segments.indices where segments[index].baseOffset < found.firstUncleanable {
            if index < first {
                found.cleanBytes += Int64(segments[index].size)
            } else {
                found.cleanableBytes += Int64(segments[index].size)
            }
        }
        found.overdueMs = try overdueMs(from: first, now)
        return found
    }

    /// Segments before this place are written to no more, and their indexes are complete.
    var sealedCount: Int { segments.count - 1 - unsealedCount }

    /// How long ago its youngest record was written.
    private func age(of segment: LogSegment, _ now: Int64) throws(LogError) -> Int64 {
        let (age, overflow) = now.subtractingReportingOverflow(try timestampForRetention(segment))
        return overflow ? .max : age
    }

    private func overdueMs(from first: Int, _ now: Int64) throws(LogError) -> Int64 {
        guard config.maxCompactionLagMs < .max else { return 0 }
        var earliest = Int64.max
        for index in first..<max(first, segments.count - 1) {
            if let timestamp = try segments[index].timestampOfFirstBatch(files), timestamp > 0 {
                earliest = min(earliest, timestamp)
            }
        }
        let (limit, overflow) = now.subtractingReportingOverflow(max(config.maxCompactionLagMs, 0))
        return overflow || earliest >= limit ? 0 : limit - earliest
    }

    /// Decides on a cleaning; nil where there is nothing to clean.
    package func planCleaning(cleanedUpTo: Offset?, lastStable: Offset, now: Int64) throws(LogError) -> CleaningPlan? {
        let cleanability = try cleanability(cleanedUpTo: cleanedUpTo, lastStable: lastStable, now: now)
        guard cleanability.cleanableBytes > 0, swap == nil else { return nil }
        let count = countOfSegments(below: cleanability.firstUncleanable)
        let planned = (0..<count).map { index in
            PlannedSegment(
                segment: segments[index], baseOffset: segments[index].baseOffset, endOffset: segments[index + 1].baseOffset,
                size: segments[index].size, transactions: segments[index].transactions)
        }
        return CleaningPlan(
            partition: partition, cleanability: cleanability, folder: folder, config: config, files: files,
            generation: generation, segments: planned,
            laterTransactions: segments[count...].map(\.transactions).filter { !$0.isEmpty },
            lastOfProducers: producers.lastOfProducers, nowMilliseconds: now, planted: planted)
    }

    private func countOfSegments(below offset: Offset) -> Int {
        min(partitionPoint(segments.count) { segments[$0].baseOffset < offset }, sealedCount)
    }
}
