import Glibc
import MartletBasics
import MartletChecker
import MartletReactor
import MartletSwarm
import MartletWire

/// `martlet-simulate FIRST COUNT [twice=N] [history=FILE] [planted=NAME]`: runs seeds of the swarm, one line of JSON each. With
/// `twice=N` every N-th is run a second time and must tell the same; with `history=FILE` what the (one) seed's clients
/// were told
/// is written there, and beside it, as FILE.world, what happened in the world. `scripts/simulate` drives it.
@main enum MartletSimulate {
    static func main() {
        let arguments = Array(CommandLine.arguments.dropFirst())
        var options: [String: String] = [:]
        for argument in arguments.dropFirst(2) {
            let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
            if parts.count == 2 { options[parts[0]] = parts[1] }
        }
        guard arguments.count >= 2, let first = UInt64(arguments[0]), let count = UInt64(arguments[1]), count > 0 else {
            write("martlet-simulate FIRST COUNT [twice=N] [history=FILE] [planted=NAME]\n", to: 2)
            exit(2)
        }
        let planted = options["planted"].map(Self.planted) ?? []
        let every = options["twice"].flatMap { UInt64($0) } ?? 0
        var isSound = true
        for seed in first..<first + count {
            do {
                let report = try SwarmWorld.run(seed: seed, planted: planted, keepsLines: options["history"] != nil)
                var isSame: Bool?
                if every > 0, seed % every == 0 {
                    let again = try SwarmWorld.run(seed: seed, planted: planted)
                    isSame = again.history == report.history && again.told == report.told
                }
                if let path = options["history"] { keep(report, at: path) }
                isSound = isSound && report.verdicts.isEmpty && isSame != false
                write(line(of: report, isSame: isSame) + "\n", to: 1)
            } catch {
                write("\(error)\n", to: 2)
                exit(2)
            }
        }
        exit(isSound ? 0 : 1)
    }

    private static func planted(_ name: String) -> PlantedBugs {
        guard let known = PlantedBugs.named.first(where: { $0.name == name }) else {
            write("there is no bug \(name) to plant: \(PlantedBugs.named.map(\.name).joined(separator: ", "))\n", to: 2)
            exit(2)
        }
        return known.bug
    }

    private static func line(of report: SwarmWorld.Report, isSame: Bool?) -> String {
        let apis = report.answered.sorted { $0.key < $1.key }.map {
            JSONObject.Member(ApiKey(rawValue: $0.key)?.name ?? "\($0.key)", .int(Int64($0.value)))
        }
        let faults = report.faults.sorted { $0.key.rawValue < $1.key.rawValue }.map {
            JSONObject.Member($0.key.rawValue, .int(Int64($0.value)))
        }
        let object = JSONObject([
            .init("seed", .int(Int64(report.seed))), .init("history", .string(String(report.history, radix: 16))),
            .init("told", .string(String(report.told, radix: 16))), .init("same", isSame.map { .bool($0) } ?? .null),
            .init("events", .int(Int64(report.events.count))), .init("answers", .int(Int64(report.answersCount))),
            .init("acknowledged", .int(Int64(report.acknowledgedCount))), .init("seen", .int(Int64(report.seenCount))),
            .init("lives", .int(Int64(report.livesCount))), .init("damage", .int(Int64(report.damageDetectedCount))),
            .init("gaps", .int(Int64(report.gapsCount))),
            .init("committed", .int(Int64(report.transactionsCount.committed))),
            .init("aborted", .int(Int64(report.transactionsCount.aborted))),
            .init("resent", .int(Int64(report.resendsCount.all))),
            .init("resentWritten", .int(Int64(report.resendsCount.written))),
            .init("verdicts", .array(report.verdicts.map { .string($0.description) })),
            .init("apis", .object(JSONObject(apis))), .init("faults", .object(JSONObject(faults))),
            .init("advertised", .array(report.advertised.map { .string(ApiKey(rawValue: $0)?.name ?? "\($0)") })),
            .init("everyFault", .array(FaultKind.allCases.map { .string($0.rawValue) })),
        ])
        return JSONValue.object(object).text
    }

    private static func keep(_ report: SwarmWorld.Report, at path: String) {
        save(report.events.map(\.line), at: path)
        save(report.lines, at: path + ".world")
    }

    private static func save(_ lines: [String], at path: String) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        guard descriptor >= 0 else {
            write("\(path) cannot be written: \(String(cString: strerror(errno)))\n", to: 2)
            exit(2)
        }
        defer { close(descriptor) }
        write(lines.map { $0 + "\n" }.joined(), to: descriptor)
    }

    private static func write(_ text: String, to descriptor: Int32) {
        var left = ArraySlice(Array(text.utf8))
        while !left.isEmpty {
            let count = left.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else { return }
            left = left.dropFirst(count)
        }
    }
}
