import MartletBasics
import MartletClient
import MartletModel

/// `martlet topic`: creates, lists, describes, alters and deletes topics.
enum TopicCommand: ProgramCommand {
    static let definition = CommandLineArguments.Command(
        "topic", "Creates, lists, describes, alters and deletes topics.",
        subcommands: [createDefinition, listDefinition, describeDefinition, alterDefinition, deleteDefinition])

    static func run(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) -> Never {
        try Session.run(arguments) { session in
            switch arguments.command {
            case "topic create": try await create(session)
            case "topic list": try await list(session)
            case "topic describe": try await describe(session)
            case "topic alter": try await alter(session)
            default: try await delete(session)
            }
        }
    }

    // MARK: create

    private static let createDefinition = CommandLineArguments.Command(
        "create", "Creates topics.",
        flags: [
            .init("partitions", value: "N", "How many partitions each has (the broker's num.partitions)."),
            .init("replication-factor", value: "N", "How many replicas each partition has (the broker's default)."),
            .init("config", value: "NAME=VALUE", mayRepeat: true, "A setting of the topic."),
            .init("if-not-exists", "A topic that is there already is fine, and is left as it is."),
            .init("validate-only", "Asks whether it would be done, and does nothing."),
        ],
        commonFlags: ClientFlags.all, operands: [.init("TOPIC", mayRepeat: true, "Their names.")],
        notes: [
            #"""
            With --json: {"topics": [{"name": …, "created": true, "error": null}, …]}. `created` is false for one that
            was there already, and with --validate-only.
            """#
        ],
        examples: [
            "martlet topic create orders --partitions 3",
            "martlet topic create audit --config retention.ms=604800000 --if-not-exists",
        ])

    private static func create(_ session: Session) async throws {
        let arguments = session.arguments
        let partitions: Int32? = try arguments.number("partitions", in: 1...Int32.max)
        let factor: Int16? = try arguments.number("replication-factor", in: 1...Int16.max)
        let configs = try arguments.assignments("config")
        let names = arguments.operands
        try checkDistinct(names)
        let validateOnly = arguments.has("validate-only")
        let outcomes = try await session.client.createTopics(
            names.map { NewTopic($0, partitions: partitions, replicationFactor: factor, configs: configs) },
            validateOnly: validateOnly)
        let isExistingFine = arguments.has("if-not-exists")
        var lines: [String] = []
        var entries: [JSONValue] = []
        for outcome in outcomes {
            let existed = isExistingFine && outcome.error?.code == .topicAlreadyExists
            let error = existed ? nil : outcome.error
            if let error { session.complain(partly: "\(error)") }
            if error == nil {
                let done = validateOnly ? "could be created" : "created"
                lines.append("topic \(outcome.name) \(existed ? "is there already" : done)\n")
            }
            entries.append([
                "name": .string(outcome.name), "created": .bool(outcome.error == nil && !validateOnly),
                "error": error.map { .string("\($0)") } ?? .null,
            ])
        }
        session.show(["topics": .array(entries)], lines.joined())
    }

    private static func checkDistinct(_ names: [String]) throws(CommandLineArguments.Fault) {
        for (index, name) in names.enumerated() {
            if names[..<index].contains(name) { throw CommandLineArguments.Fault("topic \(name) is named twice") }
            if let fault = TopicName.fault(name) { throw CommandLineArguments.Fault(fault) }
        }
    }

    // MARK: list

    private static let listDefinition = CommandLineArguments.Command(
        "list", "Lists the topics.",
        flags: [.init("internal", "Lists those too that the broker keeps for itself.")], commonFlags: ClientFlags.all,
        notes: [
            #"""
            With --json: {"topics": [{"name": …, "id": …, "internal": false, "partitions": 3, "replicationFactor": 1}, …]}.
            """#
        ],
        examples: ["martlet topic list", "martlet topic list --json | jq -r '.topics[].name'"])

    private static func list(_ session: Session) async throws {
        let isInternalWanted = session.arguments.has("internal")
        let topics = try await session.client.topics(named: nil).filter { isInternalWanted || !$0.isInternal }
        var table = TextTable([.init("TOPIC"), .init("PARTITIONS", .right), .init("REPLICAS", .right)])
        var entries: [JSONValue] = []
        for topic in topics {
            let factor = topic.partitions.first?.replicas.count ?? 0
            table.add(topic.name, "\(topic.partitions.count)", "\(factor)")
            entries.append([
                "name": .string(topic.name), "id": topic.id == .zero ? .null : .string("\(topic.id)"),
                "internal": .bool(topic.isInternal), "partitions": .int(Int64(topic.partitions.count)),
                "replicationFactor": .int(Int64(factor)),
            ])
        }
        session.show(["topics": .array(entries)], topics.isEmpty ? "" : table.text(isStyled: session.isStyled))
        if topics.isEmpty, !session.isJSON { session.remark("There are no topics.") }
    }

    // MARK: describe

    private static let describeDefinition = CommandLineArguments.Command(
        "describe", "Shows the partitions of topics: leaders, replicas, first and next offset; and their settings.",
        flags: [
            .init("upkeep", "Also shows how far partitions are compacted, and what that saved, from their leaders' metrics."),
            WhyText.flag,
        ],
        commonFlags: ClientFlags.all,
        operands: [.init("TOPIC", isRequired: false, mayRepeat: true, "Their names; none means all but internal ones.")],
        notes: [
            #"""
            With --json: {"topics": [{"name": …, "id": …, "internal": false, "configs": {"retention.ms": "1000"},
            "partitions": [{"partition": 0, "leader": 1, "leaderEpoch": 0, "replicas": [1], "isr": [1], "offline": [],
            "start": 0, "end": 10, "error": null}, …]}, …]}. `configs` has what is set for the topic itself, and is null
            where the broker does not tell; `leader` is -1, and offsets are null, where a partition has no leader.
            With --upkeep a topic has "upkeep": [{"partition": 0, "compactedTo": 10, "cleanBytes": 1, "dirtyBytes": 1,
            "compactions": 1, "savedBytes": 1, "lastCompactedMs": 1, "uncleanable": false}, …], of partitions that are
            compacted. Saved bytes and compactions count from the broker's start; what nobody has looked at yet is null.
            """#,
            """
            --upkeep asks the leaders where their metrics are told (martlet.metrics.listener), and reads them there.
            """, WhyText.note,
        ],
        examples: ["martlet topic describe orders", "martlet topic describe orders --why", "martlet topic describe --json"])

    private static func describe(_ session: Session) async throws {
        let client = session.client
        let names = session.arguments.operands
        let known = try await client.topics(named: names.isEmpty ? nil : names)
        for topic in known where topic.error != .none {
            session.complain(partly: "topic \(topic.name): \(topic.error)")
        }
        let topics = known.filter { $0.error == .none && !(names.isEmpty && $0.isInternal) }
        let partitions = topics.flatMap { topic in topic.partitions.map { TopicPartition(topic.name, $0.index) } }
        let led = partitions.filter { client.cluster.leader(of: $0).map { $0.leader >= 0 } ?? false }
        let starts = try await client.offsets(.earliest, of: led)
        let ends = try await client.offsets(.latest, of: led)
        func offset(_ found: [FoundOffset], _ partition: TopicPartition) -> Offset? {
            found.first { $0.partition == partition }?.offset
        }
        var entries: [JSONValue] = []
        var texts: [String] = []
        var upkeep = session.arguments.has("upkeep") ? TopicUpkeep() : nil
        for topic in topics {
            let kept = try await upkeep?.rows(of: topic, session)
            let configs = try await settings(of: topic.name, client)
            let rows = topic.partitions.map { part in
                let place = TopicPartition(topic.name, part.index)
                return Row(partition: part, start: offset(starts, place), end: offset(ends, place))
            }
            var told = text(topic, rows, configs, isStyled: session.isStyled)
            var entry = json(topic, rows, configs)
            if let kept {
                told += "upkeep\n" + TopicUpkeep.text(kept, isStyled: session.isStyled)
                entry["upkeep"] = TopicUpkeep.json(kept)
            }
            if session.arguments.has("why") {
                let reasons = try await client.reasons(ofTopic: topic.name)
                told += WhyText.text(reasons)
                entry["why"] = WhyText.json(reasons)
            }
            texts.append(told)
            entries.append(.object(entry))
        }
        session.show(["topics": .array(entries)], texts.joined(separator: "\n"))
        if known.isEmpty, !session.isJSON { session.remark("There are no topics.") }
    }

    private struct Row {
        var partition: ClusterView.Partition
        var start: Offset?
        var end: Offset?
    }

    /// What is set for the topic itself; nil where this broker cannot say.
    private static func settings(
        of topic: String, _ client: Client
    ) async throws(ClientError) -> [ResourceConfig]? {
        do throws(ClientError) {
            return try await client.configs(of: .topic(topic)).filter { $0.source == .topic }
        } catch {
            guard error.isUnsupported else { throw error }
            return nil
        }
    }

    private static func text(
        _ topic: ClusterView.Topic, _ rows: [Row], _ configs: [ResourceConfig]?, isStyled: Bool
    ) -> String {
        var text = "topic \(topic.name)"
        if topic.id != .zero { text += "  id \(topic.id)" }
        text += "  partitions \(rows.count)  replicas \(rows.first?.partition.replicas.count ?? 0)\n"
        for config in configs ?? [] {
            text += "  \(config.name)=\(config.isSensitive ? "(secret)" : TextTable.shown(config.value ?? ""))\n"
        }
        var table = TextTable([
            .init("PARTITION", .right), .init("LEADER", .right), .init("REPLICAS"), .init("IN SYNC"),
            .init("START", .right), .init("END", .right), .init("RECORDS", .right),
        ])
        func list(_ ids: [BrokerID]) -> String { ids.map { "\($0)" }.joined(separator: ",") }
        for row in rows {
            let part = row.partition
            let count = row.start.flatMap { start in row.end.map { $0 - start } }
            table.add(
                "\(part.index)", part.leader < 0 ? "none" : "\(part.leader)", list(part.replicas), list(part.inSync),
                row.start.map { "\($0)" } ?? "", row.end.map { "\($0)" } ?? "", count.map { "\($0)" } ?? "")
        }
        return text + table.text(isStyled: isStyled)
    }

    private static func json(_ topic: ClusterView.Topic, _ rows: [Row], _ configs: [ResourceConfig]?) -> JSONObject {
        func list(_ ids: [BrokerID]) -> JSONValue { .array(ids.map { .int(Int64($0)) }) }
        let parts = rows.map { row -> JSONValue in
            let part = row.partition
            return [
                "partition": .int(Int64(part.index)), "leader": .int(Int64(part.leader)),
                "leaderEpoch": .int(Int64(part.leaderEpoch)), "replicas": list(part.replicas), "isr": list(part.inSync),
                "offline": list(part.offline), "start": row.start.map { .int($0) } ?? .null,
                "end": row.end.map { .int($0) } ?? .null,
                "error": part.error == .none ? .null : .string("\(part.error)"),
            ]
        }
        let set = configs.map { configs in
            var object: JSONObject = [:]
            for config in configs { object[config.name] = config.value.map { .string($0) } ?? .null }
            return JSONValue.object(object)
        }
        return [
            "name": .string(topic.name), "id": topic.id == .zero ? .null : .string("\(topic.id)"),
            "internal": .bool(topic.isInternal), "configs": set ?? .null, "partitions": .array(parts),
        ]
    }

    // MARK: alter

    private static let alterDefinition = CommandLineArguments.Command(
        "alter", "Gives a topic more partitions, or other settings.",
        flags: [
            .init("partitions", value: "N", "How many partitions it is to have in all; never fewer than it has."),
            .init("config", value: "NAME=VALUE", mayRepeat: true, "A setting of the topic."),
            .init("delete-config", value: "NAME", mayRepeat: true, "Takes a setting back: the broker's counts again."),
            .init("validate-only", "Asks whether it would be done, and does nothing."),
        ],
        commonFlags: ClientFlags.all, operands: [.init("TOPIC", "Its name.")],
        notes: [
            "Keys go to other partitions when there are more of them.",
            #"With --json: {"name": …, "partitions": 6, "configs": ["retention.ms"], "altered": true}."#,
        ],
        examples: ["martlet topic alter orders --partitions 6", "martlet topic alter orders --config retention.ms=3600000"])

    private static func alter(_ session: Session) async throws {
        let arguments = session.arguments
        let name = arguments.operands[0]
        let partitions: Int32? = try arguments.number("partitions", in: 1...Int32.max)
        var changes = try arguments.assignments("config").map { ResourceConfigChange.set($0.name, $0.value) }
        changes += arguments.values("delete-config").map { .delete($0) }
        guard partitions != nil || !changes.isEmpty else {
            throw CommandLineArguments.Fault("nothing is to be altered: give --partitions, --config or --delete-config")
        }
        let validateOnly = arguments.has("validate-only")
        if !changes.isEmpty {
            try await session.client.change(changes, of: .topic(name), validateOnly: validateOnly)
        }
        if let partitions {
            let outcomes = try await session.client.createPartitions([(name, partitions)], validateOnly: validateOnly)
            if let error = outcomes.first?.error { throw error }
        }
        session.show(
            [
                "name": .string(name), "partitions": partitions.map { .int(Int64($0)) } ?? .null,
                "configs": .array(changes.map { .string($0.name) }), "altered": .bool(!validateOnly),
            ], "topic \(name) \(validateOnly ? "could be altered" : "altered")\n")
    }

    // MARK: delete

    private static let deleteDefinition = CommandLineArguments.Command(
        "delete", "Deletes topics with all their records.",
        flags: [.init("if-exists", "A topic that is not there is fine.")], commonFlags: ClientFlags.all,
        operands: [.init("TOPIC", mayRepeat: true, "Their names.")],
        notes: [#"With --json: {"topics": [{"name": …, "deleted": true, "error": null}, …]}."#],
        examples: ["martlet topic delete orders", "martlet topic delete orders audit --if-exists"])

    private static func delete(_ session: Session) async throws {
        let names = session.arguments.operands
        try checkDistinct(names)
        let isMissingFine = session.arguments.has("if-exists")
        var lines: [String] = []
        var entries: [JSONValue] = []
        for outcome in try await session.client.deleteTopics(names) {
            let wasMissing = isMissingFine && outcome.error?.code == .unknownTopicOrPartition
            let error = wasMissing ? nil : outcome.error
            if let error {
                session.complain(partly: "\(error)")
            } else {
                lines.append("topic \(outcome.name) \(wasMissing ? "is not there" : "deleted")\n")
            }
            entries.append([
                "name": .string(outcome.name), "deleted": .bool(outcome.error == nil),
                "error": error.map { .string("\($0)") } ?? .null,
            ])
        }
        session.show(["topics": .array(entries)], lines.joined())
    }
}
