package import MartletCluster
package import MartletModel

/// What is set on one group (the GROUP resource of DescribeConfigs), as far as consumer groups go.
package struct GroupOverrides: Equatable, Sendable {
    package var sessionTimeoutMs: Int32?
    package var heartbeatIntervalMs: Int32?
    package var assignmentIntervalMs: Int32?

    package init() {}

    /// What cannot be read is passed over: a broker of another release may have written it.
    package init(_ stored: TopicConfigResolver.Overrides) {
        for (name, text) in stored {
            guard let value = Int32(text), value >= 0 else { continue }
            switch name {
            case "consumer.session.timeout.ms": sessionTimeoutMs = value
            case "consumer.heartbeat.interval.ms": heartbeatIntervalMs = value
            case "consumer.assignment.interval.ms": assignmentIntervalMs = value
            default: break
            }
        }
    }
}

/// What groups depend on and do not decide: the topics that there are, and what is set on groups. A value that does
/// not change, replaced as a whole.
package final class GroupSurroundings: Sendable {
    package static let nothing = GroupSurroundings(
        image: MetadataImage(clusterID: "", controllerID: nil, brokers: [], topics: []), version: 0)

    package let image: MetadataImage
    /// Rises with each image.
    package let version: Int64
    package let overrides: [String: GroupOverrides]
    /// `group.consumer.assignment.interval.ms`, which is dynamic; nil: as at the start.
    package let assignmentIntervalMs: Int32?
    private let rackOfBroker: [BrokerID: String]

    package init(
        image: MetadataImage, version: Int64, overrides: [String: GroupOverrides] = [:], assignmentIntervalMs: Int32? = nil
    ) {
        self.image = image
        self.version = version
        self.overrides = overrides
        self.assignmentIntervalMs = assignmentIntervalMs
        rackOfBroker = Dictionary(
            image.brokers.compactMap { broker in broker.rack.map { (broker.id, $0) } }, uniquingKeysWith: { first, _ in first })
    }

    /// Where the replicas of each partition are; empty where brokers do not say.
    private func racks(of topic: TopicInfo) -> [[String]] {
        guard !rackOfBroker.isEmpty else { return [] }
        return topic.partitions.map { Set($0.replicas.compactMap { rackOfBroker[$0] }).sorted() }
    }

    func assignedTopic(_ topic: TopicInfo) -> AssignedTopic {
        AssignedTopic(partitionCount: Int32(topic.partitions.count), racks: racks(of: topic))
    }

    /// Another number wherever a topic of these is another one, or has other partitions, or has them in other racks.
    /// Topics that are not there do not count; of none it is 0.
    func hash(of names: Set<String>) -> Int64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        var isNothing = true
        func mix(_ value: UInt64) {
            hash = (hash ^ value) &* 0x0000_0100_0000_01B3
            hash ^= hash >> 29
        }
        func mix(_ text: String) {
            for byte in text.utf8 { mix(UInt64(byte)) }
            mix(256)
        }
        for name in names.sorted() {
            guard let topic = image.topic(name) else { continue }
            isNothing = false
            mix(name)
            mix(topic.id.high)
            mix(topic.id.low)
            mix(UInt64(topic.partitions.count))
            for racks in racks(of: topic) {
                for rack in racks { mix(rack) }
                mix(257)
            }
        }
        return isNothing ? 0 : Int64(bitPattern: hash)
    }
}

/// What a broker's settings say of consumer groups.
package struct ConsumerGroupSettings: Sendable {
    /// Whether the protocol is offered at all: `group.coordinator.rebalance.protocols`.
    package var isOffered = true
    package var sizeLimit = Int(Int32.max)
    package var sessionTimeoutMs: Int32 = 45_000
    package var sessionTimeoutsMs: ClosedRange<Int32> = 45_000...60_000
    package var heartbeatIntervalMs: Int32 = 5_000
    package var heartbeatIntervalsMs: ClosedRange<Int32> = 5_000...15_000
    package var assignmentIntervalMs: Int32 = 1_000
    package var assignmentIntervalsMs: ClosedRange<Int32> = 0...15_000
    /// The first is taken where no member asks for one.
    package var assignors = PartitionAssignor.allCases
    package var allowsUpgrade = true
    package var allowsDowngrade = true
    /// What a record of a member may be: it has to fit into one batch of the log.
    package var recordBytesLimit = 1 << 20
    /// `group.max.size`: no group with more members becomes a classic one.
    package var classicSizeLimit = Int(Int32.max)

    package init() {}

    /// As a group has them. What is set on it may be older than the broker's bounds, and is kept within them.
    func applying(_ surroundings: GroupSurroundings, to group: String) -> ConsumerGroupSettings {
        var settings = self
        if let interval = surroundings.assignmentIntervalMs { settings.assignmentIntervalMs = interval }
        guard let overrides = surroundings.overrides[group] else { return settings }
        func within(_ value: Int32, _ bounds: ClosedRange<Int32>) -> Int32 {
            min(max(value, bounds.lowerBound), bounds.upperBound)
        }
        if let value = overrides.sessionTimeoutMs { settings.sessionTimeoutMs = within(value, sessionTimeoutsMs) }
        if let value = overrides.heartbeatIntervalMs { settings.heartbeatIntervalMs = within(value, heartbeatIntervalsMs) }
        if let value = overrides.assignmentIntervalMs { settings.assignmentIntervalMs = within(value, assignmentIntervalsMs) }
        return settings
    }
}
