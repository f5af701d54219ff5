package import MartletBasics
internal import MartletModel
package import MartletReactor

/// `martlet log verify --repair`: says what could be done about a log directory, or one partition in it, and does it
/// where it is told to. No broker may have the directory open.
///
///     plan      reads everything; nothing is changed
///     perform   1 what is to go is copied into the folder for it, and is durable there
///               2 checkpoints say no more of a partition than what it will hold
///               3 the partition is cut, its other files are made anew
///               4 the marker of a clean stop goes, if there was one: the next start of a broker looks for itself
///
/// A crash between them loses nothing: what was copied is there, what was lowered is raised again by the next recovery.
package final class LogRepair {
    private let disk: any Disk
    private let path: String
    private let subject: LogVerifier.Subject
    /// The log directory around it.
    private let directory: String
    private let lock: (any DiskLock)?
    private var partitions: [PartitionRepair] = []
    private var checkpoints: [String: OffsetCheckpoint] = [:]
    /// Of the directory as a whole.
    private var ownSteps: [RepairStep] = []

    /// Where what is taken out is kept.
    package let asideFolder: String

    package var steps: [RepairStep] { ownSteps + partitions.flatMap(\.steps) }
    package var isNeeded: Bool { steps.contains { $0.action != .leave } }
    package var givesUpRecords: Bool { steps.contains(where: \.givesUpRecords) }

    /// `aside`: nil for the folder beside the log directory that is called as it is, with `-set-aside` behind.
    package init(_ path: String, as subject: LogVerifier.Subject, on disk: any Disk, aside: String?) throws(LogError) {
        (self.disk, self.path, self.subject) = (disk, path, subject)
        let parent = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        directory = subject == .directory ? path : parent.isEmpty ? (path.hasPrefix("/") ? "/" : ".") : parent
        asideFolder = aside ?? directory + "-set-aside"
        let lockPath = directory + "/.lock"
        lock = try onDisk { () throws(SystemError) in try disk.lock(lockPath) }
        guard lock != nil else { throw .directoryLocked(path: directory) }
        do throws(LogError) { try plan() } catch {
            lock?.close()
            throw error
        }
    }

    package func close() { lock?.close() }

    // MARK: The plan

    private var checkpointNames: [String] { LogDirectory.Checkpoint.allCases.map(\.rawValue) + [DurableOffsets.fileName] }

    private func plan() throws(LogError) {
        var verifier = LogVerifier(disk: disk)
        try verifier.verify(path, as: subject)
        for name in checkpointNames {
            do throws(LogError) { checkpoints[name] = try OffsetCheckpoint.read(disk, directory + "/" + name) } catch {
                guard case .malformedFile(let path, let line, let reason) = error else { throw error }
                ownSteps.append(RepairStep(
                    path: path, action: .setAside,
                    message: "line \(line): \(reason). The broker makes it anew, and its recovery reads more"))
            }
        }
        switch subject {
        case .partition(let folder):
            if folder.kind == .live { try plan(folder, at: path, verifier.findings) }
        case .directory:
            let (disk, path) = (disk, path)
            for name in try onDisk({ () throws(SystemError) in try disk.list(path) }).sorted() {
                guard let folder = PartitionFolder(parsing: name), folder.kind == .live else { continue }
                try plan(folder, at: path + "/" + name, verifier.findings)
            }
        }
    }

    private func plan(_ folder: PartitionFolder, at path: String, _ findings: [Finding]) throws(LogError) {
        let id = folder.partition
        let point = checkpoints[LogDirectory.Checkpoint.recoveryPoint.rawValue]?[id]
        let synced = max(point ?? 0, checkpoints[DurableOffsets.fileName]?[id] ?? 0)
        let repair = try PartitionRepair(path, id, on: disk, synced: synced, findings: findings)
        if !repair.steps.isEmpty { partitions.append(repair) }
    }

    // MARK: The doing

    /// Carries out the plan; without `givingUpRecords` only for partitions that lose none by it. What is left undone.
    package func perform(givingUpRecords: Bool, clock: any Clock, logger: Logger) throws(LogError) -> [RepairStep] {
        let (disk, directory) = (disk, directory)
        var left = steps.filter { $0.action == .leave }
        let chosen = partitions.filter { $0.isNeeded && (givingUpRecords || !$0.steps.contains(where: \.givesUpRecords)) }
        for repair in partitions where repair.isNeeded && !chosen.contains(where: { $0.path == repair.path }) {
            left += repair.steps.filter { $0.action != .leave }
        }
        let own = FileSetAside(disk: disk, folder: asideFolder)
        for step in ownSteps {
            let name = String(step.path.dropFirst(directory.count + 1))
            try own.copy(step.path, from: 0, as: name)
        }
        try own.finish()
        for repair in chosen { try repair.setAside(into: asideFolder + "/\(repair.partition)") }
        try onDisk { () throws(SystemError) in
            try disk.remove(directory + "/" + CleanShutdownMarker.fileName)
            for step in ownSteps { try disk.remove(step.path) }
            try disk.syncDirectory(directory)
        }
        for repair in chosen {
            if let cut = repair.cut { try lower(repair.partition, to: try cutOffset(cut, repair)) }
            let start = checkpoints[LogDirectory.Checkpoint.logStart.rawValue]?[repair.partition] ?? 0
            _ = try repair.perform(
                logStart: start, aside: asideFolder + "/\(repair.partition)", clock: clock, logger: logger)
        }
        return left
    }

    /// Where the log will end: behind the last sound batch before the cut.
    private func cutOffset(_ cut: RepairStep, _ repair: PartitionRepair) throws(LogError) -> Offset {
        guard case .cut(let segment, let position) = cut.action else { preconditionFailure("asked of a cut") }
        let reader = try SegmentReader(cut.path, baseOffset: segment, on: disk)
        var end = segment
        while case .batch(let batch) = try reader.next(), batch.position < position { end = batch.header.nextOffset }
        return end
    }

    private func lower(_ partition: TopicPartition, to end: Offset) throws(LogError) {
        let (disk, directory) = (disk, directory)
        for name in checkpointNames where name != LogDirectory.Checkpoint.logStart.rawValue {
            guard let row = checkpoints[name]?[partition], row > end else { continue }
            checkpoints[name]![partition] = end
            let bytes = checkpoints[name]!.encode()
            try onDisk { () throws(SystemError) in try disk.replace(directory + "/" + name, with: bytes) }
        }
    }
}
