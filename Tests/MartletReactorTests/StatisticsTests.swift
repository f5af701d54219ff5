import Glibc
import MartletBasics
import MartletReactor
import Testing

@Suite(.timeLimit(.minutes(1))) struct StatisticsOfTheMachine {
    @Test func aTurnIsAsLongAsItsWorkAndWaitingIsNone() async throws {
        try await withHost { host in
            let loop = host.loops[0]
            await loop.sleep(for: .milliseconds(60))
            let before = await loop.run { loop.turnStatistics }
            #expect(before.turns.total > 0)
            await loop.sleep(for: .milliseconds(200))
            let waited = await loop.run { loop.turnStatistics }
            #expect(waited.turns.sum - before.turns.sum < 100_000_000, "waiting counts as work")
            _ = await loop.run {
                let end = loop.clock.now + .milliseconds(120)
                while loop.clock.now < end {}
                return 0
            }
            let worked = await loop.run { loop.turnStatistics }
            #expect(worked.turns.sum - waited.turns.sum >= 120_000_000)
            #expect(worked.longest >= .milliseconds(120))
            #expect(worked.turns.total > waited.turns.total)
        }
    }

    @Test func theProcessKnowsWhatItHasOfTheMachine() async throws {
        try await withHost { host in
            let before = host.processUsage()
            #expect(before.residentBytes! > 1 << 20 && before.virtualBytes! >= before.residentBytes!)
            #expect(before.anonymousBytes! > 0 && before.anonymousBytes! <= before.residentBytes!)
            #expect(before.processorTime! > .zero)
            let files = try (0..<20).map { _ in try host.disk.open("/dev/null", .read) }
            let bytes = UnsafeMutableRawPointer.allocate(byteCount: 32 << 20, alignment: 4096)
            memset(bytes, 1, 32 << 20)
            let after = host.processUsage()
            // other tests open and close files meanwhile
            #expect(after.openDescriptors! >= 20)
            #expect(after.openDescriptors! <= after.descriptorLimit!)
            #expect(after.anonymousBytes! > before.anonymousBytes! + (16 << 20))
            bytes.deallocate()
            for file in files { file.close() }
        }
    }

    @Test func theLanesOfAHostAreKnownInTheirOrder() async throws {
        try await withHost { host in
            for name in ["one", "other", "one"] { _ = host.makeLane(name, threads: 1, limit: 1) }
            #expect(host.lanes.map(\.name) == ["one", "other", "one"])
        }
    }
}
