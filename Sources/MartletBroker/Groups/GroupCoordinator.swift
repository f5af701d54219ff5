import MartletBasics
import MartletCluster
package import MartletModel
import MartletReactor

/// The coordinator of groups: the shards of those partitions of `__consumer_offsets` that this broker leads, what
/// topics are gone, and when offsets expire.
package final class GroupCoordinator: @unchecked Sendable {
    /// Searches that wait; beyond them the next heartbeat asks again.
    private static let searchesLimit = 4096

    let shared: CoordinatorShared
    private let shards: CoordinatorShards<GroupCoordinator>
    /// Looks which topics expressions match.
    private let searching: any Lane
    private let host: any Host
    private let cluster: ClusterMember
    private let baseSettings: GroupSettings
    private let expiryInterval: Interval
    private let lock = Lock()
    // guarded by the lock:
    private var seeds: SeededRandom
    private var present = GroupSurroundings.nothing
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
        searching = host.makeLane("group-patterns", threads: 1, limit: Self.searchesLimit)
        expiryInterval = config.offsetsRetentionCheckInterval
        baseSettings = GroupSettings(config)
        seeds = SeededRandom(seed: host.randomSeed())
    }

    var surroundings: GroupSurroundings { lock.withLock { present } }

    private func settings(for partition: Partition) -> GroupSettings {
        var settings = baseSettings
        // assignments come to what members say of themselves, and are the smaller part
        settings.recordBytesLimit = Int(partition.topicConfig.maxMessageBytes) / 4 * 3
        settings.consumer.recordBytesLimit = settings.recordBytesLimit
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
        cluster.observeGroupConfigs { [weak self] in self?.lookAround() }
        imageChanged()
        expireLater()
    }

    /// On the first loop.
    func stop() { isStopped = true }

    private func imageChanged() {
        guard !isStopped else { return }
        lookAround()
        let image = cluster.metadata.current
        shards.follow(for: self)
        forgetDeletedTopics(image)
    }

    /// Takes up what groups depend on, as it is now.
    private func lookAround() {
        guard !isStopped else { return }
        let overrides = cluster.groupOverrides.mapValues(GroupOverrides.init)
        let interval = cluster.running.current.settings.int32("group.consumer.assignment.interval.ms")
        lock.withLock {
            present = GroupSurroundings(
                image: cluster.metadata.current, version: present.version + 1, overrides: overrides,
                assignmentIntervalMs: interval)
        }
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

    var moment: GroupMoment {
        GroupMoment(
            now: shared.clock.now, wallMilliseconds: shared.clock.wallMilliseconds, isFull: shared.isFull,
            surroundings: surroundings)
    }

    /// How many topics there are, and what an expression is, nobody knows: it is looked for on a lane.
    func perform(_ search: PatternSearch, for shard: GroupShard, leaderEpoch _: LeaderEpoch) {
        let surroundings = surroundings
        let isQueued = searching.submit({ search.run(in: surroundings) }, on: shard.loop) { [weak shard] findings in
            shard?.note(.patternsFound(findings))
        }
        guard !isQueued else { return }
        // the next heartbeat asks again
        shard.loop.execute { [weak shard] in
            shard?.note(.patternsFound(PatternFindings(group: search.group, topics: [], version: -1)))
        }
    }
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
        consumer = ConsumerGroupSettings(config)
    }
}

extension ConsumerGroupSettings {
    init(_ config: BrokerConfig) {
        let settings = config.settings
        func bounds(_ what: String) -> ClosedRange<Int32> {
            let least = settings.int32("group.consumer.min.\(what)")
            return least...max(least, settings.int32("group.consumer.max.\(what)"))
        }
        isOffered = settings.list("group.coordinator.rebalance.protocols").contains("consumer")
        sizeLimit = Int(settings.int32("group.consumer.max.size"))
        sessionTimeoutMs = settings.int32("group.consumer.session.timeout.ms")
        sessionTimeoutsMs = bounds("session.timeout.ms")
        heartbeatIntervalMs = settings.int32("group.consumer.heartbeat.interval.ms")
        heartbeatIntervalsMs = bounds("heartbeat.interval.ms")
        assignmentIntervalMs = settings.int32("group.consumer.assignment.interval.ms")
        assignmentIntervalsMs = bounds("assignment.interval.ms")
        let named = settings.list("group.consumer.assignors").compactMap(PartitionAssignor.init)
        if !named.isEmpty { assignors = named }
        let policy = settings.string("group.consumer.migration.policy").lowercased()
        allowsUpgrade = policy == "bidirectional" || policy == "upgrade"
        allowsDowngrade = policy == "bidirectional" || policy == "downgrade"
        classicSizeLimit = Int(settings.int64("group.max.size"))
    }
}

extension BrokerConfig {
    fileprivate var offsetCommitTimeout: Interval { .milliseconds(settings.int64("offsets.commit.timeout.ms")) }
    fileprivate var offsetsRetentionCheckInterval: Interval {
        .milliseconds(settings.int64("offsets.retention.check.interval.ms"))
    }
}
