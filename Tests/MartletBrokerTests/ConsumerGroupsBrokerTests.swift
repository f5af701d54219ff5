import MartletBasics
import MartletBroker
import MartletModel
import MartletSimulation
import MartletWire
import Testing

/// Consumer groups through a whole broker: requests as bytes, settings, and what is on disk after a kill.
@Suite struct ConsumerGroupsBrokerTests {
    private func ready(_ settings: [(name: String, value: String)], partitions: Int32 = 4) throws -> (BrokerWorld, GroupClient)
    {
        let world = try BrokerWorld([(name: "group.initial.rebalance.delay.ms", value: "0")] + settings)
        try world.createTopic("t", partitions: partitions)
        let client = try GroupClient(world)
        try client.find("g")
        return (world, client)
    }

    private func beat(_ client: GroupClient, _ member: TestMember) throws -> ConsumerGroupHeartbeatResponse {
        let event = member.event()
        var request = ConsumerGroupHeartbeatRequest()
        (request.groupID, request.memberID, request.memberEpoch) = (event.group, event.memberID, event.epoch)
        (request.instanceID, request.rackID, request.serverAssignor) = (event.instanceID, event.rackID, event.assignor)
        request.rebalanceTimeoutMs = event.rebalanceTimeoutMs
        (request.subscribedTopicNames, request.subscribedTopicRegex) = (event.topics, event.pattern)
        request.topicPartitions = event.owned?.map { topic, partitions in
            var owned = ConsumerGroupHeartbeatRequest.TopicPartitions()
            (owned.topicID, owned.partitions) = (topic, partitions)
            return owned
        }
        client.send(request, version: 1)
        let response = try client.answer(ConsumerGroupHeartbeatResponse.self, version: 1)
        guard response.errorCode == .none else {
            member.take(.failed(response.errorCode))
            return response
        }
        var reply = ConsumerHeartbeatReply(memberID: member.id, epoch: response.memberEpoch)
        reply.assignment = response.assignment.map { assignment in
            PartitionSet(assignment.topicPartitions.map { ($0.topicID, $0.partitions) }, uniquingKeysWith: { $1 })
        }
        member.take(.consumerHeartbeat(reply))
        return response
    }

    private func alter(_ client: GroupClient, _ settings: (String, String)...) throws -> ErrorCode {
        var resource = IncrementalAlterConfigsRequest.AlterConfigsResource()
        (resource.resourceType, resource.resourceName) = (32, "g")
        resource.configs = settings.map { name, value in
            var config = IncrementalAlterConfigsRequest.AlterableConfig()
            (config.name, config.value) = (name, value)
            return config
        }
        var request = IncrementalAlterConfigsRequest()
        request.resources = [resource]
        client.send(request, version: 1)
        return try client.answer(IncrementalAlterConfigsResponse.self, version: 1).responses[0].errorCode
    }

    @Test("the broker's settings of consumer groups count")
    func theBrokersSettingsCount() throws {
        let (world, client) = try ready([
            ("group.consumer.min.session.timeout.ms", "1000"), ("group.consumer.session.timeout.ms", "1500"),
            ("group.consumer.min.heartbeat.interval.ms", "100"), ("group.consumer.heartbeat.interval.ms", "200"),
            ("group.consumer.assignment.interval.ms", "3000"), ("group.consumer.max.size", "2"),
            ("group.consumer.assignors", "range"),
        ])
        let (a, b, c) = (TestMember("a"), TestMember("b"), TestMember("c"))
        #expect(try beat(client, a).heartbeatIntervalMs == 200)
        for _ in 0..<3 {
            _ = try beat(client, a)
            _ = try beat(client, b)
            world.simulated.run(for: .milliseconds(500))
        }
        #expect(a.count == 4 && b.count == 0, "the next assignment waits")
        #expect(try beat(client, c).errorCode == .groupMaxSizeReached)
        for _ in 0..<6 {
            _ = try beat(client, a)
            _ = try beat(client, b)
            world.simulated.run(for: .milliseconds(500))
        }
        #expect(a.count == 2 && b.count == 2)
        c.assignor = "uniform"
        #expect(try beat(client, c).errorCode == .unsupportedAssignor)
        world.simulated.run(for: .milliseconds(1_600))
        #expect(try beat(client, a).errorCode == .unknownMemberID, "its session is over")
    }

    @Test("a group has settings of its own, within the broker's bounds, and they count at once")
    func groupsHaveSettingsOfTheirOwn() throws {
        let (world, client) = try ready([
            ("group.consumer.min.session.timeout.ms", "1000"), ("group.consumer.max.session.timeout.ms", "50000"),
            ("group.consumer.min.heartbeat.interval.ms", "100"), ("group.consumer.max.heartbeat.interval.ms", "9000"),
            ("group.consumer.min.assignment.interval.ms", "10"), ("group.consumer.max.assignment.interval.ms", "7000"),
            ("group.consumer.assignment.interval.ms", "7000"),
        ])
        for (name, value) in [
            ("consumer.session.timeout.ms", "999"), ("consumer.session.timeout.ms", "50001"),
            ("consumer.heartbeat.interval.ms", "99"),
            ("consumer.heartbeat.interval.ms", "9001"), ("consumer.assignment.interval.ms", "9"),
            ("consumer.assignment.interval.ms", "7001"),
        ] {
            #expect(try alter(client, (name, value)) == .invalidConfig, "\(name)=\(value)")
        }
        let (a, b) = (TestMember("a"), TestMember("b"))
        #expect(try beat(client, a).heartbeatIntervalMs == 5_000)
        #expect(
            try alter(
                client, ("consumer.heartbeat.interval.ms", "300"), ("consumer.session.timeout.ms", "1200"),
                ("consumer.assignment.interval.ms", "10")) == .none)
        #expect(try beat(client, a).heartbeatIntervalMs == 300)
        world.simulated.run(for: .milliseconds(20))
        for _ in 0..<4 {
            _ = try beat(client, b)
            _ = try beat(client, a)
        }
        #expect(a.count == 2 && b.count == 2, "the assignment did not wait for seven seconds")
        world.simulated.run(for: .milliseconds(1_300))
        #expect(try beat(client, a).errorCode == .unknownMemberID)
    }

    @Test("where the policy forbids it a live classic group stays what it is")
    func thePolicyOfMigrationCounts() throws {
        let (_, client) = try ready([("group.consumer.migration.policy", "downgrade")])
        let joined = try client.join("g", id: try client.join("g").memberID)
        #expect(joined.errorCode == .none)
        #expect(try beat(client, TestMember("a")).errorCode == .groupIDNotFound)
        #expect(try client.heartbeat("g", joined.memberID, joined.generationID) == .none)
    }

    @Test("the consumer protocol can be switched off")
    func theProtocolCanBeSwitchedOff() throws {
        let (_, client) = try ready([("group.coordinator.rebalance.protocols", "classic")])
        let response = try beat(client, TestMember("a"))
        #expect(response.errorCode == .unsupportedVersion && response.errorMessage != nil)
    }
}
