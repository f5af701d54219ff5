import MartletBasics
import MartletCluster
import MartletModel
import MartletWire

/// IncrementalAlterConfigs 0-1: sets, deletes, appends to and subtracts from what is named; all else stays.
enum IncrementalAlterConfigsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(IncrementalAlterConfigsRequest.self)
        let wishes = asked.resources.map { resource in
            ConfigWish(
                type: resource.resourceType, name: resource.resourceName,
                changes: resource.configs.map { ConfigChange($0.name, .init(rawValue: $0.configOperation), $0.value) }, isWhole: false)
        }
        try ConfigWish.carryOut(wishes, validateOnly: asked.validateOnly, request) { answers in
            var response = IncrementalAlterConfigsResponse()
            response.responses = answers.map { wish, fault in
                var answer = IncrementalAlterConfigsResponse.AlterConfigsResourceResponse()
                answer.resourceType = wish.type
                answer.resourceName = wish.name
                answer.errorCode = fault?.error ?? .none
                answer.errorMessage = fault?.message
                return answer
            }
            return response
        }
    }
}
