import CMartlet
package import MartletBasics

/// The machine's clocks. `now` is CLOCK_MONOTONIC as it is, which is also what libuv counts by.
package final class RealClock: Clock {
    package init() {}
    package var now: Instant { Instant(nanoseconds: martlet_monotonic_nanoseconds()) }
    package var wallMilliseconds: Int64 { martlet_wall_milliseconds() }
}
