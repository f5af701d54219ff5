package import MartletModel
package import MartletReactor

extension PartitionLog {
    /// Rolled segments whose files wait for a sync, at the most; with more, the next take is late, and says so in the log.
    static let unsyncedFilesWarning = 1024

    /// Whether anything was written since the last take.
    package var hasUnsynced: Bool { activeIsUnsynced || !unsyncedFiles.isEmpty || !unsyncedFolders.isEmpty || epochsChanged }

    /// Takes over what was written and published since the last call; nil where nothing was. The caller syncs the files and folders and
    /// says `synced` or `syncFailed`.
    package func takeUnsynced() -> UnsyncedWrites? {
        guard case .open = condition, hasUnsynced else { return nil }
        do throws(LogError) {
            // recovery makes the history anew from batches above the recovery point: it must lie on the disk before that moves on
            if epochsChanged { try writeEpochs() }
            if activeIsUnsynced {
                unsyncedFiles.append(try active.file(files))
                activeIsUnsynced = false
            }
        } catch {
            logger.warning(
                "what was appended cannot be synced yet", ("partition", "\(partition)"), ("reason", "\(error)"))
            return nil
        }
        defer {
            unsyncedFiles = []
            unsyncedFolders = []
            unsyncedBytes = 0
        }
        return UnsyncedWrites(
            files: unsyncedFiles, folders: unsyncedFolders, endOffset: offsets.logEnd, generation: generation, bytes: unsyncedBytes)
    }

    /// What was taken is durable. A truncation since then has made its end meaningless, and it is ignored.
    package func synced(_ writes: UnsyncedWrites) {
        guard writes.generation == generation else { return }
        precondition(writes.endOffset <= offsets.logEnd, "what is durable was published")
        let durable = max(offsets.durable, writes.endOffset)
        // the indexes of segments that are not complete would be missing below the recovery point
        var safe = durable
        if unsealedCount > 0 {
            let firstUnsealed = segments[segments.count - 1 - unsealedCount]
            safe = min(durable, max(firstUnsealed.baseOffset, offsets.recoveryPoint))
        }
        offsets.set(recoveryPoint: max(offsets.recoveryPoint, safe), durable: durable)
    }

    /// Nothing of what was taken may be assumed durable, now or after a later success: the log takes no more records until it is opened again.
    package func syncFailed(_ writes: UnsyncedWrites, _ error: SystemError) {
        breakDown("what was appended up to offset \(writes.endOffset) could not be synced: \(error)")
    }

    /// A new leader begins at the log's end.
    package func beginEpoch(_ epoch: LeaderEpoch) throws(LogError) {
        try requireOpen()
        guard epochs.assign(epoch: epoch, startOffset: offsets.logEnd) else { return }
        epochsChanged = true
        try writeEpochs()
    }

    func writeEpochs() throws(LogError) {
        let bytes = epochs.encode()
        try onDisk { () throws(SystemError) in try disk.replace(epochPath, with: bytes) }
        epochsChanged = false
    }

    /// Ends the log's work. Cleanly: the index files are completed, a producer snapshot stands at the end, everything is synced, and the
    /// recovery point is the end, so that the next start scans nothing. Otherwise everything is left as a crash would.
    package func close(clean: Bool) throws(LogError) {
        if case .closed = condition { return }
        if clean {
            try requireOpen()
            try writeReserved()
            sealSegments()
            guard unsealedCount == 0 else {
                throw .directoryOffline(path: folder, reason: "the index of a segment could not be written")
            }
            try removeSnapshots { $0 == offsets.logEnd }
            try writeSnapshot(at: offsets.logEnd)
            unsyncedFiles += try active.completeIndexes(files)
            if let writes = takeUnsynced() {
                let disk = disk
                try onDisk { () throws(SystemError) in
                    for file in writes.files { try file.sync() }
                    for folder in writes.folders { try disk.syncDirectory(folder) }
                }
                synced(writes)
            }
            offsets.set(recoveryPoint: offsets.logEnd, durable: offsets.logEnd)
        }
        for segment in segments { segment.close() }
        condition = .closed
    }
}
