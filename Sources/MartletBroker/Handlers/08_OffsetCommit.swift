import MartletCluster
import MartletModel
import MartletWire

/// OffsetCommit 2-10: how far a group has come. Answered when the offsets are as durable as the records that they
/// speak of.
///
/// Versions 2 to 4 may say how long the offsets are kept, 6 tells leader epochs, 7 knows static members, 8 is
/// flexible, from 9 on a group that is not there is told as such, 10 names topics by id.
enum OffsetCommitHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(OffsetCommitRequest.self)
        let image = request.broker.metadata.current
        var response = OffsetCommitResponse()
        response.topics.reserveCapacity(asked.topics.count)
        // where the answer of each partition that is there belongs
        var places: [(topic: Int, partition: Int)] = []
        var event = OffsetCommitEvent(group: asked.groupID)
        for topic in asked.topics {
            var answered = OffsetCommitResponse.OffsetCommitResponseTopic()
            answered.name = topic.name
            answered.topicID = topic.topicID
            let info = request.version >= 10 ? image.topic(topic.topicID) : image.topic(topic.name)
            let absent: ErrorCode = info == nil && request.version >= 10 ? .unknownTopicID : .unknownTopicOrPartition
            for partition in topic.partitions {
                var result = OffsetCommitResponse.OffsetCommitResponsePartition()
                result.partitionIndex = partition.partitionIndex
                if let info, info.has(partition.partitionIndex) {
                    places.append((response.topics.count, answered.partitions.count))
                    event.partitions.append(
                        OffsetCommitEvent.Partition(
                            topic: info.name, topicID: info.id, partition: partition.partitionIndex,
                            offset: partition.committedOffset,
                            leaderEpoch: partition.committedLeaderEpoch, metadata: partition.committedMetadata))
                } else {
                    result.errorCode = absent
                }
                answered.partitions.append(result)
            }
            response.topics.append(answered)
        }
        guard !event.partitions.isEmpty else { return try request.answer(response) }
        event.generation = asked.generationIDOrMemberEpoch
        event.memberID = asked.memberID
        event.instanceID = asked.groupInstanceID
        event.retentionMs = request.version <= 4 ? asked.retentionTimeMs : -1
        event.knowsMemberEpochs = request.version >= 9
        event.absentGroupError = request.version >= 9 ? .groupIDNotFound : .illegalGeneration
        let responder = request.later()
        request.broker.groups.submit(asked.groupID, on: request.connection.loop) { [response] reply in
            var response = response
            for (index, place) in places.enumerated() {
                response.topics[place.topic].partitions[place.partition].errorCode = code(reply, index)
            }
            responder.answer(response)
        } _: {
            .commit(event, $0)
        }
    }

    private static func code(_ reply: GroupReply, _ index: Int) -> ErrorCode {
        switch reply {
        case .failed(let error): error
        case .partitions(let codes): codes[index]
        default: preconditionFailure("a commit is answered as a commit")
        }
    }
}
