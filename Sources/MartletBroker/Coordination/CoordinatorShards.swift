import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import Synchronization

/// What the shards of one coordinator have in common.
final class CoordinatorShared: @unchecked Sendable {
    private static let loadingThreads = 2
    /// More partitions than a topic has are never read at once.
    private static let loadingLimit = 4096

    let host: any Host
    let clock: any Clock
    let logger: Logger
    let loading: any Lane
    let commitTimeout: Interval
    private let bytesLimit: Int
    private let bytes = Atomic<Int>(0)

    init(_ host: any Host, name: StaticString, lane: String, commitTimeout: Interval, bytesLimit: Int, sink: any LogSink) {
        self.host = host
        self.commitTimeout = commitTimeout
        self.bytesLimit = bytesLimit
        clock = host.clock
        logger = Logger(name, to: sink)
        loading = host.makeLane(lane, threads: Self.loadingThreads, limit: Self.loadingLimit)
    }

    var planted: PlantedBugs { host.planted }
    var isFull: Bool { bytes.load(ordering: .relaxed) >= bytesLimit }
    /// What all that is coordinated takes of memory, roughly.
    var bytesInUse: Int { bytes.load(ordering: .relaxed) }

    func count(_ more: Int) { bytes.wrappingAdd(more, ordering: .relaxed) }

    /// Runs at the end of the present loop's turn; on another thread, at the end of a turn of the first.
    func atEndOfTurn(_ work: @escaping @Sendable () -> Void) {
        for loop in host.loops where loop.isCurrent { return loop.atEndOfTurn(work) }
        host.loops[0].execute(work)
    }
}

/// The shards of one coordinator: one for each partition of its internal topic, found by the key that is coordinated.
final class CoordinatorShards<Owner: ShardOwner>: @unchecked Sendable {
    typealias Shard = CoordinatorShard<Owner>

    let topic: String
    private let cluster: ClusterMember
    private let lock = Lock()
    // guarded by the lock:
    private var shards: [Shard] = []

    init(topic: String, cluster: ClusterMember) {
        self.topic = topic
        self.cluster = cluster
    }

    /// By partition.
    var all: [Shard] { lock.withLock { shards } }

    /// Nil while the topic is not there.
    func partition(of key: String) -> PartitionInfo? {
        guard let info = cluster.metadata.current.topic(topic), !info.partitions.isEmpty else { return nil }
        return info.partitions[Int(coordinatorPartition(of: key, count: Int32(info.partitions.count)))]
    }

    func shard(of key: String) -> Shard? {
        guard let info = partition(of: key) else { return nil }
        return lock.withLock { Int(info.index) < shards.count ? shards[Int(info.index)] : nil }
    }

    func submit(
        _ key: String, on loop: any EventLoop, _ answer: @escaping (Owner.Machine.Reply) -> Void,
        _ event: (CoordinatorTicket) -> Owner.Machine.Event
    ) {
        guard let shard = shard(of: key) else { return answer(.failed(.notCoordinator)) }
        shard.submit(on: loop, answer, event)
    }

    func read<R>(_ key: String, _ body: (Owner.Machine) -> R) -> Result<R, CoordinatorFailure> {
        guard let shard = shard(of: key) else { return .failure(CoordinatorFailure(.notCoordinator)) }
        return shard.read(body)
    }

    /// Follows what the metadata say of the topic, and what of it lies here. On the first loop.
    func follow(for owner: Owner) {
        let count = cluster.metadata.current.topic(topic)?.partitions.count ?? 0
        let hosted = cluster.topics.table.topic(topic)
        let loops = owner.shared.host.loops
        let shards = lock.withLock { () -> [Shard] in
            while self.shards.count < count {
                let index = self.shards.count
                self.shards.append(Shard(index: Int32(index), loop: loops[index % loops.count], owner: owner))
            }
            return self.shards
        }
        for shard in shards { shard.follow(Int(shard.index) < count ? hosted?.partition(shard.index) : nil) }
    }

    /// Whether something of a partition that this broker leads is still being read.
    var isLoading: Bool { all.contains { $0.isLoading } }
}

/// The partition of an internal topic that a group or a transactional id belongs to: Java's hash of its name, as with Kafka.
package func coordinatorPartition(of key: String, count: Int32) -> Int32 {
    var hash: Int32 = 0
    for unit in key.utf16 { hash = 31 &* hash &+ Int32(unit) }
    return (hash == .min ? 0 : abs(hash)) % count
}
