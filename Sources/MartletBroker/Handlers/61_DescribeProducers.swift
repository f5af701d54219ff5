import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletWire

/// DescribeProducers 0: who has written to a partition of late, as its leader remembers: epochs, sequences, open transactions.
enum DescribeProducersHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(DescribeProducersRequest.self)
        let table = request.broker.topics.table
        var response = DescribeProducersResponse()
        var budget = AnswerBudget()
        response.topics = try asked.topics.map { topic in
            var answered = DescribeProducersResponse.TopicResponse()
            answered.name = topic.name
            let local = table.topic(topic.name)
            answered.partitions = try topic.partitionIndexes.map { index in
                var described = DescribeProducersResponse.PartitionResponse()
                described.partitionIndex = index
                switch local?.partition(index)?.describeProducers() {
                case nil:
                    described.errorCode = .unknownTopicOrPartition
                    if local == nil { described.errorMessage = "This server does not host this topic." }
                case .failure(let error): described.errorCode = error
                case .success(let producers): described.activeProducers = producers.map(tell)
                }
                try budget.take(128 + 48 * described.activeProducers.count)
                return described
            }
            return answered
        }
        try request.answer(response)
    }

    private static func tell(_ producer: ActiveProducer) -> DescribeProducersResponse.ProducerState {
        var state = DescribeProducersResponse.ProducerState()
        state.producerID = producer.id
        state.producerEpoch = Int32(producer.epoch)
        state.lastSequence = producer.lastSequence
        state.lastTimestamp = producer.lastTimestamp
        state.coordinatorEpoch = producer.coordinatorEpoch
        state.currentTxnStartOffset = producer.transactionStart
        return state
    }
}
