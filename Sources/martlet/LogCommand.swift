import Glibc
import MartletBasics
import MartletLog
import MartletReactor

/// `martlet log`: looks at log directories, Kafka's or our own, without a broker. What it reads it never changes.
enum LogCommand {
    static let dump = CommandLineArguments.Command(
        "dump",
        """
        Shows what files of a log hold: segments, indexes, transaction indexes, producer snapshots, checkpoints.

        A PATH is a file, a partition's folder, or a whole log directory. Damaged files are shown as far as they can be read.
        Records of __consumer_offsets, __transaction_state and __share_group_state are decoded, by the name of their folder.
        """,
        flags: [
            .init("records", "Shows the records of each batch: key, value and headers."),
            .init("json", "One JSON object a line, for programs; each names its 'file' and its 'kind'."),
            .init("offsets", "Takes all records for those of __consumer_offsets."),
            .init("transactions", "Takes all records for those of __transaction_state."),
        ], operands: ["PATH…"])

    static let verify = CommandLineArguments.Command(
        "verify",
        """
        Checks every byte of log directories: checksums, framing, offsets, indexes, snapshots, checkpoints, leader epochs.

        A PATH is a log directory or the folder of one partition. In a directory that was not stopped cleanly, what the next
        start recovers by itself is a note and no damage; a directory in use looks like one.
        Exit code 0: sound. 1: damage was found; each line names the file and the byte. 2: it could not be looked at.
        """,
        flags: [
            .init("notes", "Also tells what is allowed and worth knowing."),
            .init("json", "One JSON object a line, for programs; the last one has the 'counts' and whether it is 'sound'."),
        ], operands: ["PATH…"])

    private static var help: String {
        """
        Looks at log directories, without a broker and without changing anything.

          martlet log dump [--records] [--json] PATH…    what files of a log hold
          martlet log verify [--notes] [--json] PATH…    whether log directories are sound
          martlet log dump --help, verify --help         more on each
        """
    }

    /// `words`: what follows `martlet log`.
    static func run(_ words: [String]) -> Never {
        guard let name = words.first, name != "--help", name != "help" else {
            Terminal.say(help)
            exit(words.isEmpty ? 2 : 0)
        }
        if let command = [dump, verify].first(where: { $0.name == name }), words.contains("--help") {
            Terminal.say(command.help(program: "martlet log"))
            exit(0)
        }
        // any number of paths: they are told from flags here, none of which takes a value
        var (flags, paths) = ([name], [String]())
        var flagsEnded = false
        for word in words.dropFirst() {
            if !flagsEnded, word == "--" {
                flagsEnded = true
            } else if !flagsEnded, word.hasPrefix("-") {
                flags.append(word)
            } else {
                paths.append(word.count > 1 && word.hasSuffix("/") ? String(word.dropLast()) : word)
            }
        }
        let arguments: CommandLineArguments
        do throws(CommandLineArguments.Fault) {
            arguments = try CommandLineArguments(flags, commands: [dump, verify])
        } catch { fail("\(error)") }
        guard !paths.isEmpty else { fail("a path is missing: martlet log \(name) PATH") }
        switch name {
        case "dump": runDump(arguments, paths)
        default: runVerify(arguments, paths)
        }
    }

    private static func fail(_ sentence: String) -> Never {
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
private final class Output {
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
