import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// CreatePartitions 0-3: adds partitions to topics, placed like the others or by hand. A topic that is named twice is
/// refused, once. Version 3 refuses what is beyond the client's quota.
enum CreatePartitionsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(CreatePartitionsRequest.self)
        let (broker, responder) = (request.broker, request.later())
        let quota = request.mutationQuota(strictFrom: 3)
        request.connection.loop.spawn {
            var response = CreatePartitionsResponse()
            var counts: [String: Int] = [:]
            for topic in asked.topics { counts[topic.name, default: 0] += 1 }
            var answered: Set<String> = []
            for topic in asked.topics where answered.insert(topic.name).inserted {
                var result = CreatePartitionsResponse.CreatePartitionsTopicResult()
                result.name = topic.name
                if counts[topic.name]! > 1 {
                    result.errorCode = .invalidRequest
                    result.errorMessage = "The topic is named \(counts[topic.name]!) times in one request."
                } else if let fault = await grow(topic, validateOnly: asked.validateOnly, quota, broker) {
                    result.errorCode = fault.error
                    // Kafka says nothing more of a topic that is not
                    result.errorMessage = fault.error == .unknownTopicOrPartition ? nil : fault.message
                }
                response.results.append(result)
            }
            responder.answer(response, within: quota)
        }
    }

    private static func grow(
        _ topic: CreatePartitionsRequest.CreatePartitionsTopic, validateOnly: Bool, _ quota: MutationQuota, _ broker: Broker
    ) async -> TopicFault? {
        let isBeyond = !validateOnly && quota.isExceeded
        let before = broker.metadata.current.topic(topic.name)?.partitions.count ?? 0
        let fault = await broker.cluster.growTopic(
            topic.name, to: topic.count, assignments: topic.assignments?.map(\.brokerIDs),
            validateOnly: validateOnly || isBeyond)
        if let fault { return fault }
        if isBeyond { return TopicFault(.throttlingQuotaExceeded, MutationQuota.message) }
        if !validateOnly { quota.charge(max(Int(topic.count) - before, 0)) }
        return nil
    }
}
