import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// CreatePartitions 0-3: adds partitions to topics, placed like the others or by hand. A topic that is named twice is refused, once.
enum CreatePartitionsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(CreatePartitionsRequest.self)
        let (broker, responder) = (request.broker, request.later())
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
                } else if let fault = await broker.cluster.growTopic(
                    topic.name, to: topic.count, assignments: topic.assignments?.map(\.brokerIDs), validateOnly: asked.validateOnly)
                {
                    result.errorCode = fault.error
                    // Kafka says nothing more of a topic that is not
                    result.errorMessage = fault.error == .unknownTopicOrPartition ? nil : fault.message
                }
                response.results.append(result)
            }
            responder.answer(response)
        }
    }
}
