/// What a setting can be set on.
package struct ConfigScopes: OptionSet, Sendable, Hashable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let broker = ConfigScopes(rawValue: 1)
    package static let topic = ConfigScopes(rawValue: 2)
    package static let group = ConfigScopes(rawValue: 4)
    package static let clientMetrics = ConfigScopes(rawValue: 8)
}

/// The types of values, by the numbers that DescribeConfigs tells.
package enum ConfigType: Int8, Sendable, CaseIterable {
    case boolean = 1, string, int, short, long, double, list, `class`, password

    /// As the table and the reference call it.
    package var name: String {
        switch self {
        case .boolean: "bool"
        case .string: "string"
        case .int: "int"
        case .short: "short"
        case .long: "long"
        case .double: "double"
        case .list: "list"
        case .class: "class"
        case .password: "password"
        }
    }

    /// Which whole numbers the type can hold; nil where it holds none.
    package var integers: ClosedRange<Int64>? {
        switch self {
        case .short: Int64(Int16.min)...Int64(Int16.max)
        case .int: Int64(Int32.min)...Int64(Int32.max)
        case .long: Int64.min...Int64.max
        default: nil
        }
    }
}

package struct ConfigFlags: OptionSet, Sendable, Hashable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Alterable at run time, for one broker or for all.
    package static let dynamic = ConfigFlags(rawValue: 1)
    /// Alterable at run time, for one broker only.
    package static let perBroker = ConfigFlags(rawValue: 2)
    /// Alterable at run time, for one listener of one broker.
    package static let perListener = ConfigFlags(rawValue: 4)
    /// The value is never told.
    package static let secret = ConfigFlags(rawValue: 8)
    /// Means nothing without KRaft.
    package static let kraft = ConfigFlags(rawValue: 16)
    /// Kafka 4 no longer has it; files of older releases do.
    package static let old = ConfigFlags(rawValue: 32)
    /// Kafka has it and does not tell of it.
    package static let `internal` = ConfigFlags(rawValue: 64)
    /// This release of Martlet acts upon it.
    package static let acts = ConfigFlags(rawValue: 128)
}

/// What a value of the right type must also be.
package enum ConfigConstraint: Sendable, Hashable {
    case none
    /// Inside one of these ranges.
    case integers([ClosedRange<Int64>])
    case doubles(ClosedRange<Double>)
    /// One of these words, each element where the value is a list.
    case words([String])
    /// `*`, or a list of `partition:broker`.
    case throttledReplicas
    /// A list of `host:count`.
    case hostCounts
    /// A level, or a list of levels and `subsystem:level`.
    case logLevels
}

/// Where a value comes from, by the numbers that DescribeConfigs and CreateTopics tell.
package enum ConfigSource: Int8, Sendable {
    case dynamicTopic = 1, dynamicBroker, dynamicDefaultBroker, staticBroker, defaultValue, dynamicLogger, clientMetrics, group
}

/// One setting: one line of `ConfigTable`.
package struct ConfigDefinition: Sendable {
    package let name: String
    package let scopes: ConfigScopes
    package let type: ConfigType
    /// In Kafka's text form; nil where Kafka has none.
    package let defaultValue: String?
    package fileprivate(set) var flags: ConfigFlags
    package let constraint: ConfigConstraint
    /// The settings of the broker that count, in this order, where a topic or group has no value of its own.
    package let inherits: [String]

    package var acts: Bool { flags.contains(.acts) }
    package var isSecret: Bool { flags.contains(.secret) }
    /// Ours rather than Kafka's.
    package var isOurs: Bool { name.hasPrefix("martlet.") }

    /// Whether a broker's value can only be changed by a restart.
    package var isReadOnly: Bool {
        scopes.contains(.broker) && flags.isDisjoint(with: [.dynamic, .perBroker, .perListener])
    }

    package init(
        _ name: String, scopes: ConfigScopes, type: ConfigType, defaultValue: String?, flags: ConfigFlags,
        constraint: ConfigConstraint, inherits: [String]
    ) {
        self.name = name
        self.scopes = scopes
        self.type = type
        self.defaultValue = defaultValue
        self.flags = flags
        self.constraint = constraint
        self.inherits = inherits
    }

    mutating func markActing() { flags.insert(.acts) }
}

/// Why settings cannot be taken: one sentence or two that name the setting, what is wrong, and what would be right.
package struct ConfigError: Error, Equatable, Sendable, CustomStringConvertible {
    package enum Reason: Sendable, Equatable {
        /// No such setting, or none of that scope.
        case unknownName
        /// The value cannot be read as the type, or is not allowed.
        case invalidValue
        /// Values that are good alone contradict each other.
        case contradiction
        /// This release cannot do what the setting asks, and ignoring it would do harm.
        case unsupported
        /// The file is not in the properties format.
        case malformedFile
    }

    package var reason: Reason
    /// The setting; empty where the fault is the file's.
    package var setting: String
    package var description: String

    package init(_ reason: Reason, _ setting: String, _ description: String) {
        self.reason = reason
        self.setting = setting
        self.description = description
    }
}
