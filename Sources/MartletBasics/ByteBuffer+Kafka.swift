/// Strings, bytes, arrays and tagged fields as Kafka's protocol writes them; `ByteReader+Kafka.swift` draws them.
extension ByteBuffer {
    /// The longest string, in bytes: what an int16 holds, also where the encoding could say more.
    public static let stringBytesLimit = Int(Int16.max)
    /// The longest run of bytes, and the most elements: what an int32 holds.
    public static let lengthLimit = Int(Int32.max)

    // MARK: Strings

    public mutating func string(
        _ value: String, flexible: Bool, field: StaticString
    ) throws(EncodingFault) {
        let length = value.utf8.count
        guard length <= Self.stringBytesLimit else { throw .tooLong("\(field)", count: length) }
        if flexible { uvarint(UInt32(length) &+ 1) } else { int16(Int16(truncatingIfNeeded: length)) }
        append(utf8: value)
    }

    public mutating func nullableString(
        _ value: String?, flexible: Bool, field: StaticString
    ) throws(EncodingFault) {
        if let value { return try string(value, flexible: flexible, field: field) }
        if flexible { uvarint(0) } else { int16(-1) }
    }

    // MARK: Bytes

    public mutating func byteArray(
        _ value: [UInt8], flexible: Bool, field: StaticString
    ) throws(EncodingFault) {
        guard value.count < Self.lengthLimit else { throw .tooLong("\(field)", count: value.count) }
        arrayCount(value.count, flexible: flexible)
        append(value)
    }

    public mutating func nullableByteArray(
        _ value: [UInt8]?, flexible: Bool, field: StaticString
    ) throws(EncodingFault) {
        if let value { return try byteArray(value, flexible: flexible, field: field) }
        nullArray(flexible: flexible)
    }

    // MARK: Arrays

    /// The count before an array's elements, or the length before bytes.
    public mutating func arrayCount(_ count: Int, flexible: Bool) {
        precondition(count < Self.lengthLimit, "an array holds fewer elements than an int32 counts")
        if flexible { uvarint(UInt32(count) &+ 1) } else { int32(Int32(count)) }
    }

    /// What stands for null instead of an array or bytes.
    public mutating func nullArray(flexible: Bool) {
        if flexible { uvarint(0) } else { int32(-1) }
    }

    public mutating func int8Array(_ values: [Int8]) { integers(values) }
    public mutating func int16Array(_ values: [Int16]) { integers(values) }
    public mutating func int32Array(_ values: [Int32]) { integers(values) }
    public mutating func int64Array(_ values: [Int64]) { integers(values) }

    @inline(__always)
    private mutating func integers<T: FixedWidthInteger>(_ values: [T]) {
        let size = MemoryLayout<T>.size
        let target = extend(values.count &* size)
        let elements = values.span
        for index in elements.indices {
            target.storeBytes(of: elements[index].bigEndian, toByteOffset: index &* size, as: T.self)
        }
    }

    public mutating func stringArray(
        _ values: [String], flexible: Bool, field: StaticString
    ) throws(EncodingFault) {
        let elements = values.span
        for index in elements.indices { try string(elements[index], flexible: flexible, field: field) }
    }

    // MARK: Tagged fields

    /// Puts the size of a tagged field's value before it. The value was written from `start` to the end, without
    /// a size; it moves up by the one to five bytes that its size takes. No second buffer, and most values are short.
    public mutating func insertSize(before start: Int) {
        precondition(start >= 0 && start <= count, "a tagged field's value was written before its size")
        let size = count - start
        precondition(size < Self.lengthLimit, "a tagged field is smaller than 2 GiB")
        var sizeBytes = 1
        while size >> (7 * sizeBytes) > 0 { sizeBytes += 1 }
        reserve(5)  // so that nothing below makes the buffer grow while its count is wrong
        let value = storage + start
        (value + sizeBytes).copyMemory(from: value, byteCount: size)
        count = start
        uvarint(UInt32(size))
        count = start + sizeBytes + size
    }
}
