import Glibc
import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import Testing

private func traffic(_ bytes: UInt64) -> PartitionTraffic { PartitionTraffic(recordsIn: bytes / 10, bytesIn: bytes) }

/// Topics whose totals are set by hand, and what a page would say of them.
private struct LabelBench {
    var labels: TopicLabels
    var now = Instant(nanoseconds: 0)
    var topics: [(id: UUID, figures: TopicFigures)] = []
    private var made: UInt64 = 0

    init(limit: Int) { labels = TopicLabels(limit: limit) }

    mutating func set(_ name: String, _ bytes: UInt64) {
        if let index = topics.firstIndex(where: { $0.figures.name == name }) {
            topics[index].figures.traffic = traffic(bytes)
        } else {
            var figures = TopicFigures(name: name)
            figures.traffic = traffic(bytes)
            figures.partitions = 1
            made += 1
            topics.append((UUID(high: made, low: 7), figures))
            topics.sort { $0.figures.name < $1.figures.name }
        }
    }

    mutating func scrape(after seconds: Int64 = 15) -> [String: UInt64] {
        now = now + .seconds(seconds)
        return Dictionary(uniqueKeysWithValues: labels.assign(topics, now: now).map { ($0.name, $0.figures.traffic.bytesIn) })
    }
}

@Suite struct LabelsOfTopics {
    @Test func withinTheLimitEveryTopicHasItsOwnAndThereIsNoRest() {
        var bench = LabelBench(limit: 2)
        bench.set("a", 100)
        bench.set("b", 0)
        #expect(bench.scrape() == ["a": 100, "b": 0])
    }

    @Test func aTopicThatGrowsPastTwiceAnotherTakesItsPlaceOnceAMinute() {
        var bench = LabelBench(limit: 1)
        bench.set("a", 1000)
        bench.set("b", 10)
        #expect(bench.scrape() == ["a": 1000, "(other)": 10])
        bench.set("b", 5000)
        #expect(bench.scrape() == ["a": 1000, "(other)": 5000], "not before its time")
        #expect(bench.scrape(after: 60) == ["b": 0, "(other)": 5000], "it leaves its past in the rest")
        bench.set("b", 5100)
        bench.set("a", 1200)
        #expect(bench.scrape(after: 60) == ["b": 100, "(other)": 5200], "twice is not more than twice")
    }

    @Test func theRestNeverFallsWhateverComesAndGoes() {
        var random = SeededRandom(seed: 5)
        var bench = LabelBench(limit: 3)
        var rest: UInt64 = 0, own: [String: UInt64] = [:]
        var totals: [String: UInt64] = [:], all: UInt64 = 0
        for _ in 0..<500 {
            let name = "t\(random.next() % 12)"
            let bytes = random.next() % 10_000
            totals[name, default: 0] += bytes
            all += bytes
            bench.set(name, totals[name]!)
            if random.next() % 10 == 0, let gone = bench.topics.indices.first(where: { _ in random.next() % 5 == 0 }) {
                totals[bench.topics[gone].figures.name] = nil
                own[bench.topics[gone].figures.name] = nil
                bench.topics.remove(at: gone)
            }
            let page = bench.scrape(after: Int64(random.next() % 40))
            #expect(page.count <= 4)
            #expect(page["(other)"] ?? rest >= rest)
            rest = page["(other)"] ?? rest
            // one that keeps its place keeps rising; who lost it begins anew
            for (name, value) in page where name != "(other)" {
                if let before = own[name] { #expect(value >= before) }
            }
            own = page.filter { $0.key != "(other)" }
            #expect(page.values.reduce(0, +) <= all)
        }
    }

    @Test func aReplicaThatCountsFromZeroAgainAddsToWhatWasTold() {
        var bench = LabelBench(limit: 5)
        bench.set("a", 1000)
        _ = bench.scrape()
        bench.set("a", 30)
        #expect(bench.scrape() == ["a": 1030])
    }
}

@Suite struct LagOfGroups {
    private let start: Int64 = 1_700_000_000_000

    /// A batch whose records are a second apart.
    private func spread(_ count: Int, from time: Int64, codec: CompressionCodec = .none) -> [UInt8] {
        var builder = BatchBuilder(BatchIdentity())
        for index in 0..<count {
            builder.append(timestamp: time + Int64(index) * 1000, key: nil, value: [1, 2, 3], headers: [])
        }
        var output = ByteBuffer()
        builder.finish(into: &output, codec: codec, contexts: CodecContexts())
        return output.array
    }

    private func world() throws -> BrokerWorld {
        let world = try BrokerWorld([("martlet.metrics.listener", "")])
        try world.createTopic("t", partitions: 2)
        let client = try world.connect()
        // offsets 0...9, 10...19 compressed, 20 alone
        client.send(
            produce("t", spread(10, from: start), id: 1) + produce("t", spread(10, from: start + 100_000, codec: .zstd), id: 2))
        client.send(produce("t", batch(["last"]), id: 3))
        #expect(world.until { client.frames.count == 3 && world.partition("t")?.highWatermark == 21 })
        return world
    }

    @Test func itIsTheAgeOfTheOldestRecordThatIsNotCommitted() throws {
        let world = try world()
        let lag = GroupLag()
        let now = start + 1_000_000
        let expected: [(Offset, Int64, Int64)] = [
            (0, 21, 1_000_000), (3, 18, 997_000), (10, 11, 900_000), (15, 6, 895_000), (19, 2, 891_000), (20, 1, 1_000_000),
        ]
        for (committed, records, age) in expected {
            let group = GroupFigures(id: "g", state: "Stable", members: 1, offsets: [(TopicPartition("t", 0), committed)])
            for _ in 0..<2 {
                let found = lag.rows([group], world.broker.cluster.topics.table, limit: 10, wallMilliseconds: now)
                #expect(found.unlisted == 0)
                #expect(
                    found.rows.map(\.records) == [records] && found.rows[0].age == .milliseconds(age),
                    "committed \(committed): \(found.rows)")
            }
        }
    }

    @Test func whoHasReadAllOrMoreIsNotBehindAndWhatIsGoneIsNotWaitedFor() throws {
        let world = try world()
        let partition = try #require(world.partition("t"))
        guard case .success(12) = partition.deleteRecords(before: 12) else { return #expect(Bool(false)) }
        let groups = [(21, 0), (40, 0), (5, 9), (-1, 9)].map { committed, _ in
            GroupFigures(
                id: "g\(committed)", state: "Empty", members: 0, offsets: [(TopicPartition("t", 0), Offset(committed))])
        }
        let found = GroupLag().rows(groups, world.broker.cluster.topics.table, limit: 10, wallMilliseconds: start + 200_000)
        #expect(found.rows.map(\.group) == ["g-1", "g21", "g40", "g5"])
        #expect(found.rows.map(\.records) == [9, 0, 0, 9])
        #expect(found.rows.map(\.age) == [.milliseconds(98_000), .zero, .zero, .milliseconds(98_000)])
    }

    @Test func beyondTheLimitThoseFurthestBehindAreTold() throws {
        let world = try world()
        let groups = (0..<8).map { index in
            GroupFigures(
                id: "g\(index)", state: "Stable", members: 1,
                offsets: [
                    (TopicPartition("t", 0), Offset(index * 3)), (TopicPartition("t", 1), 0), (TopicPartition("gone", 0), 5),
                ])
        }
        let found = GroupLag().rows(groups, world.broker.cluster.topics.table, limit: 3, wallMilliseconds: start)
        #expect(found.rows.map(\.records) == [21, 18, 15] && found.unlisted == 13)
        #expect(found.rows.allSatisfy { $0.age == .zero }, "a clock behind the producers' tells no time to come")
    }
}

@Suite struct ReferenceOfMetrics {
    /// After a change of the catalog, run this test with MARTLET_WRITE_PAGES=1 to have the page written anew.
    @Test func theCommittedPageIsWhatTheCatalogSays() throws {
        let parts = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3)
        let path = parts.joined(separator: "/") + "/docs/metrics.md"
        if getenv("MARTLET_WRITE_PAGES") != nil {
            let file = try #require(fopen(path, "wb"))
            fputs(MetricCatalog.page, file)
            fclose(file)
        }
        let file = try #require(fopen(path, "rb"), "run this test with MARTLET_WRITE_PAGES=1 to write \(path)")
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = fread(&bytes, 1, bytes.count, file)
        #expect(
            String(decoding: bytes[..<count], as: UTF8.self) == MetricCatalog.page,
            "run this test with MARTLET_WRITE_PAGES=1 to write it anew")
    }

    @Test func everyRowOfATableHasItsCells() {
        for line in MetricCatalog.page.split(separator: "\n") where line.hasPrefix("|") {
            #expect(line.split(separator: "|", omittingEmptySubsequences: false).count == 6, "\(line)")
        }
    }
}
