/// A Java properties file, as far as brokers write them: comments, then `key=value` lines in ISO 8859-1. Comments and
/// the order of keys are kept, so that reading and writing changes nothing.
package struct JavaProperties: Equatable, Sendable {
    /// With their `#` or `!`.
    package var comments: [String] = []
    package private(set) var rows: [Row] = []

    package struct Row: Equatable, Sendable {
        package var key: String
        package var value: String
    }

    package static let lineLimit = 10_000

    package init() {}

    package subscript(_ key: String) -> String? {
        get { rows.first { $0.key == key }?.value }
        set {
            let index = rows.firstIndex { $0.key == key }
            switch (index, newValue) {
            case (let index?, let value?): rows[index].value = value
            case (nil, let value?): rows.append(Row(key: key, value: value))
            case (let index?, nil): rows.remove(at: index)
            case (nil, nil): break
            }
        }
    }

    // MARK: Reading

    package static func decode(_ bytes: [UInt8], path: String) throws(LogError) -> JavaProperties {
        var properties = JavaProperties()
        var number = 0
        var pending: [UInt8]?
        for raw in bytes.split(whereSeparator: { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }) {
            number += 1
            func bad(_ reason: String) -> LogError { .malformedFile(path: path, line: number, reason: reason) }
            guard number <= lineLimit else { throw bad("more than \(lineLimit) lines") }
            let line = raw.drop(while: isBlank)
            if pending == nil {
                guard let first = line.first else { continue }
                if first == UInt8(ascii: "#") || first == UInt8(ascii: "!") {
                    properties.comments.append(latin1(line))
                    continue
                }
            }
            // an odd number of backslashes at the end joins the next line to this one
            let slashes = line.reversed().prefix { $0 == UInt8(ascii: "\\") }.count
            let logical = (pending ?? []) + (slashes % 2 == 1 ? line.dropLast() : line)
            pending = slashes % 2 == 1 ? logical : nil
            if pending != nil { continue }
            guard let (key, value) = pair(logical[...]) else { throw bad("an escape that is none") }
            properties[key] = value
        }
        guard pending == nil else {
            throw .malformedFile(path: path, line: number, reason: "the file ends within a line")
        }
        return properties
    }

    private static func isBlank(_ byte: UInt8) -> Bool {
        byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") || byte == 0x0C
    }
    private static func isSeparator(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "=") || byte == UInt8(ascii: ":") }

    /// The key ends at the first blank, `=` or `:` that no backslash stands before.
    private static func pair(_ line: ArraySlice<UInt8>) -> (String, String)? {
        var end = line.startIndex
        while end < line.endIndex, !isBlank(line[end]), !isSeparator(line[end]) {
            end += line[end] == UInt8(ascii: "\\") ? 2 : 1
        }
        guard end <= line.endIndex else { return nil }
        var rest = line[end...].drop(while: isBlank)
        if let first = rest.first, isSeparator(first) { rest = rest.dropFirst().drop(while: isBlank) }
        guard let key = unescaped(line[..<end]), let value = unescaped(rest) else { return nil }
        return (key, value)
    }

    private static func latin1(_ bytes: ArraySlice<UInt8>) -> String {
        var text = String.UnicodeScalarView()
        text.append(contentsOf: bytes.map { Unicode.Scalar($0) })
        return String(text)
    }

    private static func unescaped(_ bytes: ArraySlice<UInt8>) -> String? {
        var units: [UInt16] = []
        var index = bytes.startIndex
        while index < bytes.endIndex {
            guard bytes[index] == UInt8(ascii: "\\") else {
                units.append(UInt16(bytes[index]))
                index += 1
                continue
            }
            guard index + 1 < bytes.endIndex else { return nil }
            let escaped = bytes[index + 1]
            index += 2
            switch escaped {
            case UInt8(ascii: "n"): units.append(0x0A)
            case UInt8(ascii: "t"): units.append(0x09)
            case UInt8(ascii: "r"): units.append(0x0D)
            case UInt8(ascii: "f"): units.append(0x0C)
            case UInt8(ascii: "u"):
                guard index + 4 <= bytes.endIndex,
                    let unit = UInt16(String(decoding: bytes[index..<(index + 4)], as: UTF8.self), radix: 16)
                else { return nil }
                units.append(unit)
                index += 4
            default: units.append(UInt16(escaped))
            }
        }
        return String(decoding: units, as: UTF16.self)
    }

    // MARK: Writing

    package func encode() -> [UInt8] {
        var out: [UInt8] = []
        for comment in comments {
            out += comment.unicodeScalars.map { $0.value < 0x100 ? UInt8($0.value) : UInt8(ascii: "?") }
            out.append(UInt8(ascii: "\n"))
        }
        for row in rows {
            out += Self.escaped(row.key, isKey: true)
            out.append(UInt8(ascii: "="))
            out += Self.escaped(row.value, isKey: false)
            out.append(UInt8(ascii: "\n"))
        }
        return out
    }

    private static func escaped(_ text: String, isKey: Bool) -> [UInt8] {
        var out: [UInt8] = []
        for (index, unit) in text.utf16.enumerated() {
            switch unit {
            case 0x20: out += Array((isKey || index == 0 ? "\\ " : " ").utf8)
            case 0x09: out += Array("\\t".utf8)
            case 0x0A: out += Array("\\n".utf8)
            case 0x0D: out += Array("\\r".utf8)
            case 0x0C: out += Array("\\f".utf8)
            case 0x5C, 0x3D, 0x3A, 0x23, 0x21: out += [0x5C, UInt8(unit)]
            case 0x21...0x7E: out.append(UInt8(unit))
            default:
                let hex = String(unit, radix: 16, uppercase: true)
                out += Array(("\\u" + String(repeating: "0", count: 4 - hex.utf8.count) + hex).utf8)
            }
        }
        return out
    }
}
