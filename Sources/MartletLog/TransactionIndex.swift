internal import MartletBasics
package import MartletModel
internal import MartletReactor

/// The aborted transactions whose markers lie in one segment, in the order of the markers.
///
/// On disk (`.txnindex`; big-endian), 34 bytes an entry: `int16 version 0, int64 producer id, int64 first offset, int64
/// last offset` (the marker's)`, int64 last stable offset` as it was after this abort. The file exists only if there is
/// an entry.
///
/// A few entries wait in memory: they reach the file in groups, at a roll and at a clean close. What a crash takes,
/// recovery makes anew.
struct TransactionIndex {
    static let entrySize = 34
    /// So many wait in memory at most.
    static let tailLimit = 512
    private static let chunkEntries = 1024

    var path: String
    private(set) var countInFile = 0
    private(set) var tail: [AbortedTransaction] = []

    init(path: String) { self.path = path }

    var isEmpty: Bool { countInFile == 0 && tail.isEmpty }
    var mustWrite: Bool { tail.count >= Self.tailLimit }

    mutating func append(_ transaction: AbortedTransaction) { tail.append(transaction) }

    /// Takes what the file holds; false where it is no such index: no checksum covers it, but its markers rise and lie in
    /// the segment, behind the first record of what they end.
    mutating func open(_ files: LogFiles, in segment: Range<Offset>) throws(LogError) -> Bool {
        tail = []
        countInFile = 0
        guard let status = try files.status(path) else { return true }
        guard status.size % Int64(Self.entrySize) == 0 else { return false }
        countInFile = Int(status.size) / Self.entrySize
        var isSound = true
        var before = segment.lowerBound - 1
        try forEach(files) { entry in
            isSound = entry.producerID >= 0 && entry.firstOffset >= 0 && entry.firstOffset < entry.lastOffset
                && entry.lastOffset > before && segment.contains(entry.lastOffset)
                && entry.lastStableOffset >= 0 && entry.lastStableOffset <= entry.lastOffset + 1
            before = entry.lastOffset
            return isSound
        }
        if !isSound { countInFile = 0 }
        return isSound
    }

    /// Moves what waits in memory to the file, and returns the file where something was written.
    mutating func write(_ files: LogFiles) throws(LogError) -> (any DiskFile)? {
        guard !tail.isEmpty else { return nil }
        var bytes = ByteBuffer(capacity: tail.count * Self.entrySize)
        for entry in tail {
            bytes.int16(0)
            bytes.int64(entry.producerID)
            bytes.int64(entry.firstOffset)
            bytes.int64(entry.lastOffset)
            bytes.int64(entry.lastStableOffset)
        }
        let file = try files.open(path, .create)
        try files.write(bytes.bytes, to: file, at: Int64(countInFile * Self.entrySize))
        countInFile += tail.count
        tail.removeAll()
        return file
    }

    /// Calls `body` with every entry until it says that it has seen enough.
    func forEach(_ files: LogFiles, _ body: (AbortedTransaction) -> Bool) throws(LogError) {
        var read = 0
        if countInFile > 0 {
            let file = try files.open(path, .read)
            let buffer = UnsafeMutableRawBufferPointer.allocate(
                byteCount: min(countInFile, Self.chunkEntries) * Self.entrySize, alignment: 8)
            defer { buffer.deallocate() }
            while read < countInFile {
                let wanted = min(Self.chunkEntries, countInFile - read)
                let target = UnsafeMutableRawBufferPointer(rebasing: buffer[..<(wanted * Self.entrySize)])
                let count = try files.read(file, into: target, at: Int64(read * Self.entrySize))
                guard count == target.count else {
                    throw .corrupt(path: path, position: 0, reason: "the file became shorter while it was read")
                }
                for index in 0..<wanted where !body(Self.entry(target, index * Self.entrySize)) { return }
                read += wanted
            }
        }
        for entry in tail where !body(entry) { return }
    }

    private static func entry(_ bytes: UnsafeMutableRawBufferPointer, _ start: Int) -> AbortedTransaction {
        func int64(_ at: Int) -> Int64 {
            Int64(bigEndian: bytes.loadUnaligned(fromByteOffset: start + at, as: Int64.self))
        }
        return AbortedTransaction(
            producerID: int64(2), firstOffset: int64(10), lastOffset: int64(18), lastStableOffset: int64(26))
    }

    /// Forgets the transactions whose markers lie at the offset or above it.
    mutating func truncate(to offset: Offset, _ files: LogFiles) throws(LogError) {
        var kept = 0
        try forEach(files) { entry in
            guard entry.lastOffset < offset else { return false }
            kept += 1
            return true
        }
        if kept < countInFile {
            tail.removeAll()
            if kept == 0 {
                try files.remove(path)
            } else {
                try files.truncate(try files.open(path, .readWrite), to: Int64(kept * Self.entrySize))
            }
            countInFile = kept
        } else {
            tail.removeLast(tail.count - (kept - countInFile))
        }
    }

    /// Forgets all: recovery makes it anew.
    mutating func clear(_ files: LogFiles) throws(LogError) {
        tail.removeAll()
        countInFile = 0
        try files.remove(path)
    }
}

/// A transaction that readers of committed records must not see, as Fetch tells it.
package struct AbortedTransaction: Equatable, Hashable, Sendable {
    package var producerID: ProducerID
    package var firstOffset: Offset
    /// The marker's.
    package var lastOffset: Offset
    /// Where the last stable offset stood after this abort.
    package var lastStableOffset: Offset

    package init(producerID: ProducerID, firstOffset: Offset, lastOffset: Offset, lastStableOffset: Offset) {
        self.producerID = producerID
        self.firstOffset = firstOffset
        self.lastOffset = lastOffset
        self.lastStableOffset = lastStableOffset
    }
}
