/// What an acknowledgement promises about the disk (`martlet.durability`).
package enum Durability: String, Sendable, CaseIterable {
    /// Answered (`acks=all`) once synced; consumers see records once synced.
    case fsync
    /// Answered once in the page cache, as Kafka does by default.
    case pageCache = "page-cache"
}

package struct CleanupPolicy: OptionSet, Sendable, Hashable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let delete = CleanupPolicy(rawValue: 1)
    package static let compact = CleanupPolicy(rawValue: 2)
}

/// How a topic stores its batches (`compression.type`): as the producer sent them, or recompressed.
package enum StoredCompression: Sendable, Hashable {
    case producer
    case codec(CompressionCodec)
}

/// The settings of one topic, resolved: the topic's own where it has them, else the broker's, else Kafka's default.
///
/// Milliseconds and bytes are in the names; -1 in a retention means without limit, as in Kafka.
package struct TopicConfig: Sendable, Hashable {
    package var cleanupPolicy: CleanupPolicy = .delete
    package var compression: StoredCompression = .producer
    package var gzipLevel: Int32 = -1
    package var lz4Level: Int32 = 9
    package var zstdLevel: Int32 = 3
    package var deleteRetentionMs: Int64 = 86_400_000
    package var durability: Durability = .fsync
    package var fileDeleteDelayMs: Int64 = 60_000
    package var flushMessages: Int64 = .max
    package var flushMs: Int64 = .max
    package var indexIntervalBytes: Int32 = 4096
    package var maxMessageBytes: Int32 = 1_048_588
    package var messageTimestampType: TimestampType = .createTime
    package var messageTimestampAfterMaxMs: Int64 = 3_600_000
    package var messageTimestampBeforeMaxMs: Int64 = .max
    package var minCleanableDirtyRatio: Double = 0.5
    package var minCompactionLagMs: Int64 = 0
    package var maxCompactionLagMs: Int64 = .max
    package var minInsyncReplicas: Int32 = 1
    package var preallocate = false
    package var retentionBytes: Int64 = -1
    package var retentionMs: Int64 = 604_800_000
    package var segmentBytes: Int32 = 1_073_741_824
    package var segmentIndexBytes: Int32 = 10_485_760
    package var segmentJitterMs: Int64 = 0
    package var segmentMs: Int64 = 604_800_000
    package var uncleanLeaderElection = false

    package init() {}

    /// How old a segment may become: what is to be compacted by a certain time must not stay in the active one.
    package var rollMs: Int64 {
        cleanupPolicy.contains(.compact) && maxCompactionLagMs > 0 ? min(segmentMs, maxCompactionLagMs) : segmentMs
    }
}
