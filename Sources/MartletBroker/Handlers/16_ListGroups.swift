import MartletModel
import MartletWire

/// ListGroups 0-5: the groups that this broker coordinates, of every type. Version 3 is flexible, 4 tells and filters
/// states, 5 types; filters are of any case, and match nothing where they name nothing.
enum ListGroupsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(ListGroupsRequest.self)
        let states = Set(asked.statesFilter.map { $0.lowercased() }), types = Set(asked.typesFilter.map { $0.lowercased() })
        var response = ListGroupsResponse()
        for shard in request.broker.groups.allShards {
            switch shard.read({ $0.listings }) {
            case .success(let listings):
                for listing in listings {
                    guard states.isEmpty || states.contains(listing.state.lowercased()),
                        types.isEmpty || types.contains(listing.type.rawValue)
                    else { continue }
                    var group = ListGroupsResponse.ListedGroup()
                    group.groupID = listing.id
                    group.protocolType = listing.protocolType
                    group.groupState = listing.state
                    group.groupType = listing.type.rawValue
                    response.groups.append(group)
                }
            // another broker tells of those
            case .failure(let failure) where failure.error == .notCoordinator: break
            case .failure(let failure): response.errorCode = failure.error
            }
        }
        try request.answer(response)
    }
}
