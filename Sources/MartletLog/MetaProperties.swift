import MartletBasics
package import MartletModel

/// `meta.properties` in a log directory: whose it is. Version 0 (ZooKeeper) has `broker.id` and `cluster.id`, version 1
/// (KRaft) `node.id`, `cluster.id` and `directory.id`. Keys that are not known here are kept.
package struct MetaProperties: Equatable, Sendable {
    package static let fileName = "meta.properties"

    package private(set) var properties: JavaProperties
    package let version: Int
    package let brokerID: BrokerID?
    package let clusterID: String?
    package let directoryID: UUID?

    /// As Kafka 3.9 on ZooKeeper writes it, so that it can open the directory too.
    package init(brokerID: BrokerID, clusterID: String, wallMilliseconds: Int64) {
        version = 0
        self.brokerID = brokerID
        self.clusterID = clusterID
        directoryID = nil
        properties = JavaProperties()
        properties.comments = ["#", "#" + javaDate(wallMilliseconds)]
        properties["broker.id"] = String(brokerID)
        properties["version"] = "0"
        properties["cluster.id"] = clusterID
    }

    package static func decode(_ bytes: [UInt8], path: String) throws(LogError) -> MetaProperties {
        try MetaProperties(try JavaProperties.decode(bytes, path: path), path: path)
    }

    private init(_ properties: JavaProperties, path: String) throws(LogError) {
        func bad(_ reason: String) -> LogError { .malformedFile(path: path, line: 1, reason: reason) }
        // Kafka takes a file without a version for one of version 0
        guard let version = Int(properties["version"] ?? "0"), version == 0 || version == 1 else {
            throw bad("version '\(properties["version"] ?? "")' is neither 0 nor 1")
        }
        let key = version == 0 ? "broker.id" : "node.id"
        if let text = properties[key] {
            guard let id = BrokerID(text), id >= 0 else { throw bad("\(key) '\(text)' is not an id") }
            brokerID = id
        } else {
            guard version == 0 else { throw bad("node.id is missing") }
            brokerID = nil
        }
        clusterID = properties["cluster.id"]
        if version == 1, clusterID == nil { throw bad("cluster.id is missing") }
        if let text = properties["directory.id"] {
            guard let id = UUID(text) else { throw bad("directory.id '\(text)' is not 22 characters of base64") }
            directoryID = id
        } else {
            directoryID = nil
        }
        self.version = version
        self.properties = properties
    }

    package func encode() -> [UInt8] { properties.encode() }
}

/// `Sat Nov 21 08:54:22 UTC 2026`, as Java heads its properties files.
func javaDate(_ milliseconds: Int64) -> String {
    let seconds = milliseconds >= 0 ? milliseconds / 1000 : (milliseconds - 999) / 1000
    let second = ((seconds % 86_400) + 86_400) % 86_400
    let days = (seconds - second) / 86_400
    let (year, month, day) = WallTime.date(days)
    func two(_ n: Int64) -> String { n < 10 ? "0\(n)" : "\(n)" }
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][Int(((days % 7) + 7) % 7)]
    let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][Int(month - 1)]
    return
        "\(weekday) \(name) \(two(day)) \(two(second / 3600)):\(two(second / 60 % 60)):\(two(second % 60)) UTC \(year)"
}
