package import MartletBasics
package import MartletModel

/// What the leader knows of one other replica, from the fetches it sends.
package struct FollowerProgress: Sendable, Equatable {
    /// The offset it asked for last: everything below is in its log.
    package var logEnd: Offset = -1
    /// Everything below is on its disk, as it told; nil from a broker that cannot tell.
    package var durable: Offset?
    /// When it last had everything that the leader had.
    package var caughtUpAt: Instant
    /// The leader's log end when the follower's last fetch was answered.
    package var leaderEndAtLastFetch: Offset = 0
    package var lastFetchAt: Instant
}

/// The replication state of a partition on one broker, without its log: who leads in which epoch, who is in sync, how far the
/// high watermark stands. Pure; `Partition` carries out what it says.
///
/// - `offline`: no log, or a failed directory. Can become `follower` or `leader` when the controller says so.
/// - `follower`: copies a leader, perhaps one that is not known. Can become `leader` in a later epoch.
/// - `leader`: takes appends. Can become `follower` in a later epoch.
package struct PartitionLeadership: Sendable {
    package enum Role: Sendable, Equatable {
        case offline
        case follower(leader: BrokerID)
        case leader
    }

    package let brokerID: BrokerID
    package private(set) var role: Role = .offline
    package private(set) var leaderEpoch: LeaderEpoch = -1
    package private(set) var partitionEpoch: Int32 = -1
    package private(set) var replicas: [BrokerID] = []
    package private(set) var inSyncReplicas: [BrokerID] = []
    package private(set) var highWatermark: Offset = 0
    /// By the order of `replicas`, the broker itself left out.
    package private(set) var followers: [(id: BrokerID, progress: FollowerProgress)] = []

    package init(brokerID: BrokerID, highWatermark: Offset) {
        self.brokerID = brokerID
        self.highWatermark = highWatermark
    }

    package var isLeader: Bool { role == .leader }

    /// What the controller decided for this partition.
    package struct Assignment: Sendable, Equatable {
        package var leader: BrokerID
        package var leaderEpoch: LeaderEpoch
        package var partitionEpoch: Int32
        package var replicas: [BrokerID]
        package var inSyncReplicas: [BrokerID]

        package init(
            leader: BrokerID, leaderEpoch: LeaderEpoch, partitionEpoch: Int32, replicas: [BrokerID], inSyncReplicas: [BrokerID]
        ) {
            self.leader = leader
            self.leaderEpoch = leaderEpoch
            self.partitionEpoch = partitionEpoch
            self.replicas = replicas
            self.inSyncReplicas = inSyncReplicas
        }
    }

    package enum Change: Equatable {
        /// An epoch that is over, or this very decision again: nothing changes.
        case stale
        case becameLeader
        /// It led before, in an earlier epoch: what waits for acknowledgement must be told.
        case becameFollower
        /// The same leader and epoch; replicas or in-sync replicas changed.
        case updated
    }

    package mutating func apply(_ assignment: Assignment, now: Instant) -> Change {
        guard assignment.leaderEpoch >= leaderEpoch, assignment.partitionEpoch >= partitionEpoch || assignment.leaderEpoch > leaderEpoch
        else { return .stale }
        let newEpoch = assignment.leaderEpoch > leaderEpoch
        let leads = assignment.leader == brokerID
        precondition(newEpoch || role == .offline || leads == isLeader, "one epoch has one leader")
        let was = role
        leaderEpoch = assignment.leaderEpoch
        partitionEpoch = assignment.partitionEpoch
        replicas = assignment.replicas
        inSyncReplicas = assignment.inSyncReplicas
        role = leads ? .leader : .follower(leader: assignment.leader)
        if leads {
            let known = newEpoch ? [] : followers
            followers = replicas.filter { $0 != brokerID }.map { id in
                known.first { $0.id == id } ?? (id, FollowerProgress(caughtUpAt: now, lastFetchAt: now))
            }
            return newEpoch || was != .leader ? .becameLeader : .updated
        }
        followers = []
        return newEpoch || was != role ? .becameFollower : .updated
    }

    package mutating func goOffline() {
        role = .offline
        followers = []
    }

    /// Notes a follower's fetch: it has everything below `logEnd`, on disk below `durable`. False for a broker that is no replica.
    package mutating func followerFetched(
        _ id: BrokerID, logEnd: Offset, durable: Offset?, leaderEnd: Offset, now: Instant
    ) -> Bool {
        guard let index = followers.firstIndex(where: { $0.id == id }) else { return false }
        var progress = followers[index].progress
        // Caught up: it has what the leader had now, or what the leader had when it last asked (then it was so at that moment).
        if logEnd >= leaderEnd {
            progress.caughtUpAt = max(progress.caughtUpAt, now)
        } else if logEnd >= progress.leaderEndAtLastFetch, progress.logEnd >= 0 {
            progress.caughtUpAt = max(progress.caughtUpAt, progress.lastFetchAt)
        }
        progress.logEnd = logEnd
        progress.durable = durable
        progress.leaderEndAtLastFetch = leaderEnd
        progress.lastFetchAt = now
        followers[index].progress = progress
        return true
    }

    /// Raises the high watermark to the least position of the in-sync replicas; true if it moved. It never goes back.
    package mutating func advanceHighWatermark(localDurable: Offset, localEnd: Offset, durability: Durability) -> Bool {
        precondition(isLeader, "only a leader decides on the high watermark")
        var least = durability == .fsync ? localDurable : localEnd
        for follower in followers where inSyncReplicas.contains(follower.id) {
            let progress = follower.progress
            least = min(least, durability == .fsync ? progress.durable ?? progress.logEnd : progress.logEnd)
        }
        guard least > highWatermark else { return false }
        highWatermark = least
        return true
    }

    /// A follower takes over what its leader told, as far as its own log goes.
    package mutating func follow(highWatermark told: Offset, localEnd: Offset) {
        highWatermark = max(highWatermark, min(told, localEnd))
    }

    /// After a truncation, or a start over at another offset, nothing above the log's end is committed here.
    package mutating func clamp(logStart: Offset, logEnd: Offset) {
        highWatermark = min(max(highWatermark, logStart), logEnd)
    }
}
