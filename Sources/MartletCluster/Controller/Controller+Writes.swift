import MartletKeeper
import MartletModel

/// The controller's writes: each a `multi` that begins with a check of the controller's epoch.
extension Controller {
    /// Partitions in one `multi`: three nodes each, far below what a transaction may hold.
    private static let partitionsPerTransaction = 100

    /// Carries out operations, all or none. A node that is to be made and is there, or to be removed and is not, is
    /// what an earlier controller left half done: then one at a time, passing over those.
    func write(_ operations: [KeeperOperation]) async throws(KeeperError) {
        guard !operations.isEmpty else { return }
        do throws(KeeperError) {
            try await checked(operations)
        } catch {
            guard error.code == .nodeExists || error.code == .noNode else { throw error }
            for operation in operations { try await writeAlone(operation) }
        }
    }

    private func checked(_ operations: [KeeperOperation]) async throws(KeeperError) {
        guard let session, let check = epochCheck else { throw KeeperError(.badVersion, "this broker is not the controller") }
        _ = try await session.multi([check] + operations)
    }

    private func writeAlone(_ operation: KeeperOperation) async throws(KeeperError) {
        do throws(KeeperError) {
            try await checked([operation])
        } catch {
            switch (operation, error.code) {
            // a folder; a state that is there would be a leader that this controller does not know
            case (.create(_, nil, _, _), .nodeExists), (.delete, .noNode): return
            default: throw error
            }
        }
    }

    func write(_ writes: [ControllerAction.StateWrite]) async throws(KeeperError) {
        var operations: [KeeperOperation] = []
        var count = 0
        var topic: String?
        for entry in writes {
            let id = entry.partition
            if let version = entry.expectedVersion {
                operations.append(.setData(path: ClusterPath.state(id), data: entry.state.bytes, version: version))
            } else {
                if topic != id.topic { operations.append(folder(ClusterPath.partitions(id.topic))) }
                topic = id.topic
                operations.append(folder(ClusterPath.partition(id)))
                operations.append(
                    .create(path: ClusterPath.state(id), data: entry.state.bytes, acl: ACL.open, mode: .persistent))
            }
            count += 1
            guard count == Self.partitionsPerTransaction else { continue }
            try await write(operations)
            operations = []
            count = 0
        }
        try await write(operations)
    }

    private func folder(_ path: String) -> KeeperOperation {
        .create(path: path, data: nil, acl: ACL.open, mode: .persistent)
    }

    func removeNodes(of name: String, _ partitions: [Int32]) async throws(KeeperError) {
        var rest = partitions[...]
        while !rest.isEmpty {
            let ids = rest.prefix(Self.partitionsPerTransaction).map { TopicPartition(name, $0) }
            rest = rest.dropFirst(Self.partitionsPerTransaction)
            try await write(ids.flatMap { id in
                [.delete(path: ClusterPath.state(id), version: -1), .delete(path: ClusterPath.partition(id), version: -1)]
            })
        }
        try await write([
            .delete(path: ClusterPath.partitions(name), version: -1), .delete(path: ClusterPath.topic(name), version: -1),
            .delete(path: ClusterPath.topicConfig(name), version: -1), .delete(path: ClusterPath.deletion(name), version: -1),
        ])
        logger.info("topic deleted", ("topic", name))
    }
}
