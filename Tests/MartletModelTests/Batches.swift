import MartletBasics
import MartletModel

/// A small vocabulary for batches made by hand, and the judgement of them.
struct Rec {
    var key: [UInt8]?
    var value: [UInt8]?
    var headers: [RecordHeader] = []
    var timestamp: Int64 = Rec.time

    static let time: Int64 = 1_700_000_000_000
    /// The wall clock of these tests: a second after the records' time.
    static let now: Int64 = time + 1_000

    init(_ key: String?, _ value: String?, _ headers: [RecordHeader] = [], at delta: Int64 = 0) {
        self.key = key.map { Array($0.utf8) }
        self.value = value.map { Array($0.utf8) }
        self.headers = headers
        timestamp = Rec.time + delta
    }

    init(_ key: [UInt8]?, _ value: [UInt8]?, _ headers: [RecordHeader] = [], timestamp: Int64) {
        self.key = key
        self.value = value
        self.headers = headers
        self.timestamp = timestamp
    }
}

extension Rec: Equatable {}

func batch(_ records: [Rec], _ identity: BatchIdentity = BatchIdentity(), codec: CompressionCodec = .none) -> [UInt8] {
    var builder = BatchBuilder(identity)
    for record in records {
        builder.append(timestamp: record.timestamp, key: record.key, value: record.value, headers: record.headers)
    }
    var output = ByteBuffer()
    builder.finish(into: &output, codec: codec, contexts: CodecContexts())
    return output.array
}

/// A batch with a sound header and checksum around bytes made by hand.
func batch(around body: [UInt8], count: Int32 = 1, codec: UInt8 = 0) -> [UInt8] {
    var bytes = batch([Rec(nil, "")])
    bytes.removeSubrange(BatchHeader.size...)
    bytes += body
    return edited(bytes) {
        $0.batchLength = Int32(bytes.count - BatchHeader.lengthOverhead)
        $0.recordCount = count
        $0.lastOffsetDelta = count - 1
        $0.attributes = Int16(codec)
    }
}

/// The batch with other fields in its header, and, unless it is told otherwise, the right checksum.
func edited(_ batch: [UInt8], sealed: Bool = true, _ change: (inout BatchHeader) -> Void) -> [UInt8] {
    var bytes = batch
    bytes.withUnsafeMutableBytes { raw in
        var header = BatchHeader(UnsafeRawBufferPointer(raw))
        change(&header)
        header.write(to: raw)
        if sealed { BatchHeader.seal(raw) }
    }
    return bytes
}

func header(_ batch: [UInt8]) -> BatchHeader { batch.withUnsafeBytes { BatchHeader($0) } }

func checksumHolds(_ batch: [UInt8]) -> Bool {
    batch.withUnsafeBytes { BatchHeader.checksum(of: $0) } == header(batch).crc
}

func encoded(_ write: (inout ByteBuffer) -> Void) -> [UInt8] {
    var buffer = ByteBuffer()
    write(&buffer)
    return buffer.array
}

struct Judged {
    var validated: ValidatedBatch
    /// What would be stored.
    var stored: [UInt8]
}

func judge(
    _ bytes: [UInt8], _ config: TopicConfig = TopicConfig(), version: Int16 = 9, now: Int64 = Rec.now,
    limit: Int = BatchValidator.defaultDecompressedBytesLimit
) throws(BatchRejection) -> Judged {
    var validator = BatchValidator(contexts: CodecContexts(), decompressedBytesLimit: limit)
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
    defer { copy.deallocate() }
    copy.copyBytes(from: bytes)
    let validated = try validator.validate(copy, config: config, version: version, now: now)
    let size = validated.header.totalSize
    return Judged(
        validated: validated,
        stored: validated.isRewritten ? [UInt8](validator.rewritten) : [UInt8](copy[..<size]))
}

/// The code a batch is refused with, `none` where it is taken.
func verdict(
    _ bytes: [UInt8], _ config: TopicConfig = TopicConfig(), version: Int16 = 9, now: Int64 = Rec.now
) -> ErrorCode {
    do {
        _ = try judge(bytes, config, version: version, now: now)
        return .none
    } catch {
        return error.code
    }
}

/// The records of a batch as its cursor reads them, with their offset deltas.
func read(_ batch: [UInt8], limit: Int = 1 << 26) throws -> (records: [Rec], deltas: [Int32]) {
    var scratch = ByteBuffer()
    let header = header(batch)
    return try batch.withUnsafeBytes { raw in
        let area = try header.records(of: raw, contexts: CodecContexts(), scratch: &scratch, limit: limit)
        var cursor = RecordCursor(area, count: header.recordCount)
        var records: [Rec] = []
        var deltas: [Int32] = []
        while let record = try cursor.next() {
            let headers = cursor.headers(of: record).map {
                RecordHeader([UInt8](cursor.bytes(in: $0.name)), cursor.bytes(in: $0.value).map { [UInt8]($0) })
            }
            records.append(
                Rec(
                    cursor.bytes(in: record.key).map { [UInt8]($0) }, cursor.bytes(in: record.value).map { [UInt8]($0) },
                    headers, timestamp: header.timestamp(of: record)))
            deltas.append(record.offsetDelta)
        }
        return (records, deltas)
    }
}
