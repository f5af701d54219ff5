import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// InitProducerId 0-5, for idempotent producers: an id that nobody has had, in epoch 0. Who comes with an id and epoch
/// of an earlier call (from version 3) gets a new id too, there being no transaction to keep.
///
/// A transactional id is refused as one that the client may not use: no client tries that again.
enum InitProducerIDHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(InitProducerIdRequest.self)
        var response = InitProducerIdResponse()
        if let id = asked.transactionalID {
            request.broker.log.requests.warning(
                "a transactional producer was refused: transactions are not served yet", ("transactional-id", id),
                ("client", request.connection.socket.peer.description))
            response.producerEpoch = -1
            response.errorCode = id.isEmpty ? .invalidRequest : .transactionalIDAuthorizationFailed
            return try request.answer(response)
        }
        // an id without an epoch, or the other way round, is nothing that a producer could have been given
        guard (asked.producerID == -1) == (asked.producerEpoch == -1) else {
            response.producerEpoch = -1
            response.errorCode = .invalidRequest
            return try request.answer(response)
        }
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
