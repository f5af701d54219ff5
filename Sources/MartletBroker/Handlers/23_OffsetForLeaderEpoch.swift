import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// OffsetForLeaderEpoch 2-4: where a leader epoch ends in the log, so that who read further than that knows it must go back.
enum OffsetForLeaderEpochHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(OffsetForLeaderEpochRequest.self)
        let table = request.broker.topics.table
        let partitions = asked.topics.flatMap { topic in
            topic.partitions.compactMap { table.topic(topic.topic)?.partition($0.partition) }
        }
        try request.answer(afterExchangesOf: partitions) { response(asked, table) }
    }

    private static func response(
        _ asked: OffsetForLeaderEpochRequest, _ table: LocalTopicTable
    ) -> OffsetForLeaderEpochResponse {
        var response = OffsetForLeaderEpochResponse()
        for topic in asked.topics {
            var answered = OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult()
            answered.topic = topic.topic
            let local = table.topic(topic.topic)
            for partition in topic.partitions {
                var end = OffsetForLeaderEpochResponse.EpochEndOffset()
                end.partition = partition.partition
                switch local?.partition(partition.partition)?.epochEnd(
                    of: partition.leaderEpoch, currentLeaderEpoch: partition.currentLeaderEpoch)
                {
                case nil: end.errorCode = .unknownTopicOrPartition
                case .failure(let error): end.errorCode = error
                case .success(let found):
                    end.leaderEpoch = found.epoch
                    end.endOffset = found.endOffset
                }
                answered.partitions.append(end)
            }
            response.topics.append(answered)
        }
        return response
    }
}
