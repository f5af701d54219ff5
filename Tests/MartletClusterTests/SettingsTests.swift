import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// A broker's replicas on a simulated machine, and one partition that it leads.
private final class Replicas: @unchecked Sendable {
    let world = SimulatedWorld(seed: 11)
    private let host: SimulatedHost
    private(set) var replicas: ReplicaHost!

    init(_ settings: [(name: String, value: String)], inSync: [BrokerID] = [1]) {
        host = world.makeHost("broker")
        // small indexes: the simulated disk keeps their bytes
        let settings = settings + [("log.index.size.max.bytes", "4096")]
        run { made in
            let config = try BrokerConfig.resolve(overrides: settings)
            made.replicas = try ReplicaHost.open(host: made.host, config: config, sink: SilentLog())
            try await made.replicas.claim(brokerID: 1, clusterID: "AAAAAAAAAAAAAAAAAAAAAA")
            try await made.replicas.apply(
                topic: "t", id: UUID(high: 1, low: 2), config: config.topics.defaults, partition: 0,
                assignment: .init(leader: 1, leaderEpoch: 0, partitionEpoch: 0, replicas: [1, 2, 3], inSyncReplicas: inSync),
                isNew: true)
        }
    }

    deinit { world.end() }

    private func run(_ body: @escaping @Sendable (Replicas) async throws -> Void) {
        final class Outcome: @unchecked Sendable { var isDone = false }
        let outcome = Outcome()
        host.loops[0].spawn { [self] in
            do { try await body(self) } catch { Issue.record(error) }
            outcome.isDone = true
        }
        #expect(world.run(atMost: .seconds(60)) { outcome.isDone }, "it never ends")
    }

    private final class Owner: AppendOwner {
        let loop: any EventLoop
        init(_ loop: any EventLoop) { self.loop = loop }
        func appendFinished(_: AppendToken, _: AppendOutcome) {}
    }

    /// What the leader says at once to one record of a producer.
    func append(sequence: Int32, _ acknowledgement: Acknowledgement) -> ErrorCode {
        final class Said: @unchecked Sendable { var error = ErrorCode.none }
        let said = Said()
        run { made in
            var builder = BatchBuilder(BatchIdentity(producerID: 7, epoch: 0, baseSequence: sequence))
            builder.append(timestamp: made.host.clock.wallMilliseconds, key: nil, value: Array("v".utf8))
            var batch = ByteBuffer()
            builder.finish(into: &batch, codec: .none, contexts: CodecContexts())
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: batch.bytes.count, alignment: 8)
            defer { bytes.deallocate() }
            bytes.copyMemory(from: batch.bytes)
            let partition = try #require(made.replicas.topics.partition(TopicPartition("t", 0)))
            let request = AppendRequest(
                acknowledgement, owner: Owner(made.host.loops[0]), token: AppendToken(answer: 1, index: 0), deadline: .distantFuture)
            if case .refused(let error, _) = partition.append(bytes, request) { said.error = error }
            var effects = PartitionEffects()
            partition.writeReserved(&effects)
            effects.deliver()
        }
        return said.error
    }
}

@Suite struct SettingsOfABroker {
    @Test(arguments: [("1000", ErrorCode.none), ("86400000", .outOfOrderSequenceNumber)])
    func aProducerThatWritesNothingIsForgottenInItsTime(expiration: String, answer: ErrorCode) {
        let broker = Replicas([("producer.id.expiration.ms", expiration)])
        #expect(broker.append(sequence: 0, .written) == .none)
        #expect(broker.append(sequence: 90, .written) == .outOfOrderSequenceNumber, "it is known, and a gap is seen")
        broker.world.run(for: .seconds(1300))
        #expect(broker.append(sequence: 90, .written) == answer)
    }

    @Test func withFewerInSyncThanTheMinimumAcksAllIsRefused() {
        let broker = Replicas([("min.insync.replicas", "2")])
        #expect(broker.append(sequence: 0, .committed) == .notEnoughReplicas)
        #expect(broker.append(sequence: 0, .written) == .none)
        let enough = Replicas([("min.insync.replicas", "2")], inSync: [1, 2])
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
        let world = MemberWorld([("transaction.state.log.num.partitions", "4"), ("transaction.state.log.segment.bytes", "80000")])
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
