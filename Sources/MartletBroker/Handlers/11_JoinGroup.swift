import MartletModel
import MartletWire

/// JoinGroup 0-9: a member enters a group, or a new generation of it.
///
/// Version 1 tells the rebalance timeout apart from the session's, 4 requires a member id that the first try was
/// answered with, 5 knows static members, 6 is flexible, 7 answers with the protocol type, 8 tells a reason, 9 can
/// tell a leader not to assign.
enum JoinGroupHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(JoinGroupRequest.self)
        let connection = request.connection
        var event = JoinGroupEvent(group: asked.groupID)
        event.memberID = asked.memberID
        event.instanceID = asked.groupInstanceID
        event.clientID = request.clientID ?? ""
        event.clientHost = "/" + connection.socket.peer.host
        event.sessionTimeoutMs = asked.sessionTimeoutMs
        event.rebalanceTimeoutMs = request.version == 0 ? asked.sessionTimeoutMs : asked.rebalanceTimeoutMs
        event.protocolType = asked.protocolType
        event.protocols = asked.protocols.map {
            GroupProtocol(name: $0.name, metadata: $0.metadata.array(in: request.reader.bytes))
        }
        event.requiresKnownMember = request.version >= 4
        event.canSkipAssignment = request.version >= 9
        let (responder, version) = (request.later(), request.version)
        request.broker.groups.submit(asked.groupID, on: connection.loop) { reply in
            responder.answer(response(reply, asked.memberID, version: version))
        } _: { .join(event, $0) }
    }

    private static func response(_ reply: GroupReply, _ memberID: String, version: Int16) -> JoinGroupResponse {
        let joined: JoinGroupReply
        switch reply {
        case .joined(let reply): joined = reply
        case .failed(let error): joined = JoinGroupReply(error, memberID: memberID)
        default: preconditionFailure("a join is answered as a join")
        }
        var response = JoinGroupResponse()
        response.errorCode = joined.error
        response.generationID = joined.generation
        response.protocolType = joined.protocolType
        response.protocolName = joined.protocolName ?? (version < 7 ? "" : nil)
        response.leader = joined.leader
        response.skipAssignment = joined.skipAssignment
        response.memberID = joined.memberID
        response.members = joined.members.map { member in
            var described = JoinGroupResponse.JoinGroupResponseMember()
            described.memberID = member.id
            described.groupInstanceID = member.instanceID
            described.metadata = .owned(member.metadata)
            return described
        }
        return response
    }
}
