import MartletBasics
import MartletCluster
import MartletKeeper
import MartletModel
import Testing

extension MemberWorld {
    /// Alters settings as a client does; the error.
    func alter(_ target: ConfigTarget, _ changes: ConfigEdit..., at location: SourceLocation = #_sourceLocation) -> ErrorCode
    {
        final class Said: @unchecked Sendable { var error = ErrorCode.none }
        let said = Said()
        run(at: location) { world in
            let fault = await world.member.alterConfig(of: target, validateOnly: false) { $0.changing($1, changes) }
            said.error = fault?.error ?? .none
        }
        return said.error
    }

    /// The keeper's session of another broker: one that writes as Kafka 3.9 does.
    func asAnotherBroker(_ body: @escaping @Sendable (any KeeperSession) async throws -> Void) {
        run { world in
            let session = try await world.keeper.openSession(timeout: .seconds(10), on: world.loop)
            try await body(session)
            await session.close()
        }
    }

    func retention(of topic: String) -> Int64? { replicas.configs[topic]?.retentionMs }
}

private func set(_ name: String, _ value: String?) -> ConfigEdit { ConfigEdit(name, .set, value) }

@Suite struct SettingsAlteredAtRunTime {
    @Test func aTopicsSettingActsWhenItIsAnsweredAndAfterARestart() {
        let world = MemberWorld()
        world.start()
        world.create("t")
        #expect(world.alter(.topic("t"), set("retention.ms", "5000")) == .none)
        #expect(world.retention(of: "t") == 5000)
        #expect(world.alter(.topic("t"), set("flush.ms", "7"), ConfigEdit("retention.ms", .delete, nil)) == .none)
        #expect(world.retention(of: "t") == 604_800_000 && world.replicas.configs["t"]?.flushMs == 7)
        world.stop()
        world.start()
        #expect(world.replicas.configs["t"]?.flushMs == 7)
    }

    @Test func aBrokersSettingsActOnItsTopicsAndSurviveAPowerCut() {
        let world = MemberWorld([("log.retention.hours", "1")])
        world.start()
        for topic in ["own", "plain"] { world.create(topic) }
        #expect(world.alter(.topic("own"), set("retention.ms", "1")) == .none)
        #expect(world.alter(.brokers, set("log.retention.ms", "2000")) == .none)
        #expect(world.retention(of: "plain") == 2000 && world.retention(of: "own") == 1)
        #expect(world.alter(.broker(1), set("log.retention.ms", "3000"), set("max.connections", "5")) == .none)
        #expect(world.retention(of: "plain") == 3000 && world.member.running.current.connectionLimit == 5)
        world.powerCut()
        world.start()
        world.create("new")
        #expect(world.retention(of: "plain") == 3000 && world.retention(of: "new") == 3000 && world.retention(of: "own") == 1)
        #expect(world.member.running.current.connectionLimit == 5)
        #expect(world.alter(.broker(1), ConfigEdit("log.retention.ms", .delete, nil)) == .none)
        #expect(world.retention(of: "plain") == 2000)
        #expect(world.alter(.brokers, ConfigEdit("log.retention.ms", .delete, nil)) == .none)
        #expect(world.retention(of: "plain") == 3_600_000, "the file's again")
    }

    @Test func oneBadSettingAndTheTreeStaysAsItWas() {
        let world = MemberWorld()
        world.start()
        world.create("t")
        let before = world.tree()
        #expect(world.alter(.topic("t"), set("flush.ms", "1"), set("retention.ms", "x")) == .invalidConfig)
        #expect(world.alter(.broker(1), set("max.connections", "1"), set("num.partitions", "3")) == .invalidRequest)
        #expect(world.alter(.brokers, set("log.roll.ms", "0")) == .invalidRequest)
        #expect(world.alter(.group("g"), set("consumer.session.timeout.ms", "1")) == .invalidConfig)
        #expect(world.alter(.topic("gone"), set("flush.ms", "1")) == .unknownTopicOrPartition)
        #expect(world.tree() == before)
        #expect(world.member.running.current.connectionLimit == .max)
    }

    @Test func settingsLieWhereKafkaKeepsThemWithANotificationEach() {
        let world = MemberWorld()
        world.start()
        world.create("t")
        #expect(world.alter(.topic("t"), set("retention.ms", "-1")) == .none)
        #expect(world.alter(.brokers, set("log.cleaner.threads", "2")) == .none)
        #expect(world.alter(.broker(1), set("log.cleaner.threads", "3")) == .none)
        #expect(world.alter(.group("../a b"), set("share.auto.offset.reset", "earliest")) == .none)
        let lines = world.tree().filter { $0.hasPrefix("/config/") }
        for line in [
            #"/config/topics/t {"version":1,"config":{"retention.ms":"-1"}}"#,
            #"/config/brokers/<default> {"version":1,"config":{"log.cleaner.threads":"2"}}"#,
            #"/config/brokers/1 {"version":1,"config":{"log.cleaner.threads":"3"}}"#,
            #"/config/changes/config_change_0000000000 {"version":2,"entity_path":"topics/t"}"#,
            #"/config/changes/config_change_0000000001 {"version":2,"entity_path":"brokers/<default>"}"#,
            #"/config/changes/config_change_0000000002 {"version":2,"entity_path":"brokers/1"}"#,
            #"/config/groups/..%2Fa%20b {"version":1,"config":{"share.auto.offset.reset":"earliest"}}"#,
        ] {
            #expect(lines.contains(line), "\(line) is not among \(lines)")
        }
        #expect(world.alter(.group("../a b"), ConfigEdit("share.auto.offset.reset", .delete, nil)) == .none)
        #expect(!world.tree().contains { $0.hasPrefix("/config/groups/") }, "a group without settings is not there")
    }

    @Test func whatAnotherBrokerWritesActsHere() {
        let world = MemberWorld()
        world.start()
        world.create("t")
        world.asAnotherBroker { session in
            let settings = #""log.retention.ms":"77","of.the.future":"1","num.partitions":"9","max.connections":"x""#
            let all = "{\"version\":1,\"config\":{\(settings)}}"
            _ = try await session.create("/config/brokers/<default>", Array(all.utf8))
            let change = #"{"version":2,"entity_path":"brokers/<default>"}"#
            _ = try await session.create("/config/changes/config_change_", Array(change.utf8), .persistentSequential)
        }
        world.simulated.run(for: .seconds(1))
        #expect(world.retention(of: "t") == 77)
        #expect(world.member.running.current.partitions == 1 && world.member.running.current.connectionLimit == .max)
        #expect(
            world.alter(.brokers, set("log.flush.interval.messages", "4")) == .none,
            "what it does not know stays, and is in nobody's way")
        #expect(world.tree().contains { $0.contains("of.the.future") && $0.contains("log.flush.interval.messages") })
    }

    @Test func notificationsOfEveryKindOfNonsenseChangeNothing() {
        let world = MemberWorld()
        world.start()
        world.create("t")
        world.asAnotherBroker { session in
            for text in [
                "", "{", #"{"version":2}"#, #"{"version":2,"entity_path":"topics/absent"}"#,
                #"{"version":2,"entity_path":"topics/t/x"}"#,
                #"{"version":2,"entity_path":"brokers/x"}"#, #"{"version":2,"entity_path":"brokers/2"}"#,
                #"{"version":2,"entity_path":"users/alice/clients/app"}"#,
            ] {
                _ = try await session.create("/config/changes/config_change_", Array(text.utf8), .persistentSequential)
            }
            _ = try await session.create("/config/changes/other", nil)
        }
        world.simulated.run(for: .seconds(1))
        #expect(world.alter(.topic("t"), set("retention.ms", "5000")) == .none)
        #expect(world.retention(of: "t") == 5000)
    }

    @Test func twoWhoAlterOneTopicAtOnceLoseNothing() {
        let world = MemberWorld(loops: 2)
        world.start()
        world.create("t")
        world.run { world in
            let names = ["flush.ms", "flush.messages", "retention.ms", "retention.bytes", "segment.ms"]
            await withTaskGroup(of: ConfigFault?.self) { group in
                for name in names {
                    group.addTask {
                        await world.member.alterConfig(of: .topic("t"), validateOnly: false) {
                            $0.changing($1, [set(name, "1000000")])
                        }
                    }
                }
                for await fault in group { #expect(fault == nil) }
            }
            let stored = await world.member.overrides(of: .topic("t"))
            #expect(stored?.map(\.name) == names.sorted())
        }
    }
}

@Suite struct TopicsThatGrow {
    @Test func newPartitionsAreServedAndStayAfterARestart() {
        let world = MemberWorld()
        world.start()
        world.create("t", partitions: 2)
        world.run { world in
            #expect(await world.member.growTopic("t", to: 4, assignments: nil, validateOnly: true) == nil)
            #expect(world.told == ["t-0 1/0", "t-1 1/0"])
            #expect(await world.member.growTopic("t", to: 4, assignments: nil, validateOnly: false) == nil)
            #expect(world.told == ["t-0 1/0", "t-1 1/0", "t-2 1/0", "t-3 1/0"])
            #expect(await world.member.growTopic("t", to: 5, assignments: [[1]], validateOnly: false) == nil)
            for (count, assignments, error) in [
                (5, nil, ErrorCode.invalidPartitions), (1, nil, .invalidPartitions), (20_000, nil, .policyViolation),
                (6, [[7]], .invalidReplicaAssignment), (7, [[1]], .invalidReplicaAssignment),
                (6, [[]], .invalidReplicaAssignment),
            ] as [(Int32, [[BrokerID]]?, ErrorCode)] {
                #expect(
                    await world.member.growTopic("t", to: count, assignments: assignments, validateOnly: false)?.error == error)
            }
            #expect(
                await world.member.growTopic("no", to: 5, assignments: nil, validateOnly: false)?.error
                    == .unknownTopicOrPartition)
        }
        world.stop()
        world.start()
        #expect(world.told.count == 5)
    }
}
