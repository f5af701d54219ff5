/// Where metrics are told: `host:port`, from `martlet.metrics.listener`.
package struct MetricsListener: Sendable, Equatable, CustomStringConvertible {
    /// Empty for every interface. IPv6 without brackets.
    package var host: String
    /// 0 where any free port will do.
    package var port: UInt16

    package init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    package var description: String { host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// Nil where the text is empty: metrics are not told.
    package static func parse(_ text: String, setting: String) throws(ConfigError) -> MetricsListener? {
        let text = javaTrimmed(text[...])
        guard !text.isEmpty else { return nil }
        let fault = ConfigError(
            .invalidValue, setting,
            "\(setting) is '\(text.prefix(ConfigTable.shownLength))': it must be host:port, with an IPv6 host in brackets and "
                + "a port from 0 to 65535, no host for every interface, or empty for none")
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]),
            text[text.index(after: colon)...].utf8.allSatisfy({ (0x30...0x39).contains($0) })
        else { throw fault }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]"), host.utf8.contains(UInt8(ascii: ":")) {
            host = host.dropFirst().dropLast()
        } else if host.utf8.contains(UInt8(ascii: ":")) {
            throw fault
        }
        guard host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && !"/[]".utf8.contains($0) }) else { throw fault }
        return MetricsListener(host: String(host), port: port)
    }

    /// As the settings say, held against the listeners for clients: a port is for one or the other.
    static func from(_ settings: BrokerSettings, beside listeners: [Listener]) throws(ConfigError) -> MetricsListener? {
        let setting = "martlet.metrics.listener"
        guard let found = try parse(settings.string(setting), setting: setting) else { return nil }
        guard found.port != 0, let other = listeners.first(where: { $0.port == found.port }) else { return found }
        // by default it gives way
        if settings.given(setting) == nil { return nil }
        throw ConfigError(
            .contradiction, setting, "\(setting) is \(found), on the port of the listener \(other); each needs its own")
    }
}
