package import MartletBasics

/// Everything a broker reads from its settings, resolved: `--set`, else the environment where that is read, else the
/// file, else the default.
package struct BrokerConfig: Sendable {
    /// As they were given: for the settings of topics, and for what DescribeConfigs tells.
    package var settings: BrokerSettings
    package var topics: TopicConfigResolver

    // MARK: identity and addresses
    /// -1 where none was given.
    package var brokerID: BrokerID
    package var rack: String?
    package var listeners: [Listener]
    /// One for each listener that clients are told of. An empty host is the machine's name, port 0 the one bound.
    package var advertisedListeners: [Listener]

    // MARK: directories
    package var logDirs: [String]
    package var keeperDir: String
    package var cutDir: String

    // MARK: topics
    package var autoCreateTopics: Bool
    package var deleteTopics: Bool
    package var partitions: Int32
    package var replicationFactor: Int16

    // MARK: logs
    package var retentionCheckInterval: Interval
    /// Before the first look at retention.
    package var firstTaskDelay: Interval
    package var recoveryPointCheckpointInterval: Interval
    package var logStartCheckpointInterval: Interval
    package var highWatermarkCheckpointInterval: Interval
    package var recoveryThreadsPerDir: Int32
    package var producerIDExpiration: Interval
    package var syncDelay: Interval

    // MARK: connections and requests
    package var eventLoops: Int32
    package var requestBytesLimit: Int32
    /// Nil where `memoryBytesLimit` alone bounds them.
    package var queuedRequestBytesLimit: Int64?
    /// Nil for a bound that depends on the machine.
    package var memoryBytesLimit: Int64?
    package var fetchBytesLimit: Int32
    package var fetchSessionLimit: Int32
    /// Of partitions in one answer to DescribeTopicPartitions.
    package var describedPartitionsLimit: Int32
    /// Nil where the system chooses.
    package var sendBufferBytes: Int32?
    package var receiveBufferBytes: Int32?
    package var listenBacklog: Int32
    /// Nil where connections may be idle for ever.
    package var connectionIdleLimit: Interval?
    package var connectionLimit: Int32
    package var connectionLimitPerAddress: Int32
    package var connectionLimitOverrides: [(host: String, count: Int32)]
    package var requestTimeout: Interval

    // MARK: what it tells of itself
    package var logLevels: LogLevels
    /// Nil where metrics are not told.
    package var metricsListener: MetricsListener?
    /// The start fails where a listener that was asked for cannot be had; without the one by default it goes on.
    package var isMetricsListenerGiven: Bool
    package var metricsLabelLimit: Int32

    /// What to tell the user at start: a sentence for each setting given that has no effect, and the like.
    package var warnings: [String] { settings.warnings }
    package var inertCount: Int { settings.inertCount }
}

extension BrokerConfig {
    /// Resolves the settings, and holds them against each other. `coordinationIsChosen` says that the user has said
    /// by what service this broker is coordinated, so that `zookeeper.connect` cannot be meant to say so.
    package static func resolve(
        file: [Property] = [], environment: EnvironmentSettings? = nil,
        overrides: [(name: String, value: String)] = [], coordinationIsChosen: Bool = false
    ) throws(ConfigError) -> BrokerConfig {
        var settings = try BrokerSettings(file: file, environment: environment, overrides: overrides)
        try settings.refuseWhatCannotBe(coordinationIsChosen: coordinationIsChosen)
        try settings.checkTimes()
        let (listeners, advertised) = try settings.listeners()
        let logDirs = try settings.directories()
        try settings.checkConnectionLimits()
        try settings.checkCleaner()
        let topics = TopicConfigResolver(settings)
        func time(_ name: String) -> Interval { .milliseconds(settings.int64(name)) }
        func limit(_ name: String) -> Int64? { settings.int64(name) > 0 ? settings.int64(name) : nil }
        func bufferBytes(_ name: String) -> Int32? { limit(name).map(Int32.init) }
        return BrokerConfig(
            settings: settings,
            topics: topics,
            brokerID: try settings.brokerID(),
            rack: settings.value("broker.rack")?.string.flatMap { $0.isEmpty ? nil : $0 },
            listeners: listeners,
            advertisedListeners: advertised,
            logDirs: logDirs,
            keeperDir: settings.string("martlet.keeper.dir"),
            cutDir: settings.string("martlet.cut.dir"),
            autoCreateTopics: settings.bool("auto.create.topics.enable"),
            deleteTopics: settings.bool("delete.topic.enable"),
            partitions: settings.int32("num.partitions"),
            replicationFactor: Int16(settings.int64("default.replication.factor")),
            retentionCheckInterval: time("log.retention.check.interval.ms"),
            firstTaskDelay: time("log.initial.task.delay.ms"),
            recoveryPointCheckpointInterval: time("log.flush.offset.checkpoint.interval.ms"),
            logStartCheckpointInterval: time("log.flush.start.offset.checkpoint.interval.ms"),
            highWatermarkCheckpointInterval: time("replica.high.watermark.checkpoint.interval.ms"),
            recoveryThreadsPerDir: settings.int32("num.recovery.threads.per.data.dir"),
            producerIDExpiration: time("producer.id.expiration.ms"),
            syncDelay: time("martlet.sync.delay.ms"),
            eventLoops: settings.int32("martlet.event.loops"),
            requestBytesLimit: settings.int32("socket.request.max.bytes"),
            queuedRequestBytesLimit: limit("queued.max.request.bytes"),
            memoryBytesLimit: limit("martlet.memory.limit.bytes"),
            fetchBytesLimit: settings.int32("fetch.max.bytes"),
            fetchSessionLimit: settings.int32("max.incremental.fetch.session.cache.slots"),
            describedPartitionsLimit: settings.int32("max.request.partition.size.limit"),
            sendBufferBytes: bufferBytes("socket.send.buffer.bytes"),
            receiveBufferBytes: bufferBytes("socket.receive.buffer.bytes"),
            listenBacklog: settings.int32("socket.listen.backlog.size"),
            connectionIdleLimit: settings.int64("connections.max.idle.ms") < 0 ? nil : time("connections.max.idle.ms"),
            connectionLimit: settings.int32("max.connections"),
            connectionLimitPerAddress: settings.int32("max.connections.per.ip"),
            connectionLimitOverrides: hostCounts(settings.string("max.connections.per.ip.overrides")) ?? [],
            requestTimeout: time("request.timeout.ms"),
            logLevels: LogLevels(settings.string("martlet.log.level")) ?? LogLevels(),
            metricsListener: try MetricsListener.from(settings, beside: listeners),
            isMetricsListenerGiven: settings.given("martlet.metrics.listener") != nil,
            metricsLabelLimit: settings.int32("martlet.metrics.labels.max"))
    }
}

extension BrokerConfig {
    /// With what was altered at run time, for all brokers and for this one. Whatever is not dynamic stays as it was
    /// resolved at the start.
    package func altered(clusterWide: [String: ConfigValue], own: [String: ConfigValue]) throws(ConfigError) -> BrokerConfig {
        var altered = self
        altered.settings = settings.altered(clusterWide: clusterWide, own: own)
        let settings = altered.settings
        try settings.checkTimes()
        try settings.checkConnectionLimits()
        try settings.checkCleaner()
        // what it warns of was said at the start
        (altered.listeners, altered.advertisedListeners) = try altered.settings.listeners()
        altered.topics = TopicConfigResolver(settings)
        altered.producerIDExpiration = .milliseconds(settings.int64("producer.id.expiration.ms"))
        altered.recoveryThreadsPerDir = settings.int32("num.recovery.threads.per.data.dir")
        altered.connectionLimit = settings.int32("max.connections")
        altered.connectionLimitPerAddress = settings.int32("max.connections.per.ip")
        altered.connectionLimitOverrides = hostCounts(settings.string("max.connections.per.ip.overrides")) ?? []
        return altered
    }
}

/// What must hold between settings.
extension BrokerSettings {
    fileprivate func refuseWhatCannotBe(coordinationIsChosen: Bool) throws(ConfigError) {
        if let ensemble = given("zookeeper.connect")?.string, !ensemble.isEmpty, !coordinationIsChosen {
            throw ConfigError(
                .unsupported, "zookeeper.connect",
                "zookeeper.connect is '\(ensemble)', but this broker was not told to use that ensemble: start it with "
                    + "--coordination embedded to let it keep the cluster's state itself, or remove zookeeper.connect")
        }
        if let roles = given("process.roles")?.list, !roles.isEmpty, !roles.contains("broker") {
            throw ConfigError(
                .unsupported, "process.roles",
                "process.roles is '\(roles.joined(separator: ","))': this is a broker, and cannot be a KRaft "
                    + "controller alone")
        }
        let replication = int64("default.replication.factor")
        guard replication <= Int16.max else {
            throw ConfigError(
                .invalidValue, "default.replication.factor",
                "default.replication.factor cannot be \(replication): a topic has at most \(Int16.max) replicas")
        }
    }

    fileprivate func brokerID() throws(ConfigError) -> BrokerID {
        let broker = given("broker.id")?.integer, node = given("node.id")?.integer
        if let broker, let node, broker != node {
            throw ConfigError(
                .contradiction, "node.id",
                "broker.id is \(broker) and node.id \(node): they must be the same, or one left out")
        }
        return Int32(broker ?? node ?? int64("broker.id"))
    }

    /// Times that may be given in several units: only what counts in the end is looked at, as in Kafka.
    fileprivate func checkTimes() throws(ConfigError) {
        func counting(_ names: String...) -> (name: String, value: Int64)? {
            for name in names { if let value = value(name)?.integer { return (name, value) } }
            return nil
        }
        let retention = counting("log.retention.ms", "log.retention.minutes", "log.retention.hours")
        if let (name, value) = retention, value == 0 {
            throw ConfigError(
                .invalidValue, name, "\(name) cannot be 0: it must be from 1 up, or -1 to keep records for ever")
        }
        if let (name, value) = counting("log.roll.ms", "log.roll.hours"), value < 1 {
            throw ConfigError(.invalidValue, name, "\(name) cannot be \(value): it must be from 1 up")
        }
        if let (name, value) = counting("log.roll.jitter.ms", "log.roll.jitter.hours"), value < 0 {
            throw ConfigError(.invalidValue, name, "\(name) cannot be \(value): it must be from 0 up")
        }
        if let (name, value) = counting("log.flush.interval.ms", "log.flush.scheduler.interval.ms"), value < 0 {
            throw ConfigError(.invalidValue, name, "\(name) cannot be \(value): it must be from 0 up")
        }
        let minimum = int64("log.cleaner.min.compaction.lag.ms"), maximum = int64("log.cleaner.max.compaction.lag.ms")
        guard minimum <= maximum else {
            throw ConfigError(
                .contradiction, "log.cleaner.min.compaction.lag.ms",
                "log.cleaner.min.compaction.lag.ms is \(minimum), which cannot be above "
                    + "log.cleaner.max.compaction.lag.ms, \(maximum)")
        }
    }

    fileprivate func checkCleaner() throws(ConfigError) {
        let map = int64("log.cleaner.dedupe.buffer.size"), threads = int64("log.cleaner.threads")
        guard map / threads > 1 << 20 else {
            throw ConfigError(
                .contradiction, "log.cleaner.dedupe.buffer.size",
                "log.cleaner.dedupe.buffer.size is \(map): it must be more than 1 MiB for each of log.cleaner.threads, "
                    + "\(threads)")
        }
    }

    fileprivate func checkConnectionLimits() throws(ConfigError) {
        let queued = int64("queued.max.request.bytes"), request = int64("socket.request.max.bytes")
        guard queued <= 0 || queued >= request else {
            throw ConfigError(
                .contradiction, "queued.max.request.bytes",
                "queued.max.request.bytes is \(queued): it must be at least socket.request.max.bytes, \(request), "
                    + "or -1")
        }
        guard int64("max.connections.per.ip") > 0 || !string("max.connections.per.ip.overrides").isEmpty else {
            throw ConfigError(
                .contradiction, "max.connections.per.ip",
                "max.connections.per.ip is 0, which shuts everyone out: it must be from 1 up where "
                    + "max.connections.per.ip.overrides lets nobody in")
        }
    }

    fileprivate func directories() throws(ConfigError) -> [String] {
        var setting = "log.dirs"
        var directories = list("log.dirs")
        if given("log.dirs") == nil, let older = given("log.dir")?.list {
            setting = "log.dir"
            directories = older
        }
        guard !directories.isEmpty, directories.allSatisfy({ !$0.isEmpty }) else {
            throw ConfigError(
                .invalidValue, setting, "\(setting) must name at least one directory, and none may be empty")
        }
        for (index, directory) in directories.enumerated() {
            let path = plainPath(directory)
            if directories[..<index].contains(where: { plainPath($0) == path }) {
                throw ConfigError(.contradiction, setting, "\(setting) names the directory \(directory) twice")
            }
            for own in ["martlet.keeper.dir", "martlet.cut.dir"] {
                guard !string(own).isEmpty else {
                    throw ConfigError(.invalidValue, own, "\(own) must name a directory")
                }
                if lies(plainPath(string(own)), in: path) {
                    throw ConfigError(
                        .contradiction, own,
                        "\(own) is \(string(own)), inside the data directory \(directory), where only partitions may "
                            + "be: it must lie outside")
                }
            }
        }
        return directories
    }

    private func lies(_ path: String, in directory: String) -> Bool {
        switch directory {
        case "": !path.hasPrefix("/")
        case "/": path.hasPrefix("/")
        default: path == directory || path.hasPrefix(directory + "/")
        }
    }

    /// Without what does not change where a path leads: `./a//b/` is `a/b`.
    private func plainPath(_ path: String) -> String {
        let parts = path.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
        return path.hasPrefix("/") ? "/" + parts : parts
    }

    fileprivate mutating func listeners() throws(ConfigError) -> (listeners: [Listener], advertised: [Listener]) {
        let protocols = try ListenerProtocols(string("listener.security.protocol.map"))
        let controllers = (value("controller.listener.names")?.list ?? []).map { $0.uppercased() }
        let listeners = try Listener.parse(
            list("listeners"), setting: "listeners", protocols: protocols, portsMustDiffer: true,
            leavingOut: controllers)
        guard !listeners.isEmpty else {
            throw ConfigError(.invalidValue, "listeners", "listeners must name at least one address for clients")
        }
        for listener in listeners where listener.securityProtocol != .plaintext {
            throw ConfigError(
                .unsupported, "listeners",
                "the listener \(listener) is of the protocol \(listener.securityProtocol.rawValue): only PLAINTEXT can "
                    + "be spoken so far, and nothing is opened in its place")
        }
        for name in controllers where list("listeners").contains(where: { $0.uppercased().hasPrefix(name + "://") }) {
            warn("the listener \(name) is not opened: it is a KRaft controller's")
        }
        var advertised = listeners
        var setting = "listeners"
        if let given = given("advertised.listeners")?.list, !given.isEmpty {
            setting = "advertised.listeners"
            advertised = try Listener.parse(
                given, setting: setting, protocols: protocols, portsMustDiffer: false, leavingOut: controllers)
        }
        for listener in advertised {
            guard listeners.contains(where: { $0.name == listener.name }) else {
                throw ConfigError(
                    .contradiction, setting,
                    "advertised.listeners has \(listener), but listeners has none called \(listener.name)")
            }
            guard !listener.isWildcard else {
                throw ConfigError(
                    .contradiction, "advertised.listeners",
                    "clients cannot be told to connect to \(listener.host): give advertised.listeners an address they "
                        + "can reach, or listeners no host at all (\(listener.name)://:\(listener.port))")
            }
        }
        return (listeners, advertised)
    }
}
