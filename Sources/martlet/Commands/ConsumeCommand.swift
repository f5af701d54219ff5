import MartletBasics
import MartletClient
import MartletModel

/// `martlet consume`: prints the records of a topic.
enum ConsumeCommand: ProgramCommand {
    static let definition = CommandLineArguments.Command(
        "consume", "Prints the records of a topic, each partition's in their order.",
        flags: [
            .init(
                "from", value: "WHERE",
                "'earliest' (the default), 'latest', an offset, -N for the last N of each partition, or @TIME: "
                    + "milliseconds since 1970 or as 2026-11-21T11:22:33Z."),
            .init("follow", "Goes on when the end is reached, and waits for more. Without it that is the end."),
            .init("max", value: "N", "Ends after so many records."),
            .init("partition", value: "N", mayRepeat: true, "Only this partition (all)."),
            .init(
                "group", value: "GROUP",
                "Joins the group: reads the partitions that are assigned, from where the group is, and commits what was "
                    + "printed. With --partition it does not join, and the group must have no members."),
            .init("committed", "Leaves out records of transactions that were not committed."),
            .init("keys", "Prints the key before the value."),
            .init("headers", "Prints the headers, as NAME=VALUE with commas between them."),
            .init("offsets", "Prints partition and offset."),
            .init("timestamps", "Prints the time."),
            .init("separator", value: "TEXT", "What stands between these (a tab)."),
        ],
        commonFlags: ClientFlags.all, operands: [.init("TOPIC", "Its name.")],
        notes: [
            """
            A line is a record: time, partition, offset, headers, key, value, as far as they are asked for; null is
            'null'. The bytes are printed as they are.
            """,
            #"""
            With --json a line is {"topic": …, "partition": 0, "offset": 7, "timestamp": 1700000000000,
            "timestampType": "create", "key": "a", "value": "text", "headers": [{"name": "h", "value": "x"}]}. What is not
            UTF-8 stands in "keyBase64", "valueBase64" instead. "timestampType" is "append" where the broker's clock counts.
            """#,
            "Ctrl-C ends after the record that is being printed, with 130. A reader that has gone is a good end.",
        ],
        examples: [
            "martlet consume orders", "martlet consume orders --from latest --follow --keys",
            "martlet consume orders --from @2026-11-21T11:00:00Z --max 10 --json | jq .value",
        ])

    static func run(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) -> Never {
        let shape = try Shape(arguments)
        try Session.run(arguments) { session in try await consume(session, shape) }
    }

    private enum Start: Sendable {
        case spec(OffsetSpec)
        case offset(Offset)
        /// So many before the end.
        case last(Int64)
    }

    /// What the flags say.
    private struct Shape: Sendable {
        var topic: String
        var start = Start.spec(.earliest)
        var follows: Bool
        var limit: Int
        var partitions: [Int32] = []
        var group: String?
        var isCommitted: Bool
        var format: RecordFormat

        var reading: RecordReading.Shape {
            .init(follows: follows, limit: limit, isCommitted: isCommitted, format: format, group: group)
        }

        init(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) {
            topic = arguments.operands[0]
            if let fault = TopicName.fault(topic) { throw CommandLineArguments.Fault(fault) }
            follows = arguments.has("follow")
            limit = try arguments.number("max", in: 1...Int.max) ?? .max
            for text in arguments.values("partition") {
                guard let number = Int32(text), number >= 0 else {
                    throw CommandLineArguments.Fault("--partition needs a whole number from 0, not '\(text)'")
                }
                if !partitions.contains(number) { partitions.append(number) }
            }
            group = arguments.value("group")
            if group == "" { throw CommandLineArguments.Fault("--group needs a name") }
            isCommitted = arguments.has("committed")
            format = RecordFormat(arguments)
            guard let text = arguments.value("from") else { return }
            start = try Self.start(text)
            if case .spec(.latest) = start, !follows {
                throw CommandLineArguments.Fault("--from latest shows nothing without --follow")
            }
            if group != nil { throw CommandLineArguments.Fault("--from and --group both say where to begin: give one") }
        }

        private static func start(_ text: String) throws(CommandLineArguments.Fault) -> Start {
            if text == "earliest" { return .spec(.earliest) }
            if text == "latest" { return .spec(.latest) }
            if text.hasPrefix("@") {
                let time = String(text.dropFirst())
                if let milliseconds = Int64(time) ?? WallTime.milliseconds(time), milliseconds >= 0 {
                    return .spec(.time(milliseconds))
                }
            } else if let number = Int64(text), number > -(1 << 62) {
                return text.hasPrefix("-") ? .last(-number) : .offset(number)
            }
            throw CommandLineArguments.Fault(
                "--from cannot be '\(text)': give earliest, latest, an offset, -N, or @TIME as @2026-11-21T11:22:33Z")
        }
    }

    // MARK: Reading

    private static func consume(_ session: Session, _ shape: Shape) async throws {
        let client = session.client
        let partitions = try await partitions(client, shape)
        let output = StandardOutput(session)
        let reading = RecordReading(session, shape.reading, output)
        session.onInterrupt { reading.interrupt() }
        do {
            if let group = shape.group, shape.partitions.isEmpty {
                try await reading.run(as: GroupMembership(client, group: group, topics: [shape.topic]))
            } else {
                try await reading.run(from: try await positions(client, shape, partitions))
            }
        } catch {
            // what was read before it went wrong is printed
            _ = try await output.flush()
            guard session.isInterrupted else { throw error }
        }
        if session.isInterrupted { throw CommandFault(nil, .interrupted) }
    }

    private static func partitions(_ client: Client, _ shape: Shape) async throws -> [TopicPartition] {
        guard let topic = try await client.topics(named: [shape.topic]).first, topic.error == .none else {
            let code = client.cluster.topic(shape.topic)?.error ?? .unknownTopicOrPartition
            throw ClientError.refused(what: "topic \(shape.topic)", code, message: nil)
        }
        let known = topic.partitions.map(\.index)
        if let missing = shape.partitions.first(where: { !known.contains($0) }) {
            throw CommandFault("topic \(shape.topic) has no partition \(missing): it has \(known.count), from 0")
        }
        return (shape.partitions.isEmpty ? known : shape.partitions).map { TopicPartition(shape.topic, $0) }
    }

    private static func positions(
        _ client: Client, _ shape: Shape, _ partitions: [TopicPartition]
    ) async throws -> [(partition: TopicPartition, offset: Offset)] {
        func ask(_ spec: OffsetSpec) async throws -> [Offset?] {
            try await client.offsets(spec, of: partitions, isCommitted: shape.isCommitted).map { found in
                if let error = found.error { throw error }
                return found.offset
            }
        }
        if let group = shape.group {
            try await checkMemberless(group, client)
            return try await GroupPositions.of(group, partitions, client)
        }
        let offsets: [Offset]
        switch shape.start {
        case .spec(let spec):
            // no record is as late as a time: what comes from now on is
            let found = try await ask(spec)
            let latest = found.contains(nil) ? try await ask(.latest) : found
            offsets = zip(found, latest).map { $0 ?? $1 ?? 0 }
        case .offset(let offset):
            let earliest = try await ask(.earliest), latest = try await ask(.latest)
            offsets = try partitions.indices.map { index in
                let (start, end) = (earliest[index] ?? 0, latest[index] ?? 0)
                // of several partitions one may be shorter than another: that is no mistake
                guard partitions.count > 1 || (start...max(start, end)).contains(offset) else {
                    throw CommandFault("offset \(offset) of \(partitions[index]) is out of range: it holds \(start) to \(end)")
                }
                return min(max(offset, start), max(start, end))
            }
        case .last(let count):
            let earliest = try await ask(.earliest), latest = try await ask(.latest)
            offsets = zip(earliest, latest).map { start, end in max(start ?? 0, (end ?? 0) - count) }
        }
        return zip(partitions, offsets).map { ($0, $1) }
    }

    private static func checkMemberless(_ group: String, _ client: Client) async throws {
        do {
            let count = try await client.group(group).members.count
            guard count > 0 else { return }
            let members = "\(count) \(count == 1 ? "member" : "members")"
            throw CommandFault("group \(group) has \(members), who commit for it: wait until they are gone")
        } catch let error as ClientError where error.code == .groupIDNotFound {}
    }
}
