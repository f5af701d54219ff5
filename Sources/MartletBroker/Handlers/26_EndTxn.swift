import MartletModel
import MartletWire

/// EndTxn 0-5: commits or aborts. Answered when it is durable that the transaction ends so; its markers follow.
///
/// From version 2 on a fenced producer is told so, 3 is flexible, 5 tells who the producer is from now on (KIP-890).
enum EndTxnHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(EndTxnRequest.self)
        let version = request.version
        let event = EndTransactionEvent(
            id: asked.transactionalID, producer: ProducerIdentity(asked.producerID, asked.producerEpoch),
            commits: asked.committed, version: version >= 5 ? 2 : 0)
        let responder = request.later()
        request.broker.transactions.submit(asked.transactionalID, on: request.connection.loop) { reply in
            var response = EndTxnResponse()
            response.errorCode = reply.error.forTransactions(fencedFrom: 2, version)
            if case .producer(let producer) = reply, version >= 5 {
                response.producerID = producer.id
                response.producerEpoch = producer.epoch
            }
            responder.answer(response)
        } _: {
            .end(event, $0)
        }
    }
}
