package enum SecurityProtocol: String, Sendable, CaseIterable {
    case plaintext = "PLAINTEXT"
    case ssl = "SSL"
    case saslPlaintext = "SASL_PLAINTEXT"
    case saslSSL = "SASL_SSL"
}

/// An address to listen on, or to tell clients of: `NAME://host:port`.
package struct Listener: Sendable, Hashable, CustomStringConvertible {
    /// In capitals.
    package var name: String
    package var securityProtocol: SecurityProtocol
    /// Empty where none was given: every interface to listen on, the machine's own name to tell. IPv6 without brackets.
    package var host: String
    /// 0 where any free port will do.
    package var port: UInt16

    package init(name: String, securityProtocol: SecurityProtocol, host: String, port: UInt16) {
        self.name = name
        self.securityProtocol = securityProtocol
        self.host = host
        self.port = port
    }

    package var description: String { "\(name)://\(isIPv6 ? "[\(host)]" : host):\(port)" }

    package var isIPv6: Bool { host.utf8.contains(UInt8(ascii: ":")) }

    /// A host that stands for every interface, and so says nothing to a client.
    package var isWildcard: Bool { host == "0.0.0.0" || host == "::" || host == "0:0:0:0:0:0:0:0" }
}

/// What `listener.security.protocol.map` says.
package struct ListenerProtocols: Sendable {
    private let pairs: [(name: String, securityProtocol: SecurityProtocol)]

    package init(_ text: String) throws(ConfigError) {
        let setting = "listener.security.protocol.map"
        var pairs: [(name: String, securityProtocol: SecurityProtocol)] = []
        for element in commaSeparated(text[...]) {
            let parts = element.split(separator: ":", omittingEmptySubsequences: false)
            let choices = SecurityProtocol.allCases.map(\.rawValue).joined(separator: ", ")
            guard parts.count == 2, !javaTrimmed(parts[0]).isEmpty,
                let known = SecurityProtocol(rawValue: javaTrimmed(parts[1]).uppercased())
            else {
                throw ConfigError(
                    .invalidValue, setting,
                    "\(setting) has the element '\(element)': each must be NAME:PROTOCOL with one of \(choices)")
            }
            let name = javaTrimmed(parts[0]).uppercased()
            guard !pairs.contains(where: { $0.name == name }) else {
                throw ConfigError(.contradiction, setting, "\(setting) names the listener \(name) twice")
            }
            pairs.append((name, known))
        }
        self.pairs = pairs
    }

    package subscript(name: String) -> SecurityProtocol? { pairs.first { $0.name == name }?.securityProtocol }
}

extension Listener {
    /// Reads a list of listeners and holds them against each other. `unused` names those that are left out.
    package static func parse(
        _ elements: [String], setting: String, protocols: ListenerProtocols, portsMustDiffer: Bool,
        leavingOut unused: [String] = []
    ) throws(ConfigError) -> [Listener] {
        var found: [Listener] = []
        for element in elements {
            let (name, host, port) = try parts(of: element, setting)
            if unused.contains(name) { continue }
            guard let known = protocols[name] else {
                throw ConfigError(
                    .contradiction, setting,
                    "\(setting) has the listener \(name), for which listener.security.protocol.map has no protocol")
            }
            let listener = Listener(name: name, securityProtocol: known, host: host, port: port)
            guard !found.contains(where: { $0.name == name }) else {
                throw ConfigError(.contradiction, setting, "\(setting) has two listeners called \(name)")
            }
            if portsMustDiffer, let other = found.first(where: { $0.clashes(with: listener) }) {
                throw ConfigError(
                    .contradiction, setting, "\(setting) has \(other) and \(listener) on one port; each needs its own")
            }
            found.append(listener)
        }
        return found
    }

    /// Two may share a port if one address is IPv4 and the other IPv6.
    private func clashes(with other: Listener) -> Bool {
        guard port != 0, port == other.port else { return false }
        let bothAreAddresses = (isIPv6 || isIPv4) && (other.isIPv6 || other.isIPv4)
        return !(bothAreAddresses && isIPv6 != other.isIPv6)
    }

    private var isIPv4: Bool {
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts.allSatisfy { UInt8($0) != nil }
    }

    static func parts(
        of element: String, _ setting: String
    ) throws(ConfigError) -> (name: String, host: String, port: UInt16) {
        let fault = ConfigError(
            .invalidValue, setting,
            "\(setting) has '\(element.prefix(ConfigTable.shownLength))': each element must be NAME://host:port, "
                + "with an IPv6 host in brackets and a port from 0 to 65535")
        let bytes = Array(element.utf8)
        guard let slashes = bytes.indices.first(where: { bytes[$0...].starts(with: "://".utf8) }), slashes > 0,
            let colon = bytes.lastIndex(of: UInt8(ascii: ":")), colon > slashes
        else { throw fault }
        let name = String(decoding: bytes[..<slashes], as: UTF8.self).uppercased()
        var host = bytes[(slashes + 3)..<max(colon, slashes + 3)]
        guard name.utf8.allSatisfy(isNameByte), colon >= slashes + 3,
            let port = UInt16(String(decoding: bytes[(colon + 1)...], as: UTF8.self))
        else { throw fault }
        if host.first == UInt8(ascii: "["), host.last == UInt8(ascii: "]") { host = host.dropFirst().dropLast() }
        guard host.allSatisfy({ isNameByte($0) || $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: "%") }) else {
            throw fault
        }
        return (name, String(decoding: host, as: UTF8.self), port)
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."): true
        default: false
        }
    }
}
