import Glibc
import MartletBasics
import MartletChecker
import MartletReactor
import MartletSwarm
import Testing

/// Worlds in which one or two things fail, and at last the power: many of them in little time.
@Suite struct ShortWorlds {
    /// Side by side, so that all hundred take no longer than one half.
    private static let halves: [ClosedRange<UInt64>] = [1001...1050, 1051...1100]
    private static let span = Interval.seconds(3)
    #if DEBUG
        // a build that is not optimized says nothing of speed
        private static let secondsLimit = 1_000.0
    #else
        private static let secondsLimit = 15.0
    #endif

    /// A world runs in one thread.
    private var processorSeconds: Double {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    @Test(arguments: halves) func tellTheSameTwiceAndKeepWhatWasAcknowledged(seeds: ClosedRange<UInt64>) throws {
        var (acknowledged, seen, lives) = (0, 0, 0)
        let began = processorSeconds
        for seed in seeds {
            let first = try SwarmWorld.run(seed: seed, span: Self.span)
            let second = try SwarmWorld.run(seed: seed, span: Self.span)
            #expect(first.verdicts.isEmpty, "seed \(seed): \(first.verdicts)")
            #expect(first.history == second.history && first.told == second.told, "seed \(seed) told two stories")
            acknowledged += first.acknowledgedCount
            seen += first.seenCount
            lives += first.livesCount
            #expect(first.triedSomething, "seed \(seed) tried nothing")
        }
        #expect(acknowledged > 2_500 && seen > 2_500 && lives >= 125, "\(acknowledged) \(seen) \(lives)")
        let spent = processorSeconds - began
        #expect(spent < Self.secondsLimit, "\(spent) s of a processor for \(seeds.count) worlds, each twice")
    }
}
