import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire
import Testing

/// A broker on a simulated machine, and a machine of clients that speak bytes to it, as wrong as they like.
final class BrokerWorld: @unchecked Sendable {
    let simulated: SimulatedWorld
    private(set) var host: SimulatedHost
    let clients: SimulatedHost
    private(set) var process: BrokerProcess
    private let config: BrokerConfig
    let sink = LinesOfLog()

    var broker: Broker { process.broker! }

    init(
        seed: UInt64 = 1, loops: Int = 1, memoryBytes: Int64 = 1 << 30, _ settings: [(name: String, value: String)] = []
    ) throws {
        simulated = SimulatedWorld(seed: seed)
        host = simulated.makeHost("broker", loops: loops)
        clients = simulated.makeHost("clients")
        config = try BrokerConfig.resolve(
            overrides: [
                ("listeners", "PLAINTEXT://\(host.address):9092"), ("log.dirs", "/data"), ("martlet.keeper.dir", "/keeper"),
                ("auto.create.topics.enable", "false"),
            ] + settings)
        process = BrokerProcess(host: host, config: config, sink: sink, memoryBytes: memoryBytes)
        let process = process
        try run { try await process.start() }
    }

    deinit { simulated.end() }

    /// Runs a task of the broker's first loop to its end.
    func run(_ body: @escaping @Sendable () async throws -> Void) throws {
        let hasEnded = try host.run(atMost: .seconds(600), body)
        try #require(hasEnded, "the task waits for something that never comes")
    }

    func stop() throws {
        let process = process
        try run { await process.stop() }
    }

    /// Stops it in order, and starts it again on the same disk, to which something may be done in between.
    func restart(_ hurt: (SimulatedFileSystem) -> Void = { _ in }) throws {
        try stop()
        host.kill()
        hurt(host.files)
        host = host.restart()
        process = BrokerProcess(host: host, config: config, sink: sink, memoryBytes: 1 << 30)
        let process = process
        try run { try await process.start() }
    }

    /// Starts it again on the same disk after it was killed.
    func startAfterKill() throws {
        host.kill()
        host = host.restart()
        process = BrokerProcess(host: host, config: config, sink: sink, memoryBytes: 1 << 30)
        let process = process
        try run { try await process.start() }
    }

    func createTopic(_ name: String, partitions: Int32 = 1, configs: [(String, String)] = []) throws {
        let cluster = broker.cluster
        let topic = NewTopic(
            name: name, partitionCount: partitions, replicationFactor: 1,
            configs: configs.map { .init(name: $0.0, value: $0.1) })
        try run { _ = try await cluster.createTopic(topic, validateOnly: false).get() }
    }

    func partition(_ name: String, _ index: Int32 = 0) -> Partition? {
        broker.cluster.topics.table.topic(name)?.partition(index)
    }

    func connect(at location: SourceLocation = #_sourceLocation) throws -> RawClient {
        let client = RawClient(self)
        client.connect()
        try #require(until { client.isConnected || client.hasEnded }, sourceLocation: location)
        return client
    }

    /// True once it is so; false if it is not in so long.
    func until(atMost span: Interval = .seconds(30), _ condition: () -> Bool) -> Bool {
        simulated.run(atMost: span, until: condition)
    }
}

/// A connection that sends what it is told to, in the pieces it is told to, and reads when it is told to.
final class RawClient: @unchecked Sendable {
    private let world: BrokerWorld
    private var loop: any EventLoop { world.clients.loops[0] }
    private var socket: (any StreamSocket)?
    private var outgoing: [UInt8] = []
    private(set) var sentCount = 0
    private(set) var received: [UInt8] = []
    private(set) var hasEnded = false
    var isReading = true
    /// At most so much a send.
    var pieceSize = Int.max

    init(_ world: BrokerWorld) { self.world = world }

    var isConnected: Bool { socket != nil }
    var hasSentAll: Bool { sentCount == outgoing.count }

    func connect(port: UInt16 = 9092) {
        let address = SocketAddress(host: world.host.address, port: port)
        let loop = loop
        world.clients.network.connect(to: address, loop: loop) { [self] result in
            guard case .success(let socket) = result else { return hasEnded = true }
            self.socket = socket
            socket.attach(to: loop) { [weak self] in self?.ready($0) }
            watch()
        }
    }

    private func watch() {
        var interest: Readiness = isReading ? .readable : []
        if !hasSentAll { interest.insert(.writable) }
        socket?.watch(interest)
    }

    private func ready(_ readiness: Readiness) {
        if readiness.contains(.writable) { flush() }
        guard readiness.contains(.readable), isReading, let socket else { return watch() }
        var space = [UInt8](repeating: 0, count: 64 << 10)
        let transfer = space.withUnsafeMutableBytes { socket.receive(into: $0, .init(start: nil, count: 0)) }
        switch transfer {
        case .moved(let count): received += space[..<count]
        case .ended:
            hasEnded = true
            socket.close()
            self.socket = nil
        case .wouldBlock: break
        }
        watch()
    }

    private func flush() {
        guard let socket, !hasSentAll else { return }
        let end = min(outgoing.count, sentCount + min(pieceSize, outgoing.count))
        let transfer = outgoing[sentCount..<end].withUnsafeBytes { socket.send($0, more: false) }
        if case .moved(let count) = transfer { sentCount += count }
        watch()
    }

    func send(_ bytes: [UInt8]) {
        loop.execute { [self] in
            outgoing += bytes
            flush()
        }
    }

    func read(_ reads: Bool) {
        loop.execute { [self] in
            isReading = reads
            watch()
        }
    }

    func finishSending() { loop.execute { [self] in (socket as? SimulatedSocket)?.finishSending() } }

    func close() {
        loop.execute { [self] in
            socket?.close()
            socket = nil
        }
    }

    /// The whole frames that have come, without their sizes.
    var frames: [[UInt8]] {
        var found: [[UInt8]] = []
        var at = 0
        while received.count - at >= 4 {
            let size = received[at..<(at + 4)].reduce(0) { $0 << 8 | Int($1) }
            guard received.count - at - 4 >= size else { break }
            found.append(Array(received[(at + 4)..<(at + 4 + size)]))
            at += 4 + size
        }
        return found
    }

    var correlationIDs: [Int32] {
        frames.map { frame in Int32(truncatingIfNeeded: frame[..<4].reduce(0) { $0 << 8 | Int($1) }) }
    }

    /// The answer of this number, decoded.
    func answer<R: WireResponse>(_: R.Type, _ index: Int, version: Int16) throws -> R {
        let frame = frames[index]
        return try frame.withUnsafeBytes { bytes in
            var reader = ByteReader(bytes)
            _ = try reader.int32()
            if ApiKey(rawValue: R.apiKey)!.responseHeaderVersion(version) >= 1 { try reader.skipTaggedFields() }
            var response = try R.decode(from: &reader, version: version)
            response.ownBytes(of: bytes)
            #expect(reader.isAtEnd)
            return response
        }
    }
}

// MARK: What clients say

func frame<R: WireRequest>(_ request: R, version: Int16, id: Int32, client: String = "test") -> [UInt8] {
    var buffer = ByteBuffer()
    buffer.int32(0)
    let header = RequestHeader(apiKey: R.apiKey, apiVersion: version, correlationID: id, clientID: client)
    try! header.encode(into: &buffer)
    try! request.encode(into: &buffer, version: version)
    buffer.patch(Int32(buffer.count - 4), at: 0)
    return buffer.array
}

func batch(_ values: [String], codec: CompressionCodec = .none) -> [UInt8] {
    var builder = BatchBuilder(BatchIdentity())
    for value in values { builder.append(timestamp: 1_700_000_000_000, key: nil, value: Array(value.utf8), headers: []) }
    var output = ByteBuffer()
    builder.finish(into: &output, codec: codec, contexts: CodecContexts())
    return output.array
}

/// A batch whose compressed size is about the given one: text that does not compress.
func noise(_ size: Int, seed: UInt64, codec: CompressionCodec) -> [UInt8] {
    var random = SeededRandom(seed: seed)
    let values = (0..<(size / 1000)).map { _ in
        String(decoding: (0..<1000).map { _ in UInt8(33 + random.below(90)) }, as: UTF8.self)
    }
    return batch(values, codec: codec)
}

func produce(
    _ topic: String, _ records: [UInt8], acks: Int16 = 1, partition: Int32 = 0, version: Int16 = 9, id: Int32
) -> [UInt8] {
    frame(ProduceRequest(records, to: topic, partition, acks: acks), version: version, id: id)
}

struct Wanted {
    var partition: Int32 = 0
    var offset: Int64 = 0
}

func fetch(
    _ topic: String, _ wanted: [Wanted] = [Wanted()], maxWaitMs: Int32 = 500, minBytes: Int32 = 1,
    session: (id: Int32, epoch: Int32) = (0, -1),
    forgotten: [Int32] = [], id: Int32
) -> [UInt8] {
    var request = FetchRequest()
    request.maxWaitMs = maxWaitMs
    request.minBytes = minBytes
    request.sessionID = session.id
    request.sessionEpoch = session.epoch
    if !wanted.isEmpty {
        var asked = FetchRequest.FetchTopic()
        asked.topic = topic
        asked.partitions = wanted.map { one in
            var partition = FetchRequest.FetchPartition()
            partition.partition = one.partition
            partition.fetchOffset = one.offset
            partition.partitionMaxBytes = 1 << 20
            return partition
        }
        request.topics = [asked]
    }
    if !forgotten.isEmpty {
        var gone = FetchRequest.ForgottenTopic()
        gone.topic = topic
        gone.partitions = forgotten
        request.forgottenTopicsData = [gone]
    }
    return frame(request, version: 11, id: id)
}

func metadata(id: Int32, client: String = "test") -> [UInt8] {
    var request = MetadataRequest()
    request.topics = nil
    return frame(request, version: 9, id: id, client: client)
}
