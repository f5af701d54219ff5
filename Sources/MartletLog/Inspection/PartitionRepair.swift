package import MartletBasics
package import MartletModel
internal import MartletReactor

/// One thing that a repair would do, as it is told before anything is done.
package struct RepairStep: Sendable, Equatable {
    package enum Action: Sendable, Equatable {
        /// The log ends at this byte of this segment; what follows, and later segments, are set aside.
        case cut(segment: Offset, position: Int64)
        /// Repeats what the batches say: set aside, and made anew from them.
        case makeAnew
        /// Nothing that is left says what it said: set aside.
        case setAside
        /// Nothing can be done about it here.
        case leave
    }

    package var path: String
    package var action: Action
    package var message: String
    /// Records, or bytes that were synced and may hold some, are served no more afterwards.
    package var givesUpRecords = false

    package var json: JSONValue {
        let word: String
        switch action {
        case .cut: word = "cut"
        case .makeAnew: word = "make anew"
        case .setAside: word = "set aside"
        case .leave: word = "leave"
        }
        return [
            "step": .string(word), "file": .string(path), "givesUpRecords": .bool(givesUpRecords),
            "message": .string(message),
        ]
    }
}

extension RepairStep: CustomStringConvertible {
    package var description: String {
        let word: String
        switch action {
        case .cut: word = givesUpRecords ? "GIVE UP" : "cut"
        case .makeAnew: word = "make anew"
        case .setAside: word = "set aside"
        case .leave: word = "left as it is"
        }
        return "\(word) \(path): \(message)"
    }
}

/// What can be done about one partition's folder, and the doing of it.
///
/// Batches are never changed. The first bad one ends what can be kept; it and everything behind it is copied into the folder
/// for what is set aside, byte for byte, before the log is cut. Then the log is opened as after an unclean stop, which
/// makes indexes, snapshots and epochs anew by the code that a broker does it with, and closed cleanly.
struct PartitionRepair {
    let path: String
    let partition: TopicPartition
    let disk: any Disk
    private(set) var steps: [RepairStep] = []
    private var bases: [Offset] = []

    /// `synced`: below, nothing was left by a crash. `findings`: what the verifier says of the folder.
    init(
        _ path: String, _ partition: TopicPartition, on disk: any Disk, synced: Offset, findings: [Finding]
    ) throws(LogError) {
        (self.path, self.partition, self.disk) = (path, partition, disk)
        for name in try onDisk({ () throws(SystemError) in try disk.list(path) }) {
            guard let parsed = SegmentFile.parse(name), parsed.kind == .log, parsed.suffix.isEmpty else { continue }
            bases.append(parsed.baseOffset)
        }
        bases.sort()
        try planCut(synced)
        for finding in findings where finding.severity == .damage { plan(finding) }
    }

    var cut: RepairStep? { steps.first { if case .cut = $0.action { true } else { false } } }
    var isNeeded: Bool { steps.contains { $0.action != .leave } }

    // MARK: The plan

    private mutating func planCut(_ synced: Offset) throws(LogError) {
        var next = bases.first ?? 0
        for (index, base) in bases.enumerated() {
            let file = SegmentFile.log.path(path, base)
            if base < next {
                let reason = "segment \(base) begins before \(next), where the one before it ends"
                return try planCut(index, 0, next, reason, synced)
            }
            next = base
            let reader = try SegmentReader(file, baseOffset: base, on: disk)
            walk: while true {
                switch try reader.next() {
                case .end: break walk
                case .room(let position):
                    let after = index + 1 < bases.count ? bases[index + 1] : nil
                    if PartitionLog.mayBeRoom(at: next, segmentAfter: after, synced: synced) { break walk }
                    return try planCut(index, position, next, "nothing but zeros up to the end", synced)
                case .stopped(let position, let reason):
                    return try planCut(index, position, next, reason, synced)
                case .batch(let batch):
                    if let fault = batch.fault { return try planCut(index, batch.position, next, fault, synced) }
                    guard batch.header.baseOffset >= next else {
                        return try planCut(
                            index, batch.position, next, "base offset \(batch.header.baseOffset) after \(next - 1)", synced)
                    }
                    guard batch.header.lastOffset - base <= Int64(Int32.max) else {
                        return try planCut(
                            index, batch.position, next, "offset \(batch.header.lastOffset) is too far from \(base)", synced)
                    }
                    next = batch.header.nextOffset
                }
            }
        }
    }

    private mutating func planCut(
        _ index: Int, _ position: Int64, _ offset: Offset, _ reason: String, _ synced: Offset
    ) throws(LogError) {
        let file = SegmentFile.log.path(path, bases[index])
        let (disk, base) = (disk, bases[index])
        let opened = try onDisk { () throws(SystemError) in try disk.open(file, .read) }
        defer { opened.close() }
        let size = try onDisk { () throws(SystemError) in try opened.size() }
        if try OldMessageFormat.magic(in: opened, at: Int(position), end: Int(size)) != nil {
            return steps.append(RepairStep(path: file, action: .leave, message: "byte \(position): \(reason)"))
        }
        let search = SoundBatchSearch(file: opened, baseOffset: base, end: Int(size))
        let behind = try search.everything(from: Int(position), least: offset)
        let later = bases.count - 1 - index
        let told = PartitionLog.told(behind, later)
        steps.append(RepairStep(
            path: file, action: .cut(segment: base, position: position),
            message: "\(reason), at byte \(position). The log would end at offset \(offset), and everything before it is "
                + "kept; \(size - position) bytes of this file are set aside"
                + "\(later > 0 ? ", and \(later) whole segments" : ""): \(told)",
            givesUpRecords: behind.count > 0 || later > 0 || offset < synced))
    }

    private mutating func plan(_ finding: Finding) {
        guard finding.path.hasPrefix(path + "/") else { return }
        let name = String(finding.path.dropFirst(path.count + 1))
        guard !steps.contains(where: { $0.path == finding.path }) else { return }
        if let parsed = SegmentFile.parse(name) {
            if parsed.kind == .log {
                guard cut == nil else { return }
                return steps.append(RepairStep(path: finding.path, action: .leave, message: finding.message))
            }
            return steps.append(RepairStep(path: finding.path, action: .makeAnew, message: finding.message))
        }
        switch name {
        case LeaderEpochHistory.fileName:
            steps.append(RepairStep(path: finding.path, action: .makeAnew, message: finding.message))
        case PartitionMetadata.fileName where finding.message != "not there":
            steps.append(RepairStep(
                path: finding.path, action: .setAside,
                message: finding.message + ". The broker writes it anew, as its coordination tree has it"))
        default:
            steps.append(RepairStep(path: finding.path, action: .leave, message: finding.message))
        }
    }

    // MARK: The doing

    /// Copies what is to go into the folder, durably. Nothing is changed yet.
    func setAside(into folder: String) throws(LogError) {
        let aside = FileSetAside(disk: disk, folder: folder)
        for step in steps {
            switch step.action {
            case .cut(let segment, let position):
                try aside.copy(step.path, from: position, as: "\(SegmentFile.log.name(segment)).from-\(position)")
                for base in bases where base > segment {
                    for kind in SegmentFile.allCases { try aside.copy(kind.path(path, base), from: 0, as: kind.name(base)) }
                }
            case .makeAnew, .setAside:
                let name = String(step.path.dropFirst(path.count + 1))
                try aside.copy(step.path, from: 0, as: name)
            case .leave: break
            }
        }
        try aside.finish()
    }

    /// After `setAside`, and with no checkpoint that says more of the log than what it will hold. Returns its new end.
    func perform(logStart: Offset, aside: String, clock: any Clock, logger: Logger) throws(LogError) -> Offset {
        try removeWhatWasSetAside()
        var parameters = LogParameters(
            partition: partition, folder: path, config: TopicConfig(), disk: disk,
            descriptors: DescriptorCache(disk: disk, limit: 64), clock: clock, logger: logger, cutDirectory: aside)
        parameters.logStartOffset = logStart
        // what a cleaner left is no damage, and nothing here says whether one was at work
        parameters.mayHaveGaps = true
        // nor is anything cut that the plan did not tell of
        parameters.isBoundLost = true
        let log = try PartitionLog.open(parameters)
        let end = log.logEndOffset
        try log.close(clean: true)
        return end
    }

    private func removeWhatWasSetAside() throws(LogError) {
        let (disk, path) = (disk, path)
        try onDisk { () throws(SystemError) in
            for step in steps {
                switch step.action {
                case .cut(let segment, let position):
                    for base in bases where base > segment {
                        for kind in SegmentFile.allCases { try disk.remove(kind.path(path, base)) }
                    }
                    let file = try disk.open(step.path, .readWrite)
                    defer { file.close() }
                    try file.truncate(to: position)
                    try file.sync()
                case .makeAnew, .setAside: try disk.remove(step.path)
                case .leave: break
                }
            }
            try disk.syncDirectory(path)
        }
    }
}

/// Copies of files, in a folder of their own.
struct FileSetAside {
    private static let pieceBytes = 1 << 20

    let disk: any Disk
    let folder: String

    /// The bytes of a file from one on; of a file that is not there, nothing.
    func copy(_ path: String, from start: Int64, as name: String) throws(LogError) {
        let (disk, folder) = (disk, folder)
        try onDisk { () throws(SystemError) in
            guard try disk.status(path) != nil else { return }
            try disk.makeDirectory(folder)
            let source = try disk.open(path, .read)
            defer { source.close() }
            let target = try disk.open(folder + "/" + name, .truncate)
            defer { target.close() }
            let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.pieceBytes, alignment: 16)
            defer { piece.deallocate() }
            var position = start
            while true {
                let count = try source.read(into: piece, at: position)
                guard count > 0 else { break }
                try target.write(UnsafeRawBufferPointer(rebasing: piece[..<count]), at: position - start)
                position += Int64(count)
            }
            try target.sync()
        }
    }

    func finish() throws(LogError) {
        let (disk, folder) = (disk, folder)
        try onDisk { () throws(SystemError) in
            guard try disk.status(folder) != nil else { return }
            try disk.syncDirectory(folder)
            for above in LogDirectory.foldersAbove(folder) {
                // folders above may belong to others
                do throws(SystemError) { try disk.syncDirectory(above) } catch { continue }
            }
        }
    }
}
