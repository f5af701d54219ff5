internal import MartletBasics

/// Why bytes are no batch.
package enum BatchCorruption: Equatable, Sendable {
    /// The length is too small for a header, or above the walker's limit.
    case length(Int32)
    case magic(Int8)
    case checksum(stored: UInt32, computed: UInt32)
    /// Offsets that no log gives out: a negative base offset, or a last one below it.
    case offsets(base: Offset, lastDelta: Int32)
    /// More records than offsets, or fewer than none.
    case recordCount(Int32)
    /// A codec number that names none.
    case codec(Int16)
}

extension BatchCorruption: CustomStringConvertible {
    package var description: String {
        switch self {
        case .length(let length): "a batch length of \(length)"
        case .magic(let magic): "format \(magic), where only 2 is served"
        case .checksum(let stored, let computed): "the checksum is \(stored), of bytes whose checksum is \(computed)"
        case .offsets(let base, let lastDelta): "base offset \(base) and last offset delta \(lastDelta)"
        case .recordCount(let count): "a count of \(count) records"
        case .codec(let number): "codec \(number), which does not exist"
        }
    }
}

/// Walks over whole batches that lie one after the other: a part of a segment, a fetch answer.
///
/// It keeps no bytes alive: it must not outlive the buffer it was made over.
package struct BatchWalker {
    package enum Step: Equatable {
        /// A whole batch with a sound header begins at `position`.
        case batch(position: Int, header: BatchHeader)
        /// All bytes were batches.
        case end
        /// `remaining` bytes begin a batch that does not end among them; `needed` is its whole size, where that can be
        /// told. The walker stays where it begins.
        case partial(remaining: Int, needed: Int?)
        /// What lies at the walker's position is no batch. The walker stays there.
        case corrupt(BatchCorruption)
    }

    package let bytes: UnsafeRawBufferPointer
    /// Where the next batch begins.
    package private(set) var position: Int
    private let checksChecksums: Bool
    private let sizeLimit: Int

    /// - Parameters:
    ///   - checkingChecksums: whether every batch's bytes are read and compared with its checksum.
    ///   - sizeLimit: a batch of more bytes than this, all counted, is corrupt.
    package init(
        _ bytes: UnsafeRawBufferPointer, at position: Int = 0, checkingChecksums: Bool = false,
        sizeLimit: Int = Int(Int32.max)
    ) {
        precondition(position >= 0 && position <= bytes.count, "a walker starts inside its bytes")
        self.bytes = bytes
        self.position = position
        checksChecksums = checkingChecksums
        self.sizeLimit = sizeLimit
    }

    package mutating func next() -> Step {
        let remaining = bytes.count - position
        if remaining == 0 { return .end }
        guard remaining > BatchHeader.At.magic else { return .partial(remaining: remaining, needed: nil) }
        let here = UnsafeRawBufferPointer(rebasing: bytes[position...])
        let length = Int32(bigEndian: here.loadUnaligned(fromByteOffset: BatchHeader.At.batchLength, as: Int32.self))
        let size = Int(length) + BatchHeader.lengthOverhead
        guard size >= BatchHeader.size, size <= sizeLimit else { return .corrupt(.length(length)) }
        let magic = here.load(fromByteOffset: BatchHeader.At.magic, as: Int8.self)
        guard magic == 2 else { return .corrupt(.magic(magic)) }
        guard size <= remaining else { return .partial(remaining: remaining, needed: size) }

        let header = BatchHeader(here)
        if let fault = Self.fault(in: header) { return .corrupt(fault) }
        if checksChecksums {
            let computed = BatchHeader.checksum(of: UnsafeRawBufferPointer(rebasing: here[..<size]))
            guard computed == header.crc else {
                return .corrupt(.checksum(stored: header.crc, computed: computed))
            }
        }
        let start = position
        position += size
        return .batch(position: start, header: header)
    }

    /// The bytes of a batch that this walker gave out.
    package func batch(at position: Int, _ header: BatchHeader) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[position..<position + header.totalSize])
    }

    /// What no log holds. After cleaning there may be fewer records than offsets, and none at all.
    private static func fault(in header: BatchHeader) -> BatchCorruption? {
        guard header.baseOffset >= 0, header.lastOffsetDelta >= 0,
            header.baseOffset <= Int64.max - Int64(header.lastOffsetDelta) - 1
        else { return .offsets(base: header.baseOffset, lastDelta: header.lastOffsetDelta) }
        guard header.recordCount >= 0, Int64(header.recordCount) <= Int64(header.lastOffsetDelta) + 1 else {
            return .recordCount(header.recordCount)
        }
        guard header.codec != nil else { return .codec(header.attributes & BatchHeader.Attributes.codecMask) }
        return nil
    }
}
