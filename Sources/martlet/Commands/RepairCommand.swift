import Glibc
import MartletBasics
import MartletLog
import MartletReactor

/// `martlet log verify --repair`.
enum RepairCommand {
    static func run(_ arguments: CommandLineArguments, _ paths: [String]) -> Never {
        if arguments.has("give-up-records"), !arguments.has("yes") { LogCommand.fail("--give-up-records goes with --yes") }
        let output = Output()
        var isDone = true
        for path in paths {
            do throws(LogError) {
                if try !repair(path, arguments, output) { isDone = false }
            } catch {
                output.flush()
                LogCommand.fail("\(error)")
            }
        }
        output.flush()
        exit(isDone ? 0 : 1)
    }

    /// Whether nothing is left to be done.
    private static func repair(_ path: String, _ arguments: CommandLineArguments, _ output: Output) throws(LogError) -> Bool {
        let disk = RealDisk()
        guard let subject = try LogVerifier.subject(path, on: disk) else {
            LogCommand.fail("\(path) is neither a log directory nor a partition's folder")
        }
        let repair = try LogRepair(path, as: subject, on: disk, aside: arguments.value("aside"))
        defer { repair.close() }
        let isJSON = arguments.has("json")
        for step in repair.steps { output.line(isJSON ? String(decoding: step.json.bytes, as: UTF8.self) : "\(step)") }
        func conclude(_ word: String, _ sentence: String, left: Int) {
            let value: JSONValue = [
                "path": .string(path), "outcome": .string(word), "left": .int(Int64(left)),
                "aside": .string(repair.asideFolder),
            ]
            output.line(isJSON ? String(decoding: value.bytes, as: UTF8.self) : sentence)
        }
        guard repair.isNeeded else {
            conclude("nothing", "\(path): nothing is to be repaired", left: repair.steps.count)
            return repair.steps.isEmpty
        }
        guard arguments.has("yes") else {
            let more = repair.givesUpRecords ? "; what gives up records, with --give-up-records" : ""
            conclude(
                "shown",
                "\(path): nothing was changed. --yes does it\(more). What is taken out goes to \(repair.asideFolder)",
                left: repair.steps.count)
            return false
        }
        let left = try repair.perform(
            givingUpRecords: arguments.has("give-up-records"), clock: RealClock(),
            logger: Logger("repair", to: StandardErrorSink()))
        var verifier = LogVerifier(disk: disk)
        try verifier.verify(path, as: subject)
        let damages = verifier.findings.filter { $0.severity == .damage }
        for finding in damages { output.line(isJSON ? String(decoding: finding.json.bytes, as: UTF8.self) : "\(finding)") }
        let undone = left.isEmpty ? "" : "; \(left.count) steps were left undone"
        let state = damages.isEmpty ? "sound" : "\(damages.count) damages are left"
        conclude(
            damages.isEmpty && left.isEmpty ? "repaired" : "left",
            "\(path): \(state)\(undone). What was taken out is in \(repair.asideFolder)",
            left: left.count)
        return damages.isEmpty && left.isEmpty
    }
}

/// What the log says while it is made anew, beside what the command says.
private final class StandardErrorSink: LogSink {
    func wants(_ level: LogLevel, _: StaticString) -> Bool { level >= .warning }
    func write(_ level: LogLevel, _: StaticString, _ message: String, _ fields: [(String, String)]) {
        Terminal.complain("\(message) " + fields.map { "\($0.0)=\($0.1)" }.joined(separator: " "))
    }
}
