import MartletBasics
import MartletModel

/// A batch as a producer sends it.
struct PreparedBatch {
    var bytes: [UInt8]
    var records: Int
    /// What it would be without compression.
    var uncompressedBytes: Int
}

/// Makes batches: the same ones in every run.
struct RecordSource {
    /// Of a value; with what stands before it, a record is about 1 KiB.
    static let valueBytes = 1015
    private static let seed: UInt64 = 11
    private static let words = [
        "account", "amount", "balance", "branch", "created", "device", "dispatch", "email", "invoice", "locale",
        "pending", "region", "session", "settled", "telephone", "updated",
    ]

    private var random = SeededRandom(seed: Self.seed)
    private let contexts = CodecContexts()

    /// As many records as fit into so many bytes, at least one: random bytes where nothing compresses them, text where
    /// something does.
    mutating func batch(bytes limit: Int, codec: CompressionCodec, timestamp: Int64) -> PreparedBatch {
        var builder = BatchBuilder(capacity: limit)
        while builder.isEmpty || builder.uncompressedSize + Self.valueBytes + 16 <= limit {
            builder.append(timestamp: timestamp, key: nil, value: value(codec))
        }
        let records = Int(builder.recordCount)
        let uncompressed = builder.uncompressedSize
        var output = ByteBuffer(capacity: limit + 1024)
        builder.finish(into: &output, codec: codec, contexts: contexts)
        return PreparedBatch(bytes: output.array, records: records, uncompressedBytes: uncompressed)
    }

    /// One record, whose value begins with a number of eight bytes.
    func batch(marked mark: Int64, valueBytes: Int, timestamp: Int64) -> [UInt8] {
        var value = ByteBuffer(capacity: valueBytes)
        value.int64(mark)
        value.append([UInt8](repeating: 0x6D, count: max(0, valueBytes - 8)))
        var builder = BatchBuilder(capacity: valueBytes + 32)
        builder.append(timestamp: timestamp, key: nil, value: value.array)
        var output = ByteBuffer(capacity: valueBytes + 128)
        builder.finish(into: &output, contexts: contexts)
        return output.array
    }

    /// A value that this codec has something to do with.
    mutating func value(_ codec: CompressionCodec) -> [UInt8] { codec == .none ? noise() : text() }

    private mutating func noise() -> [UInt8] {
        var value: [UInt8] = []
        value.reserveCapacity(Self.valueBytes)
        for _ in 0..<Self.valueBytes { value.append(UInt8(truncatingIfNeeded: random.next())) }
        return value
    }

    /// An object of JSON, cut at its length: names and numbers, as applications send them.
    private mutating func text() -> [UInt8] {
        var value = Array("{\"id\":\(random.next())".utf8)
        while value.count < Self.valueBytes {
            let name = Self.words[random.below(Self.words.count)]
            let word = Self.words[random.below(Self.words.count)]
            value += Array(",\"\(name)\":\"\(word)-\(random.below(100_000))\"".utf8)
        }
        value.removeLast(value.count - Self.valueBytes)
        return value
    }
}
