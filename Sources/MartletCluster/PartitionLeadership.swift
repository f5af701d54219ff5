package import MartletBasics
package import MartletModel

/// What the leader knows of one other replica, from the fetches it sends.
package struct FollowerProgress: Sendable, Equatable {
    /// The offset it asked for last: everything below is in its log. -1 before its first fetch of this epoch.
    package var logEnd: Offset = -1
    /// Everything below is on its disk, as it told; nil from a broker that cannot tell.
    package var durable: Offset?
    /// The latest moment of which is known that it had everything that the leader had then.
    package var caughtUpAt: Instant
    /// What the leader had at `targetAt`: when the follower has come so far, it was caught up then.
    fileprivate var target: Offset = 0
    fileprivate var targetAt: Instant

    package init(now: Instant) {
        caughtUpAt = now
        targetAt = now
    }

    /// How far it counts for the high watermark.
    package func position(_ durability: Durability) -> Offset {
        durability == .fsync ? durable ?? logEnd : logEnd
    }
}

/// The replication state of a partition on one broker, without its log: who leads in which epoch, who is in sync, how
/// far the high watermark stands. Pure; `Partition` carries out what it says.
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
    /// The in-sync set that the controller was asked for and has not answered. Until it does, who is in either set
    /// counts: the controller may have taken it already, and may elect any of it.
    package private(set) var proposal: [BrokerID]?
    package private(set) var highWatermark: Offset = 0
    /// Where the log ended when this broker became the leader: what earlier leaders committed lies below.
    package private(set) var epochStart: Offset = 0
    /// By the order of `replicas`, the broker itself left out.
    package private(set) var followers: [(id: BrokerID, progress: FollowerProgress)] = []

    package init(brokerID: BrokerID, highWatermark: Offset) {
        self.brokerID = brokerID
        self.highWatermark = highWatermark
    }

    package var isLeader: Bool { role == .leader }

    /// Whether everything that earlier leaders committed is known to be below the high watermark. Before that, the end of
    /// what consumers may read would seem to go back.
    package var knowsWhatWasCommitted: Bool { highWatermark >= epochStart }

    /// What the controller decided last; nil where it decided nothing that holds.
    package var assignment: Assignment? {
        let leader: BrokerID
        switch role {
        case .offline: return nil
        case .leader: leader = brokerID
        case .follower(let other): leader = other
        }
        return Assignment(
            leader: leader, leaderEpoch: leaderEpoch, partitionEpoch: partitionEpoch, replicas: replicas,
            inSyncReplicas: inSyncReplicas)
    }

    /// What the controller decided for this partition.
    package struct Assignment: Sendable, Equatable {
        package var leader: BrokerID
        package var leaderEpoch: LeaderEpoch
        package var partitionEpoch: Int32
        package var replicas: [BrokerID]
        package var inSyncReplicas: [BrokerID]

        package init(
            leader: BrokerID, leaderEpoch: LeaderEpoch, partitionEpoch: Int32, replicas: [BrokerID],
            inSyncReplicas: [BrokerID]
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
        /// Another leader in an epoch that has one: whoever sent that is wrong, and nothing changes.
        case contradiction
        case becameLeader
        /// It may have led before, in an earlier epoch: what waits for acknowledgement must be told.
        case becameFollower
        /// The same leader and epoch; replicas or in-sync replicas changed.
        case updated
    }

    package mutating func apply(_ assignment: Assignment, now: Instant) -> Change {
        guard assignment.leaderEpoch >= leaderEpoch else { return .stale }
        let isNewEpoch = assignment.leaderEpoch > leaderEpoch
        let leads = assignment.leader == brokerID
        if !isNewEpoch, role != .offline {
            guard assignment.partitionEpoch > partitionEpoch else { return .stale }
            guard leads ? isLeader : role == .follower(leader: assignment.leader) else { return .contradiction }
        }
        let isBeginning = isNewEpoch || role == .offline
        leaderEpoch = assignment.leaderEpoch
        partitionEpoch = assignment.partitionEpoch
        replicas = assignment.replicas
        inSyncReplicas = assignment.inSyncReplicas
        proposal = nil
        role = leads ? .leader : .follower(leader: assignment.leader)
        guard leads else {
            followers = []
            return isBeginning ? .becameFollower : .updated
        }
        let known = isBeginning ? [] : followers
        followers = replicas.filter { $0 != brokerID }.map { id in
            known.first { $0.id == id } ?? (id, FollowerProgress(now: now))
        }
        return isBeginning ? .becameLeader : .updated
    }

    /// The epoch of this leader begins at the end of its log.
    package mutating func beginEpoch(at logEnd: Offset) {
        precondition(isLeader, "a leader begins an epoch")
        epochStart = logEnd
    }

    package mutating func goOffline() {
        role = .offline
        followers = []
        proposal = nil
    }

    // MARK: Followers

    /// Notes a follower's fetch: it has everything below `logEnd`, on disk below `durable`. False for a broker that is no
    /// replica.
    package mutating func followerFetched(
        _ id: BrokerID, logEnd: Offset, durable: Offset?, leaderEnd: Offset, durability: Durability, now: Instant
    ) -> Bool {
        guard let index = followers.firstIndex(where: { $0.id == id }) else { return false }
        var progress = followers[index].progress
        progress.logEnd = min(logEnd, leaderEnd)
        // what a broker tells of itself cannot be more than it has
        progress.durable = durable.map { min($0, progress.logEnd) }
        // A sync ends some fetches after the fetch that brought the records, and meanwhile the leader's log grows: so it is
        // not asked to have all of now, but to reach what there was at some moment, and then the next one.
        let position = progress.position(durability)
        if position >= leaderEnd {
            progress.caughtUpAt = max(progress.caughtUpAt, now)
            (progress.target, progress.targetAt) = (leaderEnd, now)
        } else if position >= progress.target {
            progress.caughtUpAt = max(progress.caughtUpAt, progress.targetAt)
            (progress.target, progress.targetAt) = (leaderEnd, now)
        }
        followers[index].progress = progress
        return true
    }

    /// The in-sync set that the controller should be asked for; nil where it is right as it is, or one was asked for
    /// already. Who has not been caught up for `lagLimit` (`replica.lag.time.max.ms`) leaves; who has everything that is
    /// committed, by this leader or those before, comes in.
    package mutating func propose(
        now: Instant, lagLimit: Interval, localEnd: Offset, durability: Durability
    ) -> [BrokerID]? {
        guard isLeader, proposal == nil else { return nil }
        let committed = max(highWatermark, epochStart)
        let wanted = replicas.filter { id in
            guard let progress = followers.first(where: { $0.id == id })?.progress else { return id == brokerID }
            let position = progress.position(durability)
            if inSyncReplicas.contains(id) { return position >= localEnd || now - progress.caughtUpAt <= lagLimit }
            return progress.logEnd >= 0 && position >= committed
        }
        guard wanted != replicas.filter(inSyncReplicas.contains) else { return nil }
        proposal = wanted
        return wanted
    }

    /// The controller has surely not taken what it was asked for, and never will. (Where nobody knows, one waits for
    /// its next decision.)
    package mutating func proposalRefused() { proposal = nil }

    // MARK: The high watermark

    /// Raises the high watermark to the least position of the in-sync replicas; true if it moved. It never goes back.
    package mutating func advanceHighWatermark(localDurable: Offset, localEnd: Offset, durability: Durability) -> Bool {
        precondition(isLeader, "only a leader decides on the high watermark")
        var least = durability == .fsync ? localDurable : localEnd
        for follower in followers where inSyncReplicas.contains(follower.id) || proposal?.contains(follower.id) == true {
            least = min(least, follower.progress.position(durability))
        }
        guard least > highWatermark else { return false }
        highWatermark = least
        return true
    }

    /// A follower takes over what its leader told, as far as its own log goes.
    package mutating func follow(highWatermark told: Offset, localEnd: Offset) {
        highWatermark = max(highWatermark, min(told, localEnd))
    }

    /// After a truncation, or a start over at another offset, nothing above the log's end is committed here; what lies
    /// below its start is.
    package mutating func clamp(logStart: Offset, logEnd: Offset) {
        highWatermark = min(max(highWatermark, logStart), logEnd)
    }
}
