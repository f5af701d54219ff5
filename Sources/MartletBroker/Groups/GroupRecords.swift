package import MartletBasics
import MartletModel

/// The records of `__consumer_offsets`, between what the machine says and bytes.
///
/// A key begins with an int16 that says what kind of record it is: 0 and 1 committed offsets, 2 classic groups, 3 to
/// 8 and 16 consumer groups, 9 to 15 share groups, 17 to 23 streams groups. A value begins with its version.
package enum GroupRecords {
    /// Read by every Kafka from 2.3 on; later ones only made the fields flexible.
    static let groupVersion: Int16 = 3
    /// The first that tells a topic's id, as Kafka 4.3 writes it; brokers from 3.5 on read it.
    static let offsetVersion: Int16 = 4
    /// The only one with a time at which the offset expires.
    static let expiringOffsetVersion: Int16 = 1

    /// What a record that was read is.
    package enum Kind {
        case known(GroupRecord)
        /// Of another type of group.
        case foreign
        /// Of no kind that is known here.
        case unknown(Int16)
        case malformed
    }

    package static func decode(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?) -> Kind {
        var keyReader = ByteReader(key)
        guard let kind = try? keyReader.int16() else { return .malformed }
        do throws(DecodingFault) {
            switch kind {
            case LegacyOffsetCommitKey.key, OffsetCommitKey.key:
                let offsetKey = try OffsetCommitKey.decode(from: &keyReader, version: 0)
                return .known(.offset(offsetKey, try decode(value)))
            case GroupMetadataKey.key:
                let groupKey = try GroupMetadataKey.decode(from: &keyReader, version: 0)
                return .known(.group(groupKey, try decode(value)))
            default:
                if let record = try ConsumerRecord.decode(kind, key: &keyReader, value: value) {
                    return .known(.consumer(record))
                }
                return ForeignKey(key) == nil ? .unknown(kind) : .foreign
            }
        } catch {
            return .malformed
        }
    }

    private static func decode<R: VersionedRecord>(_ value: UnsafeRawBufferPointer?) throws(DecodingFault) -> R? {
        guard let value else { return nil }
        var reader = ByteReader(value)
        return try R.decodePrefixed(from: &reader)
    }
}

extension GroupRecord: CoordinatorRecord {
    package func encode(key: inout ByteBuffer, value: inout ByteBuffer) throws(EncodingFault) -> Bool {
        switch self {
        case .offset(let offsetKey, let offset):
            try offsetKey.encodePrefixed(into: &key, version: 0)
            guard let offset else { return false }
            let expires = offset.expireTimestamp >= 0
            try offset.encodePrefixed(
                into: &value, version: expires ? GroupRecords.expiringOffsetVersion : GroupRecords.offsetVersion)
        case .group(let groupKey, let group):
            try groupKey.encodePrefixed(into: &key, version: 0)
            guard let group else { return false }
            try group.encodePrefixed(into: &value, version: GroupRecords.groupVersion)
        case .consumer(let record): return try record.encode(key: &key, value: &value)
        case .tombstone(let raw):
            key.append(raw)
            return false
        }
        return true
    }
}
