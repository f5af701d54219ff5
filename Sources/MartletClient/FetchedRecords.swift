import MartletBasics
package import MartletModel

/// A record as it is handed out: its bytes lie in memory that is valid until the next batch is read.
package struct FetchedRecord {
    package var offset: Offset
    /// -1 where it has none.
    package var timestamp: Int64
    package var timestampType: TimestampType
    package var view: RecordView
    package var cursor: RecordCursor

    package var key: UnsafeRawBufferPointer? { cursor.bytes(in: view.key) }
    package var value: UnsafeRawBufferPointer? { cursor.bytes(in: view.value) }
    package var headers: HeaderCursor { cursor.headers(of: view) }
}

/// What one fetch brought of one partition: batches, checked and decompressed one at a time, so that memory holds the
/// answer and one batch.
package final class FetchedRecords: @unchecked Sendable {
    /// What one batch may hold once decompressed.
    package static let decompressedBytesLimit = 128 << 20

    package let partition: TopicPartition
    package let highWatermark: Offset
    package let lastStableOffset: Offset
    package let logStart: Offset
    /// Behind the last batch that was read.
    package private(set) var nextOffset: Offset
    /// The size of a batch that did not end in the answer; to be asked for with more room.
    package private(set) var bytesWanted: Int?

    private let answer: ResponseFrame
    private let decompressedBytesLimit: Int
    private let contexts: CodecContexts
    private var walker: BatchWalker
    private var decompressed = ByteBuffer(capacity: 16)
    private let from: Offset
    /// Transactions that were aborted, by first offset; nil where all records are wanted.
    private var aborted: [(producer: ProducerID, first: Offset)]
    private let skipsAborted: Bool
    private var abortedProducers: Set<ProducerID> = []

    init(
        _ partition: TopicPartition, from: Offset, answer: ResponseFrame, records: ByteRange, highWatermark: Offset,
        lastStableOffset: Offset, logStart: Offset, aborted: [(producer: ProducerID, first: Offset)]?,
        contexts: CodecContexts, decompressedBytesLimit: Int = FetchedRecords.decompressedBytesLimit
    ) {
        self.decompressedBytesLimit = decompressedBytesLimit
        self.partition = partition
        self.from = from
        self.answer = answer
        self.highWatermark = highWatermark
        self.lastStableOffset = lastStableOffset
        self.logStart = logStart
        self.contexts = contexts
        nextOffset = from
        skipsAborted = aborted != nil
        self.aborted = (aborted ?? []).sorted { $0.first < $1.first }
        walker = BatchWalker(
            UnsafeRawBufferPointer(rebasing: answer.bytes[records.offset..<records.end]), checkingChecksums: true)
    }

    /// Of bytes that came some other way than in an answer.
    package convenience init(
        _ partition: TopicPartition, from: Offset, records: [UInt8], aborted: [(producer: ProducerID, first: Offset)]?,
        contexts: CodecContexts, decompressedBytesLimit: Int = FetchedRecords.decompressedBytesLimit
    ) {
        let frame = ResponseFrame(size: records.count)
        var copied = 0
        while copied < records.count {
            let room = frame.room
            let count = min(room.count, records.count - copied)
            room.copyBytes(from: records[copied..<copied + count])
            frame.filled(count)
            copied += count
        }
        self.init(
            partition, from: from, answer: frame, records: ByteRange(offset: 0, count: records.count), highWatermark: .max,
            lastStableOffset: .max, logStart: 0, aborted: aborted, contexts: contexts,
            decompressedBytesLimit: decompressedBytesLimit)
    }

    /// Hands each record of the next batch to `body`, in order; false where there is no further batch. Stops early, and
    /// says true, when `body` says false: then the rest of the batch is left out.
    package func nextBatch(_ body: (FetchedRecord) -> Bool) throws(ClientError) -> Bool {
        while true {
            switch walker.next() {
            case .end: return false
            case .partial(_, let needed):
                bytesWanted = needed
                return false
            case .corrupt(let corruption): throw corrupt("\(corruption)")
            case .batch(let position, let header):
                guard header.nextOffset > from else { continue }
                // control records, and those of transactions that came to nothing, are nobody's to see
                guard !isHidden(header, walker.batch(at: position, header)) else {
                    nextOffset = max(nextOffset, header.nextOffset)
                    continue
                }
                try hand(header, walker.batch(at: position, header), to: body)
                return true
            }
        }
    }

    private func hand(
        _ header: BatchHeader, _ batch: UnsafeRawBufferPointer, to body: (FetchedRecord) -> Bool
    ) throws(ClientError) {
        var cursor = RecordCursor(try records(header, batch), count: header.recordCount)
        do throws(RecordFault) {
            while let view = try cursor.next() {
                let (offset, overflow) = header.baseOffset.addingReportingOverflow(Int64(view.offsetDelta))
                guard !overflow, offset >= header.baseOffset, offset <= header.lastOffset else {
                    throw RecordFault.offsetOutOfPlace
                }
                guard offset >= from else { continue }
                // what was handed out is not handed out again, whatever a broker answers
                guard offset >= nextOffset else { throw RecordFault.offsetOutOfPlace }
                let isAppendTime = header.timestampType == .logAppendTime
                let record = FetchedRecord(
                    offset: offset,
                    timestamp: isAppendTime ? header.maxTimestamp : header.baseTimestamp &+ view.timestampDelta,
                    timestampType: header.timestampType, view: view, cursor: cursor)
                nextOffset = offset + 1
                guard body(record) else { return }
            }
            nextOffset = max(nextOffset, header.nextOffset)
        } catch {
            throw corrupt("batch at \(header.baseOffset): \(error)")
        }
    }

    private func records(
        _ header: BatchHeader, _ batch: UnsafeRawBufferPointer
    ) throws(ClientError) -> UnsafeRawBufferPointer {
        let area = UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...])
        guard let codec = header.codec else { throw corrupt("batch at \(header.baseOffset): a codec that does not exist") }
        guard codec != .none, header.recordCount > 0 else { return area }
        decompressed.reset()
        do throws(CompressionFault) {
            try contexts.decompress(area, codec: codec, into: &decompressed, limit: decompressedBytesLimit)
        } catch {
            throw corrupt("batch at \(header.baseOffset): \(error)")
        }
        return decompressed.bytes
    }

    private func isHidden(_ header: BatchHeader, _ batch: UnsafeRawBufferPointer) -> Bool {
        if skipsAborted {
            while let next = aborted.first, next.first <= header.lastOffset {
                abortedProducers.insert(next.producer)
                aborted.removeFirst()
            }
        }
        guard header.isControl else {
            return skipsAborted && header.isTransactional && abortedProducers.contains(header.producerID)
        }
        var cursor = RecordCursor(
            UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...]), count: header.recordCount)
        if let view = try? cursor.next(), let key = cursor.bytes(in: view.key), ControlRecordType(key: key) == .abort {
            abortedProducers.remove(header.producerID)
        }
        return true
    }

    private func corrupt(_ reason: String) -> ClientError {
        .malformedAnswer(what: "Fetch", broker: "\(partition)", reason: reason)
    }
}
