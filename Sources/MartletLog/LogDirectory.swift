internal import MartletBasics
package import MartletModel
package import MartletReactor
internal import Synchronization

/// Who a log directory is expected to belong to; nil where that is not known yet.
package struct DirectoryOwner: Equatable, Sendable {
    package var brokerID: BrokerID?
    package var clusterID: String?

    package init(brokerID: BrokerID? = nil, clusterID: String? = nil) {
        self.brokerID = brokerID
        self.clusterID = clusterID
    }
}

/// One of the directories in `log.dirs`, open: locked against other processes, its small files read.
///
///     meta.properties                      whose it is                        MetaProperties
///     .lock                                held while it is open
///     .kafka_cleanshutdown                 there after a clean stop only      CleanShutdownMarker
///     recovery-point-offset-checkpoint     below it everything is synced      OffsetCheckpoint
///     replication-offset-checkpoint        high watermarks
///     log-start-offset-checkpoint          only where not a segment's start
///     cleaner-offset-checkpoint            first offset not yet cleaned
///     martlet-durable-offset-checkpoint    ours                               DurableOffsets
///     topic-N/                             partitions                         PartitionFolder
///
/// Opening reads everything before it changes anything, so that a directory that is refused is left as it was found,
/// its clean marker too. A checkpoint repeats what the logs say, if less exactly: one that cannot be read refuses nothing,
/// is put aside, and recovery reads more. The marker goes, durably, before the directory is handed out: whatever happens
/// afterwards, it tells no lie.
package final class LogDirectory: @unchecked Sendable {
    package enum Checkpoint: String, Sendable, CaseIterable {
        case recoveryPoint = "recovery-point-offset-checkpoint"
        case highWatermark = "replication-offset-checkpoint"
        case logStart = "log-start-offset-checkpoint"
        case cleaner = "cleaner-offset-checkpoint"
    }

    /// What was found when the directory was opened.
    package struct Found: Sendable {
        package var metaProperties: MetaProperties?
        /// Nil after an unclean stop. Then the logs must be recovered from their recovery points on.
        package var cleanStop: CleanStop?
        package var checkpoints: [Checkpoint: OffsetCheckpoint] = [:]
        /// Checkpoints that could not be read, with what is wrong with them: they count as missing, are called `.damaged`
        /// now, and are made anew by the next write.
        package var damaged: [(file: String, reason: LogError)] = []
        /// Nothing says how far the partitions had been synced, although this directory was ours.
        package var areBoundsLost = false
        /// By name.
        package var partitions: [PartitionFolder] = []
        /// Folders that are no partition's, by name: not touched.
        package var unknownFolders: [String] = []
        /// Folders of a KRaft controller's own log: not touched.
        package var metadataFolders: [String] = []

        package func offset(_ checkpoint: Checkpoint, _ partition: TopicPartition) -> Offset? {
            checkpoints[checkpoint]?[partition]
        }

        /// Whether a cleaner may have been through the partition's log; where nothing says so any more, it may.
        package func wasCleaned(_ partition: TopicPartition) -> Bool {
            offset(.cleaner, partition) != nil || damaged.contains { $0.file == Checkpoint.cleaner.rawValue }
        }
    }

    /// What a damaged small file is called, until the next one of its kind takes the name.
    package static let damagedSuffix = ".damaged"

    /// What a KRaft controller keeps its log under; no topic of a client's.
    private static let metadataTopic = "__cluster_metadata"

    package struct CleanStop: Equatable, Sendable {
        package var brokerEpoch: Int64?
        package init(brokerEpoch: Int64?) { self.brokerEpoch = brokerEpoch }
    }

    package let path: String
    package let disk: any Disk
    /// Changes by `completeMove` only, before the directory is in use.
    package private(set) var found: Found
    package let durableOffsets: DurableOffsets

    private let lockFile: any DiskLock
    private let lock = Lock()
    // Guarded by `lock`:
    private var offlineReason: LogError?
    /// The same without the lock, for who asks with each append.
    private let offline = Atomic<Bool>(false)
    private var isClosed = false
    private var meta: MetaProperties?
    /// One write of a small file at a time, for two would share a `.tmp`. Held while the disk works.
    private let writing = Mutex(())

    private init(_ path: String, _ disk: any Disk, _ lockFile: any DiskLock, _ found: Found, _ durable: DurableOffsets)
    {
        self.path = path
        self.disk = disk
        self.lockFile = lockFile
        self.found = found
        meta = found.metaProperties
        durableOffsets = durable
    }

    // MARK: Opening

    /// Opens the directory, which is made where it is not there. Blocks: while starting, or on a lane.
    package static func open(
        _ path: String, on disk: any Disk, owner: DirectoryOwner = DirectoryOwner(),
        durableOffsets settings: DurableOffsets.Settings = DurableOffsets.Settings()
    ) throws(LogError) -> LogDirectory {
        try make(path, disk)
        guard let lockFile = try onDisk({ () throws(SystemError) in try disk.lock(path + "/.lock") }) else {
            throw .directoryLocked(path: path)
        }
        do throws(LogError) {
            var found = try read(path, disk, owner)
            try putAside(found.damaged.map(\.file), path, disk)
            let (bounds, isOurs) = try openBounds(path, disk, &found)
            if found.cleanStop != nil {
                try onDisk { () throws(SystemError) in
                    try disk.remove(path + "/" + CleanShutdownMarker.fileName)
                    try disk.syncDirectory(path)
                }
            }
            let durable = DurableOffsets(disk, directory: path, found: bounds, isOurs: isOurs, settings: settings)
            return LogDirectory(path, disk, lockFile, found, durable)
        } catch {
            lockFile.close()
            throw error
        }
    }

    /// Makes the directory, durably: a power cut soon after the first start would else take it away with all that was
    /// synced in it. Folders above may belong to others, who need not let us open them; where the directory was there
    /// before, that is no reason to refuse it.
    private static func make(_ path: String, _ disk: any Disk) throws(LogError) {
        try onDisk { () throws(SystemError) in
            let wasThere = try disk.status(path) != nil
            try disk.makeDirectory(path)
            for folder in foldersAbove(path) {
                do throws(SystemError) { try disk.syncDirectory(folder) } catch {
                    if !wasThere { throw error }
                }
            }
        }
    }

    /// `.` and `data` above `data/log`; `/` and `/srv` above `/srv/log`.
    static func foldersAbove(_ path: String) -> [String] {
        let names = path.split(separator: "/").dropLast()
        let isAbsolute = path.hasPrefix("/")
        var folders = [isAbsolute ? "/" : "."]
        var folder = ""
        for name in names {
            folder += (folder.isEmpty && !isAbsolute ? "" : "/") + name
            folders.append(folder)
        }
        return folders
    }

    private static func read(_ path: String, _ disk: any Disk, _ owner: DirectoryOwner) throws(LogError) -> Found {
        var found = Found()
        if let bytes = try onDisk({ () throws(SystemError) in try disk.contents(path + "/" + MetaProperties.fileName) })
        {
            let meta = try MetaProperties.decode(bytes, path: path + "/" + MetaProperties.fileName)
            try check(meta, owner, path)
            found.metaProperties = meta
        }
        if let bytes = try onDisk({ () throws(SystemError) in
            try disk.contents(path + "/" + CleanShutdownMarker.fileName)
        }) {
            found.cleanStop = CleanStop(brokerEpoch: CleanShutdownMarker.decode(bytes))
        }
        for checkpoint in Checkpoint.allCases {
            do throws(LogError) {
                found.checkpoints[checkpoint] = try OffsetCheckpoint.read(disk, path + "/" + checkpoint.rawValue)
            } catch {
                guard case .malformedFile = error else { throw error }
                found.damaged.append((checkpoint.rawValue, error))
            }
        }
        for name in try onDisk({ () throws(SystemError) in try disk.list(path) }) {
            guard try onDisk({ () throws(SystemError) in try disk.status(path + "/" + name) })?.isDirectory == true
            else { continue }
            if let folder = PartitionFolder(parsing: name) {
                if folder.partition.topic == metadataTopic {
                    found.metadataFolders.append(name)
                } else {
                    found.partitions.append(folder)
                }
            } else {
                found.unknownFolders.append(name)
            }
        }
        return found
    }

    /// The bounds of durable offsets, and whether they are of this broker's last run. They count after an unclean stop
    /// only: a clean marker of Kafka may be newer than they are.
    ///
    /// Where nothing has to be recovered the file is made anew before anything is appended: everything below the
    /// recovery points is durable, and that the file is there says that whatever comes later is ours. Without it a
    /// power cut soon after the start would look like a folder that Kafka wrote, where a segment without its end, and
    /// the whole one after it, are taken as they are.
    ///
    /// Bounds that cannot be read say nothing, and no row of theirs is taken for one that was never there.
    private static func openBounds(_ path: String, _ disk: any Disk, _ found: inout Found) throws(LogError)
        -> (bounds: OffsetCheckpoint, isOurs: Bool)
    {
        let file = path + "/" + DurableOffsets.fileName
        let live = found.partitions.filter { $0.kind == .live }
        if found.cleanStop == nil {
            let isThere = try onDisk { () throws(SystemError) in try disk.status(file) } != nil
            guard !isThere, live.isEmpty else {
                do throws(LogError) { return (try OffsetCheckpoint.read(disk, file), isThere) } catch {
                    guard case .malformedFile = error else { throw error }
                    found.damaged.append((DurableOffsets.fileName, error))
                    found.areBoundsLost = true
                    try putAside([DurableOffsets.fileName], path, disk)
                    return (OffsetCheckpoint(), false)
                }
            }
        }
        var bounds = OffsetCheckpoint()
        for folder in live { bounds[folder.partition] = found.offset(.recoveryPoint, folder.partition) ?? 0 }
        let bytes = bounds.encode()
        try onDisk { () throws(SystemError) in try disk.replace(file, with: bytes) }
        return (bounds, true)
    }

    private static func putAside(_ names: [String], _ path: String, _ disk: any Disk) throws(LogError) {
        guard !names.isEmpty else { return }
        try onDisk { () throws(SystemError) in
            for name in names { try disk.rename(path + "/" + name, to: path + "/" + name + damagedSuffix) }
            try disk.syncDirectory(path)
        }
    }

    private static func check(_ meta: MetaProperties, _ owner: DirectoryOwner, _ path: String) throws(LogError) {
        if let expected = owner.clusterID, let found = meta.clusterID, found != expected {
            throw .wrongIdentity(path: path, what: "cluster.id", found: found, expected: expected)
        }
        if let expected = owner.brokerID, let found = meta.brokerID, found != expected {
            let key = meta.version == 0 ? "broker.id" : "node.id"
            throw .wrongIdentity(path: path, what: key, found: String(found), expected: String(expected))
        }
    }

    // MARK: Moves that were interrupted

    /// A crash ended the move of a replica into this directory between its two renames: the copy, which is complete,
    /// takes its place.
    package func completeMove(of future: PartitionFolder) throws(LogError) {
        precondition(future.kind == .future, "only a copy takes the place of another replica")
        let live = PartitionFolder(future.partition)
        try onDisk { () throws(SystemError) in
            try disk.rename(path + "/" + future.name, to: path + "/" + live.name)
            try disk.syncDirectory(path)
        }
        found.partitions.removeAll { $0 == future }
        found.partitions.append(live)
        found.partitions.sort { $0.name < $1.name }
    }

    // MARK: Whose it is

    package var metaProperties: MetaProperties? { lock.withLock { meta } }

    /// Who the broker is has been settled: the directory is checked against it, and one that is nobody's becomes this
    /// broker's.
    package func claim(brokerID: BrokerID, clusterID: String, wallMilliseconds: Int64) throws(LogError) {
        if let meta = metaProperties {
            try Self.check(meta, DirectoryOwner(brokerID: brokerID, clusterID: clusterID), path)
            if meta.brokerID != nil, meta.clusterID != nil { return }
        }
        let own = MetaProperties(brokerID: brokerID, clusterID: clusterID, wallMilliseconds: wallMilliseconds)
        try write(MetaProperties.fileName, own.encode())
        lock.withLock { meta = own }
    }

    // MARK: Writing

    /// Replaces a checkpoint as a whole: the offsets of all partitions that are to be in it. On a lane.
    package func write(_ checkpoint: Checkpoint, _ offsets: OffsetCheckpoint) throws(LogError) {
        try write(checkpoint.rawValue, offsets.encode())
    }

    private func write(_ name: String, _ bytes: [UInt8]) throws(LogError) {
        try lock.withLock { () throws(LogError) in
            if isClosed { throw .closed("the log directory \(path)") }
            if let offlineReason { throw .directoryOffline(path: path, reason: "\(offlineReason)") }
        }
        do throws(LogError) {
            try writing.withLock { (_) throws(LogError) in
                try onDisk { () throws(SystemError) in try disk.replace(path + "/" + name, with: bytes) }
            }
        } catch {
            // a full disk is waited out: the file before is still there, and says less
            if error.isFullDisk { throw error }
            takeOffline(error)
            throw error
        }
    }

    // MARK: Offline

    /// Why the directory can be used no more; nil while it can.
    package var reasonOffline: LogError? { lock.withLock { offlineReason } }
    package var isOffline: Bool { offline.load(ordering: .acquiring) }

    /// The disk failed under the directory. The first reason stays. True for the first call, which has to tell
    /// everybody.
    @discardableResult
    package func takeOffline(_ reason: LogError) -> Bool {
        lock.withLock {
            guard offlineReason == nil else { return false }
            offlineReason = reason
            offline.store(true, ordering: .releasing)
            return true
        }
    }

    // MARK: Closing

    /// All logs are closed and synced and their checkpoints written: the next start need not read them. An offline
    /// directory is closed without saying so.
    package func closeCleanly(brokerEpoch: Int64) throws(LogError) {
        if isOffline { return close() }
        defer { close() }
        try durableOffsets.close(removingFile: true)
        try write(CleanShutdownMarker.fileName, CleanShutdownMarker.encode(brokerEpoch: brokerEpoch))
    }

    /// Gives up the lock and says nothing on disk: the next start recovers.
    package func close() {
        let isFirst = lock.withLock {
            defer { isClosed = true }
            return !isClosed
        }
        guard isFirst else { return }
        // closing writes nothing, so it cannot fail
        try? durableOffsets.close(removingFile: false)
        lockFile.close()
    }
}
