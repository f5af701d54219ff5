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
                "Begins where the group has committed, and commits for it what was printed. Only while it has no members."),
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
        let positions = try await positions(client, shape, partitions)
        var ends: [(partition: TopicPartition, end: Offset)]?
        if !shape.follows {
            ends = try await client.offsets(.latest, of: partitions, isCommitted: shape.isCommitted).map { found in
                if let error = found.error { throw error }
                return (found.partition, found.offset ?? 0)
            }
        }
        session.onInterrupt {}
        var settings = Consumer.Settings()
        settings.isCommitted = shape.isCommitted
        let reading = Reading(
            session: session, shape: shape, consumer: Consumer(client, from: positions, settings: settings),
            output: StandardOutput(session), ends: ends)
        do {
            try await reading.run()
        } catch {
            // what was read before it went wrong is printed
            _ = try await reading.output.flush()
            throw error
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
        if let group = shape.group { return try await groupPositions(client, group, partitions, try await ask(.earliest)) }
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

    private static func groupPositions(
        _ client: Client, _ group: String, _ partitions: [TopicPartition], _ earliest: [Offset?]
    ) async throws -> [(partition: TopicPartition, offset: Offset)] {
        do {
            let described = try await client.group(group)
            guard described.members.isEmpty else {
                let count = described.members.count
                let members = "\(count) \(count == 1 ? "member" : "members")"
                throw CommandFault("group \(group) has \(members), who commit for it: wait until they are gone")
            }
        } catch let error as ClientError where error.code == .groupIDNotFound {}
        let committed = try await client.committed(by: group)
        return zip(partitions, earliest).map { partition, start in
            let known = committed.first { $0.partition == partition }?.offset
            return (partition, max(known ?? 0, start ?? 0))
        }
    }

    /// The reading itself, until its end.
    private final class Reading: @unchecked Sendable {
        /// How often a group's offsets are committed.
        private static let commitInterval = Interval.seconds(5)

        let session: Session
        let shape: Shape
        let consumer: Consumer
        let output: StandardOutput
        private var ends: [(partition: TopicPartition, end: Offset)]?
        private var count = 0
        private var skippedCount = 0
        private var committedAt: Instant

        init(
            session: Session, shape: Shape, consumer: Consumer, output: StandardOutput,
            ends: [(partition: TopicPartition, end: Offset)]?
        ) {
            self.session = session
            self.shape = shape
            self.consumer = consumer
            self.output = output
            self.ends = ends
            committedAt = session.host.clock.now
        }

        func run() async throws {
            dropFinished()
            while !consumer.positions.isEmpty, count < shape.limit, !session.isInterrupted {
                for records in try await consumer.poll() {
                    guard try await show(records) else { return }
                    consumer.advance(records)
                    if count >= shape.limit || session.isInterrupted { break }
                }
                tellSkipped()
                // what is read and printed is committed, never what is not
                guard try await output.flush() else { return }
                if session.host.clock.now - committedAt >= Self.commitInterval { try await commit() }
                dropFinished()
            }
            try await commit()
        }

        /// False where nobody reads any more.
        private func show(_ records: FetchedRecords) async throws -> Bool {
            let partition = records.partition
            let end = ends?.first { $0.partition == partition }?.end ?? .max
            var goesOn = true
            while goesOn, !session.isInterrupted, try records.nextBatch({ [self] record in
                guard record.offset < end, count < shape.limit else {
                    goesOn = false
                    return false
                }
                shape.format.write(record, of: partition, to: output)
                count += 1
                return count < shape.limit
            }) {
                if output.isFull, try await !output.flush() { return false }
                if count >= shape.limit { break }
            }
            return true
        }

        private func dropFinished() {
            guard let ends else { return }
            for (partition, offset) in consumer.positions {
                let end = ends.first { $0.partition == partition }?.end ?? 0
                guard offset >= end else { continue }
                finished.append((partition, min(offset, end)))
                consumer.drop(partition)
            }
        }

        private var finished: [(partition: TopicPartition, offset: Offset)] = []

        private func tellSkipped() {
            for one in consumer.skipped.dropFirst(skippedCount) {
                session.remark(
                    "\(one.partition): records \(one.from) to \(one.to - 1) were deleted before they could be read")
            }
            skippedCount = consumer.skipped.count
        }

        private func commit() async throws {
            committedAt = session.host.clock.now
            guard let group = shape.group, count > 0 else { return }
            let outcomes = try await session.client.commit(finished + consumer.positions, for: group)
            if let error = outcomes.lazy.compactMap(\.error).first { throw error }
        }
    }
}
