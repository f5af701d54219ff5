import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// DescribeConfigs 1-4: what is set on topics, on this broker, on all brokers (a broker without a name), on groups
/// and on subscriptions to clients' metrics, and where each value comes from. No keys, or an empty list of them, ask
/// for every setting; keys that are none are passed over.
///
/// Version 3 adds types and, where it is asked for, documentation; 4 is flexible.
enum DescribeConfigsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(DescribeConfigsRequest.self)
        let (broker, responder) = (request.broker, request.later())
        request.connection.loop.spawn {
            var response = DescribeConfigsResponse()
            var budget = AnswerBudget()
            for resource in asked.resources {
                var result = await describe(resource, asked, broker)
                do { try budget.take(result.costBytes) } catch { return responder.fail("\(error)") }
                result.resourceType = resource.resourceType
                result.resourceName = resource.resourceName
                response.results.append(result)
            }
            responder.answer(response)
        }
    }

    private static func describe(
        _ resource: DescribeConfigsRequest.DescribeConfigsResource, _ asked: DescribeConfigsRequest, _ broker: Broker
    ) async -> DescribeConfigsResponse.DescribeConfigsResult {
        var result = DescribeConfigsResponse.DescribeConfigsResult()
        result.errorMessage = nil
        switch ConfigResource(
            type: resource.resourceType, name: resource.resourceName, emptyTopic: .invalidTopicException, broker)
        {
        case .fault(let fault): (result.errorCode, result.errorMessage) = (fault.error, fault.message)
        case .loggers: result.configs = loggers(broker.loggers)
        case .settings(let target):
            guard let described = await settings(of: target, broker) else {
                (result.errorCode, result.errorMessage) = (.unknownServerError, "The coordination service cannot be read now.")
                break
            }
            result.configs = described.map { answer($0, asked) }
        }
        if let keys = resource.configurationKeys, !keys.isEmpty {
            let wanted = Set(keys)
            result.configs.removeAll { !wanted.contains($0.name) }
        }
        return result
    }

    /// Nil while the tree cannot be read.
    private static func settings(of target: ConfigTarget, _ broker: Broker) async -> [ConfigDescription]? {
        let config = broker.cluster.running
        switch target {
        case .broker: return config.current.describeBroker()
        case .brokers: return config.current.describeClusterWide()
        case .topic, .group, .clientMetrics:
            guard let overrides = await broker.cluster.overrides(of: target) else { return nil }
            return switch target {
            case .group: config.current.describeGroup(overrides)
            case .clientMetrics: config.current.describeClientMetrics(overrides)
            default: config.current.describeTopic(overrides)
            }
        }
    }

    private static func answer(
        _ described: ConfigDescription, _ asked: DescribeConfigsRequest
    ) -> DescribeConfigsResponse.DescribeConfigsResourceResult {
        var config = DescribeConfigsResponse.DescribeConfigsResourceResult()
        config.name = described.name
        config.value = described.value
        config.readOnly = described.isReadOnly
        config.configSource = described.source.rawValue
        config.isSensitive = described.definition.isSecret
        config.configType = described.definition.type.rawValue
        config.documentation = asked.includeDocumentation ? ConfigReference.documentation(described.definition) : nil
        guard asked.includeSynonyms else { return config }
        config.synonyms = described.synonyms.map { synonym in
            var told = DescribeConfigsResponse.DescribeConfigsSynonym()
            told.name = synonym.name
            told.value = synonym.value
            told.source = synonym.source.rawValue
            return told
        }
        return config
    }

    /// The levels of the log that count now.
    private static func loggers(_ loggers: Loggers) -> [DescribeConfigsResponse.DescribeConfigsResourceResult] {
        loggers.described.map { name, level in
            var config = DescribeConfigsResponse.DescribeConfigsResourceResult()
            config.name = name
            config.value = level
            config.configSource = ConfigSource.dynamicLogger.rawValue
            config.configType = ConfigType.string.rawValue
            config.documentation = nil
            return config
        }
    }
}

extension DescribeConfigsResponse.DescribeConfigsResult {
    fileprivate var costBytes: Int {
        configs.reduce(256 + resourceName.utf8.count) { sum, config in
            config.synonyms.reduce(sum + 200 + (config.value?.utf8.count ?? 0) + (config.documentation?.utf8.count ?? 0)) {
                $0 + 64 + ($1.value?.utf8.count ?? 0)
            }
        }
    }
}
