import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor

/// Reads the groups of one partition out of its log. Handed over: a lane's thread runs it for as long as there is
/// something to read, the shard's loop takes it back; one of them has it at a time.
final class GroupLoader: @unchecked Sendable {
    enum Step {
        case finished
        /// What is left to read is not committed yet.
        case waits
        /// The partition is not led any more, or cannot be read: a sentence.
        case failed(String)
    }

    /// What is read at a time; a batch that is larger is read whole.
    private static let chunkBytes = 1 << 20
    /// A batch whose records take more memory than this is not of our making, nor Kafka's.
    private static let batchBytesLimit = 256 << 20

    let partition: Partition
    let leaderEpoch: LeaderEpoch
    private var machine: GroupMachine
    /// What the machine wants done first.
    private var actions: [GroupAction] = []
    /// Topics that something is committed for, where the commits say which.
    private(set) var committedTopics: [DeletedTopic] = []
    private(set) var recordCount = 0
    /// Records of kinds that are not known, and those that are malformed.
    private(set) var skippedCount = 0
    private let clock: any Clock
    private let surroundings: GroupSurroundings
    private var next: Offset
    /// The log as it was when leadership began: all of it has to be read.
    private let end: Offset
    private let contexts = CodecContexts()
    private var chunk = ByteBuffer(capacity: 16)
    private var records = ByteBuffer(capacity: 16)

    init(
        _ partition: Partition, leaderEpoch: LeaderEpoch, settings: GroupSettings, seed: UInt64, clock: any Clock,
        surroundings: GroupSurroundings
    ) {
        self.surroundings = surroundings
        self.partition = partition
        self.leaderEpoch = leaderEpoch
        machine = GroupMachine(settings: settings, seed: seed)
        self.clock = clock
        next = partition.logStartOffset
        end = partition.logEndOffset
    }

    /// On a lane.
    func run() -> Step {
        while next < end {
            let request = PartitionFetchRequest(
                offset: next, maxBytes: Self.chunkBytes, firstBatchWhole: true, currentLeaderEpoch: leaderEpoch)
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
            let before = next
            do {
                chunk.truncate(to: 0)
                _ = chunk.extend(slice.count)
                let count = try file.read(into: chunk.mutableBytes, at: slice.position)
                chunk.truncate(to: count)
                try take(chunk.bytes)
            } catch {
                return .failed("\(error)")
            }
            guard next > before else { return .failed("a batch at offset \(next) is cut") }
        }
        chunk.reset(keeping: 16)
        records.reset(keeping: 16)
        actions = machine.finishLoading(
            at: GroupMoment(
                now: clock.now, wallMilliseconds: clock.wallMilliseconds, surroundings: surroundings))
        committedTopics = machine.committedTopics
        return .finished
    }

    private struct Malformed: Error, CustomStringConvertible {
        var description: String
    }

    private func take(_ bytes: UnsafeRawBufferPointer) throws {
        var walker = BatchWalker(bytes, checkingChecksums: true)
        while true {
            switch walker.next() {
            case .batch(let position, let header):
                // it may begin below what was asked for
                if header.nextOffset > next { try take(header, walker.batch(at: position, header)) }
                next = max(next, header.nextOffset)
            case .end, .partial: return
            case .corrupt(let corruption): throw Malformed(description: "after offset \(next): \(corruption)")
            }
        }
    }

    private func take(_ header: BatchHeader, _ batch: UnsafeRawBufferPointer) throws {
        let body = UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...])
        guard let codec = header.codec else {
            throw Malformed(description: "a batch of no codec at offset \(header.baseOffset)")
        }
        if codec == .none { return try take(header, records: body) }
        records.truncate(to: 0)
        try contexts.decompress(body, codec: codec, into: &records, limit: Self.batchBytesLimit)
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
            let value = cursor.bytes(in: record.value)
            if header.isControl {
                guard let value, let marker = EndTransactionMarker(key: key, value: value) else { continue }
                machine.loadTransactionEnd(of: header.producerID, commits: marker.type == .commit)
                continue
            }
            switch GroupRecords.decode(key: key, value: value) {
            case .known(let known):
                machine.load(known, at: header.baseOffset + Int64(record.offsetDelta), transactionOf: producer)
            case .foreign: machine.load(foreign: key, exists: value != nil)
            case .unknown, .malformed: skippedCount += 1
            }
        }
    }

    /// The machine, once.
    func handOver() -> (GroupMachine, [GroupAction]) {
        let finished = machine
        // a second holder would have all of it copied at the first change
        machine = GroupMachine(settings: finished.settings, seed: 0)
        return (finished, actions)
    }
}
