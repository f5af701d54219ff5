import MartletBasics
import Testing

@Suite struct CommandLines {
    typealias Flag = CommandLineArguments.Flag

    let commands = [
        CommandLineArguments.Command(
            "server", "Runs a broker.",
            flags: [
                Flag("config", value: "FILE", "The file of settings."),
                Flag("set", value: "NAME=VALUE", mayRepeat: true, "One setting."),
                Flag("help-config", "Prints all settings."),
            ],
            operands: ["directory"]),
        CommandLineArguments.Command("version", "Prints the version."),
    ]

    func read(_ arguments: String...) throws(CommandLineArguments.Fault) -> CommandLineArguments {
        try CommandLineArguments(arguments, commands: commands)
    }

    func refusal(_ arguments: [String]) -> String {
        do throws(CommandLineArguments.Fault) {
            _ = try CommandLineArguments(arguments, commands: commands)
            return ""
        } catch {
            return error.description
        }
    }

    @Test func aValueFollowsItsFlagOrAnEqualsSign() throws {
        let line = try read("server", "--config", "a.properties", "dir", "--set=a=1", "--set", "b=2=3", "--help-config", "--set=")
        #expect(line.command == "server")
        #expect(line.value("config") == "a.properties")
        #expect(line.values("set") == ["a=1", "b=2=3", ""])
        #expect(line.has("help-config"))
        #expect(line.operands == ["dir"])
        #expect(line.value("none") == nil)
        #expect(!line.has("none"))
    }

    @Test func anAssignmentIsSplitAtItsFirstEqualsSign() throws {
        let pairs = try read("server", "--set", "a=1=2", "--set=b=").assignments("set")
        #expect(pairs.map(\.name) == ["a", "b"])
        #expect(pairs.map(\.value) == ["1=2", ""])
        for wrong in ["a", "=1", ""] {
            let line = try read("server", "--set=\(wrong)")
            #expect(throws: CommandLineArguments.Fault("--set needs NAME=VALUE, and cannot take '\(wrong)'")) {
                try line.assignments("set")
            }
        }
    }

    @Test func afterTwoDashesEverythingIsAnOperand() throws {
        #expect(try read("server", "--", "--config").operands == ["--config"])
        #expect(try read("server", "-").operands == ["-"])
        #expect(try read("server", "--set", "-1").values("set") == ["-1"])
    }

    @Test(arguments: [
        ([], "a command is missing: one of server, version"),
        (["serve"], "there is no command 'serve'; the nearest is 'server': there are server, version"),
        (["x"], "there is no command 'x': there are server, version"),
        (["server", "--confg", "x"], "'server' has no flag '--confg'; the nearest is '--config'"),
        (["server", "--"] + ["a", "b"], "'b' is one argument too many for 'server'"),
        (["server", "--zzzzzz=1"], "'server' has no flag '--zzzzzz'"),
        (["server", "-c", "x"], "'-c' is no flag of 'server': flags begin with two dashes"),
        (["server", "--config"], "--config needs a value: --config FILE"),
        (["server", "--config", "--help-config"], "--config needs a value: --config FILE"),
        (["server", "--config=a", "--config=b"], "--config can be given only once"),
        (["server", "--help-config=yes"], "--help-config takes no value"),
        (["version", "x"], "'x' is one argument too many for 'version'"),
        (["version", "--config"], "'version' has no flag '--config'"),
    ] as [([String], String)])
    func aMistakeIsAnsweredWithASentence(_ arguments: [String], _ expected: String) {
        #expect(refusal(arguments) == expected)
    }

    // MARK: Commands of several words

    let topics = [
        CommandLineArguments.Command(
            "topic", "Creates and lists topics.",
            subcommands: [
                .init(
                    "create", "Creates topics.",
                    flags: [
                        Flag("partitions", value: "N", "How many partitions each has."),
                        Flag("acks", value: "HOW", choices: ["0", "1", "all"], "What is waited for."),
                    ],
                    commonFlags: [Flag("json", "Prints JSON.")],
                    operands: [.init("TOPIC", mayRepeat: true, "Their names.")],
                    notes: ["Settings are those of the broker."], examples: ["martlet topic create orders"]),
                .init("list", "Lists topics."),
            ])
    ]

    func refusalOfTopics(_ arguments: [String]) -> String {
        do throws(CommandLineArguments.Fault) {
            _ = try CommandLineArguments(arguments, commands: topics)
            return ""
        } catch {
            return error.description
        }
    }

    @Test func aSubcommandIsReadWithItsOwnFlagsAndAllOperands() throws {
        let line = try CommandLineArguments(
            ["topic", "create", "a", "--partitions", "3", "b", "--json", "c"], commands: topics)
        #expect(line.command == "topic create")
        #expect(line.operands == ["a", "b", "c"])
        #expect(try line.number("partitions", in: 1...10) == 3)
        #expect(try line.number("acks", in: 0...1) == nil)
        #expect(line.has("json"))
        #expect(throws: CommandLineArguments.Fault("--partitions needs a whole number between 4 and 10, not '3'")) {
            try line.number("partitions", in: 4...10)
        }
    }

    @Test(arguments: [
        (["topc"], "there is no command 'topc'; the nearest is 'topic': there are topic"),
        (["topic"], "a command after 'topic' is missing: one of create, list"),
        (["topic", "--json"], "a command after 'topic' is missing: one of create, list"),
        (["topic", "creat", "a"], "there is no command 'topic creat'; the nearest is 'create': there are create, list"),
        (["topic", "create"], "'topic create' needs TOPIC: topic create [flags] TOPIC..."),
        (["topic", "list", "a"], "'a' is one argument too many for 'topic list'"),
        (["topic", "create", "a", "--jsn"], "'topic create' has no flag '--jsn'; the nearest is '--json'"),
        (["topic", "create", "a", "--acks", "al"], "--acks cannot be 'al'; the nearest is 'all': it is one of 0, 1, all"),
    ] as [([String], String)])
    func aMistakeInASubcommandIsAnsweredWithASentence(_ arguments: [String], _ expected: String) {
        #expect(refusalOfTopics(arguments) == expected)
    }

    @Test func helpTellsEverythingAtEveryLevel() {
        #expect(commands[0].help(program: "martlet") == """
            Runs a broker.

            usage: martlet server [flags] [directory]

            flags:
              --config FILE     The file of settings.
              --set NAME=VALUE  One setting. (may be repeated)
              --help-config     Prints all settings.

            """)
        #expect(topics[0].help(program: "martlet") == """
            Creates and lists topics.

            usage: martlet topic COMMAND

            commands:
              create  Creates topics.
              list    Lists topics.

            'martlet topic COMMAND --help' says more of one.

            """)
        #expect(topics[0].subcommands[0].help(program: "martlet topic") == """
            Creates topics.

            usage: martlet topic create [flags] TOPIC...

            arguments:
              TOPIC  Their names.

            flags:
              --partitions N  How many partitions each has.
              --acks HOW      What is waited for. One of 0, 1, all.

            flags of every command that speaks to a broker:
              --json  Prints JSON.

            Settings are those of the broker.

            examples:
              martlet topic create orders

            """)
    }

    @Test func aLongLineOfHelpIsBrokenBetweenWords() {
        let words = Array(repeating: "word", count: 40).joined(separator: " ")
        let help = CommandLineArguments.Command("a", "A.", flags: [Flag("long", words)]).help(program: "p")
        let lines = help.split(separator: "\n").drop { !$0.contains("--long") }
        #expect(lines.count == 3)
        #expect(lines.allSatisfy { $0.count <= 100 && $0.hasSuffix("word") })
        #expect(lines.joined(separator: " ").split(separator: " ").count { $0 == "word" } == 40)
    }
}

@Suite struct NearestNames {
    @Test(arguments: [
        ("", "", 0), ("a", "", 1), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "abxc", 1), ("abc", "axc", 1),
        ("kitten", "sitting", 3),
        ("ca", "abc", 3),
    ])
    func changesAreCounted(_ a: String, _ b: String, _ count: Int) {
        #expect(editDistance(a, b, limit: 10) == count)
        #expect(editDistance(b, a, limit: 10) == count)
        #expect(editDistance(a, b, limit: count) == count)
        if count > 0 { #expect(editDistance(a, b, limit: count - 1) == nil) }
    }

    @Test func theNearestIsTheFirstOfEqualsAndNoneIfAllAreFar() {
        #expect(nearestName(to: "lst", among: ["last", "list", "lost"]) == "last")
        #expect(nearestName(to: "list", among: ["last", "list"]) == "list")
        #expect(nearestName(to: "xyz", among: ["last", "list"]) == nil)
        #expect(nearestName(to: "", among: ["a"]) == nil)
        #expect(nearestName(to: String(repeating: "a", count: 1_000), among: [String(repeating: "a", count: 999)]) == nil)
    }
}
