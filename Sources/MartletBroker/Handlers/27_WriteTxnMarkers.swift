import MartletBasics
import MartletModel
import MartletWire

/// WriteTxnMarkers 1-2: the ends of transactions in partitions, from an operator who aborts one that hangs. Version 2 tells
/// whether the end raises the producer's epoch.
enum WriteTxnMarkersHandler {
    /// In one request: each is a write of its own.
    private static let partitionsLimit = 10_000

    static func handle(_ request: Request) throws {
        let asked = try request.decode(WriteTxnMarkersRequest.self)
        guard asked.markers.reduce(0, { $0 + $1.topics.reduce(0) { $0 + $1.partitionIndexes.count } }) <= partitionsLimit else {
            throw RequestFault("it asks for more than \(partitionsLimit) markers")
        }
        let answers = Answers(asked.markers, request.later())
        for (index, marker) in asked.markers.enumerated() {
            let partitions = marker.topics.flatMap { topic in topic.partitionIndexes.map { TopicPartition(topic.name, $0) } }
            let end = TransactionEnd(
                ProducerIdentity(marker.producerID, marker.producerEpoch),
                EndTransactionMarker(marker.transactionResult ? .commit : .abort, coordinatorEpoch: marker.coordinatorEpoch),
                version: marker.transactionVersion)
            MarkerWrite.begin(end, partitions, coordinator: request.broker.transactions, on: request.connection.loop) {
                answers.take(index, $0)
            }
        }
        answers.tell()
    }

    private final class Answers {
        private let markers: [WriteTxnMarkersRequest.WritableTxnMarker]
        private var errors: [[ErrorCode]]
        private var left: Int
        private let responder: Responder

        init(_ markers: [WriteTxnMarkersRequest.WritableTxnMarker], _ responder: Responder) {
            self.markers = markers
            self.responder = responder
            errors = Array(repeating: [], count: markers.count)
            left = markers.count + 1
        }

        func take(_ index: Int, _ found: [ErrorCode]) {
            errors[index] = found
            tell()
        }

        func tell() {
            left -= 1
            guard left == 0 else { return }
            var response = WriteTxnMarkersResponse()
            response.markers = markers.indices.map(result)
            responder.answer(response)
        }

        private func result(_ index: Int) -> WriteTxnMarkersResponse.WritableTxnMarkerResult {
            var result = WriteTxnMarkersResponse.WritableTxnMarkerResult()
            result.producerID = markers[index].producerID
            var codes = errors[index][...]
            result.topics = markers[index].topics.map { topic in
                var answered = WriteTxnMarkersResponse.WritableTxnMarkerTopicResult()
                answered.name = topic.name
                answered.partitions = topic.partitionIndexes.map { partition in
                    var told = WriteTxnMarkersResponse.WritableTxnMarkerPartitionResult()
                    told.partitionIndex = partition
                    told.errorCode = codes.removeFirst()
                    return told
                }
                return answered
            }
            return result
        }
    }
}
