import MartletBasics
import MartletModel
import MartletWire

/// A message that the fuzzer's bytes can be made into: `random` is generated from the schemas, and asks a `FieldSource` for
/// each field, so that whatever the bytes are, the message is one that its version can say.
protocol DrawnMessage: WireMessage {
    static func random(version: Int16, using source: inout FieldSource) -> Self
}

protocol DrawnRecord: VersionedRecord {
    static func random(version: Int16, using source: inout FieldSource) -> Self
}

/// What a broker has told, and is asked with again: ids that no mutation would guess.
struct LearnedValues {
    var memberID = ""
    var generation: Int32 = 0
    var memberEpoch: Int32 = 0
    var producerID: Int64 = 0
    var producerEpoch: Int16 = 0
    var sessionID: Int32 = 0
    /// Of the topics that were there from the beginning.
    var topicIDs: [UUID] = []
}

/// Gives fields values, one byte or a few each: mostly such as mean something here, and any other at the price of more
/// bytes. Where the input is at its end all is zero, empty and null.
struct FieldSource {
    /// Elements of all arrays of a message together: arrays nest.
    private static let elementsLimit = 600

    /// Names of topics, groups, members, settings and whatever else a field may name; the index is the byte.
    static let words = [
        "", "t", "u", "new", "g", "h", "x", "y", "m", "consumer", "range", "uniform", "roundrobin", "*", "t|u.*", "(a+)+",
        "connect", "__consumer_offsets", "__transaction_state", "/data", "/other", "1", "0", "-1", "1000", "compact", "delete",
        "lz4", "PLAIN",
        "cleanup.policy", "retention.ms", "segment.bytes", "compression.type", "max.message.bytes", "min.insync.replicas",
        "unclean.leader.election.enable", "log.retention.ms", "message.max.bytes", "log.cleaner.threads", "num.io.threads",
        "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms", "user", "client-id", "ip", "fuzzer", "<default>",
        "producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate", "metadata.version",
        "transaction.version", "group.version", "User:a", "read_committed", "Stable", "Ongoing", "classic", "t-0", "rack",
    ]

    private var input: FuzzInput
    private let learned: LearnedValues
    private var elements = 0

    init(_ input: FuzzInput, _ learned: LearnedValues = LearnedValues()) {
        self.input = input
        self.learned = learned
    }

    /// What is left of the input.
    var rest: FuzzInput { input }

    // MARK: What the generated code asks for

    mutating func elementCount() -> Int {
        let byte = input.byte()
        let wanted = byte == 0xFF ? Int(input.byte()) : byte == 0 ? (input.isAtEnd ? 0 : 1) : Int(byte & 3)
        let count = min(wanted, Self.elementsLimit - elements)
        elements += count
        return count
    }

    mutating func chance(_: Int, in _: Int) -> Bool { input.byte() & 7 == 7 }

    mutating func bool() -> Bool { input.byte() & 1 == 1 }

    mutating func int8() -> Int8 { Int8(bitPattern: input.byte()) }

    mutating func int16() -> Int16 {
        let byte = input.byte()
        return switch byte >> 4 {
        case 15: input.int16()
        case 14: learned.producerEpoch
        case 13: learned.producerEpoch &+ 1
        case 12: .max
        case 11: .min
        case 10: -1
        default: Int16(byte)
        }
    }

    mutating func uint16() -> UInt16 { UInt16(bitPattern: int16()) }

    mutating func int32() -> Int32 {
        let byte = input.byte()
        return switch byte >> 4 {
        case 15: Int32(truncatingIfNeeded: raw(4))
        case 14: learned.generation
        case 13: learned.memberEpoch
        case 12: learned.sessionID
        case 11: Int32(byte & 15) * 1_000
        case 10: byte & 1 == 0 ? .max : .min
        case 9: -1 - Int32(byte & 15)
        default: Int32(byte)
        }
    }

    mutating func uint32() -> UInt32 { UInt32(bitPattern: int32()) }

    mutating func int64() -> Int64 {
        let byte = input.byte()
        return switch byte >> 4 {
        case 15: raw(8)
        case 14: learned.producerID
        case 13: 1_700_000_000_000 + Int64(byte & 15) * 1_000
        case 10: byte & 1 == 0 ? .max : .min
        case 9: -1 - Int64(byte & 15)
        default: Int64(byte)
        }
    }

    mutating func float64() -> Double {
        let byte = input.byte()
        return byte == 0xFF ? Double(bitPattern: UInt64(bitPattern: raw(8))) : Double(byte) * 100
    }

    mutating func uuid() -> UUID {
        let byte = input.byte()
        if byte == 0xFF { return UUID(high: UInt64(bitPattern: raw(8)), low: UInt64(bitPattern: raw(8))) }
        return Int(byte) < learned.topicIDs.count ? learned.topicIDs[Int(byte)] : byte == 0xFE ? UUID(high: 0, low: 1) : .zero
    }

    mutating func text() -> String {
        let byte = Int(input.byte())
        switch byte {
        case 0xFF: return String(decoding: input.take(Int(input.byte())), as: UTF8.self)
        case 0xFE: return learned.memberID
        case 0xFD: return String(repeating: "l", count: 4 * Int(input.byte()))
        default: return Self.words[byte % Self.words.count]
        }
    }

    mutating func byteArray() -> [UInt8] {
        switch input.byte() & 7 {
        case 0: []
        case 1: input.take(Int(input.byte()))
        case 2: subscription()
        case 3: assignment()
        default: batch()
        }
    }

    mutating func wireBytes() -> WireBytes { .owned(byteArray()) }

    // MARK: What bytes of a request are

    private mutating func raw(_ count: Int) -> Int64 { input.take(count).reduce(0) { $0 << 8 | Int64($1) } }

    private mutating func subscription() -> [UInt8] {
        let version = Int16(input.byte() % 4)
        return (try? ConsumerProtocolSubscription.random(version: version, using: &self).prefixedBytes(version: version)) ?? []
    }

    private mutating func assignment() -> [UInt8] {
        let version = Int16(input.byte() % 4)
        return (try? ConsumerProtocolAssignment.random(version: version, using: &self).prefixedBytes(version: version)) ?? []
    }

    /// As a producer makes one, idempotent and of a transaction as the choice says.
    private mutating func batch() -> [UInt8] {
        let choice = input.byte()
        var identity = BatchIdentity()
        if choice & 1 != 0 {
            identity = BatchIdentity(
                producerID: learned.producerID, epoch: learned.producerEpoch, baseSequence: Int32(choice >> 4),
                isTransactional: choice & 2 != 0)
        }
        if choice & 4 != 0 { identity.isControl = true }
        var builder = BatchBuilder(identity)
        for _ in 0...Int(input.byte() & 3) {
            let (key, value) = (input.byte(), input.byte())
            builder.append(
                timestamp: int64(), key: key & 1 == 0 ? nil : [key],
                value: value & 1 == 0 ? nil : [UInt8](repeating: value, count: Int(value)))
        }
        var output = ByteBuffer()
        let codecs = CompressionCodec.allCases
        let codec = choice & 8 == 0 ? CompressionCodec.none : codecs[Int(choice >> 4) % codecs.count]
        builder.finish(into: &output, codec: codec, contexts: CodecContexts())
        return output.array
    }
}
