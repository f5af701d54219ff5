import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// The kinds of resource that have settings, by their numbers.
enum ConfigResourceType: Int8, CaseIterable {
    case topic = 2
    case broker = 4
    case brokerLogger = 8
    case clientMetrics = 16
    case group = 32
}

/// One resource of a request about settings.
enum ConfigResource {
    case settings(ConfigTarget)
    /// The levels of this broker's log.
    case loggers
    case fault(ConfigFault)

    /// `emptyTopic` is the error for a topic without a name, which differs between asking and altering.
    init(type: Int8, name: String, emptyTopic: ErrorCode, _ broker: Broker) {
        func refused(_ error: ErrorCode, _ message: String) -> ConfigResource { .fault(ConfigFault(error, message)) }
        switch ConfigResourceType(rawValue: type) {
        case .topic:
            if name.isEmpty {
                self = refused(emptyTopic, "A topic has a name.")
            } else if let fault = TopicName.fault(name) {
                self = refused(.invalidTopicException, fault)
            } else if broker.metadata.current.topic(name) == nil {
                self = refused(.unknownTopicOrPartition, "This server does not host this topic.")
            } else {
                self = .settings(.topic(name))
            }
        case .broker where name.isEmpty: self = .settings(.brokers)
        case .broker, .brokerLogger:
            guard let id = BrokerID(name), id == broker.cluster.brokerID, String(id) == name else {
                self = refused(.invalidRequest, "This is broker \(broker.cluster.brokerID): ask the broker that is meant, by its id.")
                return
            }
            self = type == ConfigResourceType.broker.rawValue ? .settings(.broker(id)) : .loggers
        case .clientMetrics, .group:
            guard !name.isEmpty else {
                self = refused(.invalidRequest, "A group, or a subscription to metrics, has a name.")
                return
            }
            self = .settings(type == ConfigResourceType.group.rawValue ? .group(name) : .clientMetrics(name))
        case nil: self = refused(.invalidRequest, "There is no kind of resource \(type).")
        }
    }
}
