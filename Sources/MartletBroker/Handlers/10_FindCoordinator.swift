import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// FindCoordinator 0-6: who coordinates a group, or a transactional id. From version 4 on several are asked for at once.
///
/// `__consumer_offsets` is made when the first group is asked for, `__transaction_state` when the first transactional id
/// is; until its partitions have leaders the answer is COORDINATOR_NOT_AVAILABLE, and the client asks again.
enum FindCoordinatorHandler {
    private struct Found {
        var error = ErrorCode.none
        var message: String?
        var broker: BrokerID = -1
        var endpoint = BrokerEndpoint(listener: "", host: "", port: -1)
    }

    static func handle(_ request: Request) throws {
        let asked = try request.decode(FindCoordinatorRequest.self)
        var response = FindCoordinatorResponse()
        guard request.version >= 4 else {
            let found = find(asked.key, kind: asked.keyType, request)
            response.errorCode = found.error
            response.errorMessage = found.message ?? "NONE"
            response.nodeID = found.broker
            response.host = found.endpoint.host
            response.port = found.endpoint.port
            return try request.answer(response)
        }
        var budget = AnswerBudget()
        response.coordinators = try asked.coordinatorKeys.map { key in
            try budget.take(256 + key.utf8.count)
            let found = find(key, kind: asked.keyType, request)
            var coordinator = FindCoordinatorResponse.Coordinator()
            coordinator.key = key
            coordinator.errorCode = found.error
            coordinator.errorMessage = found.message
            coordinator.nodeID = found.broker
            coordinator.host = found.endpoint.host
            coordinator.port = found.endpoint.port
            return coordinator
        }
        try request.answer(response)
    }

    /// Key types: 0 group, 1 transaction, 2 share group; what has no number is no request.
    private static func find(_ key: String, kind: Int8, _ request: Request) -> Found {
        switch kind {
        case 0: return find(request.broker.groups.partition(of: key), of: InternalTopics.offsets, request)
        case 1: return find(request.broker.transactions.partition(of: key), of: InternalTopics.transactions, request)
        case 2 where request.version >= 6: return findShare(key, request)
        default: return Found(error: .invalidRequest, message: "\(kind) is no kind of coordinator.")
        }
    }

    /// Brokers ask this of each other, by `group:topic id:partition`. What a share group's partition keeps would be kept
    /// by the controller of a cluster, which is where all of it is.
    private static func findShare(_ key: String, _ request: Request) -> Found {
        let parts = key.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count >= 3, let partition = Int32(parts[parts.count - 1]), partition >= 0,
            UUID(String(parts[parts.count - 2])) != nil, parts.dropLast(2).contains(where: { !$0.isEmpty })
        else {
            let message = "A share group's partition is asked for as group:topic id:partition."
            return Found(error: .invalidRequest, message: message)
        }
        let image = request.broker.metadata.current
        guard let info = image.brokers.first(where: { $0.id == image.controllerID }) else {
            return Found(error: .coordinatorNotAvailable, message: "No controller is elected.")
        }
        return Found(broker: info.id, endpoint: info.endpoint(for: request.connection))
    }

    private static func find(_ partition: PartitionInfo?, of topic: String, _ request: Request) -> Found {
        let broker = request.broker
        guard let partition else {
            broker.cluster.createAutomatically(topic)
            return Found(error: .coordinatorNotAvailable, message: "The topic \(topic) is being made.")
        }
        guard let info = broker.metadata.current.brokers.first(where: { $0.id == partition.leader }) else {
            return Found(error: .coordinatorNotAvailable, message: "Its partition of \(topic) has no leader.")
        }
        return Found(broker: info.id, endpoint: info.endpoint(for: request.connection))
    }
}
