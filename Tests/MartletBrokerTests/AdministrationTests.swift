import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire
import Testing

extension BrokerWorld {
    /// One request on a connection of its own, and its answer.
    func ask<R: WireRequest>(_ request: R, version: Int16, at location: SourceLocation = #_sourceLocation) throws -> R.Response
    {
        let client = try connect(at: location)
        client.send(frame(request, version: version, id: 1))
        try #require(until { client.frames.count == 1 || client.hasEnded }, "no answer comes", sourceLocation: location)
        try #require(client.frames.count == 1, "the connection was closed", sourceLocation: location)
        defer { client.close() }
        return try client.answer(R.Response.self, 0, version: version)
    }

    func alter(
        _ type: Int8, _ name: String, _ settings: (String, String?)..., at location: SourceLocation = #_sourceLocation
    ) throws -> ErrorCode {
        var request = IncrementalAlterConfigsRequest()
        var resource = IncrementalAlterConfigsRequest.AlterConfigsResource()
        resource.resourceType = type
        resource.resourceName = name
        resource.configs = settings.map { setting in
            var config = IncrementalAlterConfigsRequest.AlterableConfig()
            (config.name, config.value) = setting
            config.configOperation = setting.1 == nil ? 1 : 0
            return config
        }
        request.resources = [resource]
        return try ask(request, version: 1, at: location).responses[0].errorCode
    }

    func move(_ topic: String, to path: String, at location: SourceLocation = #_sourceLocation) throws -> ErrorCode {
        var request = AlterReplicaLogDirsRequest()
        var directory = AlterReplicaLogDirsRequest.AlterReplicaLogDir()
        directory.path = path
        var wanted = AlterReplicaLogDirsRequest.AlterReplicaLogDirTopic()
        wanted.name = topic
        wanted.partitions = [0]
        directory.topics = [wanted]
        request.dirs = [directory]
        return try ask(request, version: 2, at: location).results[0].partitions[0].errorCode
    }

    /// `directory topic-partition size lag`, a copy with `future` behind it.
    func logDirs() throws -> [String] {
        var request = DescribeLogDirsRequest()
        request.topics = nil
        return try ask(request, version: 4).results.flatMap { dir in
            dir.topics.flatMap { topic in
                topic.partitions.map { partition in
                    "\(dir.logDir) \(topic.name)-\(partition.partitionIndex) \(partition.partitionSize) \(partition.offsetLag)"
                        + (partition.isFutureKey ? " future" : "")
                }
            }
        }
    }

    /// The offsets of all batches that a consumer gets from the beginning on.
    func readAll(_ topic: String) throws -> [Offset] {
        var offsets: [Offset] = []
        while true {
            let client = try connect()
            client.send(fetch(topic, [Wanted(offset: (offsets.last ?? -1) + 1)], maxWaitMs: 0, minBytes: 0, id: 1))
            try #require(until { client.frames.count == 1 })
            let response = try client.answer(FetchResponse.self, 0, version: 11)
            client.close()
            let part = try #require(response.responses.first?.partitions.first)
            #expect(part.errorCode == .none)
            guard case .owned(let bytes)? = part.records, !bytes.isEmpty else { return offsets }
            bytes.withUnsafeBytes { buffer in
                var walker = BatchWalker(buffer, checkingChecksums: true)
                while case .batch(_, let header) = walker.next() { offsets += header.baseOffset..<header.nextOffset }
            }
        }
    }
}

@Suite struct AdministrationOfABroker {
    @Test func aPageOfPartitionsHasAtMostWhatTheBrokerAllows() throws {
        let world = try BrokerWorld([("max.request.partition.size.limit", "2")])
        try world.createTopic("a", partitions: 3)
        try world.createTopic("b", partitions: 1)
        var request = DescribeTopicPartitionsRequest()
        var pages: [[String]] = []
        repeat {
            let page = try world.ask(request, version: 0)
            pages.append(page.topics.flatMap { topic in topic.partitions.map { "\(topic.name!)-\($0.partitionIndex)" } })
            request.cursor = page.nextCursor.map { next in
                var cursor = DescribeTopicPartitionsRequest.Cursor()
                (cursor.topicName, cursor.partitionIndex) = (next.topicName, next.partitionIndex)
                return cursor
            }
        } while request.cursor != nil && pages.count < 9
        #expect(pages == [["a-0", "a-1"], ["a-2", "b-0"]])
    }

    @Test func theFirstLookAtRetentionComesAfterItsDelay() throws {
        for (delay, isGone) in [("200", true), ("20000", false)] {
            let world = try BrokerWorld([
                ("log.initial.task.delay.ms", delay), ("log.retention.check.interval.ms", "86400000"),
                ("log.retention.ms", "1"),
            ])
            try world.createTopic("t")
            let client = try world.connect()
            client.send(produce("t", batch(["x"]), id: 1))
            #expect(world.until { client.frames.count == 1 })
            world.simulated.run(for: .seconds(5))
            #expect((world.partition("t")!.logStartOffset == 1) == isGone, "after \(delay) ms")
        }
    }

    @Test func aSegmentSizeThatIsAlteredCountsForTheNextRecord() throws {
        let world = try BrokerWorld()
        try world.createTopic("t")
        let client = try world.connect()
        for id: Int32 in 1...4 {
            if id == 3 { #expect(try world.alter(2, "t", ("segment.bytes", "200")) == .none) }
            client.send(produce("t", batch(["a record of some length, longer than half a segment"]), id: id))
            #expect(world.until { client.frames.count == Int(id) })
        }
        for (place, frame) in client.frames.enumerated() {
            let answer = try client.answer(ProduceResponse.self, place, version: 9)
            #expect(
                answer.responses[0].partitionResponses[0].errorCode == .none,
                "\(frame.count) \(world.partition("t")!.sizeBytes)")
        }
        let names = try world.host.disk.list("/data/t-0").filter { $0.hasSuffix(".log") }
        #expect(names.count == 3, "\(names)")
    }

    @Test func fewerConnectionsAreLetInOnceThatIsAltered() throws {
        let world = try BrokerWorld()
        let first = try world.connect()
        #expect(try world.alter(4, "1", ("max.connections", "1")) == .none)
        world.simulated.run(for: .seconds(1))
        let second = try world.connect()
        second.send(metadata(id: 5))
        world.simulated.run(for: .seconds(1))
        #expect(second.frames.isEmpty && !second.hasEnded, "it is one too many, and waits")
        first.send(metadata(id: 5))
        #expect(world.until { first.frames.count == 1 })
        first.close()
        #expect(world.until { second.frames.count == 1 }, "a place is free")
    }

    @Test func theLevelsOfLoggersAreAlteredAllOrNoneAndOnlyAsLevelsCanBe() throws {
        let world = try BrokerWorld([("martlet.log.level", "info,keeper:error")])
        final class Followed: @unchecked Sendable { var levels: [LogLevels] = [] }
        let followed = Followed()
        world.broker.loggers.follow { followed.levels.append($0) }
        func levels() throws -> [String: String] {
            var request = DescribeConfigsRequest()
            request.resources = [.init()]
            request.resources[0].resourceType = 8
            request.resources[0].resourceName = "1"
            request.resources[0].configurationKeys = nil
            let result = try world.ask(request, version: 4).results[0]
            #expect(result.errorCode == .none && result.configs.allSatisfy { $0.configSource == 6 && !$0.readOnly })
            return Dictionary(uniqueKeysWithValues: result.configs.map { ($0.name, $0.value ?? "") })
        }
        let start = try levels()
        #expect(start["root"] == "INFO" && start["keeper"] == "ERROR" && start["network"] == "INFO")
        #expect(start["transactions"] == "INFO" && start["metrics"] == "INFO")

        #expect(try world.alter(8, "1", ("network", "TRACE"), ("root", "WARN"), ("keeper", nil)) == .none)
        let altered = try levels()
        #expect(altered["root"] == "WARN" && altered["groups"] == "WARN" && altered["keeper"] == "WARN")
        #expect(altered["network"] == "DEBUG", "there is no finer level here")
        let last = try #require(followed.levels.last)
        #expect(last.general == .warning && last.level(of: "network") == .debug && last.level(of: "keeper") == .warning)

        let refused: [([(String, String?)], ErrorCode)] = [
            ([("network", "INFO"), ("kafka.server", "INFO")], .invalidConfig), ([("network", "info")], .invalidConfig),
            ([("network", "LOUD")], .invalidConfig), ([("root", nil)], .invalidRequest),
            ([("network", "INFO"), ("network", "WARN")], .invalidRequest),
        ]
        for (changes, error) in refused {
            var request = IncrementalAlterConfigsRequest()
            request.resources = [.init()]
            request.resources[0].resourceType = 8
            request.resources[0].resourceName = "1"
            request.resources[0].configs = changes.map { name, value in
                var config = IncrementalAlterConfigsRequest.AlterableConfig()
                (config.name, config.value, config.configOperation) = (name, value, value == nil ? 1 : 0)
                return config
            }
            #expect(try world.ask(request, version: 1).responses[0].errorCode == error, "\(changes)")
            request.resources[0].configs = [.init()]
            request.resources[0].configs[0].name = "network"
            request.resources[0].configs[0].value = "ERROR"
            request.validateOnly = true
            #expect(try world.ask(request, version: 1).responses[0].errorCode == .none)
            request.validateOnly = false
            request.resources[0].configs[0].configOperation = 2
            #expect(try world.ask(request, version: 1).responses[0].errorCode == .invalidRequest, "nothing is appended")
        }
        #expect(try levels() == altered && followed.levels.count == 2, "what was refused has changed nothing")
        #expect(try world.alter(8, "2", ("root", "INFO")) == .invalidRequest, "another broker's")
    }

    @Test func aReplicaMovesAsFastAsItMayAndEverythingIsThere() throws {
        let world = try BrokerWorld([("log.dirs", "/data/a,/data/b"), ("log.segment.bytes", "4000")])
        #expect(try world.alter(4, "", ("replica.alter.log.dirs.io.max.bytes.per.second", "2000")) == .none)
        try world.createTopic("t")
        let client = try world.connect()
        for id: Int32 in 1...40 { client.send(produce("t", noise(1000, seed: UInt64(id), codec: .none), id: id)) }
        #expect(world.until { client.frames.count == 40 })
        let (from, to) = world.partition("t")!.directory.path == "/data/a" ? ("/data/a", "/data/b") : ("/data/b", "/data/a")
        let size = world.partition("t")!.sizeBytes
        let before = try world.readAll("t")

        #expect(try world.move("t", to: "/nowhere") == .logDirNotFound)
        #expect(try world.move("absent", to: to) == .unknownTopicOrPartition)
        #expect(try world.move("t", to: from) == .none, "it is there already")
        #expect(try world.move("t", to: to) == .none)
        world.simulated.run(for: .seconds(2))
        let underway = try world.logDirs()
        #expect(underway.contains("\(from) t-0 \(size) 0"), "\(underway)")
        #expect(underway.contains { $0.hasPrefix("\(to) t-0 ") && $0.hasSuffix(" future") }, "\(underway)")
        #expect(try world.move("t", to: from) == .none, "nobody wants it moved any more")
        world.simulated.run(for: .seconds(2))
        #expect(try world.logDirs() == ["\(from) t-0 \(size) 0"])

        #expect(try world.alter(4, "", ("replica.alter.log.dirs.io.max.bytes.per.second", nil)) == .none)
        #expect(try world.move("t", to: to) == .none)
        world.simulated.run(for: .seconds(1))
        #expect(try world.logDirs() == ["\(to) t-0 \(size) 0"])
        #expect(try world.readAll("t") == before)
        client.send(produce("t", batch(["after"]), id: 41))
        #expect(world.until { client.frames.count == 41 })
        #expect(try client.answer(ProduceResponse.self, 40, version: 9).responses[0].partitionResponses[0].errorCode == .none)
        #expect(try world.readAll("t").count == before.count + 1)
    }

    @Test func aDirectoryThatFillsUpWhileAReplicaMovesThereCostsNothing() throws {
        let world = try BrokerWorld([("log.dirs", "/data/a,/data/b")])
        try world.createTopic("t")
        let client = try world.connect()
        client.send(produce("t", noise(100_000, seed: 1, codec: .none), id: 1))
        #expect(world.until { client.frames.count == 1 })
        let from = world.partition("t")!.directory.path
        world.host.files.capacityBytes = world.host.files.usedBytes + 20_000
        #expect(try world.move("t", to: from == "/data/a" ? "/data/b" : "/data/a") == .none)
        world.simulated.run(for: .seconds(2))
        world.host.files.capacityBytes = 1 << 40
        #expect(world.partition("t")!.directory.path == from)
        let folders = try world.host.disk.list("/data/a") + world.host.disk.list("/data/b")
        #expect(!folders.contains { $0.hasSuffix("-future") }, "what was copied is taken away: \(folders)")
        #expect(world.sink.says("a replica could not be moved, and stays where it is"))
        client.send(produce("t", batch(["after"]), id: 2))
        #expect(world.until { client.frames.count == 2 })
        #expect(try !world.readAll("t").isEmpty)
    }

    @Test func requestsOfAdministrationWithChangedBytesEndTheirConnectionAtMost() throws {
        let world = try BrokerWorld([("log.dirs", "/data/a,/data/b")])
        try world.createTopic("t")
        let good = administrativeRequests()
        var random = SeededRandom(seed: 7)
        for round in 0..<400 {
            let client = try world.connect()
            var bytes = good[round % good.count]
            for _ in 0..<random.below(6) { bytes[12 + random.below(bytes.count - 12)] = UInt8(random.below(256)) }
            if random.chance(1, in: 4) {
                bytes.removeLast(random.below(bytes.count - 14))
                let size = UInt32(bytes.count - 4)
                for place in 0..<4 { bytes[place] = UInt8(truncatingIfNeeded: size >> (24 - 8 * UInt32(place))) }
            }
            client.send(bytes)
            #expect(world.until { !client.frames.isEmpty || client.hasEnded }, "round \(round) is never answered")
            client.close()
        }
        #expect(world.until { world.broker.connectionsCount == 0 })
        #expect(world.broker.requestBytesInUse == 0)
        #expect(try world.ask(DescribeClusterRequest(), version: 1).brokers.count == 1)
    }
}

/// One good request of each API, at its highest version.
private func administrativeRequests() -> [[UInt8]] {
    func made<R: WireRequest>(_: R.Type, _ version: Int16, _ change: (inout R) -> Void) -> [UInt8] {
        var request = R()
        change(&request)
        return frame(request, version: version, id: 1)
    }
    return [
        made(DescribeConfigsRequest.self, 4) {
            $0.resources = [.init()]
            $0.resources[0].resourceType = 2
            $0.resources[0].resourceName = "t"
        },
        made(AlterConfigsRequest.self, 2) {
            $0.resources = [.init()]
            $0.resources[0].resourceType = 2
            $0.resources[0].resourceName = "t"
            $0.resources[0].configs = [.init()]
            $0.resources[0].configs[0].name = "retention.ms"
            $0.resources[0].configs[0].value = "5"
        },
        made(IncrementalAlterConfigsRequest.self, 1) {
            $0.resources = [.init()]
            $0.resources[0].resourceType = 4
            $0.resources[0].resourceName = "1"
            $0.resources[0].configs = [.init()]
            $0.resources[0].configs[0].name = "log.retention.ms"
            $0.resources[0].configs[0].value = "500000"
        },
        made(CreatePartitionsRequest.self, 3) {
            $0.topics = [.init()]
            $0.topics[0].name = "t"
            $0.topics[0].count = 2
            $0.topics[0].assignments = [.init()]
            $0.topics[0].assignments![0].brokerIDs = [1]
        },
        made(AlterReplicaLogDirsRequest.self, 2) {
            $0.dirs = [.init()]
            $0.dirs[0].path = "/data/b"
            $0.dirs[0].topics = [.init()]
            $0.dirs[0].topics[0].name = "t"
            $0.dirs[0].topics[0].partitions = [0]
        },
        made(DescribeLogDirsRequest.self, 5) { $0.topics = nil },
        made(ElectLeadersRequest.self, 2) { $0.topicPartitions = nil },
        made(AlterPartitionReassignmentsRequest.self, 1) {
            $0.topics = [.init()]
            $0.topics[0].name = "t"
            $0.topics[0].partitions = [.init()]
            $0.topics[0].partitions[0].replicas = [1]
        },
        made(ListPartitionReassignmentsRequest.self, 0) { _ in },
        made(DescribeTopicPartitionsRequest.self, 0) {
            $0.topics = [.init()]
            $0.topics[0].name = "t"
        },
        made(DescribeProducersRequest.self, 0) {
            $0.topics = [.init()]
            $0.topics[0].name = "t"
            $0.topics[0].partitionIndexes = [0, 1]
        },
        made(ListConfigResourcesRequest.self, 1) { $0.resourceTypes = [2, 4, 8, 16, 32] },
        made(DescribeAclsRequest.self, 3) { _ in },
        made(CreateAclsRequest.self, 3) { $0.creations = [.init()] },
        made(DeleteAclsRequest.self, 3) { $0.filters = [.init()] },
        made(DescribeClientQuotasRequest.self, 1) {
            $0.components = [.init()]
            $0.components[0].entityType = "user"
        },
        made(DescribeUserScramCredentialsRequest.self, 0) { $0.users = nil },
        made(SaslHandshakeRequest.self, 1) { $0.mechanism = "PLAIN" },
        made(SaslAuthenticateRequest.self, 2) { _ in },
        made(GetTelemetrySubscriptionsRequest.self, 0) { _ in },
        made(PushTelemetryRequest.self, 0) { _ in },
    ]
}
