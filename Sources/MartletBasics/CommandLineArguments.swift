/// What follows the program's name on the command line, read by the commands that the program says it has.
///
///     martlet server --config server.properties --set num.partitions=3 --set broker.id=1
///     martlet topic create orders --partitions 3
///
/// A command is a word, or one word after the other where it has subcommands. `--name value` and `--name=value` mean
/// the same; `--` ends the flags; what is no flag is an operand. Flags and operands may be mixed.
package struct CommandLineArguments: Sendable, Equatable {
    package struct Flag: Sendable, Equatable {
        /// Without the dashes.
        package var name: String
        /// What stands for its value in the help; nil for a flag that has none.
        package var value: String?
        /// The values it takes; empty where any will do.
        package var choices: [String]
        package var mayRepeat: Bool
        package var documentation: String

        package init(
            _ name: String, value: String? = nil, choices: [String] = [], mayRepeat: Bool = false, _ documentation: String
        ) {
            precondition(choices.isEmpty || value != nil, "a flag with choices has a value")
            self.name = name
            self.value = value
            self.choices = choices
            self.mayRepeat = mayRepeat
            self.documentation = documentation
        }
    }

    /// What stands for an operand in the help, and how many there may be.
    package struct Operand: Sendable, Equatable, ExpressibleByStringLiteral {
        package var name: String
        package var isRequired: Bool
        /// Only the last of a command: it takes all that are left.
        package var mayRepeat: Bool
        package var documentation: String

        package init(_ name: String, isRequired: Bool = true, mayRepeat: Bool = false, _ documentation: String = "") {
            self.name = name
            self.isRequired = isRequired
            self.mayRepeat = mayRepeat
            self.documentation = documentation
        }

        /// One that may be left out.
        package init(stringLiteral name: String) { self.init(name, isRequired: false) }
    }

    package struct Command: Sendable, Equatable {
        package var name: String
        /// What it does, in a sentence.
        package var documentation: String
        package var flags: [Flag]
        /// Flags that many commands take, shown after its own.
        package var commonFlags: [Flag]
        /// What the operands stand for, in order.
        package var operands: [Operand]
        /// A command with subcommands has no flags and operands of its own.
        package var subcommands: [Command]
        /// Paragraphs after the flags.
        package var notes: [String]
        /// Lines that can be typed as they stand.
        package var examples: [String]

        package init(
            _ name: String, _ documentation: String, flags: [Flag] = [], commonFlags: [Flag] = [], operands: [Operand] = [],
            subcommands: [Command] = [], notes: [String] = [], examples: [String] = []
        ) {
            precondition(
                subcommands.isEmpty || (flags.isEmpty && operands.isEmpty), "what a command takes, its subcommands say")
            precondition(operands.dropLast().allSatisfy { !$0.mayRepeat }, "only the last operand may repeat")
            self.name = name
            self.documentation = documentation
            self.flags = flags
            self.commonFlags = commonFlags
            self.operands = operands
            self.subcommands = subcommands
            self.notes = notes
            self.examples = examples
        }
    }

    /// A sentence that says what is wrong and what would be right.
    package struct Fault: Error, Equatable, Sendable, CustomStringConvertible {
        package var description: String
        package init(_ description: String) { self.description = description }
    }

    /// The command's name; with subcommands the words one after the other, as in `topic create`.
    package let command: String
    package let operands: [String]
    private let given: [Given]

    private struct Given: Sendable, Equatable {
        var name: String
        var value: String
    }

    /// The values of a flag, in their order; an empty one for a flag that takes none.
    package func values(_ flag: String) -> [String] { given.filter { $0.name == flag }.map(\.value) }
    /// The value of a flag that may be given once.
    package func value(_ flag: String) -> String? { given.first { $0.name == flag }?.value }
    package func has(_ flag: String) -> Bool { given.contains { $0.name == flag } }

    /// The values of a flag that takes `NAME=VALUE`, split at the first equals sign.
    package func assignments(_ flag: String) throws(Fault) -> [(name: String, value: String)] {
        var split: [(name: String, value: String)] = []
        for text in values(flag) {
            let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, !parts[0].isEmpty else {
                throw Fault("--\(flag) needs NAME=VALUE, and cannot take '\(text)'")
            }
            split.append((String(parts[0]), String(parts[1])))
        }
        return split
    }

    /// The value of a flag that takes a whole number between two bounds; nil where it is not given.
    package func number<T: FixedWidthInteger>(_ flag: String, in range: ClosedRange<T>) throws(Fault) -> T? {
        guard let text = value(flag) else { return nil }
        guard let number = T(text), range.contains(number) else {
            throw Fault("--\(flag) needs a whole number between \(range.lowerBound) and \(range.upperBound), not '\(text)'")
        }
        return number
    }

    // MARK: Reading

    /// Reads the arguments, the program's own name not among them.
    package init(_ arguments: [String], commands: [Command]) throws(Fault) {
        let (path, count) = try Self.find(arguments, among: commands)
        guard let command = path.last else { throw Self.missing("a command", commands) }
        let name = path.map(\.name).joined(separator: " ")
        guard command.subcommands.isEmpty else { throw Self.missing("a command after '\(name)'", command.subcommands) }
        var given: [Given] = []
        var operands: [String] = []
        var index = count
        var flagsEnded = false
        while index < arguments.count {
            let argument = arguments[index]
            index += 1
            if flagsEnded || !argument.hasPrefix("-") || argument == "-" {
                guard operands.count < command.operands.count || command.operands.last?.mayRepeat == true else {
                    throw Fault("'\(argument)' is one argument too many for '\(name)'")
                }
                operands.append(argument)
            } else if argument == "--" {
                flagsEnded = true
            } else {
                let (flag, inline) = try Self.flag(argument, of: command, name)
                if !flag.mayRepeat, given.contains(where: { $0.name == flag.name }) {
                    throw Fault("--\(flag.name) can be given only once")
                }
                given.append(Given(name: flag.name, value: try Self.value(of: flag, inline, arguments, &index)))
            }
        }
        let required = command.operands.prefix { $0.isRequired }
        guard operands.count >= required.count else {
            throw Fault("'\(name)' needs \(required[operands.count].name): \(command.usage(path: name))")
        }
        self.command = name
        self.operands = operands
        self.given = given
    }

    /// The command that the first words name, as the way to it, and how many words that took. Words that name nothing
    /// are a fault only where a command could stand.
    package static func find(_ arguments: [String], among commands: [Command]) throws(Fault) -> (path: [Command], count: Int) {
        var path: [Command] = []
        var choices = commands
        for word in arguments {
            guard !choices.isEmpty, !word.hasPrefix("-") else { break }
            guard let next = choices.first(where: { $0.name == word }) else {
                let nearest = nearestName(to: word, among: choices.map(\.name)).map { "; the nearest is '\($0)'" }
                let names = choices.map(\.name).joined(separator: ", ")
                let whole = (path.map(\.name) + [word]).joined(separator: " ")
                throw Fault("there is no command '\(whole)'\(nearest ?? ""): there are \(names)")
            }
            path.append(next)
            choices = next.subcommands
        }
        return (path, path.count)
    }

    private static func missing(_ what: String, _ choices: [Command]) -> Fault {
        Fault("\(what) is missing: one of \(choices.map(\.name).joined(separator: ", "))")
    }

    private static func flag(
        _ argument: String, of command: Command, _ commandName: String
    ) throws(Fault) -> (flag: Flag, inline: String?) {
        guard argument.hasPrefix("--") else {
            throw Fault("'\(argument)' is no flag of '\(commandName)': flags begin with two dashes")
        }
        let parts = argument.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(parts[0])
        let flags = command.flags + command.commonFlags
        guard let flag = flags.first(where: { $0.name == name }) else {
            let nearest = nearestName(to: name, among: flags.map(\.name)).map { "; the nearest is '--\($0)'" }
            throw Fault("'\(commandName)' has no flag '--\(name)'\(nearest ?? "")")
        }
        return (flag, parts.count > 1 ? String(parts[1]) : nil)
    }

    private static func value(
        of flag: Flag, _ inline: String?, _ arguments: [String], _ index: inout Int
    ) throws(Fault) -> String {
        guard let wanted = flag.value else {
            guard inline == nil else { throw Fault("--\(flag.name) takes no value") }
            return ""
        }
        var value = inline
        if value == nil {
            // a forgotten value must not swallow the flag that follows
            guard index < arguments.count, !arguments[index].hasPrefix("--") else {
                throw Fault("--\(flag.name) needs a value: --\(flag.name) \(wanted)")
            }
            value = arguments[index]
            index += 1
        }
        let said = value ?? ""
        guard flag.choices.isEmpty || flag.choices.contains(said) else {
            let nearest = nearestName(to: said, among: flag.choices).map { "; the nearest is '\($0)'" }
            let choices = flag.choices.joined(separator: ", ")
            throw Fault("--\(flag.name) cannot be '\(said)'\(nearest ?? ""): it is one of \(choices)")
        }
        return said
    }
}
