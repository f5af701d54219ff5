import MartletBasics
import MartletModel
import MartletReactor

/// Reads a topic of one partition from its beginning to its end, and again, on each connection.
final class FetchLoad {
    fileprivate let shape: Case.Fetch
    fileprivate let topic: String
    fileprivate let meter: Meter
    fileprivate let conclusion: Conclusion
    private let loop: any EventLoop
    private var readers: [TopicReader] = []
    /// Requests in flight on all connections.
    private var outstanding = 0

    init(_ shape: Case.Fetch, topic: String, meter: Meter, conclusion: Conclusion, loop: any EventLoop) {
        self.shape = shape
        self.topic = topic
        self.meter = meter
        self.conclusion = conclusion
        self.loop = loop
    }

    /// Reads until the meter is done, and waits for the answers that are then still to come.
    func run(over sockets: [any StreamSocket]) async throws(BenchFault) {
        let scratch = Link.Scratch()
        readers = sockets.map { TopicReader(self, $0, scratch) }
        for reader in readers { reader.link.start(on: loop) }
        defer { for reader in readers { reader.link.close() } }
        try await conclusion.wait()
    }

    fileprivate func asked() { outstanding += 1 }

    fileprivate func answered(_ answer: FetchAnswer, _ sent: Instant) throws(BenchFault) {
        outstanding -= 1
        try meter.finished(sent: sent, records: answer.records, bytes: answer.bytes)
        if meter.isOver, outstanding == 0 { conclusion.conclude(.success(())) }
    }
}

private final class TopicReader: Speaker {
    private unowned let load: FetchLoad
    private(set) var link: Link!
    private var answers = FetchAnswerReader()
    private var next: Offset = 0
    private var sent: Instant?

    init(_ load: FetchLoad, _ socket: any StreamSocket, _ scratch: Link.Scratch) {
        self.load = load
        link = Link(socket, scratch: scratch, speaker: self)
    }

    func nextRequest() throws(BenchFault) -> Frame? {
        guard sent == nil, !load.meter.isOver else { return nil }
        let frame = try Frame(
            fetching: load.topic, partition: 0, from: next, bytes: load.shape.bytesPerRequest, correlationID: 0)
        sent = load.meter.clock.now
        load.asked()
        return frame
    }

    func received(_ bytes: UnsafeRawBufferPointer) throws(BenchFault) {
        guard let answer = try answers.take(bytes) else { return }
        guard let sent else { throw BenchFault("an answer came to no request") }
        self.sent = nil
        guard let nextOffset = answer.nextOffset else {
            throw BenchFault("a fetch from offset \(next), below \(answer.highWatermark), brought no whole batch")
        }
        next = nextOffset >= answer.highWatermark ? 0 : nextOffset
        try load.answered(answer, sent)
    }

    func failed(_ fault: BenchFault) { load.conclusion.conclude(.failure(fault)) }
}
