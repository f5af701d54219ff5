package import MartletModel
package import MartletWire

/// What metadata said of a cluster at one moment. A class, so that asynchronous functions hand on one reference.
package final class ClusterView: Sendable {
    package struct Broker: Sendable, Equatable {
        package var id: BrokerID
        package var endpoint: BrokerEndpoint
        package var rack: String?
    }

    package struct Topic: Sendable, Equatable {
        package var name: String
        /// Zero where the broker is too old to say.
        package var id: UUID
        package var error: ErrorCode
        package var isInternal: Bool
        /// By rising number.
        package var partitions: [Partition]
    }

    package struct Partition: Sendable, Equatable {
        package var index: Int32
        package var error: ErrorCode
        /// -1 where there is none.
        package var leader: BrokerID
        package var leaderEpoch: LeaderEpoch
        package var replicas: [BrokerID]
        package var inSync: [BrokerID]
        package var offline: [BrokerID]
    }

    package let clusterID: String?
    /// -1 where there is none.
    package let controllerID: BrokerID
    /// By rising id.
    package let brokers: [Broker]
    /// By name.
    package let topics: [Topic]

    /// Nothing is known yet.
    package convenience init() { self.init(clusterID: nil, controllerID: -1, brokers: [], topics: []) }

    private init(clusterID: String?, controllerID: BrokerID, brokers: [Broker], topics: [Topic]) {
        self.clusterID = clusterID
        self.controllerID = controllerID
        self.brokers = brokers
        self.topics = topics
    }

    /// Brokers whose port is none are left out: nobody could connect to them.
    package init(_ response: MetadataResponse) {
        clusterID = response.clusterID
        controllerID = response.controllerID
        let brokers: [Broker] = response.brokers.compactMap { broker in
            guard let port = UInt16(exactly: broker.port), port > 0, !broker.host.isEmpty else { return nil }
            let endpoint = BrokerEndpoint(host: broker.host, port: port)
            return Broker(id: broker.nodeID, endpoint: endpoint, rack: broker.rack)
        }
        self.brokers = brokers.sorted { $0.id < $1.id }
        let topics: [Topic] = response.topics.compactMap { topic in
            guard let name = topic.name else { return nil }
            let partitions = topic.partitions.map { part in
                Partition(
                    index: part.partitionIndex, error: part.errorCode, leader: part.leaderID,
                    leaderEpoch: part.leaderEpoch, replicas: part.replicaNodes, inSync: part.isrNodes,
                    offline: part.offlineReplicas)
            }
            return Topic(
                name: name, id: topic.topicID, error: topic.errorCode, isInternal: topic.isInternal,
                partitions: partitions.sorted { $0.index < $1.index })
        }
        self.topics = topics.sorted { $0.name < $1.name }
    }

    package func broker(_ id: BrokerID) -> Broker? { brokers.first { $0.id == id } }
    package func topic(_ name: String) -> Topic? { topics.first { $0.name == name } }

    package func leader(of partition: TopicPartition) -> Partition? {
        topic(partition.topic)?.partitions.first { $0.index == partition.partition }
    }

    /// What an answer about some topics says in place of what was known of them.
    func merging(_ other: ClusterView) -> ClusterView {
        let renewed = Set(other.topics.map(\.name))
        let all = topics.filter { !renewed.contains($0.name) } + other.topics
        return ClusterView(
            clusterID: other.clusterID, controllerID: other.controllerID, brokers: other.brokers,
            topics: all.sorted { $0.name < $1.name })
    }

    /// With the controller to be found anew.
    var withoutController: ClusterView {
        ClusterView(clusterID: clusterID, controllerID: -1, brokers: brokers, topics: topics)
    }
}
