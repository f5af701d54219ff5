package import MartletBasics
package import MartletModel

/// Holds new connections to the rates that are set: those of the broker and of a listener by accepting later, that of an
/// address by letting it wait and closing it.
///
/// Confined to the loop that accepts.
package struct ConnectionRates {
    package enum Verdict: Equatable {
        case welcome
        /// It is taken after so long; until then nothing more is accepted on its listener.
        case later(Interval)
        /// Its address makes too many: it is closed after so long.
        case refused(Interval)
    }

    /// Addresses whose connections are counted; who comes beyond them is counted with all others beyond them.
    package static let addressesLimit = 4096
    /// "No limit", the default of the setting.
    private static let unbounded: Int32 = .max

    private let shape: RateShape
    private let all: RateWindows
    private var listeners: [String: RateWindows] = [:]
    private var addresses: [IPAddress?: RateWindows] = [:]
    private var sweptAt = Instant(nanoseconds: 0)

    package init(_ shape: RateShape) {
        self.shape = shape
        all = RateWindows(shape, loops: 1)
    }

    package var countedAddresses: Int { addresses.count }

    /// `limit` of the broker, `listenerLimit` of the listener; nil where it has none of its own.
    package mutating func judge(
        _ peer: String, listener: String, limit: Int32, listenerLimit: Int32?, _ quotas: ClientQuotas, now: Instant
    ) -> Verdict {
        if quotas.concernsAddresses, let wait = ofAddress(peer, quotas, now) { return .refused(wait) }
        var wait = Interval.zero
        if limit != Self.unbounded {
            all.record(1, loop: 0, now: now)
            wait = throttle(all, limit, now)
        }
        if let listenerLimit, listenerLimit != Self.unbounded {
            let windows = listeners[listener] ?? RateWindows(shape, loops: 1)
            listeners[listener] = windows
            windows.record(1, loop: 0, now: now)
            wait = max(wait, throttle(windows, listenerLimit, now))
        }
        return wait > .zero ? .later(wait) : .welcome
    }

    /// At most a window, as with Kafka: the next one is judged anew. A limit of none lets one come a window.
    private func throttle(_ windows: RateWindows, _ limit: Int32, _ now: Instant) -> Interval {
        guard limit > 0 else { return shape.size }
        return min(windows.throttle(adding: 0, bound: Double(limit), now: now), shape.size)
    }

    /// Nil where the address may; what is refused does not count.
    private mutating func ofAddress(_ peer: String, _ quotas: ClientQuotas, _ now: Instant) -> Interval? {
        let address = IPAddress(peer)
        guard let rate = quotas.connectionRate(of: address) else { return nil }
        sweep(now)
        let isKnown = addresses[address] != nil || addresses.count < Self.addressesLimit
        let key = isKnown ? address : nil
        let windows = addresses[key] ?? RateWindows(shape, loops: 1)
        addresses[key] = windows
        let wait = min(windows.throttle(adding: 1, bound: rate, now: now), shape.size)
        if wait > .zero { return wait }
        windows.record(1, loop: 0, now: now)
        return nil
    }

    /// Forgets addresses that have not come for as long as counts.
    private mutating func sweep(_ now: Instant) {
        guard now - sweptAt > shape.span else { return }
        sweptAt = now
        addresses = addresses.filter { $0.value.total(now: now).amount > 0 }
    }
}
