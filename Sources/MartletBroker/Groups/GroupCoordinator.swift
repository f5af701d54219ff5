import MartletBasics
import MartletCluster
package import MartletModel
import MartletReactor

/// The coordinator of groups: the shards of those partitions of `__consumer_offsets` that this broker leads, what
/// topics are gone, and when offsets expire.
package final class GroupCoordinator: @unchecked Sendable {
    let shared: CoordinatorShared
    private let shards: CoordinatorShards<GroupCoordinator>
    private let host: any Host
    private let cluster: ClusterMember
    private let baseSettings: GroupSettings
    private let expiryInterval: Interval
    private let lock = Lock()
    // guarded by the lock:
    private var seeds: SeededRandom
    // of the first loop:
    private var knownTopics: [DeletedTopic] = []
    private var isStopped = false

    init(host: any Host, cluster: ClusterMember, config: BrokerConfig, bytesLimit: Int, sink: any LogSink) {
        self.host = host
        self.cluster = cluster
        shared = CoordinatorShared(
            host, name: "groups", lane: "group-loading", commitTimeout: config.offsetCommitTimeout, bytesLimit: bytesLimit,
            sink: sink)
        shards = CoordinatorShards(topic: InternalTopics.offsets, cluster: cluster)
        expiryInterval = config.offsetsRetentionCheckInterval
        baseSettings = GroupSettings(config)
        seeds = SeededRandom(seed: host.randomBytes(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
    }

    private func settings(for partition: Partition) -> GroupSettings {
        var settings = baseSettings
        // assignments come to what members say of themselves, and are the smaller part
        settings.recordBytesLimit = Int(partition.topicConfig.maxMessageBytes) / 4 * 3
        return settings
    }

    // MARK: Where a group is

    package static func partition(of group: String, count: Int32) -> Int32 { coordinatorPartition(of: group, count: count) }

    /// Nil while the topic is not there.
    func partition(of group: String) -> PartitionInfo? { shards.partition(of: group) }

    func shard(of group: String) -> GroupShard? { shards.shard(of: group) }

    /// By partition.
    var allShards: [GroupShard] { shards.all }

    /// As `CoordinatorShard.submit`, for the group's shard.
    func submit(
        _ group: String, on loop: any EventLoop, _ answer: @escaping (GroupReply) -> Void, _ event: (GroupTicket) -> GroupEvent
    ) {
        shards.submit(group, on: loop, answer, event)
    }

    func read<R>(_ group: String, _ body: (GroupMachine) -> R) -> Result<R, GroupWriteFailure> { shards.read(group, body) }

    // MARK: Following the cluster

    /// On the first loop, before the broker is told what it leads.
    func start() {
        cluster.observeImage { [weak self] in self?.imageChanged() }
        imageChanged()
        expireLater()
    }

    /// On the first loop.
    func stop() { isStopped = true }

    private func imageChanged() {
        guard !isStopped else { return }
        let image = cluster.metadata.current
        shards.follow(for: self)
        forgetDeletedTopics(image)
    }

    private func forgetDeletedTopics(_ image: MetadataImage) {
        let gone = knownTopics.filter { image.topic($0.id) == nil }
        knownTopics = image.topics.map { DeletedTopic(name: $0.name, id: $0.id) }
        guard !gone.isEmpty else { return }
        for shard in allShards { shard.note(.topicsDeleted(gone)) }
    }

    // MARK: Expiry

    private func expireLater() {
        host.loops[0].schedule(after: expiryInterval) { [weak self] in
            guard let self, !isStopped else { return }
            for shard in allShards { shard.note(.expireOffsets) }
            expireLater()
        }
    }

    // MARK: For metrics

    /// Every group that this broker coordinates, by partition and id.
    package var listings: [GroupListing] {
        allShards.flatMap { shard in (try? shard.read { $0.listings }.get()) ?? [] }
    }

    /// Calls with every committed offset of every group that this broker coordinates. The groups of a partition stand
    /// still meanwhile: to be asked now and then.
    package func forEachCommittedOffset(
        _ body: (_ group: String, _ partition: TopicPartition, _ committed: CommittedOffset) -> Void
    ) {
        for shard in allShards { _ = shard.read { $0.forEachCommittedOffset(body) } }
    }

    /// Whether groups of a partition that this broker leads are still being read.
    package var isLoading: Bool { shards.isLoading }

    /// What all groups take of memory, roughly.
    package var bytesInUse: Int { shared.bytesInUse }
}

typealias GroupShard = CoordinatorShard<GroupCoordinator>

extension GroupCoordinator: ShardOwner {
    func makeMachine(for partition: Partition) -> GroupMachine {
        GroupMachine(settings: settings(for: partition), seed: lock.withLock { seeds.next() })
    }

    /// Topics may have been deleted while nobody could take note: one whose name has another id now surely was. Of one
    /// that is not there nothing is sure, for the image may be young; its offsets expire.
    func began(_ shard: GroupShard, _ topics: [DeletedTopic]) {
        let image = cluster.metadata.current
        let gone = topics.filter { topic in image.topic(topic.name).map { $0.id != topic.id } ?? false }
        if !gone.isEmpty { shard.note(.topicsDeleted(gone)) }
    }

    func perform(_ effect: Never, for _: GroupShard, leaderEpoch _: LeaderEpoch) {}
}

extension GroupSettings {
    init(_ config: BrokerConfig) {
        let settings = config.settings
        sizeLimit = Int(settings.int64("group.max.size"))
        let least = settings.int32("group.min.session.timeout.ms")
        sessionTimeoutsMs = least...max(least, settings.int32("group.max.session.timeout.ms"))
        initialDelay = .milliseconds(settings.int64("group.initial.rebalance.delay.ms"))
        offsetMetadataLimit = Int(settings.int64("offset.metadata.max.bytes"))
        offsetsRetentionMs = settings.int64("offsets.retention.minutes") * 60_000
    }
}

extension BrokerConfig {
    fileprivate var offsetCommitTimeout: Interval { .milliseconds(settings.int64("offsets.commit.timeout.ms")) }
    fileprivate var offsetsRetentionCheckInterval: Interval {
        .milliseconds(settings.int64("offsets.retention.check.interval.ms"))
    }
}
