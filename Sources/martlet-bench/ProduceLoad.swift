import MartletBasics
import MartletModel
import MartletReactor
import MartletWire

/// Requests of one batch each, round robin over the partitions, so many in flight on each connection.
final class ProduceLoad {
    fileprivate let frames: [Frame]
    fileprivate let batch: PreparedBatch
    fileprivate let depth: Int
    fileprivate let meter: Meter
    fileprivate let conclusion: Conclusion
    private let loop: any EventLoop
    private var producers: [Producer] = []
    private var nextPartition = 0
    /// Requests in flight on all connections.
    private var outstanding = 0

    init(
        _ shape: Case.Produce, batch: PreparedBatch, topic: String, partitions: Int32, meter: Meter,
        conclusion: Conclusion, loop: any EventLoop
    ) throws(BenchFault) {
        var frames: [Frame] = []
        for partition in 0..<partitions {
            frames.append(
                try Frame(
                    producing: batch.bytes, to: topic, partition: partition, acks: shape.acks,
                    correlationID: partition))
        }
        self.frames = frames
        self.batch = batch
        depth = shape.depth
        self.meter = meter
        self.conclusion = conclusion
        self.loop = loop
    }

    /// Sends until the meter is done, and waits for the answers that are then still to come.
    func run(over sockets: [any StreamSocket]) async throws(BenchFault) {
        let scratch = Link.Scratch()
        producers = sockets.map { Producer(self, $0, scratch) }
        for producer in producers { producer.link.start(on: loop) }
        defer { for producer in producers { producer.link.close() } }
        try await conclusion.wait()
    }

    fileprivate func takeFrame() -> Frame {
        outstanding += 1
        let frame = frames[nextPartition]
        nextPartition = nextPartition + 1 == frames.count ? 0 : nextPartition + 1
        return frame
    }

    fileprivate func answered(_ sent: Instant) throws(BenchFault) {
        outstanding -= 1
        try meter.finished(sent: sent, records: batch.records, bytes: batch.uncompressedBytes)
        if meter.isOver, outstanding == 0 { conclusion.conclude(.success(())) }
    }
}

private final class Producer: Speaker {
    private struct InFlight {
        var correlationID: Int32
        var sent: Instant
    }

    private unowned let load: ProduceLoad
    private(set) var link: Link!
    private var answers = AnswerFrames()
    private var inFlight = RingQueue<InFlight>()

    init(_ load: ProduceLoad, _ socket: any StreamSocket, _ scratch: Link.Scratch) {
        self.load = load
        link = Link(socket, scratch: scratch, speaker: self)
    }

    func nextRequest() -> Frame? {
        guard inFlight.count < load.depth, !load.meter.isOver else { return nil }
        let frame = load.takeFrame()
        inFlight.append(InFlight(correlationID: frame.correlationID, sent: load.meter.clock.now))
        return frame
    }

    func received(_ bytes: UnsafeRawBufferPointer) throws(BenchFault) {
        try answers.take(bytes) { (answer) throws(BenchFault) in
            guard let request = inFlight.popFirst() else { throw BenchFault("an answer came to no request") }
            try ProduceAnswer.check(answer, correlationID: request.correlationID)
            try load.answered(request.sent)
        }
    }

    func failed(_ fault: BenchFault) { load.conclusion.conclude(.failure(fault)) }
}

enum ProduceAnswer {
    /// Looks at the error codes alone: decoding the whole answer would cost more than a light server's work.
    static func check(_ answer: UnsafeRawBufferPointer, correlationID: Int32) throws(BenchFault) {
        let complaint: String?
        do throws(DecodingFault) { complaint = try self.complaint(answer, correlationID) } catch {
            throw BenchFault("a produce answer cannot be read: \(error)")
        }
        if let complaint { throw BenchFault(complaint) }
    }

    private static func complaint(
        _ answer: UnsafeRawBufferPointer, _ correlationID: Int32
    ) throws(DecodingFault) -> String? {
        var reader = ByteReader(answer)
        guard try reader.int32() == correlationID else { return "answers come out of order" }
        try reader.skipTaggedFields()
        guard try reader.uvarint() == 2 else { return "a produce answer is not about one topic" }
        _ = try reader.stringRange(flexible: true)
        guard try reader.uvarint() == 2 else { return "a produce answer is not about one partition" }
        let partition = try reader.int32()
        let code = ErrorCode(rawValue: try reader.int16())
        return code == .none ? nil : "Produce to partition \(partition) was answered with \(code)"
    }
}
