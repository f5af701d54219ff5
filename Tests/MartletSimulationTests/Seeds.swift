import Glibc

/// `MARTLET_SEED_BASE` and `MARTLET_SEED_COUNT` choose other seeds than those of every day.
enum Seeds {
    private static let everyDay: Range<UInt64> = 0..<300
    private static let atOnce: UInt64 = 20
    /// Every so manyth seed is told twice.
    static let toldTwice: UInt64 = 5

    static let chosen: Range<UInt64> = {
        guard let base = number("MARTLET_SEED_BASE") else { return everyDay }
        return base..<base + (number("MARTLET_SEED_COUNT") ?? UInt64(everyDay.count))
    }()

    /// First seeds of a few each: the test runner takes a while over every argument.
    static let starts: [UInt64] = Array(stride(from: chosen.lowerBound, to: chosen.upperBound, by: Int(atOnce)))

    static func group(_ start: UInt64) -> Range<UInt64> { start..<min(start + atOnce, chosen.upperBound) }

    private static func number(_ name: String) -> UInt64? { getenv(name).flatMap { UInt64(String(cString: $0)) } }

    /// How one seed of a suite is seen again.
    static func again(_ seed: UInt64, _ suite: String) -> String {
        "MARTLET_SEED_BASE=\(seed) MARTLET_SEED_COUNT=1 python3 Tests/run.py swift --filter \(suite)"
    }
}
