import MartletBasics
import MartletLog
import MartletModel
import MartletReactor

/// How a replica is found, opened or made.
extension ReplicaHost {
    func open(_ id: TopicPartition, _ topicID: UUID, _ config: TopicConfig, isNew: Bool) async throws(LogError) -> Partition {
        let (unit, isThere) = try place(of: id, isNew: isNew)
        let folder = PartitionFolder(id)
        if isThere, postponed[id] == nil, topics.table.topic(id.topic)?.hasFailed(id.partition) == true {
            throw .refused(.kafkaStorageError, "\(id) could not be opened before, and is looked at again by the next start")
        }
        let known = unit.beginOpening(id)
        let parameters = parameters(of: id, config, in: unit, found: isThere ? known : nil)
        unit.add(folder)
        let stray = PartitionFolder(id, .stray, unique: host.randomBytes(16))
        let opened = try await onBulk { [disk = host.disk, logger] () -> Result<LogHandover, OpeningFailure> in
            var isAnew = !isThere
            do throws(LogError) {
                if isThere, try Self.belongs(parameters, to: topicID, disk, logger) {
                    let log = try PartitionLog.open(parameters)
                    try log.assign(topicID: topicID)
                    return .success(LogHandover(log: log, highWatermark: known.highWatermark ?? 0))
                }
                if isThere {
                    logger.warning(
                        "a replica of another topic of the same name is put aside", ("folder", parameters.folder),
                        ("as", stray.name))
                    try Self.setAside(id, from: folder, as: stray, unit, disk)
                }
                isAnew = true
                // rows of an earlier topic of this name would be taken for its own at the next start
                try unit.lower(id, to: nil)
                var parameters = parameters
                parameters.startAnew()
                return .success(LogHandover(log: try PartitionLog.create(parameters, topicID: topicID), highWatermark: 0))
            } catch {
                let isCleared = isAnew && error.passes && Self.clear(parameters.folder, unit, disk)
                return .failure(OpeningFailure(error: error, isCleared: isCleared))
            }
        }
        let handover: LogHandover
        do throws(OpeningFailure) { handover = try opened.get() } catch {
            let reason = error.error
            if reason.takesDirectoryOffline { unit.writeFailed(reason, id) }
            // it was looked at, and left as it was
            if case .oldFormat = reason { unit.keep(id, known) }
            if error.isCleared { unit.forget(folder) }
            if reason.passes { postponed[id] = error.isCleared ? .unmade : .unopened }
            throw reason
        }
        let mark = unit.directory.durableOffsets.register(id, durable: handover.log.durableOffset)
        return Partition(
            id: id, topicID: topicID, log: handover.log, brokerID: brokerID, highWatermark: handover.highWatermark,
            directory: unit, durableMark: mark, config: config, clock: clock, logger: logger)
    }

    /// `found`: what is known of a replica that is there.
    private func parameters(
        of id: TopicPartition, _ config: TopicConfig, in unit: LogDirectoryUnit, found: ClosedReplica?
    ) -> LogParameters {
        var parameters = LogParameters(
            partition: id, folder: unit.path + "/" + PartitionFolder(id).name, config: config, disk: host.disk,
            descriptors: descriptors, clock: clock, logger: logger, cutDirectory: self.config.cutDir)
        parameters.seed = seeds.next()
        parameters.activity = activity
        parameters.planted = host.planted
        guard let found else { return parameters }
        parameters.logStartOffset = found.logStart ?? 0
        parameters.recoveryPoint = found.recoveryPoint ?? 0
        parameters.wasClosedCleanly = found.isClean
        parameters.durableLowerBound = found.durableBound
        parameters.isBoundLost = !found.isClean && found.durableBound == nil && unit.directory.found.areBoundsLost
        let wasCleaned = unit.cleanedUpTo(id) != nil || unit.directory.found.wasCleaned(id)
        parameters.mayHaveGaps = parameters.mayHaveGaps || wasCleaned
        return parameters
    }

    /// The directory in which a replica lies, or is to be made.
    private func place(of id: TopicPartition, isNew: Bool) throws(LogError) -> (unit: LogDirectoryUnit, isThere: Bool) {
        let folder = PartitionFolder(id)
        let holders = units.filter { !$0.directory.isOffline && $0.holds(folder) }
        if holders.count > 1 {
            let paths = holders.map { $0.path + "/" + folder.name }.joined(separator: " and ")
            throw .refused(
                .kafkaStorageError,
                "\(id) lies in \(paths), and nothing says which is right: move one away, and start the broker again")
        }
        if let holder = holders.first { return (holder, true) }
        let canLieElsewhere = units.count < config.logDirs.count || units.contains { $0.directory.isOffline }
        guard let unit = emptiest(), isNew || postponed[id] == .unmade || !canLieElsewhere else {
            throw .directoryOffline(
                path: config.logDirs.joined(separator: ","),
                reason: "\(id) is not in a directory that is usable, and may be in another")
        }
        return (unit, false)
    }

    /// Whether a folder that is there is of this topic, and not of an earlier one of its name, by the id in it. Where damage
    /// can have made this topic's id to that, it is put right. On a lane.
    private static func belongs(
        _ parameters: LogParameters, to topicID: UUID, _ disk: any Disk, _ logger: Logger
    ) throws(LogError) -> Bool {
        let path = parameters.folder + "/" + PartitionMetadata.fileName
        guard let bytes = try onDisk({ () throws(SystemError) in try disk.contents(path) }) else { return true }
        // one that cannot be read says nothing, and is made anew when the log is opened
        guard let found = try? PartitionMetadata.decode(bytes, path: path), found.topicID != topicID else { return true }
        guard found.isDamaged(from: topicID) else { return false }
        logger.warning(
            "the topic's id in a replica's folder is damaged, and is written anew", ("file", path),
            ("id", found.topicID.description), ("of", topicID.description))
        try onDisk { () throws(SystemError) in try disk.replace(path, with: PartitionMetadata(topicID: topicID).encode()) }
        return true
    }

    /// Removes what there is of a folder that could not be made, durably: false where something may be left. On a lane.
    private static func clear(_ folder: String, _ unit: LogDirectoryUnit, _ disk: any Disk) -> Bool {
        do throws(SystemError) {
            try disk.removeTree(folder)
            try disk.syncDirectory(unit.path)
            return true
        } catch {
            return false
        }
    }

    /// Takes a replica's folder out of use, durably. On a lane.
    static func setAside(
        _ id: TopicPartition, from live: PartitionFolder, as name: PartitionFolder, _ unit: LogDirectoryUnit, _ disk: any Disk
    ) throws(LogError) {
        try unit.lower(id, to: nil)
        try onDisk { () throws(SystemError) in
            try disk.rename(unit.path + "/" + live.name, to: unit.path + "/" + name.name)
            try disk.syncDirectory(unit.path)
        }
    }

    /// The directory with the fewest replicas; of several the first in `log.dirs`.
    private func emptiest() -> LogDirectoryUnit? {
        units.filter { !$0.directory.isOffline }.min { $0.folderCount < $1.folderCount }
    }
}

/// How a replica waits for a reason to pass that kept it from being served: the disk is full, or no descriptor is left.
enum Postponement {
    /// What is in its folder waits to be opened.
    case unopened
    /// Nothing of it is there, in no log directory.
    case unmade
}

struct OpeningFailure: Error {
    let error: LogError
    /// Nothing is left of the folder that was to be made.
    let isCleared: Bool
}

/// A log on its way from the lane that opened it to the partition that owns it: one thread has it at a time.
struct LogHandover: @unchecked Sendable {
    let log: PartitionLog
    let highWatermark: Offset
}

extension LogParameters {
    /// Nothing of what was known of a folder holds for one that is made anew.
    fileprivate mutating func startAnew() {
        logStartOffset = 0
        recoveryPoint = 0
        wasClosedCleanly = false
        durableLowerBound = nil
        mayHaveGaps = config.cleanupPolicy.contains(.compact)
    }
}
