/// What a command says of itself.
extension CommandLineArguments.Command {
    /// `topic create [flags] TOPIC...`, for a command that is called by the words of `path`.
    package func usage(path: String) -> String {
        guard subcommands.isEmpty else { return "\(path) COMMAND" }
        var text = path
        if !flags.isEmpty || !commonFlags.isEmpty { text += " [flags]" }
        for operand in operands {
            let name = operand.name + (operand.mayRepeat ? "..." : "")
            text += operand.isRequired ? " \(name)" : " [\(name)]"
        }
        return text
    }

    /// What the command is for, how it is called, and what it takes, a line each. `program` is what stands before the
    /// command's own name, the words of the commands above it among them.
    package func help(program: String) -> String {
        let path = "\(program) \(name)"
        var text = "\(documentation)\n\nusage: \(usage(path: path))\n"
        if !subcommands.isEmpty {
            text += "\ncommands:\n" + Self.aligned(subcommands.map { ($0.name, $0.documentation) })
        }
        text += Self.section("arguments", operands.filter { !$0.documentation.isEmpty }.map { ($0.name, $0.documentation) })
        text += Self.section("flags", flags.map(Self.line))
        text += Self.section("flags of every command that speaks to a broker", commonFlags.map(Self.line))
        for note in notes { text += "\n\(note)\n" }
        if !examples.isEmpty { text += "\nexamples:\n" + examples.map { "  \($0)\n" }.joined() }
        if !subcommands.isEmpty { text += "\n'\(path) COMMAND --help' says more of one.\n" }
        return text
    }

    private static func section(_ title: String, _ lines: [(String, String)]) -> String {
        lines.isEmpty ? "" : "\n\(title):\n" + aligned(lines)
    }

    private static func line(_ flag: CommandLineArguments.Flag) -> (String, String) {
        let value = flag.value.map { " \($0)" } ?? ""
        let choices = flag.choices.isEmpty ? "" : " One of \(flag.choices.joined(separator: ", "))."
        return ("--\(flag.name)\(value)", flag.documentation + choices + (flag.mayRepeat ? " (may be repeated)" : ""))
    }

    /// Two columns; the right one is broken between words, so that a line stays within an ordinary terminal.
    private static func aligned(_ lines: [(left: String, right: String)]) -> String {
        let columns = 100
        let width = (lines.map(\.left.count).max() ?? 0) + 4
        var text = ""
        for line in lines {
            var current = "  " + line.left + String(repeating: " ", count: width - line.left.count - 2)
            var isFresh = true
            for word in line.right.split(separator: " ") {
                if !isFresh, current.count + 1 + word.count > columns {
                    text += current + "\n"
                    current = String(repeating: " ", count: width)
                    isFresh = true
                }
                current += (isFresh ? "" : " ") + word
                isFresh = false
            }
            text += current + "\n"
        }
        return text
    }
}

extension CommandLineArguments {
    /// The whole reference in Markdown: every command with its help.
    package static func reference(_ commands: [Command], program: String) -> String {
        commands.map { chapter($0, program: program, level: 2) }.joined(separator: "\n")
    }

    private static func chapter(_ command: Command, program: String, level: Int) -> String {
        let title = String(repeating: "#", count: level) + " \(program) \(command.name)\n"
        guard !command.subcommands.isEmpty else { return "\(title)\n```text\n\(command.help(program: program))```\n" }
        let chapters = command.subcommands.map { chapter($0, program: "\(program) \(command.name)", level: level + 1) }
        return "\(title)\n\(command.documentation)\n\n" + chapters.joined(separator: "\n")
    }
}
