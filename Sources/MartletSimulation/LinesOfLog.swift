package import MartletBasics

/// What a program logs, kept for who looks whether it says something.
package final class LinesOfLog: LogSink, @unchecked Sendable {
    private let lock = Lock()
    private var lines: [String] = []

    package init() {}

    package func wants(_: LogLevel, _: StaticString) -> Bool { true }

    package func write(_ level: LogLevel, _: StaticString, _ message: String, _ fields: [(String, String)]) {
        let line = "\(level) \(message) " + fields.map { "\($0)=\($1)" }.joined(separator: " ")
        lock.withLock { lines.append(line) }
    }

    package var all: [String] { lock.withLock { lines } }
    package func says(_ part: String) -> Bool { all.contains { $0.contains(part) } }
}
