package import MartletModel
package import MartletReactor
internal import MartletBasics

/// Reads a segment file batch by batch, as it lies there: for inspection, which must see what a log that is opened would cut,
/// rebuild or pass over. Opens the file for reading and nothing else. Not thread-safe.
package final class SegmentReader {
    /// What is read ahead at a time.
    private static let windowBytes = 1 << 20
    /// What the records of one batch may take when they are decompressed; Kafka lets no batch in that takes more.
    private static let recordsLimit = Int(Int32.max) - 1
    /// Less than a header follows the length.
    private static let leastLength = Int32(BatchHeader.size - BatchHeader.lengthOverhead)

    /// A batch that lies whole in the file; its bytes are valid until the next call of the reader.
    package struct Batch {
        package var position: Int64
        package var header: BatchHeader
        package var bytes: UnsafeRawBufferPointer
        /// What is wrong with it: format, checksum, codec, counts. Its records need not be looked at then.
        package var fault: String?
    }

    package enum Step {
        case batch(Batch)
        case end
        /// Zeros up to the file's end: a broker keeps room ahead of what it appends, and takes it away when it stops.
        case room(position: Int64)
        /// No whole batch begins here, and what follows cannot be told apart.
        case stopped(position: Int64, reason: String)
    }

    package let path: String
    package let baseOffset: Offset
    package let size: Int64
    private let file: any DiskFile
    private var position: Int64 = 0
    private var window: UnsafeMutableRawBufferPointer
    private var windowStart: Int64 = 0
    private var windowCount = 0
    private let contexts = CodecContexts()
    private var scratch = ByteBuffer()

    package init(_ path: String, baseOffset: Offset, on disk: any Disk) throws(LogError) {
        self.path = path
        self.baseOffset = baseOffset
        file = try onDisk { () throws(SystemError) in try disk.open(path, .read) }
        let file = file
        size = try onDisk { () throws(SystemError) in try file.size() }
        window = .allocate(byteCount: 0, alignment: 16)
    }

    deinit {
        file.close()
        window.deallocate()
    }

    /// The next batch. After `end`, `room` or `stopped`, the same again.
    package func next() throws(LogError) -> Step {
        let left = size - position
        if left == 0 { return .end }
        func stopped(_ reason: String) -> Step { .stopped(position: position, reason: reason) }
        guard left >= BatchHeader.lengthOverhead else { return stopped("\(left) bytes, less than a batch's head") }
        let head = try bytes(BatchHeader.lengthOverhead)
        guard head.count == BatchHeader.lengthOverhead else { return stopped("the file became shorter while it was read") }
        let base = Int64(bigEndian: head.loadUnaligned(as: Int64.self))
        let length = Int32(bigEndian: head.loadUnaligned(fromByteOffset: 8, as: Int32.self))
        guard length >= Self.leastLength else {
            if base == 0, length == 0, try isZeroToTheEnd() { return .room(position: position) }
            if let magic = try OldMessageFormat.magic(in: file, at: Int(position), end: Int(size)) {
                return stopped("a message of format \(magic), as Kafka before 0.11 wrote it")
            }
            return stopped("a batch length of \(length)")
        }
        let total = Int64(length) + Int64(BatchHeader.lengthOverhead)
        guard total <= left else {
            return stopped("a batch of \(total) bytes at offset \(base), of which \(left) are there")
        }
        let whole = try bytes(Int(total))
        guard whole.count == Int(total) else { return stopped("the file became shorter while it was read") }
        let header = BatchHeader(whole)
        if header.magic != 2, let magic = try OldMessageFormat.magic(in: file, at: Int(position), end: Int(size)) {
            return stopped("a message of format \(magic), as Kafka before 0.11 wrote it")
        }
        let batch = Batch(position: position, header: header, bytes: whole, fault: Self.fault(header, whole))
        position += total
        return .batch(batch)
    }

    private func isZeroToTheEnd() throws(LogError) -> Bool {
        let start = position
        defer { position = start }
        while position < size {
            let piece = try bytes(Int(min(Int64(Self.windowBytes), size - position)))
            guard !piece.isEmpty, piece.allSatisfy({ $0 == 0 }) else { return false }
            position += Int64(piece.count)
        }
        return true
    }

    private static func fault(_ header: BatchHeader, _ bytes: UnsafeRawBufferPointer) -> String? {
        if header.magic != 2 { return "format \(header.magic), where only 2 is known" }
        let crc = crc32c(UnsafeRawBufferPointer(rebasing: bytes[BatchHeader.At.attributes...]))
        if crc != header.crc { return "the checksum says \(header.crc), the bytes give \(crc)" }
        if header.codec == nil || header.attributes & ~0x7F != 0 { return "attributes \(header.attributes)" }
        if header.leaderEpoch < -1 { return "leader epoch \(header.leaderEpoch)" }
        let offsets = Int64(header.lastOffsetDelta) + 1
        if offsets < 1 || header.recordCount < 0 || Int64(header.recordCount) > offsets {
            return "\(header.recordCount) records, last offset delta \(header.lastOffsetDelta)"
        }
        // what no log gives out, and no arithmetic should meet
        let isPossible = header.baseOffset >= 0 && header.baseOffset <= .max - Int64(Int32.max) - 1
        return isPossible ? nil : "base offset \(header.baseOffset)"
    }

    /// Bytes from `position` on, read ahead.
    private func bytes(_ count: Int) throws(LogError) -> UnsafeRawBufferPointer {
        if position < windowStart || position + Int64(count) > windowStart + Int64(windowCount) {
            let wanted = Int(min(Int64(max(count, Self.windowBytes)), size - position))
            if window.count < wanted {
                window.deallocate()
                window = .allocate(byteCount: wanted, alignment: 16)
            }
            let target = UnsafeMutableRawBufferPointer(rebasing: window[..<wanted])
            let (file, position) = (file, position)
            windowCount = try onDisk { () throws(SystemError) in try file.read(into: target, at: position) }
            windowStart = position
        }
        let start = Int(position - windowStart)
        return UnsafeRawBufferPointer(rebasing: window[start..<min(start + count, windowCount)])
    }

    /// Calls `body` with every record of a batch; what is wrong with them, or nil.
    package func forEachRecord(of batch: Batch, _ body: (RecordView, RecordCursor) -> Void) -> String? {
        scratch.truncate(to: 0)
        let records: UnsafeRawBufferPointer
        do throws(CompressionFault) {
            records = try batch.header.records(of: batch.bytes, contexts: contexts, scratch: &scratch, limit: Self.recordsLimit)
        } catch {
            return "\(error)"
        }
        var cursor = RecordCursor(records, count: batch.header.recordCount)
        do throws(RecordFault) {
            while let record = try cursor.next() { body(record, cursor) }
            return nil
        } catch {
            return "record \(cursor.index): \(error)"
        }
    }
}
