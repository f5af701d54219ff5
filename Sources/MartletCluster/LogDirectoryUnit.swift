package import MartletLog
internal import MartletModel
package import MartletReactor
package import MartletBasics
internal import Synchronization

/// What has to be remembered of a replica that lies in a log directory and is not open: it was found at the start and
/// nobody has asked for it yet, it could not be opened, or it was stopped.
struct ClosedReplica: Equatable {
    var recoveryPoint: Offset?
    var highWatermark: Offset?
    var logStart: Offset?
    /// Nothing need be scanned when it is opened.
    var isClean: Bool
    /// Everything below is on the disk; nil where nothing is known.
    var durableBound: Offset?

    subscript(_ checkpoint: LogDirectory.Checkpoint) -> Offset? {
        switch checkpoint {
        case .recoveryPoint: recoveryPoint
        case .highWatermark: highWatermark
        case .logStart: logStart
        case .cleaner: nil
        }
    }

    mutating func forgetOffsets() {
        (recoveryPoint, highWatermark, logStart, durableBound) = (nil, nil, nil, nil)
    }
}

/// A log directory while the broker runs: what was opened, and the syncer that all of its partitions share.
///
/// **Checkpoints.** A row is written from time to time with what a partition says, and must never say more than what is
/// on the disk: before a log goes back, or goes, its rows are lowered, durably (`lower`). A periodic write that had
/// asked the partitions before that is thrown away and asks again. Locks are taken in one order: a partition's,
/// `writing`, `lock`.
package final class LogDirectoryUnit: @unchecked Sendable {
    /// The same complaint is made at most this often while a disk is full.
    private static let complaintInterval = Interval.seconds(10)

    package let directory: LogDirectory
    package let syncer: Syncer
    /// Its partitions in which something has its time.
    package let timed = TimedPartitions()
    private let bulk: any Lane
    private let loop: any EventLoop
    private let logger: Logger
    private let clock: any Clock
    /// Told, once, that the directory can be used no more.
    private let onFailure: @Sendable (LogDirectoryUnit, LogError) -> Void
    /// Told, on the first loop, that partitions went offline: once for all that do so at a time.
    private let onOffline: @Sendable () -> Void
    /// A periodic checkpoint gives up, until the next, when rows were lowered under it this often.
    private static let checkpointTries = 16

    /// Held while a checkpoint is written; what the files say.
    private let writing: Mutex<[LogDirectory.Checkpoint: OffsetCheckpoint]>
    private let lock = Lock()
    // guarded by the lock:
    private var lastComplaint: Instant?
    private var hasFailed = false
    private var willTellOffline = false
    /// Live partition folders that lie here.
    private var folders: Set<String>
    /// Of these, the ones that are not open.
    private var closed: [TopicPartition: ClosedReplica] = [:]
    /// How often rows were lowered.
    private var lowerings: UInt64 = 0
    /// What the checkpoint of the cleaner says: a loop must not wait for who writes it.
    private var cleanerRows: OffsetCheckpoint

    package init(
        _ directory: LogDirectory, syncer: Syncer, bulk: any Lane, loop: any EventLoop, clock: any Clock, logger: Logger,
        onFailure: @escaping @Sendable (LogDirectoryUnit, LogError) -> Void, onOffline: @escaping @Sendable () -> Void = {}
    ) {
        self.directory = directory
        self.syncer = syncer
        self.bulk = bulk
        self.loop = loop
        let found = directory.found
        let live = found.partitions.filter { $0.kind == .live }
        folders = Set(live.map(\.name))
        writing = Mutex(found.checkpoints)
        cleanerRows = found.checkpoints[.cleaner] ?? OffsetCheckpoint()
        for folder in live {
            closed[folder.partition] = ClosedReplica(
                recoveryPoint: found.offset(.recoveryPoint, folder.partition),
                highWatermark: found.offset(.highWatermark, folder.partition),
                logStart: found.offset(.logStart, folder.partition), isClean: found.cleanStop != nil,
                durableBound: directory.durableOffsets.bound(of: folder.partition))
        }
        self.clock = clock
        self.logger = logger
        self.onFailure = onFailure
        self.onOffline = onOffline
    }

    package var path: String { directory.path }

    // MARK: What lies here

    func holds(_ folder: PartitionFolder) -> Bool { lock.withLock { folders.contains(folder.name) } }
    func add(_ folder: PartitionFolder) { lock.withLock { _ = folders.insert(folder.name) } }
    var folderCount: Int { lock.withLock { folders.count } }

    func forget(_ folder: PartitionFolder) {
        lock.withLock {
            folders.remove(folder.name)
            closed[folder.partition] = nil
        }
    }

    /// What is known of a replica that is about to be opened. From here on it counts as not closed cleanly, and its
    /// rows stay in the checkpoints, until it is `opened`.
    func beginOpening(_ partition: TopicPartition) -> ClosedReplica {
        lock.withLock {
            let known = closed[partition] ?? ClosedReplica(isClean: false)
            closed[partition]?.isClean = false
            return known
        }
    }

    /// It speaks for itself from now on.
    func opened(_ partition: TopicPartition) { lock.withLock { closed[partition] = nil } }

    func keep(_ partition: TopicPartition, _ replica: ClosedReplica) { lock.withLock { closed[partition] = replica } }

    /// Whether a marker of a clean stop would be true of those that are not open.
    var isEveryClosedReplicaClean: Bool { lock.withLock { closed.values.allSatisfy(\.isClean) } }

    // MARK: Checkpoints

    /// Writes a checkpoint: the rows of what is open, as `live` says, and of what is not. False where rows were lowered
    /// meanwhile, again and again. On a lane.
    @discardableResult
    func write(_ checkpoint: LogDirectory.Checkpoint, live: () -> OffsetCheckpoint) throws(LogError) -> Bool {
        for _ in 0..<Self.checkpointTries {
            let before = lock.withLock { lowerings }
            let open = live()
            let isWritten = try writing.withLock { (written) throws(LogError) -> Bool in
                let offsets = lock.withLock { lowerings == before ? rows(checkpoint, open) : nil }
                guard let offsets else { return false }
                if written[checkpoint] != offsets { try directory.write(checkpoint, offsets) }
                written[checkpoint] = offsets
                return true
            }
            if isWritten { return true }
        }
        return false
    }

    private func rows(_ checkpoint: LogDirectory.Checkpoint, _ open: OffsetCheckpoint) -> OffsetCheckpoint {
        var offsets = OffsetCheckpoint()
        for (partition, replica) in closed { offsets[partition] = replica[checkpoint] }
        for (partition, offset) in open.offsets { offsets[partition] = offset }
        return offsets
    }

    /// What a checkpoint's file says of a partition.
    func row(_ checkpoint: LogDirectory.Checkpoint, _ partition: TopicPartition) -> Offset? {
        writing.withLock { $0[checkpoint]?[partition] }
    }

    /// What was cleaned, by partition.
    var cleaned: OffsetCheckpoint { lock.withLock { cleanerRows } }

    private func noteWritten(_ checkpoint: LogDirectory.Checkpoint, _ rows: OffsetCheckpoint) {
        if checkpoint == .cleaner { lock.withLock { cleanerRows = rows } }
    }

    /// How often rows were lowered so far.
    var loweringsSoFar: UInt64 { lock.withLock { lowerings } }

    /// Changes rows of a checkpoint that nobody writes from time to time. On a lane.
    func change(_ checkpoint: LogDirectory.Checkpoint, _ body: (inout OffsetCheckpoint) -> Void) throws(LogError) {
        try writing.withLock { (written) throws(LogError) in
            var rows = written[checkpoint] ?? OffsetCheckpoint()
            body(&rows)
            guard rows != written[checkpoint] else { return }
            try directory.write(checkpoint, rows)
            written[checkpoint] = rows
            noteWritten(checkpoint, rows)
        }
    }

    func lower(_ partition: TopicPartition, to offset: Offset?) throws(LogError) { try lower([partition], to: offset) }

    /// Logs are about to end at `offset`, or (nil) to go, or to be made anew: no file here says more of them when this
    /// returns. Each file is written once for all of them, and only where it does.
    func lower(_ partitions: [TopicPartition], to offset: Offset?) throws(LogError) {
        try directory.durableOffsets.lower(partitions, to: offset)
        try writing.withLock { (written) throws(LogError) in
            lock.withLock {
                lowerings += 1
                guard offset == nil else { return }
                for partition in partitions { closed[partition]?.forgetOffsets() }
            }
            for checkpoint in [LogDirectory.Checkpoint.highWatermark, .recoveryPoint, .logStart, .cleaner] {
                guard var lowered = written[checkpoint] else { continue }
                let above = partitions.filter { lowered[$0].map { $0 > offset ?? -1 } ?? false }
                guard !above.isEmpty else { continue }
                for partition in above { lowered[partition] = offset }
                try directory.write(checkpoint, lowered)
                written[checkpoint] = lowered
                noteWritten(checkpoint, lowered)
            }
        }
    }

    // MARK: Faults

    /// A sync cycle made some log durable further up: the lower bound on disk follows within its interval.
    func durableRaised() {
        directory.durableOffsets.raised(lane: bulk, loop: loop) { [weak self] error in self?.refused(error) { "the lower bound of durable offsets is not raised" } }
    }

    /// A partition serves nothing any more. Whoever decides about leaders has to hear of it.
    func partitionFailed() {
        let isFirst = lock.withLock {
            defer { willTellOffline = true }
            return !willTellOffline
        }
        guard isFirst else { return }
        loop.execute { [self] in
            lock.withLock { willTellOffline = false }
            onOffline()
        }
    }

    /// A small file could not be replaced, and the one before is still there; or something could not be read. What passes
    /// is waited out.
    func refused(_ error: LogError, _ what: () -> String) {
        guard error.passes else { return failed(error) }
        complain(what(), error)
    }

    /// The disk failed under it: all of its partitions go offline.
    package func failed(_ error: LogError) {
        // the directory may have noticed by itself
        directory.takeOffline(error)
        let isFirst = lock.withLock {
            defer { hasFailed = true }
            return !hasFailed
        }
        guard isFirst else { return }
        logger.error("log directory offline", ("directory", path), ("reason", "\(error)"))
        onFailure(self, error)
    }

    /// A write failed and was taken back. A full disk is waited out: what is there is served, and writes succeed again
    /// when there is room; so is a process that has no descriptor left. Anything else takes the directory offline.
    func writeFailed(_ error: LogError, _ partition: TopicPartition) {
        guard error.passes else { return failed(error) }
        guard error.isFullDisk else {
            return complain("no file can be opened: produce requests are refused", error, ("partition", partition.description))
        }
        complain(
            "the disk is full: produce requests are refused until there is room; free some, or lower retention.bytes or retention.ms",
            error, ("partition", partition.description))
    }

    private func complain(_ message: String, _ error: LogError, _ field: (String, String)? = nil) {
        let now = clock.now
        let mustSay = lock.withLock {
            if let lastComplaint, now - lastComplaint < Self.complaintInterval { return false }
            lastComplaint = now
            return true
        }
        guard mustSay else { return }
        if let field {
            logger.error(message, ("directory", path), field, ("reason", "\(error)"))
        } else {
            logger.error(message, ("directory", path), ("reason", "\(error)"))
        }
    }
}
