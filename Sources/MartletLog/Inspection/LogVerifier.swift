internal import MartletBasics
internal import MartletModel
package import MartletReactor

/// Checks directories that hold logs in Kafka's format, every byte of them: checksums, framing, offsets, indexes, transaction
/// indexes, producer snapshots, checkpoints, leader epochs. Reads, takes no lock, and writes nothing.
///
/// Each file is held against the others: the batches are the truth, and what repeats a part of them must repeat it rightly.
/// What nothing repeats (the date in `meta.properties`, a last index entry that is missing) cannot be told.
package struct LogVerifier {
    /// What no broker reads, or what is looked at by itself.
    private static let knownFiles: Set<String> = [
        MetaProperties.fileName, CleanShutdownMarker.fileName, ".lock", "bootstrap.checkpoint", DurableOffsets.fileName,
        LogDirectory.Checkpoint.recoveryPoint.rawValue, LogDirectory.Checkpoint.highWatermark.rawValue,
        LogDirectory.Checkpoint.logStart.rawValue, LogDirectory.Checkpoint.cleaner.rawValue,
    ]

    package private(set) var findings: [Finding] = []
    package private(set) var counts = InspectionCounts()
    private let disk: any Disk

    package init(disk: any Disk) { self.disk = disk }

    package var isSound: Bool { !findings.contains { $0.severity == .damage } }

    /// So is a directory known that lost its `meta.properties`; a lock may be anybody's.
    private static let marks = knownFiles.subtracting([".lock"])

    package enum Subject: Equatable, Sendable { case directory, partition(PartitionFolder) }

    /// What a path is to be looked at as; nil where there is neither.
    package static func subject(_ path: String, on disk: any Disk) throws(LogError) -> Subject? {
        let status = try onDisk { () throws(SystemError) in try disk.status(path) }
        guard status?.isDirectory == true else { return nil }
        let meta = path + "/" + MetaProperties.fileName
        if try onDisk({ () throws(SystemError) in try disk.status(meta) }) != nil { return .directory }
        let name = path.split(separator: "/").last.map(String.init) ?? ""
        if let folder = PartitionFolder(parsing: name) { return .partition(folder) }
        let names = try onDisk { () throws(SystemError) in try disk.list(path) }
        return names.contains { marks.contains($0) } ? .directory : nil
    }

    package mutating func verify(_ path: String, as subject: Subject) throws(LogError) {
        switch subject {
        case .directory: try verifyDirectory(path)
        case .partition(let folder):
            let parent = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
            var around = Surroundings(parent.isEmpty ? (path.hasPrefix("/") ? "/" : ".") : parent)
            try around.read(disk)
            // what is wrong around it is not asked for
            if let verified = try verify(folder, at: path, around) { hold(verified, against: around) }
        }
    }

    // MARK: A directory

    /// The small files of a log directory.
    private struct Surroundings {
        let path: String
        var isClean = false
        var checkpoints: [LogDirectory.Checkpoint: OffsetCheckpoint] = [:]
        var findings: [Finding] = []

        init(_ path: String) { self.path = path }

        mutating func read(_ disk: any Disk) throws(LogError) {
            let path = path
            let marker = path + "/" + CleanShutdownMarker.fileName
            isClean = try onDisk { () throws(SystemError) in try disk.status(marker) } != nil
            for checkpoint in LogDirectory.Checkpoint.allCases {
                do throws(LogError) {
                    checkpoints[checkpoint] = try OffsetCheckpoint.read(disk, path + "/" + checkpoint.rawValue)
                } catch { said(checkpoint.rawValue, error) }
            }
        }

        mutating func said(_ file: String, _ error: LogError) {
            var message = "\(error)"
            if case .malformedFile(_, let line, let reason) = error { message = "line \(line): \(reason)" }
            findings.append(Finding(.damage, path + "/" + file, message))
        }

        func offset(_ checkpoint: LogDirectory.Checkpoint, _ partition: TopicPartition) -> Offset? {
            checkpoints[checkpoint]?[partition]
        }
    }

    private mutating func verifyDirectory(_ path: String) throws(LogError) {
        let disk = disk
        counts.directories += 1
        var around = Surroundings(path)
        try around.read(disk)
        try checkIdentity(&around)
        findings += around.findings
        var verified: Set<TopicPartition> = []
        for name in try onDisk({ () throws(SystemError) in try disk.list(path) }) {
            let full = path + "/" + name
            guard try onDisk({ () throws(SystemError) in try disk.status(full) })?.isDirectory == true else {
                if !Self.knownFiles.contains(name) { findings.append(Finding(.note, full, "a file of no broker")) }
                continue
            }
            guard !name.hasPrefix("__cluster_metadata-") else { continue }
            guard let folder = PartitionFolder(parsing: name) else {
                findings.append(Finding(.damage, full, "not a partition's folder by its name"))
                continue
            }
            guard let partition = try verify(folder, at: full, around), folder.kind == .live else { continue }
            hold(partition, against: around)
            verified.insert(folder.partition)
        }
        for (checkpoint, rows) in around.checkpoints.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            for row in rows.rows where !verified.contains(row.partition) {
                findings.append(Finding(.note, path + "/" + checkpoint.rawValue, "\(row.partition) has no folder here"))
            }
        }
    }

    private func checkIdentity(_ around: inout Surroundings) throws(LogError) {
        let (disk, path) = (disk, around.path)
        func damage(_ file: String, _ message: String) {
            around.findings.append(Finding(.damage, path + "/" + file, message))
        }
        let file = MetaProperties.fileName
        if let bytes = try onDisk({ () throws(SystemError) in try disk.contents(path + "/" + file) }) {
            do throws(LogError) {
                let meta = try MetaProperties.decode(bytes, path: path + "/" + file)
                if meta.properties["version"] == nil { damage(file, "it has no version") }
                if meta.clusterID == nil { damage(file, "it has no cluster.id") }
                if meta.brokerID == nil { damage(file, "it has no broker.id") }
            } catch { around.said(file, error) }
        } else {
            damage(file, "not there")
        }
        let marker = CleanShutdownMarker.fileName
        guard let bytes = try onDisk({ () throws(SystemError) in try disk.contents(path + "/" + marker) }), !bytes.isEmpty
        else { return }
        // brokers before 3.7 left it empty
        let json = try? JSONValue(parsing: bytes)
        if json?["version"]?.int != 0 || json?["brokerEpoch"]?.int == nil {
            damage(marker, "'\(String(decoding: bytes.prefix(80), as: UTF8.self))' is not what a clean stop leaves")
        }
    }

    // MARK: A partition

    /// Nil where its folder could not be read to the end.
    private mutating func verify(_ folder: PartitionFolder, at path: String, _ around: Surroundings) throws(LogError)
        -> PartitionVerifier?
    {
        let id = folder.partition
        let verifier = PartitionVerifier(
            path, folder, on: disk,
            PartitionContext(
                isClean: around.isClean, isCompacted: around.offset(.cleaner, id) != nil,
                logStart: around.offset(.logStart, id)))
        defer {
            findings += verifier.findings
            counts.add(verifier.counts)
        }
        do throws(LogError) {
            try verifier.verify()
            return verifier
        } catch {
            verifier.damage(nil, "it cannot be read: \(error)")
            return nil
        }
    }

    /// The rows of the checkpoints against what the files hold.
    private mutating func hold(_ partition: PartitionVerifier, against around: Surroundings) {
        guard let first = partition.segments.first, partition.folder.kind == .live else { return }
        let id = partition.folder.partition
        func say(_ isDamage: Bool, _ checkpoint: LogDirectory.Checkpoint, _ message: String) -> Finding {
            Finding(isDamage ? .damage : .note, around.path + "/" + checkpoint.rawValue, "\(id): \(message)")
        }
        for checkpoint in LogDirectory.Checkpoint.allCases {
            guard let offset = around.offset(checkpoint, id) else { continue }
            if offset > partition.end {
                findings.append(say(around.isClean, checkpoint, "\(offset) lies past the end \(partition.end)"))
            } else if offset < first, checkpoint == .recoveryPoint || checkpoint == .logStart {
                let message = "\(offset) lies before the first segment, \(first)"
                findings.append(say(checkpoint == .logStart, checkpoint, message))
            }
        }
        guard around.isClean else { return }
        let recoveryPoint = around.offset(.recoveryPoint, id)
        if recoveryPoint != partition.end {
            let said = recoveryPoint.map(String.init) ?? "missing"
            let message = "stopped cleanly, and its recovery point is \(said) where the log ends at \(partition.end)"
            findings.append(say(true, .recoveryPoint, message))
        }
        if around.offset(.highWatermark, id) == nil { findings.append(say(true, .highWatermark, "it has no row")) }
    }
}

extension InspectionCounts {
    mutating func add(_ other: InspectionCounts) {
        directories += other.directories
        partitions += other.partitions
        segments += other.segments
        batches += other.batches
        records += other.records
        bytes += other.bytes
        offsetIndexEntries += other.offsetIndexEntries
        timeIndexEntries += other.timeIndexEntries
        abortedTransactions += other.abortedTransactions
        snapshotEntries += other.snapshotEntries
    }
}
