package import MartletBasics
package import MartletLog
package import MartletModel
package import MartletReactor

/// The log directories of a broker and the replicas in them.
///
/// Confined to the first loop, but for what its partitions do; disk work that can take long runs on lanes.
package final class ReplicaHost: ReplicaHosting, @unchecked Sendable {
    private static let syncThreads = 8
    private static let laneLimit = 4096
    /// Descriptors that the cache of segment files does not take: sockets, checkpoints, the keeper.
    package static let descriptorLimitDefault = 8192

    let host: any Host
    let config: BrokerConfig
    let logger: Logger
    let clock: any Clock
    let bulk: any Lane
    let descriptors: DescriptorCache
    package let topics = LocalTopics()
    /// Those that could be opened, in the order of `log.dirs`.
    private(set) var units: [LogDirectoryUnit] = []
    private var brokerID: BrokerID = -1
    /// How many partitions lie in a directory: the emptiest takes the next.
    private var partitionCounts: [ObjectIdentifier: Int] = [:]
    private var seeds: SeededRandom
    var isClosed = false

    private init(host: any Host, config: BrokerConfig, sink: any LogSink) {
        self.host = host
        self.config = config
        logger = Logger("log", to: sink)
        clock = host.clock
        bulk = host.makeLane("bulk", threads: max(1, Int(config.recoveryThreadsPerDir)), limit: Self.laneLimit)
        descriptors = DescriptorCache(disk: host.disk, limit: Self.descriptorLimitDefault)
        seeds = SeededRandom(seed: host.randomBytes(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
    }

    // MARK: Opening

    /// Opens the log directories. One that cannot be used is left out, and said; with none left the start fails.
    package static func open(host: any Host, config: BrokerConfig, sink: any LogSink) throws(LogError) -> ReplicaHost {
        let opened = ReplicaHost(host: host, config: config, sink: sink)
        var firstFault: LogError?
        for path in config.logDirs {
            do throws(LogError) {
                opened.units.append(try opened.openUnit(path))
            } catch {
                if case .directoryLocked = error { throw error }
                opened.logger.error("log directory cannot be used", ("directory", path), ("reason", "\(error)"))
                firstFault = firstFault ?? error
            }
        }
        if opened.units.isEmpty { throw firstFault ?? .closed("log.dirs is empty: every directory of it") }
        return opened
    }

    private func openUnit(_ path: String) throws(LogError) -> LogDirectoryUnit {
        let directory = try LogDirectory.open(path, on: host.disk)
        let found = directory.found
        logger.info(
            "log directory opened", ("directory", path), ("partitions", "\(found.partitions.count)"),
            ("stopped", found.cleanStop != nil ? "cleanly" : found.metaProperties == nil ? "never started" : "uncleanly"))
        for name in found.unknownFolders { logger.warning("a folder of no partition is left alone", ("folder", path + "/" + name)) }
        var settings = Syncer.Settings()
        settings.delay = config.syncDelay
        let lane = host.makeLane("sync", threads: Self.syncThreads, limit: Self.laneLimit)
        let syncer = Syncer(disk: host.disk, path: path, lane: lane, loop: host.loops[0], settings: settings) { [weak self] error in
            self?.unit(path)?.failed(.storage(error))
        }
        return LogDirectoryUnit(directory, syncer: syncer, bulk: bulk, loop: host.loops[0], clock: clock, logger: logger) {
            [weak self] unit, error in self?.directoryFailed(unit, error)
        }
    }

    private func unit(_ path: String) -> LogDirectoryUnit? { units.first { $0.path == path } }

    /// Every partition of the directory goes offline; the others serve on.
    private func directoryFailed(_ unit: LogDirectoryUnit, _ error: LogError) {
        host.loops[0].execute { [self] in
            for partition in topics.table.partitions where partition.directory === unit { partition.goOffline("\(error)") }
        }
    }

    package var foundClusterID: String? { units.lazy.compactMap { $0.directory.metaProperties?.clusterID }.first }
    package var foundBrokerID: BrokerID? { units.lazy.compactMap { $0.directory.metaProperties?.brokerID }.first }
    /// Whether some directory was in use and not closed: records may be there that nobody has been told of.
    package var wasStoppedUncleanly: Bool {
        units.contains { $0.directory.found.cleanStop == nil && $0.directory.found.metaProperties != nil }
    }

    package var foundTopics: [FoundTopic] {
        var partitions: [String: Set<Int32>] = [:], ids: [String: UUID] = [:]
        for unit in units {
            for folder in unit.directory.found.partitions where folder.kind == .live {
                partitions[folder.partition.topic, default: []].insert(folder.partition.partition)
                let path = unit.path + "/" + folder.name + "/" + PartitionMetadata.fileName
                guard ids[folder.partition.topic] == nil, let bytes = try? host.disk.contents(path) else { continue }
                ids[folder.partition.topic] = try? PartitionMetadata.decode(bytes, path: path).topicID
            }
        }
        return partitions.keys.sorted().map { FoundTopic(name: $0, id: ids[$0], partitions: partitions[$0]!.sorted()) }
    }

    package func claim(brokerID: BrokerID, clusterID: String) async throws(LogError) {
        self.brokerID = brokerID
        for unit in units {
            try unit.directory.claim(brokerID: brokerID, clusterID: clusterID, wallMilliseconds: clock.wallMilliseconds)
        }
        startUpkeep()
    }

    // MARK: Replicas

    package func apply(
        topic name: String, id: UUID, config: TopicConfig, partition index: Int32, assignment: PartitionLeadership.Assignment,
        isNew: Bool
    ) async throws(LogError) {
        if let topic = topics.table.topic(name), topic.id == id, let partition = topic.partition(index) {
            try partition.apply(assignment)
            return
        }
        let partition = try await open(TopicPartition(name, index), id, config)
        try partition.apply(assignment)
        // only now can clients find it: whom Metadata sends here is served
        let topic = topics.table.topic(name).flatMap { $0.id == id ? $0 : nil }
        if let topic {
            topic.add(partition)
        } else {
            let made = LocalTopic(name: name, id: id, config: config)
            made.add(partition)
            topics.add(made)
        }
    }

    package func configChanged(topic: String, _ config: TopicConfig) { topics.table.topic(topic)?.config = config }

    private func open(_ id: TopicPartition, _ topicID: UUID, _ config: TopicConfig) async throws(LogError) -> Partition {
        let folder = PartitionFolder(id)
        let existing = units.first { !$0.directory.isOffline && $0.holds(folder) }
        guard let unit = existing ?? emptiest() else {
            throw .directoryOffline(path: self.config.logDirs.joined(separator: ","), reason: "no log directory is usable")
        }
        partitionCounts[ObjectIdentifier(unit), default: 0] += 1
        unit.add(folder)
        let found = unit.directory.found
        var parameters = LogParameters(
            partition: id, folder: unit.path + "/" + folder.name, config: config, disk: host.disk, descriptors: descriptors,
            clock: clock, logger: logger, cutDirectory: self.config.cutDir)
        parameters.seed = seeds.next()
        if existing != nil {
            parameters.logStartOffset = found.offset(.logStart, id) ?? 0
            parameters.recoveryPoint = found.offset(.recoveryPoint, id) ?? 0
            parameters.wasClosedCleanly = found.cleanStop != nil && unit.takeFirstOpening(of: id)
            parameters.durableLowerBound = unit.directory.durableOffsets.bound(of: id)
            parameters.mayHaveGaps = parameters.mayHaveGaps || found.offset(.cleaner, id) != nil
        }
        let parametersNow = parameters
        let log = try await onBulk { [parameters = parametersNow] () -> Result<LogHandover, LogError> in
            do throws(LogError) {
                let log = try existing == nil
                    ? PartitionLog.create(parameters, topicID: topicID) : PartitionLog.open(parameters)
                if existing != nil, log.topicID == nil { try log.assign(topicID: topicID) }
                if let found = log.topicID, found != topicID {
                    throw .wrongIdentity(path: parameters.folder, what: "topic id", found: "\(found)", expected: "\(topicID)")
                }
                return .success(LogHandover(log: log))
            } catch {
                return .failure(error)
            }
        }.get().log
        let mark = unit.directory.durableOffsets.register(id, durable: log.durableOffset)
        return Partition(
            id: id, topicID: topicID, log: log, brokerID: brokerID, highWatermark: found.offset(.highWatermark, id) ?? 0,
            directory: unit, durableMark: mark, config: config, clock: clock, logger: logger)
    }

    private func emptiest() -> LogDirectoryUnit? {
        units.filter { !$0.directory.isOffline }.min {
            partitionCounts[ObjectIdentifier($0), default: 0] < partitionCounts[ObjectIdentifier($1), default: 0]
        }
    }

    package func stop(topic name: String, partition index: Int32, delete: Bool) async throws(LogError) {
        guard let topic = topics.table.topic(name), let partition = topic.remove(index) else { return }
        if topic.partitions.isEmpty { topics.remove(topic) }
        let unit = partition.directory
        partitionCounts[ObjectIdentifier(unit), default: 1] -= 1
        let doomed = PartitionFolder(partition.id, .deleted, unique: host.randomBytes(16))
        let live = PartitionFolder(partition.id)
        let disk = host.disk
        try await onBulk { () -> Result<Void, LogError> in
            do throws(LogError) {
                try partition.stop(clean: !delete)
                guard delete else { return .success(()) }
                try unit.directory.durableOffsets.lower(partition.id, to: nil)
                try onDisk { () throws(SystemError) in
                    try disk.rename(unit.path + "/" + live.name, to: unit.path + "/" + doomed.name)
                    try disk.syncDirectory(unit.path)
                }
                return .success(())
            } catch {
                return .failure(error)
            }
        }.get()
        unit.forget(live)
        logger.info("partition stopped", ("partition", partition.id.description), ("deleted", "\(delete)"))
        if delete { removeLater([unit.path + "/" + doomed.name], after: .milliseconds(partition.topicConfig.fileDeleteDelayMs)) }
    }

    /// Runs disk work on the lane for what takes long, and comes back to this loop.
    func onBulk<R: Sendable>(_ work: @escaping @Sendable () -> R) async throws(LogError) -> R {
        do throws(SystemError) { return try await bulk.run(on: host.loops[0], work) } catch { throw .storage(error) }
    }
}

/// A log on its way from the lane that opened it to the partition that owns it: one thread has it at a time.
private struct LogHandover: @unchecked Sendable {
    let log: PartitionLog
}
