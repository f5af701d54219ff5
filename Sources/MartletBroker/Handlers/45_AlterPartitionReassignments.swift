import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// AlterPartitionReassignments 0-1: other brokers for the replicas of a partition. A broker that is alone can only be asked for what is so
/// already; everything else names a broker that is not there.
enum AlterPartitionReassignmentsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(AlterPartitionReassignmentsRequest.self)
        let image = request.broker.metadata.current
        var response = AlterPartitionReassignmentsResponse()
        response.errorMessage = nil
        response.allowReplicationFactorChange = asked.allowReplicationFactorChange
        response.responses = asked.topics.map { topic in
            var answered = AlterPartitionReassignmentsResponse.ReassignableTopicResponse()
            answered.name = topic.name
            answered.partitions = topic.partitions.map { wish in
                let info = image.topic(topic.name)?.partitions.first { $0.index == wish.partitionIndex }
                var result = AlterPartitionReassignmentsResponse.ReassignablePartitionResponse()
                result.partitionIndex = wish.partitionIndex
                (result.errorCode, result.errorMessage) = judge(wish.replicas, info, image)
                return result
            }
            return answered
        }
        try request.answer(response)
    }

    private static func judge(_ replicas: [BrokerID]?, _ info: PartitionInfo?, _ image: MetadataImage) -> (ErrorCode, String?) {
        guard let info else { return (.unknownTopicOrPartition, "This server does not host this topic or partition.") }
        guard let replicas else { return (.noReassignmentInProgress, nil) }
        func refused(_ reason: String) -> (ErrorCode, String?) { (.invalidReplicaAssignment, reason) }
        if replicas.isEmpty { return refused("The list of replicas is empty: name at least one broker.") }
        if Set(replicas).count != replicas.count { return refused("A broker is named twice: it can hold one replica.") }
        if let negative = replicas.first(where: { $0 < 0 }) { return refused("\(negative) is no id of a broker.") }
        if let absent = replicas.first(where: { id in !image.brokers.contains { $0.id == id } }) {
            return refused("Broker \(absent) is not registered: start it, or name another.")
        }
        if replicas == info.replicas { return (.none, nil) }
        return refused("This release moves no replicas between brokers.")
    }
}

/// ListPartitionReassignments 0: nothing moves between brokers, so nothing is listed.
enum ListPartitionReassignmentsHandler {
    static func handle(_ request: Request) throws {
        _ = try request.decode(ListPartitionReassignmentsRequest.self)
        var response = ListPartitionReassignmentsResponse()
        response.errorMessage = nil
        try request.answer(response)
    }
}
