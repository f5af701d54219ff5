/// One wish in a request to alter settings.
package struct ConfigEdit: Sendable, Equatable {
    package enum Operation: Int8, Sendable {
        case set, delete, append, subtract
    }

    package var name: String
    /// Nil for a number that means nothing.
    package var operation: Operation?
    package var value: String?

    package init(_ name: String, _ operation: Operation?, _ value: String?) {
        self.name = name
        self.operation = operation
        self.value = value
    }
}

/// Why settings were not altered.
package struct ConfigFault: Error, Sendable, Equatable {
    package var error: ErrorCode
    package var message: String

    package init(_ error: ErrorCode, _ message: String) {
        self.error = error
        self.message = message
    }
}

/// What settings are altered of.
package enum ConfigTarget: Sendable, Hashable {
    case topic(String)
    /// Of one broker.
    case broker(BrokerID)
    /// Of every broker that has none of its own.
    case brokers
    case group(String)
    case clientMetrics(String)

    package var scope: ConfigScopes {
        switch self {
        case .topic: .topic
        case .broker, .brokers: .broker
        case .group: .group
        case .clientMetrics: .clientMetrics
        }
    }
}

/// From what is set and what is wished, what is to be set: all of it, or the reason why nothing changes. Pure.
package struct ConfigAlteration: Sendable {
    package typealias Stored = TopicConfigResolver.Overrides

    private let config: BrokerConfig
    private let target: ConfigTarget

    /// `config` is what counts on this broker now.
    package init(of target: ConfigTarget, _ config: BrokerConfig) {
        self.config = config
        self.target = target
    }

    /// IncrementalAlterConfigs: what is not named stays.
    package func changing(_ stored: Stored, _ changes: [ConfigEdit]) -> Result<Stored, ConfigFault> {
        if let fault = faultOfShape(changes) { return .failure(fault) }
        var wanted = Dictionary(stored.map { ($0.name, $0.value) }, uniquingKeysWith: { $1 })
        var changed: Set<String> = []
        for change in changes {
            switch change.operation! {
            case .set:
                wanted[change.name] = change.value!
                changed.insert(change.name)
            case .delete: wanted[change.name] = nil
            case .append, .subtract:
                switch combined(change, wanted[change.name]) {
                case .failure(let fault): return .failure(fault)
                case .success(let text): wanted[change.name] = text
                }
                changed.insert(change.name)
            }
        }
        return judge(wanted, changed)
    }

    /// AlterConfigs: what is not named goes.
    package func replacing(_ stored: Stored, by settings: [ConfigEdit]) -> Result<Stored, ConfigFault> {
        if let fault = faultOfShape(settings) { return .failure(fault) }
        let wanted = Dictionary(settings.map { ($0.name, $0.value!) }, uniquingKeysWith: { $1 })
        return judge(wanted, Set(wanted.keys))
    }

    // MARK: The request

    private func faultOfShape(_ changes: [ConfigEdit]) -> ConfigFault? {
        var names: Set<String> = []
        for change in changes {
            guard names.insert(change.name).inserted else {
                return ConfigFault(.invalidRequest, "\(shown(change.name)) is named twice for one resource: name it once.")
            }
            guard let operation = change.operation else {
                return ConfigFault(.invalidRequest, "\(shown(change.name)) comes with an operation that does not exist.")
            }
            guard operation == .delete || change.value != nil else {
                return ConfigFault(.invalidRequest, "\(shown(change.name)) cannot be null: give a value, or delete it.")
            }
        }
        return nil
    }

    private func shown(_ name: String) -> String { String(name.prefix(ConfigTable.shownLength)) }

    /// A list with more, or fewer, elements than it has, or inherits, now.
    private func combined(_ change: ConfigEdit, _ present: String?) -> Result<String, ConfigFault> {
        guard let definition = ConfigTable.shared.definition(change.name, for: target.scope) else {
            return .failure(fault(ConfigTable.shared.unknownName(change.name, for: target.scope, kind: kind)))
        }
        guard definition.type == .list else {
            return .failure(
                fault(
                    ConfigError(
                        .invalidValue, change.name,
                        "\(change.name) is no list: nothing can be appended to it or subtracted from it")))
        }
        var elements = present.map { commaSeparated($0[...]) } ?? inherited(definition)?.list ?? []
        let named = commaSeparated(change.value![...])
        if change.operation == .append {
            for element in named where !elements.contains(element) { elements.append(element) }
        } else {
            elements.removeAll(where: named.contains)
        }
        return .success(elements.joined(separator: ","))
    }

    private func inherited(_ definition: ConfigDefinition) -> ConfigValue? {
        switch target {
        case .topic:
            config.topics.entries([]).first { $0.name == definition.name }?.value.flatMap { try? definition.parse($0) }
        case .broker, .brokers: config.settings.value(definition.name)
        case .group, .clientMetrics: definition.parsedDefault
        }
    }

    // MARK: The values

    private var kind: String {
        switch target {
        case .topic: "topic"
        case .broker, .brokers: "broker"
        case .group: "group"
        case .clientMetrics: "client metrics"
        }
    }

    /// What is wrong with a value is told by one code for topics and groups, and by another for brokers.
    private func fault(_ error: ConfigError) -> ConfigFault {
        switch target {
        case .topic, .group: ConfigFault(.invalidConfig, "\(error)")
        case .broker, .brokers: ConfigFault(.invalidRequest, "\(error)")
        case .clientMetrics: ConfigFault(error.reason == .unknownName ? .invalidRequest : .invalidConfig, "\(error)")
        }
    }

    /// `changed` are the names that were given a value; the others were there before and are not judged alone:
    /// another release may have set what this one does not know.
    private func judge(_ wanted: [String: String], _ changed: Set<String>) -> Result<Stored, ConfigFault> {
        var values: [String: ConfigValue] = [:]
        var texts: [String: String] = [:]
        do throws(ConfigError) {
            for (name, text) in wanted.sorted(by: { $0.key < $1.key }) {
                if changed.contains(name) {
                    let definition = try alterable(name)
                    if let fault = range(definition, text) { return .failure(fault) }
                    values[name] = try definition.parse(text)
                } else if let known = ConfigTable.shared.definition(name, for: target.scope), let value = try? known.parse(text)
                {
                    values[name] = value
                }
                texts[name] = values[name]?.text ?? text
            }
            try judgeTogether(values)
        } catch {
            return .failure(fault(error))
        }
        return .success(texts.sorted { $0.key < $1.key }.map { (name: $0.key, value: $0.value) })
    }

    /// A setting that may be set on the target at run time.
    private func alterable(_ name: String) throws(ConfigError) -> ConfigDefinition {
        guard let definition = ConfigTable.shared.definition(name, for: target.scope) else {
            throw ConfigTable.shared.unknownName(name, for: target.scope, kind: kind)
        }
        guard target.scope == .broker else { return definition }
        guard !definition.isReadOnly else {
            throw ConfigError(
                .unsupported, name,
                "\(name) cannot be altered while the broker runs: change it in the broker's file and restart")
        }
        guard target != .brokers || definition.flags.contains(.dynamic) else {
            throw ConfigError(.unsupported, name, "\(name) can be altered for one broker at a time only: name the broker")
        }
        guard !definition.isSecret else {
            throw ConfigError(
                .unsupported, name,
                "\(name) is a secret, has no effect in this release, and is not stored: keep it out of the cluster")
        }
        return definition
    }

    /// Subscriptions answer a number outside of its bounds by a code of its own.
    private func range(_ definition: ConfigDefinition, _ text: String) -> ConfigFault? {
        guard case .clientMetrics = target, case .integers(let ranges) = definition.constraint,
            let number = Int64(javaTrimmed(text)), definition.type.integers?.contains(number) == true,
            !ranges.contains(where: { $0.contains(number) })
        else { return nil }
        return ConfigFault(.invalidRequest, "\(definition.name) cannot be \(number): it must be \(definition.allowed)")
    }

    private func judgeTogether(_ values: [String: ConfigValue]) throws(ConfigError) {
        switch target {
        case .topic: _ = try config.topics.validated(values.sorted { $0.key < $1.key }.map { ($0.key, $0.value.text) })
        case .broker: _ = try config.altered(clusterWide: config.settings.values(in: .dynamicDefaultBroker), own: values)
        case .brokers: _ = try config.altered(clusterWide: values, own: config.settings.values(in: .dynamicBroker))
        case .group: try GroupBounds(config.settings).check(values)
        case .clientMetrics: try ClientMatches.check(values["match"]?.list ?? [])
        }
    }
}

/// Between which of the broker's settings those of a group must lie.
private struct GroupBounds {
    let settings: BrokerSettings

    init(_ settings: BrokerSettings) { self.settings = settings }

    func check(_ values: [String: ConfigValue]) throws(ConfigError) {
        for (name, value) in values.sorted(by: { $0.key < $1.key }) {
            if name == "share.auto.offset.reset", let word = value.string { try checkReset(name, word) }
            guard let number = value.integer, let dot = name.firstIndex(of: ".") else { continue }
            let (type, rest) = (name[..<dot], name[name.index(after: dot)...])
            try check(name, number, "group.\(type).min.\(rest)") { number >= $0 }
            try check(name, number, "group.\(type).max.\(rest)") { number <= $0 }
            if name == "streams.num.standby.replicas" {
                try check(name, number, "group.streams.max.standby.replicas") { number <= $0 }
            }
        }
        for type in ["consumer", "share", "streams"] {
            guard let heartbeat = number("\(type).heartbeat.interval.ms", values),
                let session = number("\(type).session.timeout.ms", values), heartbeat >= session
            else { continue }
            throw ConfigError(
                .contradiction, "\(type).session.timeout.ms",
                "\(type).session.timeout.ms is \(session): it must be above \(type).heartbeat.interval.ms, \(heartbeat)")
        }
    }

    private func number(_ name: String, _ values: [String: ConfigValue]) -> Int64? {
        values[name]?.integer ?? settings.value("group.\(name)")?.integer
    }

    private func check(_ name: String, _ number: Int64, _ bound: String, _ holds: (Int64) -> Bool) throws(ConfigError) {
        guard ConfigTable.shared[bound] != nil, let limit = settings.value(bound)?.integer, !holds(limit) else { return }
        throw ConfigError(.invalidValue, name, "\(name) cannot be \(number): the broker's \(bound) is \(limit)")
    }

    /// `earliest`, `latest`, or `by_duration:` and a time as ISO 8601 has it, not below zero.
    private func checkReset(_ name: String, _ word: String) throws(ConfigError) {
        if word == "earliest" || word == "latest" { return }
        let prefix = "by_duration:"
        if word.hasPrefix(prefix), isDuration(Array(word.utf8.dropFirst(prefix.utf8.count))) { return }
        throw ConfigError(
            .invalidValue, name,
            "\(name) cannot be '\(word.prefix(ConfigTable.shownLength))': it must be earliest, latest, or by_duration:P1DT2H3M"
        )
    }

    private func isDuration(_ text: [UInt8]) -> Bool {
        var rest = text.map { $0 >= UInt8(ascii: "a") && $0 <= UInt8(ascii: "z") ? $0 - 32 : $0 }[...]
        guard rest.popFirst() == UInt8(ascii: "P"), !rest.isEmpty else { return false }
        var units = Array("D".utf8)[...], isTime = false, found = 0
        while let first = rest.first {
            if first == UInt8(ascii: "T"), !isTime {
                rest.removeFirst()
                (units, isTime, found) = (Array("HMS".utf8)[...], true, 0)
                continue
            }
            let digits = rest.prefix { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
            rest = rest[digits.endIndex...]
            var hasFraction = false
            if isTime, rest.first == UInt8(ascii: ".") {
                let fraction = rest.dropFirst().prefix { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
                rest = rest[fraction.endIndex...]
                hasFraction = true
            }
            guard !digits.isEmpty, let unit = rest.popFirst(), let place = units.firstIndex(of: unit),
                !hasFraction || unit == UInt8(ascii: "S")
            else { return false }
            units = units[(place + 1)...]
            found += 1
        }
        return found > 0
    }
}

/// Which clients a subscription to metrics is for.
private enum ClientMatches {
    private static let keys = [
        "client_instance_id", "client_id", "client_software_name", "client_software_version", "client_source_address",
        "client_source_port",
    ]

    static func check(_ matches: [String]) throws(ConfigError) {
        for match in matches {
            let parts = match.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, keys.contains(String(javaTrimmed(parts[0]))), !javaTrimmed(parts[1]).isEmpty else {
                throw ConfigError(
                    .invalidValue, "match",
                    "match cannot have '\(match.prefix(ConfigTable.shownLength))': it must be pairs key=pattern, where the "
                        + "key is one of \(keys.joined(separator: ", "))")
            }
        }
    }
}
