package import MartletModel
internal import MartletReactor

extension PartitionLog {
    /// Drops everything at or above an offset; the log's new end, which is lower than asked where a batch reaches over
    /// the offset.
    ///
    /// What was durable may be above the new end: whoever keeps a durable lower bound on the disk lowers it **before**,
    /// or the next recovery takes the cut for damage. Nothing may be reserved.
    @discardableResult
    package func truncate(to offset: Offset) throws(LogError) -> Offset {
        try requireOpen()
        precondition(!hasReservations, "a log with writes under way is not truncated")
        try settleSwap()
        guard offset < offsets.logEnd else {
            // an epoch that began at the end and wrote nothing goes all the same: another leader wrote there
            if epochs.truncateFromEnd(offsets.logEnd) { epochFile = .changed }
            return offsets.logEnd
        }
        guard offset >= offsets.logStart else {
            try truncateFully(startingAt: max(offset, 0))
            return offsets.logEnd
        }
        let (index, place, end) = try findCut(offset)
        guard end >= offsets.logStart else {
            // the log starts inside the batch that goes
            try truncateFully(startingAt: offsets.logStart)
            return offsets.logEnd
        }
        generation += 1
        lowerEnd(to: end)
        do throws(LogError) {
            try removeSegments(from: index + 1)
            try activateLast()
            if let place { try active.truncate(to: place.position, nextOffset: end, files) }
            try removeSnapshots { $0 > end }
            if !producers.truncate(to: end) { try reloadProducers(before: end) }
        } catch {
            breakDown("a truncation to \(end) was not completed: \(error)")
            throw error
        }
        recent.removeAll()
        activeIsUnsynced = true
        if epochs.truncateFromEnd(end) { epochFile = .changed }
        return end
    }

    /// Where `truncate(to:)` would let the log end: what a lower bound on the disk must be lowered to before.
    package func endAfterTruncating(to offset: Offset) throws(LogError) -> Offset {
        guard offset < offsets.logEnd else { return offsets.logEnd }
        guard offset >= offsets.logStart else { return max(offset, 0) }
        return max(try findCut(offset).end, offsets.logStart)
    }

    private func findCut(_ offset: Offset) throws(LogError) -> (segment: Int, place: BatchPlace?, end: Offset) {
        let index = segmentIndex(of: offset)
        let place = try find(offset, in: index)
        // a compaction may have left nothing up to the offset: the log ends where a recovery would find its end
        let segmentEnd = try withSoundIndexes(of: index) { (segment) throws(LogError) in
            try segment.endOfBatches(before: place, files)
        }
        return (index, place, min(offset, segmentEnd))
    }

    /// Drops everything; the log begins again empty at the offset. As above, a durable lower bound on the disk is
    /// lowered before.
    ///
    /// A follower whose empty log starts inside its leader's first batch is refused it (`outOfOrder`): it starts again
    /// at that batch's base offset, and takes the leader's log start over afterwards.
    package func truncateFully(startingAt offset: Offset) throws(LogError) {
        try requireOpen()
        precondition(!hasReservations, "a log with writes under way is not truncated")
        try settleSwap()
        generation += 1
        do throws(LogError) {
            try removeSegments(from: 0)
            try removeSnapshots { _ in true }
            offsets = LogOffsets(logStart: offset, recoveryPoint: offset, durable: offset, logEnd: offset)
            reservedEnd = offset
            unsealedCount = 0
            try addSegment(at: offset)
        } catch {
            if segments.isEmpty { addPlaceholder(at: offset) }
            breakDown("a truncation to begin again at \(offset) was not completed: \(error)")
            throw error
        }
        recent.removeAll()
        producers.clear(startingAt: offset)
        epochs.clear()
        epochFile = .changed
    }

    private func lowerEnd(to end: Offset) {
        offsets = LogOffsets(
            logStart: offsets.logStart, recoveryPoint: min(offsets.recoveryPoint, end),
            durable: min(offsets.durable, end), logEnd: end)
        reservedEnd = end
    }

    /// A log that broke down has a segment too, without files.
    private func addPlaceholder(at offset: Offset) {
        let segment = LogSegment(baseOffset: offset, folder: folder, createdMilliseconds: 0, jitterMilliseconds: 0)
        segment.forget()
        segments.append(segment)
        offsets = LogOffsets(logStart: offset, recoveryPoint: offset, durable: offset, logEnd: offset)
        reservedEnd = offset
    }

    private func removeSegments(from index: Int) throws(LogError) {
        while segments.count > index {
            try removeFiles(of: segments.removeLast())
        }
    }

    /// Makes the last segment writable, which may have been closed.
    func activateLast() throws(LogError) {
        unsealedCount = segments.dropLast().reduce(0) { $0 + ($1.isActive ? 1 : 0) }
        guard !active.isActive else { return }
        guard try !active.activate(files) else { return }
        sayIndexMadeAnew(active, "it is missing or malformed")
        _ = try active.remakeIndexes(files, indexInterval: Int(config.indexIntervalBytes), staysActive: true)
    }
}
