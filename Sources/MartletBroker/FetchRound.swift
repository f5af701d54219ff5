import MartletBasics
package import MartletCluster
import MartletLog
import MartletModel
import MartletReactor

/// What one partition of a fetch is answered.
package struct FetchedPartition {
    /// Which target of the request, or of the session.
    package var target: Int
    package var found: PartitionFetch

    package init(target: Int, found: PartitionFetch) {
        self.target = target
        self.found = found
    }

    var recordBytes: Int { found.slice?.count ?? 0 }
}

/// One look at everything that a fetch asks for: what could be answered now.
struct FetchRound {
    var partitions: [FetchedPartition] = []
    var bytes = 0
    var hasError = false
    /// Some partition has moved in another way that must be told at once (the log diverged).
    var isUrgent = false
    /// Of a look in steps: whose records are to be read or checked on the lane for cold reads, as places in `partitions`.
    /// Nil where nobody has asked yet.
    var cold: [Int]?

    /// Reads targets that follow those it has read, within the limits. Only the first partition that has data may exceed
    /// them.
    mutating func look(at range: Range<Int>, of targets: [FetchTarget], _ hosted: [Partition?], _ limits: FetchLimits) {
        for index in range {
            guard let partition = hosted[index] else { continue }
            let left = max(0, limits.maxBytes - bytes)
            add(index, partition.fetch(Self.question(targets[index], limits, left: left, firstBatchWhole: bytes == 0)))
        }
    }

    /// What is not here is answered behind what is, unknown ids before unknown partitions, as in Kafka. `failed`: targets
    /// whose replica here could not be opened.
    mutating func addMissing(_ targets: [FetchTarget], _ hosted: [Partition?], failed: Set<Int>, usesTopicIDs: Bool) {
        guard partitions.count < targets.count else { return }
        for index in failed.sorted() { add(index, PartitionFetch(error: .kafkaStorageError)) }
        for error in [ErrorCode.unknownTopicID, .unknownTopicOrPartition] {
            for (index, target) in targets.enumerated() where hosted[index] == nil && !failed.contains(index) {
                let isUnknownID = usesTopicIDs && target.topicName.isEmpty
                if isUnknownID == (error == .unknownTopicID) { add(index, PartitionFetch(error: error)) }
            }
        }
    }

    static func question(_ target: FetchTarget, _ limits: FetchLimits, left: Int, firstBatchWhole: Bool) -> PartitionFetchRequest {
        PartitionFetchRequest(
            offset: target.fetchOffset, maxBytes: min(Int(max(0, target.maxBytes)), left), firstBatchWhole: firstBatchWhole,
            currentLeaderEpoch: target.currentLeaderEpoch, lastFetchedEpoch: target.lastFetchedEpoch,
            readCommitted: limits.readCommitted, follower: limits.follower)
    }

    private mutating func add(_ index: Int, _ found: PartitionFetch) {
        bytes += found.slice?.count ?? 0
        if found.error != .none { hasError = true }
        if found.divergingEpoch != nil { isUrgent = true }
        partitions.append(FetchedPartition(target: index, found: found))
    }

    func isEnough(_ limits: FetchLimits) -> Bool { hasError || isUrgent || bytes >= limits.minBytes }
}

/// The limits that one fetch request carries for all of its partitions.
struct FetchLimits {
    var minBytes: Int
    var maxBytes: Int
    var maxWait: Interval
    var readCommitted: Bool
    /// The broker that copies, nil for a consumer.
    var follower: FollowerIdentity?
}
