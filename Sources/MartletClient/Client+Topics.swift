import MartletBasics
import MartletModel
import MartletWire

/// What became of one of several things that were asked for in one request.
package struct Outcome: Sendable, Equatable {
    package var name: String
    /// Nil where it was done.
    package var error: ClientError?

    package init(_ name: String, _ error: ClientError?) {
        self.name = name
        self.error = error
    }

    init(_ name: String, _ what: String, _ code: ErrorCode, _ message: String?) {
        self.name = name
        // brokers that have nothing to add send an empty message, or the code's own name
        let said = message.flatMap { $0.isEmpty || $0 == "\(code)" ? nil : $0 }
        error = code == .none ? nil : .refused(what: what, code, message: said)
    }
}

/// A topic to be created.
package struct NewTopic: Sendable, Equatable {
    package var name: String
    /// Nil is what the broker has as a default, as for the replicas.
    package var partitions: Int32?
    package var replicationFactor: Int16?
    package var configs: [(name: String, value: String)]

    package init(
        _ name: String, partitions: Int32? = nil, replicationFactor: Int16? = nil,
        configs: [(name: String, value: String)] = []
    ) {
        self.name = name
        self.partitions = partitions
        self.replicationFactor = replicationFactor
        self.configs = configs
    }

    package static func == (a: NewTopic, b: NewTopic) -> Bool {
        a.name == b.name && a.partitions == b.partitions && a.replicationFactor == b.replicationFactor
            && a.configs.elementsEqual(b.configs, by: ==)
    }
}

/// Topics.
extension Client {
    /// The topics with these names, in their order, one that is not there with its error; nil is all, by name.
    package func topics(named names: [String]?) async throws(ClientError) -> [ClusterView.Topic] {
        var patience = Patience(self)
        while true {
            let view = try await refresh(topics: names)
            let isSettled = view.topics.allSatisfy { topic in
                !topic.error.callsForAnotherTry && topic.partitions.allSatisfy { $0.error != .leaderNotAvailable }
            }
            // a partition without a leader is a thing to see, so its wait is a short one
            guard !isSettled, names != nil, patience.attemptsCount < Self.leaderlessAttemptsLimit, patience.isLeft else {
                guard let names else { return view.topics }
                return names.map { name in view.topic(name) ?? Self.unknown(name) }
            }
            await patience.wait()
        }
    }

    private static let leaderlessAttemptsLimit = 4

    private static func unknown(_ name: String) -> ClusterView.Topic {
        ClusterView.Topic(name: name, id: .zero, error: .unknownTopicOrPartition, isInternal: false, partitions: [])
    }

    package func createTopics(_ topics: [NewTopic], validateOnly: Bool = false) async throws(ClientError) -> [Outcome] {
        let answer = try await ask(
            .controller, isRepeatable: false, judging: { $0.topics.lazy.map(\.errorCode).firstForAnotherTry }
        ) { (version) throws(ClientError) -> CreateTopicsRequest in
            var request = CreateTopicsRequest()
            request.topics = try topics.map { (wanted) throws(ClientError) in try Self.creatable(wanted, version) }
            request.timeoutMs = Int32(clamping: settings.requestTimeLimit.milliseconds)
            request.validateOnly = validateOnly
            return request
        }
        return answer.message.topics.map { topic in
            Outcome(topic.name, "topic \(topic.name) was not created", topic.errorCode, topic.errorMessage)
        }
    }

    private static func creatable(
        _ wanted: NewTopic, _ version: Int16
    ) throws(ClientError) -> CreateTopicsRequest.CreatableTopic {
        guard version >= 4 || (wanted.partitions != nil && wanted.replicationFactor != nil) else {
            throw .invalid("this broker is too old to choose by itself: say how many partitions and replicas")
        }
        var topic = CreateTopicsRequest.CreatableTopic()
        topic.name = wanted.name
        topic.numPartitions = wanted.partitions ?? -1
        topic.replicationFactor = wanted.replicationFactor ?? -1
        topic.configs = wanted.configs.map { setting in
            var config = CreateTopicsRequest.CreatableTopicConfig()
            config.name = setting.name
            config.value = setting.value
            return config
        }
        return topic
    }

    package func deleteTopics(_ names: [String]) async throws(ClientError) -> [Outcome] {
        let answer = try await ask(
            .controller, isRepeatable: false, judging: { $0.responses.lazy.map(\.errorCode).firstForAnotherTry }
        ) { (version) throws(ClientError) -> DeleteTopicsRequest in
            var request = DeleteTopicsRequest()
            if version >= 6 {
                request.topics = names.map { name in
                    var topic = DeleteTopicsRequest.DeleteTopicState()
                    topic.name = name
                    return topic
                }
            } else {
                request.topicNames = names
            }
            request.timeoutMs = Int32(clamping: settings.requestTimeLimit.milliseconds)
            return request
        }
        return answer.message.responses.map { topic in
            let name = topic.name ?? ""
            return Outcome(name, "topic \(name) was not deleted", topic.errorCode, topic.errorMessage)
        }
    }

    /// Gives topics more partitions, so many in all.
    package func createPartitions(
        _ counts: [(topic: String, count: Int32)], validateOnly: Bool = false
    ) async throws(ClientError) -> [Outcome] {
        let answer = try await ask(
            .controller, isRepeatable: false, judging: { $0.results.lazy.map(\.errorCode).firstForAnotherTry }
        ) { (_) throws(ClientError) -> CreatePartitionsRequest in
            var request = CreatePartitionsRequest()
            request.topics = counts.map { wanted in
                var topic = CreatePartitionsRequest.CreatePartitionsTopic()
                topic.name = wanted.topic
                topic.count = wanted.count
                topic.assignments = nil
                return topic
            }
            request.timeoutMs = Int32(clamping: settings.requestTimeLimit.milliseconds)
            request.validateOnly = validateOnly
            return request
        }
        return answer.message.results.map { topic in
            Outcome(topic.name, "topic \(topic.name) got no partitions", topic.errorCode, topic.errorMessage)
        }
    }
}

extension Sequence where Element == ErrorCode {
    /// The first code that calls for another try, else none.
    var firstForAnotherTry: ErrorCode { first { $0.callsForAnotherTry } ?? .none }
}
