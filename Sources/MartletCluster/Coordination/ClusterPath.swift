package import MartletModel

/// The paths of the coordination tree, as Kafka 3.9 lays it out. `docs/design/cluster.md` says who writes what, and when.
package enum ClusterPath {
    /// Made by every broker at its start where they are not there, in this order.
    package static let fixed = [
        "/consumers", "/brokers/ids", "/brokers/topics", "/config/changes", "/admin/delete_topics", "/brokers/seqid",
        "/isr_change_notification", "/latest_producer_id_block", "/log_dir_event_notification", "/config/topics",
        "/config/clients", "/config/users", "/config/brokers", "/config/ips",
    ]

    package static let clusterID = "/cluster/id"
    package static let brokers = "/brokers/ids"
    package static let topics = "/brokers/topics"
    package static let brokerSequence = "/brokers/seqid"
    package static let controller = "/controller"
    package static let controllerEpoch = "/controller_epoch"
    package static let feature = "/feature"
    package static let producerIDBlock = "/latest_producer_id_block"
    package static let deletions = "/admin/delete_topics"
    package static let directoryFailures = "/log_dir_event_notification"
    package static let directoryFailurePrefix = "log_dir_event_"
    package static let configChanges = "/config/changes"
    package static let configChangePrefix = "config_change_"

    package static func broker(_ id: BrokerID) -> String { "\(brokers)/\(id)" }
    package static func topic(_ name: String) -> String { "\(topics)/\(name)" }
    package static func partitions(_ topic: String) -> String { "\(topics)/\(topic)/partitions" }
    package static func partition(_ id: TopicPartition) -> String { "\(topics)/\(id.topic)/partitions/\(id.partition)" }
    package static func state(_ id: TopicPartition) -> String { "\(topics)/\(id.topic)/partitions/\(id.partition)/state" }
    package static func topicConfig(_ name: String) -> String { "/config/topics/\(name)" }
    /// Of groups and of subscriptions to clients' metrics, which Kafka 3.9 keeps in no tree.
    package static let groupConfigs = "/config/groups"
    package static let clientMetricsConfigs = "/config/client-metrics"
    package static let userConfigs = "/config/users"
    package static let clientConfigs = "/config/clients"
    package static let addressConfigs = "/config/ips"
    package static func deletion(_ name: String) -> String { "\(deletions)/\(name)" }

    /// The node above, nil for one at the top.
    package static func parent(of path: String) -> String? {
        guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { return nil }
        return String(path[..<slash])
    }
}
