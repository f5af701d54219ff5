import MartletBasics
import MartletModel

/// Batches whose keys come again and again, as in a topic that is compacted: each record has one of half as many keys as
/// there are records, at random. So somewhat less than half of them are the last of their key, and no batch stays as it
/// was.
struct KeyedRecords {
    static let batchBytes = 128 << 10
    /// With key, value and what stands before them.
    static let recordBytes = 256
    private static let keyBytes = 16
    private static let valueBytes = 232
    private static let poolBytes = 1 << 20
    private static let seed: UInt64 = 43

    private let codec: CompressionCodec
    private let keys: Int
    private let pool: [UInt8]
    private let contexts = CodecContexts()
    private var random = SeededRandom(seed: seed)

    /// - Parameter bytes: how much there will be in all, before it is compressed.
    init(bytes: Int, codec: CompressionCodec) {
        self.codec = codec
        keys = max(bytes / Self.recordBytes / 2, 1)
        var source = RecordSource()
        var pool: [UInt8] = []
        while pool.count < Self.poolBytes { pool += source.value(codec) }
        self.pool = pool
    }

    mutating func batch(timestamp: Int64) -> PreparedBatch {
        var builder = BatchBuilder(capacity: Self.batchBytes)
        var key = Array("customer00000000".utf8)
        let none = UnsafeRawBufferPointer(start: nil, count: 0)
        while builder.uncompressedSize + Self.recordBytes <= Self.batchBytes {
            var number = random.below(keys)
            for place in stride(from: Self.keyBytes - 1, through: Self.keyBytes - 8, by: -1) {
                key[place] = UInt8(0x30 + number % 10)
                number /= 10
            }
            let start = random.below(pool.count - Self.valueBytes)
            key.withUnsafeBytes { key in
                pool.withUnsafeBytes { pool in
                    builder.append(
                        timestamp: timestamp, key: key,
                        value: UnsafeRawBufferPointer(rebasing: pool[start..<start + Self.valueBytes]), rawHeaders: (0, none))
                }
            }
        }
        let (records, uncompressed) = (Int(builder.recordCount), builder.uncompressedSize)
        var output = ByteBuffer(capacity: Self.batchBytes + 1024)
        builder.finish(into: &output, codec: codec, contexts: contexts)
        return PreparedBatch(bytes: output.array, records: records, uncompressedBytes: uncompressed)
    }
}
