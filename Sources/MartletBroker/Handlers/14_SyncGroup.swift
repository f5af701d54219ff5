import MartletModel
import MartletWire

/// SyncGroup 0-5: the leader brings the assignments of a generation, and everybody gets its own. Version 3 knows
/// static members, 4 is flexible, 5 says which protocol the member believes was chosen, and must.
enum SyncGroupHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(SyncGroupRequest.self)
        guard request.version < 5 || (asked.protocolType != nil && asked.protocolName != nil) else {
            return try request.answer(response(.failed(.inconsistentGroupProtocol)))
        }
        var event = SyncGroupEvent(group: asked.groupID, memberID: asked.memberID, generation: asked.generationID)
        event.instanceID = asked.groupInstanceID
        event.protocolType = asked.protocolType
        event.protocolName = asked.protocolName
        event.assignments = asked.assignments.map { ($0.memberID, $0.assignment.array(in: request.reader.bytes)) }
        let responder = request.later()
        request.broker.groups.submit(asked.groupID, on: request.connection.loop) { reply in
            responder.answer(response(reply))
        } _: { .sync(event, $0) }
    }

    private static func response(_ reply: GroupReply) -> SyncGroupResponse {
        var response = SyncGroupResponse()
        switch reply {
        case .failed(let error): response.errorCode = error
        case .synced(let synced):
            response.errorCode = synced.error
            response.protocolType = synced.protocolType
            response.protocolName = synced.protocolName
            response.assignment = .owned(synced.assignment)
        default: preconditionFailure("a sync is answered as a sync")
        }
        return response
    }
}
