import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// DeleteRecords 0-2: moves the start of logs up. -1 means the high watermark. Answered when the new start is known to
/// every replica, and is on the disk: unlike with Kafka, what was said to be deleted is not there again after a crash. A
/// topic that is only compacted refuses.
enum DeleteRecordsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(DeleteRecordsRequest.self)
        let (broker, loop, responder) = (request.broker, request.connection.loop, request.later())
        let table = broker.topics.table
        let partitions = asked.topics.flatMap { topic in
            topic.partitions.compactMap { table.topic(topic.name)?.partition($0.partitionIndex) }
        }
        request.whenExchanged(partitions) {
            var deletion = Deletion(asked, broker.topics.table)
            loop.spawn {
                for unit in deletion.units {
                    if let error = await broker.cluster.keepLogStarts(in: unit) { deletion.fail(unit, error.code) }
                }
                responder.answer(deletion.response)
            }
        }
    }
}

/// What a request has moved, and what its answer says of it.
private struct Deletion {
    private(set) var response = DeleteRecordsResponse()
    /// The log directories of what was moved, each once.
    private(set) var units: [LogDirectoryUnit] = []
    /// Where in the answer the partitions of each of these are.
    private var places: [ObjectIdentifier: [(topic: Int, partition: Int)]] = [:]

    init(_ asked: DeleteRecordsRequest, _ table: LocalTopicTable) {
        for topic in asked.topics {
            var answered = DeleteRecordsResponse.DeleteRecordsTopicResult()
            answered.name = topic.name
            let local = table.topic(topic.name)
            for wanted in topic.partitions {
                var result = DeleteRecordsResponse.DeleteRecordsPartitionResult()
                result.partitionIndex = wanted.partitionIndex
                result.lowWatermark = -1
                let partition = local?.partition(wanted.partitionIndex)
                switch partition?.deleteRecords(before: wanted.offset) {
                case nil: result.errorCode = .unknownTopicOrPartition
                case .failure(let error): result.errorCode = error
                case .success(let lowWatermark):
                    result.lowWatermark = lowWatermark
                    note(partition!.directory, (response.topics.count, answered.partitions.count))
                }
                answered.partitions.append(result)
            }
            response.topics.append(answered)
        }
    }

    private mutating func note(_ unit: LogDirectoryUnit, _ place: (topic: Int, partition: Int)) {
        if places[ObjectIdentifier(unit)] == nil { units.append(unit) }
        places[ObjectIdentifier(unit), default: []].append(place)
    }

    mutating func fail(_ unit: LogDirectoryUnit, _ error: ErrorCode) {
        for (topic, partition) in places[ObjectIdentifier(unit)] ?? [] {
            response.topics[topic].partitions[partition].errorCode = error
            response.topics[topic].partitions[partition].lowWatermark = -1
        }
    }
}
