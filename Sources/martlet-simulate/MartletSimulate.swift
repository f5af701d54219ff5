import Glibc
import MartletBasics
import MartletChecker
import MartletReactor
import MartletSwarm
import MartletWire

/// `martlet-simulate FIRST COUNT [history=FILE] [planted=NAME]`: runs seeds of the swarm, one line of JSON each. With
/// `history=FILE` what the (one) seed's clients were told is written there as it comes, and beside it, as FILE.world, what
/// happens in the world. `scripts/simulate` drives it, and runs seeds again in other processes, which must tell the same.
@main enum MartletSimulate {
    private static let usage = "martlet-simulate FIRST COUNT [history=FILE] [planted=NAME]\n"

    static func main() {
        let arguments = Array(CommandLine.arguments.dropFirst())
        var options: [String: String] = [:]
        for argument in arguments.dropFirst(2) {
            let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2, ["history", "planted"].contains(parts[0]) else { leave(usage) }
            options[parts[0]] = parts[1]
        }
        guard arguments.count >= 2, let first = UInt64(arguments[0]), let count = UInt64(arguments[1]), count > 0,
            count == 1 || options["history"] == nil
        else { leave(usage) }
        let planted = options["planted"].map(Self.planted) ?? []
        let listener = options["history"].map(Self.listener)
        var isSound = true
        for seed in first..<first + count {
            do {
                let report = try SwarmWorld.run(seed: seed, planted: planted, listener: listener)
                isSound = isSound && report.verdicts.isEmpty
                write(line(of: report) + "\n", to: 1)
            } catch {
                leave("\(error)\n")
            }
        }
        exit(isSound ? 0 : 1)
    }

    private static func leave(_ sentence: String) -> Never {
        write(sentence, to: 2)
        exit(2)
    }

    private static func planted(_ name: String) -> PlantedBugs {
        guard let known = PlantedBugs.named.first(where: { $0.name == name }) else {
            leave("there is no bug \(name) to plant, but: \(PlantedBugs.named.map(\.name).joined(separator: ", "))\n")
        }
        return known.bug
    }

    private static func line(of report: SwarmWorld.Report) -> String {
        let apis = report.answered.sorted { $0.key < $1.key }.map {
            JSONObject.Member(ApiKey(rawValue: $0.key)?.name ?? "\($0.key)", .int(Int64($0.value)))
        }
        let faults = report.faults.sorted { $0.key.rawValue < $1.key.rawValue }.map {
            JSONObject.Member($0.key.rawValue, .int(Int64($0.value)))
        }
        let object = JSONObject([
            .init("seed", .int(Int64(report.seed))), .init("history", .string(String(report.history, radix: 16))),
            .init("told", .string(String(report.told, radix: 16))),
            .init("seconds", .int(Int64(report.virtualSeconds))),
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

    /// Each line is in its file before anything else happens: also those before a trap.
    private static func listener(_ path: String) -> SwarmWorld.Listener {
        let (told, world) = (create(path), create(path + ".world"))
        var worldLinesCount = 0
        return SwarmWorld.Listener(
            onEvent: { write($0.line + "\n", to: told) },
            onLine: {
                worldLinesCount += 1
                if worldLinesCount <= worldLinesLimit { write($0 + "\n", to: world) }
            })
    }

    /// Of a world that does not come to its end.
    private static let worldLinesLimit = 4_000_000

    private static func create(_ path: String) -> Int32 {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { leave("\(path) cannot be written: \(String(cString: strerror(errno)))\n") }
        return descriptor
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
