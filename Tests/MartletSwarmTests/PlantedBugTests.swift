import MartletChecker
import MartletReactor
import MartletSwarm
import Testing

/// Does the swarm find what it is there for? Each bug is planted in the broker, and must be found within so many seeds; the
/// same seeds find nothing without it.
@Suite(.serialized) struct PlantedBugsAreFound {
    private static let first: UInt64 = 1

    /// The seed that found it, counted from 1, with what it said; nil where none of the seeds did.
    private func found(_ bug: PlantedBugs, within limit: UInt64) throws -> (count: Int, verdicts: [Verdict])? {
        for seed in Self.first..<Self.first + limit {
            let report = try SwarmWorld.run(seed: seed, planted: bug)
            guard report.verdicts.isEmpty else { return (Int(seed - Self.first) + 1, report.verdicts) }
        }
        return nil
    }

    private func check(_ bug: PlantedBugs, within limit: UInt64, as kinds: Set<Verdict.Kind>) throws {
        let got = try #require(try found(bug, within: limit), "\(limit) seeds do not find it")
        #expect(!kinds.isDisjoint(with: got.verdicts.map(\.kind)), "\(got.verdicts)")
        for seed in Self.first..<Self.first + UInt64(got.count) {
            let sound = try SwarmWorld.run(seed: seed)
            #expect(sound.verdicts.isEmpty, "seed \(seed) finds something without the bug: \(sound.verdicts)")
        }
    }

    @Test func aSyncThatIsSkippedLosesWhatWasAcknowledged() throws {
        try check(.skippedSync, within: 10, as: [.lostWrite, .commitLost, .broken])
    }

    @Test func anEarlyAcknowledgementLosesWhatWasAcknowledged() throws {
        try check(.earlyAcknowledgement, within: 10, as: [.lostWrite, .staleRead, .offsetGoneBack])
    }

    @Test func aReadAboveTheHighWatermarkShowsWhatIsLostLater() throws {
        try check(.readsAboveHighWatermark, within: 10, as: [.lostWrite, .broken])
    }

    @Test func aTornEndThatIsNotCutStandsBeforeWhatIsWrittenNext() throws {
        try check(.forgottenTruncation, within: 40, as: [.lostWrite, .broken])
    }

    @Test func producersThatAreForgottenWriteTwice() throws {
        // what transactions are open is forgotten with them
        try check(.forgottenProducers, within: 10, as: [.duplicate, .reordered, .abortedRead, .broken])
    }

    @Test func sequencesThatALivingBrokerForgetsLetABatchInTwice() throws {
        try check(.forgottenSequences, within: 10, as: [.duplicate])
    }

    @Test func aCommitThatIsNotWrittenIsLost() throws {
        try check(.lostCommit, within: 10, as: [.commitLost, .broken])
    }

    @Test func abortsThatAreNotToldAreRead() throws {
        try check(.untoldAborts, within: 10, as: [.abortedRead])
    }

    @Test func aTombstoneThatTheCleanerOverlooksRevivesItsKey() throws {
        try check(.overlookedTombstones, within: 10, as: [.revivedKey])
    }

    @Test func aLogStartThatIsNotWrittenBringsBackWhatWasDeleted() throws {
        try check(.unwrittenLogStart, within: 10, as: [.offsetGoneBack])
    }
}

@Suite(.serialized) struct OneSeedOneHistory {
    @Test(arguments: [1, 2, 3] as [UInt64]) func aSeedTellsTheSameEachTime(_ seed: UInt64) throws {
        let (one, two) = (try SwarmWorld.run(seed: seed), try SwarmWorld.run(seed: seed))
        #expect(one.triedSomething && one.answersCount >= 200)
        #expect(one.history == two.history)
        #expect(one.events == two.events)
    }
}
