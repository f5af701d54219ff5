import Glibc
import MartletBasics
import MartletReactor
import Synchronization

/// The load of the benchmarks: measures one case against a broker that runs already, and prints one object of JSON.
/// `scripts/bench` starts the brokers, calls this in turn, and makes tables.
@main
enum MartletBench {
    private static let commands = [
        CommandLineArguments.Command("cases", "Lists the cases, an object of JSON each."),
        CommandLineArguments.Command(
            "run", "Measures one case against a broker that runs on this machine.",
            flags: [
                .init("case", value: "NAME", "what to measure: a name that 'cases' lists"),
                .init("host", value: "ADDRESS", "where the broker listens (127.0.0.1)"),
                .init("port", value: "PORT", "where the broker listens"),
                .init("pid", value: "PID", "the broker's process, for what it computes and holds"),
                .init("logs", value: "DIR", "the broker's log directory, for the limit beside a figure"),
                .init("seconds", value: "S", "how long to measure, after a warm-up (2)"),
                .init("smoke", "a fraction of a second, to see that the case runs"),
            ]),
        CommandLineArguments.Command("help", "Says this."),
    ]

    static func main() {
        let log = StandardErrorLog()
        do {
            let arguments = try CommandLineArguments(Array(CommandLine.arguments.dropFirst()), commands: commands)
            switch arguments.command {
            case "cases": listCases()
            case "run": try measure(arguments, log)
            default: for command in commands { StandardOutput.say(command.help(program: "martlet-bench")) }
            }
        } catch let fault as CommandLineArguments.Fault {
            Logger("bench", to: log).error(fault.description)
            exit(2)
        } catch {
            Logger("bench", to: log).error("\(error)")
            exit(1)
        }
    }

    private static func listCases() {
        for one in Case.all {
            let entry: JSONValue = [
                "case": .string(one.name), "what": .string(one.what), "durability": .string(one.durability.rawValue),
                "unit": .string(one.unit.rawValue), "figure": .string(one.figure),
                "wanted": one.wanted.map { .double($0) } ?? .null,
                "writes_much": .bool(one.writesMuch),
                "settings": .object(JSONObject(one.settings.map { JSONObject.Member($0.name, .string($0.value)) })),
            ]
            StandardOutput.say(entry.text)
        }
    }

    private static func measure(_ arguments: CommandLineArguments, _ log: any LogSink) throws {
        guard let name = arguments.value("case"), let measured = Case.all.first(where: { $0.name == name }) else {
            let names = Case.all.map(\.name).joined(separator: ", ")
            throw CommandLineArguments.Fault("--case needs one of \(names)")
        }
        guard let port = arguments.value("port").flatMap({ UInt16($0) }), port > 0 else {
            throw CommandLineArguments.Fault("--port needs a port")
        }
        guard let process = arguments.value("pid"), Int32(process) != nil else {
            throw CommandLineArguments.Fault("--pid needs the broker's process id")
        }
        var extent = arguments.has("smoke") ? Extent.smoke : Extent()
        if let text = arguments.value("seconds") {
            guard let seconds = Double(text), seconds > 0, seconds <= 3600 else {
                throw CommandLineArguments.Fault("--seconds needs a number above 0 and up to 3600, not '\(text)'")
            }
            extent.milliseconds = max(1, Int64(seconds * 1000))
        }
        let address = SocketAddress(host: arguments.value("host") ?? "127.0.0.1", port: port)
        let host = try RealHost(loops: 1, firstLoop: .callingThread, log: log)
        defer { host.stop() }
        let json: JSONValue
        if case .scale(let scale) = measured.load {
            let measurement = ScaleMeasurement(
                host: host, address: address, serverProcess: process, scale: scale, extent: extent,
                logs: arguments.value("logs"))
            json = try run(host) { () async throws(BenchFault) in try await measurement.run().json }
        } else {
            let measurement = Measurement(
                host: host, address: address, serverProcess: process, measured: measured, extent: extent)
            json = try run(host) { () async throws(BenchFault) in try await measurement.run().json }
        }
        var line = JSONObject([JSONObject.Member("case", .string(measured.name))])
        for member in json.object!.members { line[member.name] = member.value }
        StandardOutput.say(JSONValue.object(line).text)
    }

    /// Turns the loop until the measurement has ended.
    private static func run(
        _ host: RealHost, _ measure: sending @escaping () async throws(BenchFault) -> JSONValue
    ) throws(BenchFault) -> JSONValue {
        let outcome = Outcome()
        host.loops[0].spawn {
            let result: Result<JSONValue, BenchFault>
            do throws(BenchFault) { result = .success(try await measure()) } catch { result = .failure(error) }
            outcome.result.withLock { $0 = result }
            host.requestStop()
        }
        host.run()
        return try outcome.result.withLock { $0! }.get()
    }

    private final class Outcome: Sendable {
        let result = Mutex<Result<JSONValue, BenchFault>?>(nil)
    }
}
