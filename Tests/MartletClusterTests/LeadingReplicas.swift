import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// A broker's replicas on a simulated machine, which lead the partitions of one topic.
class LeadingReplicas: @unchecked Sendable {
    let world: SimulatedWorld
    private let host: SimulatedHost
    private(set) var replicas: ReplicaHost!

    init(
        seed: UInt64 = 11, _ settings: [(name: String, value: String)], partitions: Int32 = 1, of brokers: [BrokerID] = [1],
        inSync: [BrokerID] = [1]
    ) {
        world = SimulatedWorld(seed: seed)
        host = world.makeHost("broker")
        // small indexes: the simulated disk keeps their bytes
        let settings = settings + [("log.index.size.max.bytes", "4096")]
        run { made in
            let config = try BrokerConfig.resolve(overrides: settings)
            made.replicas = try ReplicaHost.open(host: made.host, config: config, sink: SilentLog())
            try await made.replicas.claim(brokerID: 1, clusterID: "AAAAAAAAAAAAAAAAAAAAAA")
            for index in 0..<partitions {
                try await made.replicas.apply(
                    topic: "t", id: UUID(high: 1, low: 2), config: config.topics.defaults, partition: index,
                    assignment: .init(leader: 1, leaderEpoch: 0, partitionEpoch: 0, replicas: brokers, inSyncReplicas: inSync),
                    isNew: true)
            }
        }
    }

    deinit { world.end() }

    func run(_ body: @escaping @Sendable (LeadingReplicas) async throws -> Void) {
        host.finish(atMost: .seconds(60)) { [self] in try await body(self) }
    }

    private final class Owner: AppendOwner {
        let loop: any EventLoop
        init(_ loop: any EventLoop) { self.loop = loop }
        func appendFinished(_: AppendToken, _: AppendOutcome) {}
    }

    /// What the leader says at once to a batch.
    @discardableResult
    func append(
        _ records: [(key: String?, value: String?)], partition index: Int32 = 0, identity: BatchIdentity = BatchIdentity(),
        _ acknowledgement: Acknowledgement = .written
    ) -> ErrorCode {
        final class Said: @unchecked Sendable { var error = ErrorCode.none }
        let said = Said()
        run { made in
            var builder = BatchBuilder(identity)
            for record in records {
                builder.append(
                    timestamp: made.host.clock.wallMilliseconds, key: record.key.map { Array($0.utf8) },
                    value: record.value.map { Array($0.utf8) })
            }
            var output = ByteBuffer()
            builder.finish(into: &output, codec: .none, contexts: CodecContexts())
            let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: output.bytes.count, alignment: 8)
            defer { bytes.deallocate() }
            bytes.copyMemory(from: output.bytes)
            let partition = try #require(made.replicas.topics.partition(TopicPartition("t", index)))
            let request = AppendRequest(
                acknowledgement, owner: Owner(made.host.loops[0]), token: AppendToken(answer: 1, index: 0),
                deadline: .distantFuture)
            if case .refused(let error, _) = partition.append(bytes, request) { said.error = error }
            var effects = PartitionEffects()
            partition.writeReserved(&effects)
            effects.deliver()
        }
        return said.error
    }
}
