import MartletLog
import MartletModel

/// `cleaner-offset-checkpoint`: the first offset of a partition that no cleaning has looked at. Also a partition whose row
/// says its log's start may have gaps: the row is there before the first segment is exchanged.
extension LogDirectoryUnit {
    func cleanedUpTo(_ partition: TopicPartition) -> Offset? { cleaned[partition] }

    /// A cleaning is about to begin: from now on the log may have gaps. On a lane.
    func prepareCleaning(of partition: TopicPartition, from offset: Offset) throws(LogError) {
        guard cleanedUpTo(partition) == nil else { return }
        try change(.cleaner) { $0[partition] = offset }
    }

    /// Nothing is written where the log was cut since `token` was taken. On a lane.
    func noteCleaned(_ partition: TopicPartition, upTo offset: Offset, unlessLoweredSince token: UInt64) throws(LogError) {
        try change(.cleaner) { rows in
            guard loweringsSoFar == token else { return }
            rows[partition] = offset
        }
    }

    /// A replica comes here from another directory, with what was cleaned of it there.
    func takeOver(_ partition: TopicPartition, from other: LogDirectoryUnit) throws(LogError) {
        let offset = other.cleanedUpTo(partition)
        try change(.cleaner) { $0[partition] = offset }
    }
}
