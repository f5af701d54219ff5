import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel

/// A member of a consumer group as a client is one: it takes over what it is told, and gives up at once.
final class TestMember {
    let id: String
    let group: String
    var instance: String?
    var rack: String?
    var topics: [String]?
    var pattern: String?
    var assignor: String?
    var rebalanceMs: Int32 = 30_000
    var epoch: Int32 = 0
    var owned: PartitionSet = [:]
    /// What it was told last.
    var error = ErrorCode.none
    /// Keeps what it is to give up.
    var clings = false
    private var saysOwned = false
    /// When it was last heard, and that it was, known to it.
    var heardAt: Int64 = 0

    init(_ id: String, group: String = "g", topics: [String]? = ["t"]) {
        self.id = id
        self.group = group
        self.topics = topics
    }

    var count: Int { owned.values.reduce(0) { $0 + $1.count } }

    func event() -> ConsumerHeartbeatEvent {
        var event = ConsumerHeartbeatEvent(group: group)
        event.memberID = id
        event.epoch = epoch
        event.instanceID = instance
        (event.clientID, event.clientHost) = ("test", "/10.0.0.1")
        if epoch == 0 {
            (event.rackID, event.topics, event.pattern, event.assignor) = (rack, topics, pattern, assignor)
            event.rebalanceTimeoutMs = rebalanceMs
            event.owned = [:]
        } else if saysOwned {
            event.owned = owned
        }
        return event
    }

    func take(_ reply: GroupReply) {
        switch reply {
        case .consumerHeartbeat(let told):
            (error, epoch) = (.none, told.epoch)
            saysOwned = told.assignment != nil && !clings
            if let assignment = told.assignment, !clings { owned = assignment }
        case .refused(let refusal): refused(refusal.error)
        case .failed(let code): refused(code)
        default: preconditionFailure("a heartbeat is answered as one")
        }
    }

    private func refused(_ code: ErrorCode) {
        error = code
        guard [.unknownMemberID, .fencedMemberEpoch].contains(code) else { return }
        (epoch, owned) = (0, [:])
    }
}

extension GroupWorld {
    /// Which topics there are; ids follow from names.
    mutating func setTopics(_ topics: [String: Int32], racks: [String] = []) {
        let brokers = racks.enumerated().map { BrokerInfo(id: BrokerID($0), endpoints: [], rack: $1) }
        let infos = topics.map { name, count in
            TopicInfo(
                name: name, id: topicID(name),
                partitions: (0..<count).map { index in
                    PartitionInfo(
                        index: index, leader: 1, leaderEpoch: 0,
                        replicas: racks.isEmpty ? [1] : [BrokerID(Int(index) % racks.count)], inSyncReplicas: [1])
                })
        }
        surroundings = GroupSurroundings(
            image: MetadataImage(clusterID: "c", controllerID: 1, brokers: brokers, topics: infos),
            version: surroundings.version + 1, overrides: surroundings.overrides)
    }

    mutating func setOverrides(_ overrides: [String: GroupOverrides]) {
        surroundings = GroupSurroundings(image: surroundings.image, version: surroundings.version + 1, overrides: overrides)
    }

    /// A group's epoch where somebody tests it: each heartbeat may assign anew.
    static func stepwise(_ settings: inout GroupSettings) { settings.consumer.assignmentIntervalMs = 0 }

    @discardableResult
    mutating func beat(
        _ member: TestMember, _ change: (inout ConsumerHeartbeatEvent) -> Void = { _ in }
    ) -> ConsumerHeartbeatReply? {
        var event = member.event()
        change(&event)
        let ticket = ask { .consumerHeartbeat(event, $0) }
        guard let reply = replies[ticket] else { return nil }
        member.take(reply)
        guard case .consumerHeartbeat(let told) = reply else { return nil }
        member.heardAt = now
        return told
    }

    mutating func leave(_ member: TestMember, epoch: Int32 = -1) {
        beat(member) { $0.epoch = epoch }
        (member.epoch, member.owned) = (0, [:])
    }

    /// Heartbeats of all until nothing moves any more.
    mutating func settle(_ members: [TestMember], rounds: Int = 12) {
        for _ in 0..<rounds { for member in members { beat(member) } }
    }

    func consumer(_ group: String = "g") -> ConsumerGroup? { machine.describeConsumer(group)?.group }
    func stateName(_ group: String = "g") -> String? { machine.listings.first { $0.id == group }?.state }
}

func topicID(_ name: String) -> UUID { UUID(high: 848, low: name.utf8.reduce(0) { $0 &* 31 &+ UInt64($1) }) }
