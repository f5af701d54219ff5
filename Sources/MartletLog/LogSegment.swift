internal import MartletModel
internal import MartletReactor

/// One batch as the log keeps it in mind between its reservation and its publication, and while readers follow the
/// tail.
struct BatchPlace: Equatable {
    var baseOffset: Offset
    var lastOffset: Offset
    var position: Int
    var size: Int
    var maxTimestamp: Int64
    var leaderEpoch: LeaderEpoch

    init(_ header: BatchHeader, position: Int) {
        baseOffset = header.baseOffset
        lastOffset = header.lastOffset
        self.position = position
        size = header.totalSize
        maxTimestamp = header.maxTimestamp
        leaderEpoch = header.leaderEpoch
    }
}

/// A part of a log: a file of batches, and the indexes that find them. Guarded by its log's owner, as the log is.
///
/// *Active*: the last one of its log, which is written to; its sparse indexes lie in memory. Can become *closed*, by a
/// roll: its index files are complete, and it keeps nothing in memory. A closed one can become active again, by a
/// truncation.
final class LogSegment {
    let baseOffset: Offset
    let folder: String
    /// How many bytes of whole batches the file holds, as readers may know.
    private(set) var size = 0
    /// The same with what was reserved and is not written.
    var reservedSize = 0
    /// How far the file goes; zeros lie between `reservedSize` and there (`PartitionLog+Room.swift`).
    private(set) var fileEnd = 0
    /// The offset after the last batch; the base offset where there is none.
    private(set) var nextOffset: Offset
    /// The highest timestamp, and the last offset of the batch that has it; nil where there is none above -1.
    private(set) var largest: TimeIndexEntry?
    /// That of the first batch: the age of a segment counts from it.
    private(set) var firstTimestamp: Int64?
    /// When the file was made or opened, in wall milliseconds.
    let createdMilliseconds: Int64
    /// How much earlier than `segment.ms` this one is rolled, so that partitions do not roll all at once.
    let jitterMilliseconds: Int64
    /// In memory while active.
    var indexes: SparseIndexes?
    var transactions: TransactionIndex
    private var bytesSinceIndexEntry = 0
    /// Changes with the bytes under it: a slice tells by it that it is still of this segment.
    let identity = SegmentIdentity()
    var checked = CheckedRanges(tail: 0)
    /// Whether `largest` was held against the batch that it names, where it was taken from a file.
    var isLargestConfirmed = true
    private let logFile: CachedFile
    private let offsetIndexFile: CachedFile
    private let timeIndexFile: CachedFile
    /// What follows the names of its files while a cleaning makes it, or puts it in its place; else nothing.
    private(set) var suffix: String

    init(
        baseOffset: Offset, folder: String, createdMilliseconds: Int64, jitterMilliseconds: Int64, suffix: String = ""
    ) {
        self.baseOffset = baseOffset
        self.folder = folder
        self.suffix = suffix
        nextOffset = baseOffset
        self.createdMilliseconds = createdMilliseconds
        self.jitterMilliseconds = jitterMilliseconds
        logFile = CachedFile(SegmentFile.log.path(folder, baseOffset) + suffix)
        offsetIndexFile = CachedFile(SegmentFile.offsetIndex.path(folder, baseOffset) + suffix)
        timeIndexFile = CachedFile(SegmentFile.timeIndex.path(folder, baseOffset) + suffix)
        transactions = TransactionIndex(path: SegmentFile.transactionIndex.path(folder, baseOffset) + suffix)
    }

    func path(_ kind: SegmentFile) -> String {
        // only a cleaning's work has another name, and no snapshot belongs to it
        kind.path(folder, baseOffset) + (kind == .snapshot ? "" : suffix)
    }
    var isActive: Bool { indexes != nil }

    /// The batches.
    func file(_ files: LogFiles) throws(LogError) -> any DiskFile { try files.cached(logFile) }

    /// Before the files get other names or go: nothing is opened under the old ones any more.
    func forgetFiles(_ files: LogFiles) {
        for file in [logFile, offsetIndexFile, timeIndexFile] { files.descriptors.forget(file) }
    }

    /// Gives its files other names, the batches' first: as long as that has not come, it is not what it will be called.
    func rename(to newSuffix: String, _ files: LogFiles) throws(LogError) {
        let old = suffix
        for kind in SegmentFile.allCases where kind != .snapshot {
            let plain = kind.path(folder, baseOffset)
            guard try files.status(plain + old) != nil else { continue }
            try files.rename(plain + old, to: plain + newSuffix)
        }
        suffix = newSuffix
        files.descriptors.renamed(logFile, to: path(.log))
        files.descriptors.renamed(offsetIndexFile, to: path(.offsetIndex))
        files.descriptors.renamed(timeIndexFile, to: path(.timeIndex))
        transactions.path = path(.transactionIndex)
    }

    // MARK: becoming active and closed

    /// Makes the files of a segment that is written from now on. The index files get their full size, as Kafka's do.
    func make(_ files: LogFiles, indexBytes: Int) throws(LogError) {
        files.descriptors.insert(try files.open(path(.log), .createNew), as: logFile)
        indexes = SparseIndexes(baseOffset: baseOffset)
        for (kind, entrySize) in [(SegmentFile.offsetIndex, 8), (.timeIndex, 12)] {
            let file = try files.open(path(kind), .truncate)
            try files.truncate(file, to: Int64(indexBytes / entrySize * entrySize))
        }
    }

    /// Says how far the file goes where that is known without reading it.
    func adopt(size: Int, nextOffset: Offset, largest: TimeIndexEntry?) {
        self.size = size
        reservedSize = size
        fileEnd = size
        self.nextOffset = nextOffset
        self.largest = largest
        isLargestConfirmed = largest == nil
        checked = CheckedRanges(tail: size)
    }

    /// Every byte was read and found sound.
    func noteWhollyChecked() { checked = CheckedRanges(tail: 0) }

    /// Loads the indexes of a sound segment so that it can be written to; false where they must be made anew.
    func activate(_ files: LogFiles) throws(LogError) -> Bool {
        guard let offsetFile = try files.contents(path(.offsetIndex)),
            let timeFile = try files.contents(path(.timeIndex)),
            offsetFile.count % 8 == 0, timeFile.count % 12 == 0,
            let loaded = SparseIndexes(
                baseOffset: baseOffset, offsetFile: offsetFile, timeFile: timeFile, segmentSize: max(size, 1))
        else { return false }
        indexes = loaded
        bytesSinceIndexEntry = size - (loaded.lastOffsetEntry?.position ?? 0)
        return true
    }

    /// Ends the time index with the segment's highest timestamp, writes what the index files lack, and cuts them to
    /// size. Returns the files that want a sync. The segment stays active: `close` ends that.
    func completeIndexes(_ files: LogFiles) throws(LogError) -> [any DiskFile] {
        precondition(indexes != nil, "only an active segment's indexes can lack something")
        if let largest { indexes!.appendTime(largest) }
        var written: [any DiskFile] = []
        let offsets = try files.open(path(.offsetIndex), .create)
        if indexes!.offsetsInFile < indexes!.offsetCount {
            try files.write(indexes!.encodedOffsets(), to: offsets, at: Int64(indexes!.offsetsInFile * 8))
            indexes!.offsetsInFile = indexes!.offsetCount
        }
        try files.truncate(offsets, to: Int64(indexes!.offsetCount * 8))
        let times = try files.open(path(.timeIndex), .create)
        if indexes!.timesInFile < indexes!.timeCount {
            try files.write(indexes!.encodedTimes(), to: times, at: Int64(indexes!.timesInFile * 12))
            indexes!.timesInFile = indexes!.timeCount
        }
        try files.truncate(times, to: Int64(indexes!.timeCount * 12))
        written += [offsets, times]
        if let transactionFile = try transactions.write(files) { written.append(transactionFile) }
        return written
    }

    /// After `completeIndexes`: lets go of memory.
    func close() { indexes = nil }

    // MARK: writing

    /// Counts a batch that lies in the file now.
    func publish(_ batch: BatchPlace, indexInterval: Int) {
        precondition(batch.position == size, "batches of a segment follow one another")
        precondition(batch.baseOffset >= nextOffset, "offsets of a segment rise")
        if firstTimestamp == nil { firstTimestamp = batch.maxTimestamp }
        if batch.maxTimestamp > (largest?.timestamp ?? -1) {
            largest = TimeIndexEntry(timestamp: batch.maxTimestamp, offset: batch.lastOffset)
        }
        if bytesSinceIndexEntry > indexInterval {
            indexes!.appendOffset(batch.lastOffset, position: batch.position)
            if let largest { indexes!.appendTime(largest) }
            bytesSinceIndexEntry = 0
        }
        bytesSinceIndexEntry += batch.size
        size += batch.size
        fileEnd = max(fileEnd, size)
        nextOffset = batch.lastOffset + 1
    }

    /// Writes zeros behind what is reserved, up to `end`. Where the disk refuses, nothing is lost: the file ends anywhere
    /// up to there, in zeros.
    func makeRoom(to end: Int, _ files: LogFiles) throws(LogError) {
        let (file, start) = (try file(files), max(fileEnd, reservedSize))
        guard start < end else { return }
        fileEnd = end
        let pieces = stride(from: 0, to: end - start, by: Self.zeros.count).map {
            UnsafeRawBufferPointer(rebasing: Self.zeros[..<min(Self.zeros.count, end - start - $0)])
        }
        try onDisk { () throws(SystemError) in try file.write(pieces, at: Int64(start)) }
    }

    /// Never written to, and never given back.
    nonisolated(unsafe) private static let zeros: UnsafeRawBufferPointer = {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * 1024, alignment: 16)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        return UnsafeRawBufferPointer(bytes)
    }()

    /// Ends the file where its batches do. Nothing may be reserved.
    func removeRoom(_ files: LogFiles) throws(LogError) {
        guard fileEnd > size else { return }
        try cutFile(to: size, files)
    }

    func cutFile(to end: Int, _ files: LogFiles) throws(LogError) {
        try files.truncate(try file(files), to: Int64(end))
        fileEnd = end
    }

    /// Prepares for batches to be published anew from the start of the file, as recovery does.
    func forget() {
        size = 0
        reservedSize = 0
        nextOffset = baseOffset
        largest = nil
        firstTimestamp = nil
        bytesSinceIndexEntry = 0
        noteWhollyChecked()
        isLargestConfirmed = true
        indexes = SparseIndexes(baseOffset: baseOffset)
    }

    /// Cuts the file at a batch, and what the indexes say of the cut part. The segment is active.
    func truncate(to position: Int, nextOffset: Offset, _ files: LogFiles) throws(LogError) {
        precondition(indexes != nil && position <= size, "a cut lies inside an active segment")
        try cutFile(to: position, files)
        size = position
        reservedSize = position
        checked.cut(to: position)
        self.nextOffset = nextOffset
        indexes!.truncate(to: nextOffset)
        try transactions.truncate(to: nextOffset, files)
        bytesSinceIndexEntry = position - (indexes!.lastOffsetEntry?.position ?? 0)
        if position == 0 { firstTimestamp = nil }
        if let largest, largest.offset >= nextOffset { try restoreLargest(files) }
    }

    /// The highest timestamp of what is left: from the last time entry, and the batches after the last offset entry.
    private func restoreLargest(_ files: LogFiles) throws(LogError) {
        largest = indexes!.lastTimeEntry
        var scanner = BatchScanner(
            try file(files), baseOffset: baseOffset, from: indexes!.lastOffsetEntry?.position ?? 0, to: size,
            bufferSize: BatchScanner.searchBufferSize)
        while case .header(let header) = try scanner.peek() {
            if header.maxTimestamp > (largest?.timestamp ?? -1) {
                largest = TimeIndexEntry(timestamp: header.maxTimestamp, offset: header.lastOffset)
            }
            scanner.skip(header)
        }
    }

    /// Makes both sparse indexes anew from the headers of the batches; the files that want a sync. Throws where the batches
    /// do not follow one another, and has changed nothing then.
    func remakeIndexes(_ files: LogFiles, indexInterval: Int, staysActive: Bool = false) throws(LogError) -> [any DiskFile] {
        var made = SparseIndexes(baseOffset: baseOffset)
        var highest: TimeIndexEntry?
        var sinceEntry = 0
        var scanner = BatchScanner(
            try file(files), baseOffset: baseOffset, from: 0, to: size, bufferSize: BatchScanner.recoveryBufferSize)
        var least = baseOffset
        walk: while true {
            switch try scanner.peek() {
            case .header(let header):
                guard header.baseOffset >= least else {
                    throw .corrupt(
                        path: path(.log), position: Int64(scanner.position),
                        reason: "\(BatchFault.offsetFalls(header.baseOffset, expected: least))")
                }
                if header.maxTimestamp > (highest?.timestamp ?? -1) {
                    highest = TimeIndexEntry(timestamp: header.maxTimestamp, offset: header.lastOffset)
                }
                if sinceEntry > indexInterval {
                    made.appendOffset(header.lastOffset, position: scanner.position)
                    if let highest { made.appendTime(highest) }
                    sinceEntry = 0
                }
                sinceEntry += header.totalSize
                least = header.nextOffset
                scanner.skip(header)
            case .end: break walk
            case .fault(let fault):
                throw .corrupt(path: path(.log), position: Int64(scanner.position), reason: fault.description)
            }
        }
        largest = highest
        isLargestConfirmed = true
        bytesSinceIndexEntry = sinceEntry
        let staysActive = staysActive || isActive
        indexes = made
        for cached in [offsetIndexFile, timeIndexFile] { files.descriptors.forget(cached) }
        guard !staysActive else { return [] }
        let written = try completeIndexes(files)
        close()
        return written
    }

    // MARK: finding

    /// The first batch whose last offset is not below the given one; nil where the segment ends before it.
    func find(_ offset: Offset, _ files: LogFiles) throws(LogError) -> BatchPlace? {
        guard offset < nextOffset, size > 0 else { return nil }
        let start = try startOfSearch(offset, files)
        var scanner = BatchScanner(
            try file(files), baseOffset: baseOffset, from: start.position, to: size,
            bufferSize: BatchScanner.searchBufferSize)
        while true {
            switch try scanner.peek() {
            case .header(let header):
                if scanner.position == start.position, header.baseOffset > start.offset {
                    let found = "at byte \(start.position) begins \(header.baseOffset), and not \(start.offset)"
                    throw misleads(.offsetIndex, found)
                }
                if header.lastOffset >= offset { return BatchPlace(header, position: scanner.position) }
                scanner.skip(header)
            case .end:
                return nil
            case .fault(let fault):
                throw misread(fault, at: scanner.position, searchedFrom: start.position)
            }
        }
    }

    /// Where a search meets no batch at the very place that the index named, it is the index that is wrong.
    private func misread(_ fault: BatchFault, at position: Int, searchedFrom start: Int) -> LogError {
        guard start > 0, position == start else {
            return .corrupt(path: path(.log), position: Int64(position), reason: fault.description)
        }
        return misleads(.offsetIndex, "at byte \(start) there is no batch: \(fault)")
    }

    private func misleads(_ kind: SegmentFile, _ reason: String) -> LogError {
        .corrupt(path: path(kind), position: 0, reason: reason)
    }

    /// The offset after the last batch in the file, or after the last one before a place in it; a closed segment does not
    /// keep it in mind.
    func endOfBatches(before place: BatchPlace?, _ files: LogFiles) throws(LogError) -> Offset {
        // an entry for the offset before it names no batch as late as the one there
        let start = try startOfSearch(place.map { $0.baseOffset - 1 } ?? nextOffset, files).position
        let limit = place?.position ?? size
        guard start < limit || start == 0 else {
            throw misleads(.offsetIndex, "it has what ends below byte \(limit) begin at \(start)")
        }
        var scanner = BatchScanner(
            try file(files), baseOffset: baseOffset, from: start, to: limit, bufferSize: BatchScanner.searchBufferSize)
        var end = baseOffset
        while true {
            switch try scanner.peek() {
            case .header(let header):
                end = header.nextOffset
                scanner.skip(header)
            case .end: return end
            case .fault(let fault): throw misread(fault, at: scanner.position, searchedFrom: start)
            }
        }
    }

    /// Where a search may begin, and an offset that the batch there holds or lies below.
    private func startOfSearch(_ offset: Offset, _ files: LogFiles) throws(LogError) -> OffsetIndexEntry {
        // an entry names a batch by its last offset: the one sought may be that batch itself, or come after it
        let entry: OffsetIndexEntry?
        if let indexes {
            entry = indexes.floor(offset)
        } else {
            entry = try indexFile(.offsetIndex, offsetIndexFile, files).floor(offset, baseOffset)
        }
        guard let entry else { return OffsetIndexEntry(offset: .max, position: 0) }
        guard entry.position < size else { throw misleads(.offsetIndex, "it points to byte \(entry.position) of \(size)") }
        return entry
    }

    private func indexFile(_ kind: SegmentFile, _ file: CachedFile, _ files: LogFiles) throws(LogError) -> IndexFile {
        let opened: any DiskFile
        do throws(LogError) { opened = try files.cached(file) } catch {
            guard case .storage(let cause) = error, cause.kind == .notFound else { throw error }
            throw misleads(kind, "it is not there any more")
        }
        guard let index = try IndexFile(opened, entrySize: kind == .offsetIndex ? 8 : 12) else {
            throw misleads(kind, "its size is no whole number of entries")
        }
        return index
    }

    /// Where a search for a timestamp may begin: a batch before which all timestamps are lower.
    func startOfSearch(timestamp: Int64, _ files: LogFiles) throws(LogError) -> Int {
        let entry: TimeIndexEntry?
        if let indexes {
            entry = indexes.floor(timestamp: timestamp - 1)
        } else {
            entry = try indexFile(.timeIndex, timeIndexFile, files).floor(timestamp: timestamp - 1, baseOffset)
        }
        guard let entry else { return 0 }
        return try confirm(entry, files).position
    }

    /// The batch that a time entry names. One that it misnames would hide records from a search, and have retention take what
    /// is young.
    private func confirm(_ entry: TimeIndexEntry, _ files: LogFiles) throws(LogError) -> BatchPlace {
        let place = try find(entry.offset, files)
        guard let place, place.baseOffset <= entry.offset, place.maxTimestamp == entry.timestamp else {
            throw misleads(.timeIndex, "no batch at offset \(entry.offset) has the timestamp \(entry.timestamp)")
        }
        return place
    }

    /// Holds `largest` against the batch that it names, once.
    func confirmLargest(_ files: LogFiles) throws(LogError) {
        guard !isLargestConfirmed, let largest else { return }
        _ = try confirm(largest, files)
        isLargestConfirmed = true
    }

    /// That of the first batch, read where it is not known; nil for an empty segment.
    func timestampOfFirstBatch(_ files: LogFiles) throws(LogError) -> Int64? {
        if firstTimestamp == nil, size > 0 { firstTimestamp = try find(baseOffset, files)?.maxTimestamp }
        return firstTimestamp
    }
}
