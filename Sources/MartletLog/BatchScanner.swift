internal import MartletBasics
internal import MartletModel
internal import MartletReactor

/// Why the bytes at a place of a segment are no batch.
enum BatchFault: Equatable, CustomStringConvertible {
    case shortHeader(Int), shortBatch(needed: Int, there: Int), impossibleLength(Int32), unknownFormat(Int8)
    case checksum(said: UInt32, found: UInt32)
    case offsetFalls(Offset, expected: Offset), gap(Offset, expected: Offset), offsetTooFar(Offset), impossibleCount

    var description: String {
        switch self {
        case .shortHeader(let there): "\(there) bytes are left, fewer than a header"
        case .shortBatch(let needed, let there): "the batch has \(needed) bytes and \(there) are left"
        case .impossibleLength(let length): "a batch length of \(length)"
        case .unknownFormat(let magic): "record format \(magic), and only format 2 is known"
        case .checksum(let said, let found): "the checksum says \(said) and the bytes give \(found)"
        case .offsetFalls(let offset, let expected):
            "base offset \(offset) where \(expected) is the least that can follow"
        case .gap(let offset, let expected):
            "base offset \(offset) where \(expected) follows, in a log that was never compacted"
        case .offsetTooFar(let offset): "offset \(offset) is too far from the segment's base offset"
        case .impossibleCount: "a count of records or a last offset that no batch has"
        }
    }
}

/// Reads the batches of a segment file one after the other, through one buffer: headers for a search, whole batches for
/// a check.
///
/// Bytes of any content give a header or a fault, and never trap.
struct BatchScanner: ~Copyable {
    /// Enough for the batches between two index entries, as a rule.
    static let searchBufferSize = 4096 + BatchHeader.size
    static let recoveryBufferSize = 256 * 1024

    let file: any DiskFile
    let baseOffset: Offset
    /// Where the next batch begins.
    private(set) var position: Int
    /// Where the segment ends.
    let end: Int
    private let buffer: UnsafeMutableRawBufferPointer
    private var windowStart = 0
    private var windowCount = 0

    init(_ file: any DiskFile, baseOffset: Offset, from position: Int, to end: Int, bufferSize: Int) {
        precondition(position >= 0 && position <= end && bufferSize >= BatchHeader.size, "a scan lies inside its file")
        self.file = file
        self.baseOffset = baseOffset
        self.position = position
        self.end = end
        // no more than there is to read: a scan near the end must not ask for pages past it
        buffer = .allocate(byteCount: max(min(bufferSize, end - position), BatchHeader.size), alignment: 16)
    }

    deinit { buffer.deallocate() }

    /// Bytes of the file, as many of `count` as the buffer and the segment hold; valid until the next call.
    mutating func bytes(at start: Int, _ count: Int) throws(LogError) -> UnsafeRawBufferPointer {
        let wanted = min(count, buffer.count, end - start)
        if start < windowStart || start + wanted > windowStart + windowCount {
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, end - start)])
            let file = file
            windowCount = try onDisk { () throws(SystemError) in try file.read(into: target, at: Int64(start)) }
            windowStart = start
        }
        let there = min(wanted, windowStart + windowCount - start)
        return UnsafeRawBufferPointer(rebasing: buffer[(start - windowStart)..<(start - windowStart + max(there, 0))])
    }

    enum Step {
        case header(BatchHeader)
        case end
        case fault(BatchFault)
    }

    /// The header of the batch at `position`, if the whole batch can lie there. Does not move. A message of an old format is
    /// no damage, and must not be cut: it throws.
    mutating func peek() throws(LogError) -> Step {
        let step = try header()
        guard case .fault = step, let magic = try OldMessageFormat.magic(in: file, at: position, end: end) else { return step }
        throw .oldFormat(path: file.path, position: Int64(position), magic: magic)
    }

    private mutating func header() throws(LogError) -> Step {
        if position == end { return .end }
        let there = try bytes(at: position, BatchHeader.size)
        guard there.count == BatchHeader.size else { return .fault(.shortHeader(there.count)) }
        let header = BatchHeader(there)
        guard header.batchLength >= BatchHeader.size - BatchHeader.lengthOverhead else {
            return .fault(.impossibleLength(header.batchLength))
        }
        guard header.magic == 2 else { return .fault(.unknownFormat(header.magic)) }
        guard header.totalSize <= end - position else {
            return .fault(.shortBatch(needed: header.totalSize, there: end - position))
        }
        guard header.lastOffsetDelta >= 0, header.recordCount >= 0 else { return .fault(.impossibleCount) }
        guard header.baseOffset >= baseOffset, header.baseOffset <= .max - Int64(Int32.max) - 1 else {
            return .fault(.offsetFalls(header.baseOffset, expected: baseOffset))
        }
        guard header.lastOffset - baseOffset <= Int64(Int32.max) else {
            return .fault(.offsetTooFar(header.lastOffset))
        }
        return .header(header)
    }

    /// Goes on behind a batch that `peek` gave.
    mutating func skip(_ header: BatchHeader) { position += header.totalSize }

    /// The checksum of the batch at `position`, taken piece by piece: a length that lies asks for no memory.
    mutating func checksum(_ header: BatchHeader) throws(LogError) -> UInt32 {
        var at = position + BatchHeader.At.attributes
        let batchEnd = position + header.totalSize
        var crc: UInt32 = 0
        while at < batchEnd {
            let piece = try bytes(at: at, batchEnd - at)
            guard !piece.isEmpty else { return ~header.crc }
            crc = crc32c(piece, continuing: crc)
            at += piece.count
        }
        return crc
    }

    /// What the control batch at `position` says; nil where it ends no transaction.
    mutating func marker(_ header: BatchHeader) throws(LogError) -> EndTransactionMarker? {
        let there = try bytes(
            at: position, min(header.totalSize, BatchHeader.size + EndTransactionMarker.recordSizeLimit))
        return EndTransactionMarker(batch: there)
    }
}

extension EndTransactionMarker {
    /// More than the record of a marker takes.
    static let recordSizeLimit = 128

    /// From the bytes of a control batch, at least its first record; nil where it ends no transaction, or cannot be
    /// read.
    init?(batch: UnsafeRawBufferPointer) {
        guard batch.count > BatchHeader.size else { return nil }
        var cursor = RecordCursor(UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...]), count: 1)
        do throws(RecordFault) {
            guard let record = try cursor.next(), let key = cursor.bytes(in: record.key),
                let value = cursor.bytes(in: record.value)
            else { return nil }
            self.init(key: key, value: value)
        } catch {
            return nil
        }
    }
}
