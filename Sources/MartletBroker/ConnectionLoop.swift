import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// What the connections of one event loop share: the memory they receive into, and what is put off to the end of the
/// turn, so that all that a turn brings for one partition is written by one system call.
///
/// Confined to its loop.
final class ConnectionLoop: @unchecked Sendable {
    /// Large enough that one turn's appends to a partition are one large write; small enough to stay in the cache.
    static let scratchSize = 1 << 20
    /// Less room than this, and the turn's appends are written first to have it all again.
    static let receiveSizeLeast = 256 * 1024
    /// What is received at a time while requests wait for memory.
    static let receiveSizeShort = 16 * 1024
    /// What one connection may receive before the others get their turn.
    static let turnBudget = 1 << 20
    /// What one connection may be sent before the others get their turn: an answer with the megabyte that a consumer
    /// asks of a partition goes out whole, as its last bytes would cost as many system calls again in the next turn.
    static let sendBudget = 2 << 20

    let loop: any EventLoop
    /// Which of the broker's loops it is.
    let index: Int
    /// What requests are held to; nil where nobody has a quota.
    var quotas: ClientQuotas?
    let scratch: UnsafeMutableRawBufferPointer
    /// Bytes of the scratch that appends of this turn still refer to.
    var scratchUsed = 0
    var pool = FrameBufferPool()
    /// The parts of the produce request being looked at; kept for its memory.
    var produceParts: ContiguousArray<ProducePart> = []
    var validator: BatchValidator
    /// Of all its connections together.
    var refusedSequencesCount = 0

    private(set) var counts = RequestCounts()
    private var touched: ContiguousArray<Partition> = []
    private var retained: ContiguousArray<FrameBuffer> = []
    private var unsent: ContiguousArray<Connection> = []
    private var endOfTurnScheduled = false
    private var endOfTurn: (() -> Void)!
    private let memory: RequestMemory
    /// What its connections may hold together, of answers that are not taken and of input that waits.
    private let answerBytesLimit: Int
    private var heldBytes = 0
    weak var connections: Connections?

    init(_ loop: any EventLoop, index: Int, memory: RequestMemory, batchBytesLimit: Int, answerBytesLimit: Int) {
        self.loop = loop
        self.index = index
        self.memory = memory
        self.answerBytesLimit = answerBytesLimit
        validator = BatchValidator(contexts: CodecContexts(), decompressedBytesLimit: batchBytesLimit)
        scratch = .allocate(byteCount: Self.scratchSize, alignment: 4096)
        endOfTurn = { [unowned self] in finishTurn() }
    }

    deinit { scratch.deallocate() }

    private func scheduleEndOfTurn() {
        guard !endOfTurnScheduled else { return }
        endOfTurnScheduled = true
        loop.atEndOfTurn(endOfTurn)
    }

    /// Where to receive: what is left of the scratch. Writes what was appended first when that is little.
    func receiveSpace() -> UnsafeMutableRawBufferPointer {
        if scratch.count - scratchUsed < Self.receiveSizeLeast {
            writeAppends()
            scratchUsed = 0
        }
        return UnsafeMutableRawBufferPointer(rebasing: scratch[scratchUsed...])
    }

    /// Notes a partition that has reserved appends which are yet to be written.
    func touch(_ partition: Partition) {
        touched.append(partition)
        scheduleEndOfTurn()
    }

    /// Keeps a frame's memory until the appends that refer to it are written, whatever becomes of it meanwhile.
    func retain(_ buffer: FrameBuffer) {
        buffer.users += 1
        retained.append(buffer)
    }

    func noteUnsent(_ connection: Connection) {
        unsent.append(connection)
        scheduleEndOfTurn()
    }

    /// Writes what this turn has reserved so far. The scratch is free again afterwards, but for what is being processed
    /// in it right now.
    func writeAppends() {
        guard !touched.isEmpty else { return }
        var effects = PartitionEffects()
        for partition in touched { partition.writeReserved(&effects) }
        touched.removeAll(keepingCapacity: true)
        for buffer in retained { recycle(buffer) }
        retained.removeAll(keepingCapacity: true)
        effects.deliver()
    }

    /// Gives a buffer back; it is free when its last user has.
    func recycle(_ buffer: FrameBuffer) {
        buffer.users -= 1
        guard buffer.users == 0 else { return }
        memory.release(buffer.charged)
        buffer.charged = 0
        pool.give(buffer)
    }

    private func finishTurn() {
        endOfTurnScheduled = false
        writeAppends()
        scratchUsed = 0
        // Completions may add connections while these are flushed: the list is walked by index.
        var index = 0
        while index < unsent.count {
            unsent[index].flush()
            index += 1
        }
        unsent.removeAll(keepingCapacity: true)
        if heldBytes > answerBytesLimit { connections?.closeLargest(on: loop, toFree: heldBytes - answerBytesLimit / 4 * 3) }
        if counts.hasAnswered { counts.endTurn(now: loop.clock.now) }
    }

    // MARK: Counting

    func requestBegan(_ header: FrameHeader, bytes: Int) { counts.began(header.apiKey, bytes: bytes) }

    /// An answer is complete, of so many bytes, or of none.
    func answered(_ key: Int16, bytes: Int?, began: Instant, _ errors: ErrorCodes) {
        counts.answered(key, bytes: bytes, began: began)
        for error in errors.all { counts.failed(key, error) }
        scheduleEndOfTurn()
    }

    /// A client was told to wait.
    func throttled(_ kind: QuotaKind, _ span: Interval) { counts.throttled(kind, span) }

    /// A connection holds so many more bytes, or fewer, in its outbox and of input that waits.
    func memoryChanged(by bytes: Int) {
        heldBytes += bytes
        if heldBytes > answerBytesLimit { scheduleEndOfTurn() }
    }

    /// Answers go out at once, not at the turn's end, while there are so many.
    var holdsMuch: Bool { heldBytes > answerBytesLimit / 2 }

    /// What is received of requests that wait for memory is kept: little is received while any does.
    func receiveSpaceWhileShort() -> UnsafeMutableRawBufferPointer {
        let space = receiveSpace()
        guard memory.isShort else { return space }
        return UnsafeMutableRawBufferPointer(rebasing: space[..<min(space.count, Self.receiveSizeShort)])
    }

    /// A connection has so many more bytes, or fewer, that its peer does not take.
    func outboxChanged(by bytes: Int) { counts.outboxBytes += bytes }
}
