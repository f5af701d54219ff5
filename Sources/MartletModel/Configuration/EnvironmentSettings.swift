/// The settings that the environment gives, as the container images of Kafka read it.
///
/// `KAFKA_NUM_PARTITIONS=3` is `num.partitions=3`, `MARTLET_SYNC_DELAY_MS=0` is `martlet.sync.delay.ms=0`. Behind the
/// prefix one underscore is a dot, two are an underscore, three a dash, and capitals are small letters; `KAFKA_CFG_` is
/// read as `KAFKA_`. Only a broker that is told to looks there: outside of a container, `KAFKA_HOME`, `KAFKA_BROKERS`
/// and the like belong to other programs.
package struct EnvironmentSettings: Sendable, Equatable {
    package struct Setting: Sendable, Hashable {
        package var variable: String
        package var name: String
        package var value: String
    }

    /// In the order of the variables' names, for the environment itself has none.
    package let settings: [Setting]
    /// A sentence for each variable that images of Kafka know and that means nothing here.
    package let warnings: [String]

    package static let maximumSettings = PropertiesParser.maximumProperties

    /// Reads entries of the form `NAME=value`; those that are not for a broker are left alone.
    package init(_ entries: [[UInt8]]) throws(ConfigError) {
        var settings: [Setting] = []
        var warnings: [String] = []
        var places: [String: Int] = [:]
        for (variable, bytes) in Self.sorted(entries) {
            guard let name = Self.settingName(of: variable) else { continue }
            guard let value = String(validating: bytes, as: UTF8.self) else {
                throw ConfigError(
                    .invalidValue, name, "the environment's \(variable) is no UTF-8: give it as UTF-8, or unset it")
            }
            if Self.isServiceLink(variable, value) { continue }
            if let sentence = Self.meaningless(variable, name, value) {
                if !sentence.isEmpty { warnings.append("\(variable) has no effect: \(sentence)") }
                continue
            }
            if let other = places[name].map({ settings[$0] }), other.value != value {
                throw ConfigError(
                    .contradiction, name,
                    "the environment's \(other.variable) and \(variable) both stand for \(name), with different values: "
                        + "unset one of them")
            }
            guard settings.count < Self.maximumSettings else {
                throw ConfigError(.malformedFile, "", "the environment has more than \(Self.maximumSettings) settings")
            }
            places[name] = settings.count
            settings.append(Setting(variable: variable, name: name, value: value))
        }
        self.settings = settings
        self.warnings = warnings
    }

    private static func sorted(_ entries: [[UInt8]]) -> [(variable: String, value: ArraySlice<UInt8>)] {
        var found: [(variable: String, value: ArraySlice<UInt8>)] = []
        for entry in entries {
            guard let sign = entry.firstIndex(of: UInt8(ascii: "=")),
                let variable = String(validating: entry[..<sign], as: UTF8.self)
            else { continue }
            found.append((variable, entry[(sign + 1)...]))
        }
        return found.sorted { $0.variable < $1.variable }
    }

    /// The setting that a variable stands for; nil for a variable of somebody else.
    private static func settingName(of variable: String) -> String? {
        if variable == clusterID { return variable }
        if variable.hasPrefix("KAFKA_CFG_") { return spelt(variable.dropFirst("KAFKA_CFG_".count)) }
        if variable.hasPrefix("KAFKA_") { return spelt(variable.dropFirst("KAFKA_".count)) }
        if variable.hasPrefix("MARTLET_") { return spelt(variable[...]) }
        return nil
    }

    /// With its underscores read and in small letters, but for a name that Kafka writes otherwise.
    private static func spelt(_ text: Substring) -> String {
        var name = ""
        var underscores = 0
        func read() -> String {
            String(repeating: "-", count: underscores / 3) + ["", ".", "_"][underscores % 3]
        }
        for character in text {
            if character == "_" {
                underscores += 1
                continue
            }
            name += read() + character.lowercased()
            underscores = 0
        }
        name += read()
        guard ConfigTable.shared[name] == nil else { return name }
        return ConfigTable.shared.definitions.first { $0.name.lowercased() == name }?.name ?? name
    }
}

/// What is not a setting.
extension EnvironmentSettings {
    private static let clusterID = "CLUSTER_ID"

    /// Why a variable that images of Kafka know does nothing here: empty where nobody expects it to, nil for a setting.
    private static func meaningless(_ variable: String, _ name: String, _ value: String) -> String? {
        switch variable {
        case "KAFKA_HEAP_OPTS", "KAFKA_OPTS", "KAFKA_JVM_PERFORMANCE_OPTS", "KAFKA_GC_LOG_OPTS", "KAFKA_JMX_OPTS",
            "KAFKA_JMX_HOSTNAME", "KAFKA_JMX_PORT":
            return "it is for a Java virtual machine, and there is none"
        case "KAFKA_LOG4J_OPTS", "KAFKA_LOG4J_ROOT_LOGLEVEL", "KAFKA_LOG4J_LOGGERS", "KAFKA_TOOLS_LOG4J_LOGLEVEL":
            return "MARTLET_LOG_LEVEL says what is logged"
        case clusterID, "KAFKA_CLUSTER_ID", "KAFKA_KRAFT_CLUSTER_ID":
            return value.isEmpty ? "" : "the cluster gets its identifier at its first start, and keeps it with its data"
        case "KAFKA_VERSION", "KAFKA_HOME", "KAFKA_ENABLE_KRAFT":
            return ""
        default:
            let isOfAnotherProduct = name.hasPrefix("confluent.") && ConfigTable.shared[name] == nil
            return isOfAnotherProduct ? "it is for Confluent's own server" : nil
        }
    }

    /// A Kubernetes service called `kafka` or `martlet` puts its addresses into every container's environment:
    /// `KAFKA_SERVICE_HOST`, `KAFKA_PORT=tcp://…`, `KAFKA_PORT_9092_TCP_ADDR`.
    private static func isServiceLink(_ variable: String, _ value: String) -> Bool {
        let protocols = ["tcp", "udp", "sctp"]
        if variable.hasSuffix("_PORT"), protocols.contains(where: { value.hasPrefix("\($0)://") }) { return true }
        let words = variable.split(separator: "_", omittingEmptySubsequences: false)
        return words.indices.dropFirst().contains { index in
            let (before, word) = (words[index - 1], words[index])
            if before == "SERVICE", word == "HOST" || word == "PORT" { return true }
            guard before == "PORT", UInt16(word) != nil, index + 1 < words.count else { return false }
            return protocols.contains(words[index + 1].lowercased())
        }
    }
}

/// Where a container listens, if nothing says so: its loopback reaches nobody.
extension EnvironmentSettings {
    /// What is missing in a file, in the environment and in what the command line sets: with `advertised.listeners`
    /// alone, those are listened for on every interface; with neither, port 9092 is, and told as this machine's.
    package func listeners(file: [Property], overrides: [(name: String, value: String)]) -> [Setting] {
        func last(_ name: String) -> String? {
            overrides.last { $0.name == name }?.value ?? settings.last { $0.name == name }?.value
                ?? file.last { $0.name == name }?.value
        }
        guard last("listeners") == nil else { return [] }
        let source = "a container's listeners"
        guard let advertised = last("advertised.listeners"), !javaTrimmed(advertised).isEmpty else {
            return [
                Setting(variable: source, name: "listeners", value: "PLAINTEXT://:9092"),
                Setting(variable: source, name: "advertised.listeners", value: "PLAINTEXT://localhost:9092"),
            ]
        }
        var found: [String] = []
        for element in commaSeparated(advertised[...]) {
            // what cannot be read is refused where the setting itself is
            guard case .success(let parts) = Result(catching: { () throws(ConfigError) in try Listener.parts(of: element, "") })
            else { return [] }
            found.append("\(parts.name)://:\(parts.port)")
        }
        return [Setting(variable: source, name: "listeners", value: found.joined(separator: ","))]
    }
}
