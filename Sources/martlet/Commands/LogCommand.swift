import Glibc
import MartletBasics
import MartletLog
import MartletReactor

/// `martlet log`: looks at log directories, Kafka's or our own, without a broker. What it reads it changes only by
/// `verify --repair --yes`.
enum LogCommand: ProgramCommand {
    static let definition = CommandLineArguments.Command(
        "log", "Looks at log directories, and repairs them, without a broker.", subcommands: [dump, verify])

    private static let dump = CommandLineArguments.Command(
        "dump",
        "Shows what files of a log hold: segments, indexes, transaction indexes, producer snapshots, checkpoints.",
        flags: [
            .init("records", "Shows the records of each batch: key, value and headers."),
            .init("json", "One JSON object a line, for programs; each names its 'file' and its 'kind'."),
            .init("offsets", "Takes all records for those of __consumer_offsets."),
            .init("transactions", "Takes all records for those of __transaction_state."),
        ], operands: [.init("PATH", mayRepeat: true, "A file, a partition's folder, or a log directory.")],
        notes: [
            """
            A PATH is a file, a partition's folder, or a whole log directory. Damaged files are shown as far as they can be read.
            Records of __consumer_offsets, __transaction_state and __share_group_state are decoded, by the name of their folder.
            """
        ],
        examples: ["martlet log dump data/log/orders-0", "martlet log dump --records data/log/orders-0/00000000000000000000.log"])

    private static let verify = CommandLineArguments.Command(
        "verify",
        "Checks every byte of log directories: checksums, framing, offsets, indexes, snapshots, checkpoints, leader epochs.",
        flags: [
            .init("notes", "Also tells what is allowed and worth knowing."),
            .init("json", "One JSON object a line, for programs; the last one has the 'counts' and whether it is 'sound'."),
            .init("repair", "Shows what could be done about the damage. Changes nothing by itself."),
            .init("yes", "With --repair: does it, but for what would give up records."),
            .init("give-up-records", "With --repair --yes: also cuts logs before damage that has records behind it."),
            .init("aside", value: "FOLDER", "With --repair: where what is taken out is kept (LOGDIR-set-aside)."),
        ], operands: [.init("PATH", mayRepeat: true, "A log directory, or the folder of one partition.")],
        notes: [
            """
            A PATH is a log directory or the folder of one partition. In a directory that was not stopped cleanly, what the next
            start recovers by itself is a note and no damage; a directory in use looks like one.
            Exit code 0: sound. 1: damage was found; each line names the file and the byte. 2: it could not be looked at.
            """,
            """
            --repair needs the log directory for itself: stop the broker first. Indexes, snapshots and leader epochs are made
            anew from the batches; a torn tail is cut, as a start of the broker would do. Where a batch is damaged and others
            follow it, all that can be kept is what lies before it: that is shown, and done with --give-up-records only.
            Whatever is taken out is copied to the folder for it first, byte for byte. Exit code 0: nothing is left to be done.
            """,
        ],
        examples: [
            "martlet log verify --repair data/log", "martlet log verify --repair --yes data/log",
            "martlet log verify data/log", "martlet log verify --json data/log/orders-0"])

    static func run(_ arguments: CommandLineArguments) -> Never {
        let paths = arguments.operands.map { $0.count > 1 && $0.hasSuffix("/") ? String($0.dropLast()) : $0 }
        if arguments.command == "log dump" { runDump(arguments, paths) }
        if arguments.has("repair") { RepairCommand.run(arguments, paths) }
        for flag in ["yes", "give-up-records", "aside"] where arguments.has(flag) { fail("--\(flag) goes with --repair") }
        runVerify(arguments, paths)
    }

    static func fail(_ sentence: String) -> Never {
        Terminal.complain("martlet: \(sentence)")
        exit(2)
    }

    private static func runDump(_ arguments: CommandLineArguments, _ paths: [String]) -> Never {
        guard !arguments.has("offsets") || !arguments.has("transactions") else {
            fail("--offsets and --transactions exclude each other")
        }
        var options = LogDumper.Options()
        options.records = arguments.has("records")
        options.json = arguments.has("json")
        if arguments.has("offsets") { options.coordinator = .groups }
        if arguments.has("transactions") { options.coordinator = .transactions }
        let output = Output()
        let dumper = LogDumper(disk: RealDisk(), options: options, emit: output.line)
        for path in paths {
            do throws(LogError) {
                guard try dumper.show(path) else {
                    output.flush()
                    fail("\(path) is no file of a log, no partition's folder and no log directory")
                }
            } catch {
                output.flush()
                fail("\(error)")
            }
        }
        output.flush()
        exit(0)
    }

    private static func runVerify(_ arguments: CommandLineArguments, _ paths: [String]) -> Never {
        let disk = RealDisk()
        var verifier = LogVerifier(disk: disk)
        for path in paths {
            do throws(LogError) {
                guard let subject = try LogVerifier.subject(path, on: disk) else {
                    fail("\(path) is neither a log directory nor a partition's folder")
                }
                try verifier.verify(path, as: subject)
            } catch { fail("\(error)") }
        }
        let output = Output()
        let told = verifier.findings.filter { $0.severity == .damage || arguments.has("notes") }
        for finding in told {
            output.line(arguments.has("json") ? String(decoding: finding.json.bytes, as: UTF8.self) : "\(finding)")
        }
        output.line(arguments.has("json") ? summary(verifier) : sentence(verifier))
        output.flush()
        exit(verifier.isSound ? 0 : 1)
    }

    private static func summary(_ verifier: LogVerifier) -> String {
        let damages = verifier.findings.count { $0.severity == .damage }
        let value: JSONValue = [
            "sound": .bool(verifier.isSound), "damages": .int(Int64(damages)),
            "notes": .int(Int64(verifier.findings.count - damages)), "counts": verifier.counts.json,
        ]
        return String(decoding: value.bytes, as: UTF8.self)
    }

    private static func sentence(_ verifier: LogVerifier) -> String {
        let damages = verifier.findings.count { $0.severity == .damage }
        let notes = verifier.findings.count - damages
        let counts = verifier.counts
        return """
            \(damages == 0 ? "sound" : "\(damages) damages"), \(notes) notes: \(counts.partitions) partitions, \
            \(counts.segments) segments, \(counts.batches) batches, \(counts.records) records, \(counts.bytes) bytes
            """
    }
}

/// Lines for the terminal, or another program, in pieces that are worth a system call.
final class Output {
    private static let pieceBytes = 64 * 1024
    private var text = ""

    func line(_ line: String) {
        text += line
        text += "\n"
        if text.utf8.count >= Self.pieceBytes { flush() }
    }

    func flush() {
        guard !text.isEmpty else { return }
        text.removeLast()
        Terminal.say(text)
        text = ""
    }
}
