package import MartletBasics

/// What `martlet.log.level` says: a level for all, and levels of some subsystems, as in `warning,network:debug`.
package struct LogLevels: Sendable {
    package static let words = ["debug", "info", "warning", "error"]
    /// What the lines of the log name as where they come from.
    package static let subsystems = [
        "broker", "cluster", "config", "controller", "groups", "keeper", "log", "metrics", "network", "requests",
        "transactions",
    ]

    package private(set) var general = LogLevel.info
    package private(set) var special: [(subsystem: String, level: LogLevel)] = []

    package init() {}

    /// Nil for what is neither a level nor a known subsystem's, or says one twice.
    package init?(_ text: String) {
        var isGeneralSaid = false
        let elements = commaSeparated(text[...])
        guard !elements.isEmpty else { return nil }
        for element in elements {
            let parts = element.split(separator: ":", omittingEmptySubsequences: false).map { String(javaTrimmed($0)) }
            guard parts.count <= 2, let level = Self.level(parts[parts.count - 1]) else { return nil }
            if parts.count == 1 {
                guard !isGeneralSaid else { return nil }
                isGeneralSaid = true
                general = level
            } else {
                guard Self.subsystems.contains(parts[0]), !special.contains(where: { $0.subsystem == parts[0] }) else {
                    return nil
                }
                special.append((parts[0], level))
            }
        }
    }

    /// What counts for one subsystem.
    package func level(of subsystem: String) -> LogLevel {
        special.first { $0.subsystem == subsystem }?.level ?? general
    }

    /// A level for all that have none of their own.
    package mutating func set(_ level: LogLevel) { general = level }

    /// A level for one subsystem; nil, and it has that of all again.
    package mutating func set(_ level: LogLevel?, of subsystem: String) {
        special.removeAll { $0.subsystem == subsystem }
        if let level { special.append((subsystem, level)) }
    }

    private static func level(_ word: String) -> LogLevel? {
        switch word {
        case "debug": .debug
        case "info": .info
        case "warning": .warning
        case "error": .error
        default: nil
        }
    }
}
