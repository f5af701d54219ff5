import MartletBasics
import MartletBroker
import MartletModel
import Testing

/// The transactional ids of one partition without a broker: a clock that is turned by hand, a log that takes what it is given,
/// and partitions that take markers when they are told to.
struct TransactionWorld {
    var machine: TransactionMachine
    var now: Int64 = 0
    var wall: Int64 = 1_700_000_000_000
    var isFull = false
    private let told = Told()
    var replies: [UInt64: TransactionReply] { told.replies }
    /// What lies in the log, durable, as bytes: what is read back has been written.
    var log: [(key: [UInt8], value: [UInt8]?)] = []
    var underWay: [(number: UInt64, records: [TransactionRecord])] = []
    /// Ends whose markers are to be written.
    var endings: [EndingTransaction] = []
    var allocations: [UInt64] = []
    var nextProducerID: ProducerID = 1_000
    var syncsAtOnce = true
    var settings: TransactionSettings
    private var lastTicket: UInt64 = 0

    private final class Told {
        var replies: [UInt64: TransactionReply] = [:]
    }

    init(settings: TransactionSettings = TransactionSettings(), _ change: (inout TransactionSettings) -> Void = { _ in }) {
        var settings = settings
        change(&settings)
        self.settings = settings
        machine = TransactionMachine(settings: settings)
    }

    var moment: CoordinatorMoment {
        CoordinatorMoment(now: Instant(nanoseconds: now * 1_000_000), wallMilliseconds: wall, isFull: isFull)
    }

    mutating func handle(_ event: TransactionEvent) { carryOut(machine.handle(event, at: moment)) }

    private mutating func carryOut(_ actions: [TransactionAction]) {
        for action in actions {
            switch action {
            case .answer(let ticket, let reply):
                #expect(replies[ticket.number] == nil, "a request is answered once")
                told.replies[ticket.number] = reply
            case .append(let number, let records): underWay.append((number, records))
            case .appendInTransaction, .endTransaction: Issue.record("the coordinator's own log has no transactions")
            case .effect(.allocateProducerID(let number)): allocations.append(number)
            case .effect(.writeMarkers(let ending)): endings.append(ending)
            }
        }
        if syncsAtOnce {
            sync()
            allocate()
        }
    }

    /// All that is written becomes durable, or is refused.
    mutating func sync(failing error: ErrorCode? = nil) {
        while !underWay.isEmpty {
            let (number, records) = underWay.removeFirst()
            let first = Int64(log.count)
            if error == nil { log += records.map(Self.encoded) }
            handle(.written(number, error.map { .failure(CoordinatorFailure($0)) } ?? .success(first)))
        }
    }

    mutating func allocate() {
        while !allocations.isEmpty {
            let number = allocations.removeFirst()
            nextProducerID += 1
            handle(.allocated(number, nextProducerID))
        }
    }

    private static func encoded(_ record: TransactionRecord) -> (key: [UInt8], value: [UInt8]?) {
        var key = ByteBuffer()
        var value = ByteBuffer()
        let hasValue = try! record.encode(key: &key, value: &value)
        return (key.array, hasValue ? value.array : nil)
    }

    mutating func pass(_ milliseconds: Int64) {
        now += milliseconds
        wall += milliseconds
        handle(.timePassed)
    }

    /// As after a kill: what is durable is read, and nothing else is known.
    mutating func readAnew() {
        machine = TransactionMachine(settings: settings)
        (underWay, endings, allocations) = ([], [], [])
        for (offset, record) in log.enumerated() {
            let isKnown = record.key.withUnsafeBytes { key in
                func load(_ value: UnsafeRawBufferPointer?) -> Bool {
                    machine.load(
                        ReplayedRecord(offset: Int64(offset), key: key, value: value, isControl: false, transactionOf: nil))
                }
                guard let value = record.value else { return load(nil) }
                return value.withUnsafeBytes { load($0) }
            }
            #expect(isKnown, "what was written is read")
        }
        carryOut(machine.finishLoading(at: moment))
    }

    mutating func ask(_ event: (CoordinatorTicket) -> TransactionEvent) -> UInt64 {
        lastTicket += 1
        handle(event(CoordinatorTicket(number: lastTicket)))
        return lastTicket
    }

    // MARK: What producers say

    mutating func begin(_ id: String = "t", expected: ProducerIdentity? = nil, timeoutMs: Int32 = 60_000) -> TransactionReply? {
        let ticket = ask { .initialize(InitProducerEvent(id: id, timeoutMs: timeoutMs, expected: expected), $0) }
        return replies[ticket]
    }

    /// A producer that has its epoch.
    mutating func producer(_ id: String = "t", timeoutMs: Int32 = 60_000) -> ProducerIdentity {
        guard case .producer(let producer)? = begin(id, timeoutMs: timeoutMs) else {
            Issue.record("a producer begins: \(String(describing: begin(id)))")
            return ProducerIdentity(-1, -1)
        }
        return producer
    }

    mutating func add(
        _ producer: ProducerIdentity, _ partitions: [Int32] = [0], id: String = "t", version: Int16 = 0
    ) -> TransactionReply? {
        let ticket = ask {
            .addPartitions(
                AddPartitionsEvent(
                    id: id, producer: producer, partitions: partitions.map { TopicPartition("a", $0) }, version: version), $0)
        }
        return replies[ticket]
    }

    mutating func end(
        _ producer: ProducerIdentity, commits: Bool = true, id: String = "t", version: Int16 = 0
    ) -> TransactionReply? {
        let ticket = ask { .end(EndTransactionEvent(id: id, producer: producer, commits: commits, version: version), $0) }
        return replies[ticket]
    }

    /// All partitions take the markers that are due.
    mutating func deliverMarkers() {
        while !endings.isEmpty { handle(.markersWritten(endings.removeFirst())) }
    }

    func state(_ id: String = "t") -> TransactionState? { machine.describe(id)?.state }

    func verify(_ producer: ProducerIdentity, _ partition: Int32 = 0, id: String = "t") -> ErrorCode {
        machine.verify(id, producer, [TopicPartition("a", partition)])
    }
}
