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
    /// However many `num.recovery.threads.per.data.dir` and `log.dirs` ask for.
    private static let bulkThreadsLimit = 256
    /// Descriptors that the cache of segment files does not take: sockets, checkpoints, the keeper.
    package static let descriptorLimitDefault = 8192
    /// Names of folders that one line of the log tells.
    static let namesToldLimit = 20

    let host: any Host
    private(set) var config: BrokerConfig
    let logger: Logger
    let clock: any Clock
    let bulk: any Lane
    package let descriptors: DescriptorCache
    package let activity = LogActivity()
    package let topics = LocalTopics()
    /// Those that could be opened, in the order of `log.dirs`.
    package private(set) var units: [LogDirectoryUnit] = []
    private(set) var brokerID: BrokerID = -1
    /// Replicas that could not be opened, or made, for a reason that passes. `ReplicaHost+Upkeep.swift` has them ordered again.
    var postponed: [TopicPartition: Postponement] = [:]
    /// Replicas that are being opened or stopped, and who waits to do so next, in order.
    private var changing: [TopicPartition: [UnsafeContinuation<Void, Never>]] = [:]
    var seeds: SeededRandom
    var isClosed = false
    // moves between log directories: `ReplicaHost+Move.swift`
    package var onReplacement: (() -> Void)?
    package var onAvailability: (() -> Void)?
    /// Called once, on the first loop, when no log directory is left that can be used.
    package var onNothingLeft: ((String) -> Void)?
    var moves: [TopicPartition: ReplicaMove] = [:]
    var waitingMoves = RingQueue<ReplicaMove>()
    var runningMoves = 0
    /// Copies that an earlier run had begun: where they were to go.
    var interruptedMoves: [TopicPartition: LogDirectoryUnit] = [:]
    var abandonedCopies: [String] = []
    private(set) lazy var cleaner = LogCleaner(self)
    /// How many partitions are being compacted. On the first loop.
    package var cleaningsCount: Int { cleaner.cleaningsCount }

    private init(host: any Host, config: BrokerConfig, sink: any LogSink) {
        self.host = host
        self.config = config
        logger = Logger("log", to: sink)
        clock = host.clock
        bulk = host.makeLane("bulk", threads: Self.bulkThreads(config), limit: Self.laneLimit)
        descriptors = DescriptorCache(disk: host.disk, limit: Self.descriptorLimitDefault)
        seeds = SeededRandom(seed: host.randomSeed())
    }

    // MARK: Opening

    /// Opens the log directories. One that cannot be used is left out, and said; with none left the start fails.
    package static func open(host: any Host, config: BrokerConfig, sink: any LogSink) throws(LogError) -> ReplicaHost {
        let opened = ReplicaHost(host: host, config: config, sink: sink)
        var firstFault: LogError?
        var directories: [LogDirectory] = []
        for path in config.logDirs {
            do throws(LogError) {
                directories.append(try opened.openDirectory(path, after: directories))
            } catch {
                switch error {
                case .directoryLocked, .wrongIdentity:
                    giveBack(directories)
                    throw error
                default: break
                }
                opened.logger.error("log directory cannot be used", ("directory", path), ("reason", "\(error)"))
                firstFault = firstFault ?? error
            }
        }
        if directories.isEmpty { throw firstFault ?? .closed("log.dirs is empty: every directory of it") }
        opened.completeMoves(directories)
        opened.units = directories.map(opened.makeUnit)
        opened.findInterruptedMoves()
        return opened
    }

    private func openDirectory(_ path: String, after others: [LogDirectory]) throws(LogError) -> LogDirectory {
        // those of one broker belong to the same
        let owner = DirectoryOwner(
            brokerID: others.lazy.compactMap { $0.metaProperties?.brokerID }.first,
            clusterID: others.lazy.compactMap { $0.metaProperties?.clusterID }.first)
        let directory = try LogDirectory.open(path, on: host.disk, owner: owner)
        let found = directory.found
        logger.info(
            "log directory opened", ("directory", path), ("partitions", "\(found.partitions.count)"),
            ("stopped", found.cleanStop != nil ? "cleanly" : found.metaProperties == nil ? "never started" : "uncleanly"))
        for damaged in found.damaged {
            logger.warning(
                "a checkpoint is damaged, is put aside and made anew: recovery reads more", ("directory", path),
                ("file", damaged.file), ("as", damaged.file + LogDirectory.damagedSuffix), ("reason", "\(damaged.reason)"))
        }
        sayWhatIsLeftAlone(directory)
        return directory
    }

    private func makeUnit(_ directory: LogDirectory) -> LogDirectoryUnit {
        let path = directory.path
        var settings = Syncer.Settings()
        settings.delay = config.syncDelay
        settings.planted = host.planted
        let lane = host.makeLane("sync", threads: Self.syncThreads, limit: Self.laneLimit)
        let syncer = Syncer(disk: host.disk, path: path, lane: lane, loop: host.loops[0], settings: settings) { [weak self] error in
            self?.unit(path)?.failed(.storage(error))
        }
        return LogDirectoryUnit(directory, syncer: syncer, bulk: bulk, loop: host.loops[0], clock: clock, logger: logger) {
            [weak self] unit, error in self?.directoryFailed(unit, error)
        } onOffline: { [weak self] in
            self?.onAvailability?()
        }
    }

    /// Nothing was done with what is open: it is left as it was found.
    private static func giveBack(_ directories: [LogDirectory]) {
        for directory in directories {
            if let stop = directory.found.cleanStop {
                try? directory.closeCleanly(brokerEpoch: stop.brokerEpoch ?? -1)
            } else {
                directory.close()
            }
        }
    }

    func unit(_ path: String) -> LogDirectoryUnit? { units.first { $0.path == path } }

    /// Every partition of the directory goes offline; the others serve on.
    private func directoryFailed(_ unit: LogDirectoryUnit, _ error: LogError) {
        host.loops[0].execute { [self] in
            for partition in topics.table.partitions where partition.directory === unit { partition.goOffline("\(error)") }
            guard units.allSatisfy(\.directory.isOffline), !isClosed else { return }
            onNothingLeft?("No log directory can be used any more: \(error)")
            onNothingLeft = nil
        }
    }

    package var foundClusterID: String? { units.lazy.compactMap { $0.directory.metaProperties?.clusterID }.first }
    package var foundBrokerID: BrokerID? { units.lazy.compactMap { $0.directory.metaProperties?.brokerID }.first }
    /// Whether some directory was in use and not closed: records may be there that nobody has been told of.
    package var wasStoppedUncleanly: Bool {
        units.contains { $0.directory.found.cleanStop == nil && $0.directory.found.metaProperties != nil }
    }

    package var wasUncleanStop: Bool { wasStoppedUncleanly }

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
        let partitionID = TopicPartition(name, index)
        await beginChange(of: partitionID)
        defer { endChange(of: partitionID) }
        guard !isClosed else { throw .closed("the broker's log") }
        let hosted = topics.table.topic(name)
        if let hosted, hosted.id != id {
            throw .refused(.inconsistentTopicID, "\(name) has the id \(hosted.id) here, and is to be stopped before it is made as \(id)")
        }
        if let partition = hosted?.partition(index) {
            try partition.apply(assignment)
            return
        }
        let partition: Partition
        do throws(LogError) { partition = try await open(partitionID, id, config, isNew: isNew) } catch {
            noteFailed(partitionID, id, config)
            throw error
        }
        // settings may have changed while it was opened
        if let topic = topics.table.topic(name), topic.id == id { partition.configChanged(topic.config) }
        do throws(LogError) { try partition.apply(assignment) } catch {
            try? partition.stop(clean: false)
            throw error
        }
        // only now can clients find it: whom Metadata sends here is served
        if let topic = topics.table.topic(name) {
            guard topic.id == id else {
                try? partition.stop(clean: false)
                throw .refused(.inconsistentTopicID, "\(name) was made with the id \(topic.id) meanwhile")
            }
            topic.add(partition)
        } else {
            let made = LocalTopic(name: name, id: id, config: partition.topicConfig)
            made.add(partition)
            topics.add(made)
        }
        partition.directory.opened(partitionID)
        if postponed.removeValue(forKey: partitionID) != nil {
            logger.info("a replica that waited for room is served", ("partition", partitionID.description))
        }
        resumeMove(of: partition)
    }

    /// A replica that is here and cannot be opened: who asks for it is told that its disk is to blame.
    private func noteFailed(_ partition: TopicPartition, _ id: UUID, _ config: TopicConfig) {
        guard !isClosed else { return }
        if let topic = topics.table.topic(partition.topic) {
            if topic.id == id { topic.noteFailed(partition.partition) }
            return
        }
        let made = LocalTopic(name: partition.topic, id: id, config: config)
        made.noteFailed(partition.partition)
        topics.add(made)
    }

    package func configChanged(topic: String, _ config: TopicConfig) { topics.table.topic(topic)?.config = config }

    package func configChanged(_ config: BrokerConfig) {
        let threads = Self.bulkThreads(config)
        if threads != Self.bulkThreads(self.config) { bulk.resize(threads: threads) }
        self.config = config
    }

    private static func bulkThreads(_ config: BrokerConfig) -> Int {
        max(1, min(Int(config.recoveryThreadsPerDir) * config.logDirs.count, bulkThreadsLimit))
    }

    /// One change of a replica at a time: others wait, and come in their order.
    func beginChange(of partition: TopicPartition) async {
        guard changing[partition] != nil else {
            changing[partition] = []
            return
        }
        await withUnsafeContinuation { changing[partition]!.append($0) }
    }

    func endChange(of partition: TopicPartition) {
        if changing[partition]!.isEmpty {
            changing[partition] = nil
        } else {
            changing[partition]!.removeFirst().resume()
        }
    }

    package func stop(topic name: String, partition index: Int32, delete: Bool) async throws(LogError) {
        let id = TopicPartition(name, index)
        await beginChange(of: id)
        defer { endChange(of: id) }
        guard !isClosed else { throw .closed("the broker's log") }
        let live = PartitionFolder(id)
        cancelMove(of: id)
        if delete { postponed[id] = nil }
        let topic = topics.table.topic(name)
        let partition = topic?.remove(index, forGood: delete)
        if let topic, topic.isEmpty { topics.remove(topic) }
        guard let unit = partition?.directory ?? units.first(where: { !$0.directory.isOffline && $0.holds(live) }),
            partition != nil || delete
        else { return }
        // what it had when it was taken out of the table stays in the checkpoints
        if let partition { unit.keep(id, partition.asClosed(isClean: false)) }
        let doomed = PartitionFolder(id, .deleted, unique: host.randomBytes(16))
        let copies = delete ? futureCopies(of: id) : []
        let disk = host.disk
        try await onBulk { () -> Result<Void, LogError> in
            do throws(LogError) {
                try partition?.stop(clean: !delete)
                if delete { try Self.setAside(id, from: live, as: doomed, unit, disk) }
                for copy in copies { try onDisk { () throws(SystemError) in try disk.removeTree(copy) } }
                return .success(())
            } catch {
                return .failure(error)
            }
        }.get()
        logger.info("partition stopped", ("partition", id.description), ("deleted", "\(delete)"))
        if delete {
            unit.forget(live)
            let delay = partition?.topicConfig.fileDeleteDelayMs ?? TopicConfig().fileDeleteDelayMs
            removeLater([unit.path + "/" + doomed.name], after: .milliseconds(delay))
        } else if let partition {
            unit.keep(id, partition.asClosed(isClean: partition.wasClosedCleanly))
        }
    }

    package func prepareDeletion(of partitions: [TopicPartition]) async {
        for unit in units where !unit.directory.isOffline {
            let here = partitions.filter { unit.holds(PartitionFolder($0)) }
            guard here.count > 1 else { continue }
            // what fails here is tried again for each of them, and told
            _ = try? await onBulk { () -> LogError? in
                do throws(LogError) { try unit.lower(here, to: nil) } catch { return error }
                return nil
            }
        }
    }

    /// What a move to another directory, begun by another broker, had copied so far: worth nothing when the partition goes.
    private func futureCopies(of id: TopicPartition) -> [String] {
        units.filter { !$0.directory.isOffline }.flatMap { unit in
            unit.directory.found.partitions.filter { $0.kind == .future && $0.partition == id }.map {
                unit.path + "/" + $0.name
            }
        }
    }

    /// Runs disk work on the lane for what takes long, and comes back to this loop.
    func onBulk<R: Sendable>(_ work: @escaping @Sendable () -> R) async throws(LogError) -> R {
        do throws(SystemError) { return try await bulk.run(on: host.loops[0], work) } catch { throw .storage(error) }
    }
}
