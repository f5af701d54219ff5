import Glibc
import MartletBasics

/// The program: one file a command.
@main
enum Martlet {
    private static let commands = [ServerCommand.definition]

    static func main() {
        var words = Array(CommandLine.arguments.dropFirst())
        if words.isEmpty || words == ["--help"] || words == ["help"] {
            Terminal.say(help)
            exit(words.isEmpty ? 2 : 0)
        }
        if words[0] == "log" { LogCommand.run(Array(words.dropFirst())) }
        if let command = commands.first(where: { $0.name == words[0] }), words.contains("--help") {
            Terminal.say(command.help(program: "martlet"))
            exit(0)
        }
        if words == ["--help-config"] { words = ["server", "--help-config"] }
        let arguments: CommandLineArguments
        do throws(CommandLineArguments.Fault) {
            arguments = try CommandLineArguments(words, commands: commands)
        } catch {
            ServerCommand.fail("\(error)")
        }
        ServerCommand.run(arguments)
    }

    private static var help: String {
        """
        Martlet, a Kafka-compatible broker.

          martlet server [--config server.properties] [--set NAME=VALUE]…   run a broker
          martlet server --help                                            its flags
          martlet server --help-config                                     every setting
          martlet log dump PATH…                                           what the files of a log hold
          martlet log verify PATH…                                         whether log directories are sound
        """
    }
}
