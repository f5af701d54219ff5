import MartletBasics
import MartletKeeper
import MartletModel
import MartletReactor

/// What the controller has of its broker.
struct ControllerSurroundings {
    var brokerID: BrokerID
    var host: any Host
    var running: RunningConfig
    var logger: Logger
    /// The broker, the only one, was not stopped cleanly: told once, to the first failover.
    var wasStoppedUncleanly: Bool
    var channel: (LiveBroker) -> any ControllerChannel
    /// Called after each step: what somebody waits for may have come.
    var onStep: () -> Void

    var config: BrokerConfig { running.current }
}

/// The shell around `ControllerState`: it stands for election, reads the tree, and carries out what was decided, all in
/// one task at a time.
///
/// Watches and answers only note what is to be looked at; however many come, each is one look. A failure of any step ends the
/// leadership: the controller resigns and stands again, and so begins from what the tree says.
///
/// On the first loop only.
final class Controller: @unchecked Sendable {
    /// Before it stands again after a failure.
    private static let retryDelay = Interval.milliseconds(250)

    struct Needs {
        var election = false
        var brokers = false
        var topics = false
        var deletions = false
        var directoryFailures = false
        /// Topics whose nodes have changed.
        var changedTopics: Set<String> = []
        var answers = RingQueue<(BrokerID, ControllerRequest, ControllerResponse)>()
        var overflows: Set<BrokerID> = []
    }

    let surroundings: ControllerSurroundings
    let loop: any EventLoop
    var logger: Logger { surroundings.logger }
    private(set) var session: (any KeeperSession)?
    private var nextSession: (any KeeperSession)?
    private(set) var state: ControllerState?
    /// The version of the epoch's node while this broker is the controller: every write checks it.
    private(set) var epochVersion: Int32 = 0
    private var needs = Needs()
    private var queues: [BrokerID: BrokerQueue] = [:]
    private var isStepping = false
    private var isClosed = false
    private var mayRaiseEpochs: Bool
    private var retry: TimerToken?
    /// One for all registrations, whose addresses may change: a watcher that is there already is not added again.
    private lazy var brokerWatcher = Watcher { [weak self] _ in self?.note { $0.brokers = true } }

    init(_ surroundings: ControllerSurroundings) {
        self.surroundings = surroundings
        loop = surroundings.host.loops[0]
        mayRaiseEpochs = surroundings.wasStoppedUncleanly
    }

    var isLeading: Bool { state != nil }

    /// The operation that every write of the controller goes with; nil where another broker is the controller.
    var epochCheck: KeeperOperation? {
        state == nil ? nil : .check(path: ClusterPath.controllerEpoch, version: epochVersion)
    }

    /// Stands for election with a new session, and at every occasion from now on.
    func begin(with session: any KeeperSession) {
        nextSession = session
        note { $0.election = true }
    }

    func close() {
        isClosed = true
        resign("the broker is stopped")
    }

    // MARK: Steps

    private func note(_ change: (inout Needs) -> Void) {
        change(&needs)
        guard !isStepping, !isClosed else { return }
        isStepping = true
        loop.spawn { [self] in await step() }
    }

    private func step() async {
        defer { isStepping = false }
        while !isClosed, takeSession() {
            do throws(KeeperError) {
                guard try await stepOnce() else { return }
            } catch {
                failed(error)
            }
            surroundings.onStep()
        }
    }

    /// Turns to a new session where there is one; false where there is none at all.
    private func takeSession() -> Bool {
        if let nextSession {
            resign("its session with the coordination service ended")
            session = nextSession
            self.nextSession = nil
            needs = Needs()
            needs.election = true
        }
        return session != nil
    }

    /// Looks at one thing; false where nothing is left to look at.
    private func stepOnce() async throws(KeeperError) -> Bool {
        if needs.election {
            needs.election = false
            try await seekElection()
            return true
        }
        guard isLeading else {
            let election = needs.election
            needs = Needs()
            needs.election = election
            return election
        }
        if needs.brokers {
            needs.brokers = false
            try await decide(.brokers(try await readBrokers()))
        } else if needs.topics || !needs.changedTopics.isEmpty {
            try await lookAtTopics()
        } else if needs.deletions {
            needs.deletions = false
            let names = try await readDeletions()
            try await decide(.deletions(names, areAllowed: surroundings.config.deleteTopics))
        } else if needs.directoryFailures {
            needs.directoryFailures = false
            try await lookAtDirectoryFailures()
        } else if let (broker, request, response) = needs.answers.popFirst() {
            try await decide(.answered(by: broker, request, response))
        } else if let broker = needs.overflows.min() {
            needs.overflows.remove(broker)
            try await decide(.fellBehind(broker))
        } else {
            return false
        }
        return true
    }

    private func failed(_ error: KeeperError) {
        let wasLeading = isLeading
        resign("a step failed: \(error)")
        if !wasLeading { logger.warning("the election of a controller failed", ("reason", "\(error)")) }
        // a session that has ended is replaced by the cluster member
        guard session?.state == .connected || session?.state == .suspended else { return }
        if retry == nil, !isClosed {
            retry = loop.schedule(after: Self.retryDelay) { [self] in
                retry = nil
                note { $0.election = true }
            }
        }
    }

    private func resign(_ reason: String) {
        guard let state else { return }
        logger.info("no longer the controller", ("epoch", "\(state.epoch)"), ("reason", reason))
        self.state = nil
        for id in queues.keys.sorted() { queues[id]?.close() }
        queues = [:]
        needs = Needs()
    }

    // MARK: Election

    private func seekElection() async throws(KeeperError) {
        guard let session else { return }
        let watcher = Watcher { [weak self] _ in self?.note { $0.election = true } }
        guard let stat = try await session.exists(ClusterPath.controller, watch: watcher) else { return try await stand(session) }
        if stat.ephemeralOwner == session.id {
            guard !isLeading else { return }
            // left from a leadership of this very session that failed: begin anew
            do throws(KeeperError) {
                try await session.delete(ClusterPath.controller, version: stat.version)
            } catch {
                guard error.code == .noNode || error.code == .badVersion else { throw error }
            }
            needs.election = true
        } else {
            resign("another broker was elected")
        }
    }

    private func stand(_ session: any KeeperSession) async throws(KeeperError) {
        resign("its node is gone")
        let (epoch, version) = try await readEpoch(session)
        let node = ControllerNode(broker: surroundings.brokerID, timestamp: surroundings.host.clock.wallMilliseconds)
        do throws(KeeperError) {
            _ = try await session.multi([
                .create(path: ClusterPath.controller, data: node.bytes, acl: ACL.open, mode: .ephemeral),
                .setData(path: ClusterPath.controllerEpoch, data: ControllerEpochNode.bytes(epoch + 1), version: version),
            ])
        } catch {
            // somebody else was elected meanwhile
            guard error.code == .nodeExists || error.code == .badVersion else { throw error }
            needs.election = true
            return
        }
        epochVersion = version + 1
        logger.info("elected controller", ("epoch", "\(epoch + 1)"))
        try await takeOver(session, epoch: epoch + 1)
    }

    private func readEpoch(_ session: any KeeperSession) async throws(KeeperError) -> (epoch: Int32, version: Int32) {
        while true {
            do throws(KeeperError) {
                let (data, stat) = try await session.get(ClusterPath.controllerEpoch)
                guard let epoch = ControllerEpochNode.epoch(data), epoch < .max else {
                    throw KeeperError(.dataInconsistency, "\(ClusterPath.controllerEpoch) holds no epoch: set it to the number of its version")
                }
                return (epoch, stat.version)
            } catch {
                guard error.code == .noNode else { throw error }
            }
            do throws(KeeperError) {
                _ = try await session.create(ClusterPath.controllerEpoch, ControllerEpochNode.bytes(0))
            } catch {
                guard error.code == .nodeExists else { throw error }
            }
        }
    }

    private func takeOver(_ session: any KeeperSession, epoch: Int32) async throws(KeeperError) {
        state = ControllerState(brokerID: surroundings.brokerID, epoch: epoch)
        try await makeFeatureNode(session)
        let brokers = try await readBrokers()
        let (_, topics) = try await readTopics(known: [])
        let deletions = try await readDeletions()
        let raises = mayRaiseEpochs
        mayRaiseEpochs = false
        try await decide(.elected(
            brokers: brokers, topics: topics, deletions: deletions, areAllowed: surroundings.config.deleteTopics,
            raisesOwnEpochs: raises))
        needs.directoryFailures = true
    }

    private func makeFeatureNode(_ session: any KeeperSession) async throws(KeeperError) {
        guard try await session.exists(ClusterPath.feature) == nil else { return }
        try await write([
            .create(path: ClusterPath.feature, data: FeatureNode(isEnabled: true).bytes, acl: ACL.open, mode: .persistent)
        ])
    }

    // MARK: What the tree says

    private func readBrokers() async throws(KeeperError) -> [LiveBroker] {
        guard let session else { return [] }
        let watcher = Watcher { [weak self] _ in self?.note { $0.brokers = true } }
        let names = try await session.children(ClusterPath.brokers, watch: watcher).names
        return try await BrokerRegistrations.read(names, session, logger, watch: brokerWatcher)
    }

    private func lookAtTopics() async throws(KeeperError) {
        needs.topics = false
        let changed = needs.changedTopics
        needs.changedTopics = []
        let known = (state?.topics.keys).map { Set($0) } ?? []
        let (names, read) = try await readTopics(known: known.subtracting(changed))
        try await decide(.topics(names: names, read: read))
    }

    /// The names of all topics, and what there is of those that are not `known`.
    private func readTopics(known: Set<String>) async throws(KeeperError) -> (names: [String], read: [TopicFacts]) {
        guard let session else { return ([], []) }
        let watcher = Watcher { [weak self] _ in self?.note { $0.topics = true } }
        let names = try await session.children(ClusterPath.topics, watch: watcher).names
        let reader = TopicReader(session: session, config: surroundings.config, logger: logger)
        var read: [TopicFacts] = []
        for name in names where !known.contains(name) {
            let watcher = Watcher { [weak self] _ in self?.note { $0.changedTopics.insert(name) } }
            guard let (node, version) = try await reader.node(name, watch: watcher) else { continue }
            var topic = node
            if topic.id == nil {
                topic.id = UUID(bytes: surroundings.host.randomBytes(16))
                try await write([.setData(path: ClusterPath.topic(name), data: topic.bytes, version: version)])
            }
            read.append(try await reader.facts(name, topic))
        }
        return (names, read)
    }

    private func readDeletions() async throws(KeeperError) -> [String] {
        guard let session else { return [] }
        let watcher = Watcher { [weak self] _ in self?.note { $0.deletions = true } }
        return try await session.children(ClusterPath.deletions, watch: watcher).names
    }

    /// Brokers of which replicas went offline; the notes are taken away when they have been read.
    private func lookAtDirectoryFailures() async throws(KeeperError) {
        guard let session else { return }
        let watcher = Watcher { [weak self] _ in self?.note { $0.directoryFailures = true } }
        let path = ClusterPath.directoryFailures
        var brokers: Set<BrokerID> = []
        for name in try await session.children(path, watch: watcher).names.sorted() {
            do throws(KeeperError) {
                let data = try await session.get("\(path)/\(name)").data
                if let node = DirectoryFailureNode(data) { brokers.insert(node.broker) }
                try await write([.delete(path: "\(path)/\(name)", version: -1)])
            } catch {
                // another controller took it away
                guard error.code == .noNode else { throw error }
            }
        }
        for broker in brokers.sorted() { try await decide(.replicasFailed(broker)) }
    }

    // MARK: What is decided

    private func decide(_ event: ControllerEvent) async throws(KeeperError) {
        guard var next = state else { return }
        let actions = next.handle(event)
        state = next
        renewQueues()
        for action in actions {
            // the session ended meanwhile: a new one begins anew
            guard isLeading, nextSession == nil else { return }
            switch action {
            case .write(let writes): try await write(writes)
            case .send(let request, let broker): queues[broker]?.append(request)
            case .removeTopic(let name, let partitions): try await removeNodes(of: name, partitions)
            case .forgetDeletion(let name): try await write([.delete(path: ClusterPath.deletion(name), version: -1)])
            case .warn(let message): logger.warning(message)
            case .resign(let reason):
                resign(reason)
                needs.election = true
            }
        }
    }

    /// One queue for each registration of a broker.
    private func renewQueues() {
        guard let state else { return }
        for id in queues.keys.sorted() {
            guard let queue = queues[id], state.broker(id)?.epoch != queue.broker.epoch else { continue }
            queue.close()
            queues[id] = nil
        }
        for broker in state.brokers where queues[broker.id] == nil {
            queues[broker.id] = BrokerQueue(
                broker, channel: surroundings.channel(broker), loop: loop, logger: logger,
                onAnswer: { [weak self] request, response in
                    self?.note { $0.answers.append((broker.id, request, response)) }
                },
                onOverflow: { [weak self] in self?.note { $0.overflows.insert(broker.id) } })
        }
    }
}
