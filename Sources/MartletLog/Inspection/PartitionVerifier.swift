internal import MartletModel
internal import MartletReactor

/// What a log directory says of one of its partitions, and what is known of the directory as a whole.
struct PartitionContext {
    /// The directory was stopped cleanly: nothing is left for a recovery.
    var isClean: Bool
    /// A cleaner has been through it: there may be gaps, and batches say less than snapshots do.
    var isCompacted: Bool
    var logStart: Offset?
}

/// Checks one partition's folder against itself, file by file. Reads, and writes nothing.
///
/// In a folder that was stopped cleanly everything must fit. In one whose broker was killed a torn last batch, index entries
/// past it, indexes that are still preallocated are what recovery is for: notes (`fault`). Elsewhere, and always where
/// nothing but damage explains it, it is damage.
final class PartitionVerifier {
    let disk: any Disk
    let path: String
    let folder: PartitionFolder
    let isClean: Bool
    let isCompacted: Bool
    private let logStart: Offset?

    private(set) var findings: [Finding] = []
    var counts = InspectionCounts()
    /// Base offsets, rising; those whose files still end in `.swap`.
    private(set) var segments: [Offset] = []
    private var swapped: Set<Offset> = []
    private(set) var start: Offset = 0
    private(set) var end: Offset = 0
    private var files: [String] = []
    private var epochs = LeaderEpochHistory()
    private var hasEpochs = false
    private var lacksEpochs = false
    private var replay = ProducerReplay()
    private var snapshotOffsets: Set<Offset> = []
    /// Those that no boundary of batches was met at yet.
    private var snapshotsLeft: Set<Offset> = []

    init(_ path: String, _ folder: PartitionFolder, on disk: any Disk, _ context: PartitionContext) {
        self.disk = disk
        self.path = path
        self.folder = folder
        // the files of a deleted partition are never closed
        isClean = context.isClean && folder.kind != .deleted
        isCompacted = context.isCompacted
        logStart = context.logStart
    }

    // MARK: Saying

    func damage(_ file: String?, at position: Int64? = nil, _ message: String) {
        findings.append(Finding(.damage, file.map { path + "/" + $0 } ?? path, at: position, message))
    }

    func note(_ file: String?, at position: Int64? = nil, _ message: String) {
        findings.append(Finding(.note, file.map { path + "/" + $0 } ?? path, at: position, message))
    }

    func fault(_ file: String?, at position: Int64? = nil, _ message: String) {
        if isClean { damage(file, at: position, message) } else { note(file, at: position, message) }
    }

    // MARK: The folder

    func verify() throws(LogError) {
        counts.partitions = 1
        let (disk, path) = (disk, path)
        files = try onDisk { () throws(SystemError) in try disk.list(path) }
        for name in files where !Self.isKnown(name) {
            if Self.isLeftover(name) {
                note(name, "left by work that a stop interrupted")
            } else {
                damage(name, "not a file of a partition")
            }
        }
        try checkMetadata()
        try findSegments()
        guard !segments.isEmpty else { return damage(nil, "no segment") }
        try readEpochs()
        start = max(logStart ?? segments[0], segments[0])
        snapshotOffsets = Set(files.compactMap { name in
            SegmentFile.parse(name).flatMap { $0.kind == .snapshot && $0.suffix.isEmpty ? $0.baseOffset : nil }
        })
        snapshotsLeft = snapshotOffsets
        try goThroughSegments()
        if start > end { damage(nil, "the log starts at \(start), past its end \(end)") }
        try checkSnapshotsLeft()
        if hasEpochs, let last = epochs.entries.last, last.startOffset > end {
            fault(LeaderEpochHistory.fileName, "its last epoch begins at \(last.startOffset), past the end \(end)")
        }
    }

    private static func isKnown(_ name: String) -> Bool {
        if name == LeaderEpochHistory.fileName || name == PartitionMetadata.fileName { return true }
        return SegmentFile.parse(name).map { $0.suffix.isEmpty } ?? false
    }

    private static func isLeftover(_ name: String) -> Bool {
        if name == LeaderEpochHistory.fileName + ".tmp" || name == PartitionMetadata.fileName + ".tmp" { return true }
        guard let parsed = SegmentFile.parse(name) else { return false }
        return [SegmentFile.deletedSuffix, SegmentFile.cleanedSuffix, SegmentFile.swapSuffix].contains(parsed.suffix)
    }

    private func checkMetadata() throws(LogError) {
        let file = PartitionMetadata.fileName
        guard let bytes = try contents(file) else {
            if folder.kind == .future { note(file, "not there") } else { damage(file, "not there") }
            return
        }
        do throws(LogError) { _ = try PartitionMetadata.decode(bytes, path: path + "/" + file) } catch { said(file, error) }
    }

    /// A leader epoch checkpoint goes when the partition is deleted.
    private func readEpochs() throws(LogError) {
        guard folder.kind != .deleted else { return }
        let file = LeaderEpochHistory.fileName
        guard let bytes = try contents(file) else { return lacksEpochs = true }
        do throws(LogError) {
            epochs = try LeaderEpochHistory.decode(bytes, path: path + "/" + file)
            hasEpochs = true
        } catch { said(file, error) }
    }

    /// What the readers of this target say of a file.
    func said(_ file: String, _ error: LogError, faultOnly: Bool = false) {
        var position: Int64?
        let message: String
        switch error {
        case .corrupt(_, let at, let reason): (position, message) = (at, reason)
        case .malformedFile(_, let line, let reason): message = "line \(line): \(reason)"
        default: message = "\(error)"
        }
        if faultOnly { fault(file, at: position, message) } else { damage(file, at: position, message) }
    }

    /// In a folder that was not stopped cleanly a swap that was begun is completed by its recovery: it is read so.
    private func findSegments() throws(LogError) {
        func bases(_ suffix: String) -> [Offset] {
            files.compactMap { name in
                SegmentFile.parse(name).flatMap { $0.kind == .log && $0.suffix == suffix ? $0.baseOffset : nil }
            }.sorted()
        }
        segments = bases("")
        let (swaps, cleaned) = (bases(SegmentFile.swapSuffix), bases(SegmentFile.cleanedSuffix))
        guard !swaps.isEmpty, !isClean else { return }
        for base in swaps where base < cleaned.first ?? .max {
            swapped.insert(base)
            let file = SegmentFile.log.name(base) + SegmentFile.swapSuffix
            let reader = try SegmentReader(path + "/" + file, baseOffset: base, on: disk)
            var last = base
            while case .batch(let batch) = try reader.next(), batch.fault == nil { last = max(last, batch.header.lastOffset) }
            segments = (segments.filter { $0 < base || $0 > last } + [base]).sorted()
        }
    }

    /// What a segment's file is called, with the suffix of an unfinished swap.
    func name(_ base: Offset, _ kind: SegmentFile) -> String {
        kind.name(base) + (swapped.contains(base) && kind != .snapshot ? SegmentFile.swapSuffix : "")
    }

    func contents(_ file: String) throws(LogError) -> [UInt8]? {
        let (disk, path) = (disk, path + "/" + file)
        return try onDisk { () throws(SystemError) in try disk.contents(path) }
    }

    // MARK: Segments

    private func goThroughSegments() throws(LogError) {
        var next = segments[0]
        for (index, base) in segments.enumerated() {
            let isLast = index == segments.count - 1
            if base != next, index > 0, !isCompacted {
                damage(name(base, .log), "it begins at \(base), and the log before it ends at \(next)")
            }
            try checkSnapshot(at: base)
            let abortedBefore = replay.aborted.count
            let scanned = try scan(base, isLast: isLast, next: &next)
            try checkIndexes(scanned, base, isLast: isLast)
            try checkTransactionIndex(base, Array(replay.aborted[abortedBefore...]))
        }
        end = isCompacted ? max(next, segments[segments.count - 1]) : next
    }

    private func scan(_ base: Offset, isLast: Bool, next: inout Offset) throws(LogError) -> ScannedSegment {
        let file = name(base, .log)
        let reader = try SegmentReader(path + "/" + file, baseOffset: base, on: disk)
        var scanned = ScannedSegment(size: reader.size)
        counts.segments += 1
        counts.bytes += reader.size
        var least = base
        while true {
            let batch: SegmentReader.Batch
            switch try reader.next() {
            case .batch(let found): batch = found
            case .end: return scanned
            case .room(let position):
                // a roll whose end the power took leaves it in a segment that is not the last
                let isExpected = PartitionLog.mayBeRoom(
                    at: max(next, base), segmentAfter: segments.first { $0 > base }, synced: 0)
                stop(&scanned, file, position, "nothing but zeros up to the end", mayCut: isExpected)
                return scanned
            case .stopped(let position, let reason):
                stop(&scanned, file, position, reason, mayCut: isLast)
                return scanned
            }
            var reason = batch.fault
            if reason == nil, batch.header.baseOffset < least {
                reason = "base offset \(batch.header.baseOffset) after \(least - 1)"
            }
            let contents = BatchContents(batch, reader, isUnread: reason != nil)
            if let reason = reason ?? contents.fault {
                stop(&scanned, file, batch.position, "the batch at offset \(batch.header.baseOffset): \(reason)", mayCut: isLast)
                return scanned
            }
            try take(batch, contents, file, base, isFirst: scanned.batches.isEmpty, next: &next)
            least = batch.header.nextOffset
            scanned.append(batch.header, at: batch.position)
        }
    }

    /// A segment is read to its first bad batch, as recovery does.
    private func stop(
        _ scanned: inout ScannedSegment, _ file: String, _ position: Int64, _ reason: String, mayCut: Bool
    ) {
        scanned.soundBytes = position
        if mayCut, !isClean {
            scanned.isCut = true
            note(file, at: position, "recovery cuts \(scanned.size - position) bytes here: \(reason)")
        } else {
            damage(file, at: position, reason)
        }
    }

    private func take(
        _ batch: SegmentReader.Batch, _ contents: BatchContents, _ file: String, _ base: Offset, isFirst: Bool,
        next: inout Offset
    ) throws(LogError) {
        let header = batch.header
        func say(_ message: String) { damage(file, at: batch.position, "the batch at offset \(header.baseOffset): \(message)") }
        counts.batches += 1
        counts.records += Int(header.recordCount)
        if !isCompacted {
            if header.baseOffset != (isFirst ? base : next) { say("offset \(isFirst ? base : next) is missing before it") }
            if header.recordCount != header.lastOffsetDelta + 1 {
                say("\(header.recordCount) records for \(Int64(header.lastOffsetDelta) + 1) offsets")
            }
            if let highest = contents.highestTimestamp, header.timestampType == .createTime, highest != header.maxTimestamp {
                say("its highest timestamp is \(highest), its header says \(header.maxTimestamp)")
            }
        }
        if header.lastOffset - base > Int64(Int32.max) { say("too far from the base offset of its segment") }
        // the group coordinator writes sequence 0 into every batch of its transactions
        let checksSequences = folder.partition.topic != "__consumer_offsets"
        let fault = header.isControl
            ? contents.marker.flatMap { replay.append($0, header) } : replay.append(header, checksSequences: checksSequences)
        if let fault {
            if isCompacted { note(file, at: batch.position, fault) } else { say(fault) }
        }
        checkEpoch(header, file, batch.position)
        next = header.nextOffset
        try checkSnapshot(at: next)
    }

    private func checkEpoch(_ header: BatchHeader, _ file: String, _ position: Int64) {
        if lacksEpochs {
            lacksEpochs = false
            damage(LeaderEpochHistory.fileName, "not there, although the log holds batches")
        }
        guard hasEpochs, header.lastOffset >= start, header.leaderEpoch >= 0 else { return }
        let said = epochs.epoch(at: header.lastOffset)
        guard said != header.leaderEpoch else { return }
        damage(
            file, at: position,
            "the batch at offset \(header.baseOffset) has leader epoch \(header.leaderEpoch), "
                + "\(LeaderEpochHistory.fileName) says \(said.map(String.init) ?? "none")")
    }

    // MARK: Snapshots

    /// At a boundary of batches: if a snapshot was taken there, it says what they say.
    private func checkSnapshot(at offset: Offset) throws(LogError) {
        guard snapshotsLeft.remove(offset) != nil, let have = try snapshot(at: offset) else { return }
        let (file, wanted) = (SegmentFile.snapshot.name(offset), replay.producers)
        // what was cleaned, or lies below the first segment, the batches do not tell any more
        let isPartial = isCompacted || segments[0] > 0
        for producer in Set(have.keys).union(wanted.keys).sorted() where have[producer] != wanted[producer] {
            let message = "of producer \(producer) it says \(have[producer]?.told ?? "nothing"); "
                + "the batches give \(wanted[producer]?.told ?? "nothing")"
            if isPartial { note(file, message) } else { damage(file, message) }
        }
    }

    /// Its entries; nil where it cannot be read, which is said.
    private func snapshot(at offset: Offset) throws(LogError) -> [ProducerID: ReplayedProducer]? {
        let file = SegmentFile.snapshot.name(offset)
        let bytes = try contents(file) ?? []
        let entries: [ReplayedProducer]
        do throws(LogError) { entries = try InspectedFiles.snapshot(bytes, path: file) } catch {
            said(file, error, faultOnly: true)
            return nil
        }
        counts.snapshotEntries += entries.count
        var have: [ProducerID: ReplayedProducer] = [:]
        for (index, entry) in entries.enumerated() where have.updateValue(entry, forKey: entry.producerID) != nil {
            let position = ProducerSnapshotFile.headerSize + index * ProducerSnapshotFile.entrySize
            damage(file, at: Int64(position), "producer \(entry.producerID) a second time")
        }
        return have
    }

    private func checkSnapshotsLeft() throws(LogError) {
        for offset in snapshotsLeft.sorted() {
            guard try snapshot(at: offset) != nil else { continue }
            let (file, message) = (SegmentFile.snapshot.name(offset), "no segment and no batch begins or ends at \(offset)")
            if isCompacted || offset > end && !isClean { note(file, message) } else { damage(file, message) }
        }
        guard isClean, folder.kind == .live, end > 0, end > segments[0], !snapshotOffsets.contains(end) else { return }
        let message = "stopped cleanly, and there is no producer snapshot at the end offset \(end)"
        if isCompacted || start == end { note(nil, message) } else { damage(nil, message) }
    }
}

/// What the indexes of a segment are held against.
struct ScannedSegment {
    struct Span {
        var position: Int64
        var base: Offset
        var last: Offset
        var maxTimestamp: Int64
    }

    var size: Int64
    /// Up to the first bad batch.
    var soundBytes: Int64
    /// Recovery will cut it there.
    var isCut = false
    /// By position.
    private(set) var batches: [Span] = []
    /// Those that raised the highest timestamp: both rise.
    private(set) var records: [Span] = []

    init(size: Int64) {
        self.size = size
        soundBytes = size
    }

    mutating func append(_ header: BatchHeader, at position: Int64) {
        let span = Span(
            position: position, base: header.baseOffset, last: header.lastOffset, maxTimestamp: header.maxTimestamp)
        batches.append(span)
        if header.maxTimestamp > highestTimestamp { records.append(span) }
    }

    var highestTimestamp: Int64 { records.last?.maxTimestamp ?? -1 }

    func batch(at position: Int64) -> Span? {
        let index = partitionPoint(batches.count) { batches[$0].position < position }
        return index < batches.count && batches[index].position == position ? batches[index] : nil
    }

    /// Whether some batch ends with this offset.
    func hasEnd(_ offset: Offset) -> Bool {
        let index = partitionPoint(batches.count) { batches[$0].last < offset }
        return index < batches.count && batches[index].last == offset
    }

    /// The batch that first had this highest timestamp.
    func record(of timestamp: Int64) -> Span? {
        let index = partitionPoint(records.count) { records[$0].maxTimestamp < timestamp }
        return index < records.count && records[index].maxTimestamp == timestamp ? records[index] : nil
    }
}

/// The records of a batch, gone through once.
struct BatchContents {
    /// Nil for one without records.
    private(set) var highestTimestamp: Int64?
    /// Of a control batch that ends a transaction.
    private(set) var marker: EndTransactionMarker?
    private(set) var fault: String?

    init(_ batch: SegmentReader.Batch, _ reader: SegmentReader, isUnread: Bool = false) {
        guard !isUnread else { return }
        let header = batch.header
        var (highest, last): (Int64?, Int64) = (nil, -1)
        var (found, wrong): (EndTransactionMarker?, String?) = (nil, nil)
        let unreadable = reader.forEachRecord(of: batch) { record, cursor in
            highest = max(highest ?? .min, header.timestamp(of: record))
            let delta = Int64(record.offsetDelta)
            if record.attributes != 0 { wrong = wrong ?? "record \(cursor.index - 1) has attributes \(record.attributes)" }
            if delta <= last || delta > Int64(header.lastOffsetDelta) {
                wrong = wrong ?? "record \(cursor.index - 1) has offset delta \(delta) after \(last)"
            }
            last = delta
            for (name, _) in cursor.headers(of: record)
            where String(validating: cursor.bytes(in: name) as UnsafeRawBufferPointer, as: UTF8.self) == nil {
                wrong = wrong ?? "record \(cursor.index - 1) has a header whose name is not UTF-8"
            }
            if header.isControl, let key = cursor.bytes(in: record.key), let value = cursor.bytes(in: record.value) {
                found = EndTransactionMarker(key: key, value: value)
            }
        }
        if header.isControl, header.recordCount > 1 || header.hasProducer && !header.isTransactional {
            wrong = wrong ?? "a control batch that is not one transactional record"
        }
        (highestTimestamp, marker, fault) = (highest, found, unreadable ?? wrong)
    }
}
