import MartletBasics
package import MartletChecker
import MartletModel
import MartletSimulation
import MartletWire

/// What clients of one run asked, were told and saw, in its order. All of it lives on the world's thread.
package final class Recorder: @unchecked Sendable {
    /// A run that finds so much wrong has said enough.
    private static let brokenLimit = 20

    private let world: SimulatedWorld
    package private(set) var events: [HistoryEvent] = []
    /// By API, how many requests were answered.
    package private(set) var answered: [Int16: Int] = [:]
    /// How often each fault fell.
    package private(set) var faults: [FaultKind: Int] = [:]
    package private(set) var acknowledgedCount = 0
    package private(set) var seenCount = 0
    /// Told of each event as it comes.
    var onEvent: ((HistoryEvent) -> Void)?
    private var operationsCount = 0
    private var producersCount: Int32 = 0
    private var brokenCount = 0
    /// The greatest high watermark that anybody was told.
    private(set) var highWatermarks: [Place: Int64] = [:]
    /// What the broker says that it serves.
    package private(set) var advertised: [Int16] = []
    /// How often a reader was refused what had been damaged.
    package var damageDetectedCount = 0
    private(set) var damaged: Set<Place> = []
    /// How often a reader found that records of a compacted topic were gone.
    package var gapsCount = 0
    /// By how they ended, as far as their producers were told.
    package private(set) var transactionsCount = (committed: 0, aborted: 0)

    /// Batches of producers that must have them acknowledged at last.
    package internal(set) var acknowledgedBatchesCount = 0
    /// Batches with sequences that were sent again to the broker's same life, and acknowledged: and those of them that were
    /// in the log already, as somebody had been told.
    package private(set) var resendsCount = (all: 0, written: 0)

    init(_ world: SimulatedWorld) { self.world = world }

    package var now: Int64 { world.now.nanoseconds }
    /// How many requests clients had answered.
    package var answersCount: Int { answered.values.reduce(0, +) }

    package func note(_ kind: HistoryEvent.Kind) {
        let event = HistoryEvent(now, kind)
        events.append(event)
        onEvent?(event)
        switch kind {
        case .saw(let part):
            seenCount += part.records.count
            highWatermarks[part.place] = max(highWatermarks[part.place] ?? 0, part.highWatermark ?? 0)
        case .damaged(let place): damaged.insert(place)
        case .told(_, .accepted): acknowledgedCount += 1
        default: break
        }
    }

    package func broken(_ sentence: String) {
        brokenCount += 1
        if brokenCount <= Self.brokenLimit { note(.broken(sentence)) }
    }

    func fell(_ fault: FaultKind) {
        faults[fault, default: 0] += 1
        note(.note("fault: \(fault.rawValue)"))
    }

    package func operation() -> Int {
        operationsCount += 1
        return operationsCount
    }

    func transactionEnded(commits: Bool) {
        if commits { transactionsCount.committed += 1 } else { transactionsCount.aborted += 1 }
    }

    func resendAnswered(wasWritten: Bool) {
        resendsCount.all += 1
        if wasWritten { resendsCount.written += 1 }
    }

    func addProducer() -> Int32 {
        producersCount += 1
        return producersCount - 1
    }

    func answered(_ api: Int16) { answered[api, default: 0] += 1 }

    func advertises(_ apis: [Int16]) { if advertised.isEmpty { advertised = apis.sorted() } }

    /// Every line of the history but notes, folded into one number: two runs of a seed must agree.
    package var digest: UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for event in events {
            if case .note = event.kind { continue }
            for byte in event.line.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        }
        return hash
    }
}

/// The broker's own log, among what clients saw.
final class LogNotes: LogSink, @unchecked Sendable {
    private let record: Recorder

    init(_ record: Recorder) { self.record = record }

    func wants(_ level: LogLevel, _: StaticString) -> Bool { level > .debug }

    func write(_ level: LogLevel, _ subsystem: StaticString, _ message: String, _ fields: [(String, String)]) {
        let told = fields.map { " \($0.0)=\($0.1)" }.joined()
        record.note(.note("\(level) \(subsystem): \(message)\(told)"))
    }
}

/// One record, by who sent it and its place in what that one sent. No record is like another.
struct RecordName: Hashable {
    var producer: Int32
    var number: Int32

    /// As histories call it.
    var text: String { "\(producer):\(number)" }

    /// The name, and bytes that follow from it, so that what comes back can be compared to the last byte.
    var value: [UInt8] {
        var value = ByteBuffer(capacity: 256)
        value.int32(producer)
        value.int32(number)
        var random = SeededRandom(seed: UInt64(producer) << 32 | UInt64(number))
        let words = random.below(12)
        for _ in 0..<words { value.int64(Int64(random.below(1 << 20))) }
        return value.array
    }

    /// Nil for a value that no producer has sent.
    init?(_ value: UnsafeRawBufferPointer) {
        guard value.count >= 8 else { return nil }
        producer = Int32(bigEndian: value.loadUnaligned(as: Int32.self))
        number = Int32(bigEndian: value.loadUnaligned(fromByteOffset: 4, as: Int32.self))
        guard producer >= 0, number >= 0, self.value.elementsEqual(value) else { return nil }
    }

    init(producer: Int32, number: Int32) {
        self.producer = producer
        self.number = number
    }
}
