import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

extension LeadingReplicas {
    /// What the leader says at once to one record of a producer.
    fileprivate func append(sequence: Int32, _ acknowledgement: Acknowledgement) -> ErrorCode {
        append([(nil, "v")], identity: BatchIdentity(producerID: 7, epoch: 0, baseSequence: sequence), acknowledgement)
    }
}

@Suite struct SettingsOfABroker {
    @Test(arguments: [("1000", ErrorCode.none), ("86400000", .outOfOrderSequenceNumber)])
    func aProducerThatWritesNothingIsForgottenInItsTime(expiration: String, answer: ErrorCode) {
        let broker = LeadingReplicas([("producer.id.expiration.ms", expiration)])
        #expect(broker.append(sequence: 0, .written) == .none)
        #expect(broker.append(sequence: 90, .written) == .outOfOrderSequenceNumber, "it is known, and a gap is seen")
        broker.world.run(for: .seconds(1300))
        #expect(broker.append(sequence: 90, .written) == answer)
    }

    @Test func withFewerInSyncThanTheMinimumAcksAllIsRefused() {
        let broker = LeadingReplicas([("min.insync.replicas", "2")], of: [1, 2, 3])
        #expect(broker.append(sequence: 0, .committed) == .notEnoughReplicas)
        #expect(broker.append(sequence: 0, .written) == .none)
        let enough = LeadingReplicas([("min.insync.replicas", "2")], of: [1, 2, 3], inSync: [1, 2])
        #expect(enough.append(sequence: 0, .committed) == .none)
    }

    @Test func aCreationThatTakesTooLongIsAnsweredInTime() {
        for (timeout, error) in [("1", ErrorCode.requestTimedOut), ("30000", .none)] {
            let world = MemberWorld([("request.timeout.ms", timeout)])
            world.start()
            world.run { world in
                let wanted = NewTopic(name: "t", partitionCount: 1, replicationFactor: 1)
                switch await world.member.createTopic(wanted, validateOnly: false) {
                case .success: #expect(error == .none)
                case .failure(let fault): #expect(fault.error == error)
                }
            }
        }
    }

    @Test func theTopicOfCommittedOffsetsIsMadeAsItsSettingsSay() throws {
        let settings = [("offsets.topic.num.partitions", "3"), ("offsets.topic.segment.bytes", "70000")]
        let world = MemberWorld(settings.map { (name: $0.0, value: $0.1) })
        world.start()
        world.run { world in world.member.createAutomatically(InternalTopics.offsets) }
        world.simulated.run(for: .seconds(1))
        #expect(world.image.topic(InternalTopics.offsets)?.partitions.count == 3)
        #expect(world.replicas.configs[InternalTopics.offsets]?.segmentBytes == 70_000)
        #expect(world.replicas.configs[InternalTopics.offsets]?.cleanupPolicy == .compact)

        let two = MemberWorld([("offsets.topic.replication.factor", "2")])
        two.start()
        two.run { world in world.member.createAutomatically(InternalTopics.offsets) }
        two.simulated.run(for: .seconds(1))
        #expect(two.image.topic(InternalTopics.offsets) == nil, "one broker cannot hold two replicas, and two were asked for")
    }

    @Test func theTopicOfTransactionsIsMadeAsItsSettingsSay() throws {
        let world = MemberWorld([
            ("transaction.state.log.num.partitions", "4"), ("transaction.state.log.segment.bytes", "80000"),
        ])
        world.start()
        world.run { world in world.member.createAutomatically(InternalTopics.transactions) }
        world.simulated.run(for: .seconds(1))
        #expect(world.image.topic(InternalTopics.transactions)?.partitions.count == 4)
        #expect(world.replicas.configs[InternalTopics.transactions]?.segmentBytes == 80_000)
        #expect(world.replicas.configs[InternalTopics.transactions]?.minInsyncReplicas == 1, "one broker is all there are")

        let config = try BrokerConfig.resolve(overrides: [
            ("transaction.state.log.replication.factor", "5"), ("transaction.state.log.min.isr", "3"),
        ])
        let wanted = try #require(InternalTopics.definition(of: InternalTopics.transactions, config, brokersCount: 9))
        #expect(wanted.replicationFactor == 5)
        #expect(wanted.settings.first { $0.name == "min.insync.replicas" }?.value == "3")
    }
}
