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
    /// A larger answer waits for its turn among those; what is smaller goes out at the end of the turn that brought it.
    static let smallAnswer = 64 << 10
    /// What large answers may cost in one turn, whoever they are for: about a millisecond of the loop.
    static let largeBudget = 4 << 20
    /// How many partitions are looked at in one turn for fetches of many, and what time that may take: where files must be
    /// opened, or lie no more in the cache, a few take as long as many.
    static let looksPerTurn = 256
    static let looksTime = Interval.microseconds(500)

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

    private(set) var counts = RequestCounts()
    private var touched: ContiguousArray<Partition> = []
    private var retained: ContiguousArray<FrameBuffer> = []
    private var unsent: ContiguousArray<Connection> = []
    /// Connections with large answers, and fetches of many partitions, in the order in which they get their share of a turn.
    private var large = RingQueue<Connection>()
    private var looks = RingQueue<FetchUnderway>()
    private var endOfTurnScheduled = false
    private var endOfTurn: (() -> Void)!
    /// Large work of this turn is scheduled, or was done and goes on in the next.
    private var isLargeScheduled = false
    private var afterSyncs: (() -> Void)!
    private var workOff: (() -> Void)!
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
        workOff = { [unowned self] in doLargeWork() }
        afterSyncs = { [unowned self] in self.loop.atEndOfTurn(workOff) }
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
        sendSmall()
        if heldBytes > answerBytesLimit { connections?.closeLargest(on: loop, toFree: heldBytes - answerBytesLimit / 4 * 3) }
        if counts.hasAnswered { counts.endTurn(now: loop.clock.now) }
        scheduleLargeWork()
    }

    // MARK: Sending

    /// Sends what is small; what is large gets into line.
    private func sendSmall() {
        // Completions may add connections while these are flushed: the list is walked by index.
        var index = 0
        while index < unsent.count {
            let connection = unsent[index]
            index += 1
            if connection.outbox.pending > Self.smallAnswer {
                connection.countOutbox()
                large.append(connection)
            } else {
                var budget = Self.sendBudget
                connection.flushNoted(&budget)
            }
        }
        unsent.removeAll(keepingCapacity: true)
    }

    /// A fetch of many partitions has to be looked at.
    func lookLater(_ fetch: FetchUnderway) {
        looks.append(fetch)
        scheduleEndOfTurn()
    }

    /// Behind the syncs that the appends of this turn begin (the syncer puts them off twice): the disk works meanwhile, and
    /// who waits for it does not wait for this.
    private func scheduleLargeWork() {
        guard !isLargeScheduled, !large.isEmpty || !looks.isEmpty else { return }
        isLargeScheduled = true
        loop.atEndOfTurn(afterSyncs)
    }

    /// A turn's share of what takes long. Between two shares the loop has a turn for everybody else.
    private func doLargeWork() {
        lookAtMany()
        sendSmall()
        var budget = Self.largeBudget
        while budget > 0, let connection = large.popFirst() {
            // whoever begins has a whole share, beyond the turn's if need be: an answer is not cut for its last bytes
            var share = Self.sendBudget
            connection.flushNoted(&share)
            budget -= Self.sendBudget - share
            // its requests that waited for room may have been answered
            sendSmall()
        }
        guard !large.isEmpty || !looks.isEmpty else { return isLargeScheduled = false }
        loop.execute { [weak self] in
            guard let self else { return }
            isLargeScheduled = false
            // before this turn's own large work its small work is done
            scheduleEndOfTurn()
        }
    }

    private func lookAtMany() {
        guard !looks.isEmpty else { return }
        let end = loop.clock.now + Self.looksTime
        var left = Self.looksPerTurn
        while left > 0, let fetch = looks.popFirst() {
            left -= fetch.lookOn(atMost: left, until: end)
            if loop.clock.now >= end { return }
        }
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
