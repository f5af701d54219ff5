package import MartletBasics
import MartletReactor

/// Where a broker is said to be: a host's name or address, and a port.
package struct BrokerEndpoint: Hashable, Sendable, CustomStringConvertible {
    package var host: String
    package var port: UInt16

    package init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    package var description: String { SocketAddress(host: host, port: port).description }

    /// From `host:port`, `[v6]:port`, or a host alone, which means port 9092; nil for anything else.
    package init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard !bytes.isEmpty, bytes.allSatisfy({ $0 > 0x20 && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ",") }) else {
            return nil
        }
        var host = text[...], port: Substring?
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { return nil }
            host = text[text.index(after: text.startIndex)..<end]
            let rest = text[text.index(after: end)...]
            guard rest.isEmpty || rest.hasPrefix(":") else { return nil }
            port = rest.isEmpty ? nil : rest.dropFirst()
        } else if let colon = text.firstIndex(of: ":"), text.lastIndex(of: ":") == colon {
            host = text[..<colon]
            port = text[text.index(after: colon)...]
        }
        // with colons it can only be an IPv6 address, its zone after a percent sign
        let address = host.prefix { $0 != "%" }
        guard !address.contains(":") || address.allSatisfy({ $0.isHexDigit || $0 == ":" || $0 == "." }) else { return nil }
        guard address.count(where: { $0 == ":" }) != 1, !host.hasSuffix(":") || host.hasSuffix("::") else { return nil }
        guard !host.isEmpty, let number = port.map({ UInt16($0) }) ?? Self.defaultPort, number > 0 else { return nil }
        self.init(host: String(host), port: number)
    }

    package static let defaultPort: UInt16 = 9092
}

/// How a client behaves.
package struct ClientSettings: Sendable {
    package var bootstrap: [BrokerEndpoint]
    package var clientID = "martlet"
    /// How long one connection may take to be made.
    package var connectTimeLimit = Interval.seconds(10)
    /// How long a broker may take for an answer; then the connection is given up.
    package var requestTimeLimit = Interval.seconds(30)
    /// How long something may take with all its attempts.
    package var operationTimeLimit = Interval.seconds(60)
    /// The wait before something is tried again, doubled each time up to the second.
    package var firstRetryDelay = Interval.milliseconds(50)
    package var longestRetryDelay = Interval.seconds(1)

    package init(bootstrap: [BrokerEndpoint]) { self.bootstrap = bootstrap }

    /// The most attempts for one thing, however short the waits.
    package static let attemptsLimit = 1000
}
