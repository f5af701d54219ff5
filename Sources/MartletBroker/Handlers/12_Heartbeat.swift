import MartletModel
import MartletWire

/// Heartbeat 0-4: a member is there, and learns whether it is to join again. Version 3 knows static members, 4 is
/// flexible.
enum HeartbeatHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(HeartbeatRequest.self)
        let event = HeartbeatEvent(
            group: asked.groupID, memberID: asked.memberID, instanceID: asked.groupInstanceID, generation: asked.generationID)
        let responder = request.later()
        request.broker.groups.submit(asked.groupID, on: request.connection.loop) { reply in
            var response = HeartbeatResponse()
            if case .failed(let error) = reply { response.errorCode = error }
            responder.answer(response)
        } _: { .heartbeat(event, $0) }
    }
}
