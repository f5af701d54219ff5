/// A span of time in nanoseconds. Cheaper than `Swift.Duration`, whose arithmetic is 128 bits wide.
public struct Interval: Comparable, Hashable, Sendable {
    public var nanoseconds: Int64

    @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    @inlinable public static func nanoseconds(_ n: Int64) -> Interval { Interval(nanoseconds: n) }
    @inlinable public static func microseconds(_ n: Int64) -> Interval { Interval(nanoseconds: saturating(n, 1_000)) }
    @inlinable public static func milliseconds(_ n: Int64) -> Interval { Interval(nanoseconds: saturating(n, 1_000_000)) }
    @inlinable public static func seconds(_ n: Int64) -> Interval { Interval(nanoseconds: saturating(n, 1_000_000_000)) }
    public static let zero = Interval(nanoseconds: 0)

    @inlinable public var milliseconds: Int64 { nanoseconds / 1_000_000 }
    @inlinable public static func < (a: Interval, b: Interval) -> Bool { a.nanoseconds < b.nanoseconds }
    @inlinable public static func + (a: Interval, b: Interval) -> Interval { Interval(nanoseconds: a.nanoseconds + b.nanoseconds) }
    @inlinable public static func - (a: Interval, b: Interval) -> Interval { Interval(nanoseconds: a.nanoseconds - b.nanoseconds) }

    /// Kafka's settings go up to 2^63 - 1 milliseconds: such a span is as long as can be told.
    @usableFromInline static func saturating(_ n: Int64, _ unit: Int64) -> Int64 {
        let (product, overflow) = n.multipliedReportingOverflow(by: unit)
        return overflow ? (n < 0 ? .min / 4 : .max / 4) : max(min(product, .max / 4), .min / 4)
    }
}

/// A moment of the monotonic clock, in nanoseconds since some fixed moment of this process or simulated world.
public struct Instant: Comparable, Hashable, Sendable {
    public var nanoseconds: Int64

    @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    public static let distantFuture = Instant(nanoseconds: .max)

    @inlinable public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }
    @inlinable public static func + (a: Instant, b: Interval) -> Instant { Instant(nanoseconds: a.nanoseconds + b.nanoseconds) }
    @inlinable public static func - (a: Instant, b: Instant) -> Interval { Interval(nanoseconds: a.nanoseconds - b.nanoseconds) }
}
