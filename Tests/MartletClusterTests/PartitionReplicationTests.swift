import MartletBasics
import MartletSimulation
import Testing

#if canImport(Glibc)
import Glibc
#endif

private func number(_ name: String, _ normally: UInt64) -> UInt64 {
    getenv(name).flatMap { UInt64(String(cString: $0)) } ?? normally
}

/// Replay of a failing seed: `MARTLET_SEED_BASE=<seed> MARTLET_SEED_COUNT=1 swift test --filter TwoReplicas`.
@Suite struct TwoReplicas {
    @Test func keepWhatWasAcknowledgedThroughCrashesElectionsAndPowerCuts() {
        let base = number("MARTLET_SEED_BASE", 1)
        var (elections, crashes, acknowledged, committed) = (0, 0, 0, 0)
        let count = number("MARTLET_SEED_COUNT", 500)
        for seed in base..<(base + count) {
            let pair = ReplicaPair(seed: seed)
            defer { pair.world.end() }
            pair.run()
            elections += pair.elections
            crashes += pair.crashes
            acknowledged += pair.acknowledged.count
            committed += pair.committed.count
            guard let fault = pair.faults.first else { continue }
            Issue.record(
                "seed \(seed): \(fault) (MARTLET_SEED_BASE=\(seed) MARTLET_SEED_COUNT=1 swift test --filter TwoReplicas)")
            if count == 1 { print(pair.story.joined(separator: "\n")) }
            if count == 1 {
                for broker in pair.brokers {
                    print("broker \(broker.id)", broker.lines.all.joined(separator: "\n"), separator: "\n")
                }
            }
            return
        }
        print(
            "\(count) seeds: \(elections) elections, \(crashes) crashes, \(committed) batches committed, \(acknowledged) records acknowledged"
        )
        // a world in which nothing happens proves nothing
        #expect(elections > Int(count) && crashes > Int(count) && acknowledged > Int(count) * 10)
    }

    @Test func liveThroughTheSameHistoryFromTheSameSeed() {
        for seed in 1...20 as ClosedRange<UInt64> {
            let histories = (0..<2).map { _ in
                let pair = ReplicaPair(seed: seed)
                defer { pair.world.end() }
                pair.run()
                return (pair.world.history, pair.acknowledged.map(\.value))
            }
            #expect(histories[0] == histories[1], "seed \(seed)")
        }
    }
}
