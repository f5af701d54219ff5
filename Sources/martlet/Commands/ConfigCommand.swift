import MartletBasics
import MartletClient
import MartletModel

/// `martlet config`: settings of topics, brokers and the cluster, and quotas of clients.
enum ConfigCommand: ProgramCommand {
    private static let resourceOperand = CommandLineArguments.Operand(
        "RESOURCE",
        "'topic' and its name, 'broker' and its id, 'cluster' for the default of all brokers, or 'loggers' and a "
            + "broker's id for the levels of its log; for quotas 'user' and a name, "
            + "'client' and an id, both of them, or 'ip' and an address, where '<default>' stands for every other.")

    static let definition = CommandLineArguments.Command(
        "config", "Shows and changes the settings of topics, of brokers and of the cluster, and the quotas of clients.",
        subcommands: [
            .init(
                "get", "Shows settings.",
                flags: [.init("all", "Shows also those that nobody has set.")], commonFlags: ClientFlags.all,
                operands: [
                    resourceOperand,
                    .init("NAME", isRequired: false, mayRepeat: true, "Of the resource, then of settings; none means all."),
                ],
                notes: [
                    #"""
                    With --json: {"resource": "topic", "name": "orders", "configs": [{"name": "retention.ms", "value": "1000",
                    "source": "topic", "readOnly": false, "sensitive": false}, …]}. `source` is topic, broker, cluster,
                    file, default or unknown; a secret value is null.

                    Of quotas: {"resource": "quota", "entity": {"user": "alice", "client-id": null},
                    "quotas": [{"name": "producer_byte_rate", "value": "1048576"}, …]}; null stands for every other.
                    """#
                ],
                examples: [
                    "martlet config get topic orders", "martlet config get broker 1 --all",
                    "martlet config get topic orders retention.ms --json", "martlet config get user alice client app",
                ]),
            .init(
                "set", "Changes settings, all of them or none.",
                flags: [
                    .init("delete", value: "NAME", mayRepeat: true, "Takes a setting back: what holds above it counts again."),
                    .init("append", value: "NAME=VALUE", mayRepeat: true, "Puts an element into a list."),
                    .init("subtract", value: "NAME=VALUE", mayRepeat: true, "Takes an element out of a list."),
                    .init("validate-only", "Asks whether it would be done, and does nothing."),
                ],
                commonFlags: ClientFlags.all,
                operands: [
                    resourceOperand,
                    .init("NAME=VALUE", isRequired: false, mayRepeat: true, "After the name of the resource: what is to hold."),
                ],
                notes: [
                    #"""
                    Loggers: root, and one for each subsystem that lines of the log name; DEBUG, INFO, WARN or ERROR, until the
                    broker stops. --delete, and a logger follows root again.

                    Quotas: producer_byte_rate and consumer_byte_rate in bytes a second, request_percentage of one processor,
                    controller_mutation_rate in partitions a second; for addresses connection_creation_rate a second.

                    With --json: {"resource": "topic", "name": "orders", "changed": ["retention.ms"]}; for quotas "entity", as
                    `get` has it, in place of "name".
                    """#
                ],
                examples: [
                    "martlet config set topic orders retention.ms=3600000",
                    "martlet config set topic orders --delete retention.ms",
                    "martlet config set cluster log.retention.ms=86400000",
                    "martlet config set loggers 1 network=DEBUG",
                    "martlet config set client '<default>' producer_byte_rate=1048576",
                ]),
        ])

    static func run(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) -> Never {
        if QuotaSettings.kinds.contains(arguments.operands[0]) {
            let quotas = try QuotaSettings(arguments.operands)
            if arguments.command == "config get" { try Session.run(arguments) { session in try await quotas.get(session) } }
            let edits = try quotas.edits(try changes(arguments, quotas.rest))
            try Session.run(arguments) { session in try await quotas.set(session, edits) }
        }
        let (resource, rest) = try resource(arguments.operands)
        if arguments.command == "config get" {
            try Session.run(arguments) { session in try await get(session, resource, rest) }
        }
        let changes = try changes(arguments, rest)
        try Session.run(arguments) { session in try await set(session, resource, changes) }
    }

    /// What the first words name, and the words after it.
    private static func resource(
        _ operands: [String]
    ) throws(CommandLineArguments.Fault) -> (resource: ConfigResource, rest: [String]) {
        let kinds = ["topic", "broker", "cluster", "loggers"] + QuotaSettings.kinds
        if operands[0] == "cluster" { return (.cluster, Array(operands.dropFirst())) }
        guard ["topic", "broker", "loggers"].contains(operands[0]) else {
            let nearest = nearestName(to: operands[0], among: kinds).map { "; the nearest is '\($0)'" } ?? ""
            throw CommandLineArguments.Fault(
                "'\(operands[0])' has no settings\(nearest): there are topic NAME, broker ID, cluster, loggers ID, "
                    + "and for quotas user NAME, client ID and ip ADDRESS")
        }
        guard operands.count > 1 else {
            throw CommandLineArguments.Fault(
                operands[0] == "loggers" ? "whose loggers? The id of a broker follows the word"
                    : "which \(operands[0])? Its name follows the word")
        }
        let name = operands[1], rest = Array(operands.dropFirst(2))
        if operands[0] == "topic" {
            if let fault = TopicName.fault(name) { throw CommandLineArguments.Fault(fault) }
            return (.topic(name), rest)
        }
        guard let id = BrokerID(name), id >= 0 else { throw CommandLineArguments.Fault("'\(name)' is no id of a broker") }
        return (operands[0] == "loggers" ? .loggers(id) : .broker(id), rest)
    }

    private static func changes(
        _ arguments: CommandLineArguments, _ rest: [String]
    ) throws(CommandLineArguments.Fault) -> [ResourceConfigChange] {
        var changes: [ResourceConfigChange] = []
        for text in rest {
            let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, !parts[0].isEmpty else {
                throw CommandLineArguments.Fault("'\(text)' sets nothing: write NAME=VALUE")
            }
            changes.append(.set(String(parts[0]), String(parts[1])))
        }
        changes += arguments.values("delete").map { .delete($0) }
        changes += try arguments.assignments("append").map { .append($0.name, $0.value) }
        changes += try arguments.assignments("subtract").map { .subtract($0.name, $0.value) }
        guard !changes.isEmpty else {
            throw CommandLineArguments.Fault("nothing is to be changed: give NAME=VALUE or --delete NAME")
        }
        for (index, change) in changes.enumerated() where changes[..<index].contains(where: { $0.name == change.name }) {
            throw CommandLineArguments.Fault("\(change.name) is changed twice")
        }
        return changes
    }

    private static func kind(_ resource: ConfigResource) -> String {
        switch resource {
        case .topic: "topic"
        case .broker: "broker"
        case .cluster: "cluster"
        case .loggers: "loggers"
        }
    }

    // MARK: get

    private static func get(_ session: Session, _ resource: ConfigResource, _ names: [String]) async throws {
        let all = try await session.client.configs(of: resource)
        for name in names where !all.contains(where: { $0.name == name }) {
            let nearest = nearestName(to: name, among: all.map(\.name)).map { "; the nearest is \($0)" } ?? ""
            session.complain(partly: "\(resource.title) has no setting \(name)\(nearest)")
        }
        let isAllWanted = session.arguments.has("all") || !names.isEmpty
        let shown = all.filter { config in
            (names.isEmpty || names.contains(config.name)) && (isAllWanted || config.source != .builtIn)
        }
        var table = TextTable([.init("SETTING"), .init("VALUE"), .init("FROM")])
        var entries: [JSONValue] = []
        for config in shown {
            let value = config.isSensitive ? "(secret)" : config.value ?? "(null)"
            table.add(config.name, value, word(config.source) + (config.isReadOnly ? ", fixed at start" : ""))
            entries.append([
                "name": .string(config.name), "value": config.value.map { .string($0) } ?? .null,
                "source": .string(word(config.source)), "readOnly": .bool(config.isReadOnly),
                "sensitive": .bool(config.isSensitive),
            ])
        }
        session.show(
            ["resource": .string(kind(resource)), "name": .string(resource.name), "configs": .array(entries)],
            shown.isEmpty ? "" : table.text(isStyled: session.isStyled))
        if shown.isEmpty, names.isEmpty, !session.isJSON {
            session.remark("Nothing is set for \(resource.title); --all shows what holds.")
        }
    }

    private static func word(_ source: ResourceConfig.Source) -> String {
        switch source {
        case .unknown: "unknown"
        case .topic: "topic"
        case .broker, .brokerLogger: "broker"
        case .clusterDefault: "cluster"
        case .file: "file"
        case .builtIn: "default"
        }
    }

    // MARK: set

    private static func set(_ session: Session, _ resource: ConfigResource, _ changes: [ResourceConfigChange]) async throws {
        let validateOnly = session.arguments.has("validate-only")
        try await session.client.change(changes, of: resource, validateOnly: validateOnly)
        let names = changes.map(\.name)
        session.show(
            [
                "resource": .string(kind(resource)), "name": .string(resource.name),
                "changed": .array(validateOnly ? [] : names.map { .string($0) }),
            ], "\(resource.title): \(names.joined(separator: ", ")) \(validateOnly ? "could be changed" : "changed")\n")
    }
}
