import CMartlet
package import MartletBasics
import Synchronization

/// The log that operators read: one line an event, one `write` a line.
///
///     2026-11-21T11:22:33.123Z WARN network cannot accept listener=0.0.0.0:9092 reason="Too many open files"
///
/// Times are UTC. A value with a space, a quote, an equals sign or a control character is quoted; control characters
/// are escaped wherever they come from, so that no peer can forge a line. Events of one level, subsystem and message
/// beyond a number a second are counted and left out, and a line says how many when a later second begins (or `flush`
/// is called).
package final class StandardErrorLog: LogSink {
    /// So many different messages a second have a count of their own; the rest share one.
    package static let distinctMessagesLimit = 256

    private struct Key: Hashable {
        var level: LogLevel
        var subsystem: String
        var message: String
    }

    private struct Repetition {
        var key: Key
        var written = 0
        var leftOut = 0
    }

    private struct State {
        var levels: [(subsystem: String, level: LogLevel)] = []
        var general: LogLevel
        var second: Int64 = .min
        /// By position in `repetitions`, which keeps the order in which messages first came.
        var positions: [Key: Int] = [:]
        var repetitions: [Repetition] = []
        var others = Repetition(key: Key(level: .warning, subsystem: "log", message: "many different messages"))
        var line: [UInt8] = []
    }

    private let clock: any Clock
    private let descriptor: Int32
    private let repetitionsLimit: Int
    private let state: Mutex<State>
    /// The lowest level that any subsystem wants: asked without a lock.
    private let lowest: Atomic<Int>
    /// Whether any subsystem has a level of its own.
    private let isUniform = Atomic<Bool>(true)

    /// `linesASecond` is for each level, subsystem and message.
    package init(
        level: LogLevel = .info, linesASecond: Int = 20, clock: any Clock = RealClock(), descriptor: Int32 = 2
    ) {
        precondition(linesASecond > 0, "an event is told at least once a second")
        self.clock = clock
        self.descriptor = descriptor
        repetitionsLimit = linesASecond
        state = Mutex(State(general: level))
        lowest = Atomic(level.rawValue)
    }

    // MARK: Levels

    /// The least level that is written, for subsystems without a level of their own.
    package func setLevel(_ level: LogLevel) {
        state.withLock { state in
            state.general = level
            publishLevels(state)
        }
    }

    /// The least level that is written of one subsystem; nil to follow the general one again.
    package func setLevel(_ level: LogLevel?, of subsystem: String) {
        state.withLock { state in
            state.levels.removeAll { $0.subsystem == subsystem }
            if let level { state.levels.append((subsystem, level)) }
            publishLevels(state)
        }
    }

    private func publishLevels(_ state: borrowing State) {
        let least = state.levels.map(\.level).reduce(state.general) { min($0, $1) }
        lowest.store(least.rawValue, ordering: .relaxed)
        isUniform.store(state.levels.isEmpty, ordering: .relaxed)
    }

    package func wants(_ level: LogLevel, _ subsystem: StaticString) -> Bool {
        guard level.rawValue >= lowest.load(ordering: .relaxed) else { return false }
        if isUniform.load(ordering: .relaxed) { return true }
        let name = subsystem.description
        return state.withLock { state in
            level >= (state.levels.first { $0.subsystem == name }?.level ?? state.general)
        }
    }

    // MARK: Lines

    package func write(_ level: LogLevel, _ subsystem: StaticString, _ message: String, _ fields: [(String, String)]) {
        let now = clock.wallMilliseconds
        let key = Key(level: level, subsystem: subsystem.description, message: message)
        state.withLock { state in
            beginSecond(now, &state)
            guard allows(key, &state) else { return }
            writeLine(now, key, fields, &state)
        }
    }

    /// Says now what was left out in the current second.
    package func flush() {
        let now = clock.wallMilliseconds
        state.withLock { tellLeftOut(now, &$0) }
    }

    private func beginSecond(_ now: Int64, _ state: inout State) {
        let second = now / 1000
        guard second != state.second else { return }
        tellLeftOut(now, &state)
        state.second = second
    }

    private func allows(_ key: Key, _ state: inout State) -> Bool {
        let position: Int
        if let known = state.positions[key] {
            position = known
        } else if state.repetitions.count < Self.distinctMessagesLimit {
            position = state.repetitions.count
            state.repetitions.append(Repetition(key: key))
            state.positions[key] = position
        } else {
            return count(&state.others)
        }
        return count(&state.repetitions[position])
    }

    private func count(_ repetition: inout Repetition) -> Bool {
        if repetition.written < repetitionsLimit {
            repetition.written += 1
            return true
        }
        repetition.leftOut += 1
        return false
    }

    private func tellLeftOut(_ now: Int64, _ state: inout State) {
        for repetition in state.repetitions + [state.others] where repetition.leftOut > 0 {
            var key = repetition.key
            key.message = "left out lines like: " + key.message
            writeLine(now, key, [("left_out", String(repetition.leftOut))], &state)
        }
        state.positions.removeAll(keepingCapacity: true)
        state.repetitions.removeAll(keepingCapacity: true)
        state.others.written = 0
        state.others.leftOut = 0
    }

    private func writeLine(_ now: Int64, _ key: Key, _ fields: [(String, String)], _ state: inout State) {
        state.line.removeAll(keepingCapacity: true)
        Self.append(time: now, to: &state.line)
        state.line.append(contentsOf: " \(key.level.name) \(key.subsystem) ".utf8)
        Self.append(escaping: key.message, quotes: false, to: &state.line)
        for (name, value) in fields {
            state.line.append(UInt8(ascii: " "))
            state.line.append(contentsOf: name.utf8)
            state.line.append(UInt8(ascii: "="))
            let mustQuote =
                value.isEmpty || value.utf8.contains { $0 <= 0x20 || $0 == 0x22 || $0 == 0x3D || $0 == 0x7F }
            if mustQuote { state.line.append(UInt8(ascii: "\"")) }
            Self.append(escaping: value, quotes: mustQuote, to: &state.line)
            if mustQuote { state.line.append(UInt8(ascii: "\"")) }
        }
        state.line.append(UInt8(ascii: "\n"))
        state.line.withUnsafeBytes { line in
            var written = 0
            while written < line.count {
                // where nobody can be told that telling fails, the line is lost
                let moved = martlet_write(descriptor, line.baseAddress! + written, line.count - written)
                guard moved > 0 else { return }
                written += moved
            }
        }
    }

    private static func append(escaping text: String, quotes: Bool, to line: inout [UInt8]) {
        let digits = Array("0123456789abcdef".utf8)
        for byte in text.utf8 {
            switch byte {
            case 0x0A: line.append(contentsOf: [0x5C, 0x6E])
            case 0x0D: line.append(contentsOf: [0x5C, 0x72])
            case 0x09: line.append(contentsOf: [0x5C, 0x74])
            case 0x22 where quotes, 0x5C where quotes: line.append(contentsOf: [0x5C, byte])
            case ..<0x20, 0x7F: line.append(contentsOf: [0x5C, 0x78, digits[Int(byte >> 4)], digits[Int(byte & 15)]])
            default: line.append(byte)
            }
        }
    }

    // MARK: Time

    /// `2026-11-21T11:22:33.123Z`, whatever the year.
    package static func append(time milliseconds: Int64, to line: inout [UInt8]) {
        let (days, rest) = milliseconds.flooringDivision(by: 86_400_000)
        let (year, month, day) = WallTime.date(days)
        append(year, digits: 4, to: &line)
        for (separator, value) in [
            ("-", month), ("-", day), ("T", rest / 3_600_000), (":", rest / 60_000 % 60), (":", rest / 1000 % 60),
        ] {
            line.append(contentsOf: separator.utf8)
            append(value, digits: 2, to: &line)
        }
        line.append(UInt8(ascii: "."))
        append(rest % 1000, digits: 3, to: &line)
        line.append(UInt8(ascii: "Z"))
    }

    private static func append(_ value: Int64, digits: Int, to line: inout [UInt8]) {
        let text = String(value)
        for _ in 0..<max(0, digits - text.utf8.count) { line.append(UInt8(ascii: "0")) }
        line.append(contentsOf: text.utf8)
    }
}

extension Int64 {
    /// The quotient rounded down, and the remainder, which is not negative.
    fileprivate func flooringDivision(by divisor: Int64) -> (quotient: Int64, remainder: Int64) {
        let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
    }
}
