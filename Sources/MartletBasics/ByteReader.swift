/// What is wrong with bytes that were to be decoded. The position is an offset from the start of the buffer.
public enum DecodingFault: Error, Equatable {
    /// Fewer bytes remain than the value needs.
    case truncated(at: Int)
    /// A length or count that is negative where it may not be, or that cannot fit into the bytes that remain.
    case impossibleLength(at: Int)
    /// A varint that does not end within its type.
    case malformedVarint(at: Int)
    /// A string that is not UTF-8, where that is required.
    case malformedString(at: Int)
    /// Null where the schema allows none.
    case unexpectedNull(at: Int)
    /// Bytes that say something else than the format allows; the word names what.
    case malformed(StaticString, at: Int)

    public static func == (a: DecodingFault, b: DecodingFault) -> Bool { "\(a)" == "\(b)" }
}

/// Bytes inside a buffer that somebody else owns: where they begin and how many they are.
public struct ByteRange: Equatable, Hashable, Sendable {
    public var offset: Int
    public var count: Int

    @inlinable public init(offset: Int, count: Int) {
        self.offset = offset
        self.count = count
    }

    @inlinable public var end: Int { offset + count }
    @inlinable public var isEmpty: Bool { count == 0 }
}

/// A cursor over bytes that somebody else owns, reading the big-endian and varint encodings of Kafka's protocol and files.
///
/// Every read is checked against what remains: bytes of any content either give a value or throw, never trap.
/// The reader keeps no bytes alive: it must not outlive the buffer it was made over.
public struct ByteReader {
    /// All the bytes, from the first; positions and `ByteRange`s count from here.
    public let bytes: UnsafeRawBufferPointer
    /// The offset of the next unread byte.
    public var position: Int
    /// How much memory the elements of arrays may still take once decoded. An empty string takes a byte in an array
    /// and 16 in memory: without a bound a frame of 100 MB could become several gigabytes.
    public var elementBytesLeft: Int

    @inlinable public init(_ bytes: UnsafeRawBufferPointer, at position: Int = 0) {
        precondition(position >= 0 && position <= bytes.count, "a reader starts inside its bytes")
        self.bytes = bytes
        self.position = position
        elementBytesLeft = (16 << 20) &+ bytes.count &* 4
    }

    @inlinable public var remaining: Int { bytes.count &- position }
    @inlinable public var isAtEnd: Bool { position == bytes.count }

    /// Reserves `count` bytes and returns where they begin.
    @inlinable @inline(__always)
    public mutating func take(_ count: Int) throws(DecodingFault) -> Int {
        guard count >= 0, count <= remaining else { throw .truncated(at: position) }
        let start = position
        position &+= count
        return start
    }

    @inlinable public mutating func skip(_ count: Int) throws(DecodingFault) { _ = try take(count) }

    @inlinable public mutating func range(_ count: Int) throws(DecodingFault) -> ByteRange {
        ByteRange(offset: try take(count), count: count)
    }

    /// The bytes of a range that this reader gave out.
    @inlinable public func bytes(in range: ByteRange) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[range.offset..<range.end])
    }

    @inlinable @inline(__always)
    public mutating func integer<T: FixedWidthInteger>(_: T.Type = T.self) throws(DecodingFault) -> T {
        let start = try take(MemoryLayout<T>.size)
        return T(bigEndian: bytes.loadUnaligned(fromByteOffset: start, as: T.self))
    }

    @inlinable public mutating func int8() throws(DecodingFault) -> Int8 { try integer() }
    @inlinable public mutating func int16() throws(DecodingFault) -> Int16 { try integer() }
    @inlinable public mutating func uint16() throws(DecodingFault) -> UInt16 { try integer() }
    @inlinable public mutating func int32() throws(DecodingFault) -> Int32 { try integer() }
    @inlinable public mutating func uint32() throws(DecodingFault) -> UInt32 { try integer() }
    @inlinable public mutating func int64() throws(DecodingFault) -> Int64 { try integer() }
    @inlinable public mutating func float64() throws(DecodingFault) -> Double {
        Double(bitPattern: try integer(UInt64.self))
    }
    /// Any byte but zero is true, as Kafka's own reader has it.
    @inlinable public mutating func bool() throws(DecodingFault) -> Bool { try int8() != 0 }

    /// Unsigned, 7 bits a byte, low bits first, at most five bytes.
    @inlinable public mutating func uvarint() throws(DecodingFault) -> UInt32 {
        let start = position
        var value: UInt32 = 0
        var shift: UInt32 = 0
        while true {
            guard position < bytes.count else { throw .truncated(at: start) }
            let byte = bytes[position]
            position &+= 1
            if shift == 28, byte > 0x0F { throw .malformedVarint(at: start) }
            value |= UInt32(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
    }

    /// Zig-zag, at most five bytes.
    @inlinable public mutating func varint() throws(DecodingFault) -> Int32 {
        let raw = try uvarint()
        return Int32(bitPattern: raw >> 1) ^ -Int32(bitPattern: raw & 1)
    }

    /// Zig-zag, at most ten bytes.
    @inlinable public mutating func varlong() throws(DecodingFault) -> Int64 {
        let start = position
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            guard position < bytes.count else { throw .truncated(at: start) }
            let byte = bytes[position]
            position &+= 1
            if shift == 63, byte > 1 { throw .malformedVarint(at: start) }
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { break }
            shift += 7
        }
        return Int64(bitPattern: value >> 1) ^ -Int64(bitPattern: value & 1)
    }
}
