import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor

/// Reads a coordinator's state out of the log of its partition. Handed over: a lane's thread runs it for as long as
/// there is something to read, the shard's loop takes it back; one of them has it at a time.
final class PartitionReplay<Machine: CoordinatorMachine>: @unchecked Sendable {
    enum Step {
        case finished
        /// What is left to read is not committed yet.
        case waits
        /// The partition is not led any more, or cannot be read: a sentence.
        case failed(String)
    }

    let partition: Partition
    let leaderEpoch: LeaderEpoch
    /// Nil once it was handed over.
    private var machine: Machine?
    /// What the machine wants done first.
    private var actions: [Machine.Action] = []
    private var summary: Machine.Summary?
    private(set) var recordCount = 0
    /// Records of kinds that are not known, and those that are malformed.
    private(set) var skippedCount = 0
    private let moment: () -> Machine.Moment
    private var next: Offset
    /// The log as it was when leadership began: all of it has to be read.
    private let end: Offset
    /// The file that was read last, and up to where.
    private var taken: (file: any DiskFile, end: Int64)?
    private let contexts = CodecContexts()
    private var chunk = ByteBuffer(capacity: 16)
    private var records = ByteBuffer(capacity: 16)

    init(_ partition: Partition, leaderEpoch: LeaderEpoch, into machine: Machine, _ moment: @escaping () -> Machine.Moment) {
        self.partition = partition
        self.leaderEpoch = leaderEpoch
        self.machine = machine
        self.moment = moment
        next = partition.logStartOffset
        end = partition.logEndOffset
    }

    /// On a lane.
    func run() -> Step {
        while next < end {
            let request = PartitionFetchRequest(
                offset: next, maxBytes: ReplayLimits.chunkBytes, firstBatchWhole: true, currentLeaderEpoch: leaderEpoch)
            let found = partition.fetch(request)
            switch found.error {
            case .none: break
            case .offsetOutOfRange where partition.logStartOffset > next:
                next = partition.logStartOffset
                continue
            default: return .failed("its log cannot be read: \(found.error)")
            }
            guard let slice = found.slice, !slice.isEmpty, let file = slice.file else {
                // a cleaned log may have nothing between here and the high watermark
                guard found.highWatermark >= end else { return .waits }
                next = end
                break
            }
            if let taken, taken.file === file, taken.end != slice.position {
                return .failed("between byte \(taken.end) and \(slice.position) lies what no offset leads to")
            }
            let before = next
            do {
                chunk.truncate(to: 0)
                _ = chunk.extend(slice.count)
                let count = try file.read(into: chunk.mutableBytes, at: slice.position)
                chunk.truncate(to: count)
                taken = (file, slice.position + Int64(try take(chunk.bytes, below: found.highWatermark)))
            } catch {
                look(at: slice)
                return .failed("\(error)")
            }
            guard next > before else {
                look(at: slice)
                return .failed("a batch at offset \(next) is cut")
            }
        }
        chunk.reset(keeping: 16)
        records.reset(keeping: 16)
        actions = machine!.finishLoading(at: moment())
        summary = machine!.summary
        return .finished
    }

    /// What could not be taken over is looked at as before it is sent to somebody: what the disk has damaged takes the
    /// partition offline at once, with the sentence that says what to do. Nothing is coordinated from the part that is sound.
    private func look(at slice: LogSlice) {
        if let verdict = slice.check() { partition.noteChecked(verdict) }
    }

    /// Whole batches; how many bytes they are. No checksum covers an offset: by a wrong one others would be passed over.
    private func take(_ bytes: UnsafeRawBufferPointer, below limit: Offset) throws -> Int {
        var walker = BatchWalker(bytes, checkingChecksums: true)
        var (taken, least): (Int, Offset) = (0, 0)
        while true {
            switch walker.next() {
            case .batch(let position, let header):
                guard header.baseOffset >= least, header.nextOffset <= limit else {
                    throw MalformedLog(
                        description: "offset \(header.baseOffset), which is not from \(least) up to \(limit)")
                }
                // it may begin below what was asked for
                if header.nextOffset > next { try take(header, walker.batch(at: position, header)) }
                next = max(next, header.nextOffset)
                (taken, least) = (position + header.totalSize, header.nextOffset)
            case .end, .partial: return taken
            case .corrupt(let corruption): throw MalformedLog(description: "after offset \(next): \(corruption)")
            }
        }
    }

    private func take(_ header: BatchHeader, _ batch: UnsafeRawBufferPointer) throws {
        let body = UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...])
        guard let codec = header.codec else {
            throw MalformedLog(description: "a batch of no codec at offset \(header.baseOffset)")
        }
        if codec == .none { return try take(header, records: body) }
        records.truncate(to: 0)
        try contexts.decompress(body, codec: codec, into: &records, limit: ReplayLimits.batchBytes)
        try take(header, records: records.bytes)
    }

    private func take(_ header: BatchHeader, records bytes: UnsafeRawBufferPointer) throws {
        var cursor = RecordCursor(bytes, count: header.recordCount)
        let producer: ProducerID? = header.isTransactional ? header.producerID : nil
        while let record = try cursor.next() {
            recordCount += 1
            guard let key = cursor.bytes(in: record.key) else {
                skippedCount += 1
                continue
            }
            let replayed = ReplayedRecord(
                offset: header.baseOffset + Int64(record.offsetDelta), key: key, value: cursor.bytes(in: record.value),
                isControl: header.isControl, transactionOf: producer)
            if !machine!.load(replayed) { skippedCount += 1 }
        }
    }

    /// What was read, once: a second holder would have all of it copied at the first change.
    func handOver() -> (machine: Machine, actions: [Machine.Action], summary: Machine.Summary) {
        guard let finished = machine, let summary else { preconditionFailure("what is finished is handed over once") }
        machine = nil
        defer { actions = [] }
        return (finished, actions, summary)
    }
}

private struct MalformedLog: Error, CustomStringConvertible {
    var description: String
}

private enum ReplayLimits {
    /// What is read at a time; a batch that is larger is read whole.
    static let chunkBytes = 1 << 20
    /// A batch whose records take more memory than this is not of our making, nor Kafka's.
    static let batchBytes = 256 << 20
}
