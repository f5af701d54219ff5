import MartletModel
import Testing

private typealias Stored = ConfigAlteration.Stored

private func broker(_ settings: [(name: String, value: String)] = []) throws -> BrokerConfig {
    try BrokerConfig.resolve(overrides: settings)
}

private func set(_ name: String, _ value: String?) -> ConfigEdit { ConfigEdit(name, .set, value) }

/// What is to be stored, as `name=value`.
private func stored(_ result: Result<Stored, ConfigFault>) throws -> [String] {
    try result.get().map { "\($0.name)=\($0.value)" }
}

private func error(_ result: Result<Stored, ConfigFault>) -> ErrorCode {
    switch result {
    case .success: .none
    case .failure(let fault): fault.error
    }
}

@Suite struct AlteredSettings {
    @Test func oneBadValueAndNothingIsAltered() throws {
        let alteration = ConfigAlteration(of: .topic("t"), try broker())
        let present = [(name: "flush.ms", value: "5")]
        for bad in [
            set("retention.ms", "x"), set("segment.bytes", "1"), set("no.such", "1"),
            ConfigEdit("retention.ms", .append, "5"),
            ConfigEdit("cleanup.policy", .append, "shred"),
        ] {
            #expect(error(alteration.changing(present, [set("flush.messages", "9"), bad])) == .invalidConfig, "\(bad)")
        }
        for bad in [set("retention.ms", nil), ConfigEdit("retention.ms", nil, "1"), set("flush.messages", "8")] {
            #expect(error(alteration.changing(present, [set("flush.messages", "9"), bad])) == .invalidRequest, "\(bad)")
        }
        #expect(try stored(alteration.changing(present, [set("flush.messages", "9")])) == ["flush.messages=9", "flush.ms=5"])
    }

    @Test func valuesThatContradictWhatIsThereAreRefused() throws {
        let alteration = ConfigAlteration(of: .topic("t"), try broker())
        let present = [(name: "max.compaction.lag.ms", value: "1000")]
        #expect(error(alteration.changing(present, [set("min.compaction.lag.ms", "2000")])) == .invalidConfig)
        #expect(
            error(alteration.replacing(present, by: [set("min.compaction.lag.ms", "2000")])) == .none, "what is not named goes")
    }

    @Test func listsGrowFromWhatCountsNow() throws {
        let compacting = try broker([("log.cleanup.policy", "compact")])
        let alteration = ConfigAlteration(of: .topic("t"), compacting)
        let append = ConfigEdit("cleanup.policy", .append, "delete")
        #expect(try stored(alteration.changing([], [append])) == ["cleanup.policy=compact,delete"])
        let subtract = ConfigEdit("cleanup.policy", .subtract, "compact")
        #expect(
            try stored(alteration.changing([(name: "cleanup.policy", value: "compact,delete")], [subtract])) == [
                "cleanup.policy=delete"
            ])
    }

    @Test func whatAnotherReleaseSetDoesNotStandInTheWay() throws {
        let alteration = ConfigAlteration(of: .topic("t"), try broker())
        let present = [(name: "of.the.future", value: "1"), (name: "retention.ms", value: "forever")]
        #expect(
            try stored(alteration.changing(present, [set("flush.ms", "7")])) == [
                "flush.ms=7", "of.the.future=1", "retention.ms=forever",
            ])
    }

    @Test func aBrokerIsAlteredOnlyInWhatIsDynamic() throws {
        let config = try broker()
        let one = ConfigAlteration(of: .broker(1), config), all = ConfigAlteration(of: .brokers, config)
        for (name, value) in [
            ("num.partitions", "3"), ("listeners", "SSL://:1"), ("message.max.bytes", "-5"), ("no.such", "1"),
            ("ssl.key.password", "hunter2"), ("log.retention.ms", "0"),
        ] {
            #expect(error(one.changing([], [set(name, value)])) == .invalidRequest, "\(name)")
            #expect(error(all.changing([], [set(name, value)])) == .invalidRequest, "\(name)")
        }
        for (name, value) in [("cordoned.log.dirs", "/a"), ("listeners", "PLAINTEXT://:1")] {
            #expect(error(one.changing([], [set(name, value)])) == .none)
            #expect(error(all.changing([], [set(name, value)])) == .invalidRequest, "\(name) is one broker's")
        }
        #expect(try stored(all.changing([], [set("log.retention.ms", " 5000 ")])) == ["log.retention.ms=5000"])
    }

    @Test func nobodyIsShutOutByTwoAlterationsThatAreGoodAlone() throws {
        let config = try broker().altered(clusterWide: [:], own: ["max.connections.per.ip.overrides": .string("10.0.0.1:5")])
        #expect(error(ConfigAlteration(of: .brokers, config).changing([], [set("max.connections.per.ip", "0")])) == .none)
        let open = try broker()
        #expect(
            error(ConfigAlteration(of: .brokers, open).changing([], [set("max.connections.per.ip", "0")])) == .invalidRequest)
    }

    @Test(arguments: [
        ("consumer.session.timeout.ms", "50000", ErrorCode.none), ("consumer.session.timeout.ms", "44999", .invalidConfig),
        ("consumer.session.timeout.ms", "60001", .invalidConfig), ("consumer.heartbeat.interval.ms", "4999", .invalidConfig),
        ("share.record.lock.duration.ms", "14999", .invalidConfig), ("streams.num.standby.replicas", "3", .invalidConfig),
        ("share.auto.offset.reset", "never", .invalidConfig), ("share.auto.offset.reset", "by_duration:P1DT2H3M4.5S", .none),
        ("share.auto.offset.reset", "by_duration:PT", .invalidConfig),
        ("share.auto.offset.reset", "by_duration:", .invalidConfig),
        ("share.auto.offset.reset", "by_duration:PT1S1H", .invalidConfig),
        ("share.auto.offset.reset", "by_duration:-PT1S", .invalidConfig),
    ])
    func aGroupStaysWithinTheBrokersBounds(name: String, value: String, verdict: ErrorCode) throws {
        #expect(error(ConfigAlteration(of: .group("g"), try broker()).changing([], [set(name, value)])) == verdict)
    }

    @Test func theLayersOfABrokersSettingCountInTheirOrder() throws {
        let name = "log.segment.delete.delay.ms"
        let config = try broker([(name, "10")])
        func seen(_ config: BrokerConfig) -> [String] {
            let told = config.describeBroker().first { $0.name == name }!
            let topics = config.describeTopic([]).first { $0.name == "file.delete.delay.ms" }!
            #expect(topics.value == told.value && topics.source == told.source, "topics have what the broker has")
            #expect(config.topics.defaults.fileDeleteDelayMs == Int64(told.value!))
            return ["\(told.value!) of \(told.source)"] + told.synonyms.map { "\($0.value!) of \($0.source)" }
        }
        #expect(seen(config) == ["10 of staticBroker", "10 of staticBroker", "60000 of defaultValue"])
        let wide = try config.altered(clusterWide: [name: .integer(20)], own: [:])
        #expect(
            seen(wide) == [
                "20 of dynamicDefaultBroker", "20 of dynamicDefaultBroker", "10 of staticBroker", "60000 of defaultValue",
            ])
        let own = try wide.altered(clusterWide: [name: .integer(20)], own: [name: .integer(30)])
        #expect(seen(own).first == "30 of dynamicBroker")
        #expect(seen(try own.altered(clusterWide: [:], own: [:])).first == "10 of staticBroker")
    }

    @Test func theUnitThatCountsIsToldWhateverLayerItIsOf() throws {
        let config = try broker([("log.retention.hours", "2")]).altered(
            clusterWide: ["log.retention.ms": .integer(9)], own: [:])
        #expect(config.topics.defaults.retentionMs == 9)
        let told = config.describeTopic([]).first { $0.name == "retention.ms" }!
        #expect(told.source == .dynamicDefaultBroker && told.value == "9")
        #expect(told.synonyms.map(\.name) == ["log.retention.ms", "log.retention.hours", "log.retention.hours"])
    }

    @Test func secretsAreNeverTold() throws {
        let config = try broker([("ssl.key.password", "hunter2")])
        let told = config.describeBroker().first { $0.name == "ssl.key.password" }!
        #expect(told.value == nil && told.definition.isSecret && told.synonyms.allSatisfy { $0.value == nil })
    }
}
