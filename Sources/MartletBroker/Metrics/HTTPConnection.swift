import MartletBasics
import MartletReactor

/// One client of the metrics endpoint. Requests are answered one after the other; while one is, nothing more is read.
///
///     reading ── head is whole ──> answering ── answer is there ──> sending ── all sent ──> reading, or closed
///        └── refused, too late ──────────────────────────────────────┘
///
/// Confined to its loop.
final class HTTPConnection: @unchecked Sendable {
    /// A head must be there so soon after its connection, or its first byte.
    static let headLimit = Interval.seconds(10)
    /// How long a connection may wait for its next request.
    static let idleLimit = Interval.seconds(75)
    /// How long a peer may take for an answer.
    static let sendLimit = Interval.seconds(30)
    /// What is sent in one turn.
    private static let sendBudget = 256 * 1024
    private static let receiveSize = 4 * 1024

    private enum Phase { case reading, answering, sending, closed }

    private let socket: any StreamSocket
    private let loop: any EventLoop
    private let answer: (HTTPRequestHead, @escaping @Sendable (HTTPAnswer) -> Void) -> Void
    private let closed: (HTTPConnection) -> Void

    private var phase = Phase.reading
    private var input: [UInt8] = []
    /// So much of `input` is known to hold no end of a head.
    private var scanned = 0
    private var output: [UInt8] = []
    private var sent = 0
    private var keepsAlive = true
    private var deadline: Instant
    private var hasPeerGone = false

    init(
        _ socket: any StreamSocket, loop: any EventLoop,
        answer: @escaping (HTTPRequestHead, @escaping @Sendable (HTTPAnswer) -> Void) -> Void,
        closed: @escaping (HTTPConnection) -> Void
    ) {
        self.socket = socket
        self.loop = loop
        self.answer = answer
        self.closed = closed
        deadline = loop.clock.now + Self.headLimit
    }

    func start() {
        socket.attach(to: loop) { [unowned self] readiness in ready(readiness) }
        socket.watch(.readable)
    }

    private func ready(_ readiness: Readiness) {
        if readiness.contains(.hungUp) { hasPeerGone = true }
        if readiness.contains(.writable) { send() }
        if phase == .reading { receive() } else if hasPeerGone, phase == .answering { close() }
    }

    // MARK: Reading

    private func receive() {
        let before = input.count
        var transfer = Transfer.wouldBlock
        input.append(contentsOf: repeatElement(0, count: Self.receiveSize))
        input.withUnsafeMutableBytes { bytes in
            let nothing = UnsafeMutableRawBufferPointer(start: nil, count: 0)
            transfer = socket.receive(into: UnsafeMutableRawBufferPointer(rebasing: bytes[before...]), nothing)
        }
        var count = 0
        if case .moved(let moved) = transfer { count = moved }
        input.removeLast(Self.receiveSize - count)
        if transfer == .ended { return close() }
        guard count > 0 else { return socket.watch(.readable) }
        // the first byte of a next request: from now on it is waited for no longer than for any
        if before == 0 { deadline = loop.clock.now + Self.headLimit }
        take()
    }

    /// Looks whether a request is there.
    private func take() {
        guard phase == .reading else { return }
        guard HTTPRequestHead.mayEnd(input, from: scanned) else {
            scanned = input.count
            return socket.watch(.readable)
        }
        switch HTTPRequestHead.read(input) {
        case .incomplete:
            scanned = input.count
            socket.watch(.readable)
        case .refused(let status):
            keepsAlive = false
            begin(HTTPAnswer(status, status.reason + "."), withoutBody: false)
        case .head(let head, let size):
            input.removeFirst(size)
            scanned = 0
            keepsAlive = head.keepsAlive
            phase = .answering
            deadline = .distantFuture
            socket.watch([])
            let withoutBody = head.method == .head
            // whoever answers has one answer for each
            answer(head) { [weak self] answer in
                guard let self, phase == .answering else { return }
                begin(answer, withoutBody: withoutBody)
            }
        }
    }

    // MARK: Sending

    private func begin(_ answer: HTTPAnswer, withoutBody: Bool) {
        output = answer.bytes(keepAlive: keepsAlive, withoutBody: withoutBody)
        sent = 0
        phase = .sending
        deadline = loop.clock.now + Self.sendLimit
        send()
    }

    private func send() {
        guard phase == .sending else { return }
        var budget = Self.sendBudget
        while sent < output.count, budget > 0 {
            let end = min(output.count, sent + budget)
            let isMore = end < output.count
            switch output.withUnsafeBytes({ socket.send(UnsafeRawBufferPointer(rebasing: $0[sent..<end]), more: isMore) }) {
            case .moved(let count):
                sent += count
                budget -= count
            case .wouldBlock: return socket.watch(.writable)
            case .ended: return close()
            }
        }
        guard sent == output.count else { return socket.watch(.writable) }
        output = []
        guard keepsAlive, !hasPeerGone || !input.isEmpty else { return close() }
        phase = .reading
        deadline = loop.clock.now + (input.isEmpty ? Self.idleLimit : Self.headLimit)
        guard !input.isEmpty else { return socket.watch(.readable) }
        // a request that came with the one before has its turn in a later one of the loop
        loop.execute { [weak self] in self?.take() }
    }

    // MARK: The end

    /// Called now and then.
    func checkPace(now: Instant) {
        guard now > deadline else { return }
        guard phase == .reading, !input.isEmpty else { return close() }
        keepsAlive = false
        let limit = Self.headLimit.milliseconds / 1000
        begin(HTTPAnswer(.requestTimeout, "The request did not come within \(limit) seconds."), withoutBody: false)
    }

    func close() {
        guard phase != .closed else { return }
        phase = .closed
        input = []
        output = []
        socket.close()
        closed(self)
    }
}
