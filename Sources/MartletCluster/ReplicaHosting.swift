package import MartletLog
package import MartletModel
package import MartletReactor

/// A log directory and what lies in it.
package struct LogDirDescription: Sendable {
    package struct Replica: Sendable, Equatable {
        package var id: TopicPartition
        package var sizeBytes: Int64
        /// What a copy lacks of the replica that it is to replace; what a replica lacks of the high watermark.
        package var lag: Int64
        package var isFuture: Bool

        package init(id: TopicPartition, sizeBytes: Int64, lag: Int64, isFuture: Bool) {
            self.id = id
            self.sizeBytes = sizeBytes
            self.lag = lag
            self.isFuture = isFuture
        }
    }

    package var path: String
    package var isOnline: Bool
    /// Of its disk; nil where that cannot be said.
    package var space: Space?
    /// By topic, then partition.
    package var replicas: [Replica]

    package init(path: String, isOnline: Bool, space: Space?, replicas: [Replica]) {
        self.path = path
        self.isOnline = isOnline
        self.space = space
        self.replicas = replicas
    }
}

/// A topic of which a broker found folders in its log directories.
package struct FoundTopic: Sendable, Equatable {
    package var name: String
    /// From `partition.metadata`; nil in folders written by a Kafka without topic ids.
    package var id: UUID?
    /// By rising index.
    package var partitions: [Int32]
    /// The cleaner's checkpoint has rows of it.
    package var wasCompacted: Bool

    package init(name: String, id: UUID?, partitions: [Int32], wasCompacted: Bool = false) {
        self.name = name
        self.id = id
        self.partitions = partitions
        self.wasCompacted = wasCompacted
    }
}

/// What the found replicas say of numbers that were given out before.
package struct ReplicaSurvey: Sendable, Equatable {
    /// The last leader epoch in each log that has one.
    package var leaderEpochs: [TopicPartition: LeaderEpoch] = [:]
    /// -1 where no log knows a producer.
    package var highestProducerID: ProducerID = -1

    package init() {}
}

/// The replicas of this broker, as the cluster member sees them: what was found on disk, and what the controller's
/// orders change. Called on the first loop.
package protocol ReplicaHosting: AnyObject, Sendable {
    /// What this broker serves now.
    var topics: LocalTopics { get }
    /// Replicas whose folders were found in the log directories.
    var foundReplicas: Set<TopicPartition> { get }
    /// The topics of these, by name. Reads a file of each replica.
    var foundTopics: [FoundTopic] { get }
    /// Log directories that are set and cannot be used.
    var missingDirectories: [String] { get }
    /// From `meta.properties`; nil where no log directory has any.
    var foundClusterID: String? { get }
    var foundBrokerID: BrokerID? { get }
    /// Writes both into the `meta.properties` of every log directory that has none. Before the first `apply`.
    func claim(brokerID: BrokerID, clusterID: String) async throws(LogError)
    /// Makes or opens the replica and gives it its role; the topic's `LocalTopic` is made as needed. Idempotent.
    /// `isNew` as in LeaderAndIsr: the replica has never been here, and may be made in any directory although another
    /// is offline. Those of several partitions overlap.
    func apply(
        topic: String, id: UUID, config: TopicConfig, partition: Int32, assignment: PartitionLeadership.Assignment, isNew: Bool
    ) async throws(LogError)
    func configChanged(topic: String, _ config: TopicConfig)
    /// Settings of the broker were altered while it runs; those of topics follow by `configChanged`.
    func configChanged(_ config: BrokerConfig)
    /// Stops the replica. With `delete` its folder is renamed to `-delete` and removed later: also that of a replica
    /// which is not served, because it was stopped before (the controller first stops, then deletes) or not opened
    /// since the broker started.
    func stop(topic: String, partition: Int32, delete: Bool) async throws(LogError)
    /// These are about to be stopped for good: what files say of all of them goes at once, where `stop` alone would write
    /// each file anew for each partition.
    func prepareDeletion(of partitions: [TopicPartition]) async
    /// Writes down where the logs of a directory begin: durable when this returns, or why it is not.
    func keepLogStarts(in unit: LogDirectoryUnit) async -> LogError?
    /// Called when another `Partition` has taken the place of one, under the same leadership.
    var onReplacement: (() -> Void)? { get set }
    /// Called when replicas went offline while the broker runs, and while some could not be opened for a reason that passes:
    /// whoever decides about leaders is to order everything again, and sees from the answers which replicas can be had.
    var onAvailability: (() -> Void)? { get set }
    /// In the order of `log.dirs`.
    func describeLogDirs() async -> [LogDirDescription]
    /// Begins to move a replica to another log directory, or takes the wish for a move back where it lies there already.
    func move(_ id: TopicPartition, to path: String) async -> ErrorCode
    /// Whether the log directories were left without the marker of a clean stop (false where they were empty).
    var wasStoppedUncleanly: Bool { get }
    /// Reads the found replicas; before the first `apply`, when a directory is adopted.
    func survey() async throws(LogError) -> ReplicaSurvey
}

extension ReplicaHosting {
    package func configChanged(_ config: BrokerConfig) {}
    package func prepareDeletion(of partitions: [TopicPartition]) async {}
    package func keepLogStarts(in unit: LogDirectoryUnit) async -> LogError? { nil }
    package var onReplacement: (() -> Void)? {
        get { nil }
        set {}
    }
    package var onAvailability: (() -> Void)? {
        get { nil }
        set {}
    }
    package func describeLogDirs() async -> [LogDirDescription] { [] }
    package func move(_ id: TopicPartition, to path: String) async -> ErrorCode { .logDirNotFound }
    package var wasStoppedUncleanly: Bool { false }
    package var missingDirectories: [String] { [] }
    package func survey() async throws(LogError) -> ReplicaSurvey { ReplicaSurvey() }
}
