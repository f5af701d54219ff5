import MartletBasics
import MartletModel
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// Keys and values that Kafka brokers themselves wrote to their internal topics: each is read, and written again to
/// the same bytes.
@Suite struct RecordsThatKafkaWrote {
    static let archives = packageRoot + "/../shared/kafka-data/"
    static var areThere: Bool { access(archives + "zk39-clean.tar.xz", R_OK) == 0 }

    /// Decodes and encodes; nil if the bytes are the same.
    private typealias Check = @Sendable ([UInt8]) throws -> String?

    private static func check<Record: VersionedRecord>(_: Record.Type) -> Check {
        { bytes in
            let record: Record
            do { record = try Record(prefixed: bytes) } catch { return "\(Record.self): \(error) in \(hex(bytes))" }
            let version = Record.keyPrefix == nil ? Int16(bytes[0]) << 8 | Int16(bytes[1]) : Record.versions.lowerBound
            let again = try record.prefixedBytes(version: version)
            return again == bytes ? nil : "\(Record.self): \(hex(bytes)) became \(hex(again))"
        }
    }

    /// By topic and by the number in the key: how the key and the value are read.
    private static let kinds: [String: [Int16: (Check, Check)]] = [
        "__consumer_offsets": [
            1: (check(OffsetCommitKey.self), check(OffsetCommitValue.self)),
            2: (check(GroupMetadataKey.self), check(GroupMetadataValue.self)),
            3: (check(ConsumerGroupMetadataKey.self), check(ConsumerGroupMetadataValue.self)),
            4: (
                check(ConsumerGroupPartitionMetadataKey.self),
                check(ConsumerGroupPartitionMetadataValue.self)),
            5: (
                check(ConsumerGroupMemberMetadataKey.self),
                check(ConsumerGroupMemberMetadataValue.self)),
            6: (
                check(ConsumerGroupTargetAssignmentMetadataKey.self),
                check(ConsumerGroupTargetAssignmentMetadataValue.self)),
            7: (
                check(ConsumerGroupTargetAssignmentMemberKey.self),
                check(ConsumerGroupTargetAssignmentMemberValue.self)),
            8: (
                check(ConsumerGroupCurrentMemberAssignmentKey.self),
                check(ConsumerGroupCurrentMemberAssignmentValue.self)),
            10: (
                check(ShareGroupMemberMetadataKey.self),
                check(ShareGroupMemberMetadataValue.self)),
            11: (check(ShareGroupMetadataKey.self), check(ShareGroupMetadataValue.self)),
            12: (
                check(ShareGroupTargetAssignmentMetadataKey.self),
                check(ShareGroupTargetAssignmentMetadataValue.self)),
            13: (
                check(ShareGroupTargetAssignmentMemberKey.self),
                check(ShareGroupTargetAssignmentMemberValue.self)),
            14: (
                check(ShareGroupCurrentMemberAssignmentKey.self),
                check(ShareGroupCurrentMemberAssignmentValue.self)),
            15: (
                check(ShareGroupStatePartitionMetadataKey.self),
                check(ShareGroupStatePartitionMetadataValue.self)),
            16: (
                check(ConsumerGroupRegularExpressionKey.self),
                check(ConsumerGroupRegularExpressionValue.self)),
        ],
        "__transaction_state": [0: (check(TransactionLogKey.self), check(TransactionLogValue.self))],
        "__share_group_state": [
            0: (check(ShareSnapshotKey.self), check(ShareSnapshotValue.self)),
            1: (check(ShareUpdateKey.self), check(ShareUpdateValue.self)),
        ],
    ]

    @Test(.enabled(if: areThere, "Kafka's directories are not at hand"), arguments: ["zk39-clean", "kraft43-clean"])
    func areReadAndWrittenToTheSameBytes(_ archive: String) throws {
        let folder = "/tmp/martlet-records-\(archive)-\(getpid())"
        defer { _ = try? lines(of: "rm -rf '\(folder)'") }
        _ = try lines(of: "mkdir -p '\(folder)' && tar -xJf '\(Self.archives)\(archive).tar.xz' -C '\(folder)' 2>&1")
        var records = 0
        var controls = 0
        for path in try lines(of: "find '\(folder)' -path '*/__*.log' -size +0 | sort") {
            let directory = path.split(separator: "/").dropLast().last ?? ""
            let topic = String(directory.prefix { $0 != "-" })
            guard let kinds = Self.kinds[topic] else { continue }
            try forEachRecord(of: contents(of: path)) { key, value, isControl in
                if isControl {
                    #expect(try Self.check(ControlRecordTypeSchema.self)(key) == nil)
                    #expect(try Self.check(EndTxnMarker.self)(#require(value)) == nil)
                    controls += 1
                    return
                }
                let number = Int16(key[0]) << 8 | Int16(key[1])
                let kind = try #require(kinds[number], "\(topic) has a record of kind \(number)")
                let keyFault = try kind.0(key)
                #expect(keyFault == nil)
                let valueFault = try value.flatMap { try kind.1($0) }
                #expect(valueFault == nil, "\(topic) \(number)")
                records += 1
            }
        }
        #expect(records > 20, "\(records) records of \(archive)")
        #expect(controls > 0 || archive != "zk39-clean")
        var snapshots = 0
        for path in try lines(of: "find '\(folder)' -name '*.snapshot' -size +0 | sort") {
            let bytes = try contents(of: path)
            #expect(try Self.check(ProducerSnapshot.self)(bytes) == nil)
            let snapshot = try ProducerSnapshot(prefixed: bytes)
            #expect(bytes[6...].withUnsafeBytes { crc32c($0) } == snapshot.crc)
            snapshots += 1
        }
        #expect(snapshots > 0)
    }

    /// The records of uncompressed batches; there must be no others in these topics.
    private func forEachRecord(
        of log: [UInt8], _ body: (_ key: [UInt8], _ value: [UInt8]?, _ isControl: Bool) throws -> Void
    ) throws {
        try log.withUnsafeBytes { raw in
            var position = 0
            while position < raw.count {
                let header = BatchHeader(UnsafeRawBufferPointer(rebasing: raw[position...]))
                try #require(header.codec == CompressionCodec.none)
                var reader = ByteReader(raw, at: position + BatchHeader.size)
                for _ in 0..<header.recordCount {
                    _ = try reader.varint()
                    _ = try reader.int8()
                    _ = try reader.varlong()
                    _ = try reader.varint()
                    let key = try part(&reader) ?? []
                    let value = try part(&reader)
                    for _ in 0..<(try reader.varint()) {
                        _ = try part(&reader)
                        _ = try part(&reader)
                    }
                    try body(key, value, header.isControl)
                }
                position += header.totalSize
            }
        }
    }

    private func part(_ reader: inout ByteReader) throws -> [UInt8]? {
        let count = Int(try reader.varint())
        return count < 0 ? nil : [UInt8](reader.bytes(in: try reader.range(count)))
    }
}
