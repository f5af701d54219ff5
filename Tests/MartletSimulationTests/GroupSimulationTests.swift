import MartletBasics
import Testing

@Suite struct GroupSimulation {
    @Test(arguments: Seeds.starts) func groupsKeepTheirPromisesWhateverEndsMembersAndBrokers(from start: UInt64) throws {
        for seed in Seeds.group(start) {
            let (story, verdicts, triedSomething) = try GroupWorld.tell(seed: seed)
            let again = Seeds.again(seed, "GroupSimulation")
            #expect(verdicts.isEmpty, "seed \(seed), to see it again: \(again)")
            #expect(triedSomething, "seed \(seed) tried nothing: \(again)")
            guard seed % Seeds.toldTwice == 0 || Seeds.chosen.count == 1 else { continue }
            let second = try GroupWorld.tell(seed: seed)
            #expect(second.story == story, "seed \(seed) told two stories: \(again)")
        }
    }
}
