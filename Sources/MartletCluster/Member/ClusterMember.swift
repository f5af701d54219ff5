package import MartletBasics
package import MartletKeeper
package import MartletLog
package import MartletModel
package import MartletReactor

/// How a member comes to a session, the first and every later one.
package struct CoordinationAccess: Sendable {
    package var openSession: @Sendable () async throws(KeeperError) -> any KeeperSession
    /// The tree is this process's own: on a new one, what the log directories hold is adopted.
    package var isEmbedded: Bool

    package init(isEmbedded: Bool, openSession: @escaping @Sendable () async throws(KeeperError) -> any KeeperSession) {
        self.openSession = openSession
        self.isEmbedded = isEmbedded
    }

    /// The keeper of this process.
    package static func embedded(_ keeper: EmbeddedKeeper, on loop: any EventLoop) -> CoordinationAccess {
        CoordinationAccess(isEmbedded: true) { () async throws(KeeperError) -> any KeeperSession in
            try await keeper.openSession(timeout: ClusterMember.sessionTimeout, on: loop)
        }
    }
}

/// A broker as a member of its cluster: its registration, its part in electing a controller, the controller itself
/// where it is elected, and what it is told of topics. docs/design/cluster.md tells how the pieces fit.
///
/// All state belongs to the first loop; `metadata`, `topics` and the methods that say so may be used from any.
package final class ClusterMember: @unchecked Sendable {
    /// `zookeeper.session.timeout.ms`.
    package static let sessionTimeout = Interval.seconds(18)
    static let rejoinDelay = Interval.milliseconds(500)
    private static let settlingReportInterval = Interval.seconds(10)

    package let metadata = MetadataStore(MetadataImage(clusterID: "", controllerID: nil, brokers: [], topics: []))
    /// What this broker serves. From any loop.
    package var topics: LocalTopics { replicas.topics }
    /// Known once started.
    package internal(set) var brokerID: BrokerID
    package internal(set) var clusterID = ""

    let host: any Host
    let loop: any EventLoop
    /// The settings that count now. From any loop.
    package let running: RunningConfig
    /// As the broker was started, without what was altered since.
    let startConfig: BrokerConfig
    let access: CoordinationAccess
    let replicas: any ReplicaHosting
    let logger: Logger
    /// What topics are given that a new tree adopts.
    let topicSettings: TopicSettingsFile?
    let remoteChannel: ((LiveBroker) -> any ControllerChannel)?
    let conditions: Conditions
    var session: (any KeeperSession)?
    var controller: Controller?
    package internal(set) var requests: BrokerRequests!
    var random: SeededRandom
    var registration = BrokerNode(endpoints: [], rack: nil, timestamp: -1)
    private var hasNews = false
    private var imageObservers: [() -> Void] = []
    /// Opens the listeners that these settings add, or says why one cannot be had. On the first loop.
    package var openListeners: ((BrokerConfig) -> String?)?
    /// Listens where these settings say, and nowhere else; where clients are told to connect then. On the first loop.
    package var followListeners: ((BrokerConfig) -> [BrokerEndpoint])?
    private(set) var isClosed = false
    private var isRejoining = false
    private var mustTellController = false
    private var isTellingController = false

    /// Topics whose folders were found though the tree does not know them; they are left alone, and their names are not
    /// given again.
    private(set) var strangers: Set<String> = []

    // producer ids
    var producerIDs = ProducerIDBlock()
    var isClaimingProducerIDs = false

    // topics that are wanted by Metadata
    let wishes = AutomaticTopics()

    /// What is set on groups, by their names. From any loop.
    package var groupOverrides: [String: TopicConfigResolver.Overrides] { groupConfigs.current }
    let groupConfigs = GroupConfigs()
    private var groupConfigObservers: [() -> Void] = []
    // quotas of clients
    /// As the tree last said. On the first loop.
    package internal(set) var quotas = ClientQuotas()
    /// Calls on the first loop whenever quotas have changed.
    package var onQuotas: ((ClientQuotas) -> Void)?

    // settings of topics
    var lastConfigChange: Int64 = -1
    var isReadingConfigChanges = false
    var hasConfigChanges = false

    var config: BrokerConfig { running.current }

    package init(
        host: any Host, config: BrokerConfig, coordination: CoordinationAccess, replicas: any ReplicaHosting, sink: any LogSink,
        topicSettings: TopicSettingsFile? = nil, remoteChannel: ((LiveBroker) -> any ControllerChannel)? = nil
    ) {
        self.host = host
        loop = host.loops[0]
        running = RunningConfig(config)
        startConfig = config
        access = coordination
        self.replicas = replicas
        self.topicSettings = topicSettings
        self.remoteChannel = remoteChannel
        logger = Logger("cluster", to: sink)
        brokerID = config.brokerID
        conditions = Conditions(loop: host.loops[0])
        random = SeededRandom(seed: host.randomSeed())
        requests = BrokerRequests(
            replicas: replicas, metadata: metadata, loop: loop, logger: logger,
            config: { [unowned self] name in await topicConfig(name) },
            onImage: { [unowned self] in
                hasNews = true
                conditions.changed()
                for observer in imageObservers { observer() }
            })
        replicas.onReplacement = { [weak self] in
            guard let self else { return }
            for observer in imageObservers { observer() }
        }
        replicas.onAvailability = { [weak self] in self?.tellController() }
    }

    /// Replicas went offline, or may be back: the controller hears of it from the tree, orders everything again, and learns
    /// from the answers which they are.
    private func tellController() {
        mustTellController = true
        guard !isTellingController else { return }
        isTellingController = true
        loop.spawn { [self] in
            var hasComplained = false
            defer { isTellingController = false }
            while !isClosed, mustTellController {
                if let session, session.state == .connected {
                    mustTellController = false
                    do throws(KeeperError) {
                        _ = try await session.create(
                            "\(ClusterPath.directoryFailures)/\(ClusterPath.directoryFailurePrefix)",
                            DirectoryFailureNode(broker: brokerID).bytes, .persistentSequential)
                        continue
                    } catch {
                        mustTellController = true
                        if !hasComplained {
                            logger.warning("the controller cannot be told of its broker's replicas yet", ("reason", "\(error)"))
                        }
                        hasComplained = true
                    }
                }
                await loop.sleep(for: Self.rejoinDelay)
            }
        }
    }

    /// Calls whenever `metadata` has changed, after what this broker leads has, and whenever another `Partition` has
    /// taken the place of one. On the first loop.
    package func observeImage(_ observer: @escaping () -> Void) { imageObservers.append(observer) }

    /// Calls whenever what is set on groups, or dynamic settings of the broker, have changed. On the first loop.
    package func observeGroupConfigs(_ observer: @escaping () -> Void) { groupConfigObservers.append(observer) }

    func groupConfigsChanged() { for observer in groupConfigObservers { observer() } }

    // MARK: Start and end

    /// Joins the cluster, and returns when this broker serves what it has to: after the controller, perhaps itself, told it so.
    /// `listeners` are the addresses that clients are told of, with the ports that were bound. For a task of the first loop.
    package func start(listeners: [BrokerEndpoint]) async throws(ClusterError) {
        let session: any KeeperSession
        do throws(KeeperError) { session = try await access.openSession() } catch { throw .keeper(error) }
        let start = BrokerStart(session: session, member: self)
        let found = try await start.identify()
        (brokerID, clusterID) = (found.brokerID, found.clusterID)
        metadata.current = MetadataImage(clusterID: clusterID, controllerID: nil, brokers: [], topics: [])
        do throws(KeeperError) {
            try await readBrokerConfig(session)
            try await readQuotas(session)
        } catch { throw .keeper(error) }
        replicas.configChanged(config)
        let listeners = followListeners?(config) ?? listeners
        strangers = try await start.strangers()
        do throws(LogError) {
            try await replicas.claim(brokerID: brokerID, clusterID: clusterID)
        } catch { throw .log(error) }
        registration = BrokerNode(
            endpoints: listeners.map(described), rack: config.rack, timestamp: host.clock.wallMilliseconds)
        requests.epochs.brokerEpoch = try await start.register(registration)
        controller = Controller(
            ControllerSurroundings(
                brokerID: brokerID, host: host, running: running, logger: Logger("controller", to: logger.sink),
                wasStoppedUncleanly: replicas.wasStoppedUncleanly,
                channel: { [unowned self] in channel(to: $0) },
                onStep: { [unowned self] in conditions.changed() }))
        begin(session)
        while !(await conditions.wait(atMost: Self.settlingReportInterval) { self.hasNews }) {
            guard !isClosed else { throw .closed }
            logger.info("waiting for the controller to tell this broker what it serves")
        }
    }

    func described(_ listener: BrokerEndpoint) -> BrokerNode.Endpoint {
        let known =
            config.advertisedListeners.first { $0.name == listener.listener }
            ?? config.listeners.first { $0.name == listener.listener }
        return BrokerNode.Endpoint(
            listener: listener.listener, securityProtocol: known?.securityProtocol ?? .plaintext, host: listener.host,
            port: listener.port)
    }

    private func channel(to broker: LiveBroker) -> any ControllerChannel {
        if broker.id == brokerID { return LocalChannel(requests) }
        return remoteChannel?(broker) ?? UnreachableChannel()
    }

    private func begin(_ session: any KeeperSession) {
        self.session = session
        session.onStateChange = { [weak self] state in if state == .expired { self?.sessionEnded() } }
        controller?.begin(with: session)
        configMayHaveChanged()
        if session.state == .expired { sessionEnded() }
    }

    /// The session ran out, and the registration with it: another session, another registration.
    private func sessionEnded() {
        guard !isClosed, !isRejoining else { return }
        isRejoining = true
        logger.warning("the session with the coordination service ended; registering anew")
        loop.spawn { [self] in await rejoin() }
    }

    private func rejoin() async {
        while !isClosed {
            do throws(ClusterError) {
                let session: any KeeperSession
                do throws(KeeperError) { session = try await access.openSession() } catch { throw .keeper(error) }
                registration.timestamp = host.clock.wallMilliseconds
                requests.epochs.brokerEpoch = try await BrokerStart(session: session, member: self).register(registration)
                isRejoining = false
                if isClosed { await session.close() } else { begin(session) }
                return
            } catch {
                logger.warning("registering anew failed; tried again", ("reason", "\(error)"))
                await loop.sleep(for: Self.rejoinDelay)
            }
        }
        isRejoining = false
    }

    /// Leaves the cluster: the registration goes with the session. For a task of the first loop.
    package func close() async {
        guard !isClosed else { return }
        isClosed = true
        controller?.close()
        conditions.sendAway()
        await session?.close()
        session = nil
    }

    // MARK: Tasks for callers of other loops

    /// Runs `work` in a task of the first loop, and comes back to the caller's.
    func atHome<R: Sendable>(_ work: @escaping @Sendable () async -> R) async -> R {
        await withUnsafeContinuation { continuation in
            loop.spawn { continuation.resume(returning: await work()) }
        }
    }

    // MARK: Log directories

    /// From any loop.
    package func describeLogDirs() async -> [LogDirDescription] { await atHome { [self] in await replicas.describeLogDirs() } }

    /// Begins to move a replica of this broker to another of its log directories. From any loop.
    package func moveReplica(_ id: TopicPartition, to path: String) async -> ErrorCode {
        await atHome { [self] in await replicas.move(id, to: path) }
    }

    /// Writes down where the logs of a directory begin: durable when this returns, or why it is not. From any loop.
    package func keepLogStarts(in unit: LogDirectoryUnit) async -> LogError? {
        await atHome { [self] in await replicas.keepLogStarts(in: unit) }
    }

    // MARK: Producer ids

    /// An id for a producer; nil where none can be had now. From any loop.
    package func allocateProducerID() async -> ProducerID? { await atHome { [self] in await takeProducerID() } }

    private func takeProducerID() async -> ProducerID? {
        while true {
            if let id = producerIDs.take() { return id }
            guard let session, !isClosed else { return nil }
            if isClaimingProducerIDs {
                guard await conditions.wait(atMost: config.requestTimeout, until: { !self.isClaimingProducerIDs }) else {
                    return nil
                }
                continue
            }
            isClaimingProducerIDs = true
            let block = await ProducerIDBlocks.claim(session, for: brokerID, logger)
            isClaimingProducerIDs = false
            if let block { producerIDs.begin(block) }
            conditions.changed()
            if block == nil { return nil }
        }
    }
}
