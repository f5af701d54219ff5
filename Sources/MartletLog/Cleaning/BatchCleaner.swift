internal import MartletBasics
internal import MartletModel

/// Decides, batch by batch, what a cleaning leaves of a log, and writes it.
///
/// A *record* stays if it is the last of its key below the end of the cleaning, or lies at that end or above. A
/// tombstone (a record without a value) that stays gives its batch a *delete horizon*, in the place of the base
/// timestamp; a cleaning after that time drops it. Records of aborted transactions, and such without a key, go at once.
/// The *marker* of a transaction gets its horizon when no batch of the transaction is left, and goes after it.
///
/// A *batch* keeps its base and last offset, its producer, sequence and codec whatever goes out of it. It stays, empty, if
/// it is the last of a producer that the log remembers, or the last of the cleaning; else it goes with its last record.
final class BatchCleaner {
    /// A batch that says it is larger than this when opened is damaged.
    static let decompressedLimit = TimeSearch.decompressedLimit
    private static let keptBufferBytes = 1 << 20

    struct Outcome {
        var kept: Int32 = 0
        var dropped: Int32 = 0
        /// The batch was written as it was.
        var isUnchanged = false
        /// What the transaction index has to tell.
        var aborted: AbortedTransaction?
        /// What was written; nil where the batch went.
        var written: BatchHeader?
    }

    /// A record that stays if it is the last of its key.
    private struct Asked {
        var hash: KeyHash
        var offset: Offset
        /// Among the records of its batch.
        var place: Int
        var hasValue: Bool
    }

    let keys: KeyOffsets
    /// Records below it have all been looked at; those from it on stay.
    let end: Offset
    let nowMilliseconds: Int64
    let deleteRetentionMs: Int64
    let lastOfProducers: [ProducerID: LastOfProducer]
    var transactions = CleaningTransactions()
    private let contexts: CodecContexts
    private var opened = ByteBuffer()
    private var builder = BatchBuilder()
    private var stays: [Bool] = []
    private var asked: [Asked] = []

    init(
        keys: KeyOffsets, end: Offset, nowMilliseconds: Int64, deleteRetentionMs: Int64,
        lastOfProducers: [ProducerID: LastOfProducer], contexts: CodecContexts
    ) {
        self.keys = keys
        self.end = end
        self.nowMilliseconds = nowMilliseconds
        self.deleteRetentionMs = deleteRetentionMs
        self.lastOfProducers = lastOfProducers
        self.contexts = contexts
    }

    /// Appends to `output` what stays of a batch. The reason, where its records cannot be read.
    func clean(
        _ header: BatchHeader, _ bytes: UnsafeRawBufferPointer, into output: inout ByteBuffer
    ) throws(CleaningFault) -> Outcome {
        var outcome = Outcome()
        var needsHorizon = false
        var dropsAll: Bool
        if header.isControl {
            let marker = transactions.passMarker(header, Self.controlType(header, bytes), isEmpty: header.recordCount == 0)
            outcome.aborted = marker.aborted
            dropsAll = !marker.isNeeded && header.hasDeleteHorizon && header.baseTimestamp <= nowMilliseconds
            needsHorizon = !marker.isNeeded
        } else {
            dropsAll = transactions.passBatch(header)
        }
        let staysEmpty =
            header.nextOffset == end
            || header.hasProducer && lastOfProducers[header.producerID]?.isCarried(by: header) == true

        opened.reset(keeping: Self.keptBufferBytes)
        let records: UnsafeRawBufferPointer
        if dropsAll || header.recordCount == 0 {
            outcome.dropped = header.recordCount
            records = UnsafeRawBufferPointer(start: nil, count: 0)
        } else {
            records = try Self.open(header, bytes, contexts, &opened)
            let hasTombstone = try decide(header, records, &outcome)
            needsHorizon = needsHorizon || hasTombstone
        }

        guard outcome.kept > 0 else {
            if staysEmpty {
                outcome.isUnchanged = header.recordCount == 0
                outcome.written = Self.writeEmpty(header, into: &output)
            }
            return outcome
        }
        needsHorizon = needsHorizon && !header.hasDeleteHorizon
        if outcome.dropped == 0, !needsHorizon {
            output.append(bytes)
            outcome.isUnchanged = true
            outcome.written = header
        } else {
            outcome.written = try rebuild(header, records, newHorizon: needsHorizon, into: &output)
        }
        return outcome
    }

    /// Notes for every record whether it stays; whether a tombstone is among those that do.
    private func decide(
        _ header: BatchHeader, _ records: UnsafeRawBufferPointer, _ outcome: inout Outcome
    ) throws(CleaningFault) -> Bool {
        stays.removeAll(keepingCapacity: true)
        asked.removeAll(keepingCapacity: true)
        let horizonIsOver = header.hasDeleteHorizon && header.baseTimestamp <= nowMilliseconds
        var hasTombstone = false
        var last: Int32 = -1
        var cursor = RecordCursor(records, count: header.recordCount)
        while let record = try Self.next(&cursor) {
            guard record.offsetDelta > last, record.offsetDelta <= header.lastOffsetDelta else { throw .offsets }
            last = record.offsetDelta
            let offset = header.baseOffset + Int64(record.offsetDelta)
            if header.isControl || offset >= end {
                stays.append(true)
                hasTombstone = hasTombstone || !record.hasValue
            } else if let key = cursor.bytes(in: record.key), record.hasValue || !horizonIsOver {
                asked.append(Asked(hash: keys.hash(key), offset: offset, place: stays.count, hasValue: record.hasValue))
                // until the map is asked
                stays.append(false)
                if asked.count == KeyOffsets.keysAtOnce { hasTombstone = ask() || hasTombstone }
            } else {
                stays.append(false)
            }
        }
        hasTombstone = ask() || hasTombstone
        for stay in stays { outcome.kept += stay ? 1 : 0 }
        outcome.dropped += Int32(stays.count) - outcome.kept
        return hasTombstone
    }

    /// Of the records that the map was not asked about yet, those stay that are the last of their key; whether a tombstone
    /// is among them.
    private func ask() -> Bool {
        var hasTombstone = false
        for one in asked where one.offset >= keys.lastOffset(of: one.hash) {
            stays[one.place] = true
            hasTombstone = hasTombstone || !one.hasValue
        }
        asked.removeAll(keepingCapacity: true)
        return hasTombstone
    }

    private func rebuild(
        _ header: BatchHeader, _ records: UnsafeRawBufferPointer, newHorizon: Bool, into output: inout ByteBuffer
    ) throws(CleaningFault) -> BatchHeader {
        var identity = BatchIdentity(header)
        if newHorizon {
            let (horizon, overflow) = nowMilliseconds.addingReportingOverflow(deleteRetentionMs)
            identity.deleteHorizon = overflow ? .max : horizon
        }
        builder.reset(identity, keeping: Self.keptBufferBytes)
        var index = 0
        var cursor = RecordCursor(records, count: header.recordCount)
        while let record = try Self.next(&cursor) {
            if stays[index] {
                builder.append(
                    record, from: cursor, timestamp: header.timestamp(of: record), offsetDelta: record.offsetDelta)
            }
            index += 1
        }
        return builder.finish(
            into: &output, codec: header.codec ?? .none, contexts: contexts, lastOffsetDelta: header.lastOffsetDelta)
    }

    // MARK: One batch

    static func next(_ cursor: inout RecordCursor) throws(CleaningFault) -> RecordView? {
        do throws(RecordFault) { return try cursor.next() } catch { throw .record(error) }
    }

    static func open(
        _ header: BatchHeader, _ bytes: UnsafeRawBufferPointer, _ contexts: CodecContexts, _ scratch: inout ByteBuffer
    ) throws(CleaningFault) -> UnsafeRawBufferPointer {
        do throws(CompressionFault) {
            return try header.records(of: bytes, contexts: contexts, scratch: &scratch, limit: decompressedLimit)
        } catch { throw .compression(error) }
    }

    /// What a control batch's record says that it is; nil for an empty one, or a type that is not known.
    static func controlType(_ header: BatchHeader, _ bytes: UnsafeRawBufferPointer) -> ControlRecordType? {
        guard header.recordCount > 0, bytes.count > BatchHeader.size else { return nil }
        var cursor = RecordCursor(UnsafeRawBufferPointer(rebasing: bytes[BatchHeader.size...]), count: header.recordCount)
        guard let record = try? cursor.next(), let key = cursor.bytes(in: record.key) else { return nil }
        return ControlRecordType(key: key)
    }

    /// A batch that carries its offsets, producer and sequence, and no record.
    static func writeEmpty(_ header: BatchHeader, into output: inout ByteBuffer) -> BatchHeader {
        var empty = header
        empty.batchLength = Int32(BatchHeader.size - BatchHeader.lengthOverhead)
        empty.attributes &= ~(BatchHeader.Attributes.codecMask | BatchHeader.Attributes.deleteHorizon)
        empty.baseTimestamp = -1
        empty.recordCount = 0
        let whole = UnsafeMutableRawBufferPointer(start: output.extend(BatchHeader.size), count: BatchHeader.size)
        empty.write(to: whole)
        empty.crc = BatchHeader.seal(whole)
        return empty
    }
}

/// Why the records of a batch whose checksum is right cannot be read.
enum CleaningFault: Error {
    case compression(CompressionFault)
    case record(RecordFault)
    case offsets
    /// What stays would be more than a segment can hold: recompressed, it grew.
    case tooLarge
}

extension CleaningFault: CustomStringConvertible {
    var description: String {
        switch self {
        case .compression(let fault): fault.description
        case .record(let fault): fault.description
        case .tooLarge: "what stays of the segment is more than a segment can hold"
        case .offsets: "the offsets of a batch's records do not rise, or leave the batch"
        }
    }
}
