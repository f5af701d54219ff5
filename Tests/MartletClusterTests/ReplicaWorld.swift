import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

let topicName = "orders"
let topicID = UUID(high: 7, low: 9)
let first = TopicPartition(topicName, 0)

/// Bytes of batches that stay where they are, as an append needs them.
final class BatchBytes: @unchecked Sendable {
    let all: UnsafeMutableRawBufferPointer

    init(_ source: UnsafeRawBufferPointer) {
        all = .allocate(byteCount: source.count, alignment: 8)
        all.copyMemory(from: source)
    }
    deinit { all.deallocate() }
}

/// A batch of records with these values.
func batch(_ values: [String], at timestamp: Int64 = 1_000, identity: BatchIdentity = BatchIdentity()) -> BatchBytes {
    var builder = BatchBuilder(identity)
    for value in values { builder.append(timestamp: timestamp, key: nil, value: Array(value.utf8)) }
    var output = ByteBuffer()
    builder.finish(into: &output, codec: .none, contexts: CodecContexts())
    return BatchBytes(output.bytes)
}

func marker(_ type: ControlRecordType, producer: ProducerID) -> BatchBytes {
    var output = ByteBuffer()
    BatchBuilder.write(
        EndTransactionMarker(type, coordinatorEpoch: 0), producerID: producer, epoch: 0, timestamp: 1_000, into: &output,
        contexts: CodecContexts())
    return BatchBytes(output.bytes)
}

/// Whole batches at the beginning of bytes: base offset, next offset and the batch.
func batches(in bytes: [UInt8]) -> [(base: Offset, next: Offset, bytes: [UInt8])] {
    var found: [(Offset, Offset, [UInt8])] = []
    var position = 0
    while bytes.count - position >= BatchHeader.size {
        let header = bytes[position...].withUnsafeBytes { BatchHeader($0) }
        guard header.batchLength > 0, header.totalSize <= bytes.count - position else { break }
        found.append((header.baseOffset, header.nextOffset, Array(bytes[position..<position + header.totalSize])))
        position += header.totalSize
    }
    return found
}

/// `value` of every record of a batch, by offset.
func records(of batch: [UInt8]) -> [(offset: Offset, value: String)] {
    var scratch = ByteBuffer()
    return batch.withUnsafeBytes { raw in
        let header = BatchHeader(raw)
        guard !header.isControl else { return [(header.baseOffset, "marker")] }
        guard let bytes = try? header.records(of: raw, contexts: CodecContexts(), scratch: &scratch, limit: 1 << 27) else {
            return []
        }
        var cursor = RecordCursor(bytes, count: header.recordCount)
        var found: [(Offset, String)] = []
        while let record = try? cursor.next() {
            let value = cursor.bytes(in: record.value).map { String(decoding: $0, as: UTF8.self) } ?? "null"
            found.append((header.baseOffset + Int64(record.offsetDelta), value))
        }
        return found
    }
}

/// Somebody who appends and notes what he is told, and when.
final class Producer: AppendOwner, @unchecked Sendable {
    let loop: any EventLoop
    private(set) var outcomes: [Int: AppendOutcome] = [:]
    private(set) var order: [Int] = []
    var told: ((Int, AppendOutcome) -> Void)?
    /// What was refused at once, where the test notes that.
    var refused: [Int: ErrorCode] = [:]
    /// Bytes stay until they are written.
    var kept: [BatchBytes] = []

    init(_ loop: any EventLoop) { self.loop = loop }

    func appendFinished(_ token: AppendToken, _ outcome: AppendOutcome) {
        #expect(loop.isCurrent, "an owner is told on its loop")
        #expect(outcomes[token.index] == nil, "an append is answered once")
        outcomes[token.index] = outcome
        order.append(token.index)
        told?(token.index, outcome)
    }

    func error(_ index: Int) -> ErrorCode? { outcomes[index]?.error }
}

final class Watcher: FetchWatcher, @unchecked Sendable {
    private(set) var count = 0
    func hasNews(of _: Partition) { count += 1 }
    func takeCount() -> Int {
        defer { count = 0 }
        return count
    }
}

/// One broker's log directories in a simulated machine: opened, crashed and opened again.
final class Broker {
    let world: SimulatedWorld
    let id: BrokerID
    var host: SimulatedHost
    var config: BrokerConfig
    let lines = LinesOfLog()
    var replicas: ReplicaHost!

    init(
        _ world: SimulatedWorld, id: BrokerID = 1, directories: [String] = ["data/log"],
        _ settings: [(name: String, value: String)] = []
    ) {
        self.world = world
        self.id = id
        host = world.makeHost("broker-\(id)")
        config = try! BrokerConfig.resolve(
            overrides: [("log.dirs", directories.joined(separator: ",")), ("martlet.cut.dir", "data/cut")] + settings)
    }

    func open() throws { replicas = try ReplicaHost.open(host: host, config: config, sink: lines) }

    /// Opens and claims the directories.
    @discardableResult
    func start() throws -> Broker {
        try open()
        try run { try await $0.claim(brokerID: self.id, clusterID: "cluster") }
        return self
    }

    /// Runs on the broker's loop until it is done.
    func run(_ work: @escaping (ReplicaHost) async throws -> Void) throws {
        let replicas = replicas!
        let box = Unchecked(work)
        let hasEnded = try host.run(atMost: .seconds(60)) { try await box.value(replicas) }
        try #require(hasEnded, "the broker does not come to an end")
    }

    /// The loop does this at once.
    func onLoop(_ work: @escaping () -> Void) {
        let box = Unchecked(work)
        _ = host.run(atMost: .seconds(1)) { box.value() }
    }

    /// The broker becomes the leader or a follower of a partition.
    func apply(
        _ partition: Int32 = 0, topic: String = topicName, id: UUID = topicID, leader: BrokerID? = nil, epoch: LeaderEpoch = 0,
        partitionEpoch: Int32 = 0, replicas: [BrokerID]? = nil, inSync: [BrokerID]? = nil, isNew: Bool = true,
        config: TopicConfig? = nil
    ) throws {
        let all = replicas ?? [self.id]
        let assignment = PartitionLeadership.Assignment(
            leader: leader ?? self.id, leaderEpoch: epoch, partitionEpoch: partitionEpoch, replicas: all,
            inSyncReplicas: inSync ?? all)
        let settings = config ?? smallTopic()
        try run {
            try await $0.apply(
                topic: topic, id: id, config: settings, partition: partition, assignment: assignment, isNew: isNew)
        }
    }

    /// As a request for it does, which is answered when that is durable.
    func deleteRecords(before offset: Offset) throws {
        let partition = partition()
        #expect(try partition.deleteRecords(before: offset).get() == offset)
        try run { #expect(await $0.keepLogStarts(in: partition.directory) == nil) }
    }

    func stop(_ partition: Int32 = 0, topic: String = topicName, delete: Bool) throws {
        try run { try await $0.stop(topic: topic, partition: partition, delete: delete) }
    }

    /// The orderly end, and another start of the process.
    func restartCleanly() throws {
        try run { await $0.close() }
        host.kill()
        host = host.restart()
        try start()
    }

    func crash(powerCut: Bool) {
        if powerCut { host.powerCut() } else { host.kill() }
        host = host.restart()
    }

    func partition(_ index: Int32 = 0, topic: String = topicName) -> Partition {
        replicas.topics.partition(TopicPartition(topic, index))!
    }

    func files(_ folder: String) -> [String] { (try? host.disk.list(folder)) ?? [] }
    func text(_ path: String) -> String { String(decoding: (try? host.disk.contents(path)) ?? [], as: UTF8.self) }

    /// Appends and writes, as one turn of the loop does. The answer comes to the producer.
    @discardableResult
    func append(
        _ bytes: BatchBytes, _ acknowledgement: Acknowledgement, _ producer: Producer, _ index: Int,
        partition: Partition? = nil,
        timeout: Interval = .seconds(30), isWritten: Bool = true, origin: AppendOrigin = .client
    ) -> AppendStart {
        let partition = partition ?? self.partition()
        var start: AppendStart?
        onLoop { [world] in
            let request = AppendRequest(
                acknowledgement, owner: acknowledgement == .none ? nil : producer, token: AppendToken(answer: 0, index: index),
                deadline: world.now + timeout, origin: origin)
            start = partition.append(bytes.all, request)
            producer.kept.append(bytes)
            guard isWritten else { return }
            var effects = PartitionEffects()
            partition.writeReserved(&effects)
            effects.deliver()
        }
        return start!
    }

    /// What a consumer gets from an offset on.
    func read(_ partition: Partition? = nil, from offset: Offset = 0, committed: Bool = false) throws -> [String] {
        var found: [String] = []
        var offset = offset
        while true {
            let answer = (partition ?? self.partition()).fetch(
                PartitionFetchRequest(offset: offset, maxBytes: 1 << 20, firstBatchWhole: true, readCommitted: committed))
            try #require(answer.error == .none)
            let batches = batches(in: try bytes(answer.slice))
            guard let last = batches.last else { return found }
            for batch in batches { found += records(of: batch.bytes).map { "\($0.offset):\($0.value)" } }
            offset = last.next
        }
    }
}

func bytes(_ slice: LogSlice?) throws -> [UInt8] {
    guard let slice, let file = slice.file else { return [] }
    var bytes = [UInt8](repeating: 0, count: slice.count)
    let count = try bytes.withUnsafeMutableBytes { try file.read(into: $0, at: slice.position) }
    #expect(count == slice.count, "a slice lies inside its file")
    return bytes
}

/// Small segments and indexes: the simulated disk keeps their bytes.
func smallTopic(_ change: (inout TopicConfig) -> Void = { _ in }) -> TopicConfig {
    var config = TopicConfig()
    config.segmentBytes = 4096
    config.segmentIndexBytes = 4096
    config.indexIntervalBytes = 256
    // the records of these tests are old
    config.retentionMs = -1
    change(&config)
    return config
}

extension SimulatedHost {
    /// Runs a task to its end; it is an issue that it has none, or throws.
    func finish(
        atMost span: Interval, on loop: Int = 0, at location: SourceLocation = #_sourceLocation,
        _ body: @escaping @Sendable () async throws -> Void
    ) {
        do {
            let hasEnded = try run(atMost: span, on: loop, body)
            #expect(hasEnded, "the task waits for something that never comes", sourceLocation: location)
        } catch {
            Issue.record(error, sourceLocation: location)
        }
    }
}

struct Unchecked<Value>: @unchecked Sendable {
    let value: Value
    init(_ value: Value) { self.value = value }
}
