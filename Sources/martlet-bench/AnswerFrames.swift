import MartletBasics

/// Cuts a stream of bytes into answers, each handed out without its size. Only an answer that comes in pieces is kept.
struct AnswerFrames: ~Copyable {
    static let bytesLimit = 64 << 20
    private var kept = ByteBuffer()

    init() {}

    mutating func take(
        _ bytes: UnsafeRawBufferPointer, _ each: (UnsafeRawBufferPointer) throws(BenchFault) -> Void
    ) throws(BenchFault) {
        guard kept.count > 0 else {
            let used = try Self.cut(bytes, each)
            if used < bytes.count { kept.append(UnsafeRawBufferPointer(rebasing: bytes[used...])) }
            return
        }
        kept.append(bytes)
        let used = try Self.cut(kept.bytes, each)
        guard used > 0 else { return }
        let left = kept.count - used
        let start = kept.mutableBytes.baseAddress!
        start.copyMemory(from: start + used, byteCount: left)
        kept.truncate(to: left)
    }

    /// How many bytes were whole answers.
    private static func cut(
        _ bytes: UnsafeRawBufferPointer, _ each: (UnsafeRawBufferPointer) throws(BenchFault) -> Void
    ) throws(BenchFault) -> Int {
        var used = 0
        while bytes.count - used >= 4 {
            let size = Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: used, as: Int32.self)))
            guard size >= 4, size <= bytesLimit else { throw BenchFault("the server sent an answer of \(size) bytes") }
            guard bytes.count - used - 4 >= size else { break }
            try each(UnsafeRawBufferPointer(rebasing: bytes[used + 4..<used + 4 + size]))
            used += 4 + size
        }
        return used
    }
}
