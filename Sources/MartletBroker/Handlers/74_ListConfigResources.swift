import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// ListConfigResources 0-1: the names of what has settings. Version 0 knows subscriptions to clients' metrics only (and was called
/// ListClientMetricsResources); in version 1 kinds are named, and none means all. A kind that there is not: UNSUPPORTED_VERSION.
enum ListConfigResourcesHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(ListConfigResourcesRequest.self)
        var response = ListConfigResourcesResponse()
        var types: Set<ConfigResourceType> = request.version == 0 ? [.clientMetrics] : []
        for number in asked.resourceTypes {
            guard let type = ConfigResourceType(rawValue: number) else {
                response.errorCode = .unsupportedVersion
                return try request.answer(response)
            }
            types.insert(type)
        }
        if types.isEmpty { types = Set(ConfigResourceType.allCases) }
        let (broker, responder, wanted) = (request.broker, request.later(), types)
        request.connection.loop.spawn {
            var response = ListConfigResourcesResponse()
            for type in ConfigResourceType.allCases where wanted.contains(type) {
                guard let names = await names(of: type, broker) else {
                    response.configResources = []
                    response.errorCode = .unknownServerError
                    break
                }
                response.configResources += names.map { name in
                    var resource = ListConfigResourcesResponse.ConfigResource()
                    resource.resourceName = name
                    resource.resourceType = type.rawValue
                    return resource
                }
            }
            responder.answer(response)
        }
    }

    private static func names(of type: ConfigResourceType, _ broker: Broker) async -> [String]? {
        switch type {
        case .topic: broker.metadata.current.topics.map(\.name)
        case .broker, .brokerLogger: broker.metadata.current.brokers.map { String($0.id) }
        case .clientMetrics: await broker.cluster.namesOfClientMetrics()
        case .group: await broker.cluster.namesOfGroupConfigs()
        }
    }
}
