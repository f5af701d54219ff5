import MartletBasics
import MartletClient
import MartletModel

/// A choice, then a settings file, or entries with a zero byte between them: of the environment, or `NAME=VALUE` as from
/// the command line or for a topic.
func fuzzSettings(_ input: inout FuzzInput) {
    let choice = input.byte()
    let text = input.rest()
    let entries = text.split(separator: 0, omittingEmptySubsequences: true).map { [UInt8]($0) }
    switch choice % 4 {
    case 0:
        guard let properties = try? PropertiesParser.parse(text) else { return }
        _ = try? BrokerConfig.resolve(file: properties)
    case 1:
        guard let environment = try? EnvironmentSettings(entries) else { return }
        _ = try? BrokerConfig.resolve(environment: environment)
    case 2: _ = try? BrokerConfig.resolve(overrides: entries.map(assignment))
    default:
        guard let settings = try? BrokerSettings() else { preconditionFailure("no settings are settings") }
        let resolver = TopicConfigResolver(settings)
        guard let valid = try? resolver.validated(entries.map { (assignment($0).name, assignment($0).value) }) else { return }
        precondition(resolver.resolve(valid).faults.isEmpty, "settings of a topic are valid, and cannot be resolved")
    }
}

private func assignment(_ entry: [UInt8]) -> (name: String, value: String) {
    let parts = entry.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
    return (String(decoding: parts[0], as: UTF8.self), String(decoding: parts.dropFirst().first ?? [], as: UTF8.self))
}

/// A choice, then a text: as any JSON, or as a line of records to produce.
func fuzzJSON(_ input: inout FuzzInput) {
    let choice = input.byte()
    let text = [UInt8](input.rest())
    if choice & 1 != 0 { _ = try? RecordJSON.record(text) }
    guard let value = try? JSONValue(parsing: text) else { return }
    guard let again = try? JSONValue(parsing: value.bytes, limits: JSONLimits(bytes: 64 << 20)) else {
        preconditionFailure("JSON that was written cannot be read: \(value.text)")
    }
    precondition(again.bytes == value.bytes, "JSON that was read is written otherwise: \(value.text)")
}

/// Arguments, with a zero byte between them.
func fuzzArguments(_ input: inout FuzzInput) {
    let words = input.rest().split(separator: 0, omittingEmptySubsequences: false).map { String(decoding: $0, as: UTF8.self) }
    let records = CommandLineArguments.Command(
        "records", "",
        flags: [
            .init("set", value: "NAME=VALUE", mayRepeat: true, ""),
            .init("format", value: "FORMAT", choices: ["json", "text"], ""),
            .init("count", value: "N", ""), .init("quiet", ""),
        ],
        operands: ["TOPIC", .init("FILE", isRequired: false, mayRepeat: true)])
    let topic = CommandLineArguments.Command(
        "topic", "", commonFlags: [.init("bootstrap", value: "ADDRESS", "")],
        subcommands: [.init("create", "", operands: ["NAME"]), .init("list", "")])
    guard let read = try? CommandLineArguments(words, commands: [records, topic]) else { return }
    _ = try? read.assignments("set")
    _ = try? read.number("count", in: -5...5_000_000_000)
    precondition(read.operands.count <= words.count, "more operands than words")
}
