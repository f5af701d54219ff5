/// One value among those that a setting could have, and where it comes from.
package struct ConfigSynonym: Sendable, Equatable {
    package var name: String
    /// Nil for a secret.
    package var value: String?
    package var source: ConfigSource
}

/// A setting as DescribeConfigs tells it.
package struct DescribedConfig: Sendable {
    package var definition: ConfigDefinition
    /// Nil for a secret, and where there is none.
    package var value: String?
    package var source: ConfigSource
    package var isReadOnly: Bool
    /// From the one that counts.
    package var synonyms: [ConfigSynonym]

    package var name: String { definition.name }
}

extension BrokerSettings {
    /// Settings that say the same in several units, or where one stands for another that is not set.
    private static let alternatives = [
        ["log.retention.ms", "log.retention.minutes", "log.retention.hours"], ["log.roll.ms", "log.roll.hours"],
        ["log.roll.jitter.ms", "log.roll.jitter.hours"], ["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
    ]

    /// Every value that a setting, or one that stands for it, has in some layer. What is told begins, as Kafka has it, with the first that
    /// goes by the name asked for.
    package func synonyms(of name: String) -> [ConfigSynonym] {
        var names = [name]
        if let family = Self.alternatives.first(where: { $0.contains(name) }), family[0] == name || !name.hasPrefix("log.flush") {
            names = family
        }
        var found: [ConfigSynonym] = []
        for layer in Self.layers {
            for name in names {
                guard let value = value(name, in: layer) else { continue }
                let isSecret = ConfigTable.shared[name]?.isSecret ?? true
                found.append(ConfigSynonym(name: name, value: isSecret ? nil : value.text, source: layer))
            }
        }
        return Array(found.drop { $0.name != name })
    }
}

/// What DescribeConfigs tells, by kind of resource; each in order of name.
extension BrokerConfig {
    package func describeTopic(_ overrides: TopicConfigResolver.Overrides) -> [DescribedConfig] {
        topics.entries(overrides).compactMap { entry in
            guard let definition = ConfigTable.shared[entry.name] else { return nil }
            let ofBroker = definition.scopes.contains(.broker) ? definition.name : definition.inherits.first
            var synonyms = ofBroker.map { settings.synonyms(of: $0) } ?? []
            if entry.source == .dynamicTopic {
                synonyms.insert(ConfigSynonym(name: entry.name, value: entry.value, source: .dynamicTopic), at: 0)
            }
            return DescribedConfig(
                definition: definition, value: entry.value, source: synonyms.first?.source ?? .defaultValue, isReadOnly: false,
                synonyms: synonyms)
        }
    }

    /// This broker's: all that Kafka 4.3 has, and what else was given.
    package func describeBroker() -> [DescribedConfig] {
        ConfigTable.shared.definitions(for: .broker).compactMap { definition in
            let isToldOnlyWhereGiven = definition.isOurs || !definition.flags.isDisjoint(with: [.old, .internal])
            guard !isToldOnlyWhereGiven || settings.given(definition.name) != nil else { return nil }
            let synonyms = settings.synonyms(of: definition.name)
            return DescribedConfig(
                definition: definition, value: definition.isSecret ? nil : settings.value(definition.name)?.text,
                source: synonyms.first?.source ?? .defaultValue, isReadOnly: definition.isReadOnly, synonyms: synonyms)
        }
    }

    /// What was altered for all brokers, and nothing else.
    package func describeClusterWide() -> [DescribedConfig] {
        settings.alteredClusterWide.compactMap { name, value in
            guard let definition = ConfigTable.shared[name] else { return nil }
            let told = definition.isSecret ? nil : value.text
            return DescribedConfig(
                definition: definition, value: told, source: .dynamicDefaultBroker, isReadOnly: definition.isReadOnly,
                synonyms: [ConfigSynonym(name: name, value: told, source: .dynamicDefaultBroker)])
        }
    }

    /// A group's: its own, else the broker's.
    package func describeGroup(_ overrides: TopicConfigResolver.Overrides) -> [DescribedConfig] {
        describe(.group, overrides, as: .group) { definition in
            definition.inherits.first.flatMap { settings.value($0) } ?? definition.parsedDefault
        }
    }

    package func describeClientMetrics(_ overrides: TopicConfigResolver.Overrides) -> [DescribedConfig] {
        describe(.clientMetrics, overrides, as: .clientMetrics, inherited: \.parsedDefault)
    }

    private func describe(
        _ scope: ConfigScopes, _ overrides: TopicConfigResolver.Overrides, as source: ConfigSource,
        inherited: (ConfigDefinition) -> ConfigValue?
    ) -> [DescribedConfig] {
        ConfigTable.shared.definitions(for: scope).map { definition in
            let own = overrides.first { $0.name == definition.name }.flatMap { try? definition.parse($0.value) }
            let fromBroker = definition.inherits.first.map { settings.synonyms(of: $0) } ?? []
            var described = DescribedConfig(
                definition: definition, value: (own ?? inherited(definition))?.text,
                source: fromBroker.first?.source ?? .defaultValue, isReadOnly: false, synonyms: fromBroker)
            if let own {
                described.source = source
                described.synonyms.insert(ConfigSynonym(name: definition.name, value: own.text, source: source), at: 0)
            }
            return described
        }
    }
}
