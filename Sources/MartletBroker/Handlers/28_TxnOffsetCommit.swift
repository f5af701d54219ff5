import MartletCluster
import MartletModel
import MartletWire

/// TxnOffsetCommit 0-5: offsets of a group that count when the producer's transaction is committed. Answered when they are
/// durable.
///
/// Version 2 tells leader epochs, 3 is flexible and says for which member, 4 knows TRANSACTION_ABORTABLE, and from 5 on the
/// group need not be added to the transaction before (KIP-890).
enum TxnOffsetCommitHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(TxnOffsetCommitRequest.self)
        let image = request.broker.metadata.current
        var response = TxnOffsetCommitResponse()
        response.topics.reserveCapacity(asked.topics.count)
        var places: [(topic: Int, partition: Int)] = []
        var event = OffsetCommitEvent(group: asked.groupID)
        for topic in asked.topics {
            var answered = TxnOffsetCommitResponse.TxnOffsetCommitResponseTopic()
            answered.name = topic.name
            let info = image.topic(topic.name)
            for partition in topic.partitions {
                var result = TxnOffsetCommitResponse.TxnOffsetCommitResponsePartition()
                result.partitionIndex = partition.partitionIndex
                if let info, info.has(partition.partitionIndex) {
                    places.append((response.topics.count, answered.partitions.count))
                    event.partitions.append(
                        OffsetCommitEvent.Partition(
                            topic: info.name, topicID: info.id, partition: partition.partitionIndex,
                            offset: partition.committedOffset, leaderEpoch: partition.committedLeaderEpoch,
                            metadata: partition.committedMetadata))
                } else {
                    result.errorCode = .unknownTopicOrPartition
                }
                answered.partitions.append(result)
            }
            response.topics.append(answered)
        }
        guard !event.partitions.isEmpty else { return try request.answer(response) }
        event.generation = asked.generationIDOrMemberEpoch
        event.memberID = asked.memberID
        event.instanceID = asked.groupInstanceID
        event.producer = ProducerIdentity(asked.producerID, asked.producerEpoch)
        event.absentGroupError = .illegalGeneration
        let responder = request.later()
        commit(event, asked.transactionalID, request) { [response] codes in
            var response = response
            for (index, place) in places.enumerated() {
                response.topics[place.topic].partitions[place.partition].errorCode = codes(index)
            }
            responder.answer(response)
        }
    }

    private static func commit(
        _ event: OffsetCommitEvent, _ id: String, _ request: Request, _ then: @escaping (_ code: (Int) -> ErrorCode) -> Void
    ) {
        let (broker, loop, version) = (request.broker, request.connection.loop, request.version)
        guard let partition = broker.transactions.offsetsPartition(of: event.group) else {
            return then { _ in .notCoordinator }
        }
        let producer = event.producer!
        func commit() {
            broker.groups.submit(event.group, on: loop) { reply in
                switch reply {
                case .failed(let error): then { _ in error }
                case .partitions(let codes): then { codes[$0] }
                default: preconditionFailure("a commit is answered as a commit")
                }
            } _: { ticket in
                // asked here, under the lock of the group's shard: no marker can come between this and the commit
                var event = event
                if version >= 5 || broker.transactions.verifies {
                    event.refusal = broker.transactions.verify(id, producer, CollectionOfOne(partition))
                        .forOffsets(addsPartitions: version >= 5, knowsAbortable: version >= 4)
                }
                return .commit(event, ticket)
            }
        }
        guard version >= 5, broker.transactions.verify(id, producer, CollectionOfOne(partition)) != .none else {
            return commit()
        }
        broker.transactions.submit(id, on: loop) { reply in
            let error = reply.error.forOffsets(addsPartitions: true, knowsAbortable: true)
            if error == .none { commit() } else { then { _ in error } }
        } _: {
            .addPartitions(AddPartitionsEvent(id: id, producer: producer, partitions: [partition], version: 2), $0)
        }
    }
}

extension ErrorCode {
    /// What is told of a transaction that a commit of offsets does not belong to.
    fileprivate func forOffsets(addsPartitions: Bool, knowsAbortable: Bool) -> ErrorCode {
        switch self {
        case .producerFenced: .invalidProducerEpoch
        case .transactionAbortable where !knowsAbortable: .invalidTxnState
        // clients that do not add partitions by committing do not expect it here
        case .concurrentTransactions where !addsPartitions: .coordinatorLoadInProgress
        case .notCoordinator, .coordinatorNotAvailable: .coordinatorLoadInProgress
        default: self
        }
    }
}
