import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// DeleteTopics 1-6: by name, from version 6 on also by id; version 5 refuses what is beyond the client's quota.
/// A topic meant twice in one request is refused, once, and stays.
enum DeleteTopicsHandler {
    /// What one entry of the request means.
    private struct Target {
        var name: String?
        var id: UUID
        var error: ErrorCode = .none
        var message: String?
        /// Found by its id: the answer to an error does not tell its name.
        var byID: Bool
    }

    static func handle(_ request: Request) throws {
        let asked = try request.decode(DeleteTopicsRequest.self)
        let broker = request.broker
        guard broker.config.deleteTopics else { return try refuseAll(asked, request) }
        var targets = resolve(asked, version: request.version, broker)
        refuseRepeated(&targets)
        let (resolved, responder) = (targets, request.later())
        let quota = request.mutationQuota(strictFrom: 5)
        request.connection.loop.spawn {
            var response = DeleteTopicsResponse()
            for target in resolved {
                var result = DeleteTopicsResponse.DeletableTopicResult()
                result.name = target.name
                result.topicID = target.id
                result.errorCode = target.error
                result.errorMessage = target.message
                if target.error == .none, let name = target.name {
                    if let fault = await delete(name, target.id, quota, broker) {
                        result.errorCode = fault.error
                        result.errorMessage = fault.message
                    }
                }
                response.responses.append(result)
            }
            responder.answer(response, within: quota)
        }
    }

    private static func delete(_ name: String, _ id: UUID, _ quota: MutationQuota, _ broker: Broker) async -> TopicFault? {
        if quota.isExceeded { return TopicFault(.throttlingQuotaExceeded, MutationQuota.message) }
        let partitions = broker.metadata.current.topic(id)?.partitions.count ?? 0
        let fault = await broker.cluster.deleteTopic(name, id: id)
        if fault == nil { quota.charge(partitions) }
        return fault
    }

    /// `delete.topic.enable` is false: nothing is looked up.
    private static func refuseAll(_ asked: DeleteTopicsRequest, _ request: Request) throws {
        func refused(_ name: String?, _ id: UUID) -> DeleteTopicsResponse.DeletableTopicResult {
            var result = DeleteTopicsResponse.DeletableTopicResult()
            result.name = name
            result.topicID = id
            // clients before version 3 do not know the error
            result.errorCode = request.version < 3 ? .invalidRequest : .topicDeletionDisabled
            return result
        }
        var response = DeleteTopicsResponse()
        response.responses =
            request.version < 6
            ? asked.topicNames.map { refused($0, .zero) } : asked.topics.map { refused($0.name, $0.topicID) }
        try request.answer(response)
    }

    private static func resolve(_ asked: DeleteTopicsRequest, version: Int16, _ broker: Broker) -> [Target] {
        let image = broker.metadata.current
        if version < 6 {
            return asked.topicNames.map { name in
                guard let info = image.topic(name) else { return unknown(name) }
                return Target(name: name, id: info.id, byID: false)
            }
        }
        return asked.topics.map { topic in
            switch (topic.name, topic.topicID) {
            case (let name?, .zero):
                guard let info = image.topic(name) else { return unknown(name) }
                return Target(name: name, id: info.id, byID: false)
            case (let name?, let id):
                return Target(
                    name: name, id: id, error: .invalidRequest, message: "Name the topic, or give its id, not both.", byID: false)
            case (nil, .zero):
                return Target(name: nil, id: .zero, error: .invalidRequest, message: "Neither a topic name nor an id.", byID: false)
            case (nil, let id):
                guard let info = image.topic(id) else {
                    return Target(name: nil, id: id, error: .unknownTopicID, message: "No topic has this id.", byID: true)
                }
                return Target(name: info.name, id: id, byID: true)
            }
        }
    }

    private static func unknown(_ name: String) -> Target {
        Target(name: name, id: .zero, error: .unknownTopicOrPartition, message: "This server does not host this topic.", byID: false)
    }

    /// Keeps the first of those that mean the same topic, as an error.
    private static func refuseRepeated(_ targets: inout [Target]) {
        var kept: [Target] = []
        for target in targets {
            let twin = kept.firstIndex { other in
                if let name = target.name, let otherName = other.name { return name == otherName }
                return target.name == nil && other.name == nil && target.id == other.id && target.id != .zero
            }
            guard let twin else {
                kept.append(target)
                continue
            }
            kept[twin].error = .invalidRequest
            kept[twin].message = "The topic is meant twice in one request."
            if kept[twin].byID { kept[twin].name = nil }
        }
        targets = kept
    }
}
