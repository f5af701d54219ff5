package import MartletModel
package import MartletReactor

extension PartitionLog {
    /// Whether anything was written since the last take.
    package var hasUnsynced: Bool {
        activeIsUnsynced || !unsyncedFiles.isEmpty || !unsyncedFolders.isEmpty || epochFile == .changed
    }

    /// Takes over what was written and published since the last call; nil where nothing was. The caller syncs the files
    /// and folders and says `synced` or `syncFailed` before it takes again. Throws where the disk has failed, now or in
    /// something that was put off since the last call; of an error that passes, what was to be taken stays.
    package func takeUnsynced() throws(LogError) -> UnsyncedWrites? {
        guard case .open = condition, hasUnsynced else { return nil }
        keepRoomAhead()
        if let refusal { throw refusal }
        return try collectUnsynced()
    }

    /// What the disk refused beside an append is tried again later, or done without, where the refusal passes. Otherwise the
    /// disk has failed as much as under an append, and whoever syncs the log next is told.
    func postpone(_ error: LogError, _ what: String? = nil) {
        if !error.passes { refusal = refusal ?? error }
        if let what { logger.warning(what, ("partition", "\(partition)"), ("reason", "\(error)")) }
    }

    private func collectUnsynced() throws(LogError) -> UnsyncedWrites {
        if activeIsUnsynced {
            // segments that wait for their index files were written to as well
            for index in (segments.count - 1 - unsealedCount)..<segments.count {
                unsyncedFiles.append(try segments[index].file(files))
            }
            activeIsUnsynced = false
        }
        switch epochFile {
        case .changed, .begun:
            let file = try files.open(epochPath + ".tmp", .truncate)
            try files.write(epochs.encode(), to: file, at: 0)
            unsyncedFiles.append(file)
            epochFile = .written
        case .renamed:
            epochFile = .settling
        case .saved, .written, .settling:
            break
        }
        defer {
            unsyncedFiles = []
            unsyncedFolders = []
            unsyncedBytes = 0
            sealedUnsynced = nil
        }
        return UnsyncedWrites(
            files: unsyncedFiles, folders: unsyncedFolders, endOffset: offsets.logEnd, generation: generation,
            bytes: unsyncedBytes, records: Int(offsets.logEnd - offsets.durable))
    }

    /// What was taken is durable. A truncation since then has made its end meaningless, and it is ignored.
    ///
    /// Where `hasUnsynced` is true afterwards, another cycle is wanted (nothing waits for it but the recovery point).
    package func synced(_ writes: UnsyncedWrites) {
        settleEpochFile()
        guard writes.generation == generation, case .open = condition else { return }
        precondition(writes.endOffset <= offsets.logEnd, "what is durable was published")
        let durable = max(offsets.durable, writes.endOffset)
        var safe = durable
        // recovery makes the epochs and the indexes anew above the recovery point only: it waits for their files
        if epochFile != .saved, epochFile != .begun { safe = offsets.recoveryPoint }
        if unsealedCount > 0 { safe = min(safe, segments[segments.count - 1 - unsealedCount].baseOffset) }
        if let sealedUnsynced { safe = min(safe, sealedUnsynced) }
        offsets.set(recoveryPoint: max(offsets.recoveryPoint, safe), durable: durable)
    }

    private func settleEpochFile() {
        switch epochFile {
        case .written:
            do throws(LogError) {
                try files.rename(epochPath + ".tmp", to: epochPath)
                noteFolderChanged()
                epochFile = .renamed
            } catch {
                postpone(error, "the leader epochs are not saved yet, and will be tried again")
                epochFile = .changed
            }
        case .settling:
            epochFile = .saved
        case .saved, .begun, .changed, .renamed:
            break
        }
    }

    /// Nothing of what was taken may be assumed durable, now or after a later success: the log takes no more records
    /// until it is opened again.
    package func syncFailed(_ writes: UnsyncedWrites, _ error: SystemError) {
        breakDown("what was appended up to offset \(writes.endOffset) could not be synced: \(error)")
    }

    /// A new leader begins at the log's end.
    package func beginEpoch(_ epoch: LeaderEpoch) throws(LogError) {
        try requireOpen()
        precondition(!hasReservations, "an epoch begins between appends")
        let isFirst = epochs.isEmpty
        guard epochs.assign(epoch: epoch, startOffset: offsets.logEnd) else { return }
        // the first is written at once, as Kafka has it: a log without any epoch is one of an older Kafka
        epochFile = !isFirst && (epochFile == .saved || epochFile == .begun) ? .begun : .changed
    }

    /// Forgets producers that were silent for as long as that (`producer.id.expiration.ms`) and have no transaction
    /// open.
    package func expireProducers(now: Int64, olderThanMs: Int64) {
        producers.removeExpired(now: now, olderThanMs: olderThanMs)
    }

    /// Ends the log's work. Cleanly: the index files are completed, a producer snapshot stands at the end, everything
    /// is synced, and the recovery point is the end, so that the next start scans nothing. Otherwise everything is left
    /// as a crash would. No write may be under way. Where a clean close throws, the log is closed all the same, and not
    /// cleanly.
    package func close(clean: Bool) throws(LogError) {
        if case .closed = condition { return }
        precondition(inFlight == nil, "a log is closed between writes")
        defer { end() }
        guard clean else { return }
        let writes = try settle()
        try onDisk { () throws(SystemError) in
            for file in writes.files { try file.sync() }
            for folder in writes.folders { try disk.syncDirectory(folder) }
        }
        try noteSettled(writes)
    }

    /// The first half of a clean close, for who closes many logs and syncs them all at once: what has to be on the disk
    /// before `finishClose`. Nothing is appended in between. Where it throws, the log is closed, and not cleanly.
    package func beginClose() throws(LogError) -> UnsyncedWrites {
        precondition(inFlight == nil, "a log is closed between writes")
        do throws(LogError) { return try settle() } catch {
            end()
            throw error
        }
    }

    /// The second half. Where it throws, the log is closed all the same, and not cleanly.
    package func finishClose(_ writes: UnsyncedWrites) throws(LogError) {
        defer { end() }
        try noteSettled(writes)
    }

    private func end() {
        for segment in segments {
            segment.close()
            segment.forgetFiles(files)
        }
        condition = .closed
    }

    /// Writes all that a clean close wants to be on the disk.
    private func settle() throws(LogError) -> UnsyncedWrites {
        try requireOpen()
        try settleSwap()
        try writeReserved()
        sealSegments()
        if let refusal { throw refusal }
        guard unsealedCount == 0 else {
            throw .directoryOffline(path: folder, reason: "the index of a segment could not be written")
        }
        try writeSnapshot(at: offsets.logEnd)
        unsyncedFiles += try active.completeIndexes(files)
        try active.removeRoom(files)
        activeIsUnsynced = true
        if epochFile != .saved, epochFile != .begun {
            let bytes = epochs.encode()
            try onDisk { () throws(SystemError) in try disk.replace(epochPath, with: bytes) }
            epochFile = .saved
        }
        return try collectUnsynced()
    }

    private func noteSettled(_ writes: UnsyncedWrites) throws(LogError) {
        try requireOpen()
        synced(writes)
        offsets.set(recoveryPoint: offsets.logEnd, durable: offsets.logEnd)
        try removeStraySnapshots()
    }
}

/// How far `leader-epoch-checkpoint` is behind the history in memory. It is written beside, synced with the next cycle,
/// renamed after it, and the name is synced with the one after that: no sync is waited for under the log's lock.
enum EpochFile {
    /// Can become *changed*, or *begun*.
    case saved
    /// An epoch has begun that has no record yet. It is written together with its first one: until then nothing says more
    /// than the epoch before does, and a broker that begins to lead ten thousand idle partitions writes no files. Can
    /// become *written*, by a take, or *changed*.
    case begun
    /// Can become *written*, by a take.
    case changed
    /// Lies beside, and is being synced. Can become *renamed*, or *changed* again.
    case written
    /// Can become *settling*, by a take, or *changed*.
    case renamed
    /// The name is being synced. Can become *saved*, or *changed*.
    case settling
}
