import Glibc
import MartletBasics
import MartletClient
import MartletModel
import MartletReactor

/// What every command takes that speaks to a broker.
enum ClientFlags {
    static let all: [CommandLineArguments.Flag] = [
        .init(
            "bootstrap", value: "HOST:PORT",
            "A broker to begin with, or several with commas between them (MARTLET_BOOTSTRAP, else 127.0.0.1:9092)."),
        .init(
            "command-config", value: "FILE",
            "Settings of a Kafka client: bootstrap.servers, client.id, request.timeout.ms, default.api.timeout.ms."),
        .init("timeout", value: "SECONDS", "How long to try at most (60)."),
        .init("json", "Speaks JSON, for programs."),
    ]

    static let environmentName = "MARTLET_BOOTSTRAP"
    private static let longestTimeout: Int64 = 86_400

    static func settings(_ arguments: CommandLineArguments) throws -> ClientSettings {
        let file = try arguments.value("command-config").map(properties) ?? []
        func value(_ name: String) -> String? { file.last { $0.name == name }?.value }
        if let protocolName = value("security.protocol"), protocolName != "PLAINTEXT" {
            throw CommandLineArguments.Fault("security.protocol=\(protocolName) is not possible yet: there is PLAINTEXT")
        }
        let environment = getenv(environmentName).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
        let list = arguments.value("bootstrap") ?? value("bootstrap.servers") ?? environment ?? "127.0.0.1:9092"
        var settings = ClientSettings(bootstrap: try endpoints(list))
        if let name = value("client.id"), !name.isEmpty { settings.clientID = name }
        if let limit = try milliseconds("request.timeout.ms", value("request.timeout.ms")) {
            settings.requestTimeLimit = limit
        }
        if let limit = try milliseconds("default.api.timeout.ms", value("default.api.timeout.ms")) {
            settings.operationTimeLimit = limit
        }
        if let seconds = try arguments.number("timeout", in: 1...longestTimeout) {
            settings.operationTimeLimit = .seconds(seconds)
        }
        settings.requestTimeLimit = min(settings.requestTimeLimit, settings.operationTimeLimit)
        settings.connectTimeLimit = min(settings.connectTimeLimit, settings.operationTimeLimit)
        return settings
    }

    private static func properties(_ path: String) throws -> [Property] {
        guard let bytes = try RealDisk().contents(path) else {
            throw CommandLineArguments.Fault("there is no file \(path): give --command-config one that is there")
        }
        return try PropertiesParser.parse(bytes)
    }

    private static func endpoints(_ list: String) throws(CommandLineArguments.Fault) -> [BrokerEndpoint] {
        var endpoints: [BrokerEndpoint] = []
        for part in list.split(separator: ",", omittingEmptySubsequences: true) {
            let text = part.trimmed
            guard let endpoint = BrokerEndpoint(text) else {
                throw CommandLineArguments.Fault("'\(text)' is no address of a broker: write HOST:PORT")
            }
            endpoints.append(endpoint)
        }
        guard !endpoints.isEmpty else { throw CommandLineArguments.Fault("no broker is named: write HOST:PORT") }
        return endpoints
    }

    private static func milliseconds(_ name: String, _ text: String?) throws(CommandLineArguments.Fault) -> Interval? {
        guard let text else { return nil }
        guard let number = Int64(text), (1...longestTimeout * 1000).contains(number) else {
            throw CommandLineArguments.Fault("\(name) needs milliseconds, not '\(text)'")
        }
        return .milliseconds(number)
    }
}

extension StringProtocol {
    /// Without blanks at its ends.
    var trimmed: String {
        var rest = self[...]
        while let first = rest.first, first.isWhitespace { rest = rest.dropFirst() }
        while let last = rest.last, last.isWhitespace { rest = rest.dropLast() }
        return String(rest)
    }
}
