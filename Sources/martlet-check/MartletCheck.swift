import Glibc
import MartletBasics
import MartletChecker

/// `martlet-check FILE…`: judges a history of lines, from files or (`-`) from standard input. Exits with 0 where
/// nothing is wrong,
/// 1 where something is, and 2 where the history cannot be read. docs/design/checkers.md describes the lines.
@main enum MartletCheck {
    static func main() {
        let paths = Array(CommandLine.arguments.dropFirst())
        guard !paths.isEmpty, !paths.contains("--help") else {
            say("martlet-check FILE…: judges histories of JSON lines; '-' is standard input", to: 2)
            exit(paths.isEmpty ? 2 : 0)
        }
        var events: [HistoryEvent] = []
        for path in paths {
            guard let bytes = read(path) else {
                say("\(path) cannot be read: \(String(cString: strerror(errno)))", to: 2)
                exit(2)
            }
            let parsed = bytes.withUnsafeBytes { buffer in
                Result { () throws(HistoryFault) in try HistoryLines.events(in: buffer) }
            }
            switch parsed {
            case .success(let more): events += more
            case .failure(let fault):
                say("\(path), \(fault)", to: 2)
                exit(2)
            }
        }
        let verdicts = Checks.judge(events)
        for verdict in verdicts { say(verdict.description, to: 1) }
        say("\(events.count) events, \(verdicts.isEmpty ? "nothing is wrong" : "\(verdicts.count) things are wrong")", to: 1)
        exit(verdicts.isEmpty ? 0 : 1)
    }

    private static func say(_ line: String, to descriptor: Int32) {
        var left = ArraySlice((line + "\n").utf8)
        while !left.isEmpty {
            let count = left.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else { return }
            left = left.dropFirst(count)
        }
    }

    private static func read(_ path: String) -> [UInt8]? {
        let descriptor = path == "-" ? 0 : open(path, O_RDONLY)
        guard descriptor >= 0 else { return nil }
        defer { if descriptor != 0 { close(descriptor) } }
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            guard count > 0 else { return count == 0 ? all : nil }
            all += chunk[..<count]
        }
    }
}
