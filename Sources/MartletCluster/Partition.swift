package import MartletBasics
package import MartletLog
package import MartletModel
package import MartletReactor

/// One replica of a partition on this broker: its log, its part in replication, and who waits for it.
///
/// All state is guarded by `lock`, which is held for microseconds (a write of what a turn brought included). What has
/// to be told to others is collected as `PartitionEffects` under the lock and delivered after it.
///
/// The offsets: the log owns *log start ≤ recovery point ≤ durable ≤ log end*; here *last stable ≤ high watermark ≤ the
/// least position of the in-sync replicas* (durable or log end, as the topic's durability says).
package final class Partition: SyncParticipant, @unchecked Sendable {
    package let id: TopicPartition
    package let topicID: UUID
    package let arming = SyncArming()
    /// The log directory that holds it.
    package let directory: LogDirectoryUnit
    /// What the directory's lower bound says of this partition.
    let durableMark: DurableMark
    let clock: any Clock
    let logger: Logger

    let lock = Lock()
    // guarded by the lock:
    var log: PartitionLog
    var leadership: PartitionLeadership
    var config: TopicConfig
    /// Why it serves nothing, where it does not.
    var offlineReason: String?
    /// Appends that wait to be written, in the order of their offsets.
    var writtenWaiters = RingQueue<AppendWaiter>()
    /// Appends that wait for the high watermark, in the order of their offsets.
    var committedWaiters = RingQueue<AppendWaiter>()
    /// Appends with acks=1 that wait for this disk, `flush.messages` being reached.
    var durableWaiters = RingQueue<AppendWaiter>()
    var watchers = FetchWatchers()
    /// The log end up to which `flush.messages` has asked for a sync.
    var flushRequestedUpTo: Offset = 0
    /// Everything below was acknowledged to somebody as written (acks 0 and 1), and must be found by who looks for it.
    var acknowledgedEnd: Offset = 0
    /// Where the active segment began when a sync was last asked for because of a full one.
    var flushedSegmentBase: Offset
    /// When the oldest append that is not synced was written.
    var unsyncedSince: Instant?
    /// It is about to be replaced by its copy in another log directory: nothing is appended.
    var isMoving = false
    /// It was: who still knows it looks for the other.
    var isReplaced = false
    /// Since when it is about to be.
    var movingSince = Instant(nanoseconds: 0)
    /// Requests that wait until it is replaced, or is not after all, in the order in which they came.
    var exchangeWaiters = RingQueue<AppendWaiter>()
    /// It was stopped, and its log closed so that nothing need be recovered.
    var wasClosedCleanly = false
    /// The log could not hand over what it wrote: the next look asks again.
    var mustRetrySync = false
    /// It is among the directory's `timed`.
    var isTimed = false
    /// What was appended here.
    var received = PartitionTraffic()
    let sent = SentCounts()
    // cleaning: `Partition+Clean.swift`
    var upkeep = PartitionUpkeep()
    /// The log's, when it was found that it cannot be cleaned.
    var uncleanableGeneration: UInt64 = 0

    package init(
        id: TopicPartition, topicID: UUID, log: PartitionLog, brokerID: BrokerID, highWatermark: Offset, directory: LogDirectoryUnit,
        durableMark: DurableMark, config: TopicConfig, clock: any Clock, logger: Logger
    ) {
        self.id = id
        self.topicID = topicID
        self.log = log
        self.directory = directory
        self.durableMark = durableMark
        self.config = config
        self.clock = clock
        self.logger = logger
        let start = min(max(highWatermark, log.logStartOffset), log.logEndOffset)
        leadership = PartitionLeadership(brokerID: brokerID, highWatermark: start)
        flushedSegmentBase = log.activeSegmentBase
        log.noteHighWatermark(start)
    }

    // MARK: What it says of itself

    package var isLeader: Bool { lock.withLock { leadership.isLeader && offlineReason == nil } }
    package var leaderEpoch: LeaderEpoch { lock.withLock { leadership.leaderEpoch } }
    package var highWatermark: Offset { lock.withLock { leadership.highWatermark } }
    package var logEndOffset: Offset { lock.withLock { log.logEndOffset } }
    package var logStartOffset: Offset { lock.withLock { log.logStartOffset } }
    package var durableOffset: Offset { lock.withLock { log.durableOffset } }
    package var recoveryPoint: Offset { lock.withLock { log.recoveryPoint } }
    package var sizeBytes: Int64 { lock.withLock { log.size } }
    package var topicConfig: TopicConfig { lock.withLock { config } }
    package var currentLeader: LeaderHint { lock.withLock { leaderHint } }
    package var isOffline: Bool { lock.withLock { offlineReason != nil } }

    /// Everything below is decided: no transaction that began below it is open. Under the lock.
    var lastStableOffset: Offset {
        log.lastStableOffset(highWatermark: leadership.highWatermark)
    }

    package func configChanged(_ config: TopicConfig) {
        var effects = PartitionEffects()
        lock.withLock {
            self.config = config
            log.config = config
            if isFlushTimed { beginTimed() }
            // with page-cache durability more may be committed now
            if offlineReason == nil { advanceHighWatermark(&effects) }
        }
        effects.deliver()
        directory.syncer.arm(self, urgent: true)
    }

    /// The error for who wants something of the leader, in the order in which Kafka looks: what it serves, the epoch
    /// the client knows.
    func leadershipFault(currentLeaderEpoch: LeaderEpoch) -> ErrorCode {
        if offlineReason != nil { return isMoving ? .notLeaderOrFollower : .kafkaStorageError }
        if currentLeaderEpoch >= 0 {
            if currentLeaderEpoch < leadership.leaderEpoch { return .fencedLeaderEpoch }
            if currentLeaderEpoch > leadership.leaderEpoch { return .unknownLeaderEpoch }
        }
        return leadership.isLeader ? .none : .notLeaderOrFollower
    }

    var leaderHint: LeaderHint {
        switch leadership.role {
        case .leader: LeaderHint(leader: leadership.brokerID, epoch: leadership.leaderEpoch)
        case .follower(let leader): LeaderHint(leader: leader, epoch: leadership.leaderEpoch)
        case .offline: LeaderHint(leader: -1, epoch: leadership.leaderEpoch)
        }
    }

    // MARK: Those who want to know of news

    package func watch(_ watcher: any FetchWatcher) -> FetchWatchToken { lock.withLock { watchers.add(watcher) } }

    package func unwatch(_ token: FetchWatchToken) { lock.withLock { watchers.remove(token) } }

    package var watchersCount: Int { lock.withLock { watchers.all.count } }
}

/// Who leads a partition, as far as this broker knows: told with errors of leadership.
package struct LeaderHint: Sendable, Equatable {
    package var leader: BrokerID
    package var epoch: LeaderEpoch

    package init(leader: BrokerID, epoch: LeaderEpoch) {
        self.leader = leader
        self.epoch = epoch
    }
}
