import Glibc
import MartletBasics

/// The program: one file a command. A new command is a type of its own and a line in `commands`.
@main
enum Martlet {
    static let program = "martlet"

    /// In the order of the help.
    static var commands: [any ProgramCommand.Type] {
        [
            ServerCommand.self, TopicCommand.self, ProduceCommand.self, ConsumeCommand.self, GroupCommand.self,
            TransactionCommand.self, ConfigCommand.self, ClusterCommand.self, LogCommand.self,
        ]
    }
    private static let definitions = commands.map { $0.definition }

    static func main() {
        let words = Array(CommandLine.arguments.dropFirst())
        if words.isEmpty {
            Terminal.complain(overview)
            exit(ExitStatus.usage.rawValue)
        }
        do throws(CommandLineArguments.Fault) {
            if try helped(words) { exit(ExitStatus.done.rawValue) }
            // before there were commands, this flag stood alone
            let arguments = try CommandLineArguments(
                words == ["--help-config"] ? ["server", "--help-config"] : words, commands: definitions)
            let name = arguments.command.prefix { $0 != " " }
            guard let command = commands.first(where: { $0.definition.name == name }) else {
                preconditionFailure("what was read is one of the commands")
            }
            try command.run(arguments)
        } catch {
            complain(error, words)
        }
    }

    /// Answers a question for help, at whatever level it is asked: `--help`, `help topic`, `topic --help`.
    private static func helped(_ words: [String]) throws(CommandLineArguments.Fault) -> Bool {
        var asked = Array(words.prefix { $0 != "--" })
        if asked == ["help", "--markdown"] {
            Terminal.say(CommandLineArguments.reference(definitions, program: program))
            return true
        }
        if asked.first == "help" {
            asked.removeFirst()
        } else if !asked.contains("--help") {
            return false
        }
        let (path, _) = try CommandLineArguments.find(asked, among: definitions)
        if let command = path.last {
            let above = ([program] + path.dropLast().map(\.name)).joined(separator: " ")
            Terminal.write(command.help(program: above))
        } else {
            Terminal.write(overview)
        }
        return true
    }

    /// A mistake in the call, with the help that is nearest to it.
    private static func complain(_ fault: CommandLineArguments.Fault, _ words: [String]) -> Never {
        var path: [String] = []
        var choices = definitions
        for word in words {
            guard let next = choices.first(where: { $0.name == word }) else { break }
            path.append(word)
            choices = next.subcommands
        }
        let help = ([program] + path + ["--help"]).joined(separator: " ")
        Terminal.complain("\(program): \(fault)\nSee '\(help)'.")
        exit(ExitStatus.usage.rawValue)
    }

    private static var overview: String {
        let width = (definitions.map(\.name.count).max() ?? 0) + 2
        var text = "Martlet, a Kafka-compatible broker and what one does with it.\n\ncommands:\n"
        for command in definitions {
            text += "  \(command.name)" + String(repeating: " ", count: width - command.name.count)
                + command.documentation + "\n"
        }
        return text + """

            'martlet COMMAND --help' says more of one; 'martlet server --help-config' lists every setting of the broker.
            The exit status is 0 when all went well, 1 when something was refused or failed, 2 for a mistake in the call.

            """
    }
}

/// A command of the program, with its subcommands.
protocol ProgramCommand {
    static var definition: CommandLineArguments.Command { get }
    /// Does it, and ends the process. What it throws is a mistake in how it was called.
    static func run(_ arguments: CommandLineArguments) throws(CommandLineArguments.Fault) -> Never
}

/// What scripts are told.
enum ExitStatus: Int32 {
    /// All that was asked for was done.
    case done = 0
    /// Something was refused, or failed; standard error says what.
    case failed = 1
    /// The command was called wrongly: nothing was tried.
    case usage = 2
    /// Ctrl-C, as shells have it.
    case interrupted = 130
}
