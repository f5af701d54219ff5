import MartletModel
import MartletWire

/// AddOffsetsToTxn 0-4: a producer tells for which group it will commit offsets in its transaction. From version 2 on a
/// fenced producer is told so; 3 is flexible.
enum AddOffsetsToTxnHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(AddOffsetsToTxnRequest.self)
        let version = request.version
        guard let partition = request.broker.transactions.offsetsPartition(of: asked.groupID) else {
            var response = AddOffsetsToTxnResponse()
            response.errorCode = asked.transactionalID.isEmpty ? .invalidRequest : .coordinatorNotAvailable
            return try request.answer(response)
        }
        let event = AddPartitionsEvent(
            id: asked.transactionalID, producer: ProducerIdentity(asked.producerID, asked.producerEpoch),
            partitions: [partition],
            version: version >= 4 ? 2 : 0)
        let responder = request.later()
        request.broker.transactions.submit(asked.transactionalID, on: request.connection.loop) { reply in
            var response = AddOffsetsToTxnResponse()
            response.errorCode = reply.error.forTransactions(fencedFrom: 2, version)
            responder.answer(response)
        } _: {
            .addPartitions(event, $0)
        }
    }
}
