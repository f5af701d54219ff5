import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// DescribeCluster 0-2: the brokers and the controller. From version 1 on the client says which kind of endpoint it
/// means: a client's listener describes brokers (1), refuses controllers (2) with MISMATCHED_ENDPOINT_TYPE and anything
/// else with UNSUPPORTED_ENDPOINT_TYPE.
enum DescribeClusterHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(DescribeClusterRequest.self)
        let image = request.broker.metadata.current
        var response = DescribeClusterResponse()
        guard asked.endpointType == 1 else {
            response.errorCode = asked.endpointType == 2 ? .mismatchedEndpointType : .unsupportedEndpointType
            response.errorMessage = "This listener describes brokers (endpoint type 1), not endpoint type \(asked.endpointType)."
            return try request.answer(response)
        }
        response.clusterID = image.clusterID
        response.controllerID = image.controllerID ?? -1
        if asked.includeClusterAuthorizedOperations { response.clusterAuthorizedOperations = AuthorizedOperations.cluster }
        response.brokers = image.brokers.map { info in
            let endpoint = info.endpoint(for: request.connection)
            var broker = DescribeClusterResponse.DescribeClusterBroker()
            broker.brokerID = info.id
            broker.host = endpoint.host
            broker.port = endpoint.port
            broker.rack = info.rack
            return broker
        }
        try request.answer(response)
    }
}
