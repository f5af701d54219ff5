import MartletModel
import MartletWire

/// DescribeGroups 0-6: groups of the classic type, with their members. Version 3 tells what the client may do, 4 the
/// instance ids, 5 is flexible; a group that is not there is Dead, and from version 6 on an error too.
enum DescribeGroupsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(DescribeGroupsRequest.self)
        var response = DescribeGroupsResponse()
        response.groups = asked.groups.map { id in
            var group = describe(id, request)
            group.groupID = id
            if asked.includeAuthorizedOperations, group.errorCode == .none {
                group.authorizedOperations = AuthorizedOperations.group
            }
            return group
        }
        try request.answer(response)
    }

    private static func describe(_ id: String, _ request: Request) -> DescribeGroupsResponse.DescribedGroup {
        var group = DescribeGroupsResponse.DescribedGroup()
        switch request.broker.groups.read(id, { $0.describe(id) }) {
        case .failure(let failure): group.errorCode = failure.error
        case .success(nil):
            group.groupState = ClassicGroupState.dead.rawValue
            if request.version >= 6 {
                group.errorCode = .groupIDNotFound
                group.errorMessage = "There is no classic group '\(id)'."
            }
        case .success(let found?):
            group.groupState = found.state.rawValue
            group.protocolType = found.protocolType
            group.protocolData = found.protocolName
            group.members = found.members.map(describe)
        }
        return group
    }

    private static func describe(_ member: GroupDescription.Member) -> DescribeGroupsResponse.DescribedGroupMember {
        var described = DescribeGroupsResponse.DescribedGroupMember()
        described.memberID = member.id
        described.groupInstanceID = member.instanceID
        described.clientID = member.clientID
        described.clientHost = member.clientHost
        described.memberMetadata = .owned(member.metadata)
        described.memberAssignment = .owned(member.assignment)
        return described
    }
}
