import MartletBasics
import MartletCluster
import MartletModel
import Testing

@Suite struct TopicPlacements {
    private func place(
        _ wanted: NewTopic, existing: [String] = [], brokers: [BrokerID] = [1],
        _ settings: [(name: String, value: String)] = [],
        seed: UInt64 = 1
    ) throws -> Result<TopicPlacement, TopicFault> {
        var random = SeededRandom(seed: seed)
        return TopicPlacement.decide(
            wanted, existing: existing, brokers: brokers.map { .init(id: $0, rack: nil) },
            config: try BrokerConfig.resolve(overrides: settings), random: &random)
    }

    private func error(_ result: Result<TopicPlacement, TopicFault>) -> Int16 {
        guard case .failure(let fault) = result else { return 0 }
        #expect(!fault.message.isEmpty)
        return fault.error.rawValue
    }

    private func topic(
        _ name: String = "t", _ partitions: Int32 = 1, _ factor: Int16 = 1, _ assignments: [(Int32, [BrokerID])] = [],
        configs: [(String, String?)] = []
    ) -> NewTopic {
        NewTopic(
            name: name, partitionCount: partitions, replicationFactor: factor,
            assignments: assignments.map { .init(partition: $0, brokers: $1) },
            configs: configs.map { .init(name: $0, value: $1) })
    }

    @Test func namesThatNoTopicMayHaveAreRefused() throws {
        for name in ["", ".", "..", "a/b", "a b", "ä", "a:b", "a,b", "a\nb", "a*", String(repeating: "x", count: 250)] {
            #expect(error(try place(topic(name))) == 17, "\(name)")
        }
        #expect(error(try place(topic(String(repeating: "x", count: 249)))) == 0)
        #expect(error(try place(topic("__cluster_metadata"))) == 42)
        #expect(error(try place(topic("_odd._-Z"))) == 0)
    }

    @Test func aNameThatIsTakenOrLooksLikeOneInMetricsIsRefused() throws {
        let existing = ["plain", "t.x_y"]
        #expect(error(try place(topic("plain", 0), existing: existing)) == 36, "before its counts are looked at")
        #expect(error(try place(topic("t.x.y"), existing: existing)) == 17)
        #expect(error(try place(topic("t_x_y"), existing: existing)) == 17)
        #expect(error(try place(topic("t.x_z"), existing: existing)) == 0)
    }

    @Test func countsOutOfRangeAreRefused() throws {
        for (partitions, factor, code) in [
            (0, 1, 37), (-2, 1, 37), (.min, 1, 37), (1, 0, 38), (1, -2, 38), (1, 2, 38), (1, .max, 38), (-1, -1, 0),
            (10_001, 1, 44),
        ] as [(Int32, Int16, Int16)] {
            #expect(error(try place(topic("t", partitions, factor))) == code, "\(partitions) partitions, \(factor) replicas")
        }
    }

    @Test func placementByHandHasToMakeSense() throws {
        for (partitions, factor, assignments, code) in [
            (-1, -1, [(0, [1]), (1, [1])], 0), (-1, -1, [(1, [1]), (0, [1])], 0), (2, 1, [(0, [1]), (1, [1])], 42),
            (1, -1, [(0, [1])], 42), (-1, 1, [(0, [1])], 42), (-1, -1, [(0, [7])], 39), (-1, -1, [(0, [1, 1])], 39),
            (-1, -1, [(0, [1]), (2, [1])], 39), (-1, -1, [(1, [1])], 39), (-1, -1, [(0, [])], 39),
            (-1, -1, [(0, [1]), (1, [1, 7])], 39), (-1, -1, [(0, [1]), (1, [1, 2])], 39), (-1, -1, [(-1, [1])], 39),
            (-1, -1, [(0, [-1])], 39), (-1, -1, [(0, [1]), (0, [1])], 39),
        ] as [(Int32, Int16, [(Int32, [BrokerID])], Int16)] {
            #expect(error(try place(topic("t", partitions, factor, assignments), brokers: [1, 2])) == code, "\(assignments)")
        }
    }

    @Test func settingsAreCheckedAndKeptOnceEach() throws {
        for (name, value) in [("no.such.config", "1"), ("retention.ms", "abc"), ("retention.ms", nil), ("segment.bytes", "1")]
            as [(String, String?)]
        {
            #expect(error(try place(topic(configs: [(name, value)]))) == 40)
        }
        let placed = try place(topic(configs: [("retention.ms", "1000"), ("retention.ms", " 2000 ")])).get()
        #expect(placed.settings.map(\.name) == ["retention.ms"])
        #expect(placed.settings.map(\.value) == ["2000"])
    }

    @Test func whatIsNotSaidComesFromTheBrokersSettings() throws {
        let placed = try place(
            topic("t", -1, -1), brokers: [1, 2, 3], [("num.partitions", "5"), ("default.replication.factor", "2")]
        ).get()
        #expect(placed.replicas.count == 5)
        #expect(placed.replicationFactor == 2)
    }

    @Test(arguments: 1...20 as ClosedRange<UInt64>) func leadersAndCopiesAreSpreadEvenly(_ seed: UInt64) throws {
        let placed = try place(topic("t", 12, 3), brokers: [1, 2, 3, 4], seed: seed).get()
        #expect(placed.replicas.map(\.partition) == Array(0..<12))
        for id in [1, 2, 3, 4] as [BrokerID] {
            #expect(placed.replicas.count { $0.brokers.first == id } == 3)
            #expect(placed.replicas.count { $0.brokers.contains(id) } == 9)
        }
        for replicas in placed.replicas { #expect(Set(replicas.brokers).count == 3) }
        // the copies of what one broker leads do not all lie on the same others
        let followers = Set(placed.replicas.filter { $0.brokers[0] == 1 }.map { $0.brokers.dropFirst().sorted() })
        #expect(followers.count > 1)
    }

    @Test(arguments: 1...20 as ClosedRange<UInt64>) func copiesLieInDifferentRacksAsFarAsThereAreSome(_ seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let racks: [BrokerID: String] = [1: "a", 2: "a", 3: "b", 4: "b", 5: "c"]
        let brokers = racks.keys.sorted().map { TopicPlacement.Broker(id: $0, rack: racks[$0]) }
        for replicas in TopicPlacement.spread(partitions: 10, factor: 3, over: brokers, &random) {
            #expect(Set(replicas.brokers.map { racks[$0] }).count == 3)
        }
        for replicas in TopicPlacement.spread(partitions: 10, factor: 4, over: brokers, &random) {
            #expect(Set(replicas.brokers).count == 4)
            #expect(Set(replicas.brokers.map { racks[$0] }).count == 3)
        }
    }
}
