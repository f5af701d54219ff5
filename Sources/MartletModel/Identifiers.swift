package import MartletBasics

/// A record's place in its partition, counted from 0 without gaps at production.
package typealias Offset = Int64

/// The generation of a partition's leadership; -1 where none is known.
package typealias LeaderEpoch = Int32

package typealias BrokerID = Int32
package typealias ProducerID = Int64
package typealias ProducerEpoch = Int16

/// 16 bytes, written as 22 characters of URL-safe base64: topics, log directories, clusters.
package struct UUID: Hashable, Sendable, CustomStringConvertible {
    package var high: UInt64
    package var low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    package static let zero = UUID(high: 0, low: 0)

    /// From 16 bytes, the first being the highest.
    package init(bytes: [UInt8]) {
        precondition(bytes.count == 16, "a UUID is 16 bytes")
        high = bytes[0..<8].reduce(0) { $0 << 8 | UInt64($1) }
        low = bytes[8..<16].reduce(0) { $0 << 8 | UInt64($1) }
    }

    package var bytes: [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: high >> (56 - 8 * $0)) } + (0..<8).map { UInt8(truncatingIfNeeded: low >> (56 - 8 * $0)) }
    }

    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)

    package var description: String {
        var text: [UInt8] = []
        var pending: UInt32 = 0
        var bits = 0
        for byte in bytes {
            pending = pending << 8 | UInt32(byte)
            bits += 8
            while bits >= 6 {
                bits -= 6
                text.append(Self.alphabet[Int(pending >> UInt32(bits)) & 63])
            }
        }
        text.append(Self.alphabet[Int(pending << UInt32(6 - bits)) & 63])
        return String(decoding: text, as: UTF8.self)
    }

    /// From 22 characters of URL-safe base64 (padding is taken too); nil for anything else.
    package init?(_ text: some StringProtocol) {
        let characters = Array(text.utf8).filter { $0 != UInt8(ascii: "=") }
        guard characters.count == 22 else { return nil }
        var bytes: [UInt8] = []
        var pending: UInt32 = 0
        var bits = 0
        for character in characters {
            guard let value = Self.alphabet.firstIndex(of: character) else { return nil }
            pending = (pending << 6 | UInt32(value)) & 0xFFFF
            bits += 6
            if bits >= 8 {
                bits -= 8
                bytes.append(UInt8(truncatingIfNeeded: pending >> UInt32(bits)))
            }
        }
        self.init(bytes: bytes)
    }
}

extension ByteReader {
    package mutating func uuid() throws(DecodingFault) -> UUID {
        UUID(high: try integer(UInt64.self), low: try integer(UInt64.self))
    }
}

extension ByteBuffer {
    package mutating func uuid(_ value: UUID) {
        integer(value.high)
        integer(value.low)
    }
}

package struct TopicPartition: Hashable, Comparable, Sendable, CustomStringConvertible {
    package var topic: String
    package var partition: Int32

    package init(_ topic: String, _ partition: Int32) {
        self.topic = topic
        self.partition = partition
    }

    /// `topic-0`, as the folder is called.
    package var description: String { "\(topic)-\(partition)" }

    package static func < (a: TopicPartition, b: TopicPartition) -> Bool {
        (a.topic, a.partition) < (b.topic, b.partition)
    }
}
