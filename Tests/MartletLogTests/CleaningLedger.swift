import MartletBasics
import MartletLog
import MartletModel
import Testing

/// One record as it went into a log.
struct LedgerRecord: Equatable {
    var offset: Offset
    var key: String?
    /// Nil for a tombstone.
    var value: String?
    var timestamp: Int64
}

/// One batch as it went into a log, or as it is found there.
struct LedgerBatch {
    var header: BatchHeader
    var records: [LedgerRecord]
    /// Of a marker: whether it ends a transaction by aborting it.
    var aborts = false

    /// Reads the bytes of a whole batch.
    init(_ bytes: [UInt8]) throws {
        var scratch = ByteBuffer()
        (header, records, aborts) = try bytes.withUnsafeBytes { raw in
            let header = BatchHeader(raw)
            #expect(header.totalSize == raw.count && BatchHeader.checksum(of: raw) == header.crc, "a batch is whole")
            let plain = try header.records(of: raw, contexts: CodecContexts(), scratch: &scratch, limit: 1 << 27)
            var cursor = RecordCursor(plain, count: header.recordCount)
            var found: [LedgerRecord] = []
            var aborts = false
            while let record = try cursor.next() {
                let key = cursor.bytes(in: record.key)
                if header.isControl, let key { aborts = ControlRecordType(key: key) == .abort }
                found.append(
                    LedgerRecord(
                        offset: header.baseOffset + Int64(record.offsetDelta),
                        key: key.map { String(decoding: $0, as: UTF8.self) },
                        value: cursor.bytes(in: record.value).map { String(decoding: $0, as: UTF8.self) },
                        timestamp: header.timestamp(of: record)))
            }
            return (header, found, aborts)
        }
    }
}

/// What went into a log, and what by Kafka's rules must be there of it, worked out with plain dictionaries: it shares
/// nothing with the cleaner but the reading of a batch.
struct CleaningLedger {
    /// Every batch, by offset.
    var batches: [LedgerBatch] = []

    init() {}

    var recordCount: Int { batches.reduce(0) { $0 + $1.records.count } }

    /// Of all that a log holds now.
    init(_ log: PartitionLog) throws { batches = try log.batches().map { try LedgerBatch($0) } }

    mutating func take(_ bytes: [UInt8]) throws { batches.append(try LedgerBatch(bytes)) }

    mutating func truncate(to offset: Offset) { batches.removeAll { $0.header.baseOffset >= offset } }

    private struct Transaction {
        var producer: ProducerID
        var batches: Set<Offset> = []
        var marker: Offset?
        var isAborted = false
    }

    /// All transactions, from the oldest; those without a marker are open.
    private var transactions: [Transaction] {
        var open: [ProducerID: Transaction] = [:]
        var ended: [Transaction] = []
        for batch in batches {
            let producer = batch.header.producerID
            if batch.header.isControl {
                guard var transaction = open.removeValue(forKey: producer) else { continue }
                transaction.marker = batch.header.baseOffset
                transaction.isAborted = batch.aborts
                ended.append(transaction)
            } else if batch.header.isTransactional {
                open[producer, default: Transaction(producer: producer)].batches.insert(batch.header.baseOffset)
            }
        }
        return ended + open.values.sorted { $0.producer < $1.producer }
    }

    private var abortedBatches: Set<Offset> {
        transactions.filter(\.isAborted).reduce(into: []) { $0.formUnion($1.batches) }
    }

    /// Records that count, by key, from the oldest.
    private func byKey(below end: Offset = .max) -> [String: [LedgerRecord]] {
        let aborted = abortedBatches
        var found: [String: [LedgerRecord]] = [:]
        for batch in batches where !batch.header.isControl && !aborted.contains(batch.header.baseOffset) {
            for record in batch.records where record.offset < end {
                if let key = record.key { found[key, default: []].append(record) }
            }
        }
        return found
    }

    /// What must hold of a log at any time, also after a crash in the middle of a cleaning: no key is lost or revived, no
    /// offset and no header is another, what is above `cleanedTo` is all there, and what is left of a transaction can be
    /// told committed from aborted.
    func expectNothingLostOrRevived(in log: PartitionLog, cleanedTo end: Offset, _ what: String) throws {
        let found = try log.batches().map { try LedgerBatch($0) }
        expectSubset(found, what)
        let aborted = abortedBatches
        let there = Dictionary(
            grouping: found.filter { !$0.header.isControl && !aborted.contains($0.header.baseOffset) }.flatMap(\.records)
                .filter { $0.key != nil }, by: { $0.key! })
        for (key, records) in byKey() {
            let last = records[records.count - 1], left = there[key]?.last
            if last.value != nil {
                #expect(left == last, "\(what): the last record of \(key) is there")
            } else {
                #expect(left == nil || left == last, "\(what): \(key) was deleted and is not there again")
            }
        }
        let offsets = Set(found.flatMap(\.records).map(\.offset))
        for batch in batches {
            for record in batch.records where record.offset >= end {
                // an aborted record goes with all of its segment
                guard !aborted.contains(batch.header.baseOffset) else { continue }
                #expect(
                    offsets.contains(record.offset) || batch.header.isControl,
                    "\(what): offset \(record.offset) is not cleaned yet, and is there")
            }
        }
        try expectTransactions(found, log, what)
    }

    private func expectSubset(_ found: [LedgerBatch], _ what: String) {
        let known = Dictionary(uniqueKeysWithValues: batches.map { ($0.header.baseOffset, $0) })
        var next: Offset = 0
        for batch in found {
            let header = batch.header
            #expect(header.baseOffset >= next, "\(what): offsets rise at \(header.baseOffset)")
            next = header.nextOffset
            guard let original = known[header.baseOffset] else {
                Issue.record("\(what): a batch at \(header.baseOffset) that was never written")
                continue
            }
            let was = original.header
            #expect(
                header.lastOffset == was.lastOffset && header.producerID == was.producerID
                    && header.producerEpoch == was.producerEpoch && header.baseSequence == was.baseSequence
                    && header.leaderEpoch == was.leaderEpoch && header.isTransactional == was.isTransactional
                    && header.isControl == was.isControl && header.timestampType == was.timestampType,
                "\(what): the header at \(header.baseOffset)")
            #expect(batch.records.isEmpty || header.codec == was.codec, "\(what): the codec at \(header.baseOffset)")
            for record in batch.records {
                #expect(original.records.contains(record), "\(what): the record at \(record.offset)")
            }
        }
    }

    private func expectTransactions(_ found: [LedgerBatch], _ log: PartitionLog, _ what: String) throws {
        let there = Set(found.map(\.header.baseOffset))
        let withRecords = Set(found.filter { !$0.records.isEmpty }.map(\.header.baseOffset))
        let told = try log.abortedTransactions(from: log.logStartOffset, upTo: log.logEndOffset)
        for transaction in transactions {
            guard let marker = transaction.marker, !transaction.batches.isDisjoint(with: there) else { continue }
            #expect(there.contains(marker), "\(what): the marker \(marker) of a transaction of which batches are there")
            guard transaction.isAborted, !transaction.batches.isDisjoint(with: withRecords) else { continue }
            #expect(
                told.contains { $0.producerID == transaction.producer && $0.lastOffset == marker },
                "\(what): readers are told that the transaction that ends at \(marker) was aborted")
        }
    }

    /// What must hold right after a cleaning up to `end`: of each key the last record alone, nothing that was aborted, nothing
    /// without a key.
    func expectCleaned(_ log: PartitionLog, to end: Offset, tombstonesStay: Bool, _ what: String) throws {
        let found = try log.batches().map { try LedgerBatch($0) }
        let last = byKey(below: end).mapValues { $0[$0.count - 1] }
        let aborted = abortedBatches
        var left: Set<Offset> = []
        for batch in found where !batch.header.isControl {
            let isAborted = aborted.contains(batch.header.baseOffset)
            for record in batch.records where record.offset < end {
                left.insert(record.offset)
                #expect(!isAborted, "\(what): the aborted record at \(record.offset) is gone")
                guard let key = record.key else {
                    Issue.record("\(what): the record at \(record.offset) without a key is gone")
                    continue
                }
                #expect(
                    last[key]?.offset == record.offset, "\(what): of \(key) only the last record is left, not \(record.offset)")
            }
        }
        for (key, record) in last where record.value != nil || tombstonesStay {
            #expect(left.contains(record.offset), "\(what): the last record of \(key), at \(record.offset), is left")
        }
    }

    /// Whoever the log remembers can still be told by what lies in it.
    func expectProducersSurvive(_ log: PartitionLog, _ what: String) throws {
        let found = try log.batches().map { try LedgerBatch($0).header }
        for producer in log.producers.active where producer.lastSequence >= 0 {
            #expect(
                found.contains {
                    $0.producerID == producer.id && $0.producerEpoch == producer.epoch
                        && $0.lastSequence == producer.lastSequence
                }, "\(what): the last batch of producer \(producer.id), sequence \(producer.lastSequence)")
        }
    }
}

/// The log as a cleaning reaches it.
final class LogAccess: CleaningAccess, @unchecked Sendable {
    var log: PartitionLog?
    init(_ log: PartitionLog) { self.log = log }
    func withLog<R>(_ body: (PartitionLog) throws(LogError) -> R) throws(LogError) -> R {
        guard let log else { throw .closed("the log") }
        return try body(log)
    }
}

extension PartitionLog {
    /// A plan for all that may be cleaned now.
    func plan(cleanedTo: Offset?, now: Int64) throws -> CleaningPlan? {
        try planCleaning(cleanedUpTo: cleanedTo, lastStable: lastStableOffset(highWatermark: logEndOffset), now: now)
    }

    /// Cleans what may be cleaned; up to where. Nil where there was nothing.
    @discardableResult
    func clean(from cleanedTo: Offset? = nil, now: Int64, limits: CleaningLimits = CleaningLimits()) throws -> Offset? {
        guard let plan = try plan(cleanedTo: cleanedTo, now: now) else { return nil }
        let cleaning = LogCleaning(plan, access: LogAccess(self), limits: limits, secret: (1, 2))
        while true {
            switch try cleaning.advance(atMost: 1 << 20) {
            case .working: continue
            case .finished: return cleaning.endOffset
            case .overtaken:
                Issue.record("nobody else touches the log")
                return nil
            }
        }
    }
}
