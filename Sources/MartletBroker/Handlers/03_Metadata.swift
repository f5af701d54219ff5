import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// Metadata 0-13: who is in the cluster, and who leads the partitions of the topics asked for.
///
/// Version 0 asks for every topic by an empty list; later ones by null. From 4 on the client may forbid that an unknown
/// topic is created, from 10 on answers carry topic ids, from 12 on topics may be asked for by id (10 and 11 have the
/// field but refuse it with INVALID_REQUEST).
enum MetadataHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(MetadataRequest.self)
        let broker = request.broker
        let image = broker.metadata.current
        var response = MetadataResponse()
        response.clusterID = image.clusterID
        response.controllerID = image.controllerID ?? -1

        if (10...11).contains(request.version), let topics = asked.topics, topics.contains(where: { $0.topicID != .zero || $0.name == nil }) {
            response.clusterID = nil
            response.controllerID = -1
            response.topics = topics.map { failed($0.name ?? "", $0.topicID, .invalidRequest) }
            return try request.answer(response)
        }
        response.brokers = image.brokers.map { describe($0, for: request.connection) }
        if asked.includeClusterAuthorizedOperations { response.clusterAuthorizedOperations = AuthorizedOperations.cluster }
        var missing: [String] = []
        let topics = topics(asked, version: request.version, image: image, missing: &missing)
        let operations = asked.includeTopicAuthorizedOperations ? AuthorizedOperations.topic : .min
        if request.connection.limits != nil { response.throttleTimeMs = request.connection.settleWait() }
        let encoder = MetadataAnswerEncoder(version: request.version, image: image, topicOperations: operations)
        try request.connection.encode(request.header) { (buffer, errors) in
            try encoder.encode(response, topics, kept: broker.keptMetadata, into: &buffer, &errors)
        }
        let mayCreate = broker.config.autoCreateTopics && (request.version < 4 || asked.allowAutoTopicCreation)
        guard mayCreate else { return }
        let quota = request.mutationQuota(strictFrom: .max)
        for name in missing {
            broker.cluster.createAutomatically(name)
            quota.charge(Int(broker.config.partitions))
        }
    }

    /// Nil where all are asked for.
    private static func topics(
        _ asked: MetadataRequest, version: Int16, image: MetadataImage, missing: inout [String]
    ) -> [MetadataAnswerEncoder.Topic]? {
        guard let wanted = asked.topics, !(version == 0 && wanted.isEmpty) else { return nil }
        var answered: Set<String> = []
        var told: [MetadataAnswerEncoder.Topic] = []
        for topic in wanted {
            if topic.topicID != .zero {
                guard let place = image.place(of: topic.topicID) else {
                    told.append(.failed(name: nil, id: topic.topicID, .unknownTopicID))
                    continue
                }
                if answered.insert(image.topics[place].name).inserted { told.append(.known(place)) }
                continue
            }
            let name = topic.name ?? ""
            guard answered.insert(name).inserted else { continue }
            if let place = image.place(of: name) {
                told.append(.known(place))
            } else if !TopicName.isValid(name) {
                told.append(.failed(name: name, id: .zero, .invalidTopicException))
            } else {
                missing.append(name)
                told.append(.failed(name: name, id: .zero, .unknownTopicOrPartition))
            }
        }
        return told
    }

    private static func failed(_ name: String?, _ id: UUID, _ error: ErrorCode) -> MetadataResponse.MetadataResponseTopic {
        var topic = MetadataResponse.MetadataResponseTopic()
        topic.name = name
        topic.topicID = id
        topic.errorCode = error
        return topic
    }

    /// A broker as the client may reach it: at the address of the listener it came in by.
    private static func describe(_ info: BrokerInfo, for connection: Connection) -> MetadataResponse.MetadataResponseBroker {
        let endpoint = info.endpoint(for: connection)
        var broker = MetadataResponse.MetadataResponseBroker()
        broker.nodeID = info.id
        broker.host = endpoint.host
        broker.port = endpoint.port
        broker.rack = info.rack
        return broker
    }
}

extension BrokerInfo {
    /// Where a client of this connection's listener finds the broker.
    func endpoint(for connection: Connection) -> BrokerEndpoint {
        endpoints.first { $0.listener == connection.listener.name } ?? endpoints.first
            ?? BrokerEndpoint(listener: connection.listener.name, host: "", port: -1)
    }
}

/// What a client may do, as the bits of Kafka's AclOperation; without an authorizer that is everything.
enum AuthorizedOperations {
    /// Create 5, Alter 7, Describe 8, ClusterAction 9, DescribeConfigs 10, AlterConfigs 11, IdempotentWrite 12.
    static let cluster: Int32 = bits(5, 7, 8, 9, 10, 11, 12)
    /// Read 3, Write 4, Create 5, Delete 6, Alter 7, Describe 8, DescribeConfigs 10, AlterConfigs 11.
    static let topic: Int32 = bits(3, 4, 5, 6, 7, 8, 10, 11)

    /// Read 3, Delete 6, Describe 8, DescribeConfigs 10, AlterConfigs 11.
    static let group: Int32 = bits(3, 6, 8, 10, 11)

    private static func bits(_ operations: Int32...) -> Int32 { operations.reduce(0) { $0 | 1 << $1 } }
}
