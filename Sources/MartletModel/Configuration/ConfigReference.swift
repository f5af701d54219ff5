/// The reference of all settings, written from the table: as text for `--help-config`, as a page for `docs/`.
package enum ConfigReference {
    private struct Section {
        var title: String
        var introduction: String
        var definitions: [ConfigDefinition]
    }

    private static var sections: [Section] {
        let all = ConfigTable.shared.definitions
        func some(_ scope: ConfigScopes) -> [ConfigDefinition] {
            all.filter { !$0.scopes.isDisjoint(with: scope) && !$0.flags.contains(.internal) }
        }
        let brokers = some(.broker)
        return [
            Section(
                title: "Settings of a broker that act",
                introduction: "Given in the file, in the environment (`KAFKA_NUM_PARTITIONS`, read with `--env`), or with "
                    + "`--set name=value`: the later of these counts before the earlier.",
                definitions: brokers.filter(\.acts)),
            Section(
                title: "Settings of a topic that act",
                introduction: "Given when a topic is created, and altered at any time; else the broker's setting counts.",
                definitions: some(.topic).filter(\.acts)),
            Section(
                title: "Settings of a broker that have no effect yet",
                introduction: "Taken from files written for Kafka; each that is given is warned of once.",
                definitions: brokers.filter { !$0.acts && !$0.flags.contains(.old) }),
            Section(
                title: "Settings of a topic that have no effect yet",
                introduction: "Taken, kept and told again.",
                definitions: some(.topic).filter { !$0.acts && !$0.scopes.contains(.broker) }),
            Section(
                title: "Settings of groups and of subscriptions to clients' metrics",
                introduction: "None has an effect yet.",
                definitions: some([.group, .clientMetrics])),
            Section(
                title: "Settings of older releases",
                introduction: "Kafka 4 no longer has them; files of Kafka 3.9 and before may. Taken, and warned of.",
                definitions: brokers.filter { !$0.acts && $0.flags.contains(.old) }),
        ]
    }

    /// What `--help-config` prints: the settings that act in full, the others by name.
    package static var text: String {
        var text = "Settings, by Kafka's names (those that begin with martlet. are Martlet's own).\n"
        for section in sections {
            text += "\n\(section.title)\n\(section.introduction.filter { $0 != "`" })\n\n"
            for definition in section.definitions {
                text += "  \(definition.name) = \(shownDefault(definition))  (\(facts(definition)))\n"
                if definition.acts { text += "      \(documentation(definition).filter { $0 != "`" })\n" }
            }
        }
        let counts = counts
        return text + "\n\(counts.acting) settings act, \(counts.inert) are accepted without effect."
    }

    /// How many settings there are that act, and that are taken and do nothing.
    package static var counts: (acting: Int, inert: Int) {
        let all = ConfigTable.shared.definitions
        let acting = all.count(where: \.acts)
        return (acting, all.count - acting)
    }

    /// The page `docs/configuration.md`.
    package static var page: String {
        let all = ConfigTable.shared.definitions
        var page = """
            # Settings

            A broker reads Java properties, as Kafka does: `martlet server --config server.properties`, and
            `--set name=value` for one setting. Names and meanings are Kafka's; those that begin with `martlet.` are
            Martlet's own. Of \(all.count) settings, \(counts.acting) act in this release, each with a test that
            sees its effect; \(counts.inert) are accepted without effect. A setting of Kafka's without effect is taken and warned of; an unknown one stops the start.

            Three defaults are Martlet's: `log.dirs`, `listeners` (this machine only), and `broker.id`, which is 1 for a
            new broker. *Changes* says whether a value can be changed while the broker runs (IncrementalAlterConfigs, or
            `kafka-configs --alter`): *dynamic* is for one broker or for all, *per broker* for one. What is altered acts
            when it is answered, and stays after a restart.

            This page is written from the table in `Sources/MartletModel/Configuration`, and a test compares the two.

            """
        for section in sections {
            page += "\n## \(section.title)\n\n\(section.introduction)\n\n"
            let acting = section.definitions.first?.acts == true
            page += acting
                ? "| setting | type | default | unit | allowed | changes | what it does |\n"
                    + "|---|---|---|---|---|---|---|\n"
                : "| setting | type | default | allowed |\n|---|---|---|---|\n"
            for definition in section.definitions {
                let head = "| `\(definition.name)` | \(definition.type.name) | \(cell(shownDefault(definition))) "
                page += acting
                    ? head + "| \(unit(definition) ?? "") | \(allowed(definition)) | \(changes(definition)) "
                        + "| \(documentation(definition))\(inheritance(definition)) |\n"
                    : head + "| \(allowed(definition)) |\n"
            }
        }
        return page
    }

    /// What a setting does, in a sentence.
    package static func documentation(_ definition: ConfigDefinition) -> String {
        if definition.acts, let own = ActingConfigs.documented.first(where: { $0.name == definition.name }) {
            guard let hidden = ActingConfigs.unseen.first(where: { $0.name == definition.name }) else {
                return own.documentation
            }
            return "\(own.documentation) No test sees it: \(hidden.reason)."
        }
        if definition.flags.contains(.kraft) { return "Concerns KRaft, and has no effect here." }
        if definition.flags.contains(.old) { return "Of an older release of Kafka; has no effect." }
        return "Known from Kafka; has no effect in this release."
    }

    /// What a number counts, as the name says.
    package static func unit(_ definition: ConfigDefinition) -> String? {
        guard definition.type.integers != nil else { return nil }
        for (word, unit) in [
            ("ms", "ms"), ("hours", "hours"), ("minutes", "minutes"), ("seconds", "seconds"), ("secs", "seconds"),
            ("bytes", "bytes"), ("messages", "records"),
        ] where definition.name.split(separator: ".").contains(Substring(word)) {
            return unit
        }
        return nil
    }

    private static func shownDefault(_ definition: ConfigDefinition) -> String {
        switch definition.defaultValue {
        case nil: "none"
        case "": "empty"
        case let value?: value
        }
    }

    private static func facts(_ definition: ConfigDefinition) -> String {
        [definition.type.name, unit(definition), changes(definition)].compactMap { $0 }.joined(separator: ", ")
    }

    private static func changes(_ definition: ConfigDefinition) -> String {
        if !definition.scopes.contains(.broker) { return "at any time" }
        if definition.flags.contains(.dynamic) { return "dynamic" }
        if definition.flags.contains(.perBroker) { return "per broker" }
        if definition.flags.contains(.perListener) { return "per listener" }
        return "read-only"
    }

    private static func allowed(_ definition: ConfigDefinition) -> String {
        definition.constraint == .none ? "" : cell(definition.allowed)
    }

    private static func inheritance(_ definition: ConfigDefinition) -> String {
        guard !definition.inherits.isEmpty else { return "" }
        return " Else the broker's " + definition.inherits.map { "`\($0)`" }.joined(separator: ", or ") + "."
    }

    /// A table's cell holds no bar.
    private static func cell(_ text: String) -> String { text.split(separator: "|").joined(separator: "\\|") }
}
