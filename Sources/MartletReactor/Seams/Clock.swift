package import MartletBasics

/// The seam of time. Nothing outside the reactor and the simulation reads a clock of its own.
package protocol Clock: AnyObject, Sendable {
    /// The monotonic clock.
    var now: Instant { get }
    /// Milliseconds since 1970, as records and the coordination tree carry them; may jump in both directions.
    var wallMilliseconds: Int64 { get }
}
