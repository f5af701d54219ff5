import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// DeleteRecords 0-2: moves the start of logs up. -1 means the high watermark. Answered when the new start is known to
/// every replica; a topic that is only compacted refuses.
enum DeleteRecordsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(DeleteRecordsRequest.self)
        let table = request.broker.topics.table
        let partitions = asked.topics.flatMap { topic in
            topic.partitions.compactMap { table.topic(topic.name)?.partition($0.partitionIndex) }
        }
        try request.answer(afterExchangesOf: partitions) { response(asked, table) }
    }

    private static func response(_ asked: DeleteRecordsRequest, _ table: LocalTopicTable) -> DeleteRecordsResponse {
        var response = DeleteRecordsResponse()
        for topic in asked.topics {
            var answered = DeleteRecordsResponse.DeleteRecordsTopicResult()
            answered.name = topic.name
            let local = table.topic(topic.name)
            for partition in topic.partitions {
                var result = DeleteRecordsResponse.DeleteRecordsPartitionResult()
                result.partitionIndex = partition.partitionIndex
                result.lowWatermark = -1
                switch local?.partition(partition.partitionIndex)?.deleteRecords(before: partition.offset) {
                case nil: result.errorCode = .unknownTopicOrPartition
                case .failure(let error): result.errorCode = error
                case .success(let lowWatermark): result.lowWatermark = lowWatermark
                }
                answered.partitions.append(result)
            }
            response.topics.append(answered)
        }
        return response
    }
}
