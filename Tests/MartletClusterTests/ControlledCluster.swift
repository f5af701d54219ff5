import MartletCluster
import MartletModel
import MartletWire
import Testing

/// A controller's decisions, and what becomes of them: the states in the tree, and what each broker was told. Brokers
/// answer when the test says so.
struct ControlledCluster {
    var state: ControllerState
    /// The tree: each partition's state and its version.
    var tree: [TopicPartition: (state: PartitionStateNode, version: Int32)] = [:]
    /// What was sent and is not answered yet, in order.
    var sent: [(broker: BrokerID, request: ControllerRequest)] = []
    var warnings: [String] = []
    var removed: [String] = []
    var forgotten: [String] = []
    var resigned: String?

    init(controller: BrokerID = 1, epoch: Int32 = 1) { state = ControllerState(brokerID: controller, epoch: epoch) }

    /// Elected over three brokers, with these topics.
    static func ofThree(_ topics: [TopicFacts] = [], deletions: [String] = []) -> ControlledCluster {
        var cluster = ControlledCluster()
        cluster.elect([1, 2, 3], topics, deletions: deletions)
        return cluster
    }

    static func broker(_ id: BrokerID, epoch: Int64? = nil) -> LiveBroker {
        LiveBroker(
            id: id, epoch: epoch ?? Int64(id) * 100,
            endpoints: [.init(listener: "PLAINTEXT", securityProtocol: .plaintext, host: "b\(id)", port: 9092)], rack: nil)
    }

    static func topic(_ name: String, _ replicas: [[BrokerID]]) -> TopicFacts {
        TopicFacts(
            name: name, id: UUID(high: 7, low: UInt64(name.utf8.reduce(0) { $0 * 31 + Int($1) })),
            partitions: replicas.enumerated().map { PartitionFacts(index: Int32($0), replicas: $1) })
    }

    mutating func elect(
        _ live: [BrokerID], _ topics: [TopicFacts] = [], deletions: [String] = [], raisesOwnEpochs: Bool = false
    ) {
        for topic in topics {
            for partition in topic.partitions {
                guard let state = partition.state else { continue }
                tree[TopicPartition(topic.name, partition.index)] = (state, partition.version)
            }
        }
        handle(
            .elected(
                brokers: live.map { Self.broker($0) }, topics: topics, deletions: deletions, areAllowed: true,
                raisesOwnEpochs: raisesOwnEpochs))
    }

    mutating func handle(_ event: ControllerEvent) {
        for action in state.handle(event) {
            switch action {
            case .write(let writes):
                for write in writes {
                    #expect(
                        tree[write.partition]?.version == write.expectedVersion,
                        "the tree has another version than was decided on")
                    tree[write.partition] = (write.state, write.expectedVersion.map { $0 + 1 } ?? 0)
                }
            case .send(let request, let broker): sent.append((broker, request))
            case .removeTopic(let name, let partitions):
                removed.append(name)
                for partition in partitions { tree[TopicPartition(name, partition)] = nil }
            case .forgetDeletion(let name): forgotten.append(name)
            case .resign(let reason): resigned = reason
            case .warn(let message): warnings.append(message)
            }
        }
    }

    mutating func brokersAre(_ live: [LiveBroker]) { handle(.brokers(live)) }
    mutating func brokersAre(_ live: BrokerID...) { handle(.brokers(live.map { Self.broker($0) })) }

    mutating func create(_ topic: TopicFacts) {
        handle(.topics(names: (state.topics.keys + [topic.name]).sorted(), read: [topic]))
    }

    /// Answers everything that was sent, and what that leads to, with success; `broken` are replicas whose log directory fails.
    mutating func answerAll(broken: [(BrokerID, TopicPartition)] = []) {
        while !sent.isEmpty {
            let (broker, request) = sent.removeFirst()
            handle(.answered(by: broker, request, Self.success(request) { id in broken.contains { $0 == broker && $1 == id } }))
        }
    }

    static func success(_ request: ControllerRequest, isBroken: (TopicPartition) -> Bool = { _ in false }) -> ControllerResponse
    {
        switch request {
        case .updateMetadata: return .updateMetadata(UpdateMetadataResponse())
        case .leaderAndIsr(let request):
            var response = LeaderAndIsrResponse()
            for topic in request.topicStates {
                var told = LeaderAndIsrResponse.LeaderAndIsrTopicError()
                told.topicID = topic.topicID
                for state in topic.partitionStates {
                    var error = LeaderAndIsrResponse.LeaderAndIsrPartitionError()
                    error.partitionIndex = state.partitionIndex
                    if isBroken(TopicPartition(topic.topicName, state.partitionIndex)) { error.errorCode = .kafkaStorageError }
                    told.partitionErrors.append(error)
                }
                response.topics.append(told)
            }
            return .leaderAndIsr(response)
        case .stopReplica(let request):
            var response = StopReplicaResponse()
            for topic in request.topicStates {
                for state in topic.partitionStates {
                    var error = StopReplicaResponse.StopReplicaPartitionError()
                    error.topicName = topic.topicName
                    error.partitionIndex = state.partitionIndex
                    response.partitionErrors.append(error)
                }
            }
            return .stopReplica(response)
        }
    }

    // MARK: What was told

    /// `leader/epoch/isr` of a partition in the tree.
    func told(_ topic: String, _ partition: Int32 = 0) -> String {
        guard let state = tree[TopicPartition(topic, partition)]?.state else { return "none" }
        return "\(state.leader)/\(state.leaderEpoch)/\(state.inSyncReplicas)"
    }

    /// Requests to a broker that wait, in short.
    func waiting(for broker: BrokerID) -> [String] { sent.filter { $0.broker == broker }.map { Self.short($0.request) } }

    static func short(_ request: ControllerRequest) -> String {
        switch request {
        case .leaderAndIsr(let request):
            let parts = request.topicStates.flatMap { topic in
                topic.partitionStates.map {
                    "\(topic.topicName)-\($0.partitionIndex)=\($0.leader)/\($0.leaderEpoch)\($0.isNew ? " new" : "")"
                }
            }
            return "lead " + parts.joined(separator: " ")
        case .updateMetadata(let request):
            let parts = request.topicStates.flatMap { topic in
                topic.partitionStates.map { "\(topic.topicName)-\($0.partitionIndex)=\($0.leader)/\($0.leaderEpoch)" }
            }
            return (["know \(request.liveBrokers.map(\.id))"] + parts).joined(separator: " ")
        case .stopReplica(let request):
            let parts = request.topicStates.flatMap { topic in
                topic.partitionStates.map { "\(topic.topicName)-\($0.partitionIndex)\($0.deletePartition ? " delete" : "")" }
            }
            return "stop " + parts.joined(separator: " ")
        }
    }
}
