import MartletBasics
package import MartletModel

package struct BrokerEndpoint: Sendable, Equatable {
    package var listener: String
    package var host: String
    package var port: Int32

    package init(listener: String, host: String, port: Int32) {
        self.listener = listener
        self.host = host
        self.port = port
    }
}

package struct BrokerInfo: Sendable, Equatable {
    package var id: BrokerID
    package var endpoints: [BrokerEndpoint]
    package var rack: String?

    package init(id: BrokerID, endpoints: [BrokerEndpoint], rack: String?) {
        self.id = id
        self.endpoints = endpoints
        self.rack = rack
    }
}

package struct PartitionInfo: Sendable, Equatable {
    package var index: Int32
    /// -1: none.
    package var leader: BrokerID
    package var leaderEpoch: LeaderEpoch
    package var replicas: [BrokerID]
    package var inSyncReplicas: [BrokerID]
    package var offlineReplicas: [BrokerID]

    package init(
        index: Int32, leader: BrokerID, leaderEpoch: LeaderEpoch, replicas: [BrokerID], inSyncReplicas: [BrokerID],
        offlineReplicas: [BrokerID] = []
    ) {
        self.index = index
        self.leader = leader
        self.leaderEpoch = leaderEpoch
        self.replicas = replicas
        self.inSyncReplicas = inSyncReplicas
        self.offlineReplicas = offlineReplicas
    }
}

package struct TopicInfo: Sendable, Equatable {
    package var name: String
    package var id: UUID
    /// By rising index.
    package var partitions: [PartitionInfo]
    package var isInternal: Bool { name == "__consumer_offsets" || name == "__transaction_state" }

    package init(name: String, id: UUID, partitions: [PartitionInfo]) {
        self.name = name
        self.id = id
        self.partitions = partitions
    }
}

/// The cluster as clients are told of it: one value that does not change, replaced as a whole.
package final class MetadataImage: Sendable {
    package let clusterID: String
    /// Nil while no controller is elected.
    package let controllerID: BrokerID?
    /// By rising id.
    package let brokers: [BrokerInfo]
    /// In the order of their names.
    package let topics: [TopicInfo]
    private let byName: [String: Int]
    private let byID: [UUID: Int]

    package init(clusterID: String, controllerID: BrokerID?, brokers: [BrokerInfo], topics: [TopicInfo]) {
        self.clusterID = clusterID
        self.controllerID = controllerID
        self.brokers = brokers.sorted { $0.id < $1.id }
        self.topics = topics.sorted { $0.name < $1.name }
        byName = Dictionary(uniqueKeysWithValues: self.topics.enumerated().map { ($1.name, $0) })
        byID = Dictionary(uniqueKeysWithValues: self.topics.enumerated().map { ($1.id, $0) })
    }

    /// Places in `topics`.
    package func place(of name: String) -> Int? { byName[name] }
    package func place(of id: UUID) -> Int? { byID[id] }

    package func topic(_ name: String) -> TopicInfo? { byName[name].map { topics[$0] } }
    package func topic(_ id: UUID) -> TopicInfo? { byID[id].map { topics[$0] } }
}

/// Where the present image is found, from any loop.
package final class MetadataStore: @unchecked Sendable {
    private let lock = Lock()
    // guarded by the lock:
    private var image: MetadataImage

    package init(_ image: MetadataImage) { self.image = image }

    package var current: MetadataImage {
        get { lock.withLock { image } }
        set { lock.withLock { image = newValue } }
    }
}
