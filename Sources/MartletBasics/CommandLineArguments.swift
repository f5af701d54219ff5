/// What follows the program's name on the command line, read by the commands that the program says it has.
///
///     martlet server --config server.properties --set num.partitions=3 --set broker.id=1
///
/// `--name value` and `--name=value` mean the same; `--` ends the flags; what is no flag is an operand.
package struct CommandLineArguments: Sendable, Equatable {
    package struct Flag: Sendable, Equatable {
        /// Without the dashes.
        package var name: String
        /// What stands for its value in the help; nil for a flag that has none.
        package var value: String?
        package var mayRepeat: Bool
        package var documentation: String

        package init(_ name: String, value: String? = nil, mayRepeat: Bool = false, _ documentation: String) {
            self.name = name
            self.value = value
            self.mayRepeat = mayRepeat
            self.documentation = documentation
        }
    }

    package struct Command: Sendable, Equatable {
        package var name: String
        package var documentation: String
        package var flags: [Flag]
        /// What the operands stand for, in order.
        package var operands: [String]

        package init(_ name: String, _ documentation: String, flags: [Flag] = [], operands: [String] = []) {
            self.name = name
            self.documentation = documentation
            self.flags = flags
            self.operands = operands
        }
    }

    /// A sentence that says what is wrong and what would be right.
    package struct Fault: Error, Equatable, Sendable, CustomStringConvertible {
        package var description: String
        package init(_ description: String) { self.description = description }
    }

    /// The command's name.
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

    /// Reads the arguments, the program's own name not among them.
    package init(_ arguments: [String], commands: [Command]) throws(Fault) {
        let choices = commands.map(\.name).joined(separator: ", ")
        guard let name = arguments.first else { throw Fault("a command is missing: one of \(choices)") }
        guard let command = commands.first(where: { $0.name == name }) else {
            let nearest = nearestName(to: name, among: commands.map(\.name)).map { "; the nearest is '\($0)'" }
            throw Fault("there is no command '\(name)'\(nearest ?? ""): there are \(choices)")
        }
        var given: [Given] = []
        var operands: [String] = []
        var index = 1
        var flagsEnded = false
        while index < arguments.count {
            let argument = arguments[index]
            index += 1
            if flagsEnded || !argument.hasPrefix("-") || argument == "-" {
                guard operands.count < command.operands.count else {
                    throw Fault("'\(argument)' is one argument too many for '\(command.name)'")
                }
                operands.append(argument)
            } else if argument == "--" {
                flagsEnded = true
            } else {
                let (flag, inline) = try Self.flag(argument, of: command)
                if !flag.mayRepeat, given.contains(where: { $0.name == flag.name }) {
                    throw Fault("--\(flag.name) can be given only once")
                }
                given.append(Given(name: flag.name, value: try Self.value(of: flag, inline, arguments, &index)))
            }
        }
        self.command = command.name
        self.operands = operands
        self.given = given
    }

    private static func flag(_ argument: String, of command: Command) throws(Fault) -> (flag: Flag, inline: String?) {
        guard argument.hasPrefix("--") else {
            throw Fault("'\(argument)' is no flag of '\(command.name)': flags begin with two dashes")
        }
        let parts = argument.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(parts[0])
        guard let flag = command.flags.first(where: { $0.name == name }) else {
            let nearest = nearestName(to: name, among: command.flags.map(\.name)).map { "; the nearest is '--\($0)'" }
            throw Fault("'\(command.name)' has no flag '--\(name)'\(nearest ?? "")")
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
        if let inline { return inline }
        // a forgotten value must not swallow the flag that follows
        guard index < arguments.count, !arguments[index].hasPrefix("--") else {
            throw Fault("--\(flag.name) needs a value: --\(flag.name) \(wanted)")
        }
        index += 1
        return arguments[index - 1]
    }
}

extension CommandLineArguments.Command {
    /// What the command is for, how it is called, and its flags, a line each.
    package func help(program: String) -> String {
        var usage = "usage: \(program) \(name)"
        if !flags.isEmpty { usage += " [flags]" }
        for operand in operands { usage += " [\(operand)]" }
        var text = "\(documentation)\n\n\(usage)\n"
        let left = flags.map { flag in "  --\(flag.name)" + (flag.value.map { " \($0)" } ?? "") }
        let width = (left.map(\.count).max() ?? 0) + 2
        for (flag, start) in zip(flags, left) {
            let repeats = flag.mayRepeat ? " (may be repeated)" : ""
            text += start + String(repeating: " ", count: width - start.count) + flag.documentation + repeats + "\n"
        }
        return text
    }
}
