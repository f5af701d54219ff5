package import MartletBasics
package import MartletModel
import Synchronization

/// What those who share a bound have used of it.
package final class QuotaMeter: @unchecked Sendable {
    package struct Key: Hashable, Sendable {
        package var kind: QuotaKind
        package var user: String?
        package var client: String?

        fileprivate var order: [String] { [client ?? "", user ?? "", kind.rawValue] }
    }

    package let key: Key
    package let windows: RateWindows
    /// Connections that hold it. Guarded by the lock of `QuotaMeters`.
    fileprivate var users = 0
    fileprivate var releasedAt = Instant(nanoseconds: 0)
    private let lock = Lock()
    // guarded by the lock: changes of partitions are rare
    private var bucket: MutationBucket
    /// Until when somebody was last told to wait, and from when on, for those who ask why.
    private let throttledAt = Atomic<Int64>(.min)
    private let throttledUntil = Atomic<Int64>(.min)

    fileprivate init(_ key: Key, bound: Double, _ shapes: QuotaMeters.Shapes, loops: Int, now: Instant) {
        self.key = key
        windows = RateWindows(shapes.requests, loops: key.kind == .mutations ? 0 : loops)
        bucket = MutationBucket(shapes.mutations, bound: bound, now: now)
    }

    func withBucket<R>(_ body: (inout MutationBucket) -> R) -> R { lock.withLock { body(&bucket) } }

    func noteThrottle(_ span: Interval, now: Instant) {
        throttledAt.store(now.nanoseconds, ordering: .relaxed)
        let end = now.nanoseconds.addingReportingOverflow(span.nanoseconds)
        throttledUntil.store(end.overflow ? .max : end.partialValue, ordering: .relaxed)
    }

    /// How long somebody still waits because of it; nil where nobody does.
    package func throttle(now: Instant) -> (since: Instant, left: Interval)? {
        let end = throttledUntil.load(ordering: .relaxed)
        guard end > now.nanoseconds else { return nil }
        let since = Instant(nanoseconds: throttledAt.load(ordering: .relaxed))
        return (since, Interval(nanoseconds: end - now.nanoseconds))
    }
}

/// A bound, and what was used of it.
package struct MeteredBound: Sendable {
    package var value: Double
    package var meter: QuotaMeter
}

/// The bounds that count for the requests of one user and client id.
///
/// Held by a connection until its client names another id, or quotas change.
package final class ClientLimits: Sendable {
    package let produce: MeteredBound?
    package let fetch: MeteredBound?
    package let requestTime: MeteredBound?
    package let mutations: MeteredBound?
    /// What they were found in.
    let quotas: ClientQuotas
    let clientID: [UInt8]

    fileprivate init(_ quotas: ClientQuotas, clientID: [UInt8], _ find: (QuotaKind) -> MeteredBound?) {
        self.quotas = quotas
        self.clientID = clientID
        produce = find(.producerBytes)
        fetch = find(.consumerBytes)
        requestTime = find(.requestTime)
        mutations = find(.mutations)
    }

    fileprivate var meters: [QuotaMeter] { [produce, fetch, requestTime, mutations].compactMap { $0?.meter } }
}

/// The meters of all who have a bound: one for those who share it, whatever connections they come by and however
/// the bound is altered meanwhile.
package final class QuotaMeters: @unchecked Sendable {
    package struct Shapes: Sendable {
        package var requests: RateShape
        package var mutations: RateShape

        package init(requests: RateShape, mutations: RateShape) { (self.requests, self.mutations) = (requests, mutations) }
    }

    /// Meters that no connection holds are kept for a while, for a client that comes again at once has not become
    /// another; no more than these.
    package static let unusedLimit = 4096

    package let shapes: Shapes
    private let loops: Int
    private let lock = Lock()
    // guarded by the lock:
    private var byKey: [QuotaMeter.Key: QuotaMeter] = [:]
    /// Those that no connection holds, in the order in which they were let go; some are held again.
    private var unused = RingQueue<(meter: QuotaMeter, since: Instant)>()

    package init(_ shapes: Shapes, loops: Int) {
        self.shapes = shapes
        self.loops = loops
    }

    package var count: Int { lock.withLock { byKey.count } }

    /// The bounds for a user and a client, held until they are released.
    package func hold(_ quotas: ClientQuotas, user: String, clientID: [UInt8], now: Instant) -> ClientLimits {
        let client = String(decoding: clientID, as: UTF8.self)
        return lock.withLock {
            forgetUnused(now)
            return ClientLimits(quotas, clientID: clientID) { kind in
                guard let bound = quotas.bound(kind, user: user, client: client) else { return nil }
                let key = QuotaMeter.Key(kind: kind, user: bound.user, client: bound.client)
                let meter = byKey[key] ?? QuotaMeter(key, bound: bound.value, shapes, loops: loops, now: now)
                byKey[key] = meter
                meter.users += 1
                return MeteredBound(value: bound.value, meter: meter)
            }
        }
    }

    package func release(_ limits: ClientLimits, now: Instant) {
        lock.withLock {
            for meter in limits.meters {
                meter.users -= 1
                meter.releasedAt = now
                if meter.users == 0 { unused.append((meter, now)) }
            }
            forgetUnused(now)
        }
    }

    /// Who comes after all windows are over begins anew in any case.
    private func forgetUnused(_ now: Instant) {
        let span = max(shapes.requests.span.nanoseconds, shapes.mutations.span.nanoseconds)
        while let first = unused.first {
            guard unused.count > Self.unusedLimit || (now - first.since).nanoseconds > 2 * span else { return }
            unused.popFirst()
            // it may have been held and let go again
            let meter = first.meter
            if meter.users == 0, meter.releasedAt == first.since, byKey[meter.key] === meter { byKey[meter.key] = nil }
        }
    }

    /// Those because of which somebody waits now: by client, user and kind.
    package func throttled(now: Instant) -> [QuotaMeter] {
        lock.withLock { byKey.values.filter { $0.throttle(now: now) != nil } }.sorted { a, b in
            a.key.order.lexicographicallyPrecedes(b.key.order)
        }
    }
}
