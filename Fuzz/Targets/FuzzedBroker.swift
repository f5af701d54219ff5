import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire

/// The last of what a broker had to say, for whoever has to find out why it came to its end.
private final class LastLines: LogSink, @unchecked Sendable {
    private static let limit = 16
    private(set) var lines: [String] = []

    func wants(_ level: LogLevel, _: StaticString) -> Bool { level >= .info }

    func write(_: LogLevel, _: StaticString, _ message: String, _ fields: [(String, String)]) {
        if lines.count == Self.limit { lines.removeFirst() }
        lines.append(([message] + fields.map { "\($0.0)=\($0.1)" }).joined(separator: " "))
    }
}

/// What one client does: an input is a row of these.
///
///     0–199    a request: the API, its version, then fields drawn as `FieldSource` does, so that it can be read
///     200–219  a request whose body is any bytes: the API, its version, an int16 size, the body
///     220–229  a frame, its header included: an int16 size, the bytes
///     230      bytes outside of a frame: an int16 size, the bytes; what follows them is on a new connection
///     231      a new connection
///     232      a look: is another client still served?
///     233–255  time passes: a byte, in hundreds of milliseconds
enum FuzzedStep {
    case request(FuzzedApi, body: [UInt8])
    case frame([UInt8])
    case bytes([UInt8])
    case connect
    case look
    case wait(UInt8)

    private static let sizeLimit = 65_535

    init(_ input: inout FuzzInput, _ learned: LearnedValues) {
        func some(_ input: inout FuzzInput) -> [UInt8] {
            input.take(min(Int(UInt16(bitPattern: input.int16())), Self.sizeLimit))
        }
        switch input.byte() {
        case ..<200:
            let api = FuzzedApi(&input)
            var source = FieldSource(input, learned)
            let body = api.draw(&source)
            input = source.rest
            self = .request(api, body: body)
        case ..<220:
            let api = FuzzedApi(&input)
            self = .request(api, body: some(&input))
        case ..<230: self = .frame(some(&input))
        case 230: self = .bytes(some(&input))
        case 231: self = .connect
        case 232: self = .look
        default: self = .wait(input.byte())
        }
    }

    /// As an input that does this, whatever was learned before.
    var encoded: [UInt8] {
        func sized(_ head: [UInt8], _ bytes: [UInt8]) -> [UInt8] {
            head + [UInt8(bytes.count >> 8), UInt8(bytes.count & 255)] + bytes
        }
        return switch self {
        case .request(let api, let body): sized([200, api.place, api.versionPlace], Array(body.prefix(Self.sizeLimit)))
        case .frame(let bytes): sized([220], bytes)
        case .bytes(let bytes): sized([230], bytes)
        case .connect: [231]
        case .look: [232]
        case .wait(let span): [233, span]
        }
    }
}

/// An API that is served, and one of its versions, or the one above them.
struct FuzzedApi {
    private static let all: [(api: ApiKey, versions: ClosedRange<Int16>, request: any DrawnMessage.Type)] =
        MessageList.requests.compactMap { request in
            guard let api = ApiKey(rawValue: request.apiKey), let versions = AdvertisedVersions.clientRange(of: api)
            else { return nil }
            return (api, max(versions.lowerBound, request.versions.lowerBound)...versions.upperBound, request)
        }

    let place: UInt8
    let versionPlace: UInt8
    let api: ApiKey
    let version: Int16
    private let request: any DrawnMessage.Type

    init(_ input: inout FuzzInput) {
        (place, versionPlace) = (input.byte(), input.byte())
        let chosen = Self.all[Int(place) % Self.all.count]
        (api, request) = (chosen.api, chosen.request)
        // mostly one that is served; 0 is the highest
        version = versionPlace == 255 ? chosen.versions.upperBound + 1
            : chosen.versions.upperBound - Int16(versionPlace) % Int16(chosen.versions.count)
    }

    func draw(_ source: inout FieldSource) -> [UInt8] { Self.draw(request, version, &source) }

    private static func draw<Message: DrawnMessage>(_: Message.Type, _ version: Int16, _ source: inout FieldSource) -> [UInt8] {
        guard Message.versions.contains(version) else { return [] }
        let message = Message.random(version: version, using: &source)
        var body = ByteBuffer()
        return (try? message.encode(into: &body, version: version)) == nil ? [] : body.array
    }
}

/// A whole broker on a simulated machine, a client that sends it what the fuzzer says, and another that wants to be served
/// meanwhile. What happens follows from the steps alone: the same steps after a new beginning end the same way.
///
/// Held against it: nothing ends the process; every frame is answered, in order and as its schema says, or its
/// connection is closed, and what waits does so because it asked to; the other client is served; what requests held of
/// memory is given back; the broker stops in order and starts again on what was left to it.
final class FuzzedBroker: @unchecked Sendable {
    private static let stepsLimit = 24
    /// After so many inputs it has lived long enough.
    private static let inputsLimit = 200
    private static let diskBytesLimit: Int64 = 64 << 20
    private static let topicsLimit = 40
    /// More partitions in one request take more time than an input may; more than a topic may have are refused at once.
    private static let partitionsLimit: Int32 = 12
    private static let port: UInt16 = 9092
    private static let memoryBytes: Int64 = 1 << 30
    private static let untouched = "untouched"
    /// How long an answer takes, unless it was asked to take longer.
    private static let patience = Interval.seconds(2)
    private static let longPatience = Interval.seconds(130)
    /// What is answered when something has happened, or when time is up that the client itself has set.
    private static let waiting: Set<Int16> = [ApiKey.fetch.rawValue, ApiKey.joinGroup.rawValue, ApiKey.syncGroup.rawValue]

    private let simulated = SimulatedWorld(seed: 1)
    private var host: SimulatedHost
    private let clients: SimulatedHost
    private let config: BrokerConfig
    private var process: BrokerProcess
    private var client: FuzzedConnection
    private var other: FuzzedConnection
    private var learned = LearnedValues()
    private var correlationID: Int32 = 0
    private var inputsCount = 0
    /// Somebody has changed settings, topics or quotas: others may be refused, or made to wait.
    private var isTamperedWith = false
    private var lastWords: String?
    private let log = LastLines()
    private let onProgress: ((FuzzSession.Progress) -> Void)?
    private(set) var isWorn = false

    init(onProgress: ((FuzzSession.Progress) -> Void)?) {
        self.onProgress = onProgress
        host = simulated.makeHost("broker")
        clients = simulated.makeHost("clients")
        let settings: [(name: String, value: String)] = [
            ("listeners", "PLAINTEXT://\(host.address):\(Self.port)"), ("log.dirs", "/data,/other"),
            ("martlet.keeper.dir", "/keeper"),
            ("offsets.topic.num.partitions", "1"), ("transaction.state.log.num.partitions", "1"),
            ("group.initial.rebalance.delay.ms", "0"), ("log.segment.bytes", "65536"), ("connections.max.idle.ms", "86400000"),
        ]
        guard let config = try? BrokerConfig.resolve(overrides: settings) else { preconditionFailure("the settings are good") }
        self.config = config
        process = BrokerProcess(host: host, config: config, sink: log, memoryBytes: Self.memoryBytes)
        let address = SocketAddress(host: host.address, port: Self.port)
        (client, other) = (FuzzedConnection(clients, to: address), FuzzedConnection(clients, to: address))
        onProgress?(.beganAnew)
        start()
        for (name, partitions) in [(Self.untouched, 1), ("t", 2), ("u", 1)] as [(String, Int32)] { makeTopic(name, partitions) }
        (client, other) = (connect(), connect())
        look()
    }

    // MARK: Its life

    private func start() {
        process.onFatal = { [unowned self] sentence in lastWords = sentence }
        let process = process
        task("a start") {
            do { try await process.start() } catch { preconditionFailure("the broker does not start: \(error)") }
        }
    }

    /// Stops it, starts it on the disk as it is, and stops it for good.
    func end() {
        stop()
        host = host.restart()
        process = BrokerProcess(host: host, config: config, sink: log, memoryBytes: Self.memoryBytes)
        start()
        other = connect()
        look()
        stop()
        simulated.end()
    }

    private func stop() {
        let process = process
        task("a stop") { await process.stop() }
        host.kill()
    }

    private func task(_ name: String, _ body: @escaping @Sendable () async -> Void) {
        let isDone = Flag()
        host.loops[0].spawn {
            await body()
            isDone.isUp = true
        }
        let ended = simulated.run(atMost: .seconds(600)) { isDone.isUp || lastWords != nil }
        precondition(lastWords == nil, "the broker gave up: \(lastWords ?? "")")
        precondition(ended, "\(name) of the broker comes to no end")
    }

    private func makeTopic(_ name: String, _ partitions: Int32) {
        guard let cluster = process.broker?.cluster else { preconditionFailure("a broker that has started is there") }
        task("the making of a topic") {
            guard case .success = await cluster.createTopic(
                NewTopic(name: name, partitionCount: partitions, replicationFactor: 1), validateOnly: false)
            else { preconditionFailure("a topic is not made") }
        }
        if let topic = process.broker?.cluster.metadata.current.topic(name) { learned.topicIDs.append(topic.id) }
    }

    private func connect() -> FuzzedConnection {
        let made = FuzzedConnection(clients, to: SocketAddress(host: host.address, port: Self.port))
        made.onAnswer = { [unowned self] message, _ in learn(message) }
        _ = simulated.run(atMost: Self.patience) { made.isConnected || made.hasEnded }
        precondition(made.isConnected || isTamperedWith, "a client is not let in")
        return made
    }

    // MARK: An input

    func run(_ input: inout FuzzInput) {
        inputsCount += 1
        for _ in 0..<Self.stepsLimit where !input.isAtEnd { take(FuzzedStep(&input, learned)) }
        settle()
        take(.look)
        let isFree = simulated.run(atMost: Self.patience) { [process] in process.broker?.requestBytesInUse == 0 }
        precondition(isFree, "requests that are over hold \(process.broker?.requestBytesInUse ?? 0) bytes")
        let topics = process.broker?.cluster.metadata.current.topics.count ?? 0
        isWorn = isWorn || inputsCount >= Self.inputsLimit || topics > Self.topicsLimit
            || host.files.usedBytes > Self.diskBytesLimit
    }

    private func take(_ step: FuzzedStep) {
        onProgress?(.did(step.encoded))
        if client.hasEnded || client.isWild {
            if client.isWild { settle() }
            client = connect()
        }
        switch step {
        case .request(let api, let body):
            correlationID &+= 1
            var buffer = ByteBuffer()
            let header = RequestHeader(
                apiKey: api.api.rawValue, apiVersion: api.version, correlationID: correlationID, clientID: "fuzzer")
            guard (try? header.encode(into: &buffer)) != nil else { return }
            buffer.append(body)
            send(buffer.array)
        case .frame(let bytes): send(bytes)
        case .bytes(let bytes):
            client.isWild = true
            client.send(bytes, awaiting: nil)
        case .connect:
            settle()
            client.close()
        case .look: look()
        case .wait(let span): simulated.run(for: .milliseconds(100 * Int64(span)))
        }
        precondition(lastWords == nil, "the broker gave up: \(lastWords ?? "")")
    }

    private func send(_ frame: [UInt8]) {
        let awaited: FuzzedConnection.Awaited?
        switch frame.withUnsafeBytes(prospect) {
        case .notSent: return
        case .unreadable: awaited = nil
        case .answer(let request): awaited = request
        }
        let size = UInt32(frame.count)
        client.send((0..<4).map { UInt8(truncatingIfNeeded: size >> (24 - 8 * UInt32($0))) } + frame, awaiting: awaited)
        // several may be under way, but not without end: what is sent must be taken
        simulated.run(for: .milliseconds(1))
    }

    /// What is to come for a frame.
    private enum Prospect {
        /// It would take longer than an input may.
        case notSent
        /// The connection ends.
        case unreadable
        case answer(FuzzedConnection.Awaited)
    }

    private func prospect(_ frame: UnsafeRawBufferPointer) -> Prospect {
        var reader = ByteReader(frame)
        guard let header = try? RequestHeader.decode(from: &reader) else { return .unreadable }
        var awaited = FuzzedConnection.Awaited(
            api: header.apiKey, version: header.apiVersion, correlationID: header.correlationID)
        switch header.api {
        case .produce:
            let request = try? ProduceRequest.decode(from: &reader, version: header.apiVersion)
            awaited.mayBeSilent = request?.acks == 0
        case .createTopics:
            isTamperedWith = true
            guard let asked = try? CreateTopicsRequest.decode(from: &reader, version: header.apiVersion) else { break }
            guard asked.topics.allSatisfy({ isQuick($0.numPartitions) && $0.assignments.count <= Self.partitionsLimit })
            else { return .notSent }
        case .createPartitions:
            isTamperedWith = true
            guard let asked = try? CreatePartitionsRequest.decode(from: &reader, version: header.apiVersion) else { break }
            guard asked.topics.allSatisfy({ isQuick($0.count) }) else { return .notSent }
        case .deleteTopics, .alterConfigs, .incrementalAlterConfigs, .alterClientQuotas, .alterReplicaLogDirs,
            .alterPartitionReassignments, .deleteRecords, .updateFeatures:
            isTamperedWith = true
        default: break
        }
        return .answer(awaited)
    }

    private func isQuick(_ partitions: Int32) -> Bool {
        partitions <= Self.partitionsLimit || partitions > TopicPlacement.partitionLimit
    }

    /// Whatever was sent is answered, or its connection is closed; or waits, as it asked to.
    private func settle() {
        let client = client
        func isQuiet() -> Bool { client.hasEnded || client.next == nil || lastWords != nil }
        if client.isWild {
            simulated.run(for: .milliseconds(50))
        } else if !simulated.run(atMost: Self.patience, until: isQuiet), !mayWait(client) {
            let isAnswered = simulated.run(atMost: Self.longPatience) { isQuiet() || mayWait(client) }
            precondition(isAnswered || isTamperedWith, "not answered: \(client.awaited)")
        }
        precondition(lastWords == nil, "the broker gave up: \(lastWords ?? "")")
        guard client.isWild || client.next != nil else { return }
        client.close()
        _ = simulated.run(atMost: Self.patience) { client.hasEnded }
    }

    private func mayWait(_ client: FuzzedConnection) -> Bool { client.next.map { Self.waiting.contains($0.api) } ?? false }

    private func learn(_ message: any WireMessage) {
        switch message {
        case let answer as JoinGroupResponse:
            if !answer.memberID.isEmpty { learned.memberID = answer.memberID }
            learned.generation = answer.generationID
        case let answer as ConsumerGroupHeartbeatResponse:
            if let id = answer.memberID { learned.memberID = id }
            learned.memberEpoch = answer.memberEpoch
        case let answer as InitProducerIdResponse where answer.errorCode == .none:
            (learned.producerID, learned.producerEpoch) = (answer.producerID, answer.producerEpoch)
        case let answer as FetchResponse where answer.sessionID != 0: learned.sessionID = answer.sessionID
        default: break
        }
    }

    // MARK: The other client

    /// Asks for all topics and writes a record, which nobody may have hindered.
    private func look() {
        if other.hasEnded {
            precondition(isTamperedWith, "the connection of a client that did no harm was ended: \(log.lines)")
            other = connect()
        }
        var metadata = MetadataRequest()
        metadata.topics = nil
        ask(metadata, version: 12)
        var part = ProduceRequest.PartitionProduceData()
        part.records = .owned(Self.record)
        var data = ProduceRequest.TopicProduceData()
        data.name = Self.untouched
        data.partitionData = [part]
        var produce = ProduceRequest()
        produce.acks = -1
        produce.timeoutMs = 30_000
        produce.topicData = [data]
        ask(produce, version: 9)
        var error: ErrorCode?
        other.onAnswer = { message, _ in
            if let answer = message as? ProduceResponse { error = answer.responses.first?.partitionResponses.first?.errorCode }
        }
        let other = other
        let isServed = simulated.run(atMost: Self.longPatience) { other.hasEnded || other.next == nil || lastWords != nil }
        precondition(lastWords == nil, "the broker gave up: \(lastWords ?? "")")
        if isServed, error == ErrorCode.none { return }
        precondition(isTamperedWith, "another client is not served: \(error.map { "\($0)" } ?? "no answer")")
        isWorn = true
    }

    private func ask<R: WireRequest>(_ request: R, version: Int16) {
        correlationID &+= 1
        var buffer = ByteBuffer()
        buffer.int32(0)
        let header = RequestHeader(apiKey: R.apiKey, apiVersion: version, correlationID: correlationID, clientID: "other")
        guard (try? header.encode(into: &buffer)) != nil, (try? request.encode(into: &buffer, version: version)) != nil else {
            preconditionFailure("what the other client asks can be said")
        }
        buffer.patch(Int32(buffer.count - 4), at: 0)
        other.send(buffer.array, awaiting: .init(api: R.apiKey, version: version, correlationID: correlationID))
    }

    private static let record: [UInt8] = {
        var builder = BatchBuilder(BatchIdentity())
        builder.append(timestamp: 1_700_000_000_000, key: [1], value: [2])
        var output = ByteBuffer()
        builder.finish(into: &output, codec: .none, contexts: CodecContexts())
        return output.array
    }()
}

private final class Flag: @unchecked Sendable {
    var isUp = false
}
