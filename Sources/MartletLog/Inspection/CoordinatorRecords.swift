package import MartletBasics
internal import MartletModel

/// The records that coordinators keep in their own topics, as values to read.
package enum CoordinatorRecords: Sendable {
    case groups, transactions, shares

    /// Nil for a topic of clients.
    package init?(topic: String) {
        switch topic {
        case "__consumer_offsets": self = .groups
        case "__transaction_state": self = .transactions
        case "__share_group_state": self = .shares
        default: return nil
        }
    }

    /// One kind of record: what stands at the head of its key, and how key and value are read.
    private struct Kind: Sendable {
        var prefix: Int16
        var name: String
        var key: @Sendable ([UInt8]) -> JSONValue?
        var value: @Sendable ([UInt8]) -> JSONValue?

        init<Key: VersionedRecord, Value: VersionedRecord>(_: Key.Type, _: Value.Type) {
            guard let prefix = Key.keyPrefix else { preconditionFailure("a coordinator's key has a kind") }
            self.prefix = prefix
            name = String("\(Key.self)".dropLast("Key".count))
            key = { bytes in (try? Key(prefixed: bytes)).map { JSONValue(reflecting: $0) } }
            value = { bytes in (try? Value(prefixed: bytes)).map { CoordinatorRecords.described($0) } }
        }
    }

    private var kinds: [Kind] {
        switch self {
        case .groups: Self.groupKinds
        case .transactions: Self.transactionKinds
        case .shares: Self.shareKinds
        }
    }

    private static let transactionKinds = [Kind(TransactionLogKey.self, TransactionLogValue.self)]
    private static let shareKinds = [
        Kind(ShareSnapshotKey.self, ShareSnapshotValue.self), Kind(ShareUpdateKey.self, ShareUpdateValue.self),
    ]
    private static let groupKinds = [
        Kind(LegacyOffsetCommitKey.self, LegacyOffsetCommitValue.self), Kind(OffsetCommitKey.self, OffsetCommitValue.self),
        Kind(GroupMetadataKey.self, GroupMetadataValue.self),
        Kind(ConsumerGroupMetadataKey.self, ConsumerGroupMetadataValue.self),
        Kind(ConsumerGroupPartitionMetadataKey.self, ConsumerGroupPartitionMetadataValue.self),
        Kind(ConsumerGroupMemberMetadataKey.self, ConsumerGroupMemberMetadataValue.self),
        Kind(ConsumerGroupTargetAssignmentMetadataKey.self, ConsumerGroupTargetAssignmentMetadataValue.self),
        Kind(ConsumerGroupTargetAssignmentMemberKey.self, ConsumerGroupTargetAssignmentMemberValue.self),
        Kind(ConsumerGroupCurrentMemberAssignmentKey.self, ConsumerGroupCurrentMemberAssignmentValue.self),
        Kind(ConsumerGroupRegularExpressionKey.self, ConsumerGroupRegularExpressionValue.self),
        Kind(ShareGroupMemberMetadataKey.self, ShareGroupMemberMetadataValue.self),
        Kind(ShareGroupMetadataKey.self, ShareGroupMetadataValue.self),
        Kind(ShareGroupTargetAssignmentMetadataKey.self, ShareGroupTargetAssignmentMetadataValue.self),
        Kind(ShareGroupTargetAssignmentMemberKey.self, ShareGroupTargetAssignmentMemberValue.self),
        Kind(ShareGroupCurrentMemberAssignmentKey.self, ShareGroupCurrentMemberAssignmentValue.self),
        Kind(ShareGroupStatePartitionMetadataKey.self, ShareGroupStatePartitionMetadataValue.self),
        Kind(StreamsGroupMetadataKey.self, StreamsGroupMetadataValue.self),
        Kind(StreamsGroupMemberMetadataKey.self, StreamsGroupMemberMetadataValue.self),
        Kind(StreamsGroupTargetAssignmentMetadataKey.self, StreamsGroupTargetAssignmentMetadataValue.self),
        Kind(StreamsGroupTargetAssignmentMemberKey.self, StreamsGroupTargetAssignmentMemberValue.self),
        Kind(StreamsGroupCurrentMemberAssignmentKey.self, StreamsGroupCurrentMemberAssignmentValue.self),
        Kind(StreamsGroupTopologyKey.self, StreamsGroupTopologyValue.self),
    ]

    /// Key and value of a record, a tombstone's value null; nil where they are none that is known.
    package func decode(key: [UInt8]?, value: [UInt8]?) -> (key: JSONValue, value: JSONValue)? {
        guard let key, key.count >= 2 else { return nil }
        let prefix = Int16(key[0]) << 8 | Int16(key[1])
        // what Kafka 0.8 wrote of commits is of kind 0, and has the fields of kind 1
        guard let kind = kinds.first(where: { $0.prefix == prefix }), case .object(let fields)? = kind.key(key)
        else { return nil }
        let named = JSONValue.object(JSONObject([.init("kind", .string(kind.name))] + fields.members))
        guard let value else { return (named, .null) }
        guard let decoded = kind.value(value) else { return nil }
        return (named, decoded)
    }

    // MARK: Values within values

    private static func described(_ value: any VersionedRecord) -> JSONValue {
        var json = JSONValue(reflecting: value)
        if let transaction = value as? TransactionLogValue { name(transaction.transactionStatus, in: &json) }
        if let group = value as? GroupMetadataValue, group.protocolType == "consumer" { open(group, in: &json) }
        return json
    }

    private static let transactionStates = [
        "Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence",
    ]

    private static func name(_ status: Int8, in json: inout JSONValue) {
        guard case .object(var object) = json, transactionStates.indices.contains(Int(status)) else { return }
        object["transactionStatus"] = .string(transactionStates[Int(status)])
        json = .object(object)
    }

    /// What members of a classic group of consumers told of themselves, and what they were given.
    private static func open(_ group: GroupMetadataValue, in json: inout JSONValue) {
        guard case .object(var object) = json, let members = object["members"]?.array else { return }
        object["members"] = .array(zip(members, group.members).map { shown, member in
            guard case .object(var fields) = shown else { return shown }
            if let subscription = try? ConsumerProtocolSubscription(prefixed: member.subscription) {
                fields["subscription"] = JSONValue(reflecting: subscription)
            }
            if let assignment = try? ConsumerProtocolAssignment(prefixed: member.assignment) {
                fields["assignment"] = JSONValue(reflecting: assignment)
            }
            return .object(fields)
        })
        json = .object(object)
    }
}

extension JSONValue {
    /// Bytes as text where they are plain UTF-8, else in hexadecimal; null is null.
    package init(bytes: [UInt8]?) {
        guard let bytes else {
            self = .null
            return
        }
        if let text = String(validating: bytes, as: UTF8.self), text.unicodeScalars.allSatisfy(Self.isPlain) {
            self = .string(text)
        } else {
            let digits = Array("0123456789abcdef".utf8)
            let hex = bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
            self = ["hex": .string(String(decoding: hex, as: UTF8.self))]
        }
    }

    private static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
        scalar == "\n" || scalar == "\t" || scalar.value >= 0x20 && !(0x7F...0x9F).contains(scalar.value)
    }

    /// A record whose codec is generated: its fields by their names in the schema.
    init(reflecting value: Any) {
        switch value {
        case let value as [UInt8]: self = JSONValue(bytes: value)
        case let value as String: self = .string(value)
        case let value as Bool: self = .bool(value)
        case let value as any FixedWidthInteger: self = .int(Int64(clamping: value))
        case let value as Double: self = .double(value)
        case let value as UUID: self = .string(value.description)
        default: self = Self.composed(Mirror(reflecting: value))
        }
    }

    private static func composed(_ mirror: Mirror) -> JSONValue {
        switch mirror.displayStyle {
        case .optional: mirror.children.first.map { JSONValue(reflecting: $0.value) } ?? .null
        case .collection: .array(mirror.children.map { JSONValue(reflecting: $0.value) })
        default:
            .object(JSONObject(mirror.children.enumerated().map { index, child in
                .init(schemaName(child.label ?? "\(index)"), JSONValue(reflecting: child.value))
            }))
        }
    }

    /// `memberID` here is `memberId` there.
    private static func schemaName(_ label: String) -> String {
        if label.hasSuffix("ID") { return label.dropLast(2) + "Id" }
        return label.hasSuffix("IDs") ? label.dropLast(3) + "Ids" : label
    }
}
