import MartletBasics
import MartletModel
import MartletReactor

/// The program: one file a command.
@main
enum Martlet {
    static func main() { ServerCommand.run(Array(CommandLine.arguments.dropFirst())) }
}
