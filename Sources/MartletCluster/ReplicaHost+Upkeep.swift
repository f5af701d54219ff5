import MartletBasics
package import MartletLog
import MartletModel
import MartletReactor

/// What a broker does for its logs beside serving them: retention, checkpoints, the files that wait to be deleted, the
/// orderly end.
extension ReplicaHost {
    private static let timedCheckInterval = Interval.milliseconds(100)
    private static let postponedCheckInterval = Interval.seconds(5)

    func startUpkeep() {
        repeatedly(Self.timedCheckInterval) { host in
            for unit in host.units { unit.timed.look(now: host.clock.now) }
        }
        repeatedly(Self.postponedCheckInterval) { host in if !host.postponed.isEmpty { host.onAvailability?() } }
        repeatedly(config.retentionCheckInterval, first: min(config.firstTaskDelay, config.retentionCheckInterval)) { host in
            host.applyRetention()
        }
        repeatedly(config.highWatermarkCheckpointInterval) { $0.checkpoint(.highWatermark) }
        repeatedly(config.recoveryPointCheckpointInterval) { $0.checkpoint(.recoveryPoint) }
        repeatedly(config.logStartCheckpointInterval) { $0.checkpoint(.logStart) }
        repeatedly(.milliseconds(config.settings.int64("producer.id.expiration.check.interval.ms"))) { host in
            let now = host.clock.wallMilliseconds
            for partition in host.topics.table.partitions {
                partition.removeExpiredProducers(now: now, olderThanMs: host.config.producerIDExpiration.milliseconds)
            }
        }
        removeLeftovers()
        cleaner.start()
    }

    private func repeatedly(_ interval: Interval, first: Interval? = nil, _ work: @escaping @Sendable (ReplicaHost) -> Void) {
        host.loops[0].schedule(after: first ?? interval) { [weak self] in
            guard let self, !isClosed else { return }
            work(self)
            repeatedly(interval, work)
        }
    }

    // MARK: Retention and deletion

    private func applyRetention() {
        let now = clock.wallMilliseconds
        for partition in topics.table.partitions {
            do throws(LogError) {
                let paths = try partition.applyRetention(now: now)
                removeLater(paths, after: .milliseconds(partition.topicConfig.fileDeleteDelayMs))
            } catch {
                logger.error("retention failed", ("partition", partition.id.description), ("reason", "\(error)"))
                if error.takesDirectoryOffline { partition.directory.failed(error) }
            }
        }
    }

    /// Removes files or folders on the lane when the delay is over: a reader may still be at them.
    func removeLater(_ paths: [String], after delay: Interval) {
        guard !paths.isEmpty else { return }
        host.loops[0].schedule(after: delay) { [weak self] in self?.removeNow(paths) }
    }

    private func removeNow(_ paths: [String]) {
        guard !isClosed else { return }
        let (disk, logger) = (host.disk, logger)
        let queued = bulk.submit(
            {
                for path in paths {
                    do throws(SystemError) { try disk.removeTree(path) } catch {
                        logger.warning("a deleted file could not be removed", ("path", path), ("reason", "\(error)"))
                    }
                }
            }, on: host.loops[0], then: {})
        if !queued { removeLater(paths, after: .seconds(1)) }
    }

    /// Folders that an earlier run marked as deleted. While a directory is missing they stay: it may have the copy
    /// that replaces one.
    private func removeLeftovers() {
        removeLater(abandonedCopies, after: .zero)
        guard units.count == config.logDirs.count else { return }
        for unit in units {
            let paths = unit.directory.found.partitions.filter { $0.kind == .deleted }.map { unit.path + "/" + $0.name }
            removeLater(paths, after: .milliseconds(config.topics.defaults.fileDeleteDelayMs))
        }
    }

    // MARK: Checkpoints

    private static func offsets(_ checkpoint: LogDirectory.Checkpoint, of partitions: [Partition]) -> OffsetCheckpoint {
        var offsets = OffsetCheckpoint()
        for partition in partitions {
            switch checkpoint {
            case .recoveryPoint: offsets[partition.id] = partition.recoveryPoint
            case .highWatermark: offsets[partition.id] = partition.highWatermark
            case .logStart: offsets[partition.id] = partition.logStartToRemember
            case .cleaner: preconditionFailure("what was cleaned is the cleaner's to say")
            }
        }
        return offsets
    }

    /// Of a unit's partitions; also those that are offline alone, whose rows must not be lost.
    static func write(_ checkpoint: LogDirectory.Checkpoint, _ unit: LogDirectoryUnit, _ topics: LocalTopics) -> LogError? {
        do throws(LogError) {
            try unit.write(checkpoint) {
                offsets(checkpoint, of: topics.table.partitions.filter { $0.directory === unit })
            }
            return nil
        } catch {
            return error
        }
    }

    package func keepLogStarts(in unit: LogDirectoryUnit) async -> LogError? {
        guard !host.planted.contains(.unwrittenLogStart) else { return nil }
        let topics = topics
        do throws(LogError) {
            let error = try await onBulk { () -> LogError? in
                do throws(LogError) {
                    let isWritten = try unit.write(.logStart) {
                        Self.offsets(.logStart, of: topics.table.partitions.filter { $0.directory === unit })
                    }
                    return isWritten ? nil : .refused(.kafkaStorageError, "logs in \(unit.path) are being cut")
                } catch {
                    return error
                }
            }
            if let error, error.passes || error.takesDirectoryOffline {
                unit.refused(error) { "where logs begin could not be written" }
            }
            return error
        } catch {
            return error
        }
    }

    private func checkpoint(_ checkpoint: LogDirectory.Checkpoint) {
        for unit in units where !unit.directory.isOffline {
            let topics = topics
            let queued = bulk.submit(
                { Self.write(checkpoint, unit, topics) }, on: host.loops[0],
                then: { error in
                    if let error { unit.refused(error) { "the checkpoint \(checkpoint.rawValue) could not be written" } }
                })
            if !queued { logger.warning("a checkpoint is late: the lane is full", ("file", checkpoint.rawValue)) }
        }
    }

    // MARK: The end

    /// Closes every log, writes the checkpoints and says in each directory that nothing need be recovered.
    package func close() async {
        guard !isClosed else { return }
        isClosed = true
        // a swap that has begun ends soon, in one directory or the other; a copy ends with what is being copied
        while runningMoves > 0 || cleaner.isWorking { await host.loops[0].sleep(for: Self.moveCheckInterval) }
        await keepWishes()
        let (units, topics, disk, logger) = (units, topics, host.disk, logger)
        let ended: Void? = try? await onBulk {
            for unit in units { Self.close(unit, topics, disk, logger) }
        }
        // the lane took nothing any more
        if ended == nil { for unit in units { unit.directory.close() } }
    }

    /// More logs than this are synced by one sync of the file system: file by file ten thousand of them take minutes.
    private static let closedOneByOneLimit = 64

    private static func stopOneByOne(_ partitions: [Partition]) -> [String] {
        var faults: [String] = []
        for partition in partitions {
            do throws(LogError) { try partition.stop(clean: true) } catch { faults.append("\(partition.id): \(error)") }
        }
        return faults
    }

    private static func stopAtOnce(_ partitions: [Partition], _ unit: LogDirectoryUnit, _ disk: any Disk) -> [String] {
        var faults: [String] = []
        var written: [(partition: Partition, writes: UnsyncedWrites)] = []
        for partition in partitions {
            do throws(LogError) {
                guard var writes = try partition.beginStop() else { continue }
                // the file system syncs also those that are closed, and nobody can have so many open
                writes.files = []
                written.append((partition, writes))
            } catch {
                faults.append("\(partition.id): \(error)")
            }
        }
        var isSynced = true
        do throws(SystemError) { try disk.syncFileSystem(unit.path) } catch {
            isSynced = false
            faults.append("\(error)")
        }
        for (partition, writes) in written {
            do throws(LogError) { try partition.finishStop(writes, isSynced: isSynced) } catch {
                faults.append("\(partition.id): \(error)")
            }
        }
        return faults
    }

    /// On a lane. The marker of a clean stop speaks for all that lies in the directory: one replica that was not closed
    /// cleanly, or was found after an unclean stop and never opened, and there is none.
    private static func close(_ unit: LogDirectoryUnit, _ topics: LocalTopics, _ disk: any Disk, _ logger: Logger) {
        let partitions = topics.table.partitions.filter { $0.directory === unit }
        var faults: [String] = []
        if !unit.isEveryClosedReplicaClean { faults.append("a replica is there that was not opened since an unclean stop") }
        for partition in partitions where partition.isOffline { faults.append("\(partition.id) is offline") }
        faults += partitions.count > closedOneByOneLimit ? stopAtOnce(partitions, unit, disk) : stopOneByOne(partitions)
        do throws(LogError) {
            for checkpoint in [LogDirectory.Checkpoint.recoveryPoint, .highWatermark, .logStart] {
                try unit.write(checkpoint) { offsets(checkpoint, of: partitions) }
            }
            if faults.isEmpty { try unit.directory.closeCleanly(brokerEpoch: -1) }
        } catch {
            faults.append("\(error)")
        }
        unit.directory.close()
        guard let reason = faults.first else { return }
        logger.error(
            "a log directory was not closed cleanly: the next start recovers it", ("directory", unit.path), ("reason", reason),
            ("faults", "\(faults.count)"))
    }
}
