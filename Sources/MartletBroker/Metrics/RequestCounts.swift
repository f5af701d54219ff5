import MartletBasics
import MartletModel
import MartletWire

/// What the requests of one loop's connections came to. Plain numbers, confined to the loop: a request costs a few
/// additions, and whoever wants to know takes a copy there.
///
/// The time of an answer is taken once a turn, when all answers of the turn have gone to their sockets.
struct RequestCounts: Sendable {
    /// Keys of APIs beyond this are nobody's.
    static let apiLimit = 128
    /// Error codes beyond this share the last counter; -1 is the first.
    private static let errorLimit = 160

    struct Api: Sendable {
        var requests: UInt64 = 0
        var requestBytes = Histogram(.bytes)
        var responseBytes = Histogram(.bytes)
        /// From when the request was there as a whole to when its answer had gone to the socket, or into its queue.
        var latency = Histogram(.latency)
        /// By code, from -1 on; empty until there is one.
        var errors: [UInt64] = []

        mutating func add(_ other: Api) {
            requests &+= other.requests
            requestBytes.add(other.requestBytes)
            responseBytes.add(other.responseBytes)
            latency.add(other.latency)
            if errors.isEmpty { return errors = other.errors }
            for code in other.errors.indices { errors[code] &+= other.errors[code] }
        }
    }

    private struct Answered {
        var key: Int16
        var began: Instant
    }

    /// How often clients were told to wait, and how long in all.
    struct Throttles: Sendable {
        var count: UInt64 = 0
        var span = Interval.zero

        mutating func add(_ other: Throttles) {
            count &+= other.count
            span = span + other.span
        }
    }

    private var throttles = [Throttles](repeating: Throttles(), count: QuotaKind.allCases.count)

    mutating func throttled(_ kind: QuotaKind, _ span: Interval) {
        throttles[QuotaKind.allCases.firstIndex(of: kind)!].add(Throttles(count: 1, span: span))
    }

    /// By kind of quota, whatever kinds came.
    var throttlesByKind: [(kind: QuotaKind, throttles: Throttles)] { Array(zip(QuotaKind.allCases, throttles)) }

    /// By key; nil where none came.
    private var apis = ContiguousArray<Api?>(repeating: nil, count: apiLimit)
    private var answered: ContiguousArray<Answered> = []
    /// Bytes of answers that wait in the outboxes of connections whose peers read too slowly.
    var outboxBytes = 0

    var hasAnswered: Bool { !answered.isEmpty }

    mutating func began(_ key: Int16, bytes: Int) {
        guard key >= 0, key < Self.apiLimit else { return }
        if apis[Int(key)] == nil { apis[Int(key)] = Api() }
        apis[Int(key)]!.requests &+= 1
        apis[Int(key)]!.requestBytes.record(UInt64(bytes))
    }

    /// An answer of so many bytes is complete, nil where none is sent. Every `answered` has its `began`.
    mutating func answered(_ key: Int16, bytes: Int?, began: Instant) {
        guard key >= 0, key < Self.apiLimit, apis[Int(key)] != nil else { return }
        if let bytes { apis[Int(key)]!.responseBytes.record(UInt64(bytes)) }
        answered.append(Answered(key: key, began: began))
    }

    mutating func failed(_ key: Int16, _ error: ErrorCode) {
        guard key >= 0, key < Self.apiLimit, apis[Int(key)] != nil else { return }
        if apis[Int(key)]!.errors.isEmpty { apis[Int(key)]!.errors = [UInt64](repeating: 0, count: Self.errorLimit) }
        apis[Int(key)]!.errors[min(max(Int(error.rawValue) + 1, 0), Self.errorLimit - 1)] &+= 1
    }

    /// The turn has ended: its answers took until now.
    mutating func endTurn(now: Instant) {
        for one in answered { apis[Int(one.key)]!.latency.record(now - one.began) }
        answered.removeAll(keepingCapacity: true)
    }

    mutating func add(_ other: RequestCounts) {
        for key in 0..<Self.apiLimit {
            guard let counted = other.apis[key] else { continue }
            if apis[key] == nil { apis[key] = counted } else { apis[key]!.add(counted) }
        }
        for kind in throttles.indices { throttles[kind].add(other.throttles[kind]) }
        outboxBytes += other.outboxBytes
    }

    /// Those of which requests came, by rising key.
    var byApi: [(name: String, counts: Api)] {
        (0..<Self.apiLimit).compactMap { key in
            apis[key].map { (ApiKey(rawValue: Int16(key))?.name ?? "\(key)", $0) }
        }
    }

    /// The name of the error that is counted at this place.
    static func errorName(_ place: Int) -> String { ErrorCode(rawValue: Int16(place - 1)).description }
}
