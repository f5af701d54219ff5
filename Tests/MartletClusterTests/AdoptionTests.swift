import MartletBasics
import MartletCluster
import MartletKeeper
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

@Suite struct TopicSettings {
    private func parse(_ text: String) throws -> TopicSettingsFile {
        try TopicSettingsFile(parsing: Array(text.utf8), path: "/etc/topics", topics: BrokerConfig.resolve().topics)
    }

    @Test func areReadALineEach() throws {
        let file = try parse(
            "# a comment\r\n\n events   retention.ms = -1 \nevents\tcleanup.policy=compact,delete\r\norders segment.bytes=8192")
        #expect(file.topics == ["events", "orders"])
        let events = file.settings(of: "events").map { "\($0.name)=\($0.value)" }
        #expect(events == ["cleanup.policy=compact,delete", "retention.ms=-1"])
        #expect(file.settings(of: "orders").map(\.value) == ["8192"])
        #expect(file.settings(of: "others").isEmpty)
    }

    @Test(arguments: [
        ("events", 1, "'topic name=value'"), ("\n\nevents retention.ms", 3, "'name=value'"), ("events =3", 1, "'name=value'"),
        ("events retention.msx=1", 1, "retention.ms"), ("a b.c=1\nev/ents retention.ms=1", 1, "b.c"),
        ("ev/ents retention.ms=1", 1, "ev/ents"), ("events retention.ms=soon", 1, "retention.ms"),
        ("events retention.ms=1\nevents retention.ms=2", 2, "a second time"),
        ("events min.compaction.lag.ms=9\nevents max.compaction.lag.ms=8", 2, "max.compaction.lag.ms"),
        ("events remote.storage.enable=true", 1, "tiered"),
    ])
    func thatCannotBeTakenAreASentenceWithTheLine(text: String, line: Int, part: String) throws {
        do {
            _ = try parse(text)
            Issue.record("it was taken")
        } catch let error as ClusterError {
            #expect("\(error)".hasPrefix("/etc/topics, line \(line): ") && "\(error)".contains(part), "\(error)")
        }
    }

    @Test func ofBytesThatAreNoTextAreRefused() throws {
        for bytes in [[0xFF, 0xFE, 0x20, 0x3D], [UInt8](repeating: 0x61, count: TopicSettingsFile.maximumBytes + 1)] {
            #expect(throws: ClusterError.self) {
                try TopicSettingsFile(parsing: bytes, path: "f", topics: BrokerConfig.resolve().topics)
            }
        }
    }
}

/// A directory that another broker filled, met by a tree that is new, or is not.
@Suite struct AnAdoption {
    private func filled(_ world: MemberWorld) {
        (world.disk.clusterID, world.disk.brokerID) = ("Nphc91hsQFaOu3viOGbofA", 7)
        for index in 0..<12 { world.disk.folders["t\(index)"] = (UUID(high: 1, low: UInt64(index)), [0, 1, 2]) }
        world.disk.folders["__consumer_offsets"] = (UUID(high: 2, low: 1), Set(0..<5))
        world.disk.folders["__transaction_state"] = (UUID(high: 2, low: 2), [0, 1])
        world.disk.folders["__share_group_state"] = (UUID(high: 2, low: 3), [0])
        world.disk.lastEpochs = [TopicPartition("t3", 1): 41]
        world.disk.compacted = ["t5", "__consumer_offsets"]
        world.disk.highestProducerID = 123_456
    }

    private func settings(_ world: MemberWorld, _ topic: String) -> String {
        let head = "/config/topics/\(topic) "
        return world.tree().first { $0.hasPrefix(head) }.map { String($0.dropFirst(head.count)) } ?? ""
    }

    @Test func givesTopicsTheSettingsOfTheFileAndWhatTheDirectoryItselfSays() throws {
        let world = MemberWorld()
        filled(world)
        let text = "t1 retention.ms=-1\nt5 segment.bytes=8192\n__consumer_offsets segment.bytes=4096\nmissing retention.ms=1\n"
        world.topicSettings = try TopicSettingsFile(
            parsing: Array(text.utf8), path: "topics", topics: BrokerConfig.resolve().topics)
        world.start()
        #expect(settings(world, "t0") == #"{"version":1,"config":{}}"#)
        #expect(settings(world, "t1") == #"{"version":1,"config":{"retention.ms":"-1"}}"#)
        #expect(settings(world, "t5") == #"{"version":1,"config":{"cleanup.policy":"compact","segment.bytes":"8192"}}"#)
        #expect(settings(world, "__consumer_offsets").contains(#""cleanup.policy":"compact""#))
        #expect(settings(world, "__consumer_offsets").contains(#""segment.bytes":"4096""#))
        #expect(settings(world, "__transaction_state").contains(#""cleanup.policy":"compact""#))
        #expect(settings(world, "__share_group_state").contains(#""retention.ms":"-1""#))
        #expect(world.image.topic("__consumer_offsets")?.partitions.count == 5)
        #expect(world.replicas.configs["t5"]?.cleanupPolicy == .compact)
        #expect(world.sink.all.contains { $0.contains("taken-as-compacted=t5") && $0.contains("settings=those of topics") })
        #expect(world.sink.all.contains { $0.contains("topics that the log directories do not hold") && $0.contains("missing") })
        world.stop()
        world.start()
        // a file that is given again has no effect
        #expect(world.sink.all.contains { $0.contains("is not read") })
    }

    @Test func goesOnAboveTheLeaderEpochsAndProducerIDsThatWereGivenOut() {
        let world = MemberWorld()
        filled(world)
        world.start()
        #expect(world.told.contains("t3-1 7/42") && world.told.contains("t3-0 7/1"))
        final class Given: @unchecked Sendable { var id: ProducerID = -1 }
        let given = Given()
        world.run { world in given.id = await world.member.allocateProducerID() ?? -1 }
        // also above what brokers of the cluster may have given out unseen
        #expect(given.id >= 123_456 + 1_000_000 && given.id % 1000 == 0)
    }

    @Test func leavesTopicsAloneThatHaveOneIDForTwoNames() {
        let world = MemberWorld()
        world.disk.folders = ["a": (UUID(high: 1, low: 1), [0]), "copy-of-a": (UUID(high: 1, low: 1), [0]), "b": (nil, [0])]
        world.start()
        #expect(world.told == ["b-0 1/1"])
        #expect(world.sink.all.contains { $0.contains("same topic id") && $0.contains("topic=a ") })
    }

    @Test func saysOfWhichTopicsPartitionsAreMissing() {
        let world = MemberWorld()
        world.disk.folders = ["whole": (UUID(high: 1, low: 1), [0, 1]), "part": (UUID(high: 1, low: 2), [1, 4])]
        world.start()
        #expect(world.told == ["part-1 1/1", "part-4 1/1", "whole-0 1/1", "whole-1 1/1"])
        let said = world.sink.all.filter { $0.contains("do not hold every partition") }
        #expect(said.count == 1 && said[0].contains("first=part partitions=1,4"))
    }

    /// Groups are spread over all partitions by their names: one that is missing would leave some without a coordinator.
    @Test func makesThePartitionsOfCoordinatorsThatLayOnOtherBrokers() {
        let world = MemberWorld(seed: 1, loops: 1, [("offsets.topic.num.partitions", "8")])
        world.disk.folders = [
            "__consumer_offsets": (UUID(high: 1, low: 1), [1, 4]), "__transaction_state": (UUID(high: 1, low: 2), [0, 1]),
        ]
        world.disk.lastEpochs = [TopicPartition("__consumer_offsets", 4): 5]
        world.start()
        #expect(world.image.topic("__consumer_offsets")?.partitions.count == 8)
        #expect(world.image.topic("__transaction_state")?.partitions.count == 2)
        #expect(world.told.contains("__consumer_offsets-4 1/6") && world.told.contains("__consumer_offsets-7 1/1"))
        #expect(world.sink.all.contains { $0.contains("topic=__consumer_offsets partitions=8 here=2") })
    }

    @Test func doesNotMixTheTreeOfOneBrokerWithTheDirectoriesOfAnother() {
        let world = MemberWorld()
        world.start()
        world.create("t")
        world.stop()
        world.disk.brokerID = 8
        world.run { world in
            do {
                try await world.startMember()
                Issue.record("it started")
            } catch let error as ClusterError {
                guard case .otherBrokersTree(8, 1) = error else { throw error }
            }
        }
    }

    /// What lies in it would stay unknown to the tree for ever.
    @Test func waitsForEveryLogDirectory() {
        let world = MemberWorld()
        filled(world)
        world.disk.missing = ["/mnt/second"]
        world.run { world in
            do {
                try await world.startMember()
                Issue.record("it started")
            } catch let error as ClusterError {
                #expect("\(error)".contains("/mnt/second"))
            }
        }
        world.stop()
        world.disk.missing = []
        world.start()
        #expect(world.image.topics.count == 15)
        world.stop()
        // a tree that knows its topics can do without
        world.disk.missing = ["/mnt/second"]
        world.start()
        #expect(world.image.topics.count == 15)
    }

    @Test func warnsOfTheDefaultsWhereNoFileOfSettingsIsGiven() throws {
        for isGiven in [true, false] {
            let world = MemberWorld()
            filled(world)
            if isGiven {
                world.topicSettings = try TopicSettingsFile(parsing: [], path: "f", topics: BrokerConfig.resolve().topics)
            }
            world.start()
            let said = world.sink.all.filter { $0.contains("the defaults count") }
            #expect(said.count == (isGiven ? 0 : 1))
            #expect(said.allSatisfy { $0.contains("retention.ms=604800000") })
        }
    }

    /// The power goes while topics are written into the tree. The next start, or the one after it, goes on where it was.
    @Test func thatThePowerEndedIsGoneOnWith() {
        var wasInterrupted = 0
        for seed in 1...60 as ClosedRange<UInt64> {
            let world = MemberWorld(seed: seed)
            filled(world)
            var random = SeededRandom(seed: seed)
            for _ in 0..<1 + random.below(3) {
                world.cutPower(afterDiskOperations: 1 + random.below(60))
                if world.told.isEmpty { wasInterrupted += 1 }
            }
            world.start()
            let expected = (0..<12).map { "t\($0)" } + ["__consumer_offsets", "__transaction_state", "__share_group_state"]
            #expect(world.image.topics.map(\.name).sorted() == expected.sorted(), "seed \(seed)")
            #expect(world.image.topic("t7")?.id == UUID(high: 1, low: 7), "seed \(seed)")
            #expect(world.told.count == 12 * 3 + 5 + 2 + 1, "seed \(seed)")
            let epoch = world.image.topic("t3")?.partitions[1].leaderEpoch ?? -1
            #expect(epoch > 41, "seed \(seed)")
            #expect(settings(world, "t5").contains("compact"), "seed \(seed)")
            #expect(world.member.brokerID == 7 && world.image.clusterID == "Nphc91hsQFaOu3viOGbofA", "seed \(seed)")
        }
        #expect(wasInterrupted > 10, "cuts that never meet an adoption show nothing")
    }
}
