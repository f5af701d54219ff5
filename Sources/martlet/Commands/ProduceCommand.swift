import Glibc
import MartletBasics
import MartletClient
import MartletModel

/// `martlet produce`: lines of standard input become records.
enum ProduceCommand: ProgramCommand {
    private static let codecs = ["none", "gzip", "snappy", "lz4", "zstd"]

    static let definition = CommandLineArguments.Command(
        "produce", "Writes the lines of standard input to a topic, a record each.",
        flags: [
            .init("key-separator", value: "TEXT", "What stands before it in a line is the key. Without it there is no key."),
            .init("header", value: "NAME=VALUE", mayRepeat: true, "A header of every record."),
            .init("partition", value: "N", "Where to write (by the key, else to one after the other)."),
            .init("acks", value: "HOW", choices: ["0", "1", "all"], "What is waited for (all)."),
            .init("compression", value: "CODEC", choices: codecs, "How batches are compressed (none)."),
            .init("empty-is-null", "An empty value is null, which deletes the key on a compacted topic."),
        ],
        commonFlags: ClientFlags.all, operands: [.init("TOPIC", "Its name; most brokers create one that is not there.")],
        notes: [
            #"""
            With --json each line is a record as 'martlet consume --json' prints it: {"value": "text", "key": "a",
            "headers": [{"name": "h", "value": "x"}], "partition": 0, "timestamp": 1700000000000}, all but "value" as you
            like. What is not UTF-8 stands in "valueBase64", "keyBase64". A value that is no text is written as its JSON.
            """#,
            #"""
            With --json the end is told as {"topic": …, "records": 3, "partitions": [{"partition": 0, "records": 3,
            "firstOffset": 0, "lastOffset": 2}]}; offsets are null with --acks 0.
            """#,
            """
            With --acks all each record is written once, also when a connection is lost on the way. Ctrl-C writes what was
            read, and ends with 130.
            """,
        ],
        examples: [
            "echo 'hello, world' | martlet produce greetings",
            "printf 'a:1\\nb:2\\n' | martlet produce counts --key-separator :",
            "martlet consume orders --json | martlet produce orders-copy --json",
        ])

    static func run(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) -> Never {
        let shape = try Shape(arguments)
        try Session.run(arguments) { session in try await produce(session, shape) }
    }

    /// What the flags say.
    private struct Shape: Sendable {
        var topic: String
        var separator: [UInt8]?
        var headers: [RecordHeader]
        var partition: Int32?
        var isEmptyNull: Bool
        var isJSON: Bool
        var settings = Producer.Settings()

        init(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) {
            topic = arguments.operands[0]
            if let fault = TopicName.fault(topic) { throw CommandLineArguments.Fault(fault) }
            isJSON = arguments.has("json")
            if let text = arguments.value("key-separator") {
                guard !text.isEmpty, !isJSON else {
                    throw CommandLineArguments.Fault("--key-separator needs a text, and cannot stand beside --json")
                }
                separator = Array(text.utf8)
            }
            headers = try arguments.assignments("header").map { RecordHeader(Array($0.name.utf8), Array($0.value.utf8)) }
            partition = try arguments.number("partition", in: 0...Int32.max)
            isEmptyNull = arguments.has("empty-is-null")
            switch arguments.value("acks") {
            case "0": settings.acks = .none
            case "1": settings.acks = .leader
            default: settings.acks = .all
            }
            let codec = arguments.value("compression").flatMap { codecs.firstIndex(of: $0) } ?? 0
            settings.codec = CompressionCodec(rawValue: UInt8(codec)) ?? .none
        }

        func record(_ line: [UInt8]) throws(ClientError) -> ProducedRecord {
            var record = isJSON ? try RecordJSON.record(line) : plain(line)
            record.headers += headers
            record.partition = record.partition ?? partition
            if isEmptyNull, record.value?.isEmpty == true { record.value = nil }
            return record
        }

        /// A line without the separator is a value without a key.
        private func plain(_ line: [UInt8]) -> ProducedRecord {
            guard let separator, let place = firstPlace(of: separator, in: line) else { return ProducedRecord(value: line) }
            return ProducedRecord(
                key: Array(line[..<place]), value: Array(line[(place + separator.count)...]))
        }

        private func firstPlace(of part: [UInt8], in line: [UInt8]) -> Int? {
            guard line.count >= part.count else { return nil }
            return (0...line.count - part.count).first { line[$0] == part[0] && line[$0...].starts(with: part) }
        }
    }

    private static func produce(_ session: Session, _ shape: Shape) async throws {
        let producer = try await Producer.open(session.client, topic: shape.topic, settings: shape.settings)
        let input = StandardInput(session)
        session.onInterrupt { input.stop() }
        if Terminal.isTerminal(STDIN_FILENO) { session.remark("A record a line; Ctrl-D ends.") }
        var number = 0
        var fault: CommandFault?
        reading: while let lines = try await input.lines() {
            for line in lines {
                number += 1
                if shape.isJSON, line.allSatisfy({ $0 == 0x20 || $0 == 0x09 || $0 == 0x0D }) { continue }
                do throws(ClientError) {
                    try await producer.append(try shape.record(line))
                } catch {
                    guard case .invalid(let reason) = error else { throw error }
                    // what stood before it is written all the same
                    fault = CommandFault("line \(number): \(reason)")
                    break reading
                }
            }
            producer.send()
        }
        try await producer.finish()
        let count = producer.delivered.reduce(0) { $0 + $1.records }
        session.show(summary(shape.topic, count, producer.delivered), "")
        if !session.isJSON, Terminal.isTerminal(STDERR_FILENO) {
            session.remark("\(count) \(count == 1 ? "record" : "records") written to \(shape.topic)")
        }
        if let fault { throw fault }
        if session.isInterrupted { throw CommandFault(nil, .interrupted) }
    }

    private static func summary(_ topic: String, _ count: Int64, _ delivered: [Producer.Delivered]) -> JSONValue {
        [
            "topic": .string(topic), "records": .int(count),
            "partitions": .array(
                delivered.map { part in
                    [
                        "partition": .int(Int64(part.partition)), "records": .int(part.records),
                        "firstOffset": part.firstOffset.map { .int($0) } ?? .null,
                        "lastOffset": part.lastOffset.map { .int($0) } ?? .null,
                    ]
                }),
        ]
    }
}
