import MartletBasics
import MartletClient
import MartletModel

/// `martlet transaction`: transactional ids, how far their transactions are, and those that nobody will end.
enum TransactionCommand: ProgramCommand {
    private static let longest: Int64 = 365 * 86_400

    static let definition = CommandLineArguments.Command(
        "transaction", "Shows transactions, finds those that hang, aborts them.",
        subcommands: [listDefinition, describeDefinition, hangingDefinition, abortDefinition])

    static func run(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) -> Never {
        switch arguments.command {
        case "transaction list":
            let filter = try filter(arguments)
            try Session.run(arguments) { session in try await list(session, filter) }
        case "transaction describe": try Session.run(arguments) { session in try await describe(session) }
        case "transaction find-hanging":
            let seconds = try arguments.number("older-than", in: 0...longest) ?? defaultAgeSeconds
            try Session.run(arguments) { session in try await findHanging(session, olderThanMs: seconds * 1_000) }
        default:
            let target = try target(arguments)
            try Session.run(arguments) { session in try await abort(session, target) }
        }
    }

    // MARK: list

    private static let listDefinition = CommandLineArguments.Command(
        "list", "Lists the transactional ids.",
        flags: [
            .init("state", value: "STATE", mayRepeat: true, "Only those in this state: Ongoing, Empty, CompleteCommit…"),
            .init("producer-id", value: "N", mayRepeat: true, "Only who has this producer id."),
            .init("longer-than", value: "SECONDS", "Only those whose transaction began so long ago, or longer."),
            .init("pattern", value: "REGEX", "Only ids that this regular expression matches as a whole."),
        ],
        commonFlags: ClientFlags.all,
        notes: [
            #"""
            With --json: {"transactions": [{"transactionalId": …, "producerId": 1000, "state": "Ongoing", "coordinator": 1},
            …]}.
            """#
        ],
        examples: ["martlet transaction list --state Ongoing --longer-than 600"])

    private static func filter(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) -> TransactionFilter {
        var filter = TransactionFilter()
        filter.states = arguments.values("state")
        for text in arguments.values("producer-id") {
            guard let id = ProducerID(text), id >= 0 else {
                throw CommandLineArguments.Fault("--producer-id \(text) is no producer id: it is a number from 0 up")
            }
            filter.producerIDs.append(id)
        }
        filter.longerThanMs = try arguments.number("longer-than", in: 0...longest).map { $0 * 1_000 }
        filter.pattern = arguments.value("pattern")
        return filter
    }

    private static func list(_ session: Session, _ filter: TransactionFilter) async throws {
        let (transactions, faults) = try await session.client.transactions(filter)
        for fault in faults { session.complain(partly: "\(fault)") }
        var table = TextTable([
            .init("TRANSACTIONAL ID"), .init("STATE"), .init("PRODUCER ID", .right), .init("COORDINATOR", .right),
        ])
        var entries: [JSONValue] = []
        for one in transactions {
            table.add(one.id, one.state, "\(one.producerID)", "\(one.coordinator)")
            entries.append([
                "transactionalId": .string(one.id), "producerId": .int(one.producerID), "state": .string(one.state),
                "coordinator": .int(Int64(one.coordinator)),
            ])
        }
        session.show(["transactions": .array(entries)], table.isEmpty ? "" : table.text(isStyled: session.isStyled))
        if transactions.isEmpty, !session.isJSON { session.remark("There are no such transactional ids.") }
    }

    // MARK: describe

    private static let describeDefinition = CommandLineArguments.Command(
        "describe", "Shows how far the transactions of some ids are, and what they write to.", commonFlags: ClientFlags.all,
        operands: [.init("ID", mayRepeat: true, "Transactional ids.")],
        notes: [
            #"""
            With --json: {"transactions": [{"transactionalId": …, "state": "Ongoing", "producerId": 1000, "epoch": 3,
            "timeoutMs": 60000, "startMs": 1790000000000, "openMs": 1200, "partitions": [{"topic": …, "partition": 0}, …]},
            …]}. `startMs` is null where no transaction was begun, `openMs` where none is open.
            """#
        ],
        examples: ["martlet transaction describe billing-1"])

    private static func describe(_ session: Session) async throws {
        var texts: [String] = []
        var entries: [JSONValue] = []
        for id in session.arguments.operands {
            do throws(ClientError) {
                let found = try await session.client.transaction(id)
                let isOpen = found.state == "Ongoing" || found.state.hasPrefix("Prepare")
                let open = found.startMilliseconds.flatMap {
                    isOpen ? max(0, session.client.clock.wallMilliseconds - $0) : nil
                }
                texts.append(text(found, openMs: open, isStyled: session.isStyled))
                entries.append(json(found, openMs: open))
            } catch {
                guard error.code != nil else { throw error }
                session.complain(partly: "\(error)")
            }
        }
        session.show(["transactions": .array(entries)], texts.joined(separator: "\n"))
    }

    private static func text(_ found: TransactionDescription, openMs: Int64?, isStyled: Bool) -> String {
        var text = "transactional id \(TextTable.shown(found.id))  state \(found.state)  producer \(found.producerID)"
        text += "  epoch \(found.epoch)  timeout \(found.timeoutMs) ms"
        if let openMs { text += "  open for \(openMs) ms" }
        var table = TextTable([.init("TOPIC"), .init("PARTITION", .right)])
        for partition in found.partitions { table.add(partition.topic, "\(partition.partition)") }
        return text + "\n" + (table.isEmpty ? "" : table.text(isStyled: isStyled))
    }

    private static func json(_ found: TransactionDescription, openMs: Int64?) -> JSONValue {
        [
            "transactionalId": .string(found.id), "state": .string(found.state), "producerId": .int(found.producerID),
            "epoch": .int(Int64(found.epoch)), "timeoutMs": .int(Int64(found.timeoutMs)),
            "startMs": found.startMilliseconds.map { .int($0) } ?? .null, "openMs": openMs.map { .int($0) } ?? .null,
            "partitions": .array(
                found.partitions.map { ["topic": .string($0.topic), "partition": .int(Int64($0.partition))] }),
        ]
    }

    // MARK: find-hanging

    /// As long as Kafka's brokers let a transaction be open at the most.
    private static let defaultAgeSeconds: Int64 = 900

    private static let hangingDefinition = CommandLineArguments.Command(
        "find-hanging", "Finds transactions that are open in a partition, and that no coordinator will end.",
        flags: [
            .init("topic", value: "TOPIC", mayRepeat: true, "Looks in these topics only; without it, in all."),
            .init("older-than", value: "SECONDS", "Whose producer has written nothing for so long (900)."),
        ],
        commonFlags: ClientFlags.all,
        notes: [
            """
            Readers of committed records wait for such a transaction for ever. `martlet transaction abort` ends it; see
            first that its producer is gone.
            """,
            #"""
            With --json: {"hanging": [{"topic": …, "partition": 0, "startOffset": 17, "producerId": 1000, "epoch": 3,
            "lastWriteMs": 1790000000000, "transactionalId": null, "reason": …}, …]}.
            """#,
        ],
        examples: ["martlet transaction find-hanging", "martlet transaction find-hanging --topic orders --older-than 60"])

    private static func findHanging(_ session: Session, olderThanMs: Int64) async throws {
        let named = session.arguments.values("topic")
        let topics = try await session.client.topics(named: named.isEmpty ? nil : named)
        let partitions = topics.flatMap { topic in topic.partitions.map { TopicPartition(topic.name, $0.index) } }
        let now = session.client.clock.wallMilliseconds
        let open = partitions.isEmpty ? [] : try await session.client.openTransactions(in: partitions)
        let hanging = try await session.client.hanging(among: open.filter { now - $0.lastTimestamp >= olderThanMs })
        var table = TextTable([
            .init("TOPIC"), .init("PARTITION", .right), .init("START OFFSET", .right), .init("PRODUCER ID", .right),
            .init("EPOCH", .right), .init("TRANSACTIONAL ID"), .init("WHY"),
        ])
        var entries: [JSONValue] = []
        for one in hanging {
            let open = one.open
            table.add(
                open.partition.topic, "\(open.partition.partition)", "\(open.startOffset)", "\(open.producerID)",
                "\(open.epoch)",
                one.transactionalID ?? "", one.reason)
            entries.append([
                "topic": .string(open.partition.topic), "partition": .int(Int64(open.partition.partition)),
                "startOffset": .int(open.startOffset), "producerId": .int(open.producerID), "epoch": .int(Int64(open.epoch)),
                "lastWriteMs": .int(open.lastTimestamp), "transactionalId": one.transactionalID.map { .string($0) } ?? .null,
                "reason": .string(one.reason),
            ])
        }
        session.show(["hanging": .array(entries)], table.isEmpty ? "" : table.text(isStyled: session.isStyled))
        if hanging.isEmpty, !session.isJSON { session.remark("No transaction hangs.") }
    }

    // MARK: abort

    private enum Target: Sendable {
        case id(String)
        case open(TopicPartition, startOffset: Offset)
    }

    private static let abortDefinition = CommandLineArguments.Command(
        "abort", "Aborts a transaction: that of a transactional id, or one that hangs in a partition.",
        flags: [
            .init("transactional-id", value: "ID", "What this id has open; whoever uses it is fenced."),
            .init("topic", value: "TOPIC", "Where it hangs, as find-hanging tells."),
            .init("partition", value: "N", "The partition."),
            .init("start-offset", value: "N", "Where it begins."),
        ],
        commonFlags: ClientFlags.all,
        notes: [#"With --json: {"aborted": true}."#],
        examples: [
            "martlet transaction abort --transactional-id billing-1",
            "martlet transaction abort --topic orders --partition 0 --start-offset 17",
        ])

    private static func target(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) -> Target {
        let topic = arguments.value("topic")
        let partition = try arguments.number("partition", in: 0...Int64(Int32.max))
        let offset = try arguments.number("start-offset", in: 0...Int64.max)
        if let id = arguments.value("transactional-id") {
            guard topic == nil, partition == nil, offset == nil, !id.isEmpty else {
                throw CommandLineArguments.Fault("give --transactional-id alone, or --topic, --partition and --start-offset")
            }
            return .id(id)
        }
        guard let topic, let partition, let offset else {
            throw CommandLineArguments.Fault("give --transactional-id, or --topic, --partition and --start-offset")
        }
        return .open(TopicPartition(topic, Int32(partition)), startOffset: offset)
    }

    private static func abort(_ session: Session, _ target: Target) async throws {
        switch target {
        case .id(let id):
            // an id that nobody has used is not made by asking for its end
            _ = try await session.client.transaction(id)
            try await session.client.terminateTransaction(id)
        case .open(let partition, let startOffset):
            let open = try await session.client.openTransactions(in: [partition])
            guard let found = open.first(where: { $0.startOffset == startOffset }) else {
                throw CommandFault("no transaction is open in \(partition) that begins at offset \(startOffset)")
            }
            try await session.client.abort(found)
        }
        session.show(["aborted": true], "aborted\n")
    }
}
