package import MartletModel

/// What a group has committed for one partition.
package struct CommittedOffset: Equatable, Sendable {
    package var offset: Offset
    package var leaderEpoch: LeaderEpoch
    package var metadata: String
    package var commitTimestamp: Int64
    /// -1 where `offsets.retention.minutes` decides.
    package var expireTimestamp: Int64
    /// Zero where the client did not say, and nobody knew.
    package var topicID: UUID
    /// Where its record lies in the log: of two, the later counts, in whatever order they are heard of.
    package var recordOffset: Offset

    package init(
        offset: Offset, leaderEpoch: LeaderEpoch, metadata: String, commitTimestamp: Int64, expireTimestamp: Int64 = -1,
        topicID: UUID = .zero, recordOffset: Offset
    ) {
        self.offset = offset
        self.leaderEpoch = leaderEpoch
        self.metadata = metadata
        self.commitTimestamp = commitTimestamp
        self.expireTimestamp = expireTimestamp
        self.topicID = topicID
        self.recordOffset = recordOffset
    }

    init(_ value: OffsetCommitValue, recordOffset: Offset) {
        self.init(
            offset: value.offset, leaderEpoch: value.leaderEpoch, metadata: value.metadata,
            commitTimestamp: value.commitTimestamp,
            expireTimestamp: value.expireTimestamp, topicID: value.topicID, recordOffset: recordOffset)
    }

    /// What it costs in memory, roughly.
    var bytes: Int { 160 + metadata.utf8.count }
}

/// The committed offsets of a group of whatever type: those that are durable, and those of transactions that are open.
struct CommittedOffsets {
    private var byTopic: [String: [Int32: CommittedOffset]] = [:]
    /// By the producer whose transaction is open; nothing of it is visible before its end.
    private var open: [ProducerID: [(id: TopicPartition, committed: CommittedOffset?)]] = [:]
    private(set) var bytes = 0
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }
    var hasOpenTransactions: Bool { !open.isEmpty }

    func committed(_ topic: String, _ partition: Int32) -> CommittedOffset? { byTopic[topic]?[partition] }

    /// Whether a transaction that is open has an offset for this partition.
    func isUnstable(_ id: TopicPartition) -> Bool { !open.isEmpty && open.values.contains { $0.contains { $0.id == id } } }

    /// By topic, then partition.
    var sorted: [(id: TopicPartition, committed: CommittedOffset)] {
        byTopic.keys.sorted().flatMap { topic in
            byTopic[topic]!.sorted { $0.key < $1.key }.map { (TopicPartition(topic, $0.key), $0.value) }
        }
    }

    /// Those of open transactions, by topic, then partition, each once.
    var sortedUnstable: [TopicPartition] {
        open.isEmpty ? [] : Set(open.values.joined().map(\.id)).sorted()
    }

    /// Those of open transactions, and whose they are: by topic, then partition, then producer id, each once.
    var openByProducer: [(id: TopicPartition, producer: ProducerID)] {
        // in any order: sorted below
        let all = open.flatMap { producer, offsets in Set(offsets.map(\.id)).map { (id: $0, producer: producer) } }
        return all.sorted { $0.id == $1.id ? $0.producer < $1.producer : $0.id < $1.id }
    }

    func addTopics(to found: inout Set<DeletedTopic>) {
        // in any order: it makes a set
        for (name, partitions) in byTopic {
            for committed in partitions.values where committed.topicID != .zero {
                found.insert(DeletedTopic(name: name, id: committed.topicID))
            }
        }
    }

    func partitions(of topic: String) -> [(partition: Int32, committed: CommittedOffset)] {
        (byTopic[topic] ?? [:]).sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    /// Takes a commit whose record is durable; nil is a tombstone.
    mutating func apply(_ topic: String, _ partition: Int32, _ committed: CommittedOffset?, recordOffset: Offset) {
        let old = byTopic[topic]?[partition]
        if let old, old.recordOffset > recordOffset { return }
        if let old {
            bytes -= old.bytes
            count -= 1
        }
        if let committed {
            byTopic[topic, default: [:]][partition] = committed
            bytes += committed.bytes
            count += 1
        } else if old != nil {
            byTopic[topic]![partition] = nil
            if byTopic[topic]!.isEmpty { byTopic[topic] = nil }
        }
    }

    /// As `apply`, in a transaction.
    mutating func hold(_ id: TopicPartition, _ committed: CommittedOffset?, of producer: ProducerID) {
        open[producer, default: []].append((id, committed))
        bytes += committed?.bytes ?? 0
    }

    /// Ends the transaction of a producer.
    mutating func end(_ producer: ProducerID, commits: Bool) {
        for (id, committed) in open.removeValue(forKey: producer) ?? [] {
            bytes -= committed?.bytes ?? 0
            if commits, let committed { apply(id.topic, id.partition, committed, recordOffset: committed.recordOffset) }
        }
    }
}
