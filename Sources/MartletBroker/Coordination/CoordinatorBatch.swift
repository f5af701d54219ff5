import MartletBasics
import MartletModel

/// What a turn wants written, as one batch.
struct CoordinatorBatch: ~Copyable {
    struct Entry {
        /// The machine's number.
        var number: UInt64
        /// Its first record's place in the batch.
        var firstRecord: Int32
    }

    enum Added: Equatable {
        case added
        /// It does not fit behind what is there.
        case full
    }

    private(set) var entries: [Entry] = []
    private var builder: BatchBuilder
    private var bytes = ByteBuffer()
    private var pieces: [(key: Range<Int>, value: Range<Int>?)] = []
    private let contexts = CodecContexts()

    init(_ identity: BatchIdentity = BatchIdentity()) { builder = BatchBuilder(identity) }

    var isEmpty: Bool { entries.isEmpty }

    /// Adds the records if the batch stays within the limit with all of them.
    mutating func add(_ number: UInt64, _ records: [some CoordinatorRecord], limit: Int, wallMilliseconds: Int64) -> Added {
        // what is far too much is not encoded to find that out
        guard records.count * 32 <= limit else { return .full }
        bytes.truncate(to: 0)
        pieces.removeAll(keepingCapacity: true)
        var value = ByteBuffer(capacity: 64)
        for record in records {
            let start = bytes.count
            value.truncate(to: 0)
            let hasValue: Bool
            do throws(EncodingFault) { hasValue = try record.encode(key: &bytes, value: &value) } catch {
                // a field longer than its length can tell: as much too large as anything
                return .full
            }
            let end = bytes.count
            bytes.append(value.bytes)
            pieces.append((start..<end, hasValue ? end..<bytes.count : nil))
        }
        // at most so much goes with each record
        guard builder.uncompressedSize + bytes.count + records.count * 32 <= limit else { return .full }
        entries.append(Entry(number: number, firstRecord: builder.recordCount))
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        for piece in pieces {
            let key = UnsafeRawBufferPointer(rebasing: bytes.bytes[piece.key])
            let value = piece.value.map { UnsafeRawBufferPointer(rebasing: bytes.bytes[$0]) }
            builder.append(timestamp: wallMilliseconds, key: key, value: value, rawHeaders: (0, nothing))
        }
        return .added
    }

    /// Hands out the batch, whose bytes live until this returns, and begins anew.
    mutating func finish<R>(_ body: (UnsafeMutableRawBufferPointer) -> R) -> R {
        bytes.truncate(to: 0)
        builder.finish(into: &bytes, contexts: contexts)
        entries.removeAll(keepingCapacity: true)
        return body(bytes.mutableBytes)
    }

    /// Gives back what one large batch took.
    mutating func release() { bytes.reset() }
}
