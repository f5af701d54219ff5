/// A value of JSON (RFC 8259): what the coordination tree keeps in its nodes.
///
/// Objects keep the order of their members, whole numbers are of 64 bits, and other numbers are doubles.
package enum JSONValue: Sendable, Hashable {
    case null
    case bool(Bool)
    case int(Int64)
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    package var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    package var int: Int64? { if case .int(let value) = self { value } else { nil } }
    package var string: String? { if case .string(let value) = self { value } else { nil } }
    package var array: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    package var object: JSONObject? { if case .object(let value) = self { value } else { nil } }

    /// A number of any kind.
    package var double: Double? {
        switch self {
        case .double(let value): value
        case .int(let value): Double(value)
        default: nil
        }
    }

    /// The member of that name, where this is an object that has one.
    package subscript(name: String) -> JSONValue? { object?[name] }

    /// A whole number that fits the type, where this is one.
    package func integer<T: FixedWidthInteger>(_: T.Type = T.self) -> T? { int.flatMap { T(exactly: $0) } }
}

/// The members of an object, in order, each name once.
package struct JSONObject: Sendable, Hashable, ExpressibleByDictionaryLiteral {
    package struct Member: Sendable, Hashable {
        package var name: String
        package var value: JSONValue

        package init(_ name: String, _ value: JSONValue) {
            self.name = name
            self.value = value
        }
    }

    package private(set) var members: [Member]

    /// The names must differ.
    package init(_ members: [Member]) {
        precondition(Set(members.map(\.name)).count == members.count, "an object has each name once")
        self.members = members
    }

    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self.init(elements.map { Member($0, $1) })
    }

    fileprivate init(distinct members: [Member]) { self.members = members }

    package subscript(name: String) -> JSONValue? {
        get { members.first { $0.name == name }?.value }
        set {
            let index = members.firstIndex { $0.name == name }
            switch (index, newValue) {
            case (let index?, let value?): members[index].value = value
            case (let index?, nil): members.remove(at: index)
            case (nil, let value?): members.append(Member(name, value))
            case (nil, nil): break
            }
        }
    }
}

extension JSONValue: ExpressibleByIntegerLiteral, ExpressibleByStringLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral {
    package init(integerLiteral value: Int64) { self = .int(value) }
    package init(stringLiteral value: String) { self = .string(value) }
    package init(booleanLiteral value: Bool) { self = .bool(value) }
    package init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    package init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(JSONObject(elements.map { JSONObject.Member($0, $1) }))
    }
}

/// Why bytes are no JSON that is taken here, and where.
package struct JSONFault: Error, Hashable, Sendable, CustomStringConvertible {
    package enum Reason: String, Sendable {
        case tooLong = "the text is longer than allowed"
        case tooDeep = "arrays and objects are nested deeper than allowed"
        case endsEarly = "the text ends inside a value"
        case unexpectedByte = "another character should stand here"
        case malformedNumber = "a number is spelt wrongly"
        case numberOutOfRange = "a number is too large"
        case malformedString = "a string is not UTF-8, or has a bare control character or a wrong escape"
        case repeatedName = "an object has one name twice"
        case trailingBytes = "something follows the value"
    }

    package var reason: Reason
    /// The offset of the byte.
    package var position: Int

    package init(_ reason: Reason, at position: Int) {
        self.reason = reason
        self.position = position
    }

    package var description: String { "\(reason.rawValue) (byte \(position))" }
}

/// What a JSON text may be at most.
package struct JSONLimits: Sendable {
    package var bytes: Int
    package var depth: Int

    /// What a node of the coordination tree can hold, and nests.
    package init(bytes: Int = 1 << 20, depth: Int = 64) {
        self.bytes = bytes
        self.depth = depth
    }
}

extension JSONValue {
    /// Reads one value, with nothing but white space around it.
    package init(parsing bytes: UnsafeRawBufferPointer, limits: JSONLimits = JSONLimits()) throws(JSONFault) {
        guard bytes.count <= limits.bytes else { throw JSONFault(.tooLong, at: limits.bytes) }
        var parser = JSONParser(bytes, limits.depth)
        self = try parser.whole()
    }

    package init(parsing bytes: [UInt8], limits: JSONLimits = JSONLimits()) throws(JSONFault) {
        let parsed: Result<JSONValue, JSONFault> = bytes.withUnsafeBytes { raw in
            Result { () throws(JSONFault) in try JSONValue(parsing: raw, limits: limits) }
        }
        self = try parsed.get()
    }

    package init(parsing text: String, limits: JSONLimits = JSONLimits()) throws(JSONFault) {
        try self.init(parsing: Array(text.utf8), limits: limits)
    }
}

private struct JSONParser {
    let bytes: UnsafeRawBufferPointer
    let depthLimit: Int
    var position = 0
    var depth = 0

    init(_ bytes: UnsafeRawBufferPointer, _ depthLimit: Int) {
        self.bytes = bytes
        self.depthLimit = depthLimit
    }

    mutating func whole() throws(JSONFault) -> JSONValue {
        let result = try value()
        skipSpace()
        guard position == bytes.count else { throw JSONFault(.trailingBytes, at: position) }
        return result
    }

    private mutating func skipSpace() {
        while position < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[position]) { position += 1 }
    }

    private func peek() throws(JSONFault) -> UInt8 {
        guard position < bytes.count else { throw JSONFault(.endsEarly, at: position) }
        return bytes[position]
    }

    /// Takes the byte if it comes next.
    private mutating func take(_ byte: Unicode.Scalar) -> Bool {
        guard position < bytes.count, bytes[position] == UInt8(ascii: byte) else { return false }
        position += 1
        return true
    }

    private mutating func expect(_ text: StaticString) throws(JSONFault) {
        for index in 0..<text.utf8CodeUnitCount {
            guard try peek() == text.utf8Start[index] else { throw JSONFault(.unexpectedByte, at: position) }
            position += 1
        }
    }

    private mutating func value() throws(JSONFault) -> JSONValue {
        skipSpace()
        switch try peek() {
        case UInt8(ascii: "{"): return try nested { (parser) throws(JSONFault) in try parser.object() }
        case UInt8(ascii: "["): return try nested { (parser) throws(JSONFault) in try parser.array() }
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"):
            try expect("true")
            return .bool(true)
        case UInt8(ascii: "f"):
            try expect("false")
            return .bool(false)
        case UInt8(ascii: "n"):
            try expect("null")
            return .null
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        default: throw JSONFault(.unexpectedByte, at: position)
        }
    }

    private mutating func nested(
        _ body: (inout JSONParser) throws(JSONFault) -> JSONValue
    ) throws(JSONFault) -> JSONValue {
        guard depth < depthLimit else { throw JSONFault(.tooDeep, at: position) }
        depth += 1
        position += 1
        let result = try body(&self)
        depth -= 1
        return result
    }

    private mutating func array() throws(JSONFault) -> JSONValue {
        var elements: [JSONValue] = []
        skipSpace()
        if take("]") { return .array([]) }
        while true {
            elements.append(try value())
            skipSpace()
            if take("]") { return .array(elements) }
            try expect(",")
        }
    }

    private mutating func object() throws(JSONFault) -> JSONValue {
        var members: [JSONObject.Member] = []
        var names: Set<String> = []
        skipSpace()
        if take("}") { return .object([:]) }
        while true {
            skipSpace()
            let start = position
            guard try peek() == UInt8(ascii: "\"") else { throw JSONFault(.unexpectedByte, at: position) }
            let name = try string()
            guard names.insert(name).inserted else { throw JSONFault(.repeatedName, at: start) }
            skipSpace()
            try expect(":")
            members.append(JSONObject.Member(name, try value()))
            skipSpace()
            if take("}") { return .object(JSONObject(distinct: members)) }
            try expect(",")
        }
    }

    private mutating func digits() -> Int {
        let start = position
        let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
        while position < bytes.count, digits.contains(bytes[position]) { position += 1 }
        return position - start
    }

    private mutating func number() throws(JSONFault) -> JSONValue {
        let start = position
        _ = take("-")
        let leadsWithZero = position < bytes.count && bytes[position] == UInt8(ascii: "0")
        let count = digits()
        guard count > 0, !(leadsWithZero && count > 1) else { throw JSONFault(.malformedNumber, at: start) }
        var isWhole = true
        if take(".") {
            isWhole = false
            guard digits() > 0 else { throw JSONFault(.malformedNumber, at: start) }
        }
        if take("e") || take("E") {
            isWhole = false
            if !take("+") { _ = take("-") }
            guard digits() > 0 else { throw JSONFault(.malformedNumber, at: start) }
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isWhole {
            guard let value = Int64(text) else { throw JSONFault(.numberOutOfRange, at: start) }
            return .int(value)
        }
        guard let value = Double(text), value.isFinite else { throw JSONFault(.numberOutOfRange, at: start) }
        return .double(value)
    }

    private mutating func string() throws(JSONFault) -> String {
        let start = position
        position += 1
        var text: [UInt8] = []
        var plain = position
        while true {
            let byte = try peek()
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") {
                text.append(contentsOf: bytes[plain..<position])
                position += 1
                if byte == UInt8(ascii: "\"") { break }
                try escape(into: &text)
                plain = position
            } else {
                guard byte >= 0x20 else { throw JSONFault(.malformedString, at: position) }
                position += 1
            }
        }
        guard let valid = String(validating: text, as: UTF8.self) else { throw JSONFault(.malformedString, at: start) }
        return valid
    }

    private mutating func escape(into text: inout [UInt8]) throws(JSONFault) {
        let start = position - 1
        let byte = try peek()
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): text.append(byte)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"):
            let first = try codeUnit(start)
            if let scalar = Unicode.Scalar(first) {
                text.append(contentsOf: UTF8.encode(scalar).unsafelyUnwrapped)
                return
            }
            guard first < 0xDC00, take("\\"), take("u") else { throw JSONFault(.malformedString, at: start) }
            let second = try codeUnit(start)
            guard (0xDC00..<0xE000).contains(second),
                let scalar = Unicode.Scalar(0x10000 + (UInt32(first) - 0xD800) << 10 + UInt32(second) - 0xDC00)
            else { throw JSONFault(.malformedString, at: start) }
            text.append(contentsOf: UTF8.encode(scalar).unsafelyUnwrapped)
        default: throw JSONFault(.malformedString, at: start)
        }
    }

    private mutating func codeUnit(_ start: Int) throws(JSONFault) -> UInt16 {
        var value: UInt16 = 0
        for _ in 0..<4 {
            guard let digit = Character(Unicode.Scalar(try peek())).hexDigitValue else {
                throw JSONFault(.malformedString, at: start)
            }
            value = value << 4 | UInt16(digit)
            position += 1
        }
        return value
    }
}

/// Writing.
extension JSONValue {
    /// Without white space, members in their order: what Kafka writes too.
    package var bytes: [UInt8] {
        var text: [UInt8] = []
        write(into: &text)
        return text
    }

    package var text: String { String(decoding: bytes, as: UTF8.self) }

    private func write(into text: inout [UInt8]) {
        switch self {
        case .null: text.append(contentsOf: "null".utf8)
        case .bool(let value): text.append(contentsOf: (value ? "true" : "false").utf8)
        case .int(let value): text.append(contentsOf: String(value).utf8)
        case .double(let value):
            precondition(value.isFinite, "JSON has no infinite numbers")
            text.append(contentsOf: value.description.utf8)
        case .string(let value): Self.write(value, into: &text)
        case .array(let elements):
            text.append(UInt8(ascii: "["))
            for (index, element) in elements.enumerated() {
                if index > 0 { text.append(UInt8(ascii: ",")) }
                element.write(into: &text)
            }
            text.append(UInt8(ascii: "]"))
        case .object(let object):
            text.append(UInt8(ascii: "{"))
            for (index, member) in object.members.enumerated() {
                if index > 0 { text.append(UInt8(ascii: ",")) }
                Self.write(member.name, into: &text)
                text.append(UInt8(ascii: ":"))
                member.value.write(into: &text)
            }
            text.append(UInt8(ascii: "}"))
        }
    }

    private static func write(_ string: String, into text: inout [UInt8]) {
        text.append(UInt8(ascii: "\""))
        for byte in string.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                text.append(UInt8(ascii: "\\"))
                text.append(byte)
            case 0x08: text.append(contentsOf: "\\b".utf8)
            case 0x09: text.append(contentsOf: "\\t".utf8)
            case 0x0A: text.append(contentsOf: "\\n".utf8)
            case 0x0C: text.append(contentsOf: "\\f".utf8)
            case 0x0D: text.append(contentsOf: "\\r".utf8)
            case ..<0x20:
                text.append(contentsOf: (byte < 0x10 ? "\\u000" : "\\u00").utf8)
                text.append(contentsOf: String(byte, radix: 16).utf8)
            default: text.append(byte)
            }
        }
        text.append(UInt8(ascii: "\""))
    }
}
