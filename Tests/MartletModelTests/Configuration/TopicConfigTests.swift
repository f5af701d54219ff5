import MartletModel
import Testing

@Suite struct TopicConfigs {
    func resolver(_ text: String = "") throws -> TopicConfigResolver { try broker(text).topics }

    /// What CreateTopics answered to each when it was asked of Kafka.
    @Test(arguments: [
        ("no.such.config", "1", false), ("retention.ms", "abc", false), ("retention.ms", "", false),
        ("retention.ms", "-2", false),
        ("retention.ms", nil, false), ("cleanup.policy", "shred", false), ("cleanup.policy", "compact,delete", true),
        ("cleanup.policy", "compact, delete", true), ("cleanup.policy", "", true), ("compression.type", "rar", false),
        ("compression.type", "ZSTD", false), ("segment.bytes", "1", false), ("max.message.bytes", "-1", false),
        ("min.insync.replicas", "0", false), ("min.insync.replicas", "5", true),
        ("min.cleanable.dirty.ratio", "1.5", false),
        ("preallocate", "maybe", false), ("preallocate", "TRUE", true), ("message.timestamp.type", "Never", false),
        ("message.format.version", "2.8", false), ("retention.ms", " 5 ", true), ("flush.messages", "0", false),
        ("", "1", false),
        ("log.retention.ms", "1", false), ("segment.ms", "0", false), ("message.downconversion.enable", "true", false),
        ("remote.storage.enable", "true", false), ("martlet.durability", "page-cache", true), ("broker.id", "1", false),
        ("min.compaction.lag.ms", "9223372036854775807", true), ("max.compaction.lag.ms", "0", false),
    ] as [(String, String?, Bool)])
    func whatKafkaTakesIsTakenAndWhatItRefusesIsRefused(_ name: String, _ value: String?, _ good: Bool) throws {
        do {
            #expect(try resolver().validated([(name, value)]).map(\.name) == [name])
            #expect(good, "\(name)=\(value ?? "null")")
        } catch let error as ConfigError {
            #expect(!good, "\(error)")
            #expect(error.description.contains(name))
        }
    }

    @Test func lagsOfCompactionMustNotCross() throws {
        let error = try #require(throws: ConfigError.self) {
            try resolver().validated([("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "4")])
        }
        #expect(error.reason == .contradiction)
    }

    @Test func ofASettingGivenTwiceTheLastCountsAndValuesAreStoredNormalised() throws {
        let stored = try resolver().validated([("retention.ms", "1000"), ("preallocate", "TRUE"), ("retention.ms", " 2000")])
        #expect(stored.map { "\($0.name)=\($0.value)" } == ["preallocate=true", "retention.ms=2000"])
    }

    @Test func anUnknownSettingIsAnsweredWithTheNearest() throws {
        let error = try #require(throws: ConfigError.self) { try resolver().validated([("retention.sm", "1")]) }
        #expect(error.description == "there is no topic setting 'retention.sm'; the nearest is 'retention.ms'")
        let long = try #require(throws: ConfigError.self) { try resolver().validated([(String(repeating: "x", count: 100_000), "1")]) }
        #expect(long.description.utf8.count < 300)
        let value = try #require(throws: ConfigError.self) { try resolver().validated([("retention.ms", String(repeating: "9", count: 100_000))]) }
        #expect(value.description.utf8.count < 400)
    }

    @Test func everyConfigOfATopicIsToldWithItsSource() throws {
        let plain = try resolver().entries([])
        #expect(plain.map(\.name) == [
            "cleanup.policy", "compression.gzip.level", "compression.lz4.level", "compression.type",
            "compression.zstd.level",
            "delete.retention.ms", "file.delete.delay.ms", "flush.messages", "flush.ms",
            "follower.replication.throttled.replicas",
            "index.interval.bytes", "leader.replication.throttled.replicas", "local.retention.bytes",
            "local.retention.ms",
            "max.compaction.lag.ms", "max.message.bytes", "message.timestamp.after.max.ms",
            "message.timestamp.before.max.ms",
            "message.timestamp.type", "min.cleanable.dirty.ratio", "min.compaction.lag.ms", "min.insync.replicas",
            "preallocate",
            "remote.log.copy.disable", "remote.log.delete.on.disable", "remote.storage.enable", "retention.bytes",
            "retention.ms",
            "segment.bytes", "segment.index.bytes", "segment.jitter.ms", "segment.ms", "unclean.leader.election.enable",
        ])
        #expect(plain.allSatisfy { $0.source == .defaultValue && !$0.isReadOnly && !$0.isSensitive })
        #expect(plain.first { $0.name == "min.cleanable.dirty.ratio" }?.value == "0.5")
        #expect(plain.first { $0.name == "retention.ms" }?.value == "604800000")
    }

    @Test func aTopicsOwnValueCountsBeforeTheBrokersAndThatBeforeTheDefault() throws {
        let resolver = try resolver("log.retention.hours=2\nmessage.max.bytes=2000\ncompression.type=gzip\nmartlet.durability=page-cache")
        let entries = resolver.entries([(name: "max.message.bytes", value: "3000")])
        func told(_ name: String) -> String? {
            entries.first { $0.name == name }.map { "\($0.value ?? "null") \($0.source.rawValue)" }
        }
        #expect(told("max.message.bytes") == "3000 1")
        #expect(told("retention.ms") == "7200000 4")
        #expect(told("compression.type") == "gzip 4")
        #expect(told("cleanup.policy") == "delete 5")
        #expect(told("martlet.durability") == "page-cache 4")
        #expect(resolver.defaults.durability == .pageCache)
        #expect(resolver.defaults.compression == .codec(.gzip))
        #expect(resolver.defaults.maxMessageBytes == 2000)
        let (config, faults) = resolver.resolve([(name: "max.message.bytes", value: "3000"), (name: "martlet.durability", value: "fsync")])
        #expect(faults.isEmpty)
        #expect(config.maxMessageBytes == 3000)
        #expect(config.durability == .fsync)
        #expect(config.retentionMs == 7_200_000)
    }

    @Test func aStoredSettingThatCannotBeTakenDoesNotKeepTheOthersFromCounting() throws {
        let (config, faults) = try resolver().resolve([
            (name: "message.format.version", value: "2.8"), (name: "retention.ms", value: "x"),
            (name: "segment.ms", value: "77"),
        ])
        #expect(config.segmentMs == 77)
        #expect(config.retentionMs == 604_800_000)
        #expect(faults.map(\.setting) == ["message.format.version", "retention.ms"])
        #expect(try resolver().entries([(name: "retention.ms", value: "x")]) == resolver().entries([]))
    }

    @Test func eachSettingOfATopicReachesItsField() throws {
        let config = try resolver().resolve([
            (name: "cleanup.policy", value: "compact,delete"), (name: "compression.type", value: "uncompressed"),
            (name: "compression.gzip.level", value: "1"), (name: "compression.lz4.level", value: "2"),
            (name: "compression.zstd.level", value: "-3"), (name: "delete.retention.ms", value: "4"),
            (name: "file.delete.delay.ms", value: "5"), (name: "flush.messages", value: "6"),
            (name: "flush.ms", value: "7"),
            (name: "index.interval.bytes", value: "8"), (name: "max.message.bytes", value: "9"),
            (name: "message.timestamp.type", value: "LogAppendTime"),
            (name: "message.timestamp.after.max.ms", value: "10"),
            (name: "message.timestamp.before.max.ms", value: "11"), (name: "min.cleanable.dirty.ratio", value: "0.25"),
            (name: "min.compaction.lag.ms", value: "12"), (name: "max.compaction.lag.ms", value: "13"),
            (name: "min.insync.replicas", value: "14"), (name: "preallocate", value: "true"),
            (name: "retention.bytes", value: "15"),
            (name: "retention.ms", value: "16"), (name: "segment.bytes", value: "17"),
            (name: "segment.index.bytes", value: "18"),
            (name: "segment.jitter.ms", value: "19"), (name: "segment.ms", value: "20"),
            (name: "unclean.leader.election.enable", value: "true"), (name: "martlet.durability", value: "page-cache"),
        ]).config
        var expected = TopicConfig()
        expected.cleanupPolicy = [.compact, .delete]
        expected.compression = .codec(.none)
        expected.gzipLevel = 1
        expected.lz4Level = 2
        expected.zstdLevel = -3
        expected.deleteRetentionMs = 4
        expected.fileDeleteDelayMs = 5
        expected.flushMessages = 6
        expected.flushMs = 7
        expected.indexIntervalBytes = 8
        expected.maxMessageBytes = 9
        expected.messageTimestampType = .logAppendTime
        expected.messageTimestampAfterMaxMs = 10
        expected.messageTimestampBeforeMaxMs = 11
        expected.minCleanableDirtyRatio = 0.25
        expected.minCompactionLagMs = 12
        expected.maxCompactionLagMs = 13
        expected.minInsyncReplicas = 14
        expected.preallocate = true
        expected.retentionBytes = 15
        expected.retentionMs = 16
        expected.segmentBytes = 17
        expected.segmentIndexBytes = 18
        expected.segmentJitterMs = 19
        expected.segmentMs = 20
        expected.uncleanLeaderElection = true
        expected.durability = .pageCache
        #expect(config == expected)
    }

    @Test func settingsWithoutEffectAreNamed() throws {
        #expect(try resolver().inert([(name: "retention.ms", value: "1"), (name: "preallocate", value: "true")])
            == ["preallocate"])
    }
}
