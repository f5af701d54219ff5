import MartletBasics
package import MartletModel

/// A record of a consumer group in `__consumer_offsets`; no value is a tombstone. Which of them are there, and what
/// they tell, in the order in which one change writes them:
///
///     5   a member's word          names, expression, instance, rack, timeouts; the protocols of a classic one
///     16  an expression            the topics that it matched when it was last looked for
///     3   the group                its epoch, and the hash of the topics that are read
///     7   a member's target        partitions
///     6   the target               for which epoch it was computed, and when
///     8   a member's standing      epochs, state, what it has, what it is to give up
///
/// 4 is of Kafka 4.0, told what topics are like, and is passed over.
package enum ConsumerRecord: Equatable, Sendable {
    case epoch(String, ConsumerGroupMetadataValue?)
    case partitionMetadata(String)
    case member(String, String, ConsumerGroupMemberMetadataValue?)
    case targetEpoch(String, ConsumerGroupTargetAssignmentMetadataValue?)
    case target(String, String, ConsumerGroupTargetAssignmentMemberValue?)
    case current(String, String, ConsumerGroupCurrentMemberAssignmentValue?)
    case pattern(String, String, ConsumerGroupRegularExpressionValue?)

    var group: String {
        switch self {
        case .epoch(let group, _), .partitionMetadata(let group), .member(let group, _, _), .targetEpoch(let group, _),
            .target(let group, _, _), .current(let group, _, _), .pattern(let group, _, _):
            group
        }
    }

    /// Its key, and then its value, if there is one.
    func encode(key: inout ByteBuffer, value: inout ByteBuffer) throws(EncodingFault) -> Bool {
        let group = self.group
        switch self {
        case .epoch(_, let said):
            try key.put(ConsumerGroupMetadataKey.self) { $0.groupID = group }
            return try value.put(said)
        case .partitionMetadata:
            try key.put(ConsumerGroupPartitionMetadataKey.self) { $0.groupID = group }
            return false
        case .member(_, let member, let said):
            try key.put(ConsumerGroupMemberMetadataKey.self) { ($0.groupID, $0.memberID) = (group, member) }
            return try value.put(said)
        case .targetEpoch(_, let said):
            try key.put(ConsumerGroupTargetAssignmentMetadataKey.self) { $0.groupID = group }
            return try value.put(said)
        case .target(_, let member, let said):
            try key.put(ConsumerGroupTargetAssignmentMemberKey.self) { ($0.groupID, $0.memberID) = (group, member) }
            return try value.put(said)
        case .current(_, let member, let said):
            try key.put(ConsumerGroupCurrentMemberAssignmentKey.self) { ($0.groupID, $0.memberID) = (group, member) }
            return try value.put(said)
        case .pattern(_, let pattern, let said):
            try key.put(ConsumerGroupRegularExpressionKey.self) { ($0.groupID, $0.regularExpression) = (group, pattern) }
            return try value.put(said)
        }
    }

    /// Nil where the key's number is that of another kind of record.
    static func decode(
        _ kind: Int16, key reader: inout ByteReader, value: UnsafeRawBufferPointer?
    ) throws(DecodingFault) -> ConsumerRecord? {
        switch kind {
        case ConsumerGroupMetadataKey.key:
            return .epoch(try ConsumerGroupMetadataKey.decode(from: &reader, version: 0).groupID, try Self.value(value))
        case ConsumerGroupPartitionMetadataKey.key:
            return .partitionMetadata(try ConsumerGroupPartitionMetadataKey.decode(from: &reader, version: 0).groupID)
        case ConsumerGroupMemberMetadataKey.key:
            let key = try ConsumerGroupMemberMetadataKey.decode(from: &reader, version: 0)
            return .member(key.groupID, key.memberID, try Self.value(value))
        case ConsumerGroupTargetAssignmentMetadataKey.key:
            let key = try ConsumerGroupTargetAssignmentMetadataKey.decode(from: &reader, version: 0)
            return .targetEpoch(key.groupID, try Self.value(value))
        case ConsumerGroupTargetAssignmentMemberKey.key:
            let key = try ConsumerGroupTargetAssignmentMemberKey.decode(from: &reader, version: 0)
            return .target(key.groupID, key.memberID, try Self.value(value))
        case ConsumerGroupCurrentMemberAssignmentKey.key:
            let key = try ConsumerGroupCurrentMemberAssignmentKey.decode(from: &reader, version: 0)
            return .current(key.groupID, key.memberID, try Self.value(value))
        case ConsumerGroupRegularExpressionKey.key:
            let key = try ConsumerGroupRegularExpressionKey.decode(from: &reader, version: 0)
            return .pattern(key.groupID, key.regularExpression, try Self.value(value))
        default: return nil
        }
    }

    private static func value<R: VersionedRecord>(_ bytes: UnsafeRawBufferPointer?) throws(DecodingFault) -> R? {
        guard let bytes else { return nil }
        var reader = ByteReader(bytes)
        return try R.decodePrefixed(from: &reader)
    }

    var isTombstone: Bool {
        switch self {
        case .epoch(_, let value): value == nil
        case .partitionMetadata: true
        case .member(_, _, let value): value == nil
        case .targetEpoch(_, let value): value == nil
        case .target(_, _, let value): value == nil
        case .current(_, _, let value): value == nil
        case .pattern(_, _, let value): value == nil
        }
    }

    /// What it takes in the log, at most.
    var estimatedBytes: Int {
        switch self {
        case .member(_, _, let value?):
            let names = value.subscribedTopicNames.reduce(0) { $0 + $1.utf8.count + 4 }
            let said = value.classicMemberMetadata?.supportedProtocols.reduce(0) {
                $0 + $1.name.utf8.count + $1.metadata.count + 8
            }
            return 512 + group.utf8.count + names + (said ?? 0) + (value.subscribedTopicRegex?.utf8.count ?? 0)
        case .target(_, let member, let value?):
            return value.topicPartitions.reduce(64 + group.utf8.count + member.utf8.count) { $0 + 24 + 4 * $1.partitions.count }
        case .current(_, let member, let value?):
            let held = value.assignedPartitions + value.partitionsPendingRevocation
            return held.reduce(96 + group.utf8.count + member.utf8.count) { $0 + 40 + 8 * $1.partitions.count }
        case .pattern(_, let pattern, let value?):
            return value.topics.reduce(96 + group.utf8.count + pattern.utf8.count) { $0 + $1.utf8.count + 4 }
        default: return 256 + group.utf8.count
        }
    }
}

extension ByteBuffer {
    fileprivate mutating func put<K: VersionedRecord>(_ type: K.Type, _ fill: (inout K) -> Void) throws(EncodingFault) {
        var key = K()
        fill(&key)
        try key.encodePrefixed(into: &self, version: 0)
    }

    fileprivate mutating func put<R: VersionedRecord>(_ said: R?) throws(EncodingFault) -> Bool {
        guard let said else { return false }
        try said.encodePrefixed(into: &self, version: 0)
        return true
    }
}

// MARK: Between records and what they tell

extension ConsumerMember {
    var saidValue: ConsumerGroupMemberMetadataValue {
        var value = ConsumerGroupMemberMetadataValue()
        value.instanceID = instanceID
        value.rackID = rackID
        value.clientID = clientID
        value.clientHost = clientHost
        value.subscribedTopicNames = topics
        value.subscribedTopicRegex = pattern
        value.rebalanceTimeoutMs = rebalanceTimeoutMs
        value.serverAssignor = assignor
        value.classicMemberMetadata = classic.map { classic in
            var metadata = ConsumerGroupMemberMetadataValue.ClassicMemberMetadata()
            metadata.sessionTimeoutMs = classic.sessionTimeoutMs
            metadata.supportedProtocols = classic.protocols.map { named in
                var written = ConsumerGroupMemberMetadataValue.ClassicProtocol()
                written.name = named.name
                written.metadata = named.metadata
                return written
            }
            return metadata
        }
        return value
    }

    mutating func take(_ value: ConsumerGroupMemberMetadataValue) {
        instanceID = value.instanceID
        rackID = value.rackID
        clientID = value.clientID
        clientHost = value.clientHost
        topics = Set(value.subscribedTopicNames).sorted()
        pattern = value.subscribedTopicRegex ?? ""
        rebalanceTimeoutMs = value.rebalanceTimeoutMs
        assignor = value.serverAssignor
        // without protocols it is what stands where nothing was written: brokers before 3.8 knew no such members
        classic = value.classicMemberMetadata.flatMap { metadata in
            metadata.supportedProtocols.isEmpty
                ? nil
                : Classic(
                    sessionTimeoutMs: metadata.sessionTimeoutMs,
                    protocols: metadata.supportedProtocols.map { GroupProtocol(name: $0.name, metadata: $0.metadata) })
        }
    }

    var currentValue: ConsumerGroupCurrentMemberAssignmentValue {
        var value = ConsumerGroupCurrentMemberAssignmentValue()
        value.memberEpoch = epoch
        value.previousMemberEpoch = previousEpoch
        value.state = state.rawValue
        value.assignedPartitions = Self.value(assigned)
        value.partitionsPendingRevocation = Self.value(pendingRevocation)
        return value
    }

    private static func value(_ held: HeldPartitions) -> [ConsumerGroupCurrentMemberAssignmentValue.TopicPartitions] {
        held.topics.map { topic in
            var written = ConsumerGroupCurrentMemberAssignmentValue.TopicPartitions()
            written.topicID = topic
            written.partitions = held[topic].map(\.partition)
            written.assignmentEpochs = held[topic].map(\.since)
            return written
        }
    }

    mutating func take(_ value: ConsumerGroupCurrentMemberAssignmentValue) {
        epoch = value.memberEpoch
        previousEpoch = value.previousMemberEpoch
        state = State(rawValue: value.state) ?? .unknown
        func held(_ written: [ConsumerGroupCurrentMemberAssignmentValue.TopicPartitions]) -> HeldPartitions {
            var held = HeldPartitions()
            for topic in written {
                let epochs = topic.assignmentEpochs ?? []
                // older brokers do not say since when: it is as if only now
                held[topic.topicID] = topic.partitions.enumerated().map { index, partition in
                    HeldPartition(partition: partition, since: index < epochs.count ? epochs[index] : value.memberEpoch)
                }
            }
            return held
        }
        assigned = held(value.assignedPartitions)
        pendingRevocation = held(value.partitionsPendingRevocation)
    }
}

extension ResolvedPattern {
    var value: ConsumerGroupRegularExpressionValue {
        var value = ConsumerGroupRegularExpressionValue()
        value.topics = topics
        value.version = version
        value.timestamp = timestamp
        return value
    }
}

extension PartitionSet {
    var value: ConsumerGroupTargetAssignmentMemberValue {
        var value = ConsumerGroupTargetAssignmentMemberValue()
        value.topicPartitions = keys.sorted().map { topic in
            var written = ConsumerGroupTargetAssignmentMemberValue.TopicPartition()
            written.topicID = topic
            written.partitions = self[topic]!
            return written
        }
        return value
    }
}

extension ConsumerGroup {
    var epochValue: ConsumerGroupMetadataValue {
        var value = ConsumerGroupMetadataValue()
        value.epoch = epoch
        value.metadataHash = metadataHash
        return value
    }

    var targetEpochValue: ConsumerGroupTargetAssignmentMetadataValue {
        var value = ConsumerGroupTargetAssignmentMetadataValue()
        value.assignmentEpoch = targetEpoch
        value.assignmentTimestamp = targetTimestamp
        return value
    }

    /// Takes a record of it that was read. Of a member any record may be the first.
    mutating func apply(_ record: ConsumerRecord) {
        switch record {
        case .epoch(_, let value):
            epoch = value?.epoch ?? Self.firstEpoch
            metadataHash = value?.metadataHash ?? 0
        case .partitionMetadata: break
        case .member(_, let id, let value?):
            var member = members[id] ?? ConsumerMember(id: id)
            member.take(value)
            put(member)
            undescribed.remove(id)
        case .member(_, let id, nil):
            remove(id)
            undescribed.remove(id)
        case .targetEpoch(_, let value):
            targetEpoch = value?.assignmentEpoch ?? 0
            targetTimestamp = value?.assignmentTimestamp ?? 0
        case .target(_, let id, let value):
            setTarget(
                id,
                value.map { value in
                    PartitionSet(value.topicPartitions.map { ($0.topicID, $0.partitions.sorted()) }, uniquingKeysWith: { $1 })
                })
        case .current(_, let id, let value?):
            if members[id] == nil { undescribed.insert(id) }
            var member = members[id] ?? ConsumerMember(id: id)
            member.take(value)
            put(member)
        case .current(_, let id, nil):
            guard var member = members[id] else { return }
            (member.epoch, member.previousEpoch, member.state) = (0, 0, .stable)
            (member.assigned, member.pendingRevocation) = (HeldPartitions(), HeldPartitions())
            put(member)
        case .pattern(_, let text, let value):
            setPattern(text, value.map { ResolvedPattern(topics: $0.topics, version: $0.version, timestamp: $0.timestamp) })
        }
    }

    /// All is read. Of whom nothing is known but where it stood, its end is what was read; patterns are looked for anew.
    mutating func finishLoading() {
        for id in undescribed.sorted() { remove(id) }
        undescribed = []
        for id in targets.keys.sorted() where members[id] == nil { setTarget(id, nil) }
    }

    /// What writes over all that is in the log of it.
    var tombstones: [GroupRecord] {
        var records: [ConsumerRecord] = []
        let ids = memberIDs
        records += ids.map { .current(id, $0, nil) }
        records += targets.keys.sorted().map { .target(id, $0, nil) }
        records.append(.targetEpoch(id, nil))
        records += ids.map { .member(id, $0, nil) }
        records.append(.partitionMetadata(id))
        records += patterns.keys.sorted().map { .pattern(id, $0, nil) }
        records.append(.epoch(id, nil))
        return records.map { .consumer($0) }
    }
}
