import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// InitProducerId 0-5. For idempotent producers: an id that nobody has had, in epoch 0. Who comes with an id and epoch
/// of an earlier call (from version 3) gets a new id too, there being no transaction to keep.
///
/// With a transactional id: the id that it has, in the next epoch; a transaction that is open is aborted first, and the
/// client told to come again. From version 4 on a fenced producer is told so.
enum InitProducerIDHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(InitProducerIdRequest.self)
        var response = InitProducerIdResponse()
        if let id = asked.transactionalID {
            guard (asked.producerID == -1) == (asked.producerEpoch == -1), !id.isEmpty else {
                response.producerEpoch = -1
                response.errorCode = .invalidRequest
                return try request.answer(response)
            }
            return transactional(id, asked, request)
        }
        // an id without an epoch, or the other way round, is nothing that a producer could have been given
        guard (asked.producerID == -1) == (asked.producerEpoch == -1) else {
            response.producerEpoch = -1
            response.errorCode = .invalidRequest
            return try request.answer(response)
        }
        allocate(request)
    }

    private static func transactional(_ id: String, _ asked: InitProducerIdRequest, _ request: Request) {
        let expected = asked.producerID == -1 ? nil : ProducerIdentity(asked.producerID, asked.producerEpoch)
        let event = InitProducerEvent(id: id, timeoutMs: asked.transactionTimeoutMs, expected: expected)
        let (version, responder) = (request.version, request.later())
        request.broker.transactions.submit(id, on: request.connection.loop) { reply in
            var response = InitProducerIdResponse()
            response.producerEpoch = -1
            response.errorCode = reply.error.forTransactions(fencedFrom: 4, version)
            if case .producer(let producer) = reply {
                response.producerID = producer.id
                response.producerEpoch = producer.epoch
            }
            responder.answer(response)
        } _: { .initialize(event, $0) }
    }

    private static func allocate(_ request: Request) {
        let (broker, responder) = (request.broker, request.later())
        request.connection.loop.spawn {
            var response = InitProducerIdResponse()
            if let id = await broker.cluster.allocateProducerID() {
                response.producerID = id
                response.producerEpoch = 0
            } else {
                response.errorCode = .coordinatorLoadInProgress
                response.producerEpoch = -1
            }
            responder.answer(response)
        }
    }
}
