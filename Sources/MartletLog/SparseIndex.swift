internal import MartletModel
internal import MartletReactor

/// A batch found through an index: where it begins, in bytes of the segment file.
struct OffsetIndexEntry: Equatable {
    var offset: Offset
    var position: Int
}

struct TimeIndexEntry: Equatable {
    var timestamp: Int64
    var offset: Offset
}

/// The two sparse indexes of a segment, as they lie in memory while the segment is written to.
///
/// On disk (`.index`, `.timeindex`; big-endian):
///
///     .index      8 an entry: int32 offset - base, int32 position
///     .timeindex 12 an entry: int64 timestamp, int32 offset - base
///
/// An index entry names a batch by its **last** offset and by the position at which it **begins**; there is one at most
/// every `index.interval.bytes`, and none for the first batch. A time entry is the highest timestamp so far with the
/// last offset of the batch that has it; timestamps rise strictly. While a segment is active its files are longer than
/// what they hold and zero-filled: they are read up to the first entry that is all zero, and cut to size by a roll or a
/// clean close.
///
/// Entries reach the files at a roll and a clean close only: after a crash the indexes of every segment at or above the
/// recovery point are made anew from its batches, and below it they are synced before the recovery point passes them.
struct SparseIndexes {
    static let offsetEntrySize = 8
    static let timeEntrySize = 12

    let baseOffset: Offset
    /// Relative offset in the high half, position in the low one: they sort as the offsets do.
    private var offsets: [UInt64] = []
    private var timestamps: [Int64] = []
    private var timestampOffsets: [UInt32] = []
    /// How many entries of each the files hold already.
    var offsetsInFile = 0
    var timesInFile = 0

    init(baseOffset: Offset) { self.baseOffset = baseOffset }

    var offsetCount: Int { offsets.count }
    var timeCount: Int { timestamps.count }

    var lastOffsetEntry: OffsetIndexEntry? { offsets.isEmpty ? nil : offsetEntry(offsets.count - 1) }
    var lastTimeEntry: TimeIndexEntry? { timestamps.isEmpty ? nil : timeEntry(timestamps.count - 1) }

    func offsetEntry(_ index: Int) -> OffsetIndexEntry {
        OffsetIndexEntry(offset: baseOffset + Int64(offsets[index] >> 32), position: Int(offsets[index] & 0xFFFF_FFFF))
    }

    func timeEntry(_ index: Int) -> TimeIndexEntry {
        TimeIndexEntry(timestamp: timestamps[index], offset: baseOffset + Int64(timestampOffsets[index]))
    }

    mutating func appendOffset(_ offset: Offset, position: Int) {
        let entry = UInt64(offset - baseOffset) << 32 | UInt64(position)
        precondition(offsets.last.map { $0 < entry } ?? true, "entries of an offset index rise")
        precondition(
            offset - baseOffset <= Int64(Int32.max) && position <= Int(Int32.max), "an index entry is two int32")
        offsets.append(entry)
    }

    /// Adds the highest timestamp so far, unless the last entry says it already.
    mutating func appendTime(_ entry: TimeIndexEntry) {
        guard entry.timestamp > (timestamps.last ?? -1) else { return }
        precondition(
            entry.offset >= baseOffset && entry.offset - baseOffset <= Int64(Int32.max),
            "an index entry fits its segment")
        timestamps.append(entry.timestamp)
        timestampOffsets.append(UInt32(entry.offset - baseOffset))
    }

    /// The last entry whose offset is not above the given one.
    func floor(_ offset: Offset) -> OffsetIndexEntry? {
        let relative = min(max(offset - baseOffset, -1), Int64(Int32.max))
        let index = partitionPoint(offsets.count) { Int64(offsets[$0] >> 32) <= relative }
        return index == 0 ? nil : offsetEntry(index - 1)
    }

    /// The last entry whose timestamp is not above the given one.
    func floor(timestamp: Int64) -> TimeIndexEntry? {
        let index = partitionPoint(timestamps.count) { timestamps[$0] <= timestamp }
        return index == 0 ? nil : timeEntry(index - 1)
    }

    /// Forgets entries that name the offset or one above it.
    mutating func truncate(to offset: Offset) {
        let relative = max(offset - baseOffset, 0)
        let kept = partitionPoint(offsets.count) { Int64(offsets[$0] >> 32) < relative }
        offsets.removeLast(offsets.count - kept)
        let keptTimes = partitionPoint(timestamps.count) { Int64(timestampOffsets[$0]) < relative }
        timestamps.removeLast(timestamps.count - keptTimes)
        timestampOffsets.removeLast(timestampOffsets.count - keptTimes)
        offsetsInFile = min(offsetsInFile, kept)
        timesInFile = min(timesInFile, keptTimes)
    }

    // MARK: the files

    /// The bytes of the offset entries that the file does not hold yet.
    func encodedOffsets() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity((offsets.count - offsetsInFile) * Self.offsetEntrySize)
        for entry in offsets[offsetsInFile...] { append(entry, to: &bytes) }
        return bytes
    }

    func encodedTimes() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity((timestamps.count - timesInFile) * Self.timeEntrySize)
        for index in timesInFile..<timestamps.count {
            append(UInt64(bitPattern: timestamps[index]), to: &bytes)
            for shift in stride(from: UInt32(24), through: 0, by: -8) {
                bytes.append(UInt8(truncatingIfNeeded: timestampOffsets[index] >> shift))
            }
        }
        return bytes
    }

    private func append(_ value: UInt64, to bytes: inout [UInt8]) {
        for shift in stride(from: UInt64(56), through: 0, by: -8) {
            bytes.append(UInt8(truncatingIfNeeded: value >> shift))
        }
    }

    /// Takes the entries of both files; nil where they are not such indexes: entries that fall, or name what lies
    /// outside the segment.
    init?(baseOffset: Offset, offsetFile: [UInt8], timeFile: [UInt8], segmentSize: Int) {
        self.baseOffset = baseOffset
        for index in 0..<offsetFile.count / Self.offsetEntrySize {
            let entry = Self.integer(offsetFile, index * Self.offsetEntrySize, 8)
            if entry == 0 { break }
            guard entry >> 63 == 0, Int(entry & 0xFFFF_FFFF) < segmentSize, offsets.last.map({ $0 < entry }) ?? true
            else { return nil }
            offsets.append(entry)
        }
        for index in 0..<timeFile.count / Self.timeEntrySize {
            let timestamp = Int64(bitPattern: Self.integer(timeFile, index * Self.timeEntrySize, 8))
            let relative = UInt32(Self.integer(timeFile, index * Self.timeEntrySize + 8, 4))
            if timestamp == 0, relative == 0 { break }
            guard timestamp > (timestamps.last ?? -1), relative >> 31 == 0, relative >= (timestampOffsets.last ?? 0)
            else { return nil }
            timestamps.append(timestamp)
            timestampOffsets.append(relative)
        }
        offsetsInFile = offsets.count
        timesInFile = timestamps.count
    }

    private static func integer(_ bytes: [UInt8], _ start: Int, _ count: Int) -> UInt64 {
        bytes[start..<start + count].reduce(0) { $0 << 8 | UInt64($1) }
    }
}

/// The first index for which the predicate is false, where it is true for all before and false for all after.
@inline(__always)
func partitionPoint<E: Error>(_ count: Int, _ isBefore: (Int) throws(E) -> Bool) throws(E) -> Int {
    var low = 0
    var high = count
    while low < high {
        let middle = (low + high) / 2
        if try isBefore(middle) { low = middle + 1 } else { high = middle }
    }
    return low
}

/// An index file of a closed segment, searched where it lies: about ten small reads, and no memory kept.
struct IndexFile {
    let file: any DiskFile
    let entrySize: Int
    let count: Int

    /// Opens a file whose entries end at its first all-zero one; nil where its size is no whole number of entries.
    init?(_ file: any DiskFile, entrySize: Int) throws(LogError) {
        let size = try onDisk { () throws(SystemError) in try file.size() }
        guard size % Int64(entrySize) == 0 else { return nil }
        self.file = file
        self.entrySize = entrySize
        let whole = Int(size) / entrySize
        // a cut file ends in an entry; one that was left preallocated ends in zeros
        if whole == 0 {
            count = 0
        } else if try !Self.isZero(file, entrySize, whole - 1) {
            count = whole
        } else {
            count = try partitionPoint(whole) { (index) throws(LogError) in try !Self.isZero(file, entrySize, index) }
        }
    }

    private static func isZero(_ file: any DiskFile, _ entrySize: Int, _ index: Int) throws(LogError) -> Bool {
        let (high, low) = try read(file, entrySize, index)
        return high == 0 && low == 0
    }

    /// The first eight bytes of an entry, and the four after them where there are such.
    private static func read(_ file: any DiskFile, _ entrySize: Int, _ index: Int) throws(LogError) -> (UInt64, UInt32)
    {
        var words: (UInt64, UInt64) = (0, 0)
        var failure: SystemError?
        var count = 0
        withUnsafeMutableBytes(of: &words) { buffer in
            let entry = UnsafeMutableRawBufferPointer(rebasing: buffer[..<entrySize])
            do throws(SystemError) { count = try file.read(into: entry, at: Int64(index * entrySize)) } catch {
                failure = error
            }
        }
        if let failure { throw .storage(failure) }
        guard count == entrySize else {
            throw .corrupt(
                path: file.path, position: Int64(index * entrySize), reason: "the file became shorter while it was read"
            )
        }
        return (UInt64(bigEndian: words.0), UInt32(bigEndian: UInt32(truncatingIfNeeded: words.1)))
    }

    func offsetEntry(_ index: Int, _ baseOffset: Offset) throws(LogError) -> OffsetIndexEntry {
        let (entry, _) = try Self.read(file, entrySize, index)
        return OffsetIndexEntry(offset: baseOffset + Int64(entry >> 32), position: Int(entry & 0xFFFF_FFFF))
    }

    func timeEntry(_ index: Int, _ baseOffset: Offset) throws(LogError) -> TimeIndexEntry {
        let (timestamp, relative) = try Self.read(file, entrySize, index)
        return TimeIndexEntry(timestamp: Int64(bitPattern: timestamp), offset: baseOffset + Int64(relative))
    }

    func floor(_ offset: Offset, _ baseOffset: Offset) throws(LogError) -> OffsetIndexEntry? {
        let index = try partitionPoint(count) { (index) throws(LogError) in
            try offsetEntry(index, baseOffset).offset <= offset
        }
        return index == 0 ? nil : try offsetEntry(index - 1, baseOffset)
    }

    func floor(timestamp: Int64, _ baseOffset: Offset) throws(LogError) -> TimeIndexEntry? {
        let index = try partitionPoint(count) { (index) throws(LogError) in
            try timeEntry(index, baseOffset).timestamp <= timestamp
        }
        return index == 0 ? nil : try timeEntry(index - 1, baseOffset)
    }
}
