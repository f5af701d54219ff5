import MartletBasics
import MartletModel
import MartletReactor
import MartletWire

/// The connection by which topics are made and deleted: one request at a time.
final class Control: Speaker {
    private static let answerLimit = Interval.seconds(60)
    private let loop: any EventLoop
    private var link: Link?
    private var frames = AnswerFrames()
    private var request: Frame?
    private var answer: [UInt8] = []
    private var answered: Conclusion?
    private var fault: BenchFault?

    init(host: any Host, address: SocketAddress) async throws(BenchFault) {
        loop = host.loops[0]
        let socket = try await connected(to: address, host)
        let link = Link(socket, scratch: Link.Scratch(), speaker: self)
        self.link = link
        link.start(on: loop)
    }

    func close() { link?.close() }

    // MARK: Topics

    /// Makes the topic, and comes back when all its partitions have a leader.
    func create(
        _ topic: String, partitions: Int32, settings: [(name: String, value: String)] = []
    ) async throws(BenchFault) {
        var wanted = CreateTopicsRequest.CreatableTopic()
        wanted.name = topic
        wanted.numPartitions = partitions
        wanted.replicationFactor = 1
        wanted.configs = settings.map { setting in
            var config = CreateTopicsRequest.CreatableTopicConfig()
            config.name = setting.name
            config.value = setting.value
            return config
        }
        var request = CreateTopicsRequest()
        request.topics = [wanted]
        let response = try await call(request, version: SpokenVersion.createTopics)
        guard let made = response.topics.first else { throw BenchFault("CreateTopics was answered without a topic") }
        guard made.errorCode == .none else {
            throw BenchFault("CreateTopics was answered with \(made.errorCode): \(made.errorMessage ?? "")")
        }
        let limit = loop.clock.now + Self.answerLimit
        while try await !isLed(topic, partitions: partitions) {
            guard loop.clock.now < limit else { throw BenchFault("\(topic) has partitions without a leader") }
            await loop.sleep(for: .milliseconds(5))
        }
    }

    /// Makes those topics that are not there yet, and comes back when all their partitions have a leader.
    func ensure(_ topics: [String], partitions: Int32) async throws(BenchFault) {
        var request = CreateTopicsRequest()
        request.timeoutMs = 60_000
        request.topics = topics.map { name in
            var wanted = CreateTopicsRequest.CreatableTopic()
            wanted.name = name
            wanted.numPartitions = partitions
            wanted.replicationFactor = 1
            return wanted
        }
        let response = try await call(request, version: SpokenVersion.createTopics)
        for made in response.topics where made.errorCode != .none && made.errorCode != .topicAlreadyExists {
            throw BenchFault("CreateTopics was answered with \(made.errorCode): \(made.errorMessage ?? "")")
        }
        let limit = loop.clock.now + Self.answerLimit
        for topic in topics {
            while try await !isLed(topic, partitions: partitions) {
                guard loop.clock.now < limit else { throw BenchFault("\(topic) has partitions without a leader") }
                await loop.sleep(for: .milliseconds(5))
            }
        }
    }

    /// Asks for all topics; how many are told of.
    func topicCount() async throws(BenchFault) -> Int {
        var request = MetadataRequest()
        request.topics = nil
        return try await call(request, version: SpokenVersion.metadata).topics.count
    }

    /// Comes back when the group has a coordinator that serves it.
    func findCoordinator(of group: String) async throws(BenchFault) {
        var request = FindCoordinatorRequest()
        request.key = group
        var asked = OffsetFetchRequest()
        asked.groupID = group
        asked.topics = nil
        let limit = loop.clock.now + Self.answerLimit
        while true {
            let found = try await call(request, version: SpokenVersion.findCoordinator).errorCode
            let served = found == .none ? try await call(asked, version: 7).errorCode : found
            if served == .none { return }
            guard loop.clock.now < limit else { throw BenchFault("no coordinator is found: \(served)") }
            await loop.sleep(for: .milliseconds(20))
        }
    }

    /// Comes back when the transactional id has a coordinator.
    func findCoordinator(ofTransactional id: String) async throws(BenchFault) {
        var request = FindCoordinatorRequest()
        request.key = id
        request.keyType = 1
        let limit = loop.clock.now + Self.answerLimit
        while true {
            let found = try await call(request, version: SpokenVersion.findCoordinator).errorCode
            if found == .none { return }
            guard loop.clock.now < limit else { throw BenchFault("no coordinator of transactions is found: \(found)") }
            await loop.sleep(for: .milliseconds(20))
        }
    }

    /// Sets one setting of a topic.
    func set(_ name: String, to value: String, of topic: String) async throws(BenchFault) {
        var config = IncrementalAlterConfigsRequest.AlterableConfig()
        config.name = name
        config.value = value
        var resource = IncrementalAlterConfigsRequest.AlterConfigsResource()
        resource.resourceType = 2
        resource.resourceName = topic
        resource.configs = [config]
        var request = IncrementalAlterConfigsRequest()
        request.resources = [resource]
        let response = try await call(request, version: SpokenVersion.incrementalAlterConfigs)
        let code = response.responses.first?.errorCode ?? .unknownServerError
        guard code == .none else { throw BenchFault("\(name) of a topic was not set: \(code)") }
    }

    private func isLed(_ topic: String, partitions: Int32) async throws(BenchFault) -> Bool {
        var asked = MetadataRequest.MetadataRequestTopic()
        asked.name = topic
        var request = MetadataRequest()
        request.topics = [asked]
        request.allowAutoTopicCreation = false
        let response = try await call(request, version: SpokenVersion.metadata)
        guard let topic = response.topics.first, topic.errorCode == .none else { return false }
        let led = topic.partitions.count { $0.errorCode == .none && $0.leaderID >= 0 }
        return led == Int(partitions)
    }

    func delete(_ topic: String) async throws(BenchFault) {
        var request = DeleteTopicsRequest()
        request.topicNames = [topic]
        request.timeoutMs = 30_000
        let response = try await call(request, version: SpokenVersion.deleteTopics)
        guard let code = response.responses.first?.errorCode, code == .none else {
            throw BenchFault("DeleteTopics was answered with \(response.responses.first?.errorCode as Any)")
        }
    }

    private func call<R: WireRequest>(_ request: R, version: Int16) async throws(BenchFault) -> R.Response {
        if let fault { throw fault }
        precondition(answered == nil, "the control connection has one request at a time")
        let answered = Conclusion(on: loop, within: Self.answerLimit)
        self.answered = answered
        defer { self.answered = nil }
        self.request = try Frame(request, version: version, correlationID: 0)
        link?.pump()
        try await answered.wait()
        let decoded = answer.withUnsafeBytes { bytes in
            Result { () throws(DecodingFault) in
                var reader = ByteReader(bytes)
                let header = ApiKey(rawValue: R.apiKey)!.responseHeaderVersion(version)
                _ = try ResponseHeader.decode(from: &reader, version: header)
                return try R.Response.decode(from: &reader, version: version)
            }
        }
        do { return try decoded.get() } catch { throw BenchFault("an answer cannot be read: \(error)") }
    }

    // MARK: Speaker

    func nextRequest() -> Frame? {
        defer { request = nil }
        return request
    }

    func received(_ bytes: UnsafeRawBufferPointer) throws(BenchFault) {
        try frames.take(bytes) { frame in
            answer = [UInt8](frame)
            answered?.conclude(.success(()))
        }
    }

    func failed(_ fault: BenchFault) {
        self.fault = fault
        answered?.conclude(.failure(fault))
    }
}

func connected(to address: SocketAddress, _ host: any Host) async throws(BenchFault) -> any StreamSocket {
    do { return try await host.network.connect(to: address, loop: host.loops[0]) } catch {
        throw BenchFault("cannot connect to the server: \(error)")
    }
}
