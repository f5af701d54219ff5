import MartletBasics
import MartletKeeper
import MartletModel

/// Reads topics from the tree.
struct TopicReader {
    var session: any KeeperSession
    var config: BrokerConfig
    var logger: Logger

    /// Nil where there is none, or none that can be read (then the log says so).
    func node(_ name: String, watch: Watcher?) async throws(KeeperError) -> (node: TopicNode, version: Int32)? {
        do throws(KeeperError) {
            let (data, stat) = try await session.get(ClusterPath.topic(name), watch: watch)
            guard TopicName.isValid(name), let node = TopicNode(data) else {
                complain(ClusterPath.topic(name))
                return nil
            }
            return (node, stat.version)
        } catch {
            guard error.code == .noNode else { throw error }
            return nil
        }
    }

    func facts(_ name: String, _ node: TopicNode) async throws(KeeperError) -> TopicFacts {
        var topic = TopicFacts(name: name, id: node.id ?? .zero, partitions: [])
        topic.allowsUncleanElection = try await settings(of: name).config.uncleanLeaderElection
        for replicas in node.partitions {
            var facts = PartitionFacts(index: replicas.partition, replicas: replicas.brokers)
            facts.adding = node.adding.first { $0.partition == replicas.partition }?.brokers ?? []
            facts.removing = node.removing.first { $0.partition == replicas.partition }?.brokers ?? []
            let path = ClusterPath.state(TopicPartition(name, replicas.partition))
            if let (data, stat) = try await read(path) {
                guard let state = PartitionStateNode(data) else {
                    complain(path)
                    continue
                }
                facts.state = state
                facts.version = stat.version
            }
            topic.partitions.append(facts)
        }
        return topic
    }

    /// What was set for a topic, and what counts for it.
    func settings(of name: String) async throws(KeeperError) -> (overrides: TopicConfigResolver.Overrides, config: TopicConfig) {
        guard let (data, _) = try await read(ClusterPath.topicConfig(name)) else { return ([], config.topics.defaults) }
        guard let node = ConfigNode(data) else {
            complain(ClusterPath.topicConfig(name))
            return ([], config.topics.defaults)
        }
        let (resolved, faults) = config.topics.resolve(node.overrides)
        for fault in faults { logger.warning("a setting of a topic is passed over", ("topic", name), ("reason", "\(fault)")) }
        return (node.overrides, resolved)
    }

    private func read(_ path: String) async throws(KeeperError) -> (data: [UInt8]?, stat: Stat)? {
        do throws(KeeperError) {
            return try await session.get(path)
        } catch {
            guard error.code == .noNode else { throw error }
            return nil
        }
    }

    private func complain(_ path: String) {
        logger.error("a node of the coordination tree cannot be read, and is passed over: correct it", ("path", path))
    }
}

enum BrokerRegistrations {
    /// The brokers of these nodes, by id.
    static func read(
        _ names: [String], _ session: any KeeperSession, _ logger: Logger, watch: Watcher? = nil
    ) async throws(KeeperError) -> [LiveBroker] {
        var brokers: [LiveBroker] = []
        for name in names {
            do throws(KeeperError) {
                let path = ClusterPath.brokers + "/" + name
                let (data, stat) = try await session.get(path, watch: watch)
                guard let id = BrokerID(name), String(id) == name, let node = BrokerNode(data) else {
                    logger.error("the registration of a broker cannot be read, and is passed over", ("path", path))
                    continue
                }
                brokers.append(LiveBroker(id: id, epoch: stat.czxid.rawValue, endpoints: node.endpoints, rack: node.rack))
            } catch {
                // it went between the two looks
                guard error.code == .noNode else { throw error }
            }
        }
        return brokers.sorted { $0.id < $1.id }
    }
}
