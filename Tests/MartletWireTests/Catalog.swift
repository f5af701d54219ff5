import MartletBasics
import MartletModel
import MartletWire
import Testing

/// A message of which tests can make values: any that a version can say. The conformances are generated.
protocol RandomMessage {
    static func random(version: Int16, using random: inout SeededRandom) -> Self
}

/// Every message there is; the lists are generated from the schemas.
enum Catalog {}

/// One message, without its type: what the tests that go over all of them call.
struct CatalogEntry: Sendable, CustomTestStringConvertible {
    let name: String
    let apiKey: Int16?
    let versions: ClosedRange<Int16>
    let isFlexible: @Sendable (Int16) -> Bool
    /// A random value, encoded; and a dump of it for a codec in another language.
    let sample: @Sendable (Int16, inout SeededRandom) throws -> (bytes: [UInt8], dump: String)
    /// A message with every field at its default, encoded.
    let defaults: @Sendable (Int16) throws -> [UInt8]
    /// What of a random value's round trip went wrong, if anything.
    let roundTrip: @Sendable (Int16, inout SeededRandom) throws -> String?
    /// Decodes any bytes and encodes what came out again; nil where the bytes are no such message.
    let reencode: @Sendable ([UInt8], Int16) -> [UInt8]?
    /// Decodes any bytes; returns the position after the message.
    let decode: @Sendable ([UInt8], Int16) throws -> Int

    var testDescription: String { name }
}

extension CatalogEntry {
    init<Message: WireMessage & RandomMessage>(wire _: Message.Type) {
        name = "\(Message.self)"
        apiKey = Message.apiKey
        versions = Message.versions
        isFlexible = { Message.isFlexible($0) }
        sample = { version, random in
            let value = Message.random(version: version, using: &random)
            var buffer = ByteBuffer()
            try value.encode(into: &buffer, version: version)
            return (buffer.array, dump(value))
        }
        defaults = { version in
            var buffer = ByteBuffer()
            try Message().encode(into: &buffer, version: version)
            return buffer.array
        }
        roundTrip = { version, random in
            let value = Message.random(version: version, using: &random)
            var buffer = ByteBuffer()
            try value.encode(into: &buffer, version: version)
            var reader = ByteReader(buffer.bytes)
            var decoded = try Message.decode(from: &reader, version: version)
            guard reader.isAtEnd else { return "\(reader.remaining) bytes are left over" }
            var again = ByteBuffer()
            try decoded.encode(into: &again, version: version, frame: buffer.bytes)
            guard again.array == buffer.array else { return "what was decoded is encoded to other bytes" }
            decoded.ownBytes(of: buffer.bytes)
            return decoded == value ? nil : "what was decoded is not what was encoded"
        }
        reencode = { bytes, version in
            bytes.withUnsafeBytes { raw in
                var reader = ByteReader(raw)
                guard let value = try? Message.decode(from: &reader, version: version) else { return nil }
                var buffer = ByteBuffer()
                guard (try? value.encode(into: &buffer, version: version, frame: raw)) != nil else { return nil }
                return buffer.array
            }
        }
        decode = { bytes, version in
            try bytes.withUnsafeBytes { raw in
                var reader = ByteReader(raw)
                _ = try Message.decode(from: &reader, version: version)
                return reader.position
            }
        }
    }

    init<Record: VersionedRecord & RandomMessage>(records _: Record.Type) {
        name = "\(Record.self)"
        apiKey = nil
        versions = Record.versions
        isFlexible = { Record.isFlexible($0) }
        sample = { version, random in
            let value = Record.random(version: version, using: &random)
            var buffer = ByteBuffer()
            try value.encode(into: &buffer, version: version)
            return (buffer.array, dump(value))
        }
        defaults = { version in
            var buffer = ByteBuffer()
            try Record().encode(into: &buffer, version: version)
            return buffer.array
        }
        roundTrip = { version, random in
            let value = Record.random(version: version, using: &random)
            let bytes = try value.prefixedBytes(version: version)
            guard bytes[..<2] == prefix(Record.keyPrefix ?? version)[...] else { return "another prefix" }
            let decoded = try Record(prefixed: bytes)
            guard decoded == value else { return "what was decoded is not what was encoded" }
            return try decoded.prefixedBytes(version: version) == bytes ? nil : "it is encoded to other bytes"
        }
        reencode = { bytes, version in
            bytes.withUnsafeBytes { raw in
                var reader = ByteReader(raw)
                guard let value = try? Record.decode(from: &reader, version: version) else { return nil }
                var buffer = ByteBuffer()
                guard (try? value.encode(into: &buffer, version: version)) != nil else { return nil }
                return buffer.array
            }
        }
        decode = { bytes, version in
            try bytes.withUnsafeBytes { raw in
                var reader = ByteReader(raw)
                _ = try Record.decode(from: &reader, version: version)
                return reader.position
            }
        }
    }
}

private func prefix(_ value: Int16) -> [UInt8] {
    [UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value)]
}

// MARK: Random values

extension SeededRandom {
    /// Few elements mostly, since structs nest; none often enough.
    mutating func elementCount() -> Int { chance(1, in: 8) ? 0 : 1 + below(3) }

    /// Small numbers, large ones and the ends, all of them often.
    private mutating func bits() -> UInt64 {
        switch below(6) {
        case 0: 0
        case 1: UInt64.max
        case 2: UInt64(below(200))
        case 3: 0x8000_0000_8000_8080
        case 4: 0x7FFF_FFFF_7FFF_7F7F
        default: next()
        }
    }

    mutating func bool() -> Bool { chance(1, in: 2) }
    mutating func int8() -> Int8 { Int8(truncatingIfNeeded: bits()) }
    mutating func int16() -> Int16 { Int16(truncatingIfNeeded: bits()) }
    mutating func uint16() -> UInt16 { UInt16(truncatingIfNeeded: bits()) }
    mutating func int32() -> Int32 { Int32(truncatingIfNeeded: bits()) }
    mutating func uint32() -> UInt32 { UInt32(truncatingIfNeeded: bits()) }
    mutating func int64() -> Int64 { Int64(truncatingIfNeeded: bits()) }
    mutating func float64() -> Double { Double(int64()) / 8 }
    mutating func uuid() -> UUID { UUID(high: bits(), low: bits()) }

    mutating func text() -> String {
        switch below(8) {
        case 0: ""
        case 1: "größer ☃ 🦅"
        // around the lengths at which a compact length takes another byte
        case 2: String(repeating: "x", count: 125 + below(5))
        default: "name-\(below(1000))"
        }
    }

    mutating func byteArray() -> [UInt8] {
        let count = chance(1, in: 5) ? 0 : chance(1, in: 6) ? 120 + below(20) : below(20)
        return (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) }
    }

    mutating func wireBytes() -> WireBytes { .owned(byteArray()) }
}

// MARK: Dumps

/// A value as JSON with lower-case names: numbers as they are, UUIDs, bytes and floating point as hexadecimal text.
func dump(_ value: Any) -> String {
    switch value {
    case let value as String: return quoted(value)
    case let value as Bool: return value ? "true" : "false"
    case let value as ErrorCode: return "\(value.rawValue)"
    case let value as any FixedWidthInteger: return "\(value)"
    case let value as Double: return "\"\(hex(withUnsafeBytes(of: value.bitPattern.bigEndian) { [UInt8]($0) }))\""
    case let value as UUID: return "\"\(hex(value.bytes))\""
    // an empty array of anything can be cast to one of bytes, so that the cast alone does not tell
    case let bytes as [UInt8] where type(of: value) == [UInt8].self: return "\"\(hex(bytes))\""
    case WireBytes.owned(let bytes): return "\"\(hex(bytes))\""
    default: break
    }
    let mirror = Mirror(reflecting: value)
    switch mirror.displayStyle {
    case .optional: return mirror.children.first.map { dump($0.value) } ?? "null"
    case .collection: return "[" + mirror.children.map { dump($0.value) }.joined(separator: ",") + "]"
    default:
        let fields = mirror.children.map { quoted(($0.label ?? "").lowercased()) + ":" + dump($0.value) }
        return "{" + fields.joined(separator: ",") + "}"
    }
}

private func quoted(_ text: String) -> String {
    // the random texts hold nothing that JSON would want escaped
    precondition(!text.contains("\"") && !text.contains("\\"))
    return "\"\(text)\""
}
