import MartletBasics
import MartletChecker
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire

/// Asks what administrators, dashboards and newer clients ask: every API that no other client of the swarm uses. What comes
/// must be an answer; and it must not hurt those beside it.
final class SwarmProbes: @unchecked Sendable {
    private typealias Ask = @Sendable (SwarmProbes) async throws(ClientFault) -> Void

    private let stage: Stage
    private let client: SimulatedClient
    private let directories: [String]
    private let moves: Bool
    private var random: SeededRandom

    init(_ stage: Stage, _ client: SimulatedClient, directories: [String], moves: Bool, random: SeededRandom) {
        self.stage = stage
        self.client = client
        self.directories = directories
        self.moves = moves
        self.random = random
    }

    func run() async {
        while !stage.isOver {
            do throws(ClientFault) {
                if !client.isConnected { try await client.connect(to: stage.broker) }
                if moves, directories.count > 1, random.chance(1, in: 4) { try await move() }
                // a probe that ends the connection is not lost among the others: some of each come alone
                for _ in 0...random.below(4) where client.isConnected { try await probe() }
            } catch {
                stage.note(error, of: client.name)
            }
            await stage.rest(client.loop, &random, busy: 3_000..<40_000)
        }
        client.close()
    }

    private func probe() async throws(ClientFault) {
        let known = Self.all.filter { stage.record.advertised.contains($0.api.rawValue) || $0.api == .apiVersions }
        guard !known.isEmpty else { return }
        try await known[random.below(known.count)].ask(self)
    }

    private static func `default`<R: WireRequest>(_ request: R) -> (api: ApiKey, ask: Ask) {
        made(R.self) { _ in request }
    }

    /// Asks at one of the versions that are offered.
    private static func made<R: WireRequest>(
        _: R.Type, _ make: @escaping @Sendable (SwarmProbes) -> R
    ) -> (api: ApiKey, ask: Ask) {
        guard let api = ApiKey(rawValue: R.apiKey) else { preconditionFailure("a request has an API") }
        return (
            api,
            { @Sendable (probes: SwarmProbes) async throws(ClientFault) in
                guard let range = AdvertisedVersions.clientRange(of: api) else { return }
                _ = try await probes.client.ask(make(probes), version: range.upperBound)
            }
        )
    }

    private var someTopic: StageTopic { stage.topics[random.below(stage.topics.count)] }

    private static let all: [(api: ApiKey, ask: Ask)] = {
        var groups = DescribeGroupsRequest()
        groups.groups = ["group-0", "nobody"]
        var deleted = DeleteGroupsRequest()
        deleted.groupsNames = ["nobody"]
        var handshake = SaslHandshakeRequest()
        handshake.mechanism = "PLAIN"
        var offsets = OffsetDeleteRequest()
        offsets.groupID = "nobody"
        var described = DescribeConfigsRequest.DescribeConfigsResource()
        described.resourceType = 2
        described.resourceName = "topic-0"
        described.configurationKeys = nil
        var configs = DescribeConfigsRequest()
        configs.resources = [described]
        var altered = AlterConfigsRequest.AlterConfigsResource()
        altered.resourceType = 2
        altered.resourceName = "topic-0"
        var alteration = AlterConfigsRequest()
        alteration.resources = [altered]
        var directories = DescribeLogDirsRequest()
        directories.topics = nil
        var cluster = DescribeClusterRequest()
        cluster.endpointType = 1
        var coordinator = FindCoordinatorRequest()
        coordinator.coordinatorKeys = ["group-0"]
        return [
            `default`(ListGroupsRequest()), `default`(groups), `default`(deleted), `default`(offsets), `default`(handshake),
            `default`(SaslAuthenticateRequest()), `default`(ApiVersionsRequest()), `default`(DescribeAclsRequest()),
            `default`(CreateAclsRequest()), `default`(DeleteAclsRequest()), `default`(configs), `default`(alteration),
            `default`(directories), `default`(cluster), `default`(coordinator), `default`(ListPartitionReassignmentsRequest()),
            `default`(AlterReplicaLogDirsRequest()), `default`(DescribeClientQuotasRequest()),
            `default`(AlterClientQuotasRequest()), `default`(DescribeUserScramCredentialsRequest()),
            `default`(AlterUserScramCredentialsRequest()), `default`(ListConfigResourcesRequest()),
            `default`(UpdateFeaturesRequest()), `default`(CreatePartitionsRequest()), `default`(DeleteRecordsRequest()),
            `default`(IncrementalAlterConfigsRequest()), `default`(OffsetForLeaderEpochRequest()),
            `default`(CreateTopicsRequest()),
            `default`(DeleteTopicsRequest()), `default`(InitProducerIdRequest()),
            `default`(AddPartitionsToTxnRequest()), `default`(AddOffsetsToTxnRequest()), `default`(EndTxnRequest()),
            `default`(WriteTxnMarkersRequest()), `default`(TxnOffsetCommitRequest()), `default`(ListTransactionsRequest()),
            `default`(DescribeTransactionsRequest()), `default`(ConsumerGroupHeartbeatRequest()),
            `default`(ConsumerGroupDescribeRequest()),
            made(ElectLeadersRequest.self) { probes in
                var partitions = ElectLeadersRequest.TopicPartitions()
                partitions.topic = probes.someTopic.name
                partitions.partitions = [0]
                var request = ElectLeadersRequest()
                request.topicPartitions = [partitions]
                return request
            },
            made(AlterPartitionReassignmentsRequest.self) { probes in
                var partition = AlterPartitionReassignmentsRequest.ReassignablePartition()
                partition.replicas = nil
                var topic = AlterPartitionReassignmentsRequest.ReassignableTopic()
                topic.name = probes.someTopic.name
                topic.partitions = [partition]
                var request = AlterPartitionReassignmentsRequest()
                request.topics = [topic]
                return request
            },
            made(DescribeProducersRequest.self) { probes in
                var topic = DescribeProducersRequest.TopicRequest()
                topic.name = probes.someTopic.name
                topic.partitionIndexes = [0]
                var request = DescribeProducersRequest()
                request.topics = [topic]
                return request
            },
            made(DescribeTopicPartitionsRequest.self) { probes in
                var topic = DescribeTopicPartitionsRequest.TopicRequest()
                topic.name = probes.someTopic.name
                var request = DescribeTopicPartitionsRequest()
                request.topics = [topic]
                return request
            },
        ]
    }()

    /// A replica goes to another log directory while it serves.
    private func move() async throws(ClientFault) {
        let topic = someTopic
        var wanted = AlterReplicaLogDirsRequest.AlterReplicaLogDirTopic()
        wanted.name = topic.name
        wanted.partitions = [Int32(random.below(Int(topic.partitions)))]
        var directory = AlterReplicaLogDirsRequest.AlterReplicaLogDir()
        directory.path = directories[random.below(directories.count)]
        directory.topics = [wanted]
        var request = AlterReplicaLogDirsRequest()
        request.dirs = [directory]
        let response = try await client.ask(request, version: 2)
        for partition in response.results.flatMap(\.partitions) {
            // one that is not made yet, or whose directory failed
            let passing: [ErrorCode] = [.none, .unknownTopicOrPartition, .kafkaStorageError]
            if !passing.contains(partition.errorCode), !topic.mayRot {
                stage.record.broken("moving \(topic.name) to \(directory.path) was refused with \(partition.errorCode)")
            }
        }
    }
}
