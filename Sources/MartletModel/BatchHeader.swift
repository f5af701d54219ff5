/// How the records of a batch are compressed, as a whole. The numbers are those of a batch's attributes.
package enum CompressionCodec: UInt8, Sendable, CaseIterable {
    case none = 0, gzip, snappy, lz4, zstd
}

package enum TimestampType: UInt8, Sendable {
    case createTime = 0
    case logAppendTime = 1
}

/// The first 61 bytes of a record batch of format 2, the one format that goes over the wire and lies on disk:
///
///      0 baseOffset int64 *            21 attributes int16: bits 0-2 codec, 3 timestamp type, 4 transactional,
///      8 batchLength int32 *                  5 control, 6 baseTimestamp is the delete horizon
///     12 partitionLeaderEpoch int32 *  23 lastOffsetDelta int32       43 producerId int64, -1 none
///     16 magic int8, 2 *               27 baseTimestamp int64         51 producerEpoch int16
///     17 crc uint32 *                  35 maxTimestamp int64          53 baseSequence int32
///                                                                     57 recordCount int32, then the records
///
/// All big-endian. `batchLength` counts what follows it. The CRC-32C covers everything from `attributes` on; the fields
/// with a star are not covered, so that the broker sets offset and epoch without touching it.
package struct BatchHeader: Sendable, Equatable {
    package static let size = 61
    /// What stands before the bytes that `batchLength` counts.
    package static let lengthOverhead = 12

    package enum At {
        package static let baseOffset = 0, batchLength = 8, leaderEpoch = 12, magic = 16, crc = 17, attributes = 21
        package static let lastOffsetDelta = 23, baseTimestamp = 27, maxTimestamp = 35
        package static let producerID = 43, producerEpoch = 51, baseSequence = 53, recordCount = 57
    }

    package var baseOffset: Offset
    package var batchLength: Int32
    package var leaderEpoch: LeaderEpoch
    package var magic: Int8
    package var crc: UInt32
    package var attributes: Int16
    package var lastOffsetDelta: Int32
    package var baseTimestamp: Int64
    package var maxTimestamp: Int64
    package var producerID: ProducerID
    package var producerEpoch: ProducerEpoch
    package var baseSequence: Int32
    package var recordCount: Int32

    /// Reads the fields, and checks nothing.
    @inlinable package init(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count >= BatchHeader.size, "a batch header is 61 bytes")
        func load<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T {
            T(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
        }
        baseOffset = load(0, Int64.self)
        batchLength = load(8, Int32.self)
        leaderEpoch = load(12, Int32.self)
        magic = load(16, Int8.self)
        crc = load(17, UInt32.self)
        attributes = load(21, Int16.self)
        lastOffsetDelta = load(23, Int32.self)
        baseTimestamp = load(27, Int64.self)
        maxTimestamp = load(35, Int64.self)
        producerID = load(43, Int64.self)
        producerEpoch = load(51, Int16.self)
        baseSequence = load(53, Int32.self)
        recordCount = load(57, Int32.self)
    }

    /// The whole batch in bytes, this header included.
    @inlinable package var totalSize: Int { Int(batchLength) + BatchHeader.lengthOverhead }
    @inlinable package var lastOffset: Offset { baseOffset + Int64(lastOffsetDelta) }
    @inlinable package var nextOffset: Offset { lastOffset + 1 }
    /// Nil for a number that names no codec.
    @inlinable package var codec: CompressionCodec? { CompressionCodec(rawValue: UInt8(attributes & 0x07)) }
    @inlinable package var timestampType: TimestampType { attributes & 0x08 == 0 ? .createTime : .logAppendTime }
    @inlinable package var isTransactional: Bool { attributes & 0x10 != 0 }
    @inlinable package var isControl: Bool { attributes & 0x20 != 0 }
    @inlinable package var hasDeleteHorizon: Bool { attributes & 0x40 != 0 }
    @inlinable package var hasProducer: Bool { producerID >= 0 }
    /// Sequences wrap from 2^31 - 1 to 0.
    @inlinable package var lastSequence: Int32 {
        baseSequence < 0 ? -1 : Int32((Int64(baseSequence) + Int64(lastOffsetDelta)) & 0x7FFF_FFFF)
    }
}
