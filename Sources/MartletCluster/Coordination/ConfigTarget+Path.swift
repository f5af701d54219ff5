package import MartletModel

/// Where settings are kept in the tree. Names of groups and subscriptions are free, and stand there percent-encoded,
/// as Kafka has those of users and clients.
extension ConfigTarget {
    private static let everyBroker = "<default>"

    package var path: String {
        switch self {
        case .topic(let name): ClusterPath.topicConfig(name)
        case .broker(let id): "/config/brokers/\(id)"
        case .brokers: "/config/brokers/\(Self.everyBroker)"
        case .group(let name): ClusterPath.groupConfigs + "/" + NodeName.encoded(name)
        case .clientMetrics(let name): ClusterPath.clientMetricsConfigs + "/" + NodeName.encoded(name)
        }
    }

    /// What a notification of a change says; nil where brokers keep nothing of it and read the tree when they are asked.
    package var entityPath: String? {
        switch self {
        case .topic, .broker, .brokers, .group: String(path.dropFirst("/config/".count))
        case .clientMetrics: nil
        }
    }

    package init?(entityPath: String) {
        let parts = entityPath.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2 else { return nil }
        switch parts[0] {
        case "topics": self = .topic(String(parts[1]))
        case "brokers" where parts[1] == Self.everyBroker: self = .brokers
        case "brokers":
            guard let id = BrokerID(parts[1]) else { return nil }
            self = .broker(id)
        case "groups":
            guard let name = NodeName.decoded(String(parts[1])) else { return nil }
            self = .group(name)
        default: return nil
        }
    }
}

/// Names that anybody may choose, as names of nodes.
package enum NodeName {
    package static func encoded(_ name: String) -> String {
        var bytes: [UInt8] = []
        // a node cannot be called . or ..
        let isDots = name == "." || name == ".."
        for byte in name.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "-"), UInt8(ascii: "_"):
                bytes.append(byte)
            case UInt8(ascii: ".") where !isDots: bytes.append(byte)
            default:
                let digits = Array("0123456789ABCDEF".utf8)
                bytes += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Nil for what `encoded` does not give.
    package static func decoded(_ text: String) -> String? {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else {
                return nil
            }
            rest.removeFirst(2)
            bytes.append(value)
        }
        return String(validating: bytes, as: UTF8.self)
    }
}
