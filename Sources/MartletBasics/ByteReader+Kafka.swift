/// Strings, bytes, arrays and tagged fields as Kafka's protocol writes them, in both of its encodings:
///
///                 not flexible                     flexible
///     string      int16 length, -1 null            uvarint length + 1, 0 null
///     bytes       int32 length, -1 null            uvarint length + 1, 0 null
///     array       int32 count, -1 null             uvarint count + 1, 0 null
///     tagged      nothing                          uvarint count, then each: uvarint tag, uvarint size, value
///
/// As Kafka has it, any negative length is null where null may be, and a string that is not UTF-8 is repaired
/// with U+FFFD.
extension ByteReader {
    /// An array is given room for this many elements before the first is decoded; a count that lies costs no more.
    public static let elementsReservedLimit = 1024

    // MARK: Lengths

    /// The length of a string, -1 for null; what it says is not yet checked against what remains.
    @inline(__always)
    private mutating func stringLength(flexible: Bool) throws(DecodingFault) -> Int {
        if flexible { return Int(try uvarint()) &- 1 }
        return max(Int(try int16()), -1)
    }

    /// The length of bytes or the count of an array, -1 for null.
    @inline(__always)
    private mutating func wideLength(flexible: Bool) throws(DecodingFault) -> Int {
        if flexible { return Int(try uvarint()) &- 1 }
        return max(Int(try int32()), -1)
    }

    // MARK: Strings

    public mutating func string(flexible: Bool) throws(DecodingFault) -> String {
        let start = position
        let length = try stringLength(flexible: flexible)
        guard length >= 0 else { throw .unexpectedNull(at: start) }
        return try text(length)
    }

    public mutating func nullableString(flexible: Bool) throws(DecodingFault) -> String? {
        let length = try stringLength(flexible: flexible)
        return length < 0 ? nil : try text(length)
    }

    @inline(__always)
    private mutating func text(_ length: Int) throws(DecodingFault) -> String {
        // a compact length could say more than an int16; Kafka refuses that too
        guard length <= ByteBuffer.stringBytesLimit else { throw .impossibleLength(at: position) }
        let start = try take(length)
        return String(decoding: UnsafeRawBufferPointer(rebasing: bytes[start..<start &+ length]), as: UTF8.self)
    }

    /// Where the bytes of a string lie, for those who compare rather than keep them.
    public mutating func stringRange(flexible: Bool) throws(DecodingFault) -> ByteRange {
        let start = position
        let length = try stringLength(flexible: flexible)
        guard length >= 0 else { throw .unexpectedNull(at: start) }
        return try range(length)
    }

    public mutating func nullableStringRange(flexible: Bool) throws(DecodingFault) -> ByteRange? {
        let length = try stringLength(flexible: flexible)
        return length < 0 ? nil : try range(length)
    }

    // MARK: Bytes

    public mutating func byteRange(flexible: Bool) throws(DecodingFault) -> ByteRange {
        let start = position
        let length = try wideLength(flexible: flexible)
        guard length >= 0 else { throw .unexpectedNull(at: start) }
        return try range(length)
    }

    public mutating func nullableByteRange(flexible: Bool) throws(DecodingFault) -> ByteRange? {
        let length = try wideLength(flexible: flexible)
        return length < 0 ? nil : try range(length)
    }

    /// A copy of the bytes.
    public mutating func byteArray(flexible: Bool) throws(DecodingFault) -> [UInt8] {
        [UInt8](bytes(in: try byteRange(flexible: flexible)))
    }

    public mutating func nullableByteArray(flexible: Bool) throws(DecodingFault) -> [UInt8]? {
        guard let range = try nullableByteRange(flexible: flexible) else { return nil }
        return [UInt8](bytes(in: range))
    }

    // MARK: Arrays

    /// How many elements follow. `minimum` is the least number of bytes that one takes here, `stride` what it takes in
    /// memory: a count that what remains cannot hold, or that would take too much, is refused before anything is
    /// allocated.
    public mutating func arrayCount(flexible: Bool, minimum: Int, stride: Int) throws(DecodingFault) -> Int {
        let start = position
        let count = try nullableArrayCount(flexible: flexible, minimum: minimum, stride: stride)
        guard count >= 0 else { throw .unexpectedNull(at: start) }
        return count
    }

    /// The same, -1 for null.
    public mutating func nullableArrayCount(
        flexible: Bool, minimum: Int, stride: Int
    ) throws(DecodingFault) -> Int {
        precondition(minimum > 0, "an element of an array takes at least a byte")
        let start = position
        let count = try wideLength(flexible: flexible)
        guard count <= remaining / minimum else { throw .impossibleLength(at: start) }
        if count > 0 { elementBytesLeft -= count * stride }
        guard elementBytesLeft >= 0 else { throw .malformed("more elements than may be decoded", at: start) }
        return count
    }

    public mutating func int8Array(count: Int) throws(DecodingFault) -> [Int8] { try integers(count) }
    public mutating func int16Array(count: Int) throws(DecodingFault) -> [Int16] { try integers(count) }
    public mutating func int32Array(count: Int) throws(DecodingFault) -> [Int32] { try integers(count) }
    public mutating func int64Array(count: Int) throws(DecodingFault) -> [Int64] { try integers(count) }

    /// Integers one after the other: checked at once, and then copied.
    @inline(__always)
    private mutating func integers<T: FixedWidthInteger>(_ count: Int) throws(DecodingFault) -> [T] {
        let size = MemoryLayout<T>.size
        guard count >= 0, count <= remaining / size else { throw .truncated(at: position) }
        let start = try take(count &* size)
        let source = bytes
        return [T](unsafeUninitializedCapacity: count) { target, initialized in
            for index in 0..<count {
                let raw = source.loadUnaligned(fromByteOffset: start &+ index &* size, as: T.self)
                target.initializeElement(at: index, to: T(bigEndian: raw))
            }
            initialized = count
        }
    }

    public mutating func stringArray(count: Int, flexible: Bool) throws(DecodingFault) -> [String] {
        var values: [String] = []
        values.reserveCapacity(min(count, Self.elementsReservedLimit))
        for _ in 0..<count { values.append(try string(flexible: flexible)) }
        return values
    }

    // MARK: Tagged fields

    /// The value of a tagged field, whose tag was read: a reader that ends where its declared size does. This reader
    /// moves past it. Ranges that the inner reader gives out count from the same first byte.
    public mutating func taggedValue() throws(DecodingFault) -> ByteReader {
        let size = Int(try uvarint())
        #if PLANTED_BUGS
            if PlantedBug.taggedFieldSize.isPlanted {
                defer { position += size }
                return ByteReader(UnsafeRawBufferPointer(rebasing: bytes[..<(position &+ size)]), at: position)
            }
        #endif
        let start = try take(size)
        var value = ByteReader(UnsafeRawBufferPointer(rebasing: bytes[..<(start &+ size)]), at: start)
        value.elementBytesLeft = elementBytesLeft
        return value
    }

    /// To be called with the reader of a known field's value when that was decoded: the value has to fill its declared
    /// size, since what is left over would be read as something else by others.
    public mutating func finish(_ value: ByteReader) throws(DecodingFault) {
        guard value.isAtEnd else { throw .malformed("a tagged field is longer than its value", at: value.position) }
        elementBytesLeft = value.elementBytesLeft
    }

    /// A section of tagged fields of which none is known. Repeated and unordered tags are accepted, as Kafka does;
    /// each takes at least two bytes, so a count that lies ends with the bytes.
    public mutating func skipTaggedFields() throws(DecodingFault) {
        var count = try uvarint()
        while count > 0 {
            count &-= 1
            _ = try uvarint()
            try skip(Int(try uvarint()))
        }
    }
}
