/// Bytes that grow at the end: what encoders write into. It owns its memory and is not copied by accident.
public struct ByteBuffer: ~Copyable {
    @usableFromInline var storage: UnsafeMutableRawPointer
    public private(set) var capacity: Int
    /// How many bytes were written.
    public var count: Int

    public init(capacity: Int = 256) {
        precondition(capacity >= 0, "a buffer's capacity is a size")
        self.capacity = max(capacity, 16)
        storage = .allocate(byteCount: self.capacity, alignment: 16)
        count = 0
    }

    deinit { storage.deallocate() }

    /// The bytes written so far; valid until the next write.
    @inlinable public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: storage, count: count) }
    @inlinable public var mutableBytes: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: storage, count: count)
    }

    /// A copy as an array: for tests and slow paths.
    public var array: [UInt8] { [UInt8](bytes) }

    /// Makes room for `extra` more bytes without changing the count.
    @inlinable @inline(__always)
    public mutating func reserve(_ extra: Int) {
        if count &+ extra > capacity { grow(extra) }
    }

    @usableFromInline @inline(never)
    mutating func grow(_ extra: Int) {
        let wanted = max(capacity * 2, count + extra)
        let larger = UnsafeMutableRawPointer.allocate(byteCount: wanted, alignment: 16)
        larger.copyMemory(from: storage, byteCount: count)
        storage.deallocate()
        storage = larger
        capacity = wanted
    }

    /// Reserves `extra` bytes at the end, counts them as written, and returns where to write them.
    @inlinable @inline(__always)
    public mutating func extend(_ extra: Int) -> UnsafeMutableRawPointer {
        reserve(extra)
        let start = storage + count
        count &+= extra
        return start
    }

    /// Forgets what was written after the first `newCount` bytes; keeps the memory.
    @inlinable public mutating func truncate(to newCount: Int) {
        precondition(newCount >= 0 && newCount <= count, "only what was written can be forgotten")
        count = newCount
    }

    /// Forgets all, and gives memory back beyond `limit` bytes.
    public mutating func reset(keeping limit: Int = 64 * 1024) {
        count = 0
        guard capacity > limit else { return }
        storage.deallocate()
        capacity = max(limit, 16)
        storage = .allocate(byteCount: capacity, alignment: 16)
    }

    // MARK: Kafka's encodings

    @inlinable @inline(__always)
    public mutating func integer<T: FixedWidthInteger>(_ value: T) {
        extend(MemoryLayout<T>.size).storeBytes(of: value.bigEndian, as: T.self)
    }

    @inlinable public mutating func int8(_ value: Int8) { integer(value) }
    @inlinable public mutating func int16(_ value: Int16) { integer(value) }
    @inlinable public mutating func uint16(_ value: UInt16) { integer(value) }
    @inlinable public mutating func int32(_ value: Int32) { integer(value) }
    @inlinable public mutating func uint32(_ value: UInt32) { integer(value) }
    @inlinable public mutating func int64(_ value: Int64) { integer(value) }
    @inlinable public mutating func float64(_ value: Double) { integer(value.bitPattern) }
    @inlinable public mutating func bool(_ value: Bool) { integer(UInt8(value ? 1 : 0)) }

    @inlinable public mutating func uvarint(_ value: UInt32) {
        reserve(5)
        var rest = value
        while rest >= 0x80 {
            storage.storeBytes(of: UInt8(truncatingIfNeeded: rest) | 0x80, toByteOffset: count, as: UInt8.self)
            count &+= 1
            rest >>= 7
        }
        storage.storeBytes(of: UInt8(truncatingIfNeeded: rest), toByteOffset: count, as: UInt8.self)
        count &+= 1
    }

    @inlinable public mutating func varint(_ value: Int32) {
        uvarint(UInt32(bitPattern: (value << 1) ^ (value >> 31)))
    }

    @inlinable public mutating func varlong(_ value: Int64) {
        reserve(10)
        var rest = UInt64(bitPattern: (value << 1) ^ (value >> 63))
        while rest >= 0x80 {
            storage.storeBytes(of: UInt8(truncatingIfNeeded: rest) | 0x80, toByteOffset: count, as: UInt8.self)
            count &+= 1
            rest >>= 7
        }
        storage.storeBytes(of: UInt8(truncatingIfNeeded: rest), toByteOffset: count, as: UInt8.self)
        count &+= 1
    }

    @inlinable public mutating func append(_ source: UnsafeRawBufferPointer) {
        guard let base = source.baseAddress, source.count > 0 else { return }
        extend(source.count).copyMemory(from: base, byteCount: source.count)
    }

    @inlinable public mutating func append(_ source: [UInt8]) { source.withUnsafeBytes { append($0) } }

    /// The UTF-8 bytes of a string, without a length.
    @inlinable public mutating func append(utf8 string: String) {
        var copy = string
        copy.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    /// Overwrites bytes that were written before: a size known only at the end.
    @inlinable public mutating func patch<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        precondition(offset >= 0 && offset + MemoryLayout<T>.size <= count, "only what was written can be patched")
        storage.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }
}
