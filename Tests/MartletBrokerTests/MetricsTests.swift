import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletSimulation
import MartletWire
import Testing

/// The samples of a page, by name and labels as they are written.
struct ScrapedMetrics {
    private(set) var samples: [String: String] = [:]
    private(set) var text: String

    init(_ bytes: [UInt8]) {
        text = String(decoding: bytes, as: UTF8.self)
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            let space = line.lastIndex(of: " ")!
            let name = String(line[..<space])
            #expect(samples[name] == nil, "\(name) is there twice")
            samples[name] = String(line[line.index(after: space)...])
        }
    }

    subscript(name: String) -> Int? { samples[name].flatMap { Int($0) } }
}

extension BrokerWorld {
    /// One request to the metrics endpoint, on a connection of its own; the whole answer.
    func http(_ request: String, port: UInt16 = 9644, pieceSize: Int = .max) throws -> String {
        let client = RawClient(self)
        client.pieceSize = pieceSize
        client.connect(port: port)
        try #require(until { client.isConnected || client.hasEnded })
        client.send(Array(request.utf8))
        try #require(until(atMost: .seconds(120)) { client.hasEnded }, "the answer to \(request.prefix(40)) ends")
        return String(decoding: client.received, as: UTF8.self)
    }

    func get(_ path: String) throws -> String { try http("GET \(path) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") }

    func scrape() throws -> ScrapedMetrics {
        let answer = try get("/metrics")
        try #require(answer.hasPrefix("HTTP/1.1 200 OK\r\n"))
        let body = try #require(answer.range(of: "\r\n\r\n"))
        return ScrapedMetrics(Array(answer[body].utf8))
    }
}

extension String {
    /// What follows the first place of it.
    fileprivate func range(of needle: String) -> PartialRangeFrom<String.Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(needle) { return index(start, offsetBy: needle.count)... }
            start = index(after: start)
        }
        return nil
    }
}

private func metricsWorld(
    seed: UInt64 = 1, loops: Int = 2, _ settings: [(name: String, value: String)] = []
) throws -> BrokerWorld {
    try BrokerWorld(seed: seed, loops: loops, [("martlet.metrics.listener", "0.0.0.0:9644")] + settings)
}

@Suite struct MetricsOfABroker {
    @Test func whatWasProducedAndReadIsWhatTheCountersSay() throws {
        let world = try metricsWorld()
        try world.createTopic("t", partitions: 2)
        try world.createTopic("quiet")
        let client = try world.connect()
        let records = batch(["a", "b", "c"])
        client.send(
            produce("t", records, acks: -1, id: 1) + produce("t", records, acks: 0, partition: 1, id: 2)
                + produce("nowhere", records, id: 3))
        client.send(fetch("t", [Wanted(), Wanted(partition: 1)], id: 4))
        #expect(world.until { client.frames.count == 3 })
        let page = try world.scrape()
        #expect(page[#"martlet_requests_total{api="Produce"}"#] == 3)
        #expect(page[#"martlet_requests_total{api="Fetch"}"#] == 1)
        #expect(page[#"martlet_request_duration_seconds_count{api="Produce"}"#] == 3)
        #expect(page[#"martlet_request_duration_seconds_count{api="Fetch"}"#] == 1)
        #expect(page[#"martlet_response_size_bytes_count{api="Produce"}"#] == 2, "acks=0 has no answer")
        #expect(page[#"martlet_request_errors_total{api="Produce",error="UNKNOWN_TOPIC_OR_PARTITION"}"#] == 1)
        #expect(page[#"martlet_topic_received_records_total{topic="t"}"#] == 6)
        #expect(page[#"martlet_topic_received_bytes_total{topic="t"}"#] == 2 * records.count)
        #expect(page[#"martlet_topic_sent_records_total{topic="t"}"#] == 6)
        #expect(page[#"martlet_topic_sent_bytes_total{topic="t"}"#] == 2 * records.count)
        #expect(page[#"martlet_topic_size_bytes{topic="t"}"#] == 2 * records.count)
        #expect(page[#"martlet_topic_partitions{topic="t"}"#] == 2)
        #expect(page[#"martlet_topic_received_records_total{topic="quiet"}"#] == 0)
        #expect(page[#"martlet_partition_log_end_offset{topic="t",partition="1"}"#] == 3)
        #expect(page[#"martlet_partitions{role="leader"}"#] == 3)
        #expect(page["martlet_connections"] == 1)
        #expect(page["martlet_ready"] == 1)
        #expect(page[#"martlet_sync_records_sum{directory="/data"}"#] == 6)
        #expect(page["martlet_keeper_sessions"] == 1)
        client.close()
        #expect(world.until { world.broker.connectionsCount == 0 })
        #expect(try world.scrape()["martlet_connections_closed_total"] == 1)
    }

    @Test func aMetadataAnswerCountsTheErrorsOfItsTopics() throws {
        let world = try metricsWorld()
        let client = try world.connect()
        var request = MetadataRequest()
        request.topics = ["a", "b"].map { name in
            var topic = MetadataRequest.MetadataRequestTopic()
            topic.name = name
            return topic
        }
        client.send(frame(request, version: 9, id: 1))
        #expect(world.until { client.frames.count == 1 })
        #expect(try world.scrape()[#"martlet_request_errors_total{api="Metadata",error="UNKNOWN_TOPIC_OR_PARTITION"}"#] == 2)
    }

    @Test func beyondTheLimitTopicsShareOneLabelAndNothingIsLost() throws {
        let world = try metricsWorld([("martlet.metrics.labels.max", "2")])
        for name in ["a", "b", "c", "d"] { try world.createTopic(name, partitions: 2) }
        let client = try world.connect()
        let records = batch(["x"])
        for (id, name) in ["c", "c", "d", "c", "d", "a"].enumerated() { client.send(produce(name, records, id: Int32(id))) }
        #expect(world.until { client.frames.count == 6 })
        let page = try world.scrape()
        #expect(page[#"martlet_topic_received_records_total{topic="c"}"#] == 3)
        #expect(page[#"martlet_topic_received_records_total{topic="d"}"#] == 2)
        #expect(page[#"martlet_topic_received_records_total{topic="a"}"#] == nil)
        #expect(page[#"martlet_topic_received_records_total{topic="(other)"}"#] == 1)
        #expect(page[#"martlet_topic_partitions{topic="(other)"}"#] == 4)
        #expect(page.samples.keys.filter { $0.hasPrefix("martlet_partition_log_end_offset") }.count == 2)
        #expect(page["martlet_partitions_unlisted"] == 6)
    }

    @Test func aClientThatDoesNotReadIsSeenInTheOutboxes() throws {
        let world = try metricsWorld()
        try world.createTopic("t")
        let client = try world.connect()
        client.send(produce("t", noise(900_000, seed: 1, codec: .none), id: 1))
        #expect(world.until { client.frames.count == 1 })
        client.read(false)
        for id: Int32 in 2..<8 { client.send(fetch("t", id: id)) }
        _ = world.until(atMost: .seconds(5)) { false }
        #expect(try world.scrape()["martlet_outbox_bytes"]! > 100_000)
        client.close()
        #expect(world.until { world.broker.connectionsCount == 0 })
        #expect(try world.scrape()["martlet_outbox_bytes"] == 0)
    }

    @Test func everyFamilyOfAPageIsInTheCatalogAndWithItsHelp() throws {
        let world = try metricsWorld()
        let page = try world.scrape()
        let helps = page.text.split(separator: "\n").filter { $0.hasPrefix("# HELP ") }.map { String($0.dropFirst(7)) }
        #expect(helps.count > 50)
        for help in helps {
            let known = MetricCatalog.all.first { help.hasPrefix($0.name + " ") }
            #expect(known?.help == known.map { String(help.dropFirst($0.name.count + 1)) } && known != nil, "\(help)")
        }
        #expect(Set(MetricCatalog.all.map(\.name)).count == MetricCatalog.all.count)
    }

    @Test func scrapesAtOnceAreAllAnsweredWithWhatWasThereWhenTheyAsked() throws {
        let world = try metricsWorld()
        try world.createTopic("t")
        let client = try world.connect()
        var scrapers: [RawClient] = []
        for round: Int32 in 1...12 {
            client.send(produce("t", batch(["x"]), id: round))
            #expect(world.until { client.frames.count == Int(round) })
            let scraper = RawClient(world)
            scraper.connect(port: 9644)
            scraper.send(Array("GET /metrics HTTP/1.0\r\n\r\n".utf8))
            scrapers.append(scraper)
            if round % 4 == 0 { #expect(world.until { scrapers.allSatisfy(\.hasEnded) }) }
        }
        for (index, scraper) in scrapers.enumerated() {
            let text = String(decoding: scraper.received, as: UTF8.self)
            let line = text.split(separator: "\n").first { $0.hasPrefix("martlet_topic_received_records_total{topic=\"t\"}") }
            let count = try #require(line.flatMap { Int($0.split(separator: " ")[1]) })
            #expect(count >= index + 1)
        }
    }
}

@Suite struct HTTPOfABroker {
    @Test func healthIsToldAndWhatIsNotThereIsNotFound() throws {
        let world = try metricsWorld()
        #expect(try world.get("/health/live").hasPrefix("HTTP/1.1 200 OK\r\n"))
        #expect(try world.get("/health/ready").hasSuffix("\r\n\r\nready\n"))
        #expect(try world.get("/metric").hasPrefix("HTTP/1.1 404 Not Found\r\n"))
        #expect(try world.get("/metrics?x=y").hasPrefix("HTTP/1.1 200 OK\r\n"))
        let post = try world.http("POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        #expect(post.hasPrefix("HTTP/1.1 405 Method Not Allowed\r\n") && post.contains("\r\nAllow: GET, HEAD\r\n"))
        let head = try world.http("HEAD /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        #expect(head.hasSuffix("\r\n\r\n") && head.contains("\r\nContent-Length: 5\r\n"))
    }

    @Test func requestsOnOneConnectionAreAnsweredInOrderHoweverTheirBytesAreCut() throws {
        for (seed, size) in [(1, 1), (2, 7), (3, Int.max)] as [(UInt64, Int)] {
            let world = try metricsWorld(seed: seed)
            let one = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", other = "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
            let last = "GET /health/ready HTTP/1.1\r\nhost:x\r\nconnection: Close\r\n\r\n"
            let answer = try world.http(one + other + "\r\n" + one + last, pieceSize: size)
            let statuses = answer.split(separator: "\r\n").filter {
                $0.hasPrefix("HTTP/1.1 ") || $0.hasSuffix("HTTP/1.1 200 OK")
            }
            #expect(
                answer.split(separator: "HTTP/1.1 ").map { $0.prefix(3) } == ["200", "404", "200", "200"],
                "seed \(seed) \(statuses)")
        }
    }

    @Test(
        arguments: [
            ("GET /metrics\r\n\r\n", 400), ("GET  /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 400), ("\u{16}\u{03}\u{01}", 400),
            ("GET /metrics HTTP/2.0\r\nHost: x\r\n\r\n", 505), ("GET /metrics HTTP/1.1\r\n\r\n", 400),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400), ("GET /metrics HTTP/1.1\r\nHost : x\r\n\r\n", 400),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\nA: \u{0}\r\n\r\n", 400), ("G{T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("GET /" + String(repeating: "a", count: 9000), 431),
            ("GET / HTTP/1.1\r\nHost: x\r\n" + String(repeating: "A: b\r\n", count: 2000), 431),
            ("GET / XTTP/1.1\r\nHost: x\r\n\r\n", 400), ("GET / HTTP/1.1\r\n: x\r\n\r\n", 400),
        ] as [(String, Int)])
    func whatIsNoRequestIsRefusedAndTheConnectionEnds(_ request: String, _ status: Int) throws {
        var answer = ""
        for seed: UInt64 in 1...12 where answer.isEmpty {
            let world = try metricsWorld(seed: seed)
            // where it closes while the client still sends, the reset may overtake the answer, as TCP has it
            answer = try world.http(request)
            #expect(try world.get("/health/live").contains("live"))
        }
        #expect(
            answer.hasPrefix("HTTP/1.1 \(status) ") && answer.contains("\r\nConnection: close\r\n"), "\(answer.prefix(100))")
    }

    @Test func seededNoiseNeverEndsTheBroker() throws {
        var random = SeededRandom(seed: 11)
        let world = try metricsWorld()
        let valid = Array("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nConnection: close\r\n\r\n".utf8)
        for _ in 0..<60 {
            var bytes = valid
            for _ in 0..<(1 + random.next() % 4) {
                bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next())
            }
            let client = RawClient(world)
            client.connect(port: 9644)
            client.send(bytes)
            #expect(world.until(atMost: .seconds(120)) { client.hasEnded }, "\(bytes)")
        }
        #expect(try world.get("/health/ready").contains("ready"))
    }

    @Test func aHeadThatNeverEndsIsNotWaitedForForEver() throws {
        let world = try metricsWorld()
        let began = world.simulated.now
        let answer = try world.http("GET /metrics HTTP/1.1\r\nHost: x\r\n")
        #expect(answer.hasPrefix("HTTP/1.1 408 "))
        #expect(world.simulated.now - began < .seconds(15))
        let idle = RawClient(world)
        idle.connect(port: 9644)
        #expect(world.until(atMost: .seconds(15)) { idle.hasEnded }, "one that says nothing at all is closed too")
    }

    @Test func aReaderThatTakesNothingIsClosedInTheEnd() throws {
        let world = try metricsWorld()
        let client = RawClient(world)
        client.connect(port: 9644)
        #expect(world.until { client.isConnected })
        client.read(false)
        for _ in 0..<200 { client.send(Array("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".utf8)) }
        _ = world.until(atMost: .seconds(60)) { false }
        #expect(try world.get("/metrics").hasPrefix("HTTP/1.1 200"))
        client.read(true)
        #expect(world.until { client.hasEnded })
        #expect(client.received.count < 10_000_000)
    }

    @Test func moreConnectionsThanThereArePlacesAreClosedAtOnce() throws {
        let world = try metricsWorld()
        let clients = (0..<(MetricsEndpoint.connectionLimit + 5)).map { _ in RawClient(world) }
        for client in clients { client.connect(port: 9644) }
        #expect(world.until(atMost: .seconds(5)) { clients.filter(\.hasEnded).count == 5 })
        for client in clients { client.close() }
        _ = world.until(atMost: .seconds(1)) { false }
        #expect(try world.get("/health/live").contains("live"))
    }

    @Test func theEndOfTheBrokerIsToldAndEndsTheConnections() throws {
        let world = try metricsWorld()
        let client = RawClient(world)
        client.connect(port: 9644)
        client.send(Array("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n".utf8))
        #expect(world.until { !client.received.isEmpty })
        try world.stop()
        #expect(world.until { client.hasEnded })
    }

    @Test func aPortThatIsTakenIsASentenceAndByDefaultNoObstacle() throws {
        let world = try BrokerWorld([])
        #expect(world.process.metricsFault == nil && world.process.metricsAddresses.map(\.port) == [9644])
        let config = try BrokerConfig.resolve(
            overrides: [
                ("listeners", "PLAINTEXT://\(world.host.address):9093"), ("log.dirs", "/data2"),
                ("martlet.keeper.dir", "/keeper2"),
                ("martlet.metrics.listener", "127.0.0.1:9644"),
            ])
        let second = BrokerProcess(host: world.host, config: config, sink: world.sink, memoryBytes: 1 << 30)
        #expect { try world.run { try await second.start() } } throws: {
            "\($0)".contains("Port 9644 is in use") && "\($0)".contains("martlet.metrics.listener")
        }
        try world.run { await second.stop() }
        let third = BrokerProcess(
            host: world.host,
            config: try BrokerConfig.resolve(
                overrides: [
                    ("listeners", "PLAINTEXT://\(world.host.address):9094"), ("log.dirs", "/data3"),
                    ("martlet.keeper.dir", "/keeper3"),
                ]),
            sink: world.sink, memoryBytes: 1 << 30)
        try world.run { try await third.start() }
        #expect(third.metricsFault?.contains("Port 9644 is in use") == true)
        try world.run { await third.stop() }
    }
}
