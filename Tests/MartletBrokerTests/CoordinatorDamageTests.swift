import MartletBroker
import MartletCluster
import MartletModel
import MartletSimulation
import Testing

/// The disk has damaged the log that a coordinator reads its groups from.
@Suite struct ACoordinatorsDamagedPartition {
    @Test func isTakenOfflineWhenItIsLoadedAndTheOthersServe() throws {
        let attempts = try (1...8).map { try attemptsToLoadDamage(seed: $0) }
        // none where the controller has taken the leadership away before the reader is back
        #expect(attempts.allSatisfy { $0 <= 1 } && attempts.contains(1), "it is not read again and again: \(attempts)")
    }

    private func attemptsToLoadDamage(seed: UInt64) throws -> Int {
        let world = try BrokerWorld(
            seed: seed, [("offsets.topic.num.partitions", "2"), ("offsets.topic.replication.factor", "1")])
        try world.createTopic("t")
        let client = try GroupClient(world)
        // Java's hashes of the names: one in each partition
        for group in ["a", "b"] { try client.find(group) }
        #expect(try client.commit("a", "t", 3) == .none)
        #expect(try client.commit("b", "t", 4) == .none)
        #expect(world.partition("__consumer_offsets", 1)?.logEndOffset == 1)
        try world.restart { $0.flipBits("/data/__consumer_offsets-1/00000000000000000000.log", in: 70..<71) }

        #expect(world.until { world.sink.all.contains { $0.contains("partition offline") } }, "\(world.sink.all)")
        let told = try #require(world.sink.all.first { $0.contains("partition offline") })
        #expect(told.contains("damaged at offset 0") && told.contains("martlet log verify --repair"), "\(told)")
        #expect(try #require(world.partition("__consumer_offsets", 1)).hasFailed)
        #expect(!(try #require(world.partition("__consumer_offsets", 0)).hasFailed))
        let again = try GroupClient(world)
        try again.find("b")
        #expect(try again.offset("b", "t", 0) == 4)
        world.simulated.run(for: .seconds(5))
        #expect(try again.commit("a", "t", 5) == .notCoordinator, "nothing is coordinated from a part of it")
        return world.sink.all.filter { $0.contains("what a partition coordinates cannot be read") }.count
    }

    /// A clean stop leaves nothing to be recovered: what is wrong shows when the coordinator reads its partition, or not at all.
    @Test(arguments: 0..<3) func noBitOfAHeaderTakesOffsetsAwayUnseen(batch: Int) throws {
        let committed: [(group: String, offset: Offset)] = [("a", 3), ("b", 4), ("c", 5)]
        for byte in 0..<BatchHeader.size {
            let world = try BrokerWorld(
                seed: UInt64(byte + 1), [("offsets.topic.num.partitions", "1"), ("offsets.topic.replication.factor", "1")])
            try world.createTopic("t")
            let client = try GroupClient(world)
            for (group, offset) in committed {
                try client.find(group)
                #expect(try client.commit(group, "t", offset) == .none)
            }
            try world.restart { files in
                let path = "/data/__consumer_offsets-0/00000000000000000000.log"
                let bytes = files.durableBytes(path) ?? []
                var position = 0
                for _ in 0..<batch { position += bytes[position...].withUnsafeBytes { BatchHeader($0).totalSize } }
                files.flipBits(path, in: Int64(position + byte)..<Int64(position + byte + 1))
            }
            let again = try GroupClient(world)
            var found: [Offset?] = []
            _ = try (0..<200).first { _ in
                if world.partition("__consumer_offsets", 0)?.hasFailed != false { return true }
                found = try committed.map { try again.offset($0.group, "t", 0) }
                if found.allSatisfy({ $0 != nil }) { return true }
                world.simulated.run(for: .milliseconds(50))
                return false
            }
            let isTold = found.allSatisfy { $0 == nil } && world.sink.says("martlet log verify")
            #expect(isTold || found == committed.map(\.offset), "byte \(byte): \(found)")
        }
    }
}
