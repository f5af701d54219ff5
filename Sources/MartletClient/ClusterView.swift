package import MartletModel
package import MartletWire

/// What metadata said of a cluster.
package struct ClusterView: Sendable, Equatable {
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

    package var clusterID: String?
    /// -1 where there is none.
    package var controllerID: BrokerID = -1
    /// By rising id.
    package var brokers: [Broker] = []
    /// By name.
    package var topics: [Topic] = []

    package init() {}

    /// Brokers whose port is none are left out: nobody could connect to them.
    package init(_ response: MetadataResponse) {
        clusterID = response.clusterID
        controllerID = response.controllerID
        brokers = response.brokers.compactMap { broker in
            guard let port = UInt16(exactly: broker.port), port > 0, !broker.host.isEmpty else { return nil }
            let endpoint = BrokerEndpoint(host: broker.host, port: port)
            return Broker(id: broker.nodeID, endpoint: endpoint, rack: broker.rack)
        }
        brokers.sort { $0.id < $1.id }
        topics = response.topics.compactMap { topic in
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
        topics.sort { $0.name < $1.name }
    }

    package func broker(_ id: BrokerID) -> Broker? { brokers.first { $0.id == id } }
    package func topic(_ name: String) -> Topic? { topics.first { $0.name == name } }

    package func leader(of partition: TopicPartition) -> Partition? {
        topic(partition.topic)?.partitions.first { $0.index == partition.partition }
    }

    /// What an answer about some topics says in place of what was known of them.
    mutating func merge(_ other: ClusterView) {
        clusterID = other.clusterID
        controllerID = other.controllerID
        brokers = other.brokers
        let renewed = Set(other.topics.map(\.name))
        topics = topics.filter { !renewed.contains($0.name) } + other.topics
        topics.sort { $0.name < $1.name }
    }
}
