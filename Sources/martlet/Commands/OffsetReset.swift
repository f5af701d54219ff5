import MartletBasics
import MartletClient
import MartletModel
import MartletReactor

/// `martlet group reset-offsets`: says where a group is to go on, and takes it there when it is told to.
struct OffsetReset: Sendable {
    private static let targets = ["to-earliest", "to-latest", "to-offset", "to-datetime", "shift-by", "from-file"]

    static let definition = CommandLineArguments.Command(
        "reset-offsets", "Sets where a group goes on: shows what would change, and changes it with --execute.",
        flags: [
            .init("topic", value: "TOPIC[:N,N]", mayRepeat: true, "A topic, or some of its partitions."),
            .init("all-topics", "Every partition in which the group has committed something."),
            .init("to-earliest", "To the first record that is there."),
            .init("to-latest", "To the end: only what comes from now on."),
            .init("to-offset", value: "N", "To this offset."),
            .init("to-datetime", value: "TIME", "To the first record of that time or later: 2026-11-21T11:22:33Z."),
            .init("shift-by", value: "N", "Forward by so many records from what is committed; back, if N is below zero."),
            .init("from-file", value: "FILE", "To what the file says: lines of TOPIC,PARTITION,OFFSET."),
            .init("execute", "Does it. Without this flag nothing is changed."),
        ],
        commonFlags: ClientFlags.all, operands: [.init("GROUP", "Its id.")],
        notes: [
            """
            Only for a group without members: those would go on from where they are, and commit over it. An offset beyond
            what the partition holds becomes the nearest that it does.
            """,
            #"""
            With --json: {"group": …, "executed": false, "offsets": [{"topic": …, "partition": 0, "from": 5, "to": 0}, …]}.
            `from` is null where nothing was committed.
            """#,
        ],
        examples: [
            "martlet group reset-offsets billing --topic orders --to-earliest",
            "martlet group reset-offsets billing --all-topics --to-datetime 2026-11-21T00:00:00Z --execute",
            "martlet group reset-offsets billing --topic orders:0,2 --shift-by -100 --execute",
        ])

    private enum Target: Sendable {
        case spec(OffsetSpec)
        case offset(Offset)
        case shift(Int64)
        case file(String)
    }

    private struct Scope: Sendable {
        var topic: String
        /// Empty means all.
        var partitions: [Int32]
    }

    /// Where a group goes on in a partition, before and after.
    private struct Move: Sendable {
        var partition: TopicPartition
        var from: Offset?
        var to: Offset
        var isClamped: Bool
    }

    private let group: String
    private let target: Target
    private let scopes: [Scope]
    private let isExecuted: Bool

    // MARK: What is asked for

    init(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) {
        group = arguments.operands[0]
        isExecuted = arguments.has("execute")
        let given = Self.targets.filter { arguments.has($0) }
        guard given.count == 1 else {
            let names = Self.targets.map { "--\($0)" }.joined(separator: ", ")
            let several = given.map { "--\($0)" }.joined(separator: ", ")
            throw CommandLineArguments.Fault(
                given.isEmpty ? "where to? Give one of \(names)" : "only one of \(several) can be done")
        }
        let value = arguments.value(given[0]) ?? ""
        switch given[0] {
        case "to-earliest": target = .spec(.earliest)
        case "to-latest": target = .spec(.latest)
        case "to-datetime":
            guard let time = WallTime.milliseconds(value), time >= 0 else {
                throw CommandLineArguments.Fault("--to-datetime cannot be '\(value)': write it as 2026-11-21T11:22:33Z")
            }
            target = .spec(.time(time))
        case "from-file": target = .file(value)
        case "to-offset":
            target = .offset(try arguments.number("to-offset", in: 0...Int64.max) ?? 0)
        default:
            target = .shift(try arguments.number("shift-by", in: -(1 << 62)...(1 << 62)) ?? 0)
        }
        var scopes: [Scope] = []
        for text in arguments.values("topic") { scopes.append(try Self.scope(text)) }
        self.scopes = scopes
        let isEverything = arguments.has("all-topics")
        if case .file = target {
            guard scopes.isEmpty, !isEverything else {
                throw CommandLineArguments.Fault(
                    "the file of --from-file says which partitions: leave out --topic and --all-topics")
            }
        } else if scopes.isEmpty != isEverything {
            throw CommandLineArguments.Fault("which partitions? Give --topic TOPIC, or --all-topics, and not both")
        }
    }

    private static func scope(_ text: String) throws(CommandLineArguments.Fault) -> Scope {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        var scope = Scope(topic: String(parts[0]), partitions: [])
        if let fault = TopicName.fault(scope.topic) { throw CommandLineArguments.Fault(fault) }
        guard parts.count == 2 else { return scope }
        for word in parts[1].split(separator: ",", omittingEmptySubsequences: false) {
            guard let number = Int32(word), number >= 0 else {
                throw CommandLineArguments.Fault("--topic \(text): '\(word)' is no partition; write TOPIC:0,1")
            }
            if !scope.partitions.contains(number) { scope.partitions.append(number) }
        }
        return scope
    }

    // MARK: What is done

    func run(_ session: Session) async throws {
        let client = session.client
        do {
            let described = try await client.group(group)
            if described.isActive {
                let count = described.members.count
                throw CommandFault(
                    "group \(group) is \(described.state) with \(count) \(count == 1 ? "member" : "members"): stop them first")
            }
        } catch let error as ClientError where error.code == .groupIDNotFound {
            // a group that has nothing yet can be given a place to begin
            guard !scopes.isEmpty || isFile else { throw error }
        }
        let committed = try await client.committed(by: group)
        let moves = try await moves(client, committed)
        if isExecuted, !moves.isEmpty {
            let outcomes = try await client.commit(moves.map { ($0.partition, $0.to) }, for: group)
            for error in outcomes.compactMap(\.error) { session.complain(partly: "\(error)") }
        }
        show(moves, session)
    }

    private var isFile: Bool { if case .file = target { true } else { false } }

    private func moves(_ client: Client, _ committed: [CommittedOffset]) async throws -> [Move] {
        func current(_ partition: TopicPartition) -> Offset? { committed.first { $0.partition == partition }?.offset }
        var wanted: [TopicPartition: Offset] = [:]
        let partitions: [TopicPartition]
        if case .file(let path) = target {
            let lines = try Self.read(path)
            for line in lines { wanted[line.partition] = line.offset }
            partitions = lines.map(\.partition)
        } else {
            partitions = scopes.isEmpty ? committed.map(\.partition) : try await chosen(client)
        }
        guard !partitions.isEmpty else { return [] }
        let starts = try await offsets(.earliest, partitions, client)
        let ends = try await offsets(.latest, partitions, client)
        var found = ends
        if case .spec(let spec) = target, spec != .latest {
            found = zip(try await client.offsets(spec, of: partitions), ends).map { $0.offset ?? $1 }
        }
        return partitions.enumerated().map { index, partition in
            let from = current(partition)
            let aim: Offset =
                switch target {
                case .spec: found[index]
                case .offset(let offset): offset
                case .shift(let count): (from ?? starts[index]).addingReportingOverflow(count).partialValue
                case .file: wanted[partition] ?? 0
                }
            let to = min(max(aim, starts[index]), max(starts[index], ends[index]))
            return Move(partition: partition, from: from, to: to, isClamped: to != aim)
        }
    }

    private func offsets(
        _ spec: OffsetSpec, _ partitions: [TopicPartition], _ client: Client
    ) async throws -> [Offset] {
        try await client.offsets(spec, of: partitions).map { found in
            if let error = found.error { throw error }
            return found.offset ?? 0
        }
    }

    private func chosen(_ client: Client) async throws -> [TopicPartition] {
        var partitions: [TopicPartition] = []
        let topics = try await client.topics(named: scopes.map(\.topic))
        for (scope, topic) in zip(scopes, topics) {
            guard topic.error == .none else {
                throw ClientError.refused(what: "topic \(scope.topic)", topic.error, message: nil)
            }
            let known = topic.partitions.map(\.index)
            if let missing = scope.partitions.first(where: { !known.contains($0) }) {
                throw CommandFault("topic \(scope.topic) has no partition \(missing): it has \(known.count), from 0")
            }
            partitions += (scope.partitions.isEmpty ? known : scope.partitions).map { TopicPartition(scope.topic, $0) }
        }
        return Set(partitions).sorted()
    }

    /// Lines of `topic,partition,offset`; empty ones, and those that begin with #, are passed over.
    private static func read(_ path: String) throws -> [(partition: TopicPartition, offset: Offset)] {
        guard let bytes = try RealDisk().contents(path) else {
            throw CommandLineArguments.Fault("there is no file \(path): give --from-file one that is there")
        }
        var lines: [(partition: TopicPartition, offset: Offset)] = []
        let all = String(decoding: bytes, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
        for (index, line) in all.enumerated() {
            let text = line.trimmed
            if text.isEmpty || text.hasPrefix("#") { continue }
            let words = text.split(separator: ",", omittingEmptySubsequences: false).map { $0.trimmed }
            guard words.count == 3, TopicName.isValid(words[0]), let partition = Int32(words[1]), partition >= 0,
                let offset = Offset(words[2]), offset >= 0
            else { throw CommandFault("\(path), line \(index + 1): '\(text)' is not TOPIC,PARTITION,OFFSET") }
            let place = TopicPartition(words[0], partition)
            guard !lines.contains(where: { $0.partition == place }) else {
                throw CommandFault("\(path), line \(index + 1): \(place) stands there twice")
            }
            lines.append((place, offset))
        }
        guard !lines.isEmpty else { throw CommandFault("\(path) has no line of TOPIC,PARTITION,OFFSET") }
        return lines
    }

    // MARK: What is shown

    private func show(_ moves: [Move], _ session: Session) {
        var table = TextTable([
            .init("TOPIC"), .init("PARTITION", .right), .init("FROM", .right), .init("TO", .right), .init(""),
        ])
        var entries: [JSONValue] = []
        for move in moves {
            table.add(
                move.partition.topic, "\(move.partition.partition)", move.from.map { "\($0)" } ?? "", "\(move.to)",
                move.isClamped ? "the nearest that is there" : " ")
            entries.append([
                "topic": .string(move.partition.topic), "partition": .int(Int64(move.partition.partition)),
                "from": move.from.map { .int($0) } ?? .null, "to": .int(move.to),
            ])
        }
        session.show(
            ["group": .string(group), "executed": .bool(isExecuted && !moves.isEmpty), "offsets": .array(entries)],
            moves.isEmpty ? "" : table.text(isStyled: session.isStyled))
        guard !session.isJSON else { return }
        if moves.isEmpty {
            session.remark("Group \(group) has committed nothing: there is nothing to set.")
        } else if !isExecuted {
            session.remark("Nothing was changed: --execute does it.")
        }
    }
}
