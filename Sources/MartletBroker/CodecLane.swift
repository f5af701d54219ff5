import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor

/// What became of one partition's batch on the codec lane.
struct CheckedBatch {
    var outcome: Result<ValidatedBatch, BatchRejection>
    /// Where the batch was written anew.
    var rewritten: FrameBuffer?
}

/// A produce request whose batches are checked on a lane: its frame, which lives until it is appended, and what is
/// needed of the topics.
///
/// Handed over: the connection's loop makes it, the lane's thread fills it, the loop takes it back.
final class CodecWork: @unchecked Sendable {
    let header: FrameHeader
    let acks: Int16
    let timeoutMs: Int32
    let parts: ContiguousArray<ProducePart>
    let transaction: ProduceTransaction?
    let frame: UnsafeMutableRawBufferPointer
    let buffer: FrameBuffer
    /// Nil where the partition is not served here: nothing is checked.
    private let configs: [TopicConfig?]
    private(set) var checked: [CheckedBatch?] = []

    init(
        header: FrameHeader, acks: Int16, timeoutMs: Int32, parts: ContiguousArray<ProducePart>, configs: [TopicConfig?],
        transaction: ProduceTransaction?, frame: UnsafeMutableRawBufferPointer, buffer: FrameBuffer
    ) {
        self.header = header
        self.acks = acks
        self.timeoutMs = timeoutMs
        self.parts = parts
        self.configs = configs
        self.transaction = transaction
        self.frame = frame
        self.buffer = buffer
    }

    /// On the lane.
    func check(with validator: inout BatchValidator, now: Int64) {
        checked = parts.indices.map { index in
            guard let config = configs[index] else { return nil }
            let records = parts[index].records ?? ByteRange(offset: 0, count: 0)
            let batch = UnsafeMutableRawBufferPointer(rebasing: frame[records.offset..<records.end])
            do throws(BatchRejection) {
                let validated = try validator.validate(batch, config: config, version: header.apiVersion, now: now)
                guard validated.isRewritten else { return CheckedBatch(outcome: .success(validated)) }
                let rewritten = FrameBuffer(size: validated.header.totalSize)
                rewritten.fill(UnsafeRawBufferPointer(validator.rewritten))
                return CheckedBatch(outcome: .success(validated), rewritten: rewritten)
            } catch {
                return CheckedBatch(outcome: .failure(error))
            }
        }
    }
}

/// The lane on which large compressed batches are checked, and written anew where the topic wants another codec: a
/// megabyte of gzip takes longer than all else that a loop does in a turn.
final class CodecLane: @unchecked Sendable {
    /// Compressed batches up to this size are checked where they arrive.
    static let inlineLimit = 64 * 1024
    private static let threads = 2
    /// Work that waits; beyond it loops check for themselves, which slows down those who send so much.
    private static let queueLimit = 64

    /// Validators own memory that is worth keeping: one for each thread.
    private final class Validator {
        var validator: BatchValidator

        init(batchBytesLimit: Int) {
            validator = BatchValidator(contexts: CodecContexts(), decompressedBytesLimit: batchBytesLimit)
        }
    }

    private let lane: any Lane
    private let batchBytesLimit: Int
    private let clock: any Clock
    private let lock = Lock()
    // guarded by the lock:
    private var idle: [Validator] = []

    init(_ host: any Host, batchBytesLimit: Int) {
        self.batchBytesLimit = batchBytesLimit
        lane = host.makeLane("codec", threads: Self.threads, limit: Self.queueLimit)
        clock = host.clock
    }

    /// False if there is too much to do already.
    func submit(_ work: CodecWork, on loop: any EventLoop, then done: @escaping @Sendable (CodecWork) -> Void) -> Bool {
        lane.submit(
            { [self] in
                let own = lock.withLock { idle.popLast() } ?? Validator(batchBytesLimit: batchBytesLimit)
                work.check(with: &own.validator, now: clock.wallMilliseconds)
                lock.withLock { if idle.count < Self.threads { idle.append(own) } }
            }, on: loop, then: { done(work) })
    }
}

extension Connection {
    /// Checks a request's batches on the codec lane if one of them is large and must be decompressed or compressed;
    /// false if it is to be done here. Until it is appended the connection's later requests wait.
    func checkOnLane(
        _ header: FrameHeader, acks: Int16, _ transaction: ProduceTransaction?, _ frame: UnsafeMutableRawBufferPointer,
        _ table: LocalTopicTable
    ) -> Bool {
        guard shared.produceParts.contains(where: { $0.records?.count ?? 0 > CodecLane.inlineLimit }) else { return false }
        var isHard = false
        var unused = ProduceResult(topicName: "", topicID: .zero, beginsTopic: false, index: 0)
        let configs = shared.produceParts.map { part -> TopicConfig? in
            let topic = findTopic(part, frame, table, &unused)
            guard let config = topic?.partition(part.index)?.topicConfig else { return nil }
            if let records = part.records, Self.isHard(frame, records, config) { isHard = true }
            return config
        }
        guard isHard else { return false }
        let (buffer, bytes) = keepFrame(frame)
        let work = CodecWork(
            header: header, acks: acks, timeoutMs: produceTimeoutMs, parts: shared.produceParts, configs: configs,
            transaction: transaction, frame: bytes, buffer: buffer)
        let isQueued = broker.codec.submit(work, on: loop) { [self] work in checkedOnLane(work) }
        guard isQueued else {
            shared.recycle(buffer)
            return false
        }
        // it is already where the partitions had to be added to a transaction first
        if !isBlocked { block(forOwnWork: true) }
        return true
    }

    private static func isHard(_ frame: UnsafeMutableRawBufferPointer, _ records: ByteRange, _ config: TopicConfig) -> Bool {
        guard records.count > CodecLane.inlineLimit else { return false }
        let attributes = Int16(
            bigEndian: frame.loadUnaligned(fromByteOffset: records.offset + BatchHeader.At.attributes, as: Int16.self))
        let codec = attributes & BatchHeader.Attributes.codecMask
        guard case .codec(let wanted) = config.compression else { return codec != 0 }
        return codec != 0 || wanted != .none
    }

    /// The frame in memory that stays: its own buffer, or a copy of what lies in the loop's scratch.
    func keepFrame(_ frame: UnsafeMutableRawBufferPointer) -> (FrameBuffer, UnsafeMutableRawBufferPointer) {
        if let owner = frameOwner {
            owner.users += 1
            return (owner, frame)
        }
        let copy = shared.pool.take(size: frame.count)
        copy.fill(UnsafeRawBufferPointer(frame))
        return (copy, copy.bytes)
    }

    private func checkedOnLane(_ work: CodecWork) {
        if awaitExchange(work.parts, work.frame, { [self] in checkedOnLane(work) }) { return }
        if !isClosed {
            produceTimeoutMs = work.timeoutMs
            let appended = appendParts(
                work.header, acks: work.acks, work.parts, work.frame, checked: work.checked, transaction: work.transaction,
                fault: nil)
            if appended { shared.retain(work.buffer) }
        }
        shared.recycle(work.buffer)
        if !isClosed { unblock() }
    }
}
