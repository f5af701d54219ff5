import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// ElectLeaders 0-2: makes the first replica lead (type 0), or any that is there where none leads (type 1). Where there is nothing to do,
/// ELECTION_NOT_NEEDED says so; who asks for all partitions (null) is told of others only.
///
/// Leaders change only with the brokers that are there, and then at once: of a partition that could be led better, or at all, the replica that
/// it takes is not there.
enum ElectLeadersHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(ElectLeadersRequest.self)
        let image = request.broker.metadata.current
        var response = ElectLeadersResponse()
        guard asked.electionType == 0 || asked.electionType == 1 else {
            response.errorCode = .invalidRequest
            return try request.answer(response)
        }
        let isPreferred = asked.electionType == 0
        if let topics = asked.topicPartitions {
            for topic in topics {
                let info = image.topic(topic.topic)
                append(topic.topic, to: &response, topic.partitions.map { index in
                    let partition = info?.partitions.first { $0.index == index }
                    return result(index, fault(of: partition, isPreferred: isPreferred))
                })
            }
        } else {
            for info in image.topics {
                let faults = info.partitions.map { result($0.index, fault(of: $0, isPreferred: isPreferred)) }
                append(info.name, to: &response, faults.filter { $0.errorCode != .electionNotNeeded })
            }
        }
        try request.answer(response)
    }

    private static func fault(of partition: PartitionInfo?, isPreferred: Bool) -> (ErrorCode, String) {
        guard let partition else { return (.unknownTopicOrPartition, "No such topic or partition exists.") }
        if isPreferred {
            guard let first = partition.replicas.first, partition.leader != first else {
                return (.electionNotNeeded, "The preferred replica leads already.")
            }
            return (.preferredLeaderNotAvailable, "The preferred replica, on broker \(first), is not there or not in sync.")
        }
        if partition.leader >= 0 { return (.electionNotNeeded, "A leader is there already.") }
        return (.eligibleLeadersNotAvailable, "No replica is there that could lead.")
    }

    private static func result(_ index: Int32, _ fault: (ErrorCode, String)) -> ElectLeadersResponse.PartitionResult {
        var result = ElectLeadersResponse.PartitionResult()
        result.partitionID = index
        (result.errorCode, result.errorMessage) = fault
        return result
    }

    private static func append(
        _ topic: String, to response: inout ElectLeadersResponse, _ results: [ElectLeadersResponse.PartitionResult]
    ) {
        guard !results.isEmpty else { return }
        var answered = ElectLeadersResponse.ReplicaElectionResult()
        answered.topic = topic
        answered.partitionResult = results
        response.replicaElectionResults.append(answered)
    }
}
