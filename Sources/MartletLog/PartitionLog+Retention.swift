package import MartletModel
internal import MartletReactor

/// Segments that left the log. Their files are called `.deleted` now; readers that have them open read on. Whoever gets
/// this removes the files after `file.delete.delay.ms`; a start finishes what did not come to it.
package struct RemovedSegments: Sendable {
    package enum Reason: Sendable { case time, size, logStart }

    package var baseOffsets: [Offset] = []
    package var reason: Reason
    package var bytes: Int64 = 0
    /// Files to be removed later.
    package var paths: [String] = []
}

extension PartitionLog {
    /// Moves the log's start up (DeleteRecords, or a follower's leader); whole segments below it go with the next
    /// `applyRetention`. False where the log starts there or later already.
    @discardableResult
    package func advanceLogStart(to offset: Offset) throws(LogError) -> Bool {
        try requireOpen()
        guard offset > offsets.logStart else { return false }
        guard offset <= offsets.logEnd else {
            throw .offsetOutOfRange(offset: offset, start: offsets.logStart, end: offsets.logEnd)
        }
        offsets.set(
            logStart: offset, recoveryPoint: max(offsets.recoveryPoint, offset), durable: max(offsets.durable, offset))
        if epochs.truncateFromStart(offset) { epochFile = .changed }
        producers.advanceLogStart(to: offset)
        return true
    }

    /// Takes the segments out of the log that retention gives up: by the age of their youngest record, by the size of
    /// the log, or because they lie below the log's start. Nothing above the high watermark goes, and age and size only
    /// where `cleanup.policy` has `delete`.
    package func applyRetention(now: Int64, highWatermark: Offset) throws(LogError) -> [RemovedSegments] {
        try requireOpen()
        // segments that are being exchanged have other names: the next look is soon enough
        guard swap == nil else { return [] }
        var removed: [RemovedSegments] = []
        if config.cleanupPolicy.contains(.delete) {
            if let old = try removeOld(now, highWatermark) { removed.append(old) }
            if let excess = try removeExcess(highWatermark) { removed.append(excess) }
        }
        let start = offsets.logStart
        let below = countOfFirst(highWatermark) { index in
            index + 1 < segments.count && segments[index + 1].baseOffset <= start
        }
        if let dropped = try remove(first: below, .logStart) { removed.append(dropped) }
        return removed
    }

    private func removeOld(_ now: Int64, _ highWatermark: Offset) throws(LogError) -> RemovedSegments? {
        guard config.retentionMs >= 0 else { return nil }
        var ages: [Int64] = []
        for segment in segments {
            var (age, overflow) = now.subtractingReportingOverflow(try timestampForRetention(segment))
            if !overflow, age > config.retentionMs, !segment.isLargestConfirmed {
                // what a damaged index says of its age must not take it
                try confirmLargest(of: ages.count)
                (age, overflow) = now.subtractingReportingOverflow(try timestampForRetention(segment))
            }
            ages.append(overflow ? 0 : age)
            if age <= config.retentionMs { break }
        }
        let count = countOfFirst(highWatermark) { index in index < ages.count && ages[index] > config.retentionMs }
        return try remove(first: count, .time)
    }

    func timestampForRetention(_ segment: LogSegment) throws(LogError) -> Int64 {
        if let largest = segment.largest, largest.timestamp >= 0 { return largest.timestamp }
        return try files.status(segment.path(.log))?.modifiedMilliseconds ?? segment.createdMilliseconds
    }

    private func removeExcess(_ highWatermark: Offset) throws(LogError) -> RemovedSegments? {
        guard config.retentionBytes >= 0 else { return nil }
        var excess = size - config.retentionBytes
        let count = countOfFirst(highWatermark) { index in
            guard excess >= Int64(segments[index].size) else { return false }
            excess -= Int64(segments[index].size)
            return true
        }
        return try remove(first: count, .size)
    }

    /// How many of the first segments may go: all below the high watermark, and the last only where it holds something.
    private func countOfFirst(_ highWatermark: Offset, _ mayGo: (Int) -> Bool) -> Int {
        var count = 0
        while count < segments.count {
            let isLast = count == segments.count - 1
            guard !isLast || active.size > 0, upperBound(count) <= highWatermark, mayGo(count) else { break }
            count += 1
        }
        return count
    }

    private func remove(first count: Int, _ reason: RemovedSegments.Reason) throws(LogError) -> RemovedSegments? {
        guard count > 0 else { return nil }
        if count == segments.count {
            // the log always has a segment to write to
            guard !hasReservations else { return try remove(first: count - 1, reason) }
            try roll(at: offsets.logEnd)
        }
        guard count <= segments.count - 1 - unsealedCount else { return nil }
        let start = max(offsets.logStart, segments[count].baseOffset)
        try advanceLogStart(to: start)
        var removed = RemovedSegments(reason: reason)
        for _ in 0..<count {
            let segment = segments[0]
            segment.forgetFiles(files)
            for kind in SegmentFile.allCases where try files.status(segment.path(kind)) != nil {
                let path = segment.path(kind) + SegmentFile.deletedSuffix
                try files.rename(segment.path(kind), to: path)
                removed.paths.append(path)
            }
            segments.removeFirst()
            noteFolderChanged()
            removed.baseOffsets.append(segment.baseOffset)
            removed.bytes += Int64(segment.size)
        }
        activity.note(removed)
        logger.info(
            "segments leave the log", ("partition", "\(partition)"), ("count", "\(count)"),
            ("bytes", "\(removed.bytes)"),
            ("reason", "\(reason)"), ("logStart", "\(offsets.logStart)"))
        return removed
    }
}
