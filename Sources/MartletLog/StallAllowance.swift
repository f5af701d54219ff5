package import MartletBasics

/// The time that slow work may take from a loop: a twentieth of all time, saved up to 40 ms. One long stall may overdraw
/// it, and the debt is worked off before the next.
package struct StallAllowance: Sendable {
    package static let share: Int64 = 20
    package static let most = Interval.milliseconds(40)

    private var left = Self.most
    private var reckoned: Instant?

    package init() {}

    /// `now` does not go back.
    package mutating func isLeft(at now: Instant) -> Bool {
        if let reckoned {
            left = min(left + Interval(nanoseconds: (now - reckoned).nanoseconds / Self.share), Self.most)
        }
        reckoned = now
        return left > .zero
    }

    package mutating func charge(_ taken: Interval) { left = left - taken }
}
