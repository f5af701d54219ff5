package import MartletBasics

/// A header of a record, as its writer gives it.
package struct RecordHeader: Hashable, Sendable {
    package var name: [UInt8]
    /// Nil is null.
    package var value: [UInt8]?

    package init(_ name: [UInt8], _ value: [UInt8]?) {
        self.name = name
        self.value = value
    }
}

/// What a control record says, in its key: `version int16, type int16`.
package enum ControlRecordType: Int16, Sendable {
    case abort = 0
    case commit = 1
    case leaderChange = 2
    case snapshotHeader = 3
    case snapshotFooter = 4
    case kraftVersion = 5
    case kraftVoters = 6

    /// From a control record's key; nil for one that is too short, or of a type not known here.
    package init?(key: UnsafeRawBufferPointer) {
        guard key.count >= 4 else { return nil }
        self.init(rawValue: Int16(bigEndian: key.loadUnaligned(fromByteOffset: 2, as: Int16.self)))
    }
}

/// The end of a transaction in a partition. Its record's value: `version int16 (0), coordinatorEpoch int32`.
package struct EndTransactionMarker: Equatable, Sendable {
    package var type: ControlRecordType
    package var coordinatorEpoch: Int32

    package init(_ type: ControlRecordType, coordinatorEpoch: Int32) {
        precondition(type == .commit || type == .abort, "a transaction is committed or aborted")
        self.type = type
        self.coordinatorEpoch = coordinatorEpoch
    }

    /// From a control record; nil for one that ends no transaction or is malformed.
    package init?(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
        guard let type = ControlRecordType(key: key), type == .commit || type == .abort, value.count >= 6 else {
            return nil
        }
        self.type = type
        coordinatorEpoch = Int32(bigEndian: value.loadUnaligned(fromByteOffset: 2, as: Int32.self))
    }
}

/// What stands in a batch's header besides what its records say.
package struct BatchIdentity: Equatable, Sendable {
    package var baseOffset: Offset = 0
    package var leaderEpoch: LeaderEpoch = -1
    package var producerID: ProducerID = -1
    package var producerEpoch: ProducerEpoch = -1
    package var baseSequence: Int32 = -1
    package var isTransactional = false
    package var isControl = false
    /// Not nil: all records have this time, that of their append.
    package var appendTime: Int64?
    /// Not nil: when a cleaner may drop the batch's tombstones. It takes the place of the base timestamp.
    package var deleteHorizon: Int64?

    package init() {}

    package init(producerID: ProducerID, epoch: ProducerEpoch, baseSequence: Int32, isTransactional: Bool = false) {
        self.producerID = producerID
        producerEpoch = epoch
        self.baseSequence = baseSequence
        self.isTransactional = isTransactional
    }

    /// What a batch's header says of it.
    package init(_ header: BatchHeader) {
        baseOffset = header.baseOffset
        leaderEpoch = header.leaderEpoch
        producerID = header.producerID
        producerEpoch = header.producerEpoch
        baseSequence = header.baseSequence
        isTransactional = header.isTransactional
        isControl = header.isControl
        appendTime = header.timestampType == .logAppendTime ? header.maxTimestamp : nil
        deleteHorizon = header.hasDeleteHorizon ? header.baseTimestamp : nil
    }
}

/// Collects records and makes a batch of them. Records are kept as they will be written, but uncompressed; `finish`
/// appends the batch, and then the builder begins anew.
package struct BatchBuilder: ~Copyable {
    package var identity: BatchIdentity
    package private(set) var recordCount: Int32 = 0
    /// Of the last record; -1 before the first.
    package private(set) var lastOffsetDelta: Int32 = -1
    /// The highest of the records' times; -1 where none has one.
    package private(set) var maxTimestamp: Int64 = -1
    private var baseTimestamp: Int64 = -1
    private var records: ByteBuffer

    package init(_ identity: BatchIdentity = BatchIdentity(), capacity: Int = 1024) {
        self.identity = identity
        records = ByteBuffer(capacity: capacity)
    }

    package var isEmpty: Bool { recordCount == 0 }
    /// The size of the batch without compression.
    package var uncompressedSize: Int { BatchHeader.size + records.count }

    /// Forgets the records, and gives memory back beyond `limit` bytes.
    package mutating func reset(_ identity: BatchIdentity = BatchIdentity(), keeping limit: Int = 64 * 1024) {
        self.identity = identity
        recordCount = 0
        lastOffsetDelta = -1
        maxTimestamp = -1
        baseTimestamp = -1
        records.reset(keeping: limit)
    }

    /// Adds a record after the last, in bytes that somebody else owns.
    ///
    /// - Parameters:
    ///   - offsetDelta: nil is the one after the last record's. It may leave gaps, as cleaning does, and never goes back.
    ///   - headers: their count and their bytes as they stand in another record.
    package mutating func append(
        timestamp: Int64, key: UnsafeRawBufferPointer?, value: UnsafeRawBufferPointer?, offsetDelta: Int32? = nil,
        rawHeaders headers: (count: Int32, bytes: UnsafeRawBufferPointer)
    ) {
        let delta = offsetDelta ?? lastOffsetDelta + 1
        precondition(delta > lastOffsetDelta, "the offsets of a batch's records rise")
        if recordCount == 0 { baseTimestamp = identity.deleteHorizon ?? timestamp }
        let timestampDelta = timestamp &- baseTimestamp
        let body =
            1 + Self.size(timestampDelta) + Self.size(Int64(delta)) + Self.size(key) + Self.size(value)
            + Self.size(Int64(headers.count)) + headers.bytes.count
        precondition(body <= Int(Int32.max) - BatchHeader.size - records.count - 5, "a batch is smaller than 2 GiB")
        records.reserve(body + 5)
        records.varint(Int32(body))
        records.int8(0)
        records.varlong(timestampDelta)
        records.varint(delta)
        write(key)
        write(value)
        records.varint(headers.count)
        records.append(headers.bytes)
        recordCount += 1
        lastOffsetDelta = delta
        maxTimestamp = max(maxTimestamp, timestamp)
    }

    /// Adds a record after the last.
    package mutating func append(
        timestamp: Int64, key: [UInt8]?, value: [UInt8]?, headers: [RecordHeader] = [], offsetDelta: Int32? = nil
    ) {
        var raw = ByteBuffer(capacity: headers.isEmpty ? 0 : 256)
        for header in headers {
            raw.varint(Int32(header.name.count))
            raw.append(header.name)
            raw.varint(header.value.map { Int32($0.count) } ?? -1)
            if let value = header.value { raw.append(value) }
        }
        Self.withBytes(key) { keyBytes in
            Self.withBytes(value) { valueBytes in
                append(
                    timestamp: timestamp, key: keyBytes, value: valueBytes, offsetDelta: offsetDelta,
                    rawHeaders: (Int32(headers.count), raw.bytes))
            }
        }
    }

    /// Adds a record that was read from another batch.
    package mutating func append(
        _ record: RecordView, from cursor: RecordCursor, timestamp: Int64, offsetDelta: Int32? = nil
    ) {
        append(
            timestamp: timestamp, key: cursor.bytes(in: record.key), value: cursor.bytes(in: record.value),
            offsetDelta: offsetDelta, rawHeaders: (record.headerCount, cursor.bytes(in: record.headers)))
    }

    /// Appends the batch to `output`, and begins anew with the same identity.
    ///
    /// - Parameters:
    ///   - level: nil is Kafka's default of the codec.
    ///   - lastOffsetDelta: nil is the last record's. A cleaned batch keeps the one it had, also when it is empty.
    /// - Returns: the header as written.
    @discardableResult
    package mutating func finish(
        into output: inout ByteBuffer, codec: CompressionCodec = .none, level: Int32? = nil, contexts: CodecContexts,
        lastOffsetDelta: Int32? = nil
    ) -> BatchHeader {
        let last = lastOffsetDelta ?? self.lastOffsetDelta
        precondition(last >= self.lastOffsetDelta && last >= 0, "a batch covers the offsets of its records")
        // an empty batch has nothing to compress
        let used = recordCount == 0 ? .none : codec
        let header = Self.write(
            records.bytes, identity: identity, codec: used, level: level ?? codec.defaultLevel, contexts: contexts,
            shape: Shape(
                recordCount: recordCount, lastOffsetDelta: last,
                baseTimestamp: identity.deleteHorizon ?? baseTimestamp,
                maxTimestamp: identity.appendTime ?? maxTimestamp),
            into: &output)
        reset(identity)
        return header
    }

    /// What records say of their batch.
    struct Shape {
        var recordCount: Int32
        var lastOffsetDelta: Int32
        var baseTimestamp: Int64
        var maxTimestamp: Int64
    }

    /// Appends a batch of records that are encoded already.
    static func write(
        _ records: UnsafeRawBufferPointer, identity: BatchIdentity, codec: CompressionCodec, level: Int32,
        contexts: CodecContexts, shape: Shape, into output: inout ByteBuffer
    ) -> BatchHeader {
        let start = output.count
        _ = output.extend(BatchHeader.size)
        contexts.compress(records, codec: codec, level: level, into: &output)
        let size = output.count - start
        precondition(size <= Int(Int32.max), "a batch is smaller than 2 GiB")
        let whole = UnsafeMutableRawBufferPointer(rebasing: output.mutableBytes[start...])
        var header = BatchHeader(UnsafeRawBufferPointer(whole))
        header.baseOffset = identity.baseOffset
        header.batchLength = Int32(size - BatchHeader.lengthOverhead)
        header.leaderEpoch = identity.leaderEpoch
        header.magic = 2
        header.crc = 0
        header.attributes = attributes(of: identity, codec: codec)
        header.lastOffsetDelta = shape.lastOffsetDelta
        header.baseTimestamp = shape.baseTimestamp
        header.maxTimestamp = shape.maxTimestamp
        header.producerID = identity.producerID
        header.producerEpoch = identity.producerEpoch
        header.baseSequence = identity.baseSequence
        header.recordCount = shape.recordCount
        header.write(to: whole)
        header.crc = BatchHeader.seal(whole)
        return header
    }

    private static func attributes(of identity: BatchIdentity, codec: CompressionCodec) -> Int16 {
        var bits = Int16(codec.rawValue)
        if identity.appendTime != nil { bits |= BatchHeader.Attributes.appendTime }
        if identity.isTransactional { bits |= BatchHeader.Attributes.transactional }
        if identity.isControl { bits |= BatchHeader.Attributes.control }
        if identity.deleteHorizon != nil { bits |= BatchHeader.Attributes.deleteHorizon }
        return bits
    }

    /// Appends the batch that ends a transaction in a partition: a single control record.
    @discardableResult
    package static func write(
        _ marker: EndTransactionMarker, producerID: ProducerID, epoch: ProducerEpoch, timestamp: Int64,
        baseOffset: Offset = 0, leaderEpoch: LeaderEpoch = -1, into output: inout ByteBuffer, contexts: CodecContexts
    ) -> BatchHeader {
        var identity = BatchIdentity(producerID: producerID, epoch: epoch, baseSequence: -1, isTransactional: true)
        identity.baseOffset = baseOffset
        identity.leaderEpoch = leaderEpoch
        identity.isControl = true
        var builder = BatchBuilder(identity, capacity: 64)
        var key = ByteBuffer(capacity: 16)
        key.int16(0)
        key.int16(marker.type.rawValue)
        var value = ByteBuffer(capacity: 16)
        value.int16(0)
        value.int32(marker.coordinatorEpoch)
        builder.append(
            timestamp: timestamp, key: key.bytes, value: value.bytes,
            rawHeaders: (0, UnsafeRawBufferPointer(start: nil, count: 0)))
        return builder.finish(into: &output, contexts: contexts)
    }

    // MARK: Encoding

    private mutating func write(_ field: UnsafeRawBufferPointer?) {
        guard let field else { return records.varint(-1) }
        records.varint(Int32(field.count))
        records.append(field)
    }

    /// Bytes of a varint or varlong: 7 bits of its zig-zag form each.
    private static func size(_ value: Int64) -> Int {
        let bits = 64 - UInt64(bitPattern: (value << 1) ^ (value >> 63) | 1).leadingZeroBitCount
        return (bits + 6) / 7
    }

    private static func size(_ field: UnsafeRawBufferPointer?) -> Int {
        guard let field else { return 1 }
        return size(Int64(field.count)) + field.count
    }

    private static func withBytes(_ field: [UInt8]?, _ body: (UnsafeRawBufferPointer?) -> Void) {
        guard let field else { return body(nil) }
        field.withUnsafeBytes { body($0) }
    }
}
