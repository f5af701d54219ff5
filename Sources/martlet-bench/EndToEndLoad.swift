import MartletBasics
import MartletModel
import MartletReactor
import MartletWire

/// One producer that sends a record at a time at a steady rate, whatever was answered, and one consumer that waits for
/// them. The latency of a record is from when it was handed to the connection to when the consumer has it.
final class EndToEndLoad {
    /// The loop's timers are precise to a millisecond: no delay is the next one. What falls due between two is sent
    /// together.
    private static let tick = Interval.zero
    /// Records that were sent and did not arrive: beyond it the server does not keep up.
    private static let outstandingLimit = 20_000
    /// How long the last records may be on their way.
    private static let arrivalLimit = Interval.seconds(10)

    fileprivate let topic: String
    fileprivate let meter: Meter
    fileprivate let conclusion: Conclusion
    fileprivate let source = RecordSource()
    fileprivate let recordBytes: Int
    private let recordsPerSecond: Int
    private let sending: Interval
    private let loop: any EventLoop
    private let begin: Instant
    private var producer: SteadyProducer!
    private var consumer: WaitingConsumer!
    private var sent = 0
    private var arrived = 0
    private var isSending = true

    init(
        _ shape: Case.EndToEnd, extent: Extent, topic: String, meter: Meter, conclusion: Conclusion,
        loop: any EventLoop
    ) {
        self.topic = topic
        self.meter = meter
        self.conclusion = conclusion
        self.loop = loop
        recordBytes = shape.recordBytes
        recordsPerSecond = shape.recordsPerSecond
        sending = .milliseconds(extent.warmUpMilliseconds + extent.milliseconds)
        begin = loop.clock.now
    }

    func run(producing: any StreamSocket, consuming: any StreamSocket) async throws(BenchFault) {
        let scratch = Link.Scratch()
        producer = SteadyProducer(self, producing, scratch)
        consumer = WaitingConsumer(self, consuming, scratch)
        consumer.link.start(on: loop)
        producer.link.start(on: loop)
        loop.schedule(after: Self.tick) { [weak self] in self?.sendWhatIsDue() }
        defer {
            producer.link.close()
            consumer.link.close()
        }
        try await conclusion.wait()
    }

    private func sendWhatIsDue() {
        guard !conclusion.isReached else { return }
        let elapsed = loop.clock.now - begin
        guard elapsed < sending else {
            isSending = false
            loop.schedule(after: Self.arrivalLimit) { [weak self] in self?.giveUp() }
            return concludeIfAllArrived()
        }
        let due = Int(elapsed.nanoseconds) * recordsPerSecond / 1_000_000_000
        guard due - arrived <= Self.outstandingLimit else {
            let fault = BenchFault("the server does not keep up: \(due - arrived) records are on their way")
            return conclusion.conclude(.failure(fault))
        }
        producer.allowed += due - sent
        sent = due
        producer.link.pump()
        loop.schedule(after: Self.tick) { [weak self] in self?.sendWhatIsDue() }
    }

    fileprivate func arrived(mark: Int64, bytes: Int) throws(BenchFault) {
        arrived += 1
        try meter.finished(sent: Instant(nanoseconds: mark), records: 1, bytes: bytes)
        concludeIfAllArrived()
    }

    private func concludeIfAllArrived() {
        guard !isSending, arrived >= sent, !conclusion.isReached else { return }
        do throws(BenchFault) {
            guard arrived == sent else { throw BenchFault("\(arrived) records arrived of \(sent) that were sent") }
            try meter.finish()
            conclusion.conclude(.success(()))
        } catch {
            conclusion.conclude(.failure(error))
        }
    }

    private func giveUp() {
        conclusion.conclude(.failure(BenchFault("\(sent - arrived) of \(sent) records did not arrive")))
    }
}

private final class SteadyProducer: Speaker {
    private unowned let load: EndToEndLoad
    private(set) var link: Link!
    private var answers = AnswerFrames()
    /// Records that are due and were not yet handed to the connection.
    var allowed = 0

    init(_ load: EndToEndLoad, _ socket: any StreamSocket, _ scratch: Link.Scratch) {
        self.load = load
        link = Link(socket, scratch: scratch, speaker: self)
    }

    func nextRequest() throws(BenchFault) -> Frame? {
        guard allowed > 0 else { return nil }
        allowed -= 1
        let clock = load.meter.clock
        let batch = load.source.batch(
            marked: clock.now.nanoseconds, valueBytes: load.recordBytes, timestamp: clock.wallMilliseconds)
        return try Frame(producing: batch, to: load.topic, partition: 0, acks: -1, correlationID: 0)
    }

    func received(_ bytes: UnsafeRawBufferPointer) throws(BenchFault) {
        try answers.take(bytes) { (answer) throws(BenchFault) in try ProduceAnswer.check(answer, correlationID: 0) }
    }

    func failed(_ fault: BenchFault) { load.conclusion.conclude(.failure(fault)) }
}

private final class WaitingConsumer: Speaker {
    private static let fetchBytes: Int32 = 1 << 20
    private unowned let load: EndToEndLoad
    private(set) var link: Link!
    private var answers = AnswerFrames()
    private var next: Offset = 0
    private var isWaiting = false

    init(_ load: EndToEndLoad, _ socket: any StreamSocket, _ scratch: Link.Scratch) {
        self.load = load
        link = Link(socket, scratch: scratch, speaker: self)
    }

    func nextRequest() throws(BenchFault) -> Frame? {
        guard !isWaiting, !load.conclusion.isReached else { return nil }
        isWaiting = true
        return try Frame(fetching: load.topic, partition: 0, from: next, bytes: Self.fetchBytes, correlationID: 0)
    }

    func received(_ bytes: UnsafeRawBufferPointer) throws(BenchFault) {
        try answers.take(bytes) { (answer) throws(BenchFault) in
            isWaiting = false
            do { try take(answer) } catch let fault as BenchFault { throw fault } catch {
                throw BenchFault("a fetch answer cannot be read: \(error)")
            }
        }
    }

    private func take(_ answer: UnsafeRawBufferPointer) throws {
        var reader = ByteReader(answer)
        _ = try ResponseHeader.decode(from: &reader, version: 1)
        let response = try FetchResponse.decode(from: &reader, version: SpokenVersion.fetch)
        guard response.errorCode == .none, let partition = response.responses.first?.partitions.first else {
            throw BenchFault("Fetch was answered with \(response.errorCode)")
        }
        guard partition.errorCode == .none else { throw BenchFault("Fetch was answered with \(partition.errorCode)") }
        guard case .inFrame(let range)? = partition.records else { return }
        var walker = BatchWalker(reader.bytes(in: range), checkingChecksums: true)
        while case .batch(let position, let header) = walker.next() {
            next = header.nextOffset
            let batch = walker.batch(at: position, header)
            let records = UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...])
            var cursor = RecordCursor(records, count: header.recordCount)
            while let record = try cursor.next() {
                guard let value = cursor.bytes(in: record.value), value.count >= 8 else {
                    throw BenchFault("a record came back without its value")
                }
                try load.arrived(mark: Int64(bigEndian: value.loadUnaligned(as: Int64.self)), bytes: value.count)
            }
        }
    }

    func failed(_ fault: BenchFault) { load.conclusion.conclude(.failure(fault)) }
}
