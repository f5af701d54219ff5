import MartletBasics
import MartletLog
package import MartletModel
import MartletReactor

/// A replica on its way to another log directory of this broker, which serves it all the while.
///
/// *Waiting*: others are copied first. Can become *copying*.
/// *Copying*: the files go over, what is appended meanwhile too. Can become *swapping*, when little is left.
/// *Swapping*: nothing is appended (producers wait, and readers once the log is closed); the log is closed, the rest
/// goes over and is synced, and two renames make the copy the replica. Can become *copying* again, where what is
/// promised does not settle.
/// Each can end, *copying* and *waiting* also because somebody wants the replica elsewhere, or
/// deletes it.
///
///     copying     from/t-0                to/t-0.<id>-future
///     swapping    from/t-0.<id>-delete    to/t-0.<id>-future    one rename done, the other not: the next start does it
///     moved       from/t-0.<id>-delete    to/t-0
///
/// The copy is complete and on the disk before the first rename, and nothing is appended before the second is there
/// to stay: at every moment exactly one folder is the replica, or is made it by the next start. A copy that a crash
/// left unfinished is thrown away, and begun anew.
final class ReplicaMove: @unchecked Sendable {
    let id: TopicPartition
    let partition: Partition
    let to: LogDirectoryUnit
    let future: PartitionFolder
    let doomed: PartitionFolder
    var copy: FolderCopy
    var generation: UInt64?
    var progress: FolderCopy.Progress?
    var isCancelled = false
    var hasSaidItWaits = false

    init(_ partition: Partition, to: LogDirectoryUnit, unique: [UInt8], disk: any Disk) {
        id = partition.id
        self.partition = partition
        self.to = to
        future = PartitionFolder(id, .future, unique: unique)
        doomed = PartitionFolder(id, .deleted, unique: unique)
        copy = FolderCopy(
            disk, from: partition.directory.path + "/" + PartitionFolder(id).name, to: to.path + "/" + future.name)
    }

    var from: LogDirectoryUnit { partition.directory }
    var live: PartitionFolder { PartitionFolder(id) }
}

extension ReplicaHost {
    /// Copied in one go on a lane, and then synced.
    private static let copyBytes: Int64 = 16 << 20
    /// So little is copied while nothing can be appended.
    private static let swapBytes: Int64 = 4 << 20
    private static let settleLimit = Interval.seconds(2)
    static let moveCheckInterval = Interval.milliseconds(2)
    private static let pauseStep = Interval.milliseconds(50)
    private static let retryDelay = Interval.milliseconds(500)

    // MARK: What is there

    package func describeLogDirs() async -> [LogDirDescription] {
        let (disk, paths) = (host.disk, config.logDirs)
        let spaces = (try? await onBulk { paths.map { try? disk.space($0) } }) ?? paths.map { _ in nil }
        let partitions = topics.table.partitions
        return zip(paths, spaces).map { path, space in
            guard let unit = unit(path), !unit.directory.isOffline else {
                return LogDirDescription(path: path, isOnline: false, space: nil, replicas: [])
            }
            var replicas = partitions.filter { $0.directory === unit }.map { partition in
                LogDirDescription.Replica(
                    id: partition.id, sizeBytes: partition.sizeBytes,
                    lag: max(0, partition.highWatermark - partition.logEndOffset), isFuture: false)
            }
            for partition in partitions {
                guard let move = moves[partition.id], move.partition === partition, move.to === unit,
                    let progress = move.progress
                else { continue }
                replicas.append(
                    LogDirDescription.Replica(
                        id: move.id, sizeBytes: progress.copiedBytes,
                        lag: max(0, move.partition.logEndOffset - progress.copiedUpTo), isFuture: true))
            }
            replicas.sort { ($0.id.topic, $0.id.partition) < ($1.id.topic, $1.id.partition) }
            return LogDirDescription(path: path, isOnline: true, space: space, replicas: replicas)
        }
    }

    // MARK: The wish

    package func move(_ id: TopicPartition, to path: String) async -> ErrorCode {
        guard let partition = topics.partition(id) else { return .unknownTopicOrPartition }
        guard let wanted = config.logDirs.first(where: { plainPath($0) == plainPath(path) }), !path.isEmpty else {
            return .logDirNotFound
        }
        guard let unit = unit(wanted), !unit.directory.isOffline, !partition.isOffline else { return .kafkaStorageError }
        if moves[id]?.to === unit { return .none }
        cancelMove(of: id)
        guard partition.directory !== unit else { return .none }
        return begin(partition, to: unit) ? .none : .invalidTopicException
    }

    private func plainPath(_ path: String) -> String {
        (path.hasPrefix("/") ? "/" : "") + path.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
    }

    private func begin(_ partition: Partition, to unit: LogDirectoryUnit) -> Bool {
        let move = ReplicaMove(partition, to: unit, unique: host.randomBytes(16), disk: host.disk)
        // by the folders' names a start has to tell whose they are
        guard move.future.partition == partition.id else {
            logger.error(
                "a replica cannot be moved: the name of its topic is too long", ("partition", partition.id.description))
            return false
        }
        moves[partition.id] = move
        waitingMoves.append(move)
        runMoves()
        return true
    }

    /// The replica stays where it is, unless the swap has begun.
    func cancelMove(of id: TopicPartition) {
        guard let move = moves.removeValue(forKey: id) else { return }
        move.isCancelled = true
    }

    /// As many at a time as there are directories.
    private func runMoves() {
        while runningMoves < units.count, let move = waitingMoves.popFirst() {
            runningMoves += 1
            host.loops[0].spawn { [self] in
                await perform(move)
                runningMoves -= 1
                runMoves()
            }
        }
    }

    private func isWanted(_ move: ReplicaMove) -> Bool {
        !isClosed && !move.isCancelled && !move.partition.isOffline && !move.to.directory.isOffline
            && topics.partition(move.id) === move.partition
    }

    // MARK: The work

    private func perform(_ move: ReplicaMove) async {
        let fields = [("partition", move.id.description), ("from", move.from.path), ("to", move.to.path)]
        var isMoved = false
        do throws(LogError) {
            if isWanted(move) { logger.info("a replica is moved to another log directory", fields[0], fields[1], fields[2]) }
            while isWanted(move), !isMoved {
                try await copy(move)
                isMoved = try await swap(move)
                if !isMoved, isWanted(move) { await pause(for: Self.retryDelay) }
            }
        } catch {
            logger.error("a replica could not be moved, and stays where it is", fields[0], fields[2], ("reason", "\(error)"))
            blame(error, move)
        }
        // where the broker stops, the wish is kept
        if isMoved || !isClosed, moves[move.id] === move { moves[move.id] = nil }
        if isMoved {
            logger.info("a replica was moved to another log directory", fields[0], fields[1], fields[2])
        } else if !isClosed {
            removeLater([move.copy.target], after: .zero)
        }
    }

    /// The directory whose file it was.
    private func blame(_ error: LogError, _ move: ReplicaMove) {
        guard error.takesDirectoryOffline, case .storage(let cause) = error else { return }
        let unit = cause.subject.hasPrefix(move.to.path + "/") || cause.subject == move.to.path ? move.to : move.from
        unit.writeFailed(error, move.id)
    }

    /// Returns when little is left to copy, or the move is not wanted any more.
    private func copy(_ move: ReplicaMove) async throws(LogError) {
        while isWanted(move), let plan = move.partition.copyPlan() {
            let isNew = move.generation != plan.generation
            if isNew {
                // the log went back, and what was copied may not be in it any more
                move.generation = plan.generation
                move.copy = FolderCopy(host.disk, from: move.from.path + "/" + move.live.name, to: move.copy.target)
            }
            let rate = config.settings.int64("replica.alter.log.dirs.io.max.bytes.per.second")
            let limit = max(1, min(Self.copyBytes, rate))
            let (copy, disk) = (move.copy, host.disk)
            let done = try await onBulk { () -> Result<FolderCopy.Progress, LogError> in
                do throws(LogError) {
                    if isNew {
                        do throws(SystemError) { try disk.removeTree(copy.target) } catch { throw .storage(error) }
                        try copy.begin()
                    }
                    return .success(try copy.advance(plan.extents, atMost: limit))
                } catch {
                    return .failure(error)
                }
            }.get()
            move.progress = done
            if done.leftBytes <= min(Self.swapBytes, limit) { return }
            if rate < Self.copyBytes { await pause(for: .seconds(1)) }
        }
    }

    /// Ends early where the broker stops.
    private func pause(for span: Interval) async {
        let end = clock.now + span
        while clock.now < end, !isClosed { await host.loops[0].sleep(for: min(Self.pauseStep, span)) }
    }

    /// False where it has to be tried again.
    private func swap(_ move: ReplicaMove) async throws(LogError) -> Bool {
        await beginChange(of: move.id)
        defer { endChange(of: move.id) }
        topics.exchangeBegins()
        defer { topics.exchangeEnds() }
        guard isWanted(move), let assignment = move.partition.pause() else { return false }
        // from here on no cleaning exchanges anything either
        guard move.partition.copyPlan()?.generation == move.generation else {
            move.partition.resume()
            return false
        }
        guard await settles(move.partition), isWanted(move) else {
            move.partition.resume()
            if !move.hasSaidItWaits {
                logger.info("a replica is moved when what was promised of it has settled", ("partition", move.id.description))
            }
            move.hasSaidItWaits = true
            return false
        }
        let exchange = ReplicaExchange(
            move: move, topics: topics, disk: host.disk, parameters: parameters(of: move), logger: logger)
        let outcome: ReplicaExchange.Outcome
        do throws(LogError) { outcome = try await onBulk { exchange.perform() } } catch {
            move.partition.resume()
            throw error
        }
        guard let handover = outcome.log else {
            move.partition.resume()
            throw outcome.fault ?? .closed("the log of \(move.id)")
        }
        try await install(handover, move, in: outcome.fault == nil ? move.to : move.from, assignment)
        if let fault = outcome.fault { throw fault }
        return true
    }

    private func settles(_ partition: Partition) async -> Bool {
        let end = clock.now + Self.settleLimit
        partition.directory.syncer.arm(partition, urgent: true)
        while !partition.isSettled {
            guard clock.now < end, !partition.isOffline else { return false }
            await host.loops[0].sleep(for: Self.moveCheckInterval)
        }
        return true
    }

    private func parameters(of move: ReplicaMove) -> LogParameters {
        var parameters = LogParameters(
            partition: move.id, folder: "", config: move.partition.topicConfig, disk: host.disk, descriptors: descriptors,
            clock: clock,
            logger: logger, cutDirectory: config.cutDir)
        parameters.seed = seeds.next()
        parameters.activity = activity
        let wasCleaned = move.from.cleanedUpTo(move.id) != nil || move.from.directory.found.wasCleaned(move.id)
        parameters.mayHaveGaps = parameters.mayHaveGaps || wasCleaned
        return parameters
    }

    /// Puts a partition over the log that was opened in the place of the one that was closed.
    private func install(
        _ handover: LogHandover, _ move: ReplicaMove, in unit: LogDirectoryUnit, _ assignment: PartitionLeadership.Assignment
    ) async throws(LogError) {
        let old = move.partition
        let mark = unit.directory.durableOffsets.register(move.id, durable: handover.log.durableOffset)
        let partition = Partition(
            id: move.id, topicID: old.topicID, log: handover.log, brokerID: brokerID, highWatermark: handover.highWatermark,
            directory: unit, durableMark: mark, config: old.topicConfig, clock: clock, logger: logger)
        do throws(LogError) { try partition.apply(assignment) } catch {
            old.resume()
            throw error
        }
        guard let topic = topics.table.topic(move.id.topic) else {
            preconditionFailure("a topic is stopped by one change at a time")
        }
        topic.replace(with: partition)
        // settings may have changed meanwhile
        partition.configChanged(topic.config)
        topics.renew()
        unit.add(move.live)
        unit.opened(move.id)
        onReplacement?()
        old.exchangeIsOver()
        guard unit === move.to else { return }
        let (from, id) = (move.from, move.id)
        from.forget(move.live)
        removeLater([from.path + "/" + move.doomed.name], after: .milliseconds(partition.topicConfig.fileDeleteDelayMs))
        // the rows of what is there no more: they do no harm, but would for a replica that comes back
        let lowered: LogError? =
            (try? await onBulk { () -> LogError? in
                do throws(LogError) {
                    try from.lower(id, to: nil)
                    return nil
                } catch { return error }
            }) ?? nil
        if let lowered { from.refused(lowered) { "the checkpoints keep the rows of a replica that was moved" } }
    }

    // MARK: The end of the broker

    /// Of a copy that is not finished nothing remains but a log without records, as Kafka begins one too: whoever opens
    /// the directories next goes on from there.
    func keepWishes() async {
        let wishes = topics.table.partitions.compactMap { moves[$0.id] }.filter { !$0.to.directory.isOffline }
            .map { (move: $0, parameters: parameters(of: $0)) }
        let (disk, logger) = (host.disk, logger)
        _ = try? await onBulk {
            for (move, parameters) in wishes {
                var parameters = parameters
                parameters.folder = move.copy.target
                do throws(LogError) {
                    do throws(SystemError) { try disk.removeTree(move.copy.target) } catch { throw .storage(error) }
                    let log = try PartitionLog.create(
                        parameters, topicID: move.partition.topicID, startingAt: move.partition.logStartOffset)
                    try log.beginEpoch(max(move.partition.leaderEpoch, 0))
                    try log.close(clean: true)
                } catch {
                    logger.warning(
                        "that a replica was to be moved is forgotten", ("partition", move.id.description),
                        ("reason", "\(error)"))
                }
            }
        }
    }

    // MARK: What an earlier run left

    /// Before the directories are in use: does the second rename of moves that a crash ended after the first.
    func completeMoves(_ directories: [LogDirectory]) {
        let folders = directories.flatMap(\.found.partitions)
        for directory in directories {
            for future in directory.found.partitions where future.kind == .future {
                let isLive = folders.contains { $0.kind == .live && $0.partition == future.partition }
                guard !isLive, folders.contains(where: { $0.kind == .deleted && $0.isTwin(of: future) }) else { continue }
                do throws(LogError) {
                    try directory.completeMove(of: future)
                    logger.info(
                        "a replica's move to another log directory was completed",
                        ("folder", directory.path + "/" + future.name))
                } catch {
                    logger.error("a replica's move cannot be completed", ("folder", directory.path), ("reason", "\(error)"))
                }
            }
        }
    }

    /// Copies of replicas that are there are thrown away, to be begun anew. A copy of one that is not there may be
    /// all that there is of it: it stays.
    func findInterruptedMoves() {
        let live = Set(units.flatMap { $0.directory.found.partitions.filter { $0.kind == .live }.map(\.partition) })
        for unit in units {
            for future in unit.directory.found.partitions where future.kind == .future {
                let path = unit.path + "/" + future.name
                guard live.contains(future.partition) else {
                    logger.warning("a copy of a replica that is not there is left alone", ("folder", path))
                    continue
                }
                interruptedMoves[future.partition] = unit
                abandonedCopies.append(path)
            }
        }
    }

    func resumeMove(of partition: Partition) {
        guard let unit = interruptedMoves.removeValue(forKey: partition.id), partition.directory !== unit,
            moves[partition.id] == nil
        else { return }
        _ = begin(partition, to: unit)
    }
}

/// What happens on a lane while nothing is appended to a replica that is moved.
private struct ReplicaExchange: @unchecked Sendable {
    final class Outcome: Sendable {
        /// What was opened in the end; nil where nothing could be.
        let log: LogHandover?
        /// Why that lies in the old directory.
        let fault: LogError?

        init(log: LogHandover?, fault: LogError?) {
            self.log = log
            self.fault = fault
        }
    }

    let move: ReplicaMove
    let topics: LocalTopics
    let disk: any Disk
    let parameters: LogParameters
    let logger: Logger

    func perform() -> Outcome {
        do throws(LogError) {
            try move.partition.stop(clean: true)
            let closed = move.partition.asClosed(isClean: false)
            try move.copy.finish()
            try announce(closed)
            try exchangeNames()
        } catch {
            return Outcome(log: open(in: move.from), fault: error)
        }
        guard let log = open(in: move.to) else {
            return Outcome(
                log: nil, fault: .closed("the copy, which is the replica now and cannot be opened: the log of \(move.id)"))
        }
        return Outcome(log: log, fault: nil)
    }

    /// The new directory's checkpoints know of the replica before it is there: from where its log begins no crash
    /// must lead back.
    private func announce(_ closed: ClosedReplica) throws(LogError) {
        move.to.keep(move.id, closed)
        try move.to.takeOver(move.id, from: move.from)
        for checkpoint in [LogDirectory.Checkpoint.logStart, .recoveryPoint, .highWatermark] {
            if let fault = ReplicaHost.write(checkpoint, move.to, topics) { throw fault }
        }
    }

    private func exchangeNames() throws(LogError) {
        let from = (live: move.from.path + "/" + move.live.name, doomed: move.from.path + "/" + move.doomed.name)
        do throws(SystemError) {
            try disk.rename(from.live, to: from.doomed)
            try disk.syncDirectory(move.from.path)
        } catch {
            try? disk.rename(from.doomed, to: from.live)
            throw .storage(error)
        }
        do throws(SystemError) {
            try disk.rename(move.copy.target, to: move.to.path + "/" + move.live.name)
            try disk.syncDirectory(move.to.path)
        } catch {
            try? disk.rename(move.to.path + "/" + move.live.name, to: move.copy.target)
            try? disk.rename(from.doomed, to: from.live)
            try? disk.syncDirectory(move.from.path)
            throw .storage(error)
        }
    }

    private func open(in unit: LogDirectoryUnit) -> LogHandover? {
        let closed = move.partition.asClosed(isClean: move.partition.wasClosedCleanly)
        var parameters = parameters
        parameters.folder = unit.path + "/" + move.live.name
        parameters.logStartOffset = closed.logStart ?? 0
        parameters.recoveryPoint = closed.recoveryPoint ?? 0
        parameters.wasClosedCleanly = closed.isClean
        parameters.durableLowerBound = closed.durableBound
        do throws(LogError) {
            return LogHandover(log: try PartitionLog.open(parameters), highWatermark: closed.highWatermark ?? 0)
        } catch {
            logger.error(
                "a replica cannot be opened", ("partition", move.id.description), ("folder", parameters.folder),
                ("reason", "\(error)"))
            return nil
        }
    }
}
