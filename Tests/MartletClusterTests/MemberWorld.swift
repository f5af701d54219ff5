import MartletBasics
import MartletCluster
import MartletKeeper
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// Replicas that are only remembered: what the cluster member asked for, and what a disk would show at the next start.
final class RememberedReplicas: ReplicaHosting, @unchecked Sendable {
    /// What outlives the process.
    final class Disk: @unchecked Sendable {
        var clusterID: String?
        var brokerID: BrokerID?
        var folders: [String: (id: UUID?, partitions: Set<Int32>)] = [:]
        var wasStoppedUncleanly = false
        var lastEpochs: [TopicPartition: LeaderEpoch] = [:]
        var highestProducerID: ProducerID = -1
        var compacted: Set<String> = []
        var missing: [String] = []
    }

    let topics = LocalTopics()
    let disk: Disk
    let loop: any EventLoop
    private(set) var orders: [String] = []
    private(set) var roles: [TopicPartition: PartitionLeadership.Assignment] = [:]
    private(set) var configs: [String: TopicConfig] = [:]
    var broken: Set<TopicPartition> = []

    init(disk: Disk, loop: any EventLoop) {
        self.disk = disk
        self.loop = loop
    }

    var foundReplicas: Set<TopicPartition> {
        Set(disk.folders.flatMap { (name, topic) in topic.partitions.map { TopicPartition(name, $0) } })
    }
    var foundTopics: [FoundTopic] {
        disk.folders.keys.sorted().map {
            FoundTopic(
                name: $0, id: disk.folders[$0]!.id, partitions: disk.folders[$0]!.partitions.sorted(),
                wasCompacted: disk.compacted.contains($0))
        }
    }
    var foundClusterID: String? { disk.clusterID }
    var foundBrokerID: BrokerID? { disk.brokerID }
    var missingDirectories: [String] { disk.missing }
    var wasStoppedUncleanly: Bool { disk.wasStoppedUncleanly }
    func survey() async throws(LogError) -> ReplicaSurvey {
        var survey = ReplicaSurvey()
        (survey.leaderEpochs, survey.highestProducerID) = (disk.lastEpochs, disk.highestProducerID)
        return survey
    }

    func claim(brokerID: BrokerID, clusterID: String) async throws(LogError) {
        #expect(loop.isCurrent)
        (disk.brokerID, disk.clusterID) = (brokerID, clusterID)
    }

    func apply(
        topic: String, id: UUID, config: TopicConfig, partition: Int32, assignment: PartitionLeadership.Assignment, isNew: Bool
    ) async throws(LogError) {
        #expect(loop.isCurrent)
        await loop.sleep(for: .milliseconds(3))
        let tp = TopicPartition(topic, partition)
        if broken.contains(tp) { throw .closed("the disk of \(tp) is broken") }
        orders.append("\(tp) leader \(assignment.leader) epoch \(assignment.leaderEpoch)\(isNew ? " new" : "")")
        roles[tp] = assignment
        configs[topic] = config
        disk.folders[topic, default: (id, [])].partitions.insert(partition)
        if topics.table.topic(topic) == nil { topics.add(LocalTopic(name: topic, id: id, config: config)) }
    }

    func configChanged(topic: String, _ config: TopicConfig) {
        orders.append("\(topic) config")
        configs[topic] = config
    }

    func stop(topic: String, partition: Int32, delete: Bool) async throws(LogError) {
        #expect(loop.isCurrent)
        await loop.sleep(for: .milliseconds(2))
        let tp = TopicPartition(topic, partition)
        if broken.contains(tp) { throw .closed("the disk of \(tp) is broken") }
        orders.append("\(tp) \(delete ? "deleted" : "stopped")")
        roles[tp] = nil
        if !roles.keys.contains(where: { $0.topic == topic }), let local = topics.table.topic(topic) { topics.remove(local) }
        guard delete else { return }
        disk.folders[topic]?.partitions.remove(partition)
        if disk.folders[topic]?.partitions.isEmpty == true { disk.folders[topic] = nil }
    }
}

/// A machine with one broker's cluster member on an embedded keeper; its process ends and starts again.
final class MemberWorld: @unchecked Sendable {
    let simulated: SimulatedWorld
    private(set) var host: SimulatedHost
    let disk = RememberedReplicas.Disk()
    let overrides: [(name: String, value: String)]
    private(set) var keeper: EmbeddedKeeper!
    private(set) var replicas: RememberedReplicas!
    private(set) var member: ClusterMember!
    let sink = Lines()
    /// What is to be so with the replicas of the next start.
    var prepare: (RememberedReplicas) -> Void = { _ in }
    /// What the next start is given for topics that it adopts.
    var topicSettings: TopicSettingsFile?
    /// The next session lives without heartbeats, and so for its timeout only.
    var nextSessionIsShort = false
    private(set) var sessions: [any KeeperSession] = []

    final class Lines: LogSink, @unchecked Sendable {
        private(set) var all: [String] = []
        func wants(_ level: LogLevel, _: StaticString) -> Bool { level >= .info }
        func write(_: LogLevel, _: StaticString, _ message: String, _ fields: [(String, String)]) {
            all.append(([message] + fields.map { "\($0.0)=\($0.1)" }).joined(separator: " "))
        }
    }

    init(seed: UInt64 = 1, loops: Int = 1, _ overrides: [(name: String, value: String)] = []) {
        simulated = SimulatedWorld(seed: seed)
        host = simulated.makeHost("broker", loops: loops)
        self.overrides = overrides
    }

    deinit { simulated.end() }

    var loop: any EventLoop { host.loops[0] }

    /// Runs a task to its end, on any loop of the process.
    func run(
        on index: Int = 0, at location: SourceLocation = #_sourceLocation,
        _ body: @escaping @Sendable (MemberWorld) async throws -> Void
    ) {
        host.finish(atMost: .seconds(3600), on: index, at: location) { [self] in try await body(self) }
    }

    func start(at location: SourceLocation = #_sourceLocation) {
        run(at: location) { world in try await world.startMember() }
    }

    func startMember() async throws {
        let config = try BrokerConfig.resolve(overrides: overrides)
        keeper = try await EmbeddedKeeper.open(
            host: host, loop: loop, settings: KeeperSettings(directory: "/keeper"), logger: Logger("keeper", to: sink))
        replicas = RememberedReplicas(disk: disk, loop: loop)
        prepare(replicas)
        member = ClusterMember(
            host: host, config: config,
            coordination: CoordinationAccess(isEmbedded: true) {
                [unowned self] () async throws(KeeperError) -> any KeeperSession in
                let heartbeats = !nextSessionIsShort
                nextSessionIsShort = false
                let session = try await keeper.openSession(timeout: .seconds(18), on: loop, heartbeats: heartbeats)
                sessions.append(session)
                return session
            }, replicas: replicas, sink: sink, topicSettings: topicSettings)
        try await member.start(listeners: [BrokerEndpoint(listener: "PLAINTEXT", host: "10.0.0.1", port: 9092)])
    }

    func stop(at location: SourceLocation = #_sourceLocation) {
        run(at: location) { world in
            await world.member.close()
            await world.keeper.close()
        }
        host = host.restart()
    }

    func powerCut() {
        host.powerCut()
        host = host.restart()
        disk.wasStoppedUncleanly = true
    }

    /// Starts, loses power meanwhile (or soon after), and stands before its next start.
    func cutPower(afterDiskOperations count: Int) {
        host.powerCut(afterDiskOperations: count)
        // what is of the process before must not speak for this one
        member = nil
        host.loops[0].spawn { [self] in try? await startMember() }
        _ = simulated.run(atMost: .seconds(5)) { !host.isAlive }
        powerCut()
    }

    func create(_ name: String, partitions: Int32 = 1, at location: SourceLocation = #_sourceLocation) {
        run(at: location) { world in
            let wanted = NewTopic(name: name, partitionCount: partitions, replicationFactor: 1)
            _ = try await world.member.createTopic(wanted, validateOnly: false).get()
        }
    }

    // MARK: What is so

    var image: MetadataImage {
        member?.metadata.current ?? MetadataImage(clusterID: "", controllerID: nil, brokers: [], topics: [])
    }

    /// `topic-partition leader/epoch` of everything that clients are told.
    var told: [String] {
        image.topics.flatMap { topic in topic.partitions.map { "\(topic.name)-\($0.index) \($0.leader)/\($0.leaderEpoch)" } }
    }

    /// The whole tree with its values, without times.
    func tree() -> [String] {
        final class Found: @unchecked Sendable { var lines: [String] = [] }
        let found = Found()
        run { world in
            let session = try await world.keeper.openSession(timeout: .seconds(10), on: world.loop)
            var paths = ["/"]
            while let path = paths.popLast() {
                let (data, _) = try await session.get(path)
                if let data {
                    found.lines.append("\(path) \(String(decoding: data, as: UTF8.self))")
                } else {
                    found.lines.append(path)
                }
                let names = try await session.children(path).names
                paths += names.reversed().map { path == "/" ? "/" + $0 : path + "/" + $0 }
            }
            await session.close()
        }
        return found.lines
    }
}
