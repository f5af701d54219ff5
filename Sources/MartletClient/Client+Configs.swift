package import MartletModel
import MartletWire

/// What has settings.
package enum ConfigResource: Sendable, Equatable {
    case topic(String)
    case broker(BrokerID)
    /// The default of all brokers.
    case cluster
    /// The levels of a broker's log.
    case loggers(BrokerID)

    var type: Int8 {
        switch self {
        case .topic: 2
        case .broker, .cluster: 4
        case .loggers: 8
        }
    }

    /// As the protocol names it.
    package var name: String {
        switch self {
        case .topic(let name): name
        case .broker(let id), .loggers(let id): "\(id)"
        case .cluster: ""
        }
    }

    /// As a person names it.
    package var title: String {
        switch self {
        case .topic(let name): "topic \(name)"
        case .broker(let id): "broker \(id)"
        case .cluster: "the cluster"
        case .loggers(let id): "the loggers of broker \(id)"
        }
    }
}

/// One setting as a broker tells it.
package struct ResourceConfig: Sendable, Equatable {
    package enum Source: Int8, Sendable {
        case unknown = 0, topic, broker, clusterDefault, file, builtIn, brokerLogger
    }

    package var name: String
    /// Nil where there is none, or where it is secret.
    package var value: String?
    package var source: Source
    package var isReadOnly: Bool
    package var isSensitive: Bool
    package var documentation: String?
}

package enum ResourceConfigChange: Sendable, Equatable {
    case set(String, String)
    /// What holds above it counts again.
    case delete(String)
    /// One element of a list.
    case append(String, String)
    case subtract(String, String)

    package var name: String {
        switch self {
        case .set(let name, _), .delete(let name), .append(let name, _), .subtract(let name, _): name
        }
    }

    fileprivate var operation: Int8 {
        switch self {
        case .set: 0
        case .delete: 1
        case .append: 2
        case .subtract: 3
        }
    }

    fileprivate var value: String? {
        switch self {
        case .set(_, let value), .append(_, let value), .subtract(_, let value): value
        case .delete: nil
        }
    }
}

/// Settings.
extension Client {
    /// The settings of a topic, a broker or the cluster, by name.
    package func configs(
        of resource: ConfigResource, documented: Bool = false
    ) async throws(ClientError) -> [ResourceConfig] {
        let answer = try await ask(route(to: resource)) { (version) throws(ClientError) -> DescribeConfigsRequest in
            var wanted = DescribeConfigsRequest.DescribeConfigsResource()
            wanted.resourceType = resource.type
            wanted.resourceName = resource.name
            wanted.configurationKeys = nil
            var request = DescribeConfigsRequest()
            request.resources = [wanted]
            if version >= 3 { request.includeDocumentation = documented }
            return request
        }
        guard let result = answer.message.results.first else {
            throw .malformedAnswer(what: "DescribeConfigs", broker: answer.broker, reason: "it is empty")
        }
        guard result.errorCode == .none else {
            throw .refused(what: "the settings of \(resource.title)", result.errorCode, message: result.errorMessage)
        }
        return result.configs.map { config in
            ResourceConfig(
                name: config.name, value: config.value, source: .init(rawValue: config.configSource) ?? .unknown,
                isReadOnly: config.readOnly, isSensitive: config.isSensitive, documentation: config.documentation)
        }.sorted { $0.name < $1.name }
    }

    package func change(
        _ changes: [ResourceConfigChange], of resource: ConfigResource, validateOnly: Bool = false
    ) async throws(ClientError) {
        let answer = try await ask(route(to: resource), isRepeatable: false) {
            (_) throws(ClientError) -> IncrementalAlterConfigsRequest in
            var wanted = IncrementalAlterConfigsRequest.AlterConfigsResource()
            wanted.resourceType = resource.type
            wanted.resourceName = resource.name
            wanted.configs = changes.map { change in
                var config = IncrementalAlterConfigsRequest.AlterableConfig()
                config.name = change.name
                config.configOperation = change.operation
                config.value = change.value
                return config
            }
            var request = IncrementalAlterConfigsRequest()
            request.resources = [wanted]
            request.validateOnly = validateOnly
            return request
        }
        guard let result = answer.message.responses.first else {
            throw .malformedAnswer(what: "IncrementalAlterConfigs", broker: answer.broker, reason: "it is empty")
        }
        guard result.errorCode == .none else {
            throw .refused(
                what: "the settings of \(resource.title) were not changed", result.errorCode, message: result.errorMessage)
        }
    }

    /// A broker knows its own settings best.
    private func route(to resource: ConfigResource) -> Route {
        switch resource {
        case .broker(let id), .loggers(let id): .broker(id)
        case .topic, .cluster: .any
        }
    }
}
