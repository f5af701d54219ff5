import MartletBasics
import MartletKeeper
import MartletLog
import MartletModel
import MartletReactor

/// Writes into a new tree what log directories hold that another broker of Kafka's format filled: the topics with their ids
/// and partitions, the leader epochs that were reached, the producer ids that were given out.
///
/// A topic is written in one transaction, and one that is there already is passed over, so that an adoption that a crash
/// ended is gone on with; `docs/design/adoption.md` says what follows from what.
struct Adoption {
    /// So many blocks of producer ids above the highest that the logs tell of are not given out: an id may have been given to
    /// a producer, by this broker or another of its cluster, that has written nothing here yet.
    private static let producerBlocksPassedOver: ProducerID = 1000
    /// Names that one line of the log tells.
    private static let namesToldLimit = 20

    let session: any KeeperSession
    let member: ClusterMember
    let brokerID: BrokerID

    private var logger: Logger { member.logger }

    func run() async throws(ClusterError) {
        let found = member.replicas.foundTopics.filter { !$0.partitions.isEmpty && TopicName.isValid($0.name) }.map(completed)
        guard !found.isEmpty else { return sayUnused([]) }
        if let missing = member.replicas.missingDirectories.first { throw .directoryMissing(missing) }
        let survey: ReplicaSurvey
        do throws(LogError) { survey = try await member.replicas.survey() } catch { throw .log(error) }
        let ids = chooseIDs(found)
        let taken = found.filter { ids[$0.name] != nil }
        do throws(KeeperError) {
            try await passOverProducerIDs(survey.highestProducerID)
            for topic in taken { try await adopt(topic, ids[topic.name]!, survey) }
        } catch { throw .keeper(error) }
        say(taken)
        sayUnused(taken)
    }

    // MARK: Topics

    /// A coordinator is found by a hash of a name and the number of its topic's partitions: where some are missing the broker
    /// was one of several, and those that lay elsewhere begin empty here, or their groups would have no coordinator.
    private func completed(_ topic: FoundTopic) -> FoundTopic {
        guard Self.hasGaps(topic), let own = InternalTopics.definition(of: topic.name, member.config, brokersCount: 1)
        else { return topic }
        let count = max(topic.partitions.last! + 1, own.partitionCount)
        logger.warning(
            "of a topic of the brokers' own not every partition is here; the others are made, and empty",
            ("topic", topic.name), ("partitions", "\(count)"), ("here", "\(topic.partitions.count)"))
        var completed = topic
        completed.partitions = Array(0..<count)
        return completed
    }

    private static func hasGaps(_ topic: FoundTopic) -> Bool { Int(topic.partitions.last!) != topic.partitions.count - 1 }

    /// By name. Of two topics with one id neither can be told to be the right one: both are left alone.
    private func chooseIDs(_ found: [FoundTopic]) -> [String: UUID] {
        var names: [UUID: [String]] = [:]
        for topic in found { if let id = topic.id, id != .zero { names[id, default: []].append(topic.name) } }
        var ids: [String: UUID] = [:]
        for topic in found {
            guard let id = topic.id, id != .zero else {
                ids[topic.name] = UUID(bytes: member.host.randomBytes(16))
                continue
            }
            guard let same = names[id], same.count > 1 else {
                ids[topic.name] = id
                continue
            }
            logger.error(
                "folders of several topics have the same topic id; none of them is served: move all but the right ones away",
                ("topic", topic.name), ("id", "\(id)"), ("topics", told(same)))
        }
        return ids
    }

    private func adopt(_ topic: FoundTopic, _ id: UUID, _ survey: ReplicaSurvey) async throws(KeeperError) {
        // by an attempt that a crash ended
        if try await session.exists(ClusterPath.topic(topic.name)) != nil { return }
        func create(_ path: String, _ data: [UInt8]?) -> KeeperOperation {
            .create(path: path, data: data, acl: ACL.open, mode: .persistent)
        }
        let node = TopicNode(partitions: topic.partitions.map { .init(partition: $0, brokers: [brokerID]) }, id: id)
        var operations = [
            create(ClusterPath.topic(topic.name), node.bytes),
            create(ClusterPath.topicConfig(topic.name), settings(of: topic).bytes),
            create(ClusterPath.partitions(topic.name), nil),
        ]
        for partition in topic.partitions {
            let id = TopicPartition(topic.name, partition)
            // Without a leader: the controller elects this broker, in the epoch after those that the log has seen.
            let state = PartitionStateNode(
                controllerEpoch: 0, leader: -1, leaderEpoch: max(survey.leaderEpochs[id] ?? 0, 0), inSyncReplicas: [brokerID])
            operations += [create(ClusterPath.partition(id), nil), create(ClusterPath.state(id), state.bytes)]
        }
        _ = try await session.multi(operations)
    }

    /// What the brokers' own topics always have; that a topic was compacted, where the cleaner's checkpoint says so, for to
    /// take it for one whose old records are deleted would lose them; and what the file says, which counts most.
    private func settings(of topic: FoundTopic) -> ConfigNode {
        var settings: [(name: String, value: String)] = []
        if let own = InternalTopics.adopted(topic.name, member.config) {
            settings = own
        } else if topic.wasCompacted {
            settings = [("cleanup.policy", "compact")]
        }
        for given in member.topicSettings?.settings(of: topic.name) ?? [] {
            settings.removeAll { $0.name == given.name }
            settings.append((given.name, given.value))
        }
        return ConfigNode(settings)
    }

    // MARK: Producer ids

    /// A producer id that is given twice would be taken for the first producer come again.
    private func passOverProducerIDs(_ highest: ProducerID) async throws(KeeperError) {
        let path = ClusterPath.producerIDBlock
        // by an attempt that a crash ended
        guard ProducerIDBlockNode(try await session.get(path).data) == nil else { return }
        let size = ProducerIDBlock.size
        let (margin, isTooHigh) = max(highest, 0).addingReportingOverflow((Self.producerBlocksPassedOver + 1) * size)
        let end = (isTooHigh ? .max : margin) / size * size - 1
        _ = try await session.set(path, ProducerIDBlockNode(broker: brokerID, start: end - size + 1, end: end).bytes)
    }

    // MARK: What is said

    private func say(_ taken: [FoundTopic]) {
        guard !taken.isEmpty else { return }
        let file = member.topicSettings
        let compacted = taken.filter { $0.wasCompacted && InternalTopics.adopted($0.name, member.config) == nil }
        logger.info(
            "the coordination tree is new: the topics found in the log directories were written into it",
            ("topics", "\(taken.count)"), ("partitions", "\(taken.reduce(0) { $0 + $1.partitions.count })"),
            ("broker", "\(brokerID)"),
            ("settings", file.map { "those of \($0.path), else the broker's defaults" } ?? "the broker's defaults"),
            ("taken-as-compacted", compacted.isEmpty ? "none" : told(compacted.map(\.name))))
        let defaults = member.config.topics.defaults
        if file == nil, taken.contains(where: { InternalTopics.adopted($0.name, member.config) == nil }) {
            logger.warning(
                "what was set for topics is not in log directories: the defaults count, also for deleting what is old",
                ("retention.ms", "\(defaults.retentionMs)"), ("retention.bytes", "\(defaults.retentionBytes)"),
                ("to-give-others", "--topic-settings, with a new coordination tree"))
        }
        let gaps = taken.filter(Self.hasGaps)
        if !gaps.isEmpty {
            logger.warning(
                "of some topics the log directories do not hold every partition: those that are here are served",
                ("topics", "\(gaps.count)"), ("first", gaps[0].name),
                ("partitions", gaps[0].partitions.prefix(Self.namesToldLimit).map(String.init).joined(separator: ",")))
        }
    }

    /// A file that names what is not there may be misspelt.
    private func sayUnused(_ taken: [FoundTopic]) {
        guard let file = member.topicSettings else { return }
        let names = Set(taken.map(\.name))
        let unused = file.topics.filter { !names.contains($0) }
        guard !unused.isEmpty else { return }
        logger.warning(
            "the file of topic settings names topics that the log directories do not hold", ("file", file.path),
            ("topics", told(unused)))
    }

    private func told(_ names: [String]) -> String {
        let shown = names.prefix(Self.namesToldLimit).joined(separator: ",")
        return names.count > Self.namesToldLimit ? "\(shown) and \(names.count - Self.namesToldLimit) more" : shown
    }
}

extension InternalTopics {
    /// The settings of topics that brokers keep for themselves, for those that were found; nil for any other.
    static func adopted(_ name: String, _ config: BrokerConfig) -> [(name: String, value: String)]? {
        if let own = definition(of: name, config, brokersCount: 1) {
            return own.settings.compactMap { setting in setting.value.map { (setting.name, $0) } }
        }
        // of Kafka 4, which trims it by deleting records
        guard name == "__share_group_state" else { return nil }
        return [("cleanup.policy", "delete"), ("compression.type", "producer"), ("retention.ms", "-1")]
    }
}
