import MartletBasics
import MartletLog
import MartletModel
import MartletReactor

/// Compacts the logs of this broker, `log.cleaner.threads` of them at a time.
///
///     look        every `log.cleaner.backoff.ms`, and after each cleaning: the log with the largest share that no cleaning
///                 has looked at, if that is above its `min.cleanable.dirty.ratio`, or too old
///     prepare     its row in the checkpoint of the cleaner; the recovery point above all that is to be exchanged; the plan
///     clean       `LogCleaning`, piece by piece
///     end         its new row
///
/// All of that is done on the lane for what takes long, a piece of some milliseconds at a time, and between two pieces the
/// cleaner may have to wait: for what `log.cleaner.io.max.bytes.per.second` allows to all cleanings together. A replica that
/// goes, moves, or is cut is let alone at the next piece. One whose files cannot be read is said, and not tried again until
/// its log is another.
///
/// Confined to the first loop.
final class LogCleaner: @unchecked Sendable {
    /// Read and written in one piece.
    private static let pieceBytes = 4 << 20
    private static let laneRetryDelay = Interval.milliseconds(100)
    /// A piece is not so large that its share of the time is longer.
    private static let longestPiece = Interval.milliseconds(250)
    /// A cleaning that waits looks this often whether the broker stops.
    private static let waitStep = Interval.milliseconds(50)
    static let mapBytesLeast: Int64 = 1 << 20

    private unowned let host: ReplicaHost
    private var atWork: [TopicPartition: LogCleaning?] = [:]
    private var isLooking = false
    /// Before this nothing is read or written.
    private var nextPiece: Instant

    init(_ host: ReplicaHost) {
        self.host = host
        nextPiece = host.clock.now
    }

    /// Whether a piece of work may be at the disk.
    var isWorking: Bool { isLooking || !atWork.isEmpty }
    var cleaningsCount: Int { atWork.count }

    private var loop: any EventLoop { host.host.loops[0] }
    private func setting(_ name: String) -> Int64 { host.config.settings.int64(name) }
    private var threads: Int { Int(setting("log.cleaner.threads")) }

    func start() {
        guard host.config.settings.bool("log.cleaner.enable") else { return }
        again()
    }

    private func again() {
        loop.schedule(after: .milliseconds(max(setting("log.cleaner.backoff.ms"), 1))) { [weak host] in
            guard let host, !host.isClosed else { return }
            host.cleaner.look()
            host.cleaner.again()
        }
    }

    // MARK: Looking

    private struct Look: Sendable {
        var best: Partition?
        var retired: [(paths: [String], delay: Interval)] = []
    }

    private func look() {
        guard !host.isClosed, !isLooking, atWork.count < threads else { return }
        let candidates = host.topics.table.sorted.filter { $0.config.cleanupPolicy.contains(.compact) }.flatMap(\.partitions)
            .filter { atWork[$0.id] == nil && host.moves[$0.id] == nil && !$0.isOffline }
        guard !candidates.isEmpty else { return }
        let (now, logger) = (host.clock.wallMilliseconds, host.logger)
        isLooking = host.bulk.submit({ Self.find(candidates, now, logger) }, on: loop) { [weak host] found in
            guard let host else { return }
            host.cleaner.isLooking = false
            for retired in found.retired { host.removeLater(retired.paths, after: retired.delay) }
            guard let best = found.best, !host.isClosed else { return }
            host.cleaner.prepare(best)
            host.cleaner.look()
        }
    }

    /// On the lane.
    private static func find(_ candidates: [Partition], _ now: Int64, _ logger: Logger) -> Look {
        var look = Look()
        var share = -1.0
        for partition in candidates where !partition.isUncleanable {
            do throws(LogError) {
                let config = partition.topicConfig
                if config.cleanupPolicy.contains(.delete) {
                    // as Kafka does: a log that is both compacted and deleted from is the cleaner's
                    let paths = try partition.applyRetention(now: now)
                    if !paths.isEmpty { look.retired.append((paths, .milliseconds(config.fileDeleteDelayMs))) }
                }
                guard let found = try partition.lookForCleaning(now: now),
                    found.isDue(minimumRatio: config.minCleanableDirtyRatio), found.dirtyRatio > share
                else { continue }
                share = found.dirtyRatio
                look.best = partition
            } catch {
                blame(error, partition, logger)
            }
        }
        return look
    }

    private static func blame(_ error: LogError, _ partition: Partition, _ logger: Logger) {
        if case .closed = error { return }
        // of a directory that is offline everybody has heard
        if case .directoryOffline = error { return }
        if error.takesDirectoryOffline { return partition.directory.writeFailed(error, partition.id) }
        partition.noteUncleanable("\(error)")
        logger.error(
            "a partition cannot be compacted, and is left as it is until its log is another",
            ("partition", partition.id.description), ("reason", "\(error)"))
    }

    // MARK: One cleaning

    private func limits() -> CleaningLimits {
        var limits = CleaningLimits()
        limits.mapBytes = Int(clamping: max(setting("log.cleaner.dedupe.buffer.size") / Int64(threads), Self.mapBytesLeast))
        limits.bufferBytes = Int(clamping: setting("log.cleaner.io.buffer.size") / Int64(threads))
        limits.mapLoadFactor = host.config.settings.double("log.cleaner.io.buffer.load.factor")
        return limits
    }

    private func prepare(_ partition: Partition) {
        let (topics, now, limits) = (host.topics, host.clock.wallMilliseconds, limits())
        let secret = (host.host.randomSeed(), host.host.randomSeed())
        atWork[partition.id] = .some(nil)
        onLane(partition) { () -> Result<LogCleaning?, LogError> in
            do throws(LogError) {
                guard let plan = try partition.planCleaning(now: now) else { return .success(nil) }
                let unit = partition.directory
                try unit.prepareCleaning(of: partition.id, from: plan.cleanability.firstDirty)
                if let error = ReplicaHost.write(.recoveryPoint, unit, topics) { throw error }
                guard let point = unit.row(.recoveryPoint, partition.id), point >= plan.neededRecoveryPoint else {
                    return .success(nil)
                }
                return .success(LogCleaning(plan, access: partition, limits: limits, secret: secret))
            } catch { return .failure(error) }
        } then: { cleaner, result in
            switch result {
            case .success(let cleaning?):
                cleaner.atWork[partition.id] = .some(cleaning)
                cleaner.goOn(cleaning, partition)
            case .success(nil): cleaner.end(partition)
            case .failure(let error): cleaner.fail(error, partition)
            }
        }
    }

    /// Does the next piece when it may.
    private func goOn(_ cleaning: LogCleaning, _ partition: Partition) {
        let wait = nextPiece - host.clock.now
        guard wait <= .zero else {
            loop.schedule(after: min(wait, Self.waitStep)) { [weak host] in host?.cleaner.goOn(cleaning, partition) }
            return
        }
        guard !host.isClosed, host.topics.partition(partition.id) === partition, host.moves[partition.id] == nil else {
            cleaning.abandon()
            return end(partition)
        }
        let rate = host.config.settings.double("log.cleaner.io.max.bytes.per.second")
        let seconds = Double(Self.longestPiece.nanoseconds) / 1e9
        let bytes = Int(min(Double(Self.pieceBytes), max(rate * seconds, 1)))
        let (before, activity) = (cleaning.figures, host.activity)
        let now = host.clock.wallMilliseconds
        onLane(partition) { () -> Result<LogCleaning.Outcome, LogError> in
            do throws(LogError) {
                let outcome = try cleaning.advance(atMost: bytes)
                if case .finished = outcome { try partition.cleaned(cleaning, now: now) }
                return .success(outcome)
            } catch { return .failure(error) }
        } then: { cleaner, result in
            activity.noteCleaning(from: before, to: cleaning.figures)
            cleaner.charge(cleaning.figures, since: before, rate)
            cleaner.host.removeLater(
                cleaning.takeRetiredPaths(), after: .milliseconds(partition.topicConfig.fileDeleteDelayMs))
            switch result {
            case .success(.working): cleaner.goOn(cleaning, partition)
            case .success(.overtaken): cleaner.end(partition)
            case .success(.finished): cleaner.finish(cleaning, partition)
            case .failure(let error): cleaner.fail(error, partition)
            }
        }
    }

    private func charge(_ figures: CleaningFigures, since before: CleaningFigures, _ rate: Double) {
        let bytes = figures.readBytes + figures.writtenBytes - before.readBytes - before.writtenBytes
        let seconds = min(Double(bytes) / max(rate, 1), 3600)
        nextPiece = max(nextPiece, host.clock.now) + .nanoseconds(Int64(seconds * 1e9))
    }

    private func finish(_ cleaning: LogCleaning, _ partition: Partition) {
        let figures = cleaning.figures
        host.activity.noteCleaned()
        host.logger.info(
            "compacted", ("partition", partition.id.description), ("from", "\(cleaning.plan.cleanability.firstDirty)"),
            ("to", "\(cleaning.endOffset)"), ("bytes", "\(figures.oldBytes)"), ("now", "\(figures.newBytes)"),
            ("dropped", "\(figures.droppedRecords)"), ("kept", "\(figures.keptRecords)"), ("keys", "\(figures.keys)"))
        end(partition)
        look()
    }

    private func fail(_ error: LogError, _ partition: Partition) {
        Self.blame(error, partition, host.logger)
        end(partition)
    }

    private func end(_ partition: Partition) { atWork[partition.id] = nil }

    /// A full lane is waited for.
    private func onLane<R: Sendable>(
        _ partition: Partition, _ work: @escaping @Sendable () -> R,
        then completion: @escaping @Sendable (LogCleaner, R) -> Void
    ) {
        let isTaken = host.bulk.submit(work, on: loop) { [weak host] result in
            if let host { completion(host.cleaner, result) }
        }
        guard !isTaken else { return }
        guard !host.isClosed else { return end(partition) }
        loop.schedule(after: Self.laneRetryDelay) { [weak host] in
            host?.cleaner.onLane(partition, work, then: completion)
        }
    }
}
