package import MartletLog
internal import MartletModel
package import MartletReactor
package import MartletBasics

/// A log directory while the broker runs: what was opened, and the syncer that all of its partitions share.
package final class LogDirectoryUnit: @unchecked Sendable {
    /// The same complaint is made at most this often while a disk is full.
    private static let complaintInterval = Interval.seconds(10)

    package let directory: LogDirectory
    package let syncer: Syncer
    private let bulk: any Lane
    private let loop: any EventLoop
    private let logger: Logger
    private let clock: any Clock
    /// Told, once, that the directory can be used no more.
    private let onFailure: @Sendable (LogDirectoryUnit, LogError) -> Void
    private let lock = Lock()
    // guarded by the lock:
    private var lastComplaint: Instant?
    private var hasMovedLogStart = false
    /// Live partition folders that lie here.
    private var folders: Set<String>
    /// Those found at the start that were not opened yet: what the clean marker says counts for the first opening alone.
    private var unopened: Set<TopicPartition>

    package init(
        _ directory: LogDirectory, syncer: Syncer, bulk: any Lane, loop: any EventLoop, clock: any Clock, logger: Logger,
        onFailure: @escaping @Sendable (LogDirectoryUnit, LogError) -> Void
    ) {
        self.directory = directory
        self.syncer = syncer
        self.bulk = bulk
        self.loop = loop
        let live = directory.found.partitions.filter { $0.kind == .live }
        folders = Set(live.map(\.name))
        unopened = Set(live.map(\.partition))
        self.clock = clock
        self.logger = logger
        self.onFailure = onFailure
    }

    package var path: String { directory.path }

    func holds(_ folder: PartitionFolder) -> Bool { lock.withLock { folders.contains(folder.name) } }
    func add(_ folder: PartitionFolder) { lock.withLock { _ = folders.insert(folder.name) } }
    func forget(_ folder: PartitionFolder) { lock.withLock { _ = folders.remove(folder.name) } }

    /// Whether this is the first opening of a partition that was found at the start.
    func takeFirstOpening(of partition: TopicPartition) -> Bool { lock.withLock { unopened.remove(partition) != nil } }

    /// A sync cycle made some log durable further up: the lower bound on disk follows within its interval.
    func durableRaised() {
        directory.durableOffsets.raised(lane: bulk, loop: loop) { [weak self] error in self?.failed(error) }
    }

    /// The disk failed under it: all of its partitions go offline.
    package func failed(_ error: LogError) {
        guard directory.takeOffline(error) else { return }
        logger.error("log directory offline", ("directory", path), ("reason", "\(error)"))
        onFailure(self, error)
    }

    /// A write failed and was taken back. A full disk is waited out: what is there is served, and writes succeed again when there is room.
    /// Anything else takes the directory offline.
    func writeFailed(_ error: LogError, _ partition: TopicPartition) {
        guard case .storage(let cause) = error, cause.kind == .noSpace else { return failed(error) }
        let now = clock.now
        let mustSay = lock.withLock {
            if let lastComplaint, now - lastComplaint < Self.complaintInterval { return false }
            lastComplaint = now
            return true
        }
        guard mustSay else { return }
        logger.error(
            "the disk is full: produce requests are refused until there is room; free some, or lower retention.bytes or retention.ms",
            ("directory", path), ("partition", partition.description), ("reason", cause.description))
    }

    /// A partition's log start moved by request: the checkpoint is to be written soon.
    func logStartMoved() { lock.withLock { hasMovedLogStart = true } }

    /// Whether a log start has moved since the last call.
    package func takeMovedLogStart() -> Bool {
        lock.withLock {
            defer { hasMovedLogStart = false }
            return hasMovedLogStart
        }
    }
}
