package import MartletBasics

/// What is wrong with the bytes of a record. Where it stands, the cursor knows.
@usableFromInline package enum RecordFault: Error, Equatable {
    /// The bytes end before the record does.
    case truncated
    /// A varint that does not end within its type.
    case malformedVarint
    /// The record's size is negative or reaches beyond the batch.
    case sizeBeyondBatch
    /// A key, value or header that reaches beyond its record.
    case fieldBeyondRecord
    /// A count of headers that is negative or more than the bytes can hold, or a header without a name.
    case malformedHeaders
    /// The fields end before the size says.
    case sizeDisagrees
    /// Bytes follow the last record that the batch counts.
    case bytesAfterLastRecord
    case offsetOutOfPlace
}

extension RecordFault: CustomStringConvertible {
    @usableFromInline package var description: String {
        switch self {
        case .truncated: "the records end before their count is reached"
        case .malformedVarint: "a number of variable length does not end"
        case .sizeBeyondBatch: "a record's size is negative or reaches beyond the batch"
        case .fieldBeyondRecord: "a key, value or header reaches beyond its record"
        case .malformedHeaders: "a record's header count is impossible or a header has no name"
        case .sizeDisagrees: "a record's fields end before its size says"
        case .bytesAfterLastRecord: "bytes follow the last record of the batch"
        case .offsetOutOfPlace: "a record's offset lies outside of its batch, or not behind the one before it"
        }
    }
}

/// Where the parts of one record lie in the bytes its cursor walks over:
///
///     size varint, attributes int8 (unused), timestampDelta varlong, offsetDelta varint,
///     keySize varint (below 0: null), key, valueSize varint (below 0: null), value,
///     headerCount varint, then each header: nameSize varint, name, valueSize varint (below 0: null), value
package struct RecordView {
    /// The whole record, its size included.
    package var range: ByteRange
    package var attributes: Int8
    package var timestampDelta: Int64
    package var offsetDelta: Int32
    package var headerCount: Int32
    @usableFromInline var keyOffset: Int
    /// -1 for null.
    @usableFromInline var keyCount: Int
    @usableFromInline var valueOffset: Int
    @usableFromInline var valueCount: Int
    /// The headers' bytes, after their count.
    package var headers: ByteRange

    @inlinable package var hasKey: Bool { keyCount >= 0 }
    @inlinable package var hasValue: Bool { valueCount >= 0 }
    @inlinable package var key: ByteRange? { keyCount < 0 ? nil : ByteRange(offset: keyOffset, count: keyCount) }
    @inlinable package var value: ByteRange? { valueCount < 0 ? nil : ByteRange(offset: valueOffset, count: valueCount) }

    @usableFromInline @inline(__always)
    init(
        range: ByteRange, attributes: Int8, timestampDelta: Int64, offsetDelta: Int32, headerCount: Int32,
        key: (offset: Int, count: Int), value: (offset: Int, count: Int), headers: ByteRange
    ) {
        self.range = range
        self.attributes = attributes
        self.timestampDelta = timestampDelta
        self.offsetDelta = offsetDelta
        self.headerCount = headerCount
        keyOffset = key.offset
        keyCount = key.count
        valueOffset = value.offset
        valueCount = value.count
        self.headers = headers
    }

    /// Reads the record at `position`, whatever its shape. Nothing beyond `end` is touched.
    @usableFromInline @inline(never)
    package init(_ base: UnsafeRawPointer, at first: Int, end: Int) throws(RecordFault) {
        var position = first
        let size = Int(try recordVarint(base, &position, end))
        guard size >= 0, size <= end &- position else { throw .sizeBeyondBatch }
        let stop = position &+ size
        guard position < stop else { throw .sizeDisagrees }
        attributes = base.load(fromByteOffset: position, as: Int8.self)
        position &+= 1
        timestampDelta = try recordVarlong(base, &position, stop)
        offsetDelta = try recordVarint(base, &position, stop)

        keyCount = max(-1, Int(try recordVarint(base, &position, stop)))
        keyOffset = position
        guard keyCount <= stop &- position else { throw .fieldBeyondRecord }
        position &+= max(0, keyCount)

        valueCount = max(-1, Int(try recordVarint(base, &position, stop)))
        valueOffset = position
        guard valueCount <= stop &- position else { throw .fieldBeyondRecord }
        position &+= max(0, valueCount)

        headerCount = try recordVarint(base, &position, stop)
        headers = ByteRange(offset: position, count: stop &- position)
        if headerCount != 0 { position = try endOfHeaders(base, position, stop, count: headerCount) }
        guard position == stop else { throw .sizeDisagrees }
        range = ByteRange(offset: first, count: stop &- first)
    }

    /// Reads the record at `position` if it has the usual shape: numbers of one or two bytes each, no headers, and not at
    /// the very end. Anything else, sound or not, gives nil and is for `init(_:at:end:)`.
    ///
    /// The bytes read lie before `end`, though perhaps after the record's own end; as `cursor` only ever grows, it
    /// meets the record's end only if every field lay before it.
    @inlinable @inline(__always)
    package static func usual(_ base: UnsafeRawPointer, at first: Int, end: Int) -> RecordView? {
        guard end &- first >= 12 else { return nil }
        var cursor = first
        let size = shortNumber(base, &cursor)
        guard size >= 0, size < tooLongForShort else { return nil }
        let stop = cursor &+ Int(size)
        guard stop <= end, end &- cursor >= 8 else { return nil }
        let attributes = base.load(fromByteOffset: cursor, as: Int8.self)
        cursor &+= 1
        let timestampDelta = shortNumber(base, &cursor)
        let offsetDelta = shortNumber(base, &cursor)
        let keySize = shortNumber(base, &cursor)
        guard max(timestampDelta, max(offsetDelta, keySize)) < tooLongForShort else { return nil }
        let key = (offset: cursor, count: max(-1, Int(keySize)))
        cursor &+= max(0, Int(keySize))
        guard end &- cursor >= 2 else { return nil }
        let valueSize = shortNumber(base, &cursor)
        guard valueSize < tooLongForShort else { return nil }
        let value = (offset: cursor, count: max(-1, Int(valueSize)))
        cursor &+= max(0, Int(valueSize))
        guard cursor &+ 1 == stop, base.load(fromByteOffset: cursor, as: UInt8.self) == 0 else { return nil }
        return RecordView(
            range: ByteRange(offset: first, count: stop &- first), attributes: attributes,
            timestampDelta: Int64(timestampDelta), offsetDelta: offsetDelta, headerCount: 0,
            key: key, value: value, headers: ByteRange(offset: stop, count: 0))
    }
}

/// What `shortNumber` gives for a number of more than two bytes; none of two bytes is as large.
@inlinable package var tooLongForShort: Int32 { 1 << 20 }

/// A varint of one or two bytes. The caller knows that two bytes are there.
@inlinable @inline(__always)
package func shortNumber(_ base: UnsafeRawPointer, _ position: inout Int) -> Int32 {
    let first = UInt32(base.load(fromByteOffset: position, as: UInt8.self))
    guard first >= 0x80 else {
        position &+= 1
        return unzigzag(first)
    }
    let second = UInt32(base.load(fromByteOffset: position &+ 1, as: UInt8.self))
    position &+= 2
    return second < 0x80 ? unzigzag(first & 0x7F | second &<< 7) : tooLongForShort
}

/// Walks over the headers of one record, checking all of them, and says where they end.
func endOfHeaders(
    _ base: UnsafeRawPointer, _ start: Int, _ stop: Int, count: Int32
) throws(RecordFault) -> Int {
    var position = start
    // a header is two bytes at the least
    guard count >= 0, Int(count) &* 2 <= stop &- position else { throw .malformedHeaders }
    for _ in 0..<count {
        let nameSize = Int(try recordVarint(base, &position, stop))
        guard nameSize >= 0 else { throw .malformedHeaders }
        guard nameSize <= stop &- position else { throw .fieldBeyondRecord }
        position &+= nameSize
        let valueSize = max(0, Int(try recordVarint(base, &position, stop)))
        #if PLANTED_BUGS
            if PlantedBug.headerValueSize.isPlanted {
                position = min(stop, position &+ valueSize)
                continue
            }
        #endif
        guard valueSize <= stop &- position else { throw .fieldBeyondRecord }
        position &+= valueSize
    }
    return position
}

@inlinable @inline(__always)
package func unzigzag(_ raw: UInt32) -> Int32 { Int32(bitPattern: raw >> 1) ^ (0 &- Int32(bitPattern: raw & 1)) }

@inlinable @inline(__always)
package func unzigzag(_ raw: UInt64) -> Int64 { Int64(bitPattern: raw >> 1) ^ (0 &- Int64(bitPattern: raw & 1)) }

/// A varint of any length up to its type's.
func recordVarint(_ base: UnsafeRawPointer, _ position: inout Int, _ end: Int) throws(RecordFault) -> Int32 {
    var raw: UInt32 = 0
    var shift: UInt32 = 0
    while position < end {
        let byte = base.load(fromByteOffset: position, as: UInt8.self)
        position &+= 1
        if shift == 28, byte > 0x0F { throw .malformedVarint }
        raw |= UInt32(byte & 0x7F) &<< shift
        if byte < 0x80 { return unzigzag(raw) }
        shift &+= 7
    }
    throw .truncated
}

/// A varlong of any length up to its type's.
func recordVarlong(_ base: UnsafeRawPointer, _ position: inout Int, _ end: Int) throws(RecordFault) -> Int64 {
    var raw: UInt64 = 0
    var shift: UInt64 = 0
    while position < end {
        let byte = base.load(fromByteOffset: position, as: UInt8.self)
        position &+= 1
        if shift == 63, byte > 1 { throw .malformedVarint }
        raw |= UInt64(byte & 0x7F) &<< shift
        if byte < 0x80 { return unzigzag(raw) }
        shift &+= 7
    }
    throw .truncated
}

/// Walks over the uncompressed records of one batch, in place and without allocating.
///
/// It keeps no bytes alive: it must not outlive the buffer it was made over.
package struct RecordCursor {
    package let bytes: UnsafeRawBufferPointer
    /// The offset of the next record's first byte; after a fault, of the record that could not be read.
    @usableFromInline package internal(set) var position: Int
    /// How many records were read.
    @usableFromInline package internal(set) var index: Int32
    package let count: Int32

    /// Over the bytes after the header (decompressed), and with the header's record count.
    package init(_ records: UnsafeRawBufferPointer, count: Int32) {
        bytes = records
        position = 0
        index = 0
        self.count = count
    }

    /// The next record; nil after the last, if nothing follows it. After a fault the cursor is of no more use.
    @inlinable package mutating func next() throws(RecordFault) -> RecordView? {
        guard index < count else {
            guard position == bytes.count else { throw .bytesAfterLastRecord }
            return nil
        }
        guard let base = bytes.baseAddress else { throw .truncated }
        let record: RecordView
        if let usual = RecordView.usual(base, at: position, end: bytes.count) {
            record = usual
        } else {
            record = try RecordView(base, at: position, end: bytes.count)
        }
        position = record.range.end
        index &+= 1
        return record
    }

    /// The bytes of a part of a record that this cursor gave out.
    @inlinable package func bytes(in range: ByteRange) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[range.offset..<range.end])
    }

    @inlinable package func bytes(in range: ByteRange?) -> UnsafeRawBufferPointer? {
        guard let range else { return nil }
        return UnsafeRawBufferPointer(rebasing: bytes[range.offset..<range.end])
    }

    /// The headers of a record that this cursor gave out.
    package func headers(of record: RecordView) -> HeaderCursor {
        HeaderCursor(bytes: bytes, position: record.headers.offset, remaining: record.headerCount)
    }
}

/// Walks over the headers of a record that a cursor has checked before.
package struct HeaderCursor: Sequence, IteratorProtocol {
    let bytes: UnsafeRawBufferPointer
    var position: Int
    var remaining: Int32

    /// A header's name, and its value or null.
    package mutating func next() -> (name: ByteRange, value: ByteRange?)? {
        guard remaining > 0, let base = bytes.baseAddress else { return nil }
        remaining -= 1
        do {
            let nameSize = Int(try recordVarint(base, &position, bytes.count))
            let name = ByteRange(offset: position, count: nameSize)
            position += nameSize
            let valueSize = Int(try recordVarint(base, &position, bytes.count))
            guard valueSize >= 0 else { return (name, nil) }
            let value = ByteRange(offset: position, count: valueSize)
            position += valueSize
            return (name, value)
        } catch {
            preconditionFailure("the headers of a record were checked when the record was read")
        }
    }
}
