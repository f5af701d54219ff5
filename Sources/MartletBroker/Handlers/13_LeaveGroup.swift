import MartletModel
import MartletWire

/// LeaveGroup 0-5: members go. From version 3 on several at once, static ones by their instance id; 4 is flexible, 5
/// tells reasons.
enum LeaveGroupHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(LeaveGroupRequest.self)
        let isBatched = request.version >= 3
        let members = isBatched
            ? asked.members.map { LeaveGroupEvent.Member(id: $0.memberID, instanceID: $0.groupInstanceID) }
            : [LeaveGroupEvent.Member(id: asked.memberID)]
        let event = LeaveGroupEvent(group: asked.groupID, members: members)
        let responder = request.later()
        request.broker.groups.submit(asked.groupID, on: request.connection.loop) { reply in
            var response = LeaveGroupResponse()
            switch reply {
            case .failed(let error): response.errorCode = error
            case .left(let codes) where isBatched:
                response.members = zip(members, codes).map { member, code in
                    var answered = LeaveGroupResponse.MemberResponse()
                    answered.memberID = member.id
                    answered.groupInstanceID = member.instanceID
                    answered.errorCode = code
                    return answered
                }
            case .left(let codes): response.errorCode = codes[0]
            default: preconditionFailure("a leave is answered as a leave")
            }
            responder.answer(response)
        } _: { .leave(event, $0) }
    }
}
