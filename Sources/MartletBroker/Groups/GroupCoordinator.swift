import MartletBasics
import MartletCluster
package import MartletModel
import MartletReactor
import Synchronization

/// The coordinator of groups: which partition of `__consumer_offsets` a group belongs to, the shards of those that
/// this broker leads, and what they share.
package final class GroupCoordinator: @unchecked Sendable {
    private static let loadingThreads = 2
    /// More partitions than the topic has are never read at once.
    private static let loadingLimit = 4096

    let clock: any Clock
    let logger: Logger
    let loading: any Lane
    let commitTimeout: Interval
    private let host: any Host
    var planted: PlantedBugs { host.planted }
    private let cluster: ClusterMember
    private let config: BrokerConfig
    private let baseSettings: GroupSettings
    private let expiryInterval: Interval
    private let bytesLimit: Int
    private let bytes = Atomic<Int>(0)
    private let lock = Lock()
    // guarded by the lock:
    private var shards: [GroupShard] = []
    private var seeds: SeededRandom
    // of the first loop:
    private var knownTopics: [DeletedTopic] = []
    private var isStopped = false

    init(host: any Host, cluster: ClusterMember, config: BrokerConfig, bytesLimit: Int, sink: any LogSink) {
        self.host = host
        self.cluster = cluster
        self.config = config
        self.bytesLimit = bytesLimit
        clock = host.clock
        logger = Logger("groups", to: sink)
        loading = host.makeLane("group-loading", threads: Self.loadingThreads, limit: Self.loadingLimit)
        commitTimeout = config.offsetCommitTimeout
        expiryInterval = config.offsetsRetentionCheckInterval
        baseSettings = GroupSettings(config)
        seeds = SeededRandom(seed: host.randomBytes(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
    }

    // MARK: What the shards ask

    var isFull: Bool { bytes.load(ordering: .relaxed) >= bytesLimit }

    func count(_ more: Int) { bytes.wrappingAdd(more, ordering: .relaxed) }

    func nextSeed() -> UInt64 { lock.withLock { seeds.next() } }

    func settings(for partition: Partition) -> GroupSettings {
        var settings = baseSettings
        // assignments come to what members say of themselves, and are the smaller part
        settings.recordBytesLimit = Int(partition.topicConfig.maxMessageBytes) / 4 * 3
        return settings
    }

    /// Runs at the end of the present loop's turn; on another thread, at the end of a turn of the first.
    func atEndOfTurn(_ work: @escaping @Sendable () -> Void) {
        for loop in host.loops where loop.isCurrent { return loop.atEndOfTurn(work) }
        host.loops[0].execute(work)
    }

    // MARK: Where a group is

    /// The partition of `__consumer_offsets` that a group belongs to: Java's hash of its name, as with Kafka.
    package static func partition(of group: String, count: Int32) -> Int32 {
        var hash: Int32 = 0
        for unit in group.utf16 { hash = 31 &* hash &+ Int32(unit) }
        return (hash == .min ? 0 : abs(hash)) % count
    }

    /// Nil while the topic is not there.
    func partition(of group: String) -> PartitionInfo? {
        guard let topic = cluster.metadata.current.topic(InternalTopics.offsets), !topic.partitions.isEmpty else { return nil }
        return topic.partitions[Int(Self.partition(of: group, count: Int32(topic.partitions.count)))]
    }

    func shard(of group: String) -> GroupShard? {
        guard let info = partition(of: group) else { return nil }
        return lock.withLock { Int(info.index) < shards.count ? shards[Int(info.index)] : nil }
    }

    /// By partition.
    var allShards: [GroupShard] { lock.withLock { shards } }

    /// As `GroupShard.submit`, for the group's shard.
    func submit(
        _ group: String, on loop: any EventLoop, _ answer: @escaping (GroupReply) -> Void, _ event: (GroupTicket) -> GroupEvent
    ) {
        guard let shard = shard(of: group) else { return answer(.failed(.notCoordinator)) }
        shard.submit(on: loop, answer, event)
    }

    func read<R>(_ group: String, _ body: (GroupMachine) -> R) -> Result<R, GroupWriteFailure> {
        guard let shard = shard(of: group) else { return .failure(GroupWriteFailure(.notCoordinator)) }
        return shard.read(body)
    }

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
        let count = image.topic(InternalTopics.offsets)?.partitions.count ?? 0
        let hosted = cluster.topics.table.topic(InternalTopics.offsets)
        let shards = lock.withLock { () -> [GroupShard] in
            while self.shards.count < count {
                let index = self.shards.count
                self.shards.append(
                    GroupShard(index: Int32(index), loop: host.loops[index % host.loops.count], coordinator: self))
            }
            return self.shards
        }
        for shard in shards { shard.follow(Int(shard.index) < count ? hosted?.partition(shard.index) : nil) }
        forgetDeletedTopics(image)
    }

    private func forgetDeletedTopics(_ image: MetadataImage) {
        let gone = knownTopics.filter { image.topic($0.id) == nil }
        knownTopics = image.topics.map { DeletedTopic(name: $0.name, id: $0.id) }
        guard !gone.isEmpty else { return }
        for shard in allShards { shard.note(.topicsDeleted(gone)) }
    }

    /// A shard has read its groups. Topics may have been deleted while nobody could take note: one whose name has another
    /// id now surely was. Of one that is not there nothing is sure, for the image may be young; its offsets expire.
    func began(_ shard: GroupShard, committedFor topics: [DeletedTopic]) {
        let image = cluster.metadata.current
        let gone = topics.filter { topic in image.topic(topic.name).map { $0.id != topic.id } ?? false }
        if !gone.isEmpty { shard.note(.topicsDeleted(gone)) }
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
    package var isLoading: Bool { allShards.contains { $0.isLoading } }

    /// What all groups take of memory, roughly.
    package var bytesInUse: Int { bytes.load(ordering: .relaxed) }
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
