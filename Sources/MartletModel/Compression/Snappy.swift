internal import CSnappy
internal import MartletBasics

/// Snappy in the two framings that Kafka's clients use: one raw block, and the stream of Java's library ("xerial"):
///
///      0 magic 82 53 4E 41 50 50 59 00      8 version int32      12 oldest compatible version int32
///     16 blocks: size int32, then a raw block; where a size should stand, another magic begins another such header
///
/// Both are read; the stream is what is written, in blocks of 32 KiB as Java's library does.
extension CodecContexts {
    private static let xerialMagic: [UInt8] = [0x82, 0x53, 0x4E, 0x41, 0x50, 0x50, 0x59, 0x00]
    private static let xerialHeaderSize = 16
    private static let xerialVersion: Int32 = 1
    /// How Java's library cuts what it compresses.
    static let xerialBlockSize = 32 * 1024
    /// A raw block repeats at most 64 bytes for each 3 it is long.
    private static let largestExpansion = 22

    func unsnap(_ source: UnsafeRawBufferPointer, into output: inout ByteBuffer, limit: Int) throws(CompressionFault) {
        guard beginsXerial(source, at: 0) else {
            return try unsnapBlock(source, into: &output, produced: 0, limit: limit)
        }
        let end = source.count
        let start = output.count
        var position = 0
        while position < end {
            if beginsXerial(source, at: position) {
                let oldestCompatible: Int32 = load(source, at: position + 12)
                guard oldestCompatible <= Self.xerialVersion else {
                    throw .unreadable(.snappy, "the stream needs a reader of version \(oldestCompatible)")
                }
                position += Self.xerialHeaderSize
                continue
            }
            guard end - position >= 4 else { throw .unreadable(.snappy, "the stream ends inside a block's size") }
            let size = Int(load(source, at: position) as Int32)
            position += 4
            #if PLANTED_BUGS
                if PlantedBug.snappyBlockSize.isPlanted, size <= end - position { _ = source[position..<position + size] }
            #endif
            guard size >= 0, size <= end - position else {
                throw .unreadable(.snappy, "a block of \(size) bytes where \(end - position) remain")
            }
            let block = UnsafeRawBufferPointer(rebasing: source[position..<position + size])
            try unsnapBlock(block, into: &output, produced: output.count - start, limit: limit)
            position += size
        }
    }

    private func unsnapBlock(
        _ block: UnsafeRawBufferPointer, into output: inout ByteBuffer, produced: Int, limit: Int
    ) throws(CompressionFault) {
        let characters = block.assumingMemoryBound(to: CChar.self)
        var size = 0
        guard block.count > 0,
            snappy_uncompressed_length(characters.baseAddress, block.count, &size) == SNAPPY_OK
        else { throw .unreadable(.snappy, "a block without a length") }
        guard size <= block.count * Self.largestExpansion + 64 else {
            throw .unreadable(.snappy, "\(block.count) bytes cannot hold the \(size) they declare")
        }
        guard size <= limit - produced else { throw .tooLarge(limit: limit) }
        let start = output.count
        // a null pointer is no place to write even nothing to
        let room = output.extend(max(size, 1)).assumingMemoryBound(to: CChar.self)
        guard snappy_uncompress(characters.baseAddress, block.count, room, &size) == SNAPPY_OK else {
            throw .unreadable(.snappy, "a block is malformed")
        }
        output.truncate(to: start + size)
    }

    func snap(_ source: UnsafeRawBufferPointer, into output: inout ByteBuffer) {
        output.append(Self.xerialMagic)
        output.int32(Self.xerialVersion)
        output.int32(Self.xerialVersion)
        var position = 0
        while position < source.count {
            let block = UnsafeRawBufferPointer(
                rebasing: source[position..<min(position + Self.xerialBlockSize, source.count)])
            let at = output.count
            var size = snappy_max_compressed_length(block.count)
            let room = output.extend(4 + size) + 4
            let characters = block.assumingMemoryBound(to: CChar.self).baseAddress
            let status = snappy_compress(characters, block.count, room.assumingMemoryBound(to: CChar.self), &size)
            precondition(status == SNAPPY_OK, "snappy compresses into the room it asked for")
            output.truncate(to: at + 4 + size)
            output.patch(Int32(size), at: at)
            position += block.count
        }
    }

    @inline(__always)
    private func beginsXerial(_ source: UnsafeRawBufferPointer, at position: Int) -> Bool {
        guard source.count - position >= Self.xerialHeaderSize else { return false }
        return (load(source, at: position) as UInt64) == 0x8253_4E41_5050_5900
    }

    @inline(__always)
    private func load<T: FixedWidthInteger>(_ source: UnsafeRawBufferPointer, at position: Int) -> T {
        T(bigEndian: source.loadUnaligned(fromByteOffset: position, as: T.self))
    }
}
