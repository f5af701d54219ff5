import MartletBasics
import MartletModel
import MartletReactor
import MartletWire

/// What a connection is held to. Where nobody has a quota, none of this is reached.
///
/// An answer goes out at once and says for how long nothing more will be read; clients that understand it wait by
/// themselves, all others find that the connection takes nothing.
extension Connection {
    /// The longest that an answer can tell.
    private static let waitMost = Interval.milliseconds(Int64(Int32.max))

    /// Finds what counts for the request of this header.
    func findLimits(_ header: FrameHeader, _ frame: UnsafeMutableRawBufferPointer) {
        guard let quotas = shared.quotas else { return letGoOfLimits() }
        let id = header.clientID.map { UnsafeRawBufferPointer(rebasing: frame[$0.offset..<$0.end]) }
        if let limits, limits.quotas === quotas, limits.clientID.elementsEqual(id ?? .init(start: nil, count: 0)) { return }
        let now = broker.clock.now
        let found = broker.quotaMeters.hold(quotas, user: principal.name, clientID: id.map(Array.init) ?? [], now: now)
        letGoOfLimits()
        limits = found
    }

    func letGoOfLimits() {
        guard let held = limits else { return }
        broker.quotaMeters.release(held, now: broker.clock.now)
        limits = nil
    }

    // MARK: Produce

    /// Counts a produce request; how many milliseconds the client is to wait.
    func throttleProduce(bytes: Int) -> Int32 {
        if let bound = limits?.produce {
            let now = broker.clock.now
            bound.meter.windows.record(Int64(bytes), loop: shared.index, now: now)
            owe(bound.meter.windows.throttle(adding: 0, bound: bound.value, now: now), bound.meter)
        }
        return settleWait()
    }

    // MARK: Fetch

    /// The most that an answer may carry without being beyond the quota by itself; nil for any size.
    var fetchShare: Int? {
        guard let bound = limits?.fetch else { return nil }
        return Int(max(min(bound.value * Double(bound.meter.windows.shape.span.nanoseconds) / 1e9, 0x1p40), 1))
    }

    /// How many milliseconds the client is to wait and gets nothing; 0 where it may have so much. A batch that is larger than
    /// its share for all windows is handed out when nothing else was: else it would never be read. So nobody waits for
    /// longer than they last.
    func throttleFetch(bytes: Int) -> Int32 {
        if let bound = limits?.fetch {
            owe(bound.meter.windows.waitFor(Int64(bytes), bound: bound.value, now: broker.clock.now), bound.meter)
        }
        return settleWait()
    }

    /// Counts an answer that has records, or could have.
    func countFetched(bytes: Int) {
        limits?.fetch?.meter.windows.record(Int64(bytes), loop: shared.index, now: broker.clock.now)
    }

    // MARK: Time

    /// Counts the time that a part of a request took on this loop.
    func countRequestTime(since began: Instant) {
        guard let bound = limits?.requestTime else { return }
        let now = broker.clock.now
        bound.meter.windows.record((now - began).nanoseconds, loop: shared.index, now: now)
    }

    /// At most a window, as with Kafka.
    private func oweTime(_ bound: MeteredBound) {
        let now = broker.clock.now, windows = bound.meter.windows
        let spent = isHandling ? (now - lastActive).nanoseconds : 0
        // the bound is in hundredths of a processor
        owe(min(windows.throttle(adding: spent, bound: bound.value * 1e7, now: now), windows.shape.size), bound.meter)
    }

    // MARK: Waiting

    func owe(_ span: Interval, _ meter: QuotaMeter) {
        guard span > owedWait?.span ?? .zero else { return }
        owedWait = (span, meter)
    }

    /// The answer is about to be written: how many milliseconds it tells the client to wait. Nothing is read for as long.
    func settleWait() -> Int32 {
        guard let limits else { return 0 }
        if let bound = limits.requestTime { oweTime(bound) }
        guard let owed = owedWait else { return 0 }
        owedWait = nil
        let milliseconds = (min(owed.span, Self.waitMost).nanoseconds + 999_999) / 1_000_000
        let span = Interval.milliseconds(milliseconds)
        owed.meter.noteThrottle(span, now: broker.clock.now)
        shared.throttled(owed.meter.key.kind, span)
        mute(for: span)
        return Int32(clamping: milliseconds)
    }
}

/// How many partitions a client may still create and delete. What is beyond its quota is refused where the client knows the
/// error, and else done, and the client made to wait.
struct MutationQuota: Sendable {
    static let message = "The throttling quota has been exceeded."

    private let bound: MeteredBound?
    private let isStrict: Bool
    private let clock: any Clock

    fileprivate init(_ bound: MeteredBound?, isStrict: Bool, _ clock: any Clock) {
        self.bound = bound
        self.isStrict = isStrict
        self.clock = clock
    }

    var isExceeded: Bool { isStrict && debt > .zero }

    fileprivate var debt: Interval {
        guard let bound else { return .zero }
        return bound.meter.withBucket { $0.debt(bound: bound.value, now: clock.now) }
    }

    func charge(_ partitions: Int) {
        guard let bound, partitions > 0 else { return }
        bound.meter.withBucket { $0.take(partitions, bound: bound.value, now: clock.now) }
    }

    fileprivate func owe(_ connection: Connection) {
        if let bound { connection.owe(debt, bound.meter) }
    }
}

extension Request {
    /// From which version on a client knows that a change was refused because of its quota.
    func mutationQuota(strictFrom version: Int16) -> MutationQuota {
        MutationQuota(connection.limits?.mutations, isStrict: self.version >= version, broker.clock)
    }
}

extension Responder {
    /// Answers, and makes the client wait for as long as it is beyond its quota.
    func answer<R: WireResponse>(_ response: R, within quota: MutationQuota) {
        quota.owe(connection)
        answer(response)
    }
}
