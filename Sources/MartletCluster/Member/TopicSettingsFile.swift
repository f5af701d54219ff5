package import MartletModel

/// Settings of topics for log directories that are taken over: they do not say what was set for a topic.
///
///     # a comment
///     events retention.ms=-1
///     events segment.bytes=8192
///     orders cleanup.policy=compact,delete
///
/// A line names a topic, then, behind blanks, one setting: what follows the first equals sign is its value.
package struct TopicSettingsFile: Sendable, Equatable {
    package static let maximumBytes = 16 << 20

    package let path: String
    private let settings: [String: [ConfigNode.Setting]]

    package init(parsing bytes: [UInt8], path: String, topics: TopicConfigResolver) throws(ClusterError) {
        func fault(_ line: Int, _ reason: String) -> ClusterError { .topicSettings(path: path, line: line, reason: reason) }
        guard bytes.count <= Self.maximumBytes else {
            throw fault(1, "the file has \(bytes.count) bytes, and at most \(Self.maximumBytes) are read")
        }
        var asked: [String: [(name: String, value: String?)]] = [:]
        var lastLine: [String: Int] = [:]
        let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        for (index, raw) in lines.enumerated() {
            let number = index + 1
            guard let text = String(validating: raw, as: UTF8.self) else { throw fault(number, "it is not UTF-8") }
            let line = Self.trimmed(text[...])
            if line.isEmpty || line.hasPrefix("#") { continue }
            guard let blank = line.firstIndex(where: Self.isBlank) else {
                throw fault(number, "'\(line.prefix(80))' is not 'topic name=value'")
            }
            let (topic, rest) = (String(line[..<blank]), Self.trimmed(line[blank...]))
            guard let equals = rest.firstIndex(of: "="), equals != rest.startIndex else {
                throw fault(number, "'\(rest.prefix(80))' is not 'name=value'")
            }
            if let reason = TopicName.fault(topic) { throw fault(number, reason) }
            let name = String(Self.trimmed(rest[..<equals]))
            let value = String(Self.trimmed(rest[rest.index(after: equals)...]))
            if asked[topic]?.contains(where: { $0.name == name }) == true {
                throw fault(number, "\(name) of \(topic) is set a second time")
            }
            do throws(ConfigError) { _ = try topics.validated([(name, value)]) } catch { throw fault(number, "\(error)") }
            asked[topic, default: []].append((name, value))
            lastLine[topic] = number
        }
        var settings: [String: [ConfigNode.Setting]] = [:]
        for topic in asked.keys.sorted() {
            // each is right alone; together they may contradict each other
            do throws(ConfigError) {
                settings[topic] = try topics.validated(asked[topic]!).map { ConfigNode.Setting($0.name, $0.value) }
            } catch { throw fault(lastLine[topic]!, "\(topic): \(error)") }
        }
        self.path = path
        self.settings = settings
    }

    /// What the file says of a topic, by name.
    package func settings(of topic: String) -> [ConfigNode.Setting] { settings[topic] ?? [] }

    /// In order.
    package var topics: [String] { settings.keys.sorted() }

    private static func isBlank(_ character: Character) -> Bool { character == " " || character == "\t" || character == "\r" }

    private static func trimmed(_ text: Substring) -> Substring {
        var text = text.drop(while: isBlank)
        while let last = text.last, isBlank(last) { text.removeLast() }
        return text
    }
}
