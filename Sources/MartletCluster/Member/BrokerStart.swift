import MartletBasics
import MartletKeeper
import MartletLog
import MartletModel
import MartletReactor

/// The first steps of a broker in the tree, in Kafka's order: the fixed nodes, the cluster's id, its own, its registration.
struct BrokerStart {
    /// Brokers that are given an id by the tree come after these (`reserved.broker.max.id`).
    private static let reservedBrokerIDs: Int32 = 1000
    /// What the only broker of an embedded tree is called.
    private static let firstBrokerID: BrokerID = 1

    let session: any KeeperSession
    let member: ClusterMember

    private var replicas: any ReplicaHosting { member.replicas }

    // MARK: Who it is

    func identify() async throws(ClusterError) -> (brokerID: BrokerID, clusterID: String) {
        do throws(KeeperError) {
            for path in ClusterPath.fixed { try await makeFolder(path) }
        } catch { throw .keeper(error) }
        if let clusterID = try await readClusterID() {
            if let found = replicas.foundClusterID, found != clusterID { throw .wrongCluster(found: found, expected: clusterID) }
            let brokerID = try await chooseBrokerID()
            if member.access.isEmbedded {
                try await requireOwnTopics(brokerID)
                if let file = member.topicSettings {
                    member.logger.info(
                        "the file of topic settings is not read: it counts for a new coordination tree only",
                        ("file", file.path))
                }
            }
            return (brokerID, clusterID)
        }
        let brokerID = try await chooseBrokerID()
        let wanted = replicas.foundClusterID ?? UUID(bytes: member.host.randomBytes(16)).description
        // The cluster's id comes last, as the mark of a tree that is complete: after a crash before it, this begins again.
        if member.access.isEmbedded { try await Adoption(session: session, member: member, brokerID: brokerID).run() }
        let clusterID = try await createClusterID(wanted)
        guard clusterID == wanted || replicas.foundClusterID == nil else { throw .wrongCluster(found: wanted, expected: clusterID) }
        return (brokerID, clusterID)
    }

    private func makeFolder(_ path: String) async throws(KeeperError) {
        do throws(KeeperError) {
            _ = try await session.create(path, nil)
        } catch {
            switch error.code {
            case .nodeExists: return
            case .noNode:
                guard let parent = ClusterPath.parent(of: path) else { throw error }
                try await makeFolder(parent)
                try await makeFolder(path)
            default: throw error
            }
        }
    }

    private func readClusterID() async throws(ClusterError) -> String? {
        let data: [UInt8]?
        do throws(KeeperError) {
            data = try await session.get(ClusterPath.clusterID).data
        } catch {
            if error.code == .noNode { return nil }
            throw .keeper(error)
        }
        guard let node = ClusterIDNode(data) else { throw .malformedNode(path: ClusterPath.clusterID) }
        return node.id
    }

    /// The id that the tree then has: another broker may have been faster.
    private func createClusterID(_ wanted: String) async throws(ClusterError) -> String {
        do throws(KeeperError) {
            if let parent = ClusterPath.parent(of: ClusterPath.clusterID) { try await makeFolder(parent) }
            _ = try await session.create(ClusterPath.clusterID, ClusterIDNode(id: wanted).bytes)
            return wanted
        } catch {
            guard error.code == .nodeExists else { throw .keeper(error) }
        }
        guard let id = try await readClusterID() else { throw .malformedNode(path: ClusterPath.clusterID) }
        return id
    }

    private func chooseBrokerID() async throws(ClusterError) -> BrokerID {
        let configured = member.config.brokerID
        if configured >= 0 {
            if let found = replicas.foundBrokerID, found != configured { throw .wrongBrokerID(found: found, configured: configured) }
            return configured
        }
        if let found = replicas.foundBrokerID { return found }
        if member.access.isEmbedded { return Self.firstBrokerID }
        do throws(KeeperError) {
            let stat = try await session.set(ClusterPath.brokerSequence, [])
            let (id, overflow) = Self.reservedBrokerIDs.addingReportingOverflow(stat.version)
            guard !overflow else { throw KeeperError(.dataInconsistency, "\(ClusterPath.brokerSequence) has given out all ids") }
            return id
        } catch { throw .keeper(error) }
    }

    /// The embedded tree is that of one broker. With log directories of another one, all topics would be without a replica.
    private func requireOwnTopics(_ brokerID: BrokerID) async throws(ClusterError) {
        var other: BrokerID?
        do throws(KeeperError) {
            for name in try await session.children(ClusterPath.topics).names {
                guard let node = TopicNode(try await session.get(ClusterPath.topic(name)).data) else { continue }
                let brokers = node.partitions.flatMap(\.brokers)
                if brokers.contains(brokerID) { return }
                other = other ?? brokers.first
            }
        } catch { throw .keeper(error) }
        if let other { throw .otherBrokersTree(brokerID: brokerID, expected: other) }
    }

    // MARK: What it brings

    /// Topics of which the log directories hold folders, but which the tree does not know. Said once.
    func strangers() async throws(ClusterError) -> Set<String> {
        let known: Set<String>
        do throws(KeeperError) {
            known = Set(try await session.children(ClusterPath.topics).names)
        } catch { throw .keeper(error) }
        let strangers = Set(replicas.foundReplicas.map(\.topic)).subtracting(known)
        if let first = strangers.min() {
            member.logger.warning(
                "the log directories hold topics that the coordination tree does not know; they are left alone, and not served",
                ("topics", "\(strangers.count)"), ("first", first))
        }
        return strangers
    }

    // MARK: Registration

    /// The epoch of the registration: the transaction that made it.
    func register(_ node: BrokerNode) async throws(ClusterError) -> Int64 {
        let path = ClusterPath.broker(member.brokerID)
        let others: [LiveBroker]
        do throws(KeeperError) {
            let names = try await session.children(ClusterPath.brokers).names
            others = try await BrokerRegistrations.read(names, session, member.logger)
        } catch { throw .keeper(error) }
        for other in others where other.id != member.brokerID {
            for endpoint in node.endpoints where other.endpoints.contains(where: { $0.host == endpoint.host && $0.port == endpoint.port }) {
                throw .endpointTaken("\(endpoint.host):\(endpoint.port)", by: other.id)
            }
        }
        do throws(KeeperError) {
            let results = try await session.multi([
                .create(path: path, data: nil, acl: ACL.open, mode: .ephemeral), .setData(path: path, data: node.bytes, version: 0),
            ])
            guard case .created(_, let stat)? = results.first else { preconditionFailure("a creation is answered as one") }
            return stat.czxid.rawValue
        } catch {
            guard error.code == .nodeExists else { throw .keeper(error) }
            throw .brokerIDTaken(member.brokerID)
        }
    }
}
