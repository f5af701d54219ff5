import MartletBasics
import MartletChecker
import MartletModel
import MartletSimulation
import MartletSwarm

/// Transactional producers that die, sleep and are replaced, over several lives of a broker. Then nothing fails any more: no
/// transaction may hang, and what is committed is read from the beginning.
final class TransactionSimulationWorld {
    private let broker: BrokerLives
    private let cast: TransactionCast
    private let producers: Int
    private let partitions: Int32

    private var ledger: TransactionLedger { cast.ledger }

    private init(seed: UInt64) throws {
        broker = try BrokerLives(seed: seed, diskFailsOneIn: 6) { random in
            [
                ("transaction.state.log.num.partitions", "\(1 + random.below(3))"),
                ("transaction.state.log.segment.bytes", "\(4096 << random.below(8))"),
                ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "200"),
            ]
        }
        producers = 1 + broker.random.below(3)
        partitions = Int32(1 + broker.random.below(3))
        cast = TransactionCast(broker.stage, partitions: partitions)
    }

    /// The whole story of a seed, what was wrong with it, and whether it tried anything.
    static func tell(seed: UInt64) throws -> (story: BrokerLives.Story, verdicts: [Verdict], triedSomething: Bool) {
        let world = try TransactionSimulationWorld(seed: seed)
        defer { world.broker.simulated.end() }
        world.run()
        let (record, ledger) = (world.broker.stage.record, world.ledger)
        for sentence in ledger.violations { record.broken(sentence) }
        var story = world.broker.story
        story.told ^= ledger.digest
        return (story, Checks.judge(record.events), ledger.committedCount > 0 && ledger.seenCount > 0)
    }

    private func run() {
        let topics = [(name: TransactionCast.output, partitions: partitions), (name: TransactionCast.input, partitions: 1)]
        guard broker.start(), broker.make(topics) else { return }
        for producer in 0..<producers {
            cast.start(producer, on: broker.someClient(), TransactionVersions.all[broker.random.below(2)])
        }
        for partition in 0..<partitions { cast.startReader(partition, on: broker.someClient()) }
        guard broker.passLives(), broker.comeToRest() else { return }
        broker.simulated.run(for: .milliseconds(300))
        _ = broker.simulated.run(atMost: .seconds(10)) { self.ledger.committedCount > 0 && self.ledger.seenCount > 0 }
        guard broker.sendClientsHome() else { return }
        readEverything()
        guard broker.endOnceMore(oneIn: 3, thenLook: readEverything) else { return }
        broker.stop()
    }

    /// What is committed. Every transaction has an end by now: where one hangs, its records never come.
    private func readEverything() {
        let outcome = Box<(records: [[(offset: Offset, value: [UInt8])]], offsets: [Offset])?>(nil)
        broker.look { [partitions, producers] reader async throws(ClientFault) in
            var records: [[(offset: Offset, value: [UInt8])]] = []
            for partition in 0..<partitions { records.append(try await Self.readAll(partition, reader)) }
            var offsets: [Offset] = []
            while offsets.count < producers {
                let group = TransactionCast.group(of: offsets.count)
                _ = try await reader.findCoordinator(of: group, kind: 0)
                if let offset = try await reader.stableOffset(group, TransactionCast.input, 0) {
                    offsets.append(max(offset, 0))
                } else {
                    await reader.loop.sleep(for: .milliseconds(20))
                }
            }
            outcome.value = (records, offsets)
        }
        if let found = outcome.value { ledger.finished(found.records, offsets: found.offsets) }
    }

    private static func readAll(
        _ partition: Int32, _ reader: SimulatedClient
    ) async throws(ClientFault) -> [(offset: Offset, value: [UInt8])] {
        var records: [(offset: Offset, value: [UInt8])] = []
        var offset: Offset = 0
        while true {
            let found = try await reader.fetchCommitted(TransactionCast.output, partition, from: offset)
            for batch in found.batches {
                for (index, value) in batch.values.enumerated() { records.append((batch.baseOffset + Int64(index), value)) }
            }
            if found.error == .none {
                offset = found.nextOffset
                if offset >= found.highWatermark, found.lastStableOffset == found.highWatermark { return records }
            }
            await reader.loop.sleep(for: .milliseconds(10))
        }
    }
}
