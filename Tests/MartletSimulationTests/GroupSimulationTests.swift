import Glibc
import MartletBasics
import Testing

/// `MARTLET_SEED_BASE` and `MARTLET_SEED_COUNT` choose other seeds than those of every day.
private enum Seeds {
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
}

@Suite struct GroupSimulation {
    @Test(arguments: Seeds.starts) func groupsKeepTheirPromisesWhateverEndsMembersAndBrokers(from start: UInt64) throws {
        for seed in Seeds.group(start) {
            let (story, ledger) = try GroupWorld.tell(seed: seed)
            let again = "make simulate FROM=\(seed) SEEDS=1"
            #expect(ledger.violations.isEmpty, "seed \(seed), to see it again: \(again)")
            #expect(ledger.assignmentsCount > 0 && ledger.readCount > 0, "seed \(seed) tried nothing: \(again)")
            guard seed % Seeds.toldTwice == 0 || Seeds.chosen.count == 1 else { continue }
            let second = try GroupWorld.tell(seed: seed)
            #expect(second.story == story, "seed \(seed) told two stories: \(again)")
        }
    }
}
