import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// ListOffsets 1-11: the offset of a time, or of a place that has a negative number.
///
/// -1 latest (the last stable offset for who reads committed), -2 earliest, -3 of the highest timestamp (from version
/// 7), -4 earliest on local disk (8; the same as earliest, there being no other tier), -5 latest in the other tier (9:
/// none), -6 earliest that is not there yet (11: none). Below those versions, and for numbers that mean nothing,
/// UNSUPPORTED_VERSION. Version 4 brought leader epochs, 10 a time limit.
///
/// Records that were acknowledged but are not synced yet are waited for: who has produced with acks=0 or 1 and asks for
/// the end of the log finds his records below it, as with Kafka.
enum ListOffsetsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(ListOffsetsRequest.self)
        let table = request.broker.topics.table
        let partitions = asked.topics.flatMap { topic in
            topic.partitions.compactMap { table.topic(topic.name)?.partition($0.partitionIndex) }
        }
        let settling = Settling(request.connection.loop)
        let waits = settling.begin(partitions)
        let exchanges = request.broker.topics.areExchanging && settling.begin(exchangesOf: partitions, toAppend: false)
        guard waits || exchanges else { return try request.answer(response(asked, request.version, table)) }
        let (responder, version) = (request.later(), request.version)
        settling.whenDone { responder.answer(response(asked, version, table)) }
    }

    private static func response(_ asked: ListOffsetsRequest, _ version: Int16, _ table: LocalTopicTable) -> ListOffsetsResponse {
        var response = ListOffsetsResponse()
        var twice = Set<TopicPartition>(), seen = Set<TopicPartition>(), refused = Set<TopicPartition>()
        for topic in asked.topics {
            for partition in topic.partitions {
                let id = TopicPartition(topic.name, partition.partitionIndex)
                if !seen.insert(id).inserted { twice.insert(id) }
            }
        }
        for topic in asked.topics {
            var answered = ListOffsetsResponse.ListOffsetsTopicResponse()
            answered.name = topic.name
            let local = table.topic(topic.name)
            for partition in topic.partitions {
                var found: ListOffsetsResponse.ListOffsetsPartitionResponse
                let id = TopicPartition(topic.name, partition.partitionIndex)
                if twice.contains(id) {
                    // named twice, refused once
                    guard refused.insert(id).inserted else { continue }
                    found = .init()
                    found.errorCode = .invalidRequest
                } else {
                    found = lookUp(partition, in: local, asked, version: version)
                }
                found.partitionIndex = partition.partitionIndex
                answered.partitions.append(found)
            }
            response.topics.append(answered)
        }
        return response
    }

    private static func lookUp(
        _ asked: ListOffsetsRequest.ListOffsetsPartition, in topic: LocalTopic?, _ request: ListOffsetsRequest, version: Int16
    ) -> ListOffsetsResponse.ListOffsetsPartitionResponse {
        var found = ListOffsetsResponse.ListOffsetsPartitionResponse()
        guard let partition = topic?.partition(asked.partitionIndex) else {
            found.errorCode = topic?.hasFailed(asked.partitionIndex) == true ? .kafkaStorageError : .unknownTopicOrPartition
            return found
        }
        guard let place = place(asked.timestamp, version: version) else {
            found.errorCode = .unsupportedVersion
            return found
        }
        switch partition.lookUp(place, currentLeaderEpoch: asked.currentLeaderEpoch, readCommitted: request.isolationLevel == 1,
            forReplica: request.replicaID >= 0)
        {
        case .failure(.offsetNotAvailable) where version < 5: found.errorCode = .leaderNotAvailable
        case .failure(let error): found.errorCode = error
        case .success(let position?):
            found.offset = position.offset
            found.timestamp = position.timestamp
            if version >= 4 { found.leaderEpoch = position.leaderEpoch }
        case .success(nil): break
        }
        return found
    }

    private static func place(_ timestamp: Int64, version: Int16) -> LogPlace? {
        switch timestamp {
        case 0...: .time(timestamp)
        case -1: .latest
        case -2: .earliest
        case -3 where version >= 7: .highestTimestamp
        case -4 where version >= 8: .earliest
        case -5 where version >= 9: .nowhere
        case -6 where version >= 11: .nowhere
        default: nil
        }
    }
}
