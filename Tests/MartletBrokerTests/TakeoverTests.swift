import MartletBasics
import MartletBroker
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// A log directory as another broker left it, on a machine on which the power goes while it is taken over.
private final class TakeoverWorld: @unchecked Sendable {
    static let directory = "/data"
    static let clusterID = "Nphc91hsQFaOu3viOGbofA"

    let simulated: SimulatedWorld
    private(set) var host: SimulatedHost
    private(set) var process: BrokerProcess!
    private let config: BrokerConfig
    /// What the directory held, by partition.
    private(set) var ends: [TopicPartition: Offset] = [:]
    private(set) var ids: [String: UUID] = [:]

    init(seed: UInt64, clean: Bool) throws {
        simulated = SimulatedWorld(seed: seed)
        host = simulated.makeHost("broker")
        config = try BrokerConfig.resolve(overrides: [
            ("listeners", "PLAINTEXT://\(host.address):9092"), ("log.dirs", Self.directory), ("martlet.keeper.dir", "/keeper"),
            ("martlet.cut.dir", "/cut"), ("log.retention.ms", "-1"), ("auto.create.topics.enable", "false"),
        ])
        try fill(clean: clean)
    }

    deinit { simulated.end() }

    private func fill(clean: Bool) throws {
        let disk = host.disk
        try disk.makeDirectory(Self.directory)
        for topic in 0..<5 {
            let name = "topic\(topic)"
            ids[name] = UUID(high: 5, low: UInt64(topic) + 1)
            for partition in 0..<3 as Range<Int32> {
                let id = TopicPartition(name, partition)
                var settings = TopicConfig()
                settings.segmentBytes = 600
                settings.segmentIndexBytes = 4096
                let folder = "\(Self.directory)/\(PartitionFolder(id).name)"
                let log = try PartitionLog.create(
                    LogParameters(
                        partition: id, folder: folder, config: settings, disk: disk,
                        descriptors: DescriptorCache(disk: disk, limit: 8), clock: host.clock,
                        logger: Logger("log", to: SilentLog()), cutDirectory: "/cut"), topicID: ids[name])
                try log.beginEpoch(6)
                for index in 0..<Int32(4 + topic) {
                    var builder = BatchBuilder(BatchIdentity(producerID: 17, epoch: 0, baseSequence: index))
                    builder.append(timestamp: 1_000 + Int64(index), key: nil, value: [UInt8](repeating: 0x61, count: 120))
                    var output = ByteBuffer()
                    builder.finish(into: &output, codec: .none, contexts: CodecContexts())
                    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: output.count, alignment: 8)
                    defer { copy.deallocate() }
                    copy.copyMemory(from: output.bytes)
                    _ = try log.reserve(copy, leaderEpoch: 6)
                    try log.writeReserved()
                }
                ends[id] = log.logEndOffset
                try log.close(clean: clean)
            }
        }
        try write("recovery-point-offset-checkpoint", OffsetCheckpoint(clean ? ends : [:]).encode())
        try write("replication-offset-checkpoint", OffsetCheckpoint(ends).encode())
        try write("meta.properties", MetaProperties(brokerID: 3, clusterID: Self.clusterID, wallMilliseconds: 0).encode())
        if clean { try write(CleanShutdownMarker.fileName, CleanShutdownMarker.encode(brokerEpoch: -1)) }
        try disk.syncFileSystem(Self.directory)
        try disk.syncDirectory("/")
    }

    private func write(_ name: String, _ bytes: [UInt8]) throws {
        try host.disk.replace("\(Self.directory)/\(name)", with: bytes)
    }

    /// Whether it came to serve before the power went.
    func start(cuttingPowerAfter operations: Int? = nil) throws -> Bool {
        if let operations { host.powerCut(afterDiskOperations: operations) }
        let process = BrokerProcess(host: host, config: config, sink: SilentLog(), memoryBytes: 1 << 30)
        self.process = process
        do {
            let hasEnded = try host.run(atMost: .seconds(600)) { try await process.start() }
            #expect(hasEnded || !host.isAlive, "it comes to the end of its start")
        } catch where !host.isAlive {
            // what it says when the power goes counts for nothing
        }
        return host.isAlive
    }

    func cutPower() {
        host.powerCut()
        host = host.restart()
    }

    func stop() throws {
        let hasStopped = host.run(atMost: .seconds(600)) { [process] in await process!.stop() }
        try #require(hasStopped)
        host = host.restart()
    }

    func expectEverything(_ comment: Comment) {
        let cluster = process.broker!.cluster
        #expect(cluster.brokerID == 3 && cluster.clusterID == Self.clusterID, comment)
        #expect(cluster.metadata.current.topics.count == ids.count, comment)
        for (name, id) in ids.sorted(by: { $0.key < $1.key }) {
            #expect(cluster.metadata.current.topic(name)?.id == id, comment)
        }
        for (id, end) in ends.sorted(by: { $0.key < $1.key }) {
            let partition = cluster.topics.partition(id)
            #expect(partition?.logEndOffset == end, "\(comment) \(id)")
            #expect(partition?.leaderEpoch ?? -1 > 6, "\(comment) \(id)")
        }
    }

    func verified() throws -> LogVerifier {
        var verifier = LogVerifier(disk: host.disk)
        try verifier.verify(Self.directory, as: .directory)
        return verifier
    }
}

@Suite struct ATakeover {
    /// However often the power goes while a directory is taken over, the next start finds all that Kafka left, and what it
    /// leaves is sound.
    @Test func thatThePowerEndsLosesNothingAndIsGoneOnWith() throws {
        var interrupted = 0
        for seed in 1...30 as ClosedRange<UInt64> {
            let world = try TakeoverWorld(seed: seed, clean: seed % 2 == 0)
            var random = SeededRandom(seed: seed)
            for _ in 0..<1 + random.below(3) {
                let cameToServe = try world.start(cuttingPowerAfter: 1 + random.below(120))
                if !cameToServe { interrupted += 1 }
                world.cutPower()
            }
            #expect(try world.start())
            world.simulated.run(for: .milliseconds(200))
            world.expectEverything("seed \(seed)")
            try world.stop()
            let damages = try world.verified().findings.filter { $0.severity == .damage }
            #expect(damages.isEmpty, "seed \(seed): \(damages.prefix(3))")
            #expect(try world.start())
            world.expectEverything("seed \(seed), again")
            try world.stop()
        }
        #expect(interrupted > 10, "cuts that never meet a takeover show nothing")
    }
}
