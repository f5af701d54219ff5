import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// AlterConfigs 0-2: replaces all that is set on a resource. What is not named goes back to what it would be by itself.
enum AlterConfigsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(AlterConfigsRequest.self)
        let wishes = asked.resources.map { resource in
            ConfigWish(
                type: resource.resourceType, name: resource.resourceName,
                changes: resource.configs.map { ConfigEdit($0.name, .set, $0.value) }, isWhole: true)
        }
        try ConfigWish.carryOut(wishes, validateOnly: asked.validateOnly, request) { answers in
            var response = AlterConfigsResponse()
            response.responses = answers.map { wish, fault in
                var answer = AlterConfigsResponse.AlterConfigsResourceResponse()
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

/// What is to be altered of one resource.
struct ConfigWish: Sendable {
    var type: Int8
    var name: String
    var changes: [ConfigEdit]
    /// The changes are all that is to be set.
    var isWhole: Bool

    /// Alters one resource after the other, each whole or not at all. One that is named twice is not altered, and its
    /// wishes are refused.
    static func carryOut<R: WireResponse & Sendable>(
        _ wishes: [ConfigWish], validateOnly: Bool, _ request: Request,
        _ response: @escaping @Sendable ([(ConfigWish, ConfigFault?)]) -> R
    ) throws {
        let (broker, responder, client) = (request.broker, request.later(), request.connection.socket.peer.description)
        request.connection.loop.spawn {
            var counts: [String: Int] = [:]
            for wish in wishes { counts["\(wish.type) \(wish.name)", default: 0] += 1 }
            var answers: [(ConfigWish, ConfigFault?)] = []
            for wish in wishes {
                guard counts["\(wish.type) \(wish.name)"] == 1 else {
                    answers.append((wish, ConfigFault(.invalidRequest, "The resource is named more than once in one request.")))
                    continue
                }
                answers.append((wish, await wish.carryOut(validateOnly: validateOnly, broker, client)))
            }
            responder.answer(response(answers))
        }
    }

    private func carryOut(validateOnly: Bool, _ broker: Broker, _ client: String) async -> ConfigFault? {
        switch ConfigResource(type: type, name: name, emptyTopic: .invalidRequest, broker) {
        case .fault(let fault): return fault
        case .loggers where isWhole:
            return ConfigFault(.invalidRequest, "The levels of loggers are altered by IncrementalAlterConfigs only.")
        case .loggers:
            let fault = broker.loggers.alter(changes, validateOnly: validateOnly)
            if fault == nil, !validateOnly { said("brokerLogger(\(name))", broker, client) }
            return fault
        case .settings(let target):
            let (changes, isWhole) = (changes, isWhole)
            let fault = await broker.cluster.alterConfig(of: target, validateOnly: validateOnly) { alteration, stored in
                isWhole ? alteration.replacing(stored, by: changes) : alteration.changing(stored, changes)
            }
            if fault == nil, !validateOnly { said("\(target)", broker, client) }
            return fault
        }
    }

    private func said(_ target: String, _ broker: Broker, _ client: String) {
        broker.log.requests.info(
            "settings were altered", ("of", target), ("settings", changes.map(\.name).joined(separator: ",")),
            ("client", client))
    }
}
