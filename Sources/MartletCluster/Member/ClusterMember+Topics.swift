import MartletBasics
import MartletKeeper
package import MartletModel
import MartletReactor

/// Names of topics that clients asked Metadata for, while they wait to be made. From any loop.
final class AutomaticTopics: @unchecked Sendable {
    /// Names that may wait; who asks for more asks again.
    private static let limit = 1000

    private let lock = Lock()
    // guarded by the lock:
    /// Waiting or being made, in the order of their coming.
    private var names: [String] = []
    private var known: Set<String> = []
    private var isServed = false

    /// Notes a name; true where somebody has to begin serving.
    func add(_ name: String) -> Bool {
        lock.withLock {
            guard names.count < Self.limit, known.insert(name).inserted else { return false }
            names.append(name)
            defer { isServed = true }
            return !isServed
        }
    }

    /// The next to be made; nil ends the serving.
    func next() -> String? {
        lock.withLock {
            if names.isEmpty { isServed = false }
            return names.first
        }
    }

    func finished(_ name: String) {
        lock.withLock {
            names.removeAll { $0 == name }
            known.remove(name)
        }
    }
}

/// Topics, on behalf of clients.
extension ClusterMember {
    private static let creationAttempts = 3

    // MARK: Made because somebody asked

    /// A client asked for a topic that there is not: it is made with the broker's defaults, soon. Nobody is answered;
    /// who asks again finds it. From any loop.
    package func createAutomatically(_ name: String) {
        guard wishes.add(name) else { return }
        loop.execute { [self] in
            loop.spawn { [self] in
                while let name = wishes.next() {
                    await makeAutomatically(name)
                    wishes.finished(name)
                }
            }
        }
    }

    private func makeAutomatically(_ name: String) async {
        guard !isClosed else { return }
        let wanted = InternalTopics.definition(of: name, config, brokersCount: placementBrokers.count)
            ?? NewTopic(name: name, partitionCount: -1, replicationFactor: -1)
        switch place(wanted) {
        case .failure(let fault):
            if fault.error != .topicAlreadyExists { logger.info("a topic was not made", ("topic", name), ("reason", fault.message)) }
        case .success(let placement):
            switch await write(name, placement) {
            case .success(let id): _ = await waitUntilServed(name, id)
            case .failure(let fault):
                if fault.error != .topicAlreadyExists { logger.warning("a topic was not made", ("topic", name), ("reason", fault.message)) }
            }
        }
    }

    // MARK: Creation

    /// Makes a topic, and answers when its partitions have leaders and this broker serves what it has of it. From any loop.
    package func createTopic(_ wanted: NewTopic, validateOnly: Bool) async -> Result<CreatedTopic, TopicFault> {
        await atHome { [self] in await create(wanted, validateOnly: validateOnly) }
    }

    private func create(_ wanted: NewTopic, validateOnly: Bool) async -> Result<CreatedTopic, TopicFault> {
        guard controller?.isLeading == true else { return .failure(.notController) }
        let placement: TopicPlacement
        switch place(wanted) {
        case .failure(let fault): return .failure(fault)
        case .success(let decided): placement = decided
        }
        var created = CreatedTopic(
            id: .zero, partitionCount: Int32(placement.replicas.count), replicationFactor: placement.replicationFactor,
            settings: placement.settings)
        if validateOnly { return .success(created) }
        switch await write(wanted.name, placement) {
        case .failure(let fault): return .failure(fault)
        case .success(let id): created.id = id
        }
        guard await waitUntilServed(wanted.name, created.id) else {
            return .failure(TopicFault(.requestTimedOut, "The topic is made, but its partitions have no leaders yet."))
        }
        return .success(created)
    }

    private var placementBrokers: [TopicPlacement.Broker] {
        if let state = controller?.state { return state.brokers.map { .init(id: $0.id, rack: $0.rack) } }
        return metadata.current.brokers.map { .init(id: $0.id, rack: $0.rack) }
    }

    private func place(_ wanted: NewTopic) -> Result<TopicPlacement, TopicFault> {
        if strangers.contains(wanted.name) {
            return .failure(TopicFault(
                .topicAlreadyExists,
                "A log directory holds folders of an earlier topic '\(wanted.name)': move them away, then create the topic."))
        }
        let brokers = placementBrokers
        if let state = controller?.state {
            return TopicPlacement.decide(wanted, existing: state.topics.keys, brokers: brokers, config: config, random: &random)
        }
        let names = metadata.current.topics.map(\.name)
        return TopicPlacement.decide(wanted, existing: names, brokers: brokers, config: config, random: &random)
    }

    /// Writes a topic's settings and its replicas, both or none; the controller's watch does the rest.
    private func write(_ name: String, _ placement: TopicPlacement) async -> Result<UUID, TopicFault> {
        let id = UUID(bytes: host.randomBytes(16))
        let settings = ConfigNode(placement.settings).bytes
        let node = TopicNode(partitions: placement.replicas, id: id).bytes
        guard let session else { return .failure(.unavailable("this broker is being stopped")) }
        var reason = "another client changes the same topic"
        for _ in 0..<Self.creationAttempts {
            do throws(KeeperError) {
                let left = try await session.exists(ClusterPath.topicConfig(name))
                var operations: [KeeperOperation] = controller?.epochCheck.map { [$0] } ?? []
                operations.append(.create(path: ClusterPath.topic(name), data: node, acl: ACL.open, mode: .persistent))
                // settings without a topic were left by a tool, or written for a topic to come: the topic's own replace them
                operations.append(left == nil
                    ? .create(path: ClusterPath.topicConfig(name), data: settings, acl: ACL.open, mode: .persistent)
                    : .setData(path: ClusterPath.topicConfig(name), data: settings, version: -1))
                _ = try await session.multi(operations)
                return .success(id)
            } catch {
                reason = "\(error)"
                let place = error.operations.firstIndex { $0 != .ok }
                let isOfTopic = place == (controller?.epochCheck == nil ? 0 : 1)
                switch error.code {
                case .nodeExists where isOfTopic: return .failure(TopicFault(.topicAlreadyExists, "Topic '\(name)' already exists."))
                // the settings came or went meanwhile
                case .nodeExists, .noNode: continue
                case .badVersion: return .failure(.notController)
                default: return .failure(.unavailable(reason))
                }
            }
        }
        return .failure(.unavailable(reason))
    }

    private func waitUntilServed(_ name: String, _ id: UUID) async -> Bool {
        await conditions.wait(atMost: config.requestTimeout) { [self] in
            guard let info = metadata.current.topic(id), let facts = controller?.state?.topics[name] ?? nil, facts.id == id else {
                return metadata.current.topic(id)?.partitions.allSatisfy { $0.leader >= 0 } ?? false
            }
            return info.partitions.count == facts.partitions.count && info.partitions.allSatisfy { $0.leader >= 0 }
        }
    }

    // MARK: Growth

    /// Adds partitions to a topic, placed by hand where `assignments` says so, and answers when they have leaders.
    /// From any loop.
    package func growTopic(
        _ name: String, to count: Int32, assignments: [[BrokerID]]?, validateOnly: Bool
    ) async -> TopicFault? {
        await atHome { [self] in await grow(name, to: count, assignments, validateOnly: validateOnly) }
    }

    private func grow(_ name: String, to count: Int32, _ assignments: [[BrokerID]]?, validateOnly: Bool) async -> TopicFault? {
        var reason = "another client changes the same topic"
        for _ in 0..<Self.creationAttempts {
            guard let check = controller?.epochCheck, let state = controller?.state, let session else { return .notController }
            guard let known = state.topics[name], !state.isBeingDeleted(name) else { return .unknownTopic }
            do throws(KeeperError) {
                let reader = TopicReader(session: session, config: config, logger: logger)
                guard let (node, version) = try await reader.node(name, watch: nil), node.id == known.id
                else { return .unknownTopic }
                let grown: TopicNode
                switch TopicPlacement.grow(node, to: count, by: assignments, brokers: placementBrokers, random: &random) {
                case .failure(let fault): return fault
                case .success(let decided): grown = decided
                }
                if validateOnly { return nil }
                _ = try await session.multi([
                    check, .setData(path: ClusterPath.topic(name), data: grown.bytes, version: version),
                ])
            } catch {
                reason = "\(error)"
                switch error.code {
                case .noNode: return .unknownTopic
                case .badVersion: continue
                default: return .unavailable(reason)
                }
            }
            let isServed = await conditions.wait(atMost: config.requestTimeout) { [self] in
                guard let info = metadata.current.topic(known.id) else { return false }
                return info.partitions.count >= Int(count) && info.partitions.allSatisfy { $0.leader >= 0 }
            }
            return isServed ? nil : TopicFault(.requestTimedOut, "The partitions are added, but have no leaders yet.")
        }
        return .unavailable(reason)
    }

    // MARK: Deletion

    /// Deletes a topic, and answers when it is gone from every broker that is there; those that are not delete it when
    /// they return. From any loop.
    package func deleteTopic(_ name: String, id: UUID) async -> TopicFault? {
        await atHome { [self] in await delete(name, id: id) }
    }

    private func delete(_ name: String, id: UUID) async -> TopicFault? {
        guard config.deleteTopics else { return TopicFault(.topicDeletionDisabled, "delete.topic.enable is false.") }
        guard controller?.isLeading == true, let session else { return .notController }
        guard let known = controller?.state?.topics[name] else {
            return TopicFault(.unknownTopicOrPartition, "This server does not host this topic.")
        }
        guard known.id == id else { return TopicFault(.unknownTopicID, "The topic of this name has another id.") }
        do throws(KeeperError) {
            _ = try await session.create(ClusterPath.deletion(name), nil)
        } catch {
            // asked for before: wait for it too
            guard error.code == .nodeExists else { return .unavailable("\(error)") }
        }
        let isGone = await conditions.wait(atMost: config.requestTimeout) { [self] in
            guard let state = controller?.state else { return false }
            guard let now = state.topics[name], now.id == id else { return true }
            return state.deletionWaitsForAbsentOnly(name) && metadata.current.topic(id) == nil
        }
        return isGone ? nil : TopicFault(.requestTimedOut, "The topic is being deleted, but is not gone yet.")
    }
}

extension ControllerState {
    /// All that is left of a topic lies on brokers that are not there.
    func deletionWaitsForAbsentOnly(_ name: String) -> Bool {
        deletions[name]?.allSatisfy { $0.phase == .deleted || $0.phase == .waiting } ?? false
    }
}

extension TopicFault {
    static let notController = TopicFault(.notController, "This is not the correct controller for this cluster.")

    static let unknownTopic = TopicFault(.unknownTopicOrPartition, "This server does not host this topic.")

    static func unavailable(_ reason: String) -> TopicFault {
        TopicFault(.unknownServerError, "The coordination service refused: \(reason).")
    }
}

/// The topics that brokers keep for themselves have settings of their own when they come into being.
package enum InternalTopics {
    package static let offsets = "__consumer_offsets"
    package static let transactions = "__transaction_state"
    package static let shareState = "__share_group_state"
    package static let all: Set<String> = [offsets, transactions, shareState]

    /// Nil for any other topic. The replicas are as many as are set, or as there are brokers.
    package static func definition(of name: String, _ config: BrokerConfig, brokersCount: Int) -> NewTopic? {
        let settings = config.settings
        switch name {
        case offsets:
            return NewTopic(
                name: name, partitionCount: settings.int32("offsets.topic.num.partitions"),
                replicationFactor: factor("offsets.topic.replication.factor", settings, brokersCount),
                configs: [
                    .init(name: "compression.type", value: "producer"), .init(name: "cleanup.policy", value: "compact"),
                    .init(name: "segment.bytes", value: "\(settings.int64("offsets.topic.segment.bytes"))"),
                ])
        case transactions:
            return NewTopic(
                name: name, partitionCount: settings.int32("transaction.state.log.num.partitions"),
                replicationFactor: factor("transaction.state.log.replication.factor", settings, brokersCount),
                configs: [
                    .init(name: "compression.type", value: "uncompressed"), .init(name: "cleanup.policy", value: "compact"),
                    .init(name: "min.insync.replicas", value: "\(min(settings.int64("transaction.state.log.min.isr"), Int64(max(brokersCount, 1))))"),
                    .init(name: "segment.bytes", value: "\(settings.int64("transaction.state.log.segment.bytes"))"),
                    .init(name: "unclean.leader.election.enable", value: "false"),
                ])
        default: return nil
        }
    }

    private static func factor(_ name: String, _ settings: BrokerSettings, _ brokersCount: Int) -> Int16 {
        if let given = settings.given(name)?.integer { return Int16(clamping: given) }
        return Int16(clamping: min(settings.int64(name), Int64(max(brokersCount, 1))))
    }
}
