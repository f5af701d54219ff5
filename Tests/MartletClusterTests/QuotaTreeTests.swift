import MartletBasics
import MartletCluster
import MartletKeeper
import MartletModel
import Testing

/// Quotas in the coordination tree: where Kafka 3.9 keeps them, as it writes them, and taken over from it.
@Suite struct QuotasInTheTree {
    private func alter(_ world: MemberWorld, _ entity: QuotaEntity, _ edits: QuotaEdit...) {
        world.run { world in
            let fault = await world.member.alterQuotas(of: entity, edits, validateOnly: false)
            #expect(fault == nil, "\(entity): \(fault.map { "\($0)" } ?? "")")
        }
    }

    @Test func lieWhereKafkaKeepsThemWithANotificationEach() {
        let world = MemberWorld()
        world.start()
        let bytes = [QuotaEdit("producer_byte_rate", 1_000_000), QuotaEdit("consumer_byte_rate", 2_000_000)]
        alter(world, .user(.named("alice")), bytes[0], bytes[1])
        alter(world, .user(.everyOther), QuotaEdit("controller_mutation_rate", 5))
        alter(world, .client(.named("per cent%&/é")), QuotaEdit("request_percentage", 50))
        alter(world, .client(.everyOther), QuotaEdit("request_percentage", 12.5))
        alter(world, .userClient(user: .named("bob"), client: .named("app")), bytes[0])
        alter(world, .userClient(user: .named("alice"), client: .everyOther), bytes[1])
        alter(world, .address(.named("10.0.0.1")), QuotaEdit("connection_creation_rate", 10))
        alter(world, .address(.everyOther), QuotaEdit("connection_creation_rate", 20))
        let lines = world.tree().filter { $0.hasPrefix("/config/") }
        for line in [
            #"/config/users/alice {"version":1,"config":{"consumer_byte_rate":"2000000","producer_byte_rate":"1000000"}}"#,
            #"/config/users/<default> {"version":1,"config":{"controller_mutation_rate":"5.0"}}"#,
            #"/config/clients/per%20cent%25%26%2F%C3%A9 {"version":1,"config":{"request_percentage":"50.0"}}"#,
            #"/config/clients/<default> {"version":1,"config":{"request_percentage":"12.5"}}"#,
            "/config/users/bob", "/config/users/bob/clients",
            #"/config/users/bob/clients/app {"version":1,"config":{"producer_byte_rate":"1000000"}}"#,
            #"/config/users/alice/clients/<default> {"version":1,"config":{"consumer_byte_rate":"2000000"}}"#,
            #"/config/ips/10.0.0.1 {"version":1,"config":{"connection_creation_rate":"10"}}"#,
            #"/config/ips/<default> {"version":1,"config":{"connection_creation_rate":"20"}}"#,
        ] {
            #expect(lines.contains(line), "\(line) is not among \(lines)")
        }
        let changes = lines.filter { $0.hasPrefix("/config/changes/") }.sorted()
            .compactMap { $0.split(separator: " ", maxSplits: 1).last }
        let told = [
            "users/alice", "users/<default>", "clients/per%20cent%25%26%2F%C3%A9", "clients/<default>", "users/bob/clients/app",
            "users/alice/clients/<default>", "ips/10.0.0.1", "ips/<default>",
        ]
        #expect(changes == told.map { Substring(#"{"version":2,"entity_path":"\#($0)"}"#) })
    }

    @Test func ofAnotherBrokerCountHereAsSoonAsItTellsOfThem() {
        let world = MemberWorld()
        world.start()
        world.asAnotherBroker { session in
            func write(_ path: String, _ text: String?) async throws {
                _ = try await session.create(path, text.map { Array($0.utf8) })
            }
            try await write("/config/users/alice", nil)
            try await write("/config/users/alice/clients", nil)
            try await write("/config/users/alice/clients/a%20b", #"{"version":1,"config":{"producer_byte_rate":"77"}}"#)
            try await write(
                "/config/users/<default>",
                #"{"version":1,"config":{"SCRAM-SHA-256":"salt=c2E=","consumer_byte_rate":"88","request_percentage":"-1"}}"#)
            for entity in ["users/alice/clients/a%20b", "users/<default>"] {
                let change = #"{"version":2,"entity_path":"\#(entity)"}"#
                _ = try await session.create("/config/changes/config_change_", Array(change.utf8), .persistentSequential)
            }
        }
        world.simulated.run(for: .seconds(1))
        world.run { world in
            let quotas = await world.member.currentQuotas()
            #expect(quotas.bound(.producerBytes, user: "alice", client: "a b")?.value == 77)
            #expect(quotas.bound(.producerBytes, user: "alice", client: "c") == nil)
            #expect(quotas.bound(.consumerBytes, user: "carol", client: "c")?.value == 88)
            #expect(quotas.bound(.requestTime, user: "carol", client: "c") == nil, "what is no bound is passed over")
        }
        alter(world, .user(.everyOther), QuotaEdit("consumer_byte_rate", 99), QuotaEdit("request_percentage", nil))
        #expect(
            world.tree().contains(
                #"/config/users/<default> {"version":1,"config":{"SCRAM-SHA-256":"salt=c2E=","consumer_byte_rate":"99"}}"#),
            "credentials stay as they are")
    }
}
