package import MartletModel

/// The name of a partition's folder:
///
///     topic-N                                   in use
///     topic-N.<32 hexadecimal digits>-delete    waits to be deleted; a long topic is cut to keep within 255 bytes
///     topic-N.<32 hexadecimal digits>-future    a copy that is to replace one in another log directory
///     topic-N.<32 hexadecimal digits>-stray     not a replica of this broker any more
///
/// A topic's name may hold dashes and dots: the number is what stands behind the last dash.
package struct PartitionFolder: Hashable, Sendable {
    package enum Kind: String, Sendable, CaseIterable {
        case live = ""
        case deleted = "delete"
        case future
        case stray
    }

    package static let nameLimit = 255

    package let name: String
    package let kind: Kind
    /// Of a deleted one the topic may be cut.
    package let partition: TopicPartition

    private init(name: String, kind: Kind, partition: TopicPartition) {
        self.name = name
        self.kind = kind
        self.partition = partition
    }

    /// Where a live partition lies.
    package init(_ partition: TopicPartition) {
        precondition(
            TopicName.isValid(partition.topic) && partition.partition >= 0,
            "a partition's folder is named by a legal topic")
        self.init(name: partition.description, kind: .live, partition: partition)
    }

    /// Where a partition goes that is deleted, copied or stray; `unique` is 16 bytes nobody has had before.
    package init(_ partition: TopicPartition, _ kind: Kind, unique: [UInt8]) {
        precondition(kind != .live && unique.count == 16, "only a folder that is not in use has a unique name")
        let digits = Array("0123456789abcdef".utf8)
        let hex = String(decoding: unique.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
        let suffix = "-\(partition.partition).\(hex)-\(kind.rawValue)"
        let topic = String(partition.topic.prefix(Self.nameLimit - suffix.utf8.count))
        self.init(name: topic + suffix, kind: kind, partition: TopicPartition(topic, partition.partition))
    }

    /// Whether the two got their names from the same partition and the same unique bytes.
    package func isTwin(of other: PartitionFolder) -> Bool {
        kind != .live && other.kind != .live
            && name.dropLast(kind.rawValue.utf8.count) == other.name.dropLast(other.kind.rawValue.utf8.count)
    }

    /// Nil for a name that is none of a partition.
    package init?(parsing name: String) {
        let bytes = Array(name.utf8)
        guard bytes.count <= Self.nameLimit, let dash = bytes.lastIndex(of: UInt8(ascii: "-")) else { return nil }
        if let partition = Self.partition(bytes[...]) {
            self.init(name: name, kind: .live, partition: partition)
            return
        }
        let suffix = String(decoding: bytes[(dash + 1)...], as: UTF8.self)
        guard let kind = Kind(rawValue: suffix), kind != .live else { return nil }
        let stem = bytes[..<dash]
        guard let dot = stem.lastIndex(of: UInt8(ascii: ".")), stem.count - dot - 1 == 32,
            stem[(dot + 1)...].allSatisfy(Self.isHex),
            let partition = Self.partition(stem[..<dot])
        else { return nil }
        self.init(name: name, kind: kind, partition: partition)
    }

    private static func partition(_ bytes: ArraySlice<UInt8>) -> TopicPartition? {
        guard let dash = bytes.lastIndex(of: UInt8(ascii: "-")) else { return nil }
        let topic = String(decoding: bytes[..<dash], as: UTF8.self)
        let digits = bytes[(dash + 1)...]
        // Int32 takes a sign and leading zeros; a folder's name has neither
        guard TopicName.isValid(topic), let number = Int32(String(decoding: digits, as: UTF8.self)), number >= 0,
            String(number).utf8.elementsEqual(digits)
        else { return nil }
        return TopicPartition(topic, number)
    }

    private static func isHex(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
    }
}
