import MartletBasics
import MartletBroker
import MartletModel
import MartletSimulation
import MartletWire
import Testing

@Suite struct HostileBytes {
    @Test func requestsWithChangedBytesEndTheirConnectionAtMost() throws {
        for seed: UInt64 in 1...3 {
            let world = try BrokerWorld(seed: seed, loops: 2)
            try world.createTopic("t", partitions: 2)
            var random = SeededRandom(seed: seed)
            let good = [
                produce("t", batch(["a", "b"]), id: 1), produce("t", noise(80_000, seed: seed, codec: .lz4), acks: 0, id: 2),
                fetch("t", maxWaitMs: 5, session: (0, 0), id: 3), fetch("t", maxWaitMs: 5, id: 4), metadata(id: 5),
            ]
            for _ in 0..<150 {
                let client = try world.connect()
                var bytes: [UInt8] = []
                for _ in 0..<4 {
                    var one = good[random.below(good.count)]
                    let reach = random.chance(1, in: 2) ? min(60, one.count) : one.count
                    for _ in 0..<random.below(4) { one[4 + random.below(reach - 4)] = UInt8(random.below(256)) }
                    bytes += one
                }
                client.pieceSize = 1 + random.below(100_000)
                client.send(bytes)
                world.simulated.run(for: .milliseconds(20))
                client.close()
            }
            #expect(world.until { world.broker.connectionsCount == 0 })
            world.simulated.run(for: .seconds(1))
            #expect(world.broker.requestBytesInUse == 0)
            let witness = try world.connect()
            witness.send(produce("t", batch(["still here"]), acks: -1, id: 9))
            #expect(world.until { witness.frames.count == 1 }, "seed \(seed)")
            world.simulated.run(for: .seconds(200))
            #expect((0..<2).allSatisfy { world.partition("t", $0)!.watchersCount == 0 })
        }
    }
}
