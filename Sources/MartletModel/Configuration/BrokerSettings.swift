/// The settings that a user gave a broker, checked one by one; the others have their defaults.
package struct BrokerSettings: Sendable {
    private var given: [String: ConfigValue] = [:]
    /// What was altered at run time for all brokers of the cluster, and for this one. Counts before what the user gave.
    private var clusterWide: [String: ConfigValue] = [:]
    private var own: [String: ConfigValue] = [:]
    /// A sentence for each setting given that has no effect, in the order in which they were given.
    package private(set) var warnings: [String] = []
    /// How many settings were given that have no effect.
    package private(set) var inertCount = 0
    /// What is set for single listeners, by the setting and the listener's name in small letters.
    private var listenerLimits: [ListenerSetting: Int32] = [:]

    /// What `--set` gives counts before what the environment gives, and that before what the file gives. Without an
    /// environment none is read.
    package init(
        file: [Property] = [], environment: EnvironmentSettings? = nil,
        overrides: [(name: String, value: String)] = []
    ) throws(ConfigError) {
        for property in file {
            do {
                try take(property.name, property.value)
            } catch {
                throw ConfigError(error.reason, error.setting, "line \(property.line): \(error.description)")
            }
        }
        var surroundings = environment?.settings ?? []
        surroundings += environment?.listeners(file: file, overrides: overrides) ?? []
        for setting in surroundings {
            do {
                try take(setting.name, setting.value)
            } catch {
                throw ConfigError(error.reason, error.setting, "\(setting.variable): \(error.description)")
            }
        }
        for (name, value) in overrides {
            do {
                try take(name, value)
            } catch {
                throw ConfigError(error.reason, error.setting, "--set: \(error.description)")
            }
        }
        warnings = environment?.warnings ?? []
        var warned: Set<String> = []
        for name in file.map(\.name) + surroundings.map(\.name) + overrides.map(\.name) where warned.insert(name).inserted {
            warnIfInert(name)
        }
    }

    /// What was altered at run time, for this broker or for all, or else what the user gave, if anything.
    package func given(_ name: String) -> ConfigValue? { own[name] ?? clusterWide[name] ?? given[name] }

    /// What counts: what was altered or given, or else the default; nil where there is neither.
    package func value(_ name: String) -> ConfigValue? {
        if let value = given(name) { return value }
        guard let definition = ConfigTable.shared[name] else { preconditionFailure("\(name) is no setting") }
        return definition.parsedDefault
    }

    /// The same file with other alterations on top.
    package func altered(clusterWide: [String: ConfigValue], own: [String: ConfigValue]) -> BrokerSettings {
        var altered = self
        altered.clusterWide = clusterWide
        altered.own = own
        return altered
    }

    /// What one layer says.
    package func value(_ name: String, in layer: ConfigSource) -> ConfigValue? {
        switch layer {
        case .dynamicBroker: own[name]
        case .dynamicDefaultBroker: clusterWide[name]
        case .staticBroker: given[name]
        case .defaultValue: ConfigTable.shared[name]?.parsedDefault
        default: nil
        }
    }

    /// The layer that counts.
    package func layer(of name: String) -> ConfigSource {
        Self.layers.first { value(name, in: $0) != nil } ?? .defaultValue
    }

    /// From the one that counts before all others.
    static let layers: [ConfigSource] = [.dynamicBroker, .dynamicDefaultBroker, .staticBroker, .defaultValue]

    /// All that one of the layers of alterations says.
    package func values(in layer: ConfigSource) -> [String: ConfigValue] {
        switch layer {
        case .dynamicBroker: own
        case .dynamicDefaultBroker: clusterWide
        default: preconditionFailure("only alterations are a layer as a whole")
        }
    }

    /// What was altered for all brokers, by name.
    package var alteredClusterWide: [(name: String, value: ConfigValue)] {
        clusterWide.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    package mutating func warn(_ sentence: String) { warnings.append(sentence) }

    private mutating func take(_ name: String, _ text: String) throws(ConfigError) {
        if let definition = ConfigTable.shared.definition(name, for: .broker) {
            given[name] = try definition.parse(text)
        } else if let one = ListenerSetting(name) {
            listenerLimits[one] = Int32(try ConfigTable.shared[one.setting]!.parse(text).integer!)
        } else if !Self.belongsToPlugin(name) {
            throw ConfigTable.shared.unknownName(name, for: .broker, kind: "broker")
        }
    }

    private mutating func warnIfInert(_ name: String) {
        let definition = ConfigTable.shared[name]
        guard definition?.acts != true, ListenerSetting(name) == nil else { return }
        inertCount += 1
        if let instead = Self.replacements.first(where: { $0.old == name })?.current {
            warnings.append("\(name) has no effect: Kafka has long replaced it by \(instead)")
        } else if name == "authorizer.class.name", given[name]?.text != "" {
            warnings.append(
                "\(name) has no effect: there is no authorization yet, and whoever connects may do everything")
        } else if definition?.flags.contains(.kraft) == true {
            warnings.append("\(name) has no effect: it concerns KRaft, which this broker does without")
        } else if definition?.flags.contains(.old) == true {
            warnings.append("\(name) has no effect: it concerns how Kafka worked before release 4")
        } else if definition == nil {
            warnings.append("\(name) has no effect: what it configures is not part of this broker")
        } else {
            warnings.append("\(name) has no effect in this release")
        }
    }

    /// The most connections a second on one listener, beside what holds for all of them.
    package func connectionRate(ofListener name: String) -> Int32? {
        listenerLimits[ListenerSetting(ListenerSetting.connectionRate, of: name)]
    }

    /// The most connections at a time on one listener, beside what holds for all of them.
    package func connectionLimit(ofListener name: String) -> Int32? {
        listenerLimits.isEmpty ? nil : listenerLimits[ListenerSetting(ListenerSetting.connections, of: name)]
    }

    private static let replacements = [
        (old: "host.name", current: "listeners"), (old: "port", current: "listeners"),
        (old: "advertised.host.name", current: "advertised.listeners"),
        (old: "advertised.port", current: "advertised.listeners"),
        (old: "replica.lag.max.messages", current: "replica.lag.time.max.ms"),
        (old: "log.message.timestamp.difference.max.ms", current: "log.message.timestamp.before.max.ms"),
    ]

    /// Names that no table can list, because they end in what a user chose or belong to a class that is plugged in.
    private static func belongsToPlugin(_ name: String) -> Bool {
        if name == "super.users" || name == "allow.everyone.if.no.acl.found" { return true }
        return ["listener.name.", "config.providers.", "rlmm.config.", "rsm.config."].contains {
            name.hasPrefix($0) && name.utf8.count > $0.utf8.count
        }
    }
}

/// A setting that one listener may have for itself: `listener.name.internal.max.connections`.
private struct ListenerSetting: Hashable {
    static let connectionRate = "max.connection.creation.rate"
    static let connections = "max.connections"
    private static let prefix = "listener.name."

    let setting: String
    /// In small letters, as such names are written.
    private let listener: String

    init(_ setting: String, of listener: String) {
        self.setting = setting
        self.listener = listener.lowercased()
    }

    /// Nil where the name is none of such a setting.
    init?(_ name: String) {
        guard name.hasPrefix(Self.prefix) else { return nil }
        let rest = name.dropFirst(Self.prefix.count)
        guard let setting = [Self.connectionRate, Self.connections].first(where: { rest.hasSuffix("." + $0) }),
            rest.utf8.count > setting.utf8.count + 1
        else { return nil }
        self.init(setting, of: String(rest.dropLast(setting.count + 1)))
    }
}

/// Values of settings whose type the table gives; asking for another is a mistake of ours.
extension BrokerSettings {
    package func int64(_ name: String) -> Int64 { required(value(name)?.integer, name) }
    /// For settings of type int and short, whose values fit.
    package func int32(_ name: String) -> Int32 { Int32(int64(name)) }
    package func bool(_ name: String) -> Bool { required(value(name)?.boolean, name) }
    package func double(_ name: String) -> Double { required(value(name)?.double, name) }
    package func string(_ name: String) -> String { required(value(name)?.string, name) }
    package func list(_ name: String) -> [String] { required(value(name)?.list, name) }

    private func required<T>(_ value: T?, _ name: String) -> T {
        guard let value else { preconditionFailure("\(name) has a value of the type asked for") }
        return value
    }
}
