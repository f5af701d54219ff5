/// A value of a setting, read as its type says.
package enum ConfigValue: Sendable, Hashable {
    case boolean(Bool)
    case integer(Int64)
    case double(Double)
    /// A string, the name of a class, or a password.
    case string(String)
    case list([String])

    /// As DescribeConfigs tells it: `TRUE` has become `true`, ` 5 ` `5`, `.5` `0.5`.
    package var text: String {
        switch self {
        case .boolean(let value): value ? "true" : "false"
        case .integer(let value): String(value)
        case .double(let value): javaText(value)
        case .string(let value): value
        case .list(let values): values.joined(separator: ",")
        }
    }

    package var integer: Int64? { if case .integer(let value) = self { value } else { nil } }
    package var boolean: Bool? { if case .boolean(let value) = self { value } else { nil } }
    package var double: Double? { if case .double(let value) = self { value } else { nil } }
    package var string: String? { if case .string(let value) = self { value } else { nil } }
    package var list: [String]? { if case .list(let value) = self { value } else { nil } }
}

extension ConfigDefinition {
    /// Reads a value as Kafka does, and holds it against the constraint.
    package func parse(_ text: String) throws(ConfigError) -> ConfigValue {
        let trimmed = javaTrimmed(text)
        guard let value = typed(trimmed) else { throw refusal(of: trimmed) }
        guard permits(value) else { throw refusal(of: trimmed) }
        return value
    }

    /// What stands in the table, read; nil where there is none.
    package var parsedDefault: ConfigValue? {
        guard let defaultValue else { return nil }
        guard let value = typed(defaultValue[...]) else {
            preconditionFailure("the default of \(name) is of its type")
        }
        return value
    }

    private func typed(_ trimmed: Substring) -> ConfigValue? {
        switch type {
        case .boolean:
            switch trimmed.lowercased() {
            case "true": .boolean(true)
            case "false": .boolean(false)
            default: nil
            }
        case .short, .int, .long:
            // as Java: an optional sign and digits, nothing else
            Int64(trimmed).flatMap { type.integers?.contains($0) == true ? .integer($0) : nil }
        case .double: javaDouble(trimmed).map(ConfigValue.double)
        case .list: .list(commaSeparated(trimmed))
        case .string, .class, .password: .string(String(trimmed))
        }
    }

    private func permits(_ value: ConfigValue) -> Bool {
        switch (constraint, value) {
        case (.integers(let ranges), .integer(let number)): ranges.contains { $0.contains(number) }
        case (.doubles(let range), .double(let number)): range.contains(number)
        case (.words(let words), .string(let word)): words.contains(word)
        case (.words(let words), .list(let list)):
            list.allSatisfy(words.contains) && Set(list).count == list.count
        case (.throttledReplicas, .list(let list)): list == ["*"] || list.allSatisfy(isThrottledReplica)
        case (.hostCounts, .string(let text)): hostCounts(text) != nil
        case (.logLevels, .string(let text)): LogLevels(text) != nil
        default: true
        }
    }

    private func isThrottledReplica(_ text: String) -> Bool {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        return parts.count == 2 && parts.allSatisfy { part in Int32(part).map { $0 >= 0 } ?? false }
    }

    private func refusal(of value: Substring) -> ConfigError {
        let shown = isSecret ? "the value given" : "'\(value.prefix(ConfigTable.shownLength))'"
        return ConfigError(.invalidValue, name, "\(name) cannot be \(shown): it must be \(allowed)")
    }

    /// In words, what a value may be.
    package var allowed: String {
        switch constraint {
        case .integers(let ranges):
            "\(kind) " + ranges.map { range in
                if range.lowerBound == range.upperBound { return "\(range.lowerBound)" }
                let low = "from \(range.lowerBound)"
                return range.upperBound == .max ? "\(low) up" : "\(low) to \(range.upperBound)"
            }.joined(separator: ", or ")
        case .doubles(let range): "a number from \(javaText(range.lowerBound)) to \(javaText(range.upperBound))"
        case .words(let words):
            (type == .list ? "a list, without repetition, of " : "one of ") + words.joined(separator: ", ")
        case .throttledReplicas: "* or a list of partition:broker pairs"
        case .hostCounts: "a list of host:count pairs with counts from 0 up"
        case .logLevels:
            "one of \(LogLevels.words.joined(separator: ", ")), and subsystem:level pairs, separated by commas, with "
                + LogLevels.subsystems.joined(separator: ", ")
        case .none: kind
        }
    }

    private var kind: String {
        switch type {
        case .boolean: "true or false"
        case .short: "a whole number of 16 bits"
        case .int: "a whole number of 32 bits"
        case .long: "a whole number of 64 bits"
        case .double: "a number"
        case .list: "a list of words separated by commas"
        case .string: "a text"
        case .class: "the name of a class"
        case .password: "a password"
        }
    }
}

/// Without the characters up to U+0020 at both ends: what Java calls trimming.
package func javaTrimmed(_ text: some StringProtocol) -> Substring {
    let all = Substring(text)
    let scalars = all.unicodeScalars
    guard let first = scalars.firstIndex(where: { $0.value > 0x20 }),
        let last = scalars.lastIndex(where: { $0.value > 0x20 })
    else { return "" }
    return Substring(scalars[first...last])
}

/// The elements of a list as Kafka splits it: at commas, blanks around them gone; an empty text has none.
package func commaSeparated(_ text: Substring) -> [String] {
    let trimmed = javaTrimmed(text)
    guard !trimmed.isEmpty else { return [] }
    return trimmed.split(separator: ",", omittingEmptySubsequences: false).map { String(javaTrimmed($0)) }
}

/// The pairs of `host:count,host:count`; nil where one is none. A host may hold colons: the last one counts.
package func hostCounts(_ text: String) -> [(host: String, count: Int32)]? {
    var pairs: [(host: String, count: Int32)] = []
    for element in commaSeparated(text[...]) {
        guard let colon = element.lastIndex(of: ":"), colon != element.startIndex,
            let count = Int32(javaTrimmed(element[element.index(after: colon)...])), count >= 0
        else { return nil }
        pairs.append((String(javaTrimmed(element[..<colon])), count))
    }
    return pairs
}

/// A number as Java reads one: `.5`, `1.`, `1e3` and a last `d` or `f` are good; so are `NaN` and `Infinity`, spelt so.
/// Java's hexadecimal fractions are not taken.
package func javaDouble(_ text: Substring) -> Double? {
    var rest = Array(text.utf8)[...]
    func take(_ choices: String) -> UInt8? {
        guard let first = rest.first, choices.utf8.contains(first) else { return nil }
        rest.removeFirst()
        return first
    }
    func takeDigits() -> String {
        let digits = rest.prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        rest = rest[digits.endIndex...]
        return String(decoding: digits, as: UTF8.self)
    }
    let negative = take("+-") == UInt8(ascii: "-")
    if rest.elementsEqual("NaN".utf8) { return .nan }
    if rest.elementsEqual("Infinity".utf8) { return negative ? -.infinity : .infinity }
    let whole = takeDigits()
    let fraction = take(".") == nil ? "" : takeDigits()
    guard !whole.isEmpty || !fraction.isEmpty else { return nil }
    var exponent = "0"
    if take("eE") != nil {
        let sign = take("+-") == UInt8(ascii: "-") ? "-" : ""
        exponent = takeDigits()
        guard !exponent.isEmpty else { return nil }
        exponent = sign + exponent
    }
    _ = take("dDfF")
    guard rest.isEmpty, let value = Double("0\(whole).\(fraction)0e\(exponent)") else { return nil }
    return negative ? -value : value
}

/// A number as Java writes it: plain from 0.001 to 10 million, else with an exponent; always with a point.
package func javaText(_ value: Double) -> String {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value < 0 ? "-Infinity" : "Infinity" }
    let sign = value.sign == .minus ? "-" : ""
    if value == 0 { return sign + "0.0" }
    // Swift writes the shortest digits too; only where the point stands differs.
    let parts = value.magnitude.description.split(separator: "e")
    let mantissa = parts[0].split(separator: ".")
    var digits = Array(mantissa[0]) + (mantissa.count > 1 ? Array(mantissa[1]) : [])
    var point = mantissa[0].count + (parts.count > 1 ? Int(parts[1]) ?? 0 : 0)
    while digits.count > 1, digits[0] == "0" {
        digits.removeFirst()
        point -= 1
    }
    while digits.count > 1, digits[digits.count - 1] == "0" { digits.removeLast() }
    if value.magnitude >= 1e-3, value.magnitude < 1e7 {
        if point <= 0 { return sign + "0." + String(repeating: "0", count: -point) + String(digits) }
        while digits.count <= point { digits.append("0") }
        return sign + String(digits[..<point]) + "." + String(digits[point...])
    }
    let fraction = digits.count > 1 ? String(digits[1...]) : "0"
    return sign + "\(digits[0]).\(fraction)E\(point - 1)"
}
