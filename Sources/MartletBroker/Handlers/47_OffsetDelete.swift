import MartletCluster
import MartletModel
import MartletWire

/// OffsetDelete 0: what a group has committed for some partitions is forgotten, where none of its members reads them.
enum OffsetDeleteHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(OffsetDeleteRequest.self)
        let image = request.broker.metadata.current
        var response = OffsetDeleteResponse()
        // where the answer of each partition that is there belongs
        var places: [(topic: Int, partition: Int)] = []
        var partitions: [TopicPartition] = []
        for topic in asked.topics {
            var answered = OffsetDeleteResponse.OffsetDeleteResponseTopic()
            answered.name = topic.name
            let info = image.topic(topic.name)
            for partition in topic.partitions {
                var result = OffsetDeleteResponse.OffsetDeleteResponsePartition()
                result.partitionIndex = partition.partitionIndex
                if info?.has(partition.partitionIndex) == true {
                    places.append((response.topics.count, answered.partitions.count))
                    partitions.append(TopicPartition(topic.name, partition.partitionIndex))
                } else {
                    result.errorCode = .unknownTopicOrPartition
                }
                answered.partitions.append(result)
            }
            response.topics.append(answered)
        }
        let event = OffsetDeleteEvent(group: asked.groupID, partitions: partitions)
        let responder = request.later()
        request.broker.groups.submit(asked.groupID, on: request.connection.loop) { [response] reply in
            var response = response
            switch reply {
            case .failed(let error):
                response.errorCode = error
                response.topics = []
            case .partitions(let codes):
                for (place, code) in zip(places, codes) {
                    response.topics[place.topic].partitions[place.partition].errorCode = code
                }
            default: preconditionFailure("a deletion of offsets is answered as one")
            }
            responder.answer(response)
        } _: { .deleteOffsets(event, $0) }
    }
}

extension TopicInfo {
    func has(_ partition: Int32) -> Bool {
        // they are numbered from 0 on; a topic that is just coming into being may lack some
        if partition >= 0, Int(partition) < partitions.count, partitions[Int(partition)].index == partition { return true }
        return partitions.contains { $0.index == partition }
    }
}
