import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// One client's connection: cuts what arrives into frames, starts requests in order, sends answers in order.
///
/// Produce requests are pipelined: each is started as it arrives, its appends reserved, and waits in `answers` for its
/// turn. Every other request is a barrier: it starts when all before it are answered, and what follows waits in `held`
/// until it is answered itself. So the memory of a connection is bounded: one frame under way, one receive's worth
/// held, the pipelined answers, and an outbox beyond whose limit no further request is started.
///
/// Confined to its loop; an object only, so that those who wait for appends can hold it.
final class Connection: AppendOwner, MemoryWaiter, @unchecked Sendable {
    /// Pipelined produce requests beyond these numbers wait in the socket.
    static let answersLimit = 1024
    static let outboxLimit = 4 << 20
    /// The same while all connections together hold much.
    static let outboxLimitShort = 64 << 10
    /// The pace that is expected of a frame once it began, after a time of grace: slower ones are closed.
    static let frameGrace = Interval.seconds(30)
    static let frameBytesPerSecondLeast: Int64 = 8 * 1024
    /// The grace while others wait for memory, and the time in which a whole frame must then come.
    static let frameGraceShort = Interval.seconds(2)
    static let frameSecondsShort: Int64 = 30
    /// To end smaller ones would help nobody.
    static let frameSizeShort = 64 << 10

    let id: UInt64
    let broker: Broker
    let shared: ConnectionLoop
    let listener: Listener
    let socket: any StreamSocket
    let loop: any EventLoop
    var log: Logger { broker.log.network }

    // MARK: input
    /// The frame whose body is yet to arrive in full.
    private var partial: FrameBuffer?
    /// The first bytes of a frame, where more are needed to know what becomes of it.
    private var prefix: [UInt8] = []
    /// Input that arrived behind a barrier, from the first request that was not started.
    private var held: FrameBuffer?
    private var heldFrom = 0
    private var frameBegan = Instant(nanoseconds: 0)
    private var waitsForMemory: Int?
    /// The last request began or an answer was completed then: what `connections.max.idle.ms` counts from.
    private(set) var lastActive: Instant
    /// A request is under way that all others wait for.
    private(set) var isBlocked = false
    /// The barrier is work of our own on what was received whole: it is finished also if the peer goes.
    private var blocksForOwnWork = false
    private var hasPeerGone = false
    private var isProcessing = false
    /// The buffer of its own that the frame being handled lies in; nil for the loop's scratch.
    private(set) var frameOwner: FrameBuffer?

    // MARK: answers
    var outbox = Outbox()
    private(set) var answers = RingQueue<ProduceAnswer>()
    /// The number of the answer at the head of `answers`.
    private(set) var firstAnswer: UInt64 = 0
    private var isNotedUnsent = false
    /// What of the outbox, and of input that waits, is counted as held.
    private(set) var countedMemory = 0
    /// What of the outbox is counted as waiting for the peer.
    private var countedOutbox = 0
    private var isWritableWatched = false
    private(set) var isClosed = false
    /// What the request under way wants done when the peer goes before it is answered.
    var onAbandon: (() -> Void)?

    // MARK: quotas
    /// Who is connected.
    let principal = Principal.anonymous
    /// The bounds on what the client does; nil where nobody has any.
    var limits: ClientLimits?
    /// Nothing is read before then: the client was told to wait.
    private(set) var mutedUntil: Instant?
    private var muteTimer: TimerToken?
    /// What the answer under way is to tell the client to wait, beside the time that requests take.
    var owedWait: (span: Interval, meter: QuotaMeter)?
    /// A request is being handled, since `lastActive`.
    private(set) var isHandling = false

    // MARK: what the client said of itself
    var softwareName = ""
    var softwareVersion = ""
    var topicCache = TopicCache()
    var refusedSequences = RefusedSequences()
    /// The `TimeoutMs` of the produce request being read.
    var produceTimeoutMs: Int32 = 0

    init(id: UInt64, socket: any StreamSocket, listener: Listener, shared: ConnectionLoop, broker: Broker) {
        self.id = id
        self.socket = socket
        self.listener = listener
        self.shared = shared
        self.broker = broker
        loop = shared.loop
        lastActive = broker.clock.now
    }

    func start() {
        // the broker may have stopped before this loop got to it
        guard !isClosed else { return }
        socket.attach(to: loop) { [unowned self] readiness in ready(readiness) }
        socket.watch(.readable)
    }

    // MARK: readiness

    private func ready(_ readiness: Readiness) {
        if readiness.contains(.writable), !outbox.isEmpty { noteUnsent() }
        if readiness.contains(.readable), !isClosed { receive() }
        if readiness.contains(.hungUp), !isClosed { peerHasGone() }
    }

    /// The peer ended its side. What it sent before is still read, to the end of it, unless a request is under way
    /// whose answer nobody will take.
    private func peerHasGone() {
        hasPeerGone = true
        updateInterest()
    }

    private var wantsInput: Bool {
        !isBlocked && held == nil && waitsForMemory == nil && startsRequests
    }

    /// There is room for one more answer, and the client need not wait.
    private var startsRequests: Bool {
        mutedUntil == nil && answers.count < Self.answersLimit
            && outbox.pending < (shared.holdsMuch ? Self.outboxLimitShort : Self.outboxLimit)
    }

    func updateInterest() {
        guard !isClosed else { return }
        if hasPeerGone, isBlocked ? !blocksForOwnWork : held != nil && mutedUntil == nil { return close("the peer has gone") }
        countMemory()
        var interest: Readiness = wantsInput ? .readable : []
        if !outbox.isEmpty, isWritableWatched { interest.insert(.writable) }
        socket.watch(interest)
    }

    // MARK: receiving

    /// Receives and handles as much as its share of a turn.
    private func receive() {
        guard wantsInput else { return updateInterest() }
        isProcessing = true
        defer { isProcessing = false }
        var budget = ConnectionLoop.turnBudget
        while budget > 0, !isClosed, wantsInput {
            var space = shared.receiveSpaceWhileShort()
            for byte in prefix {
                space[0] = byte
                space = UnsafeMutableRawBufferPointer(rebasing: space[1...])
            }
            let nothing = UnsafeMutableRawBufferPointer(start: nil, count: 0)
            let rest = partial?.rest ?? nothing
            let transfer = rest.isEmpty ? socket.receive(into: space, nothing) : socket.receive(into: rest, space)
            guard case .moved(let count) = transfer else {
                if transfer == .ended { close(partial == nil && prefix.isEmpty ? "the peer closed" : "the peer closed inside a frame") }
                break
            }
            budget -= count
            let intoFrame = min(count, rest.count)
            let intoScratch = count - intoFrame
            if let frame = partial, intoFrame > 0 {
                frame.filled += intoFrame
                if frame.isComplete { finishPartial(frame, scratchBusy: intoScratch) }
            }
            guard !isClosed else { return }
            if intoScratch > 0 {
                let start = shared.scratchUsed
                let bytes = UnsafeMutableRawBufferPointer(start: shared.scratch.baseAddress! + start, count: prefix.count + intoScratch)
                prefix.removeAll(keepingCapacity: true)
                shared.scratchUsed = start + bytes.count
                let appended = process(bytes, in: nil)
                // nothing refers to these bytes unless an append was reserved, or the scratch was given back meanwhile
                if !appended, shared.scratchUsed == start + bytes.count { shared.scratchUsed = start }
            }
            if intoFrame + intoScratch < min(rest.count + space.count, 64 * 1024) { break }
        }
        if !isClosed { updateInterest() }
        if shared.holdsMuch, !outbox.isEmpty { sendAtOnce() }
    }

    /// A frame that came in pieces is whole. `scratchBusy` bytes lie in the scratch, unprocessed, and must not be
    /// overwritten meanwhile.
    private func finishPartial(_ frame: FrameBuffer, scratchBusy: Int) {
        partial = nil
        guard !isBlocked, held == nil else { return hold(frame) }
        let reserved = shared.scratchUsed
        shared.scratchUsed += scratchBusy
        if !handleOwned(frame) { hold(frame) }
        shared.scratchUsed = reserved
    }

    /// Handles a frame in a buffer of its own; false if it must wait for its turn.
    private func handleOwned(_ frame: FrameBuffer) -> Bool {
        frameOwner = frame
        defer { frameOwner = nil }
        switch handle(frame.bytes) {
        case .answered: break
        case .appended: shared.retain(frame)
        case .mustWait: return false
        }
        shared.recycle(frame)
        return true
    }

    private func hold(_ frame: FrameBuffer) {
        // the size prefix goes back before the body, so that held input is cut into frames like any other
        let whole = shared.pool.take(size: frame.size + 4)
        var size = UInt32(frame.size).bigEndian
        withUnsafeBytes(of: &size) { whole.fill($0) }
        whole.fill(UnsafeRawBufferPointer(frame.bytes))
        whole.charged = frame.charged
        frame.charged = 0
        shared.recycle(frame)
        precondition(held == nil, "what is held is held once")
        held = whole
        heldFrom = 0
    }

    /// Keeps bytes behind what is already held.
    private func hold(_ bytes: UnsafeRawBufferPointer) {
        let before = held.map { UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer($0.bytes)[heldFrom...]) }
        let whole = shared.pool.take(size: (before?.count ?? 0) + bytes.count)
        if let before { whole.fill(before) }
        whole.fill(bytes)
        if let old = held {
            whole.charged = old.charged
            old.charged = 0
            shared.recycle(old)
        }
        held = whole
        heldFrom = 0
    }

    /// Cuts bytes into frames and starts their requests; true if an append refers to the bytes now. `owner` is the
    /// buffer they lie in, nil for the scratch.
    private func process(_ bytes: UnsafeMutableRawBufferPointer, in owner: FrameBuffer?) -> Bool {
        func keep(from at: Int) {
            guard let owner, held == nil else { return hold(UnsafeRawBufferPointer(rebasing: bytes[at...])) }
            // what was held stays where it is: copied at each barrier, a turn's worth of small requests would cost its square
            held = owner
            heldFrom = owner.size - (bytes.count - at)
        }
        frameOwner = owner
        defer { frameOwner = nil }
        var at = 0
        var appended = false
        while !isClosed {
            let left = bytes.count - at
            if isBlocked || held != nil || !startsRequests {
                if left > 0 { keep(from: at) }
                return appended
            }
            guard left >= 4 else {
                prefix = Array(bytes[at...])
                return appended
            }
            let size = Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: at, as: Int32.self))
            // of a large frame it must be known first what it is
            let isLarge = size > Self.otherFrameLimit && size <= broker.config.requestBytesLimit
            guard left >= Self.frameHeadBytes || !isLarge else {
                prefix = Array(bytes[at...])
                return appended
            }
            if let refusal = refusal(of: size, UnsafeRawBufferPointer(rebasing: bytes[at...])) {
                close(refusal)
                return appended
            }
            guard left - 4 >= Int(size) else {
                begin(size: Int(size), with: UnsafeRawBufferPointer(rebasing: bytes[(at + 4)...]))
                return appended
            }
            switch handle(UnsafeMutableRawBufferPointer(rebasing: bytes[(at + 4)..<(at + 4 + Int(size))])) {
            case .answered: at += 4 + Int(size)
            case .appended:
                appended = true
                at += 4 + Int(size)
            case .mustWait:
                keep(from: at)
                return appended
            }
        }
        return appended
    }

    /// A frame began of which only the first bytes are there.
    private func begin(size: Int, with bytes: UnsafeRawBufferPointer) {
        frameBegan = broker.clock.now
        guard broker.requestMemory.reserve(size, for: self) else {
            // the prefix and the first bytes are kept, at most a receive's worth, until there is room for the frame
            waitsForMemory = size
            let waiting = shared.pool.take(size: bytes.count + 4)
            var prefix = UInt32(size).bigEndian
            withUnsafeBytes(of: &prefix) { waiting.fill($0) }
            waiting.fill(bytes)
            held = waiting
            heldFrom = 0
            return
        }
        let frame = shared.pool.take(size: size)
        frame.charged = size
        frame.fill(bytes)
        partial = frame
    }

    /// The memory that this connection waited for is reserved for it now.
    func memoryGranted(_ count: Int) {
        guard !isClosed, waitsForMemory == count, let waiting = held else { return broker.requestMemory.release(count) }
        waitsForMemory = nil
        held = nil
        let frame = shared.pool.take(size: count)
        frame.charged = count
        frame.fill(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(waiting.bytes)[(heldFrom + 4)...]))
        shared.recycle(waiting)
        frameBegan = broker.clock.now
        partial = frame
        updateInterest()
    }

    // MARK: going on after a barrier

    /// Takes up what was held, after the request that all waited for is answered or there is room again.
    func resume() {
        guard !isClosed, !isProcessing, !isBlocked, waitsForMemory == nil else { return }
        if let waiting = held, startsRequests {
            isProcessing = true
            held = nil
            let bytes = UnsafeMutableRawBufferPointer(rebasing: waiting.bytes[heldFrom...])
            heldFrom = 0
            let appended = process(bytes, in: waiting)
            if appended { shared.retain(waiting) }
            if held !== waiting { shared.recycle(waiting) }
            isProcessing = false
        }
        updateInterest()
    }

    /// From now on every request waits, until `unblock`.
    func block(forOwnWork: Bool = false) {
        precondition(!isBlocked, "one barrier at a time")
        isBlocked = true
        blocksForOwnWork = forOwnWork
    }

    func unblock() {
        precondition(isBlocked, "only a barrier is lifted")
        isBlocked = false
        onAbandon = nil
        lastActive = broker.clock.now
        resume()
    }

    // MARK: muting

    /// Reads nothing for so long, whatever is received already included.
    func mute(for span: Interval) {
        let end = broker.clock.now + span
        guard !isClosed, end > mutedUntil ?? Instant(nanoseconds: .min) else { return }
        mutedUntil = end
        if let muteTimer { loop.cancel(muteTimer) }
        muteTimer = loop.schedule(after: span) { [weak self] in
            guard let self else { return }
            (mutedUntil, muteTimer) = (nil, nil)
            resume()
        }
        updateInterest()
    }

    // MARK: requests

    enum Handled {
        /// Answered, or waited for without the frame's bytes.
        case answered
        /// An append refers to the frame's bytes until the turn's end.
        case appended
        /// Not started: it waits for those before it.
        case mustWait
    }

    private func handle(_ frame: UnsafeMutableRawBufferPointer) -> Handled {
        lastActive = broker.clock.now
        var reader = ByteReader(UnsafeRawBufferPointer(frame))
        do {
            let header = try FrameHeader(&reader)
            if shared.quotas != nil || limits != nil { findLimits(header, frame) }
            isHandling = true
            defer { isHandling = false }
            if header.apiKey == ProduceRequest.apiKey, ProduceRequest.versions.contains(header.apiVersion) {
                shared.requestBegan(header, bytes: frame.count + 4)
                defer { countRequestTime(since: lastActive) }
                return try produce(header, frame, &reader)
            }
            guard answers.isEmpty else { return .mustWait }
            shared.requestBegan(header, bytes: frame.count + 4)
            // what was produced without acknowledgement comes before what follows it
            shared.writeAppends()
            let began = lastActive
            try broker.dispatch(Request(header: header, reader: reader, connection: self))
            countRequestTime(since: began)
            return .answered
        } catch let fault as RequestFault {
            close(fault.description)
        } catch {
            close("a request that cannot be read", error)
        }
        return .answered
    }

    /// Starts a produce request that has waited for a replica to be exchanged for its copy.
    func produceAfterExchange(
        _ header: FrameHeader, _ buffer: FrameBuffer, _ frame: UnsafeMutableRawBufferPointer
    ) {
        defer { shared.recycle(buffer) }
        guard !isClosed else { return }
        isBlocked = false
        isProcessing = true
        frameOwner = buffer
        do {
            var reader = ByteReader(UnsafeRawBufferPointer(frame))
            _ = try FrameHeader(&reader)
            if case .appended = try produce(header, frame, &reader) { shared.retain(buffer) }
        } catch {
            close("a request that cannot be read: \(error)")
        }
        frameOwner = nil
        isProcessing = false
        resume()
    }

    // MARK: produce answers, in order

    /// Queues the answer of a produce request; it is sent when it and all before it are complete.
    func enqueue(_ answer: ProduceAnswer) -> UInt64 {
        answers.append(answer)
        return firstAnswer + UInt64(answers.count - 1)
    }

    func withAnswer(_ number: UInt64, _ change: (inout ProduceAnswer) -> Void) {
        change(&answers[Int(number - firstAnswer)])
    }

    func appendFinished(_ token: AppendToken, _ outcome: AppendOutcome) {
        guard !isClosed else { return }
        let place = Int(token.answer &- firstAnswer)
        precondition(place >= 0 && place < answers.count, "an append finishes once, before its answer goes")
        answers[place].finish(token.index, outcome)
        if place == 0 { sendCompleteAnswers() }
    }

    /// Encodes the answers at the head of the queue that are complete.
    func sendCompleteAnswers() {
        let wasFull = answers.count >= Self.answersLimit
        while let first = answers.first, first.pending == 0 {
            answers.popFirst()
            firstAnswer += 1
            var errors = ErrorCodes()
            first.collectErrors(&errors)
            let start = outbox.bytes.count
            do throws(EncodingFault) {
                if first.acks != 0 { try first.encode(into: &outbox.bytes) }
            } catch {
                return close("an answer that cannot be encoded: \(error)")
            }
            let size = first.acks != 0 ? outbox.bytes.count - start : nil
            shared.answered(ProduceRequest.apiKey, bytes: size, began: first.began, errors)
            if first.closesConnection { return close("a produce with acks=0 failed: \(first.failureText)") }
        }
        if !outbox.isEmpty { noteUnsent() }
        if answers.isEmpty || wasFull && answers.count < Self.answersLimit { resume() }
    }

    // MARK: sending

    func noteUnsent() {
        guard !isNotedUnsent, !isClosed else { return }
        isNotedUnsent = true
        shared.noteUnsent(self)
    }

    /// What would wait with answers of the turn for its end, or with large ones for their turn, does not wait.
    private func sendAtOnce() {
        var budget = ConnectionLoop.sendBudget
        flush(&budget)
    }

    /// Called by who has noted that it has something to send.
    func flushNoted(_ budget: inout Int) {
        isNotedUnsent = false
        flush(&budget)
    }

    /// Sends at a cost of up to about `budget`, which is lowered by what it was.
    private func flush(_ budget: inout Int) {
        guard !isClosed, !outbox.isEmpty else { return }
        do {
            switch try outbox.flush(to: socket, budget: &budget) {
            case .all: isWritableWatched = false
            case .blocked: isWritableWatched = true
            case .limited:
                isWritableWatched = false
                noteUnsent()
            case .ended: return close("the peer has gone")
            }
            countOutbox()
            // requests may have waited for room in the outbox
            resume()
            updateInterest()
        } catch {
            close("what it asked for cannot be read", error)
        }
    }

    /// Memory that is charged as a request's is counted there.
    private func countMemory() {
        let now = outbox.bytes.count + (held.map { $0.memory.count - $0.charged } ?? 0)
        guard now != countedMemory else { return }
        shared.memoryChanged(by: now - countedMemory)
        countedMemory = now
    }

    func countOutbox() {
        countMemory()
        let pending = outbox.pending
        guard pending != countedOutbox else { return }
        shared.outboxChanged(by: pending - countedOutbox)
        countedOutbox = pending
    }

    // MARK: the end

    private func sendLast() {
        var budget = Self.outboxLimit
        _ = try? outbox.flush(to: socket, budget: &budget)
    }

    func close(_ reason: String) {
        guard !isClosed else { return }
        // what was answered before the fault still goes out, as far as the socket takes it at once
        if !outbox.isEmpty { sendLast() }
        isClosed = true
        shared.outboxChanged(by: -countedOutbox)
        shared.memoryChanged(by: -countedMemory)
        countedMemory = 0
        if waitsForMemory != nil { broker.requestMemory.withdraw(self) }
        if let muteTimer { loop.cancel(muteTimer) }
        letGoOfLimits()
        forgetSequences()
        socket.close()
        onAbandon?()
        onAbandon = nil
        for buffer in [partial, held].compactMap({ $0 }) { shared.recycle(buffer) }
        partial = nil
        held = nil
        broker.connections.closed(self, reason)
    }

    /// Called now and then: closes what has been idle or slow for too long.
    func checkPace(now: Instant, idleLimit: Interval) {
        if let partial {
            // while it is we who do not read, nobody is slow
            guard wantsInput else { return frameBegan = now }
            let allowed = timeAllowed(partial)
            if now - frameBegan > allowed { close("a frame that arrives too slowly: \(partial.filled) of \(partial.size) bytes") }
        } else if now - lastActive > idleLimit, !isBlocked, answers.isEmpty {
            close("idle")
        }
    }

    /// Since a frame began; less where others wait for the memory that it has.
    private func timeAllowed(_ frame: FrameBuffer) -> Interval {
        guard frame.size >= Self.frameSizeShort, broker.requestMemory.isShort(for: frame.size) else {
            return Self.frameGrace + Interval.seconds(Int64(frame.filled) / Self.frameBytesPerSecondLeast)
        }
        let pace = max(Self.frameBytesPerSecondLeast, Int64(frame.size) / Self.frameSecondsShort)
        return Self.frameGraceShort + Interval.seconds(Int64(frame.filled) / pace)
    }
}
