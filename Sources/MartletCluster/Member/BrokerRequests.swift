package import MartletBasics
import MartletLog
package import MartletModel
package import MartletReactor
package import MartletWire

/// Which controller and which registration of this broker a request has to be of.
package struct RequestEpochs: Sendable {
    package private(set) var controllerEpoch: Int32 = 0
    package var brokerEpoch: Int64 = -1

    package init() {}

    /// Why a request is refused; nil for one to be carried out, of the latest controller from now on.
    package mutating func refusal(controllerEpoch epoch: Int32, brokerEpoch registration: Int64) -> ErrorCode? {
        guard epoch >= controllerEpoch else { return .staleControllerEpoch }
        // meant for an earlier registration: -1 is of a controller that does not tell
        guard registration < 0 || registration >= brokerEpoch else { return .staleBrokerEpoch }
        controllerEpoch = epoch
        return nil
    }
}

/// The broker's side of LeaderAndIsr, UpdateMetadata and StopReplica: one at a time, in the order in which they came.
///
/// On the first loop only.
package final class BrokerRequests: @unchecked Sendable {
    private struct Waiting {
        var request: ControllerRequest
        var answer: (ControllerResponse?) -> Void
    }

    /// Requests that may wait: a controller has one under way, and few controllers are there at a time.
    private static let waitingLimit = 64
    /// Partitions whose logs are opened at the same time.
    private static let overlappingLimit = 8

    package var epochs = RequestEpochs()
    private let replicas: any ReplicaHosting
    private let metadata: MetadataStore
    private let loop: any EventLoop
    private let logger: Logger
    /// What counts for a topic; nil while the tree cannot be read.
    private let config: (String) async -> TopicConfig?
    private let onImage: () -> Void
    private var leaderEpochs: [TopicPartition: LeaderEpoch] = [:]
    private var waiting = RingQueue<Waiting>()
    private var isRunning = false

    package init(
        replicas: any ReplicaHosting, metadata: MetadataStore, loop: any EventLoop, logger: Logger,
        config: @escaping (String) async -> TopicConfig?, onImage: @escaping () -> Void
    ) {
        self.replicas = replicas
        self.metadata = metadata
        self.loop = loop
        self.logger = logger
        self.config = config
        self.onImage = onImage
    }

    /// Nil: it could not be carried out now, and the controller has to send it again.
    package func handle(_ request: ControllerRequest) async -> ControllerResponse? {
        guard waiting.count < Self.waitingLimit else { return nil }
        return await withUnsafeContinuation { continuation in
            waiting.append(Waiting(request: request) { continuation.resume(returning: $0) })
            guard !isRunning else { return }
            isRunning = true
            loop.spawn { [self] in await run() }
        }
    }

    private func run() async {
        while let next = waiting.popFirst() { next.answer(await carryOut(next.request)) }
        isRunning = false
    }

    private func carryOut(_ request: ControllerRequest) async -> ControllerResponse? {
        switch request {
        case .leaderAndIsr(let request): await leaderAndIsr(request).map { .leaderAndIsr($0) }
        case .updateMetadata(let request): .updateMetadata(updateMetadata(request))
        case .stopReplica(let request): .stopReplica(await stopReplica(request))
        }
    }

    // MARK: LeaderAndIsr

    private func leaderAndIsr(_ request: LeaderAndIsrRequest) async -> LeaderAndIsrResponse? {
        var response = LeaderAndIsrResponse()
        if let error = epochs.refusal(controllerEpoch: request.controllerEpoch, brokerEpoch: request.brokerEpoch) {
            response.errorCode = error
            return response
        }
        var wanted: [Wanted] = []
        for (place, topic) in request.topicStates.enumerated() {
            guard let config = await config(topic.topicName) else { return nil }
            var answered = LeaderAndIsrResponse.LeaderAndIsrTopicError()
            answered.topicID = topic.topicID
            response.topics.append(answered)
            wanted += topic.partitionStates.map { Wanted(place: place, name: topic.topicName, id: topic.topicID, config: config, state: $0) }
        }
        reportMissing(wanted)
        for (wanted, code) in zip(wanted, await apply(wanted)) {
            var error = LeaderAndIsrResponse.LeaderAndIsrPartitionError()
            error.partitionIndex = wanted.state.partitionIndex
            error.errorCode = code
            response.topics[wanted.place].partitionErrors.append(error)
        }
        return response
    }

    /// A replica that is to be led or followed.
    private struct Wanted: Sendable {
        /// Of its topic in the request.
        var place: Int
        var name: String
        var id: UUID
        var config: TopicConfig
        var state: LeaderAndIsrRequest.LeaderAndIsrPartitionState
    }

    /// Replicas that were here, as the controller says, and whose folders are not: they begin empty, and that is said.
    private func reportMissing(_ wanted: [Wanted]) {
        let table = replicas.topics.table
        let unopened = wanted.filter {
            guard !$0.state.isNew, leaderEpochs[TopicPartition($0.name, $0.state.partitionIndex)] == nil else { return false }
            guard let topic = table.topic($0.name) else { return true }
            return topic.partition($0.state.partitionIndex) == nil && !topic.hasFailed($0.state.partitionIndex)
        }
        guard !unopened.isEmpty else { return }
        let folders = replicas.foundReplicas
        let missing = unopened.map { TopicPartition($0.name, $0.state.partitionIndex) }.filter { !folders.contains($0) }
        guard let first = missing.first else { return }
        logger.warning(
            "the log directories lack replicas that this broker had: they are made anew, and empty",
            ("partitions", "\(missing.count)"), ("first", first.description))
    }

    /// Several at a time: opening a log means reading, after an unclean stop much of it.
    private func apply(_ wanted: [Wanted]) async -> [ErrorCode] {
        var codes = [ErrorCode](repeating: .none, count: wanted.count)
        await withTaskGroup(of: (Int, ErrorCode).self) { group in
            for index in wanted.indices {
                if index >= Self.overlappingLimit, let (done, code) = await group.next() { codes[done] = code }
                let replica = wanted[index]
                group.addTask { [self] in (index, await apply(replica)) }
            }
            for await (done, code) in group { codes[done] = code }
        }
        return codes
    }

    private func apply(_ wanted: Wanted) async -> ErrorCode {
        let state = wanted.state
        let id = TopicPartition(wanted.name, state.partitionIndex)
        if let known = replicas.topics.table.topic(wanted.name), known.id != wanted.id { return .inconsistentTopicID }
        // a controller that was told of a failure asks so which replicas it has hit
        if replicas.topics.partition(id)?.hasFailed == true { return .kafkaStorageError }
        if let known = leaderEpochs[id], state.leaderEpoch <= known { return .staleControllerEpoch }
        let assignment = PartitionLeadership.Assignment(
            leader: state.leader, leaderEpoch: state.leaderEpoch, partitionEpoch: state.partitionEpoch,
            replicas: state.replicas, inSyncReplicas: state.isr)
        let hasFailed = replicas.topics.table.topic(wanted.name)?.hasFailed(state.partitionIndex) == true
        do throws(LogError) {
            try await replicas.apply(
                topic: wanted.name, id: wanted.id, config: wanted.config, partition: state.partitionIndex,
                assignment: assignment, isNew: state.isNew)
        } catch {
            // one that is tried again has been told of
            if !hasFailed { logger.error("a replica cannot be served", ("partition", id.description), ("reason", "\(error)")) }
            return .kafkaStorageError
        }
        leaderEpochs[id] = state.leaderEpoch
        return .none
    }

    // MARK: StopReplica

    private func stopReplica(_ request: StopReplicaRequest) async -> StopReplicaResponse {
        var response = StopReplicaResponse()
        if let error = epochs.refusal(controllerEpoch: request.controllerEpoch, brokerEpoch: request.brokerEpoch) {
            response.errorCode = error
            return response
        }
        await replicas.prepareDeletion(of: deleted(by: request))
        for topic in request.topicStates {
            for state in topic.partitionStates {
                var answered = StopReplicaResponse.StopReplicaPartitionError()
                answered.topicName = topic.topicName
                answered.partitionIndex = state.partitionIndex
                answered.errorCode = await stop(TopicPartition(topic.topicName, state.partitionIndex), state)
                response.partitionErrors.append(answered)
            }
        }
        return response
    }

    /// What will be deleted, unless the disk fails.
    private func deleted(by request: StopReplicaRequest) -> [TopicPartition] {
        request.topicStates.flatMap { topic in
            topic.partitionStates.compactMap { state -> TopicPartition? in
                let id = TopicPartition(topic.topicName, state.partitionIndex)
                return state.deletePartition && refusal(id, state) == nil ? id : nil
            }
        }
    }

    private func refusal(_ id: TopicPartition, _ state: StopReplicaRequest.StopReplicaPartitionState) -> ErrorCode? {
        // -1 and -2 are sent where no epoch is to be checked
        if state.leaderEpoch >= 0, let known = leaderEpochs[id], state.leaderEpoch < known { return .fencedLeaderEpoch }
        // it stays where it is, so that clients hear what is wrong; only who deletes the topic takes it away
        let isDeletion = state.deletePartition || state.leaderEpoch == ControllerPlan.epochOfDeletion
        return !isDeletion && replicas.topics.partition(id)?.hasFailed == true ? .kafkaStorageError : nil
    }

    private func stop(_ id: TopicPartition, _ state: StopReplicaRequest.StopReplicaPartitionState) async -> ErrorCode {
        if let error = refusal(id, state) { return error }
        do throws(LogError) {
            try await replicas.stop(topic: id.topic, partition: id.partition, delete: state.deletePartition)
        } catch {
            logger.error("a replica cannot be stopped", ("partition", id.description), ("reason", "\(error)"))
            return .kafkaStorageError
        }
        if state.deletePartition { leaderEpochs[id] = nil }
        return .none
    }

    // MARK: UpdateMetadata

    private func updateMetadata(_ request: UpdateMetadataRequest) -> UpdateMetadataResponse {
        var response = UpdateMetadataResponse()
        if let error = epochs.refusal(controllerEpoch: request.controllerEpoch, brokerEpoch: request.brokerEpoch) {
            response.errorCode = error
            return response
        }
        metadata.current = metadata.current.updated(by: request)
        onImage()
        return response
    }
}

extension MetadataImage {
    /// The image after the controller's news: partitions that it does not name stay as they are.
    package func updated(by request: UpdateMetadataRequest) -> MetadataImage {
        var changed: [String: TopicInfo] = [:]
        var gone: Set<String> = []
        for state in request.topicStates {
            var info = changed[state.topicName] ?? topic(state.topicName)
            // made again under the same name
            if let known = info, known.id != state.topicID { info = nil }
            var topic = info ?? TopicInfo(name: state.topicName, id: state.topicID, partitions: [])
            topic.take(state.partitionStates)
            changed[state.topicName] = topic
            if topic.partitions.isEmpty { gone.insert(state.topicName) } else { gone.remove(state.topicName) }
        }
        var next = topics.map { changed.removeValue(forKey: $0.name) ?? $0 }
        next += changed.keys.sorted().compactMap { changed[$0] }
        next.removeAll { gone.contains($0.name) }
        // two topics of one id would be a damaged tree: the first of them is told of
        var ids: Set<UUID> = []
        next.removeAll { !ids.insert($0.id).inserted }
        let live = request.liveBrokers.map(BrokerInfo.init)
        return MetadataImage(
            clusterID: clusterID, controllerID: request.controllerID < 0 ? nil : request.controllerID,
            brokers: live.isEmpty ? brokers : live, topics: next)
    }
}

extension TopicInfo {
    /// Of a partition that is named twice the last counts. A request names all partitions of large topics: no search for each.
    fileprivate mutating func take(_ states: [UpdateMetadataRequest.UpdateMetadataPartitionState]) {
        var told: [Int32: PartitionInfo?] = [:]
        for state in states {
            let isDeleted = state.leader == ControllerPlan.leaderOfDeletion
            told.updateValue(isDeleted ? nil : PartitionInfo(state), forKey: state.partitionIndex)
        }
        partitions.removeAll { told.keys.contains($0.index) }
        // in any order: they are sorted next
        partitions += told.values.compactMap { $0 }
        partitions.sort { $0.index < $1.index }
    }
}

extension PartitionInfo {
    fileprivate init(_ state: UpdateMetadataRequest.UpdateMetadataPartitionState) {
        self.init(
            index: state.partitionIndex, leader: state.leader, leaderEpoch: state.leaderEpoch, replicas: state.replicas,
            inSyncReplicas: state.isr, offlineReplicas: state.offlineReplicas)
    }
}

extension BrokerInfo {
    fileprivate init(_ told: UpdateMetadataRequest.UpdateMetadataBroker) {
        self.init(
            id: told.id,
            endpoints: told.endpoints.map { BrokerEndpoint(listener: $0.listener, host: $0.host, port: $0.port) },
            rack: told.rack)
    }
}

/// The controller's requests to the broker of its own process.
final class LocalChannel: ControllerChannel, @unchecked Sendable {
    private let requests: BrokerRequests

    init(_ requests: BrokerRequests) { self.requests = requests }

    func send(_ request: ControllerRequest) async throws(ChannelFault) -> ControllerResponse {
        guard let response = await requests.handle(request) else {
            throw ChannelFault("the request could not be carried out, as the coordination service cannot be read")
        }
        return response
    }

    func close() {}
}

/// To a broker that this one cannot speak to.
final class UnreachableChannel: ControllerChannel, @unchecked Sendable {
    func send(_ request: ControllerRequest) async throws(ChannelFault) -> ControllerResponse {
        throw ChannelFault("this release speaks to no other brokers")
    }

    func close() {}
}
