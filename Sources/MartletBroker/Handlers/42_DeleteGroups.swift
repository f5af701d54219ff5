import MartletModel
import MartletReactor
import MartletWire

/// DeleteGroups 0-3: groups without members go, with their offsets. Version 2 is flexible, 3 tells a message with an
/// error.
enum DeleteGroupsHandler {
    /// The answers of the groups, as they come in. Confined to its loop.
    private final class Gathering: @unchecked Sendable {
        let responder: Responder
        var results: [DeleteGroupsResponse.DeletableGroupResult]
        var left: Int

        init(_ responder: Responder, _ groups: [String]) {
            self.responder = responder
            left = groups.count
            results = groups.map { group in
                var result = DeleteGroupsResponse.DeletableGroupResult()
                result.groupID = group
                return result
            }
        }

        func take(_ index: Int, _ reply: GroupReply) {
            if case .failed(let error) = reply {
                results[index].errorCode = error
                results[index].errorMessage = DeleteGroupsHandler.message(error)
            }
            left -= 1
            if left == 0 { finish() }
        }

        func finish() {
            var response = DeleteGroupsResponse()
            response.results = results
            responder.answer(response)
        }
    }

    static func handle(_ request: Request) throws {
        let asked = try request.decode(DeleteGroupsRequest.self)
        var seen: Set<String> = []
        let groups = asked.groupsNames.filter { seen.insert($0).inserted }
        let gathering = Gathering(request.later(), groups)
        guard !groups.isEmpty else { return gathering.finish() }
        for (index, group) in groups.enumerated() {
            request.broker.groups.submit(group, on: request.connection.loop) { reply in
                gathering.take(index, reply)
            } _: { .deleteGroup(group, $0) }
        }
    }

    fileprivate static func message(_ error: ErrorCode) -> String {
        switch error {
        case .groupIDNotFound: "There is no such group."
        case .nonEmptyGroup: "The group has members."
        default: "The group was not deleted: \(error)."
        }
    }
}
