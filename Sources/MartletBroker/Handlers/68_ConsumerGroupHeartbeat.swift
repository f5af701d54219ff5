import MartletModel
import MartletWire

/// ConsumerGroupHeartbeat 0-1 (KIP-848): a member joins, goes on, or leaves, says what it reads and what it has, and is
/// told what it is to have. In version 0 the coordinator makes member ids; version 1 has regular expressions.
enum ConsumerGroupHeartbeatHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(ConsumerGroupHeartbeatRequest.self)
        var event = ConsumerHeartbeatEvent(group: asked.groupID)
        event.memberID = asked.memberID
        event.epoch = asked.memberEpoch
        event.instanceID = asked.instanceID
        event.rackID = asked.rackID
        event.rebalanceTimeoutMs = asked.rebalanceTimeoutMs
        event.topics = asked.subscribedTopicNames
        event.pattern = asked.subscribedTopicRegex
        event.assignor = asked.serverAssignor
        event.owned = asked.topicPartitions.map { topics in
            PartitionSet(topics.map { ($0.topicID, $0.partitions) }, uniquingKeysWith: { $0 + $1 })
        }
        event.clientID = request.clientID ?? ""
        event.clientHost = "/" + request.connection.socket.peer.host
        event.makesMemberID = request.version == 0
        let responder = request.later()
        request.broker.groups.submit(asked.groupID, on: request.connection.loop) { reply in
            responder.answer(response(reply))
        } _: {
            .consumerHeartbeat(event, $0)
        }
    }

    private static func response(_ reply: GroupReply) -> ConsumerGroupHeartbeatResponse {
        var response = ConsumerGroupHeartbeatResponse()
        switch reply {
        case .failed(let error):
            response.errorCode = error
            response.errorMessage = "The group's coordinator cannot answer: \(error)."
        case .refused(let refusal):
            response.errorCode = refusal.error
            response.errorMessage = refusal.message
        case .consumerHeartbeat(let told):
            response.memberID = told.memberID
            response.memberEpoch = told.epoch
            response.heartbeatIntervalMs = told.heartbeatIntervalMs
            response.assignment = told.assignment.map { partitions in
                var assignment = ConsumerGroupHeartbeatResponse.Assignment()
                assignment.topicPartitions = partitions.keys.sorted().map { topic in
                    var entry = ConsumerGroupHeartbeatResponse.TopicPartitions()
                    entry.topicID = topic
                    entry.partitions = partitions[topic]!
                    return entry
                }
                return assignment
            }
        default: preconditionFailure("a heartbeat of a consumer group is answered as one")
        }
        return response
    }
}
