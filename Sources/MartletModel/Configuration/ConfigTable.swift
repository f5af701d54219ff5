internal import MartletBasics

/// Every setting there is, sorted by name.
///
/// Read once, at first use, from lines of text that people can keep:
///
///     scopes name type default [flags] [constraint] [< the broker's settings it inherits from]
///
/// - scopes: `broker`, `topic`, `group`, `client-metrics`, joined by commas;
/// - default: `null` for none, `""` for an empty one;
/// - flags: `dynamic`, `per-broker`, `per-listener`, `secret`, `kraft`, `old`, `internal`;
/// - constraint: `>=1`, `0..9`, `-1|1..9`, `in:words,of,these`, `throttled`, `hosts`, `log-levels`.
///
/// What acts is said once, in `ActingConfigs`.
package struct ConfigTable: Sendable {
    package static let shared = ConfigTable()

    package let definitions: [ConfigDefinition]

    private init() {
        var all: [ConfigDefinition] = []
        all.reserveCapacity(480)
        for lines in [Self.brokerLines, Self.topicLines, Self.groupLines, Self.oldLines, Self.ourLines] {
            lines.withUTF8Buffer { Self.read($0, into: &all) }
        }
        all.sort { $0.name < $1.name }
        for index in 1..<all.count {
            precondition(all[index - 1].name != all[index].name, "each setting has one line")
        }
        for (name, _) in ActingConfigs.documented {
            guard let index = Self.index(of: name, in: all) else {
                preconditionFailure("what acts is in the table: \(name)")
            }
            all[index].markActing()
        }
        definitions = all
    }

    package subscript(name: String) -> ConfigDefinition? {
        Self.index(of: name, in: definitions).map { definitions[$0] }
    }

    /// The setting of that name, if it can be set there.
    package func definition(_ name: String, for scope: ConfigScopes) -> ConfigDefinition? {
        guard let found = self[name], !found.scopes.isDisjoint(with: scope) else { return nil }
        return found
    }

    /// Those of a scope, in order of name.
    package func definitions(for scope: ConfigScopes) -> [ConfigDefinition] {
        definitions.filter { !$0.scopes.isDisjoint(with: scope) }
    }

    /// The refusal of a name that no setting of the scope has, with the nearest that one has.
    package func unknownName(_ name: String, for scope: ConfigScopes, kind: String) -> ConfigError {
        let names = definitions.lazy.filter { !$0.scopes.isDisjoint(with: scope) }.map(\.name)
        let shown = name.count > Self.shownLength ? "\(name.prefix(Self.shownLength))…" : name
        guard let nearest = nearestName(to: name, among: names) else {
            return ConfigError(.unknownName, name, "there is no \(kind) setting '\(shown)'")
        }
        return ConfigError(.unknownName, name, "there is no \(kind) setting '\(shown)'; the nearest is '\(nearest)'")
    }

    /// How much of a name or value from outside an error repeats.
    package static let shownLength = 200

    private static func index(of name: String, in sorted: [ConfigDefinition]) -> Int? {
        var low = 0
        var high = sorted.count
        while low < high {
            let middle = (low + high) / 2
            if sorted[middle].name < name { low = middle + 1 } else { high = middle }
        }
        return low < sorted.count && sorted[low].name == name ? low : nil
    }
}

/// The reading of the lines.
extension ConfigTable {
    private typealias Bytes = UnsafeBufferPointer<UInt8>

    private static func read(_ text: UnsafeBufferPointer<UInt8>, into all: inout [ConfigDefinition]) {
        var start = 0
        while start < text.count {
            var end = start
            while end < text.count, text[end] != UInt8(ascii: "\n") { end += 1 }
            all.append(definition(fields(Bytes(rebasing: text[start..<end]), between: UInt8(ascii: " "))))
            start = end + 1
        }
    }

    private static func fields(_ text: Bytes, between separator: UInt8) -> [Bytes] {
        var found: [Bytes] = []
        found.reserveCapacity(8)
        var start = 0
        for end in 0...text.count where end == text.count || text[end] == separator {
            found.append(Bytes(rebasing: text[start..<end]))
            start = end + 1
        }
        return found
    }

    private static func definition(_ fields: [Bytes]) -> ConfigDefinition {
        precondition(fields.count >= 4, "a line of the table has scopes, name, type and default")
        func text(_ index: Int) -> String { String(decoding: fields[index], as: UTF8.self) }
        let typeName = text(2)
        guard let type = ConfigType.allCases.first(where: { $0.name == typeName }) else {
            preconditionFailure("no type is called \(typeName)")
        }
        var flags: ConfigFlags = []
        var constraint = ConfigConstraint.none
        var inherits: [String] = []
        for index in 4..<max(fields.count, 4) {
            if fields[index].elementsEqual("<".utf8) {
                inherits = (index + 1..<fields.count).map(text)
                break
            }
            if let flag = flag(text(index)) {
                flags.insert(flag)
            } else {
                constraint = Self.constraint(text(index), type)
            }
        }
        let value: String? = fields[3].elementsEqual("null".utf8) ? nil
            : fields[3].elementsEqual("\"\"".utf8) ? "" : text(3)
        return ConfigDefinition(
            text(1), scopes: scopes(text(0)), type: type, defaultValue: value, flags: flags, constraint: constraint,
            inherits: inherits)
    }

    private static func scopes(_ text: String) -> ConfigScopes {
        switch text {
        case "broker": .broker
        case "topic": .topic
        case "broker,topic": [.broker, .topic]
        case "group": .group
        case "client-metrics": .clientMetrics
        default: preconditionFailure("no scopes are called \(text)")
        }
    }

    private static func flag(_ text: String) -> ConfigFlags? {
        switch text {
        case "dynamic": .dynamic
        case "per-broker": .perBroker
        case "per-listener": .perListener
        case "secret": .secret
        case "kraft": .kraft
        case "old": .old
        case "internal": .internal
        default: nil
        }
    }

    private static func constraint(_ text: String, _ type: ConfigType) -> ConfigConstraint {
        if text == "throttled" { return .throttledReplicas }
        if text == "hosts" { return .hostCounts }
        if text == "log-levels" { return .logLevels }
        if text.hasPrefix("in:") { return .words(text.dropFirst(3).split(separator: ",").map(String.init)) }
        func number<N: LosslessStringConvertible>(_ text: Substring, _: N.Type) -> N {
            guard let value = N(String(text)) else { preconditionFailure("\(text) is no number") }
            return value
        }
        if text.hasPrefix(">=") { return .integers([number(text.dropFirst(2), Int64.self)...Int64.max]) }
        if type == .double, let dots = bounds(text[...]) {
            return .doubles(number(dots.low, Double.self)...number(dots.high, Double.self))
        }
        return .integers(text.split(separator: "|").map { part in
            let dots = bounds(part) ?? (low: part, high: part)
            return number(dots.low, Int64.self)...number(dots.high, Int64.self)
        })
    }

    /// The two sides of `low..high`.
    private static func bounds(_ text: Substring) -> (low: Substring, high: Substring)? {
        var index = text.startIndex
        while index < text.endIndex {
            let next = text.index(after: index)
            if text[index] == ".", next < text.endIndex, text[next] == "." {
                return (text[..<index], text[text.index(after: next)...])
            }
            index = next
        }
        return nil
    }
}
