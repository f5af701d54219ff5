package import MartletBasics
package import MartletCluster
import MartletKeeper
import MartletLog
package import MartletModel
package import MartletReactor

/// A whole broker: keeper, log directories, membership and listeners, started in this order and stopped in the opposite
/// one. The same for the program and for a simulated world.
///
/// Confined to the first loop of its host.
package final class BrokerProcess: @unchecked Sendable {
    private let host: any Host
    private let config: BrokerConfig
    private let sink: any LogSink
    private let memoryBytes: Int64
    private let topicSettings: TopicSettingsFile?
    private var keeper: EmbeddedKeeper?
    private var replicas: ReplicaHost?
    private var member: ClusterMember?
    package private(set) var broker: Broker?
    private let gathering: MetricsGathering
    private var endpoint: MetricsEndpoint?
    /// Where metrics are told.
    package var metricsAddresses: [SocketAddress] { endpoint?.addresses ?? [] }
    /// Why they are not, where nobody has asked for that.
    package private(set) var metricsFault: String?
    private var isStopping = false
    /// Called once when the broker cannot go on (the keeper's disk failed), with a sentence.
    package var onFatal: (@Sendable (String) -> Void)?
    /// Called with the levels of the log that count, from the start on and whenever they are altered.
    package var onLogLevels: (@Sendable (LogLevels) -> Void)?

    /// `memoryBytes`: the memory of the machine, from which bounds follow that the settings leave open. `topicSettings`: for
    /// the topics of log directories that are taken over.
    package init(
        host: any Host, config: BrokerConfig, sink: any LogSink, memoryBytes: Int64, topicSettings: TopicSettingsFile? = nil
    ) {
        self.topicSettings = topicSettings
        self.host = host
        self.config = config
        self.sink = sink
        self.memoryBytes = memoryBytes
        gathering = MetricsGathering(host: host, config: config)
    }

    /// Returns when clients are served. What it throws is a sentence for the user.
    package func start() async throws(StartFault) {
        let loop = host.loops[0]
        do {
            // first of all: a start that takes long is live, and not ready
            try openEndpoint()
            let replicas = try ReplicaHost.open(host: host, config: config, sink: sink)
            self.replicas = replicas
            gathering.replicas = replicas
            replicas.onNothingLeft = { [weak self] reason in self?.onFatal?(reason) }
            let keeper = try await EmbeddedKeeper.open(
                host: host, loop: loop, settings: KeeperSettings(directory: config.keeperDir), logger: Logger("keeper", to: sink))
            self.keeper = keeper
            gathering.keeper = keeper
            keeper.onFatal = { [weak self] error in self?.onFatal?("The keeper can write no more: \(error). Nothing is served without it.") }
            let member = ClusterMember(
                host: host, config: config, coordination: .embedded(keeper, on: loop), replicas: replicas, sink: sink,
                topicSettings: topicSettings)
            self.member = member
            let broker = Broker(host: host, config: config, cluster: member, sink: sink, memoryBytes: memoryBytes)
            self.broker = broker
            if let onLogLevels { broker.loggers.follow(onLogLevels) }
            gathering.broker = broker
            try broker.listen()
            try await member.start(listeners: broker.advertisedEndpoints)
            broker.open()
            gathering.isReady = !isStopping
        } catch let fault as StartFault {
            throw fault
        } catch {
            throw StartFault("\(error)")
        }
    }

    /// The port for metrics. Without one by default a broker does what it is there for all the same.
    private func openEndpoint() throws(StartFault) {
        guard let listener = config.metricsListener else { return }
        let endpoint = MetricsEndpoint(
            host: host, listener: listener, log: Logger("metrics", to: sink), gathering: gathering,
            unreadiness: { [weak self] in self?.unreadiness })
        do throws(StartFault) {
            try endpoint.listen()
            self.endpoint = endpoint
        } catch {
            if config.isMetricsListenerGiven { throw error }
            metricsFault = error.description
            Logger("metrics", to: sink).info(
                "metrics are not told", ("listener", listener.description), ("reason", error.description))
        }
    }

    private var unreadiness: String? {
        if isStopping { return "The broker is stopping." }
        return gathering.isReady ? nil : "The broker is starting."
    }

    /// Lets go of everything in order, so that the next start has nothing to recover. After a failed start too.
    package func stop() async {
        isStopping = true
        gathering.isReady = false
        await broker?.stop()
        await member?.close()
        await replicas?.close()
        await keeper?.close()
        gathering.stop()
        endpoint?.stop()
    }
}
