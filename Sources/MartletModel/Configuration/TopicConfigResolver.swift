/// A setting of a topic as DescribeConfigs and CreateTopics tell it.
package struct ConfigEntry: Sendable, Hashable {
    package var name: String
    package var value: String?
    package var source: ConfigSource
    package var type: ConfigType
    package var isReadOnly: Bool
    package var isSensitive: Bool

    package init(
        name: String, value: String?, source: ConfigSource, type: ConfigType, isReadOnly: Bool, isSensitive: Bool
    ) {
        self.name = name
        self.value = value
        self.source = source
        self.type = type
        self.isReadOnly = isReadOnly
        self.isSensitive = isSensitive
    }
}

/// Puts together what counts for a topic: its own settings, else those of the broker, else the defaults.
package struct TopicConfigResolver: Sendable {
    package typealias Overrides = [(name: String, value: String)]

    /// What counts for a topic without settings of its own.
    package let defaults: TopicConfig
    private let inherited: [ConfigEntry]

    package init(_ settings: BrokerSettings) {
        var config = TopicConfig()
        var entries: [ConfigEntry] = []
        for definition in ConfigTable.shared.definitions(for: .topic) {
            let (value, source) = Self.inherited(definition, settings)
            config.set(definition.name, value)
            entries.append(ConfigEntry(
                name: definition.name, value: value.text, source: source, type: definition.type, isReadOnly: false,
                isSensitive: definition.isSecret))
        }
        defaults = config
        inherited = entries
    }

    /// Checks what someone asks to set on a topic. The answer has each setting once (the last counts), normalised,
    /// in order of name: what is stored. An error is INVALID_CONFIG, and its description the message.
    package func validated(_ asked: [(name: String, value: String?)]) throws(ConfigError) -> Overrides {
        var accepted: [String: ConfigValue] = [:]
        for (name, text) in asked {
            guard let definition = ConfigTable.shared.definition(name, for: .topic) else {
                throw ConfigTable.shared.unknownName(name, for: .topic, kind: "topic")
            }
            guard let text else {
                throw ConfigError(.invalidValue, name, "\(name) cannot be null: it must be \(definition.allowed)")
            }
            accepted[name] = try definition.parse(text)
        }
        let stored = accepted.sorted { $0.key < $1.key }
        if accepted["remote.storage.enable"] == .boolean(true) {
            throw ConfigError(
                .unsupported, "remote.storage.enable",
                "remote.storage.enable cannot be true: there is no tiered storage")
        }
        var config = defaults
        for (name, value) in stored { config.set(name, value) }
        guard config.minCompactionLagMs <= config.maxCompactionLagMs else {
            throw ConfigError(
                .contradiction, "min.compaction.lag.ms",
                "min.compaction.lag.ms is \(config.minCompactionLagMs), which cannot be above max.compaction.lag.ms, "
                    + "\(config.maxCompactionLagMs)")
        }
        return stored.map { (name: $0.key, value: $0.value.text) }
    }

    /// What counts for a topic with these stored settings. One that cannot be taken is passed over and told of: a
    /// topic made by another release must not keep its partitions from opening.
    package func resolve(_ overrides: Overrides) -> (config: TopicConfig, faults: [ConfigError]) {
        var config = defaults
        var faults: [ConfigError] = []
        for (name, text) in overrides {
            do throws(ConfigError) {
                config.set(name, try Self.parse(name, text))
            } catch {
                faults.append(error)
            }
        }
        return (config, faults)
    }

    /// Every setting of a topic, in order of name. Our own are told only where someone set them: tools that know
    /// Kafka's settings see Kafka's list.
    package func entries(_ overrides: Overrides) -> [ConfigEntry] {
        var entries = inherited
        for (name, text) in overrides {
            guard let value = try? Self.parse(name, text), let index = entries.firstIndex(where: { $0.name == name })
            else { continue }
            entries[index].value = value.text
            entries[index].source = .dynamicTopic
        }
        return entries.filter { $0.source != .defaultValue || !$0.name.hasPrefix("martlet.") }
    }

    /// Which of these settings have no effect in this release.
    package func inert(_ overrides: Overrides) -> [String] {
        overrides.map(\.name).filter { ConfigTable.shared.definition($0, for: .topic)?.acts == false }
    }

    private static func parse(_ name: String, _ text: String) throws(ConfigError) -> ConfigValue {
        guard let definition = ConfigTable.shared.definition(name, for: .topic) else {
            throw ConfigTable.shared.unknownName(name, for: .topic, kind: "topic")
        }
        return try definition.parse(text)
    }

    private static func inherited(
        _ definition: ConfigDefinition, _ settings: BrokerSettings
    ) -> (value: ConfigValue, source: ConfigSource) {
        let names = definition.scopes.contains(.broker) ? [definition.name] : definition.inherits
        for name in names {
            guard let value = settings.given(name) else { continue }
            return (converted(value, from: name), settings.layer(of: name))
        }
        guard let value = definition.parsedDefault else { preconditionFailure("each topic setting has a default") }
        return (value, .defaultValue)
    }

    /// The broker says some times in hours or minutes, and keeps for ever where one is negative.
    private static func converted(_ value: ConfigValue, from name: String) -> ConfigValue {
        guard let number = value.integer else { return value }
        let unit: Int64 = name.hasSuffix(".hours") ? 3_600_000 : name.hasSuffix(".minutes") ? 60_000 : 1
        let isRetention = name == "log.retention.ms" || name == "log.retention.minutes" || name == "log.retention.hours"
        if isRetention, number < 0 { return .integer(-1) }
        return .integer(number.multipliedReportingOverflow(by: unit).partialValue)
    }
}

extension TopicConfig {
    /// Takes over a value that its definition has let through. Settings without a field have no effect here.
    mutating func set(_ name: String, _ value: ConfigValue) {
        switch value {
        case .integer(let number): set(name, number)
        case .boolean(let flag): set(name, flag)
        case .string(let word): set(name, word)
        case .double(let ratio): if name == "min.cleanable.dirty.ratio" { minCleanableDirtyRatio = ratio }
        case .list(let words):
            guard name == "cleanup.policy" else { return }
            cleanupPolicy = []
            if words.contains("delete") { cleanupPolicy.insert(.delete) }
            if words.contains("compact") { cleanupPolicy.insert(.compact) }
        }
    }

    private mutating func set(_ name: String, _ number: Int64) {
        switch name {
        case "compression.gzip.level": gzipLevel = Int32(number)
        case "compression.lz4.level": lz4Level = Int32(number)
        case "compression.zstd.level": zstdLevel = Int32(number)
        case "delete.retention.ms": deleteRetentionMs = number
        case "file.delete.delay.ms": fileDeleteDelayMs = number
        case "flush.messages": flushMessages = number
        case "flush.ms": flushMs = number
        case "index.interval.bytes": indexIntervalBytes = Int32(number)
        case "max.message.bytes": maxMessageBytes = Int32(number)
        case "message.timestamp.after.max.ms": messageTimestampAfterMaxMs = number
        case "message.timestamp.before.max.ms": messageTimestampBeforeMaxMs = number
        case "min.compaction.lag.ms": minCompactionLagMs = number
        case "max.compaction.lag.ms": maxCompactionLagMs = number
        case "min.insync.replicas": minInsyncReplicas = Int32(number)
        case "retention.bytes": retentionBytes = number
        case "retention.ms": retentionMs = number
        case "segment.bytes": segmentBytes = Int32(number)
        case "segment.index.bytes": segmentIndexBytes = Int32(number)
        case "segment.jitter.ms": segmentJitterMs = number
        case "segment.ms": segmentMs = number
        default: break
        }
    }

    private mutating func set(_ name: String, _ flag: Bool) {
        switch name {
        case "preallocate": preallocate = flag
        case "unclean.leader.election.enable": uncleanLeaderElection = flag
        default: break
        }
    }

    private mutating func set(_ name: String, _ word: String) {
        switch name {
        case "compression.type": compression = StoredCompression(named: word)
        case "message.timestamp.type": messageTimestampType = word == "LogAppendTime" ? .logAppendTime : .createTime
        case "martlet.durability": durability = word == Durability.pageCache.rawValue ? .pageCache : .fsync
        default: break
        }
    }
}

extension StoredCompression {
    /// From one of the words that `compression.type` lets through.
    init(named word: String) {
        switch word {
        case "uncompressed": self = .codec(.none)
        case "gzip": self = .codec(.gzip)
        case "snappy": self = .codec(.snappy)
        case "lz4": self = .codec(.lz4)
        case "zstd": self = .codec(.zstd)
        default: self = .producer
        }
    }
}
