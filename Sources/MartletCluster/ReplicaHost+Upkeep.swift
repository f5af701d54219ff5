import MartletBasics
import MartletLog
import MartletModel
import MartletReactor

/// What a broker does for its logs beside serving them: retention, checkpoints, the files that wait to be deleted, the orderly end.
extension ReplicaHost {
    private static let waiterCheckInterval = Interval.milliseconds(100)
    private static let producerCheckInterval = Interval.seconds(600)
    /// Kafka waits as long before its first look at retention.
    private static let retentionFirstDelay = Interval.seconds(30)

    func startUpkeep() {
        repeatedly(Self.waiterCheckInterval) { host in
            let now = host.clock.now
            for partition in host.topics.table.partitions {
                partition.expireWaiters(now: now)
                partition.flushIfDue(now: now)
            }
        }
        repeatedly(config.retentionCheckInterval, first: min(Self.retentionFirstDelay, config.retentionCheckInterval)) { host in
            host.applyRetention()
        }
        repeatedly(config.highWatermarkCheckpointInterval) { $0.checkpoint(.highWatermark) }
        repeatedly(config.recoveryPointCheckpointInterval) { $0.checkpoint(.recoveryPoint) }
        repeatedly(config.logStartCheckpointInterval) { $0.checkpoint(.logStart) }
        repeatedly(Self.producerCheckInterval) { host in
            let now = host.clock.wallMilliseconds
            for partition in host.topics.table.partitions {
                partition.removeExpiredProducers(now: now, olderThanMs: host.config.producerIDExpiration.milliseconds)
            }
        }
        removeLeftovers()
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

    /// Folders that an earlier run marked as deleted.
    private func removeLeftovers() {
        for unit in units {
            let paths = unit.directory.found.partitions.filter { $0.kind == .deleted }.map { unit.path + "/" + $0.name }
            removeLater(paths, after: .seconds(60))
        }
    }

    // MARK: Checkpoints

    private func offsets(_ checkpoint: LogDirectory.Checkpoint, of unit: LogDirectoryUnit) -> OffsetCheckpoint {
        var offsets = OffsetCheckpoint()
        for partition in topics.table.partitions where partition.directory === unit && !partition.isOffline {
            switch checkpoint {
            case .recoveryPoint: offsets[partition.id] = partition.recoveryPoint
            case .highWatermark: offsets[partition.id] = partition.highWatermark
            case .logStart: offsets[partition.id] = partition.logStartToRemember
            case .cleaner: preconditionFailure("what was cleaned is the cleaner's to say")
            }
        }
        return offsets
    }

    private func checkpoint(_ checkpoint: LogDirectory.Checkpoint) {
        for unit in units where !unit.directory.isOffline {
            let offsets = offsets(checkpoint, of: unit)
            let (directory, logger) = (unit.directory, logger)
            let queued = bulk.submit(
                { () -> LogError? in
                    do throws(LogError) {
                        try directory.write(checkpoint, offsets)
                        return nil
                    } catch {
                        return error
                    }
                }, on: host.loops[0],
                then: { error in
                    guard let error else { return }
                    logger.error("a checkpoint could not be written", ("file", checkpoint.rawValue), ("reason", "\(error)"))
                })
            if !queued { logger.warning("a checkpoint is late: the lane is full", ("file", checkpoint.rawValue)) }
        }
    }

    // MARK: The end

    /// Closes every log, writes the checkpoints and says in each directory that nothing need be recovered.
    package func close() async {
        guard !isClosed else { return }
        isClosed = true
        let partitions = topics.table.partitions
        let (units, logger) = (units, logger)
        let ended: Void? = try? await onBulk {
            for unit in units { Self.close(unit, partitions.filter { $0.directory === unit }, logger) }
        }
        if ended == nil { for unit in units { unit.directory.close() } }
    }

    /// On a lane.
    private static func close(_ unit: LogDirectoryUnit, _ partitions: [Partition], _ logger: Logger) {
        do throws(LogError) {
            var recoveryPoints = OffsetCheckpoint(), highWatermarks = OffsetCheckpoint(), logStarts = OffsetCheckpoint()
            for partition in partitions where !partition.isOffline {
                try partition.stop(clean: true)
                recoveryPoints[partition.id] = partition.recoveryPoint
                highWatermarks[partition.id] = partition.highWatermark
                logStarts[partition.id] = partition.logStartToRemember
            }
            try unit.directory.write(.recoveryPoint, recoveryPoints)
            try unit.directory.write(.highWatermark, highWatermarks)
            try unit.directory.write(.logStart, logStarts)
            try unit.directory.closeCleanly(brokerEpoch: -1)
        } catch {
            logger.error("a log directory was not closed cleanly", ("directory", unit.path), ("reason", "\(error)"))
            unit.directory.close()
        }
    }
}
