import MartletBasics
package import MartletLog
package import MartletModel
internal import Synchronization

/// What one replica says of itself for metrics, all at one moment.
package struct PartitionFigures: Sendable {
    package var id: TopicPartition
    package var topicID: UUID
    package var traffic: PartitionTraffic
    package var sizeBytes: Int64
    package var segments: Int
    package var logStartOffset: Offset
    package var logEndOffset: Offset
    package var highWatermark: Offset
    package var isLeader: Bool
    package var isOffline: Bool
    package var replicas: Int
    package var inSyncReplicas: Int
    package var waitingAppends: Int
    package var upkeep = PartitionUpkeep()
    package var isCompacted = false
}

/// What went into a replica's log through this broker, and out of it to readers, since it was opened here.
package struct PartitionTraffic: Sendable, Equatable {
    package var recordsIn: UInt64 = 0
    package var bytesIn: UInt64 = 0
    package var recordsOut: UInt64 = 0
    package var bytesOut: UInt64 = 0

    package init(recordsIn: UInt64 = 0, bytesIn: UInt64 = 0, recordsOut: UInt64 = 0, bytesOut: UInt64 = 0) {
        self.recordsIn = recordsIn
        self.bytesIn = bytesIn
        self.recordsOut = recordsOut
        self.bytesOut = bytesOut
    }
}

/// What went out is counted when an answer is made, without the partition's lock.
final class SentCounts: Sendable {
    let records = Atomic<UInt64>(0)
    let bytes = Atomic<UInt64>(0)
}

extension Partition {
    /// An answer carries this slice.
    package func countSent(_ slice: LogSlice) {
        sent.records.add(UInt64(max(slice.recordCount, 0)), ordering: .relaxed)
        sent.bytes.add(UInt64(max(slice.count, 0)), ordering: .relaxed)
    }

    package var figures: PartitionFigures {
        lock.withLock {
            PartitionFigures(
                id: id, topicID: topicID,
                traffic: PartitionTraffic(
                    recordsIn: received.recordsIn, bytesIn: received.bytesIn, recordsOut: sent.records.load(ordering: .relaxed),
                    bytesOut: sent.bytes.load(ordering: .relaxed)),
                sizeBytes: log.size, segments: log.segmentCount, logStartOffset: log.logStartOffset,
                logEndOffset: log.logEndOffset, highWatermark: leadership.highWatermark,
                isLeader: leadership.isLeader && offlineReason == nil, isOffline: offlineReason != nil,
                replicas: leadership.replicas.count, inSyncReplicas: leadership.inSyncReplicas.count,
                waitingAppends: writtenWaiters.count + committedWaiters.count + durableWaiters.count,
                upkeep: upkeep, isCompacted: config.cleanupPolicy.contains(.compact))
        }
    }
}
