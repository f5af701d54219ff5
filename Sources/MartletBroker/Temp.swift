package import MartletCluster
package import MartletModel
package import MartletReactor
package final class ClusterMember: @unchecked Sendable {
    package let metadata: MetadataStore
    package let topics: LocalTopics
    let replicas: ReplicaHost
    let config: BrokerConfig
    let host: any Host
    var endpoints: [BrokerEndpoint] = []
    var infos: [TopicInfo] = []
    var pending: Set<String> = []
    var nextProducer: ProducerID = 0
    package init(host: any Host, config: BrokerConfig, replicas: ReplicaHost) {
        self.replicas = replicas
        self.config = config
        self.host = host
        topics = replicas.topics
        metadata = MetadataStore(MetadataImage(clusterID: "x", controllerID: 1, brokers: [], topics: []))
    }
    package func start(listeners: [BrokerEndpoint]) async throws {
        endpoints = listeners
        try await replicas.claim(brokerID: 1, clusterID: "AAAAAAAAAAAAAAAAAAAAAA")
        publish()
    }
    func publish() {
        metadata.current = MetadataImage(clusterID: "AAAAAAAAAAAAAAAAAAAAAA", controllerID: 1, brokers: [BrokerInfo(id: 1, endpoints: endpoints, rack: nil)], topics: infos)
    }
    func createAutomatically(_ name: String) {
        if pending.contains(name) { return }; pending.insert(name)
        host.loops[0].spawn { _ = await self.createTopic(NewTopic(name: name, partitionCount: -1, replicationFactor: -1), validateOnly: false) }
    }
    func createTopic(_ wanted: NewTopic, validateOnly: Bool) async -> Result<CreatedTopic, TopicFault> {
        if infos.contains(where: { $0.name == wanted.name }) { return .failure(TopicFault(.topicAlreadyExists, "exists")) }
        let id = UUID(bytes: host.randomBytes(16))
        let overrides: TopicConfigResolver.Overrides
        do { overrides = try config.topics.validated(wanted.settings.map { ($0.name, $0.value) }) } catch { return .failure(TopicFault(.invalidConfig, "\(error)")) }
        let resolved = config.topics.resolve(overrides).config
        let count = wanted.partitionCount < 0 ? config.partitions : wanted.partitionCount
        var parts: [PartitionInfo] = []
        for p in 0..<count {
            try! await replicas.apply(topic: wanted.name, id: id, config: resolved, partition: p, assignment: .init(leader: 1, leaderEpoch: 0, partitionEpoch: 0, replicas: [1], inSyncReplicas: [1]), isNew: true)
            parts.append(PartitionInfo(index: p, leader: 1, leaderEpoch: 0, replicas: [1], inSyncReplicas: [1]))
        }
        infos.append(TopicInfo(name: wanted.name, id: id, partitions: parts))
        publish()
        return .success(CreatedTopic(id: id, partitionCount: count, replicationFactor: 1, settings: overrides))
    }
    func deleteTopic(_ name: String, id: UUID) async -> TopicFault? {
        let info = infos.first { $0.name == name }!
        infos.removeAll { $0.name == name }
        publish()
        for p in info.partitions { try! await replicas.stop(topic: name, partition: p.index, delete: true) }
        return nil
    }
    func allocateProducerID() async -> ProducerID? { nextProducer += 1; return nextProducer }
}
