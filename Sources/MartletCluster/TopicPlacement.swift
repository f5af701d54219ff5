package import MartletBasics
package import MartletModel

/// Where the replicas of a new topic go, and why one is refused. Pure; the order of the checks is Kafka's: the name,
/// the twins, the settings, then placement by hand or by counts.
package struct TopicPlacement: Sendable {
    /// More partitions than this in one topic make its node larger than the tree takes.
    package static let partitionLimit = 10_000
    /// Reserved for KRaft's own log.
    private static let reservedName = "__cluster_metadata"

    package struct Broker: Sendable, Equatable {
        package var id: BrokerID
        package var rack: String?

        package init(id: BrokerID, rack: String?) {
            self.id = id
            self.rack = rack
        }
    }

    /// By rising partition, from 0 without gaps.
    package var replicas: [TopicNode.Replicas]
    package var settings: [(name: String, value: String)]

    package var replicationFactor: Int16 { Int16(replicas.first?.brokers.count ?? 0) }

    /// `existing` are the names of all topics, in any order; `brokers` those that live, by rising id.
    package static func decide(
        _ wanted: NewTopic, existing: some Sequence<String>, brokers: [Broker], config: BrokerConfig,
        random: inout SeededRandom
    ) -> Result<TopicPlacement, TopicFault> {
        if let fault = faultOfName(wanted.name, existing) { return .failure(fault) }
        let settings: [(name: String, value: String)]
        do throws(ConfigError) {
            settings = try config.topics.validated(wanted.settings.map { ($0.name, $0.value) })
        } catch {
            return .failure(TopicFault(.invalidConfig, "\(error)"))
        }
        let placed: Result<[TopicNode.Replicas], TopicFault>
        if wanted.assignments.isEmpty {
            placed = counted(wanted, brokers, config, &random)
        } else {
            placed = assigned(wanted, brokers)
        }
        return placed.map { TopicPlacement(replicas: $0, settings: settings) }
    }

    /// A topic's node with `count` partitions, the new ones placed as the others were, or by hand.
    package static func grow(
        _ node: TopicNode, to count: Int32, by hand: [[BrokerID]]?, brokers: [Broker], random: inout SeededRandom
    ) -> Result<TopicNode, TopicFault> {
        let present = Int32(node.partitions.count)
        guard node.adding.isEmpty, node.removing.isEmpty else {
            return .failure(TopicFault(
                .reassignmentInProgress, "A reassignment of the topic's replicas is under way: wait for its end."))
        }
        guard count > present else {
            return .failure(TopicFault(
                .invalidPartitions,
                "The topic has \(present) partitions, and \(count) are not more: partitions can only be added."))
        }
        guard count <= partitionLimit else { return .failure(tooMany(Int(count))) }
        let added = count - present
        let factor = node.partitions.first?.brokers.count ?? 1
        var placed: [TopicNode.Replicas]
        if let hand {
            guard hand.count == Int(added) else {
                return .failure(TopicFault(
                    .invalidReplicaAssignment,
                    "\(added) partitions are added, and replicas are assigned to \(hand.count): name each."))
            }
            let live = Set(brokers.map(\.id))
            for (place, brokers) in hand.enumerated() {
                if let reason = fault(of: brokers, live, factor) {
                    return .failure(TopicFault(.invalidReplicaAssignment, "Partition \(Int(present) + place) \(reason)."))
                }
            }
            placed = hand.map { .init(partition: 0, brokers: $0) }
        } else {
            guard factor <= brokers.count else {
                return .failure(TopicFault(
                    .invalidReplicationFactor,
                    "A partition of it has \(factor) replicas, and \(brokers.count) brokers are there: start the others."))
            }
            placed = spread(partitions: added, factor: factor, over: brokers, &random)
        }
        for place in placed.indices { placed[place].partition = present + Int32(place) }
        var grown = node
        grown.partitions += placed
        return .success(grown)
    }

    /// What is wrong with the replicas of one partition that were placed by hand.
    private static func fault(of replicas: [BrokerID], _ live: Set<BrokerID>, _ factor: Int) -> String? {
        if replicas.isEmpty { return "has no replica" }
        if Set(replicas).count != replicas.count { return "has two replicas on one broker" }
        if let unknown = replicas.first(where: { !live.contains($0) }) {
            return "is to have a replica on broker \(unknown), which is not registered"
        }
        return replicas.count == factor ? nil : "has \(replicas.count) replicas, the topic's others have \(factor)"
    }

    // MARK: Names

    private static func faultOfName(_ name: String, _ existing: some Sequence<String>) -> TopicFault? {
        if name == reservedName { return TopicFault(.invalidRequest, "Creation of internal topic \(name) is prohibited.") }
        if let fault = TopicName.fault(name) { return TopicFault(.invalidTopicException, fault) }
        let mayCollide = name.utf8.contains(where: isFolded)
        var twin: String?
        for other in existing {
            if other == name { return TopicFault(.topicAlreadyExists, "Topic '\(name)' already exists.") }
            if mayCollide, collides(other, name) { twin = min(twin ?? other, other) }
        }
        return twin.map { twin in
            TopicFault(
                .invalidTopicException,
                "Topic '\(name)' collides with existing topic '\(twin)': names that differ in '.' and '_' only share their metrics.")
        }
    }

    private static func isFolded(_ byte: UInt8) -> Bool { byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_") }

    private static func collides(_ a: String, _ b: String) -> Bool {
        a.utf8.count == b.utf8.count && zip(a.utf8, b.utf8).allSatisfy { $0 == $1 || isFolded($0) && isFolded($1) }
    }

    // MARK: Placement by hand

    private static func assigned(_ wanted: NewTopic, _ brokers: [Broker]) -> Result<[TopicNode.Replicas], TopicFault> {
        guard wanted.replicationFactor == -1 else {
            return .failure(TopicFault(.invalidRequest, "A replication factor cannot be given together with replica assignments."))
        }
        guard wanted.partitionCount == -1 else {
            return .failure(TopicFault(.invalidRequest, "A partition count cannot be given together with replica assignments."))
        }
        guard wanted.assignments.count <= partitionLimit else { return .failure(tooMany(wanted.assignments.count)) }
        let sorted = wanted.assignments.sorted { $0.partition < $1.partition }
        let live = Set(brokers.map(\.id))
        func refuse(_ message: String) -> Result<[TopicNode.Replicas], TopicFault> {
            .failure(TopicFault(.invalidReplicaAssignment, message))
        }
        for (index, assignment) in sorted.enumerated() {
            guard assignment.partition == index else {
                return refuse("Partitions must be numbered from 0 without gaps, each once: \(index) is missing, or another comes twice.")
            }
            guard !assignment.brokers.isEmpty else { return refuse("Partition \(index) has no replica.") }
            guard Set(assignment.brokers).count == assignment.brokers.count else {
                return refuse("Partition \(index) has two replicas on one broker.")
            }
            if let unknown = assignment.brokers.first(where: { !live.contains($0) }) {
                return refuse("Partition \(index) is to have a replica on broker \(unknown), which is not registered.")
            }
            guard assignment.brokers.count == sorted[0].brokers.count else {
                return refuse("Partition \(index) has \(assignment.brokers.count) replicas, partition 0 has \(sorted[0].brokers.count): all must have as many.")
            }
        }
        return .success(sorted.map { .init(partition: $0.partition, brokers: $0.brokers) })
    }

    // MARK: Placement by counts

    private static func counted(
        _ wanted: NewTopic, _ brokers: [Broker], _ config: BrokerConfig, _ random: inout SeededRandom
    ) -> Result<[TopicNode.Replicas], TopicFault> {
        guard wanted.replicationFactor == -1 || wanted.replicationFactor > 0 else {
            return .failure(TopicFault(.invalidReplicationFactor, "Replication factor must be larger than 0, or -1 for the broker's default."))
        }
        guard wanted.partitionCount == -1 || wanted.partitionCount > 0 else {
            return .failure(TopicFault(.invalidPartitions, "Number of partitions must be larger than 0, or -1 for the broker's default."))
        }
        let count = wanted.partitionCount == -1 ? config.partitions : wanted.partitionCount
        let factor = wanted.replicationFactor == -1 ? config.replicationFactor : wanted.replicationFactor
        guard count <= partitionLimit else { return .failure(tooMany(Int(count))) }
        guard Int(factor) <= brokers.count else {
            return .failure(TopicFault(
                .invalidReplicationFactor, "Replication factor \(factor) is larger than the number of brokers that are there, \(brokers.count)."))
        }
        return .success(spread(partitions: count, factor: Int(factor), over: brokers, &random))
    }

    private static func tooMany(_ count: Int) -> TopicFault {
        TopicFault(.policyViolation, "\(count) partitions are more than the \(partitionLimit) that a topic may have.")
    }

    /// Leaders go round the brokers from a random one; the other replicas follow at a distance that grows with each
    /// round, so that the partitions of one broker have their copies on many. Racks alternate in the ring, and a rack
    /// is used twice only when all are.
    package static func spread(
        partitions: Int32, factor: Int, over brokers: [Broker], _ random: inout SeededRandom
    ) -> [TopicNode.Replicas] {
        precondition(factor > 0 && factor <= brokers.count, "each replica has a broker of its own")
        let ring = alternatingRacks(brokers)
        let start = random.below(ring.count)
        var shift = random.below(ring.count)
        return (0..<partitions).map { partition in
            if partition > 0, Int(partition) % ring.count == 0 { shift += 1 }
            let first = (start + Int(partition)) % ring.count
            var chosen = [first]
            var racks: Set<String> = [ring[first].rack ?? ""]
            let others = (0..<ring.count - 1).map { (first + 1 + (shift + $0) % (ring.count - 1)) % ring.count }
            let hasRacks = !ring.contains { $0.rack == nil }
            if hasRacks {
                for place in others where chosen.count < factor && racks.insert(ring[place].rack ?? "").inserted { chosen.append(place) }
            }
            for place in others where chosen.count < factor && !chosen.contains(place) { chosen.append(place) }
            return TopicNode.Replicas(partition: partition, brokers: chosen.map { ring[$0].id })
        }
    }

    private static func alternatingRacks(_ brokers: [Broker]) -> [Broker] {
        var racks: [(name: String?, brokers: [Broker])] = []
        for broker in brokers.sorted(by: { $0.id < $1.id }) {
            if let index = racks.firstIndex(where: { $0.name == broker.rack }) {
                racks[index].brokers.append(broker)
            } else {
                racks.append((broker.rack, [broker]))
            }
        }
        let most = racks.map(\.brokers.count).max() ?? 0
        return (0..<most).flatMap { round in racks.compactMap { round < $0.brokers.count ? $0.brokers[round] : nil } }
    }
}
