import MartletBasics
import Testing

@Suite struct TransactionSimulation {
    @Test(arguments: Seeds.starts) func transactionsAreWholeOrNotThereWhateverEndsProducersAndBrokers(from start: UInt64) throws
    {
        for seed in Seeds.group(start) {
            let (story, ledger) = try TransactionSimulationWorld.tell(seed: seed)
            let again = Seeds.again(seed, "TransactionSimulation")
            #expect(ledger.violations.isEmpty, "seed \(seed), to see it again: \(again)")
            #expect(ledger.committedCount > 0 && ledger.seenCount > 0, "seed \(seed) tried nothing: \(again)")
            guard seed % Seeds.toldTwice == 0 || Seeds.chosen.count == 1 else { continue }
            let second = try TransactionSimulationWorld.tell(seed: seed)
            #expect(second.story == story, "seed \(seed) told two stories: \(again)")
        }
    }
}
