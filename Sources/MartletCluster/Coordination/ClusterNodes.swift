package import MartletBasics
package import MartletModel

// The values of the coordination tree, one type a kind of node, written byte for byte as Kafka 3.9 writes them and read
// tolerantly: members in any order, unknown members passed over, optional ones left out. What cannot be read is nil,
// and whoever reads says which node it was.
//
//   /cluster/id              {"version":"1","id":"Nphc91hsQFaOu3viOGbofA"}
//   /brokers/ids/N           {"features":{},"listener_security_protocol_map":{…},"endpoints":["PLAINTEXT://h:9092"],"rack":"r",
//                             "jmx_port":-1,"port":9092,"host":"h","version":5,"timestamp":"1795251677554"}
//   /controller              {"version":2,"brokerid":1,"timestamp":"1795251677694","kraftControllerEpoch":-1}
//   /controller_epoch        1
//   /brokers/topics/T        {"partitions":{"0":[1,2]},"topic_id":"…","adding_replicas":{},"removing_replicas":{},"version":3}
//   …/partitions/P/state     {"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,2,3]}
//   /config/topics/T         {"version":1,"config":{"retention.ms":"-1"}}
//   /config/changes/…        {"version":2,"entity_path":"topics/events"}
//   /latest_producer_id_block {"version":1,"broker":2,"block_start":"0","block_end":"999"}
//   /feature                 {"features":{},"version":2,"status":1}

package protocol ClusterNode: Sendable, Equatable {
    init?(json: JSONValue)
    var json: JSONValue { get }
}

extension ClusterNode {
    package init?(_ data: [UInt8]?) {
        guard let data, let json = try? JSONValue(parsing: data) else { return nil }
        self.init(json: json)
    }

    package var bytes: [UInt8] { json.bytes }
}

package struct ClusterIDNode: ClusterNode {
    package var id: String

    package init(id: String) { self.id = id }

    package init?(json: JSONValue) {
        guard let id = json["id"]?.string, !id.isEmpty else { return nil }
        self.id = id
    }

    package var json: JSONValue { ["version": "1", "id": .string(id)] }
}

/// A live broker: the value of its ephemeral node.
package struct BrokerNode: ClusterNode {
    package struct Endpoint: Sendable, Equatable {
        package var listener: String
        package var securityProtocol: SecurityProtocol
        package var host: String
        package var port: Int32

        package init(listener: String, securityProtocol: SecurityProtocol, host: String, port: Int32) {
            self.listener = listener
            self.securityProtocol = securityProtocol
            self.host = host
            self.port = port
        }
    }

    package var endpoints: [Endpoint]
    package var rack: String?
    package var timestamp: Int64

    package init(endpoints: [Endpoint], rack: String?, timestamp: Int64) {
        self.endpoints = endpoints
        self.rack = rack
        self.timestamp = timestamp
    }

    package init?(json: JSONValue) {
        guard json["version"]?.integer(Int32.self) != nil else { return nil }
        let protocols = json["listener_security_protocol_map"]?.object
        var endpoints: [Endpoint] = []
        for text in json["endpoints"]?.array ?? [] {
            guard let endpoint = text.string.flatMap({ Self.endpoint($0, protocols) }) else { return nil }
            endpoints.append(endpoint)
        }
        self.endpoints = endpoints
        rack = json["rack"]?.string
        timestamp = json["timestamp"]?.string.flatMap { Int64($0) } ?? json["timestamp"]?.int ?? -1
    }

    private static func endpoint(_ text: String, _ protocols: JSONObject?) -> Endpoint? {
        guard let scheme = text.firstRange(of: "://"), let colon = text.lastIndex(of: ":"), colon >= scheme.upperBound,
            let port = Int32(text[text.index(after: colon)...])
        else { return nil }
        let listener = String(text[..<scheme.lowerBound])
        var host = text[scheme.upperBound..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        let named = protocols?[listener]?.string ?? listener
        guard let security = SecurityProtocol(rawValue: named) else { return nil }
        return Endpoint(listener: listener, securityProtocol: security, host: String(host), port: port)
    }

    package var json: JSONValue {
        var protocols: [JSONObject.Member] = []
        var texts: [JSONValue] = []
        for endpoint in endpoints {
            if !protocols.contains(where: { $0.name == endpoint.listener }) {
                protocols.append(.init(endpoint.listener, .string(endpoint.securityProtocol.rawValue)))
            }
            let host = endpoint.host.utf8.contains(UInt8(ascii: ":")) ? "[\(endpoint.host)]" : endpoint.host
            texts.append(.string("\(endpoint.listener)://\(host):\(endpoint.port)"))
        }
        let plain = endpoints.first { $0.securityProtocol == .plaintext }
        var object: JSONObject = [
            "features": [:], "listener_security_protocol_map": .object(JSONObject(protocols)), "endpoints": .array(texts),
        ]
        if let rack { object["rack"] = .string(rack) }
        object["jmx_port"] = -1
        object["port"] = .int(plain.map { Int64($0.port) } ?? -1)
        object["host"] = plain.map { .string($0.host) } ?? .null
        object["version"] = 5
        object["timestamp"] = .string(String(timestamp))
        return .object(object)
    }
}

package struct ControllerNode: ClusterNode {
    package var broker: BrokerID
    package var timestamp: Int64

    package init(broker: BrokerID, timestamp: Int64) {
        self.broker = broker
        self.timestamp = timestamp
    }

    package init?(json: JSONValue) {
        guard let broker = json["brokerid"]?.integer(BrokerID.self) else { return nil }
        self.broker = broker
        timestamp = json["timestamp"]?.string.flatMap { Int64($0) } ?? -1
    }

    package var json: JSONValue {
        ["version": 2, "brokerid": .int(Int64(broker)), "timestamp": .string(String(timestamp)), "kraftControllerEpoch": -1]
    }
}

/// A broker says that replicas in its log directories went offline.
package struct DirectoryFailureNode: ClusterNode {
    package var broker: BrokerID

    package init(broker: BrokerID) { self.broker = broker }

    package init?(json: JSONValue) {
        guard let broker = json["broker"]?.integer(BrokerID.self) else { return nil }
        self.broker = broker
    }

    package var json: JSONValue { ["version": 1, "broker": .int(Int64(broker)), "event": 1] }
}

/// A bare decimal. The node's version is the same number, and rises with it.
package enum ControllerEpochNode {
    package static func epoch(_ data: [UInt8]?) -> Int32? {
        data.flatMap { String(validating: $0, as: UTF8.self) }.flatMap { Int32($0) }
    }

    package static func bytes(_ epoch: Int32) -> [UInt8] { Array(String(epoch).utf8) }
}

/// Where the replicas of a topic are.
package struct TopicNode: ClusterNode {
    package struct Replicas: Sendable, Equatable {
        package var partition: Int32
        package var brokers: [BrokerID]

        package init(partition: Int32, brokers: [BrokerID]) {
            self.partition = partition
            self.brokers = brokers
        }
    }

    /// By rising partition, each once.
    package var partitions: [Replicas]
    /// Nil in a topic made before Kafka 2.8.
    package var id: UUID?
    package var adding: [Replicas]
    package var removing: [Replicas]

    package init(partitions: [Replicas], id: UUID?, adding: [Replicas] = [], removing: [Replicas] = []) {
        self.partitions = partitions.sorted { $0.partition < $1.partition }
        self.id = id
        self.adding = adding
        self.removing = removing
    }

    package init?(json: JSONValue) {
        guard let partitions = Self.read(json["partitions"]), let adding = Self.read(json["adding_replicas"] ?? [:]),
            let removing = Self.read(json["removing_replicas"] ?? [:])
        else { return nil }
        id = nil
        if let text = json["topic_id"]?.string {
            guard let id = UUID(text) else { return nil }
            self.id = id
        }
        (self.partitions, self.adding, self.removing) = (partitions, adding, removing)
    }

    private static func read(_ json: JSONValue?) -> [Replicas]? {
        guard let object = json?.object else { return nil }
        var read: [Replicas] = []
        for member in object.members {
            guard let partition = Int32(member.name), partition >= 0, let list = member.value.array else { return nil }
            let brokers = list.compactMap { $0.integer(BrokerID.self) }
            guard brokers.count == list.count else { return nil }
            read.append(Replicas(partition: partition, brokers: brokers))
        }
        read.sort { $0.partition < $1.partition }
        // "0" and "00" are the same partition
        for (a, b) in zip(read, read.dropFirst()) where a.partition == b.partition { return nil }
        return read
    }

    private static func write(_ list: [Replicas]) -> JSONValue {
        .object(JSONObject(list.map { replicas in
            .init(String(replicas.partition), .array(replicas.brokers.map { .int(Int64($0)) }))
        }))
    }

    package var json: JSONValue {
        var object: JSONObject = ["partitions": Self.write(partitions)]
        if let id { object["topic_id"] = .string(id.description) }
        object["adding_replicas"] = Self.write(adding)
        object["removing_replicas"] = Self.write(removing)
        object["version"] = 3
        return .object(object)
    }
}

/// Who leads a partition and who is in sync. The node's version is the partition epoch.
package struct PartitionStateNode: ClusterNode {
    /// The epoch of the controller that wrote it.
    package var controllerEpoch: Int32
    /// -1: none.
    package var leader: BrokerID
    package var leaderEpoch: LeaderEpoch
    package var inSyncReplicas: [BrokerID]
    /// The leader recovers from an unclean election, and is in sync with nobody.
    package var isRecovering: Bool

    package init(
        controllerEpoch: Int32, leader: BrokerID, leaderEpoch: LeaderEpoch, inSyncReplicas: [BrokerID],
        isRecovering: Bool = false
    ) {
        self.controllerEpoch = controllerEpoch
        self.leader = leader
        self.leaderEpoch = leaderEpoch
        self.inSyncReplicas = inSyncReplicas
        self.isRecovering = isRecovering
    }

    package init?(json: JSONValue) {
        guard let leader = json["leader"]?.integer(BrokerID.self), let list = json["isr"]?.array,
            let leaderEpoch = json["leader_epoch"]?.integer(LeaderEpoch.self), leaderEpoch >= 0
        else { return nil }
        inSyncReplicas = list.compactMap { $0.integer(BrokerID.self) }
        guard inSyncReplicas.count == list.count else { return nil }
        self.leader = leader
        self.leaderEpoch = leaderEpoch
        controllerEpoch = json["controller_epoch"]?.integer() ?? 0
        isRecovering = json["leader_recovery_state"]?.int == 1
    }

    package var json: JSONValue {
        var object: JSONObject = [
            "controller_epoch": .int(Int64(controllerEpoch)), "leader": .int(Int64(leader)), "version": 1,
            "leader_epoch": .int(Int64(leaderEpoch)), "isr": .array(inSyncReplicas.map { .int(Int64($0)) }),
        ]
        if isRecovering { object["leader_recovery_state"] = 1 }
        return .object(object)
    }
}

/// What was set for a topic (or another entity of `/config`).
package struct ConfigNode: ClusterNode {
    package struct Setting: Sendable, Equatable {
        package var name: String
        package var value: String

        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    /// In the order of the node.
    package var settings: [Setting]

    package init(_ settings: [(name: String, value: String)]) { self.settings = settings.map { Setting($0.name, $0.value) } }

    package init?(json: JSONValue) {
        guard let object = json["config"]?.object else { return nil }
        settings = []
        for member in object.members {
            guard let value = member.value.string else { return nil }
            settings.append(Setting(member.name, value))
        }
    }

    package var json: JSONValue {
        ["version": 1, "config": .object(JSONObject(settings.map { .init($0.name, .string($0.value)) }))]
    }

    /// By name: what a resolver takes.
    package var overrides: [(name: String, value: String)] {
        settings.map { ($0.name, $0.value) }.sorted { $0.0 < $1.0 }
    }
}

/// Tells brokers that an entity's settings were written.
package struct ConfigChangeNode: ClusterNode {
    package var entityPath: String

    package init(entityPath: String) { self.entityPath = entityPath }

    package init?(json: JSONValue) {
        guard let path = json["entity_path"]?.string else { return nil }
        entityPath = path
    }

    package var json: JSONValue { ["version": 2, "entity_path": .string(entityPath)] }

    /// Whose settings changed; nil for an entity that brokers keep nothing of.
    package var target: ConfigTarget? { ConfigTarget(entityPath: entityPath) }
}

/// The producer ids that were given out last, as a block; both ends belong to it.
package struct ProducerIDBlockNode: ClusterNode {
    package var broker: BrokerID
    package var start: ProducerID
    package var end: ProducerID

    package init(broker: BrokerID, start: ProducerID, end: ProducerID) {
        self.broker = broker
        self.start = start
        self.end = end
    }

    package init?(json: JSONValue) {
        guard let start = json["block_start"]?.string.flatMap({ Int64($0) }),
            let end = json["block_end"]?.string.flatMap({ Int64($0) }), start >= 0, end >= start
        else { return nil }
        (self.start, self.end) = (start, end)
        broker = json["broker"]?.integer() ?? -1
    }

    package var json: JSONValue {
        [
            "version": 1, "broker": .int(Int64(broker)), "block_start": .string(String(start)),
            "block_end": .string(String(end)),
        ]
    }
}

/// Finalised features, as far as brokers of 3.9 read them: none.
package struct FeatureNode: ClusterNode {
    package var isEnabled: Bool

    package init(isEnabled: Bool) { self.isEnabled = isEnabled }

    package init?(json: JSONValue) {
        guard let status = json["status"]?.int else { return nil }
        isEnabled = status == 1
    }

    package var json: JSONValue { ["features": [:], "version": 2, "status": isEnabled ? 1 : 0] }
}
