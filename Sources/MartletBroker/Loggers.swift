import MartletBasics
package import MartletModel

/// The levels of this broker's log while it runs, which IncrementalAlterConfigs alters as those of a broker's loggers
/// (resource type 8), by Kafka's names for levels. As with Kafka they last until the broker stops; it starts with
/// what `martlet.log.level` says.
package final class Loggers: @unchecked Sendable {
    /// The logger whose level all have that have none of their own.
    package static let root = "root"

    private let lock = Lock()
    // guarded by the lock:
    private var levels: LogLevels
    private var follower: (@Sendable (LogLevels) -> Void)?

    init(_ levels: LogLevels) { self.levels = levels }

    package var current: LogLevels { lock.withLock { levels } }

    /// Calls with what counts, now and whenever it changes, in order.
    package func follow(_ follower: @escaping @Sendable (LogLevels) -> Void) {
        lock.withLock {
            self.follower = follower
            follower(levels)
        }
    }

    /// Every logger by name, and the level that counts for it.
    package var described: [(name: String, level: String)] {
        let levels = current
        return [(Self.root, levels.general.name)] + LogLevels.subsystems.map { ($0, levels.level(of: $0).name) }
    }

    /// Alters levels, all of them or, where one cannot be, none.
    package func alter(_ changes: [ConfigEdit], validateOnly: Bool) -> ConfigFault? {
        lock.withLock {
            var wanted = levels
            var names: Set<String> = []
            for change in changes {
                guard names.insert(change.name).inserted else {
                    return ConfigFault(
                        .invalidRequest,
                        "\(change.name.prefix(ConfigTable.shownLength)) is named twice for one resource: name it once.")
                }
                if let fault = Self.apply(change, to: &wanted) { return fault }
            }
            guard !validateOnly else { return nil }
            levels = wanted
            follower?(wanted)
            return nil
        }
    }

    private static func apply(_ change: ConfigEdit, to levels: inout LogLevels) -> ConfigFault? {
        let name = change.name, isRoot = name == root
        let shown = String(name.prefix(ConfigTable.shownLength))
        guard isRoot || LogLevels.subsystems.contains(name) else {
            let loggers = ([root] + LogLevels.subsystems).joined(separator: ", ")
            return ConfigFault(.invalidConfig, "There is no logger \(shown): there are \(loggers).")
        }
        switch change.operation {
        case .set:
            guard let level = level(change.value) else {
                return ConfigFault(
                    .invalidConfig,
                    "The level of \(shown) must be one of FATAL, ERROR, WARN, INFO, DEBUG and TRACE, "
                        + "not \(change.value.map { String($0.prefix(ConfigTable.shownLength)) } ?? "null").")
            }
            if isRoot { levels.set(level) } else { levels.set(level, of: name) }
        case .delete:
            guard !isRoot else {
                return ConfigFault(.invalidRequest, "The root logger has a level always: set another one.")
            }
            levels.set(nil, of: name)
        case .append, .subtract:
            return ConfigFault(.invalidRequest, "A level is no list: nothing is appended to \(shown) or subtracted from it.")
        case nil: return ConfigFault(.invalidRequest, "\(shown) comes with an operation that does not exist.")
        }
        return nil
    }

    /// Kafka has two levels more, of which there is nothing here: they are those beside them.
    private static func level(_ name: String?) -> LogLevel? {
        switch name {
        case "TRACE", "DEBUG": .debug
        case "INFO": .info
        case "WARN": .warning
        case "ERROR", "FATAL": .error
        default: nil
        }
    }
}
