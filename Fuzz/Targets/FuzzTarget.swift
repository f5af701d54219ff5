/// What can be fuzzed: one reader of bytes that came from outside, or lay on a disk. Each takes any bytes at all, and
/// checks what the reader says of them as far as it can be checked: a value that was read is written, and read again,
/// as the same.
///
/// A reader that traps, reads outside of its bytes, takes much memory or does not end is what the fuzzer looks for; a
/// value that does not hold traps here, with a sentence.
package enum FuzzTarget: String, CaseIterable, Sendable {
    /// Frames from clients: the header, and the request of every API and version.
    case requests
    /// What our client reads from brokers: every API and version, with its header.
    case answers
    /// Produce requests as the broker reads them: by hand.
    case produce
    /// Keys and values of the coordinators' records, and every other record that has a schema.
    case records
    /// A batch from a producer.
    case batch
    /// The batches of a fetch answer, as our client reads them.
    case fetched
    /// gzip, snappy, lz4 and zstd.
    case decompression
    /// A partition's folder: segments, indexes, snapshots, epochs; opened, recovered, read, verified, shown.
    case log
    /// Checkpoints and the other small files of a log directory; producer snapshots.
    case checkpoints
    /// The keeper's log and snapshots.
    case keeper
    /// Settings: the file, the environment.
    case settings
    case json
    case arguments
    /// A whole broker, and what a client sends it.
    case handlers
    /// What coordinators read of their partitions, and what they make of it.
    case coordinators
    /// Expressions that topics are subscribed to by.
    case pattern

    /// Reads the bytes as this target does; `FuzzSession` does so for any target.
    func run(_ bytes: UnsafeRawBufferPointer) {
        var input = FuzzInput(bytes)
        switch self {
        case .requests: fuzzRequest(bytes)
        case .answers: fuzzAnswer(&input)
        case .produce: fuzzProduce(&input)
        case .records: fuzzRecord(&input)
        case .batch: fuzzBatch(&input)
        case .fetched: fuzzFetched(&input)
        case .decompression: fuzzDecompression(&input)
        case .log: fuzzLog(&input)
        case .checkpoints: fuzzCheckpoint(&input)
        case .keeper: fuzzKeeper(&input)
        case .settings: fuzzSettings(&input)
        case .json: fuzzJSON(&input)
        case .arguments: fuzzArguments(&input)
        case .handlers: preconditionFailure("a broker lives longer than an input: a session has it")
        case .coordinators: fuzzCoordinator(&input)
        case .pattern: fuzzPattern(&input)
        }
    }
}

/// Takes an input apart: choices from its first bytes, then what is to be read. What is not there is zero.
struct FuzzInput {
    private let bytes: UnsafeRawBufferPointer
    private var position = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var isAtEnd: Bool { position == bytes.count }

    mutating func byte() -> UInt8 {
        guard position < bytes.count else { return 0 }
        defer { position += 1 }
        return bytes[position]
    }

    mutating func int16() -> Int16 { Int16(byte()) << 8 | Int16(byte()) }

    /// The next so many bytes, or as many as there are.
    mutating func take(_ count: Int) -> [UInt8] {
        let end = min(position + count, bytes.count)
        defer { position = end }
        return [UInt8](bytes[position..<end])
    }

    /// All that is left.
    mutating func rest() -> UnsafeRawBufferPointer {
        defer { position = bytes.count }
        return UnsafeRawBufferPointer(rebasing: bytes[position...])
    }
}
