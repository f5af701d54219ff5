/// How much an operator should care about a line of the log.
package enum LogLevel: Int, Comparable, Sendable, CaseIterable {
    case debug, info, warning, error

    /// As lines of the log have it, and log4j.
    package var name: String {
        switch self {
        case .debug: "DEBUG"
        case .info: "INFO"
        case .warning: "WARN"
        case .error: "ERROR"
        }
    }

    package static func < (a: LogLevel, b: LogLevel) -> Bool { a.rawValue < b.rawValue }
}

/// Where log lines go: standard error for a broker, a list for a test or a simulated world.
package protocol LogSink: AnyObject, Sendable {
    /// Whether a line at this level from this subsystem is wanted; asked before the line is put together.
    func wants(_ level: LogLevel, _ subsystem: StaticString) -> Bool
    /// One event, one line. `fields` are printed as `key=value` in this order.
    func write(_ level: LogLevel, _ subsystem: StaticString, _ message: String, _ fields: [(String, String)])
}

/// The front end of the log that operators read: one line an event, `time level subsystem message key=value`.
///
/// The subsystem is one word (`log`, `keeper`, `network`, …). A line says why, not only what. Lines that an outside cause could
/// repeat without end pass through a `RepetitionLimit`.
package struct Logger: Sendable {
    package let subsystem: StaticString
    package let sink: any LogSink

    package init(_ subsystem: StaticString, to sink: any LogSink) {
        self.subsystem = subsystem
        self.sink = sink
    }

    package func debug(_ message: @autoclosure () -> String, _ fields: (String, String)...) { write(.debug, message, fields) }
    package func info(_ message: @autoclosure () -> String, _ fields: (String, String)...) { write(.info, message, fields) }
    package func warning(_ message: @autoclosure () -> String, _ fields: (String, String)...) { write(.warning, message, fields) }
    package func error(_ message: @autoclosure () -> String, _ fields: (String, String)...) { write(.error, message, fields) }

    private func write(_ level: LogLevel, _ message: () -> String, _ fields: [(String, String)]) {
        guard sink.wants(level, subsystem) else { return }
        sink.write(level, subsystem, message(), fields)
    }
}

/// A sink that keeps nothing.
package final class SilentLog: LogSink {
    package init() {}
    package func wants(_: LogLevel, _: StaticString) -> Bool { false }
    package func write(_: LogLevel, _: StaticString, _: String, _: [(String, String)]) {}
}
