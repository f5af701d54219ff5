/// One setting of a properties file.
package struct Property: Sendable, Hashable {
    package var name: String
    package var value: String
    /// Where it begins, counted from 1.
    package var line: Int

    package init(name: String, value: String, line: Int) {
        self.name = name
        self.value = value
        self.line = line
    }
}

/// Reads Java's properties format: `server.properties`, `meta.properties`.
///
/// Comments begin with `#` or `!`; a backslash at the end of a line continues it; a name ends at `=`, `:` or a blank;
/// `\t \n \r \f \uXXXX` are escapes, and a backslash before anything else means just that. Java reads the file as
/// Latin-1. Files written by hand are UTF-8 today, so bytes that are valid UTF-8 are read so, and as Latin-1 if not.
package struct PropertiesParser {
    package static let maximumBytes = 1 << 20
    package static let maximumProperties = 10_000

    private let bytes: UnsafeRawBufferPointer
    private let isUTF8: Bool
    private var position = 0
    private var line = 1

    /// The settings in the order of the file. Of several with one name the last counts, and stands in its own place.
    package static func parse(_ bytes: [UInt8]) throws(ConfigError) -> [Property] {
        let parsed: Result<[Property], ConfigError> = bytes.withUnsafeBytes { raw in
            Result { () throws(ConfigError) in try parse(raw) }
        }
        return try parsed.get()
    }

    package static func parse(_ bytes: UnsafeRawBufferPointer) throws(ConfigError) -> [Property] {
        guard bytes.count <= maximumBytes else {
            throw ConfigError(.malformedFile, "", "the file has \(bytes.count) bytes; at most \(maximumBytes) are read")
        }
        var parser = PropertiesParser(bytes)
        var all: [Property] = []
        var lastWithName: [String: Int] = [:]
        while let property = try parser.next() {
            guard all.count < maximumProperties else {
                throw fault(property.line, "the file has more than \(maximumProperties) settings")
            }
            lastWithName[property.name] = all.count
            all.append(property)
        }
        guard lastWithName.count < all.count else { return all }
        return all.indices.filter { lastWithName[all[$0].name] == $0 }.map { all[$0] }
    }

    private init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
        isUTF8 = String(validating: bytes, as: UTF8.self) != nil
    }

    private static func fault(_ line: Int, _ what: String) -> ConfigError {
        ConfigError(.malformedFile, "", "line \(line): \(what)")
    }

    private mutating func next() throws(ConfigError) -> Property? {
        while let (text, start) = logicalLine() {
            if text.isEmpty { continue }
            var end = 0
            while end < text.count, !Self.isBlank(text[end]), !Self.isSeparator(text[end]) {
                end += text[end] == UInt8(ascii: "\\") ? 2 : 1
            }
            end = min(end, text.count)
            var begin = end
            while begin < text.count, Self.isBlank(text[begin]) { begin += 1 }
            if begin < text.count, Self.isSeparator(text[begin]) {
                begin += 1
                while begin < text.count, Self.isBlank(text[begin]) { begin += 1 }
            }
            let name = try unescaped(text[..<end], start)
            return Property(name: name, value: try unescaped(text[begin...], start), line: start)
        }
        return nil
    }

    /// The next line that is no comment, with its continuations, escapes still in it; nil at the end.
    private mutating func logicalLine() -> (text: [UInt8], start: Int)? {
        skipBlanks()
        while position < bytes.count, isComment(bytes[position]) || Self.isTerminator(bytes[position]) {
            while position < bytes.count, !Self.isTerminator(bytes[position]) { position += 1 }
            skipTerminator()
            skipBlanks()
        }
        guard position < bytes.count else { return nil }
        let start = line
        var text: [UInt8] = []
        while position < bytes.count {
            let byte = bytes[position]
            if Self.isTerminator(byte) { break }
            position += 1
            guard byte == UInt8(ascii: "\\") else {
                text.append(byte)
                continue
            }
            // a backslash before the end of the file means nothing
            guard position < bytes.count else { break }
            if Self.isTerminator(bytes[position]) {
                skipTerminator()
                skipBlanks()
            } else {
                text.append(byte)
                text.append(bytes[position])
                position += 1
            }
        }
        skipTerminator()
        return (text, start)
    }

    private func isComment(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "#") || byte == UInt8(ascii: "!") }
    private static func isTerminator(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") }
    private static func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == 0x09 || byte == 0x0C }
    private static func isSeparator(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "=") || byte == UInt8(ascii: ":") }

    private mutating func skipBlanks() {
        while position < bytes.count, Self.isBlank(bytes[position]) { position += 1 }
    }

    /// Past one end of line: LF, CR, or CR and LF.
    private mutating func skipTerminator() {
        guard position < bytes.count else { return }
        let first = bytes[position]
        position += 1
        line += 1
        if first == UInt8(ascii: "\r"), position < bytes.count, bytes[position] == UInt8(ascii: "\n") { position += 1 }
    }

    private func unescaped(_ text: ArraySlice<UInt8>, _ line: Int) throws(ConfigError) -> String {
        var result: [UInt8] = []
        result.reserveCapacity(text.count)
        var index = text.startIndex
        while index < text.endIndex {
            var byte = text[index]
            index += 1
            if byte == UInt8(ascii: "\\"), index < text.endIndex {
                byte = text[index]
                index += 1
                switch byte {
                case UInt8(ascii: "t"): byte = 0x09
                case UInt8(ascii: "n"): byte = 0x0A
                case UInt8(ascii: "r"): byte = 0x0D
                case UInt8(ascii: "f"): byte = 0x0C
                case UInt8(ascii: "u"):
                    result.append(contentsOf: String(try character(in: text, at: &index, line)).utf8)
                    continue
                default: break
                }
            }
            if byte < 0x80 || isUTF8 {
                result.append(byte)
            } else {
                result.append(0xC0 | byte >> 6)
                result.append(0x80 | byte & 0x3F)
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// What `\u` stands for; two of them in a row can be one character.
    private func character(
        in text: ArraySlice<UInt8>, at index: inout Int, _ line: Int
    ) throws(ConfigError) -> Character {
        let first = try codeUnit(in: text, at: &index, line)
        if let scalar = Unicode.Scalar(first) { return Character(scalar) }
        guard first < 0xDC00, text.endIndex - index >= 6, text[index] == UInt8(ascii: "\\"),
            text[index + 1] == UInt8(ascii: "u")
        else { throw Self.fault(line, "a \\u escape names half a character") }
        index += 2
        let second = try codeUnit(in: text, at: &index, line)
        guard (0xDC00..<0xE000).contains(second),
            let scalar = Unicode.Scalar(0x10000 + (UInt32(first) - 0xD800) << 10 + UInt32(second) - 0xDC00)
        else { throw Self.fault(line, "a \\u escape names half a character") }
        return Character(scalar)
    }

    private func codeUnit(in text: ArraySlice<UInt8>, at index: inout Int, _ line: Int) throws(ConfigError) -> UInt16 {
        var value: UInt16 = 0
        for _ in 0..<4 {
            guard index < text.endIndex, let digit = Character(Unicode.Scalar(text[index])).hexDigitValue else {
                throw Self.fault(line, "\\u must be followed by four hexadecimal digits")
            }
            value = value << 4 | UInt16(digit)
            index += 1
        }
        return value
    }
}
