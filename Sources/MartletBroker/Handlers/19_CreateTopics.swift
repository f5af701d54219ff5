import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// CreateTopics 2-7: each topic is made, or refused, on its own. A name that comes twice in a request is refused once.
///
/// -1 partitions or replicas mean the broker's defaults; replicas may be placed by hand instead, with both counts -1.
/// Version 5 tells the settings of the new topic, 6 refuses what is beyond the client's quota, 7 tells its id.
enum CreateTopicsHandler {
    /// What the answer has of a topic, its settings above all.
    private static let answerBytes = 4 << 10

    static func handle(_ request: Request) throws {
        let asked = try request.decode(CreateTopicsRequest.self)
        var budget = AnswerBudget()
        try budget.take(asked.topics.count * answerBytes)
        let responder = request.later()
        let broker = request.broker
        let quota = request.mutationQuota(strictFrom: 6)
        request.connection.loop.spawn {
            var response = CreateTopicsResponse()
            var counts: [String: Int] = [:]
            for topic in asked.topics { counts[topic.name, default: 0] += 1 }
            var answered: Set<String> = []
            for topic in asked.topics where answered.insert(topic.name).inserted {
                var result: CreateTopicsResponse.CreatableTopicResult
                if counts[topic.name]! > 1 {
                    result = refused(topic.name, .invalidRequest, "The topic is named \(counts[topic.name]!) times in one request.")
                } else {
                    result = await create(topic, validateOnly: asked.validateOnly, quota, broker)
                }
                result.name = topic.name
                response.topics.append(result)
            }
            responder.answer(response, within: quota)
        }
    }

    private static func refused(
        _ name: String, _ error: ErrorCode, _ message: String
    ) -> CreateTopicsResponse.CreatableTopicResult {
        var result = CreateTopicsResponse.CreatableTopicResult()
        result.name = name
        result.errorCode = error
        result.errorMessage = message
        return result
    }

    private static func create(
        _ topic: CreateTopicsRequest.CreatableTopic, validateOnly: Bool, _ quota: MutationQuota, _ broker: Broker
    ) async -> CreateTopicsResponse.CreatableTopicResult {
        let wanted = NewTopic(
            name: topic.name, partitionCount: topic.numPartitions, replicationFactor: topic.replicationFactor,
            assignments: topic.assignments.map { NewTopic.Assignment(partition: $0.partitionIndex, brokers: $0.brokerIDs) },
            configs: topic.configs.map { NewTopic.Setting(name: $0.name, value: $0.value) })
        let isBeyond = !validateOnly && quota.isExceeded
        switch await broker.cluster.createTopic(wanted, validateOnly: validateOnly || isBeyond) {
        case .failure(let fault): return refused(topic.name, fault.error, fault.message)
        case .success where isBeyond: return refused(topic.name, .throttlingQuotaExceeded, MutationQuota.message)
        case .success(let created):
            if !validateOnly { quota.charge(Int(created.partitionCount)) }
            var result = CreateTopicsResponse.CreatableTopicResult()
            result.name = topic.name
            result.topicID = created.id
            result.numPartitions = created.partitionCount
            result.replicationFactor = created.replicationFactor
            result.configs = broker.cluster.running.current.topics.entries(created.settings).map { setting in
                var described = CreateTopicsResponse.CreatableTopicConfigs()
                described.name = setting.name
                described.value = setting.value
                described.readOnly = setting.isReadOnly
                described.configSource = setting.source.rawValue
                described.isSensitive = setting.isSensitive
                return described
            }
            return result
        }
    }
}
