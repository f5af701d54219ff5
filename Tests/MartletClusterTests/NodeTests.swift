import MartletBasics
import MartletCluster
import MartletModel
import Testing

/// What Kafka 3.9.2 was seen to write, byte for byte.
private enum Seen {
    static let clusterID = #"{"version":"1","id":"Nphc91hsQFaOu3viOGbofA"}"#
    static let broker =
        #"{"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT","REPL":"PLAINTEXT"},"endpoints":["PLAINTEXT://127.0.0.1:9911","REPL://127.0.0.1:9931"],"rack":"rack1","jmx_port":-1,"port":9911,"host":"127.0.0.1","version":5,"timestamp":"1795251677554"}"#
    static let topic =
        #"{"partitions":{"0":[1,2,3],"1":[2,3,1]},"topic_id":"kFPQyXg-QDyBl7uNCvoeoQ","adding_replicas":{},"removing_replicas":{},"version":3}"#
    static let moving =
        #"{"partitions":{"0":[2,3,1]},"topic_id":"kFPQyXg-QDyBl7uNCvoeoQ","adding_replicas":{"0":[3]},"removing_replicas":{"0":[1]},"version":3}"#
    static let state = #"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1,2,3]}"#
    static let controller = #"{"version":2,"brokerid":1,"timestamp":"1795251677694","kraftControllerEpoch":-1}"#
    static let feature = #"{"features":{},"version":2,"status":1}"#
    static let producerIDs = #"{"version":1,"broker":2,"block_start":"0","block_end":"999"}"#
    static let config = #"{"version":1,"config":{"retention.ms":"-1"}}"#
    static let noConfig = #"{"version":1,"config":{}}"#
    static let change = #"{"version":2,"entity_path":"topics/events"}"#
}

private func comesBack<Node: ClusterNode>(_ type: Node.Type, _ text: String) -> Bool {
    guard let node = Node(Array(text.utf8)) else { return false }
    return String(decoding: node.bytes, as: UTF8.self) == text
}

@Suite struct ClusterNodes {
    @Test func everyNodeThatKafkaWroteIsReadAndWrittenAgainByteForByte() {
        #expect(comesBack(ClusterIDNode.self, Seen.clusterID))
        #expect(comesBack(BrokerNode.self, Seen.broker))
        #expect(comesBack(TopicNode.self, Seen.topic))
        #expect(comesBack(TopicNode.self, Seen.moving))
        #expect(comesBack(PartitionStateNode.self, Seen.state))
        #expect(comesBack(ControllerNode.self, Seen.controller))
        #expect(comesBack(FeatureNode.self, Seen.feature))
        #expect(comesBack(ProducerIDBlockNode.self, Seen.producerIDs))
        #expect(comesBack(ConfigNode.self, Seen.config))
        #expect(comesBack(ConfigNode.self, Seen.noConfig))
        #expect(comesBack(ConfigChangeNode.self, Seen.change))
        #expect(ControllerEpochNode.epoch(Array("17".utf8)) == 17)
        #expect(ControllerEpochNode.bytes(17) == Array("17".utf8))
    }

    @Test func whatTheNodesSayIsUnderstood() throws {
        let broker = try #require(BrokerNode(Array(Seen.broker.utf8)))
        #expect(broker.rack == "rack1")
        #expect(broker.endpoints.map(\.port) == [9911, 9931])
        #expect(broker.endpoints.map(\.listener) == ["PLAINTEXT", "REPL"])
        let topic = try #require(TopicNode(Array(Seen.moving.utf8)))
        #expect(topic.partitions == [.init(partition: 0, brokers: [2, 3, 1])])
        #expect(topic.adding == [.init(partition: 0, brokers: [3])])
        #expect(topic.id?.description == "kFPQyXg-QDyBl7uNCvoeoQ")
        #expect(try #require(ConfigChangeNode(Array(Seen.change.utf8))).target == .topic("events"))
    }

    @Test func aBrokerWithoutAPlaintextListenerHasNoHostOfItsOwn() {
        let node = BrokerNode(
            endpoints: [.init(listener: "TLS", securityProtocol: .ssl, host: "::1", port: 9093)], rack: nil, timestamp: 7)
        let text = String(decoding: node.bytes, as: UTF8.self)
        #expect(
            text
                == #"{"features":{},"listener_security_protocol_map":{"TLS":"SSL"},"endpoints":["TLS://[::1]:9093"],"jmx_port":-1,"port":-1,"host":null,"version":5,"timestamp":"7"}"#)
        #expect(BrokerNode(node.bytes) == node)
    }

    @Test func aTopicMadeBeforeTopicIDsIsRead() throws {
        let node = try #require(TopicNode(Array(#"{"version":1,"partitions":{"1":[1],"0":[2]}}"#.utf8)))
        #expect(node.id == nil)
        #expect(node.partitions.map(\.partition) == [0, 1])
    }

    @Test func aPartitionThatIsNamedTwiceInDisguiseIsRefused() {
        #expect(TopicNode(Array(#"{"version":3,"partitions":{"0":[1],"00":[2]}}"#.utf8)) == nil)
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func damagedNodesAreRefusedOrReadButNeverEndTheProcess(_ seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let texts = [Seen.broker, Seen.topic, Seen.moving, Seen.state, Seen.controller, Seen.producerIDs, Seen.config, Seen.change]
        var refused = 0
        for _ in 0..<4000 {
            var bytes = Array(texts[random.below(texts.count)].utf8)
            for _ in 0...random.below(3) where bytes.count > 1 {
                let place = random.below(bytes.count)
                switch random.below(4) {
                case 0: bytes[place] = UInt8(truncatingIfNeeded: random.next())
                case 1: bytes.remove(at: place)
                case 2: bytes.insert(Array("0123456789-{}[]\",:".utf8)[random.below(18)], at: place)
                default: bytes.removeLast(bytes.count - max(place, 1))
                }
            }
            // what is read comes back as it is: it can be written
            if let node = BrokerNode(bytes) { #expect(BrokerNode(node.bytes) == node) } else { refused += 1 }
            if let node = TopicNode(bytes) { #expect(TopicNode(node.bytes) == node) }
            if let node = PartitionStateNode(bytes) { #expect(PartitionStateNode(node.bytes) == node) }
            if let node = ControllerNode(bytes) { #expect(ControllerNode(node.bytes) == node) }
            if let node = ProducerIDBlockNode(bytes) { #expect(ProducerIDBlockNode(node.bytes) == node) }
            if let node = ConfigNode(bytes) { #expect(ConfigNode(node.bytes) == node) }
            if let node = ConfigChangeNode(bytes) { #expect(ConfigChangeNode(node.bytes) == node) }
        }
        #expect(refused > 1000)
    }
}
