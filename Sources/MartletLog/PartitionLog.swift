package import MartletBasics
package import MartletModel
package import MartletReactor

/// What a log is opened with. The offsets come from the directory's checkpoints.
package struct LogParameters {
    package var partition: TopicPartition
    /// The partition's folder, without a slash at the end.
    package var folder: String
    package var config: TopicConfig
    package var disk: any Disk
    package var descriptors: DescriptorCache
    package var clock: any Clock
    package var logger: Logger
    /// For the jitter of segment ages.
    package var seed: UInt64 = 0
    /// From `log-start-offset-checkpoint`, where that has the partition.
    package var logStartOffset: Offset = 0
    /// From `recovery-point-offset-checkpoint`, where that has the partition.
    package var recoveryPoint: Offset = 0
    /// Whether the directory was closed cleanly: then nothing is scanned.
    package var wasClosedCleanly = false
    /// Everything below was synced and is on the disk, unless it was damaged since. Nil for a directory that Kafka
    /// wrote.
    package var durableLowerBound: Offset?
    /// The directory is ours, and the file that says how far it had been synced could not be read.
    package var isBoundLost = false
    /// Whether a compaction may have left gaps between segments: where the topic is compacted, or the partition has a
    /// row in `cleaner-offset-checkpoint`.
    package var mayHaveGaps: Bool
    /// Where recovery puts aside what it cuts.
    package var cutDirectory: String
    /// Where what the log does is counted.
    package var activity = LogActivity()
    package var planted: PlantedBugs = []

    package init(
        partition: TopicPartition, folder: String, config: TopicConfig, disk: any Disk, descriptors: DescriptorCache,
        clock: any Clock, logger: Logger, cutDirectory: String
    ) {
        self.partition = partition
        self.folder = folder
        self.config = config
        self.disk = disk
        self.descriptors = descriptors
        self.clock = clock
        self.logger = logger
        self.cutDirectory = cutDirectory
        mayHaveGaps = config.cleanupPolicy.contains(.compact)
    }
}

/// The offsets that a log owns, in their order: *log start ≤ recovery point ≤ durable ≤ log end*.
package struct LogOffsets: Equatable, Sendable {
    /// The first record that readers get.
    package private(set) var logStart: Offset
    /// Recovery after a crash begins at the segment that holds it: below, batches and their indexes are on the disk.
    package private(set) var recoveryPoint: Offset
    /// Everything below was synced.
    package private(set) var durable: Offset
    /// The offset of the next record to be published.
    package private(set) var logEnd: Offset

    init(logStart: Offset, recoveryPoint: Offset, durable: Offset, logEnd: Offset) {
        self.logStart = logStart
        self.recoveryPoint = recoveryPoint
        self.durable = durable
        self.logEnd = logEnd
        assertOrder()
    }

    /// The one setter.
    mutating func set(
        logStart: Offset? = nil, recoveryPoint: Offset? = nil, durable: Offset? = nil, logEnd: Offset? = nil
    ) {
        self.logStart = logStart ?? self.logStart
        self.recoveryPoint = recoveryPoint ?? self.recoveryPoint
        self.durable = durable ?? self.durable
        self.logEnd = logEnd ?? self.logEnd
        assertOrder()
    }

    private func assertOrder() {
        precondition(logStart >= 0, "a log starts at an offset")
        precondition(logStart <= recoveryPoint, "what lies below the log start needs no recovery")
        precondition(recoveryPoint <= durable, "only what is durable is not recovered")
        precondition(durable <= logEnd, "only what is in the log is durable")
    }
}

/// The segmented log of one partition.
///
///     topic-0/00000000000000000000.log .index .timeindex [.txnindex]   LogSegment, SparseIndexes, TransactionIndex
///            /00000000000000000117.log …                               the active segment, the last
///            /00000000000000000117.snapshot                            ProducerStateTable, as before that offset
///            /leader-epoch-checkpoint  partition.metadata              LeaderEpochHistory, PartitionMetadata
///
/// Not thread-safe: the lock of the replica that owns it guards every call, save `PendingWrite.perform`.
///
/// **An append has three steps**: *reserve* gives offsets, *write* puts the bytes of all reservations into the file,
/// *publish* lets readers see them. `writeReserved` does the last two at once; `beginWrite` and `finishWrite` part
/// them, so that the write can run elsewhere. A write that fails takes every reservation with it that is not published,
/// and the log is as it was before them.
///
/// *Open*: can become *closed* (`close`), or *broken* (a sync failed, or what a failed write left could not be
/// removed): then nothing is appended any more, and only opening it again, with its recovery, helps.
package final class PartitionLog {
    package let partition: TopicPartition
    package let folder: String
    /// The resolved settings of the topic; may change at any time.
    package var config: TopicConfig
    let disk: any Disk
    let files: LogFiles
    let clock: any Clock
    let logger: Logger
    let activity: LogActivity
    package let planted: PlantedBugs
    var random: SeededRandom

    /// Never empty between calls once opened; by base offset; the last one is active.
    var segments: [LogSegment] = []
    package internal(set) var offsets: LogOffsets
    /// The next offset that a reservation gets: the log end and what is reserved.
    package internal(set) var reservedEnd: Offset
    package internal(set) var producers = ProducerStateTable()
    package internal(set) var epochs = LeaderEpochHistory()
    var epochFile = EpochFile.saved
    /// The file of leader epochs is missing or damaged: what it said is taken from the batches.
    var lacksEpochs = false
    /// From `partition.metadata`.
    package internal(set) var topicID: UUID?

    // appends: `PartitionLog+Append.swift`
    var pending = WriteGroup()
    var inFlight: WriteGroup?
    var recent = RecentBatches()
    /// Segments before the active one whose files have not got their final form yet.
    var unsealedCount = 0
    /// The first segment that got it since a take: its files are not synced.
    var sealedUnsynced: Offset?
    /// What was appended since the log was opened.
    var grownBytes = 0

    // syncing: `PartitionLog+Sync.swift`
    var unsyncedFiles: [any DiskFile] = []
    var unsyncedFolders: [String] = []
    var unsyncedBytes = 0
    var activeIsUnsynced = false
    /// The first error beside an append that does not pass: the next sync's to tell.
    var refusal: LogError?
    /// Raised by each truncation.
    package internal(set) var generation: UInt64 = 0

    // cleaning: `Cleaning/PartitionLog+Clean.swift`
    var swap: SegmentSwap?
    /// Raised by each exchange of segments for a cleaned one.
    package internal(set) var exchanges: UInt64 = 0

    enum Condition {
        case open, closed
        case broken(String)
    }
    var condition = Condition.open

    init(_ parameters: LogParameters) {
        partition = parameters.partition
        folder = parameters.folder
        config = parameters.config
        disk = parameters.disk
        files = LogFiles(disk: parameters.disk, descriptors: parameters.descriptors)
        clock = parameters.clock
        logger = parameters.logger
        activity = parameters.activity
        planted = parameters.planted
        random = SeededRandom(seed: parameters.seed)
        let start = max(parameters.logStartOffset, 0)
        offsets = LogOffsets(logStart: start, recoveryPoint: start, durable: start, logEnd: start)
        reservedEnd = start
    }

    package var logStartOffset: Offset { offsets.logStart }
    package var logEndOffset: Offset { offsets.logEnd }
    package var durableOffset: Offset { offsets.durable }
    package var recoveryPoint: Offset { offsets.recoveryPoint }

    var active: LogSegment { segments[segments.count - 1] }

    package var segmentCount: Int { segments.count }
    /// Bytes of all published batches.
    package var size: Int64 { segments.reduce(0) { $0 + Int64($1.size) } }
    /// The base offset of the segment that is written to: nothing at or above it is compacted.
    package var activeSegmentBase: Offset { active.baseOffset }
    /// Whether something was reserved that is not published.
    package var hasReservations: Bool { !pending.isEmpty || inFlight != nil }

    func requireOpen() throws(LogError) {
        switch condition {
        case .open: return
        case .closed: throw .closed("the log of \(partition)")
        case .broken(let reason): throw .directoryOffline(path: folder, reason: reason)
        }
    }

    /// Nothing is appended any more; what is published can still be read.
    func breakDown(_ reason: String) {
        guard case .open = condition else { return }
        condition = .broken(reason)
        logger.error(
            "the log takes no more records until it is opened again", ("partition", "\(partition)"), ("reason", reason))
    }

    /// The place in `segments` of the last one that begins at or before the offset; 0 where all begin after it.
    func segmentIndex(of offset: Offset) -> Int {
        // tailing readers and appends want the last one
        if active.baseOffset <= offset { return segments.count - 1 }
        let after = partitionPoint(segments.count) { segments[$0].baseOffset <= offset }
        return max(after - 1, 0)
    }

    /// Where the segment at this place ends for readers: where the next one begins.
    func upperBound(_ index: Int) -> Offset {
        index + 1 < segments.count ? min(segments[index + 1].baseOffset, offsets.logEnd) : offsets.logEnd
    }

    /// A new segment at the end; its name becomes durable with the next sync.
    func addSegment(at baseOffset: Offset) throws(LogError) {
        let segment = LogSegment(
            baseOffset: baseOffset, folder: folder, createdMilliseconds: clock.wallMilliseconds,
            jitterMilliseconds: nextJitter())
        // what a crash or a failed roll left under the same names holds nothing
        for kind in SegmentFile.allCases where kind != .snapshot { try files.remove(segment.path(kind)) }
        do throws(LogError) { try segment.make(files, indexBytes: Int(config.segmentIndexBytes)) } catch {
            // an empty segment that is left behind would be taken for the log's end by the next start
            try? removeFiles(of: segment)
            if (try? files.status(segment.path(.log))) != .some(nil) {
                breakDown("a segment that could not be made could not be removed either: \(error)")
            }
            throw error
        }
        segments.append(segment)
        noteFolderChanged()
        activeIsUnsynced = true
    }

    /// Removes a segment that has left the list, but for the snapshot at its start.
    func removeFiles(of segment: LogSegment) throws(LogError) {
        segment.close()
        segment.forgetFiles(files)
        for kind in SegmentFile.allCases where kind != .snapshot { try files.remove(segment.path(kind)) }
        noteFolderChanged()
    }

    func nextJitter() -> Int64 {
        let limit = min(max(config.segmentJitterMs, 0), max(config.segmentMs, 0))
        return limit == 0 ? 0 : Int64.random(in: 0..<limit, using: &random)
    }

    func noteFolderChanged() {
        if !unsyncedFolders.contains(folder) { unsyncedFolders.append(folder) }
    }

    func snapshotPath(_ offset: Offset) -> String { SegmentFile.snapshot.path(folder, offset) }
    var epochPath: String { folder + "/" + LeaderEpochHistory.fileName }
}
