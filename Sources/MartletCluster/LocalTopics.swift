import MartletBasics
package import MartletModel
import Synchronization

/// A topic as this broker serves it: its settings, and those of its partitions that have a replica here.
package final class LocalTopic: @unchecked Sendable {
    package let name: String
    /// The name's UTF-8, to compare with bytes of requests.
    package let nameBytes: [UInt8]
    package let id: UUID
    /// Kept by brokers for themselves: clients do not write to it.
    package let isInternal: Bool
    private let lock = Lock()
    // guarded by the lock:
    private var hosted: [Partition?] = []
    private var settings: TopicConfig
    /// Partitions whose replica here could not be opened.
    private var failed: Set<Int32> = []

    package init(name: String, id: UUID, config: TopicConfig) {
        self.name = name
        nameBytes = Array(name.utf8)
        isInternal = InternalTopics.all.contains(name)
        self.id = id
        settings = config
    }

    package var config: TopicConfig {
        get { lock.withLock { settings } }
        set {
            let partitions = lock.withLock {
                settings = newValue
                return hosted.compactMap { $0 }
            }
            for partition in partitions { partition.configChanged(newValue) }
        }
    }

    package func partition(_ index: Int32) -> Partition? {
        lock.withLock { index >= 0 && Int(index) < hosted.count ? hosted[Int(index)] : nil }
    }

    /// By rising index.
    package var partitions: [Partition] { lock.withLock { hosted.compactMap { $0 } } }

    package func add(_ partition: Partition) {
        lock.withLock {
            let index = Int(partition.id.partition)
            while hosted.count <= index { hosted.append(nil) }
            precondition(hosted[index] == nil, "a partition has one replica on a broker")
            hosted[index] = partition
            failed.remove(partition.id.partition)
        }
    }

    func noteFailed(_ index: Int32) { lock.withLock { _ = failed.insert(index) } }

    /// Whether the partition has a replica here that could not be opened.
    package func hasFailed(_ index: Int32) -> Bool { lock.withLock { failed.contains(index) } }

    package var failedCount: Int { lock.withLock { failed.count } }

    /// Nothing of it is here.
    var isEmpty: Bool { lock.withLock { failed.isEmpty && hosted.allSatisfy { $0 == nil } } }

    /// Puts a replica in the place of the one that was there before.
    func replace(with partition: Partition) {
        lock.withLock {
            precondition(hosted[Int(partition.id.partition)] != nil, "what is replaced is there")
            hosted[Int(partition.id.partition)] = partition
        }
    }

    /// `forGood`: a replica that could not be opened is forgotten too.
    package func remove(_ index: Int32, forGood: Bool = true) -> Partition? {
        lock.withLock {
            if forGood { failed.remove(index) }
            guard index >= 0, Int(index) < hosted.count else { return nil }
            defer { hosted[Int(index)] = nil }
            return hosted[Int(index)]
        }
    }
}

/// All topics with a replica on this broker, as one value that does not change; a new one replaces it when a topic
/// comes or goes.
package final class LocalTopicTable: Sendable {
    package let generation: UInt64
    private let byName: [String: LocalTopic]
    private let byID: [UUID: LocalTopic]
    /// In the order of their names.
    package let sorted: [LocalTopic]

    init(generation: UInt64, topics: [LocalTopic]) {
        self.generation = generation
        sorted = topics.sorted { $0.name < $1.name }
        byName = Dictionary(uniqueKeysWithValues: topics.map { ($0.name, $0) })
        byID = Dictionary(uniqueKeysWithValues: topics.map { ($0.id, $0) })
    }

    /// By topic, then index.
    package var partitions: [Partition] { sorted.flatMap(\.partitions) }

    package func topic(_ name: String) -> LocalTopic? { byName[name] }
    package func topic(_ id: UUID) -> LocalTopic? { byID[id] }
}

/// Where the present table is found, from any loop.
package final class LocalTopics: @unchecked Sendable {
    private let lock = Lock()
    // guarded by the lock:
    private var current = LocalTopicTable(generation: 1, topics: [])

    /// How many replicas are just being exchanged for their copies in other log directories.
    private let exchanges = Atomic<Int>(0)

    package init() {}

    /// Whether it is worth asking a partition if it is being exchanged: almost never.
    package var areExchanging: Bool { exchanges.load(ordering: .relaxed) > 0 }

    func exchangeBegins() { exchanges.wrappingAdd(1, ordering: .relaxed) }
    func exchangeEnds() { exchanges.wrappingSubtract(1, ordering: .relaxed) }

    package var table: LocalTopicTable { lock.withLock { current } }

    package func partition(_ id: TopicPartition) -> Partition? { table.topic(id.topic)?.partition(id.partition) }

    package func add(_ topic: LocalTopic) {
        lock.withLock { current = LocalTopicTable(generation: current.generation + 1, topics: current.sorted + [topic]) }
    }

    package func add(_ topics: [LocalTopic]) {
        lock.withLock { current = LocalTopicTable(generation: current.generation + 1, topics: current.sorted + topics) }
    }

    /// Who keeps partitions of the table looks them up anew.
    func renew() {
        lock.withLock { current = LocalTopicTable(generation: current.generation + 1, topics: current.sorted) }
    }

    package func remove(_ topic: LocalTopic) {
        lock.withLock {
            current = LocalTopicTable(generation: current.generation + 1, topics: current.sorted.filter { $0 !== topic })
        }
    }
}
