import MartletBasics
import MartletCluster
package import MartletModel
import MartletReactor

/// The coordinator of transactions: the shards of those partitions of `__transaction_state` that this broker leads, producer
/// ids, the delivery of markers, and the looks for what has taken too long.
package final class TransactionCoordinator: @unchecked Sendable {
    let shared: CoordinatorShared
    let cluster: ClusterMember
    let groups: GroupCoordinator
    private let shards: CoordinatorShards<TransactionCoordinator>
    private let host: any Host
    private let baseSettings: TransactionSettings
    private let timeoutCheckInterval: Interval
    private let expiryInterval: Interval
    private let began: Instant
    // of the first loop:
    private var isStopped = false

    init(
        host: any Host, cluster: ClusterMember, groups: GroupCoordinator, config: BrokerConfig, bytesLimit: Int,
        sink: any LogSink
    ) {
        self.host = host
        self.cluster = cluster
        self.groups = groups
        shared = CoordinatorShared(
            host, name: "transactions", lane: "transaction-loading", commitTimeout: config.requestTimeout,
            bytesLimit: bytesLimit,
            sink: sink)
        shards = CoordinatorShards(topic: InternalTopics.transactions, cluster: cluster)
        baseSettings = TransactionSettings(config)
        timeoutCheckInterval = config.timeoutCheckInterval
        expiryInterval = config.expiryInterval
        began = host.clock.now
    }

    // MARK: Where a transactional id is

    /// Nil while the topic is not there.
    func partition(of id: String) -> PartitionInfo? { shards.partition(of: id) }

    /// By partition.
    var allShards: [TransactionShard] { shards.all }

    /// As `CoordinatorShard.submit`, for the id's shard. An empty id has one too, whose machine says what is wrong.
    func submit(
        _ id: String, on loop: any EventLoop, _ answer: @escaping (TransactionReply) -> Void,
        _ event: (CoordinatorTicket) -> TransactionEvent
    ) {
        shards.submit(id, on: loop, answer, event)
    }

    func read<R>(_ id: String, _ body: (TransactionMachine) -> R) -> Result<R, CoordinatorFailure> { shards.read(id, body) }

    /// What speaks against a producer writing to these partitions in its transaction. From any thread, also under the lock
    /// of a data partition or of a group's shard: nothing that holds a transaction shard's lock asks for one of those.
    func verify(_ id: String, _ producer: ProducerIdentity, _ partitions: some Sequence<TopicPartition>) -> ErrorCode {
        switch read(id, { $0.verify(id, producer, partitions) }) {
        case .success(let error): error
        case .failure(let failure): failure.error
        }
    }

    /// Of those ids that this broker coordinates, by producer id.
    func open() -> [ProducerID: OpenTransaction] {
        allShards.reduce(into: [:]) { all, shard in
            guard let open = try? shard.read({ $0.open }).get() else { return }
            all.merge(open) { first, _ in first }
        }
    }

    /// `transaction.partition.verification.enable`.
    var verifies: Bool { cluster.running.current.settings.bool("transaction.partition.verification.enable") }

    /// The partition of `__consumer_offsets` that takes a group's offsets.
    func offsetsPartition(of group: String) -> TopicPartition? {
        groups.partition(of: group).map { TopicPartition(InternalTopics.offsets, $0.index) }
    }

    // MARK: Following the cluster

    /// On the first loop, before the broker is told what it leads.
    func start() {
        cluster.observeImage { [weak self] in self?.imageChanged() }
        imageChanged()
        every(timeoutCheckInterval) { .abortTimedOut }
        every(expiryInterval) { .expire }
    }

    /// On the first loop.
    func stop() { isStopped = true }

    private func imageChanged() {
        guard !isStopped else { return }
        shards.follow(for: self)
    }

    private func every(_ interval: Interval, _ event: @escaping @Sendable () -> TransactionEvent) {
        host.loops[0].schedule(after: interval) { [weak self] in
            guard let self, !isStopped else { return }
            for shard in allShards { shard.note(event()) }
            every(interval, event)
        }
    }

    /// A topic that this broker does not know was deleted. Soon after the start that is not sure: the metadata may be young.
    func isGone(_ partition: TopicPartition) -> Bool {
        guard shared.clock.now - began > Self.metadataGrace else { return false }
        return cluster.metadata.current.topic(partition.topic)?.has(partition.partition) != true
    }

    private static let metadataGrace = Interval.seconds(30)

    // MARK: For metrics

    /// How many ids there are in each state, and what became of transactions.
    package var figures: TransactionFigures {
        var figures = TransactionFigures()
        for shard in allShards {
            guard let (states, counts) = try? shard.read({ ($0.stateCounts, $0.counts) }).get() else { continue }
            for (state, count) in states.enumerated() { figures.states[state] += count }
            figures.counts = figures.counts + counts
        }
        return figures
    }
}

/// What metrics tell of transactions.
package struct TransactionFigures: Equatable, Sendable {
    /// By the state's number.
    package var states = [Int](repeating: 0, count: TransactionState.allCases.count)
    package var counts = TransactionCounts()
}

typealias TransactionShard = CoordinatorShard<TransactionCoordinator>

extension TransactionCoordinator: ShardOwner {
    func makeMachine(for partition: Partition) -> TransactionMachine {
        var settings = baseSettings
        // what comes to an end's record, beyond what the transaction's own has, is little
        settings.recordBytesLimit = Int(partition.topicConfig.maxMessageBytes) / 4 * 3
        return TransactionMachine(settings: settings)
    }

    var moment: CoordinatorMoment {
        CoordinatorMoment(now: shared.clock.now, wallMilliseconds: shared.clock.wallMilliseconds, isFull: shared.isFull)
    }

    func began(_: TransactionShard, _: Void) {}

    func perform(_ effect: TransactionEffect, for shard: TransactionShard, leaderEpoch: LeaderEpoch) {
        switch effect {
        case .allocateProducerID(let number):
            let cluster = cluster
            host.loops[0].execute { [host] in
                host.loops[0].spawn { shard.note(.allocated(number, await cluster.allocateProducerID())) }
            }
        case .writeMarkers(let ending):
            let delivery = MarkerDelivery(ending, leaderEpoch: leaderEpoch, shard: shard, coordinator: self)
            if shard.loop.isCurrent { delivery.deliver() } else { shard.loop.execute { delivery.deliver() } }
        }
    }
}

extension TransactionSettings {
    package init(_ config: BrokerConfig) {
        additionPatience = .milliseconds(config.settings.int64("add.partitions.to.txn.retry.backoff.max.ms"))
        timeoutLimitMs = config.settings.int32("transaction.max.timeout.ms")
        expirationMs = config.settings.int64("transactional.id.expiration.ms")
    }
}

extension BrokerConfig {
    fileprivate var timeoutCheckInterval: Interval {
        .milliseconds(settings.int64("transaction.abort.timed.out.transaction.cleanup.interval.ms"))
    }
    fileprivate var expiryInterval: Interval {
        .milliseconds(settings.int64("transaction.remove.expired.transaction.cleanup.interval.ms"))
    }
}
