import MartletBasics
import MartletModel
import MartletWire

/// FindCoordinator 0-6. Neither groups nor transactions are coordinated here yet; who asks is told so by an error that ends the attempt, for a
/// retriable one would make clients ask for ever.
enum FindCoordinatorHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(FindCoordinatorRequest.self)
        var response = FindCoordinatorResponse()
        let keys = request.version >= 4 ? asked.coordinatorKeys : [asked.key]
        let (error, message) = fault(kind: asked.keyType)
        for key in keys {
            request.broker.log.requests.warning(
                "a client asked for a coordinator: groups and transactions are not served yet", ("key", key),
                ("client", request.connection.socket.peer.description))
        }
        if request.version >= 4 {
            response.coordinators = keys.map { key in
                var coordinator = FindCoordinatorResponse.Coordinator()
                coordinator.key = key
                coordinator.nodeID = -1
                coordinator.port = -1
                coordinator.errorCode = error
                coordinator.errorMessage = message
                return coordinator
            }
        } else {
            response.nodeID = -1
            response.port = -1
            response.errorCode = error
            response.errorMessage = message
        }
        try request.answer(response)
    }

    /// Key types: 0 group, 1 transaction, 2 share group; what has no number is no request.
    private static func fault(kind: Int8) -> (ErrorCode, String) {
        switch kind {
        case 0: (.groupAuthorizationFailed, "Consumer groups are not served by this broker yet.")
        case 1: (.transactionalIDAuthorizationFailed, "Transactions are not served by this broker yet.")
        case 2: (.groupAuthorizationFailed, "Share groups are not served by this broker yet.")
        default: (.invalidRequest, "\(kind) is no kind of coordinator.")
        }
    }
}
