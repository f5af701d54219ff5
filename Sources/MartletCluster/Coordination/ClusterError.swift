package import MartletKeeper
package import MartletLog

/// Why a broker cannot be a member of its cluster.
package enum ClusterError: Error, Sendable, CustomStringConvertible {
    case keeper(KeeperError)
    case log(LogError)
    /// A node of the coordination tree that cannot be read.
    case malformedNode(path: String)
    /// The log directories belong to another cluster than the tree.
    case wrongCluster(found: String, expected: String)
    case wrongBrokerID(found: Int32, configured: Int32)
    /// The topics of the tree lie on another broker than this one.
    case otherBrokersTree(brokerID: Int32, expected: Int32)
    /// Topics that lie there would never be adopted.
    case directoryMissing(String)
    /// The file of topic settings cannot be taken.
    case topicSettings(path: String, line: Int, reason: String)
    case brokerIDTaken(Int32)
    case endpointTaken(String, by: Int32)
    case closed

    package var description: String {
        switch self {
        case .keeper(let error): "The coordination service refused: \(error)."
        case .log(let error): "\(error)."
        case .malformedNode(let path):
            "The node \(path) of the coordination tree cannot be read: correct it with a ZooKeeper client, or restore the tree from a backup."
        case .wrongCluster(let found, let expected):
            "The log directories belong to cluster \(found), the coordination tree to cluster \(expected): correct log.dirs or martlet.keeper.dir, so that both are of one cluster."
        case .wrongBrokerID(let found, let configured):
            "broker.id is \(configured), but the log directories belong to broker \(found): set broker.id=\(found), or correct log.dirs."
        case .otherBrokersTree(let id, let expected):
            """
            The coordination tree belongs to broker \(expected), and this is broker \(id): \
            correct log.dirs, broker.id or martlet.keeper.dir, so that all are of one broker.
            """
        case .directoryMissing(let path):
            """
            The log directory \(path) cannot be used, and the coordination tree is new: \
            topics that lie there would be lost to it. The log says what is wrong; mend it, or take the directory from log.dirs.
            """
        case .topicSettings(let path, let line, let reason):
            "\(path), line \(line): \(reason). A line is 'topic name=value', one for each setting of a topic."
        case .brokerIDTaken(let id):
            "Broker \(id) is registered already: stop the other broker of that id, wait for its session to end, or set another broker.id."
        case .endpointTaken(let endpoint, let id):
            "\(endpoint) is what broker \(id) tells its clients already: give each broker addresses of its own in advertised.listeners."
        case .closed: "The broker is being stopped."
        }
    }
}
