import MartletBasics
import MartletKeeper
package import MartletModel
import MartletReactor

/// What is to be set, of what is.
package typealias ConfigDecision =
    @Sendable (ConfigAlteration, ConfigAlteration.Stored) -> Result<ConfigAlteration.Stored, ConfigFault>

/// Settings of topics, brokers, groups and subscriptions to clients' metrics, as the tree has them.
extension ClusterMember {
    /// Notifications older than this are removed, by any broker.
    private static let notificationLifetimeMilliseconds: Int64 = 15 * 60 * 1000
    static let alterationAttempts = 8
    /// How long an alteration is answered late so that it acts when it is answered.
    private static let alterationPatience = Interval.seconds(5)

    // MARK: Reading

    /// What was set for a topic, by name; nil while the tree cannot be read. From any loop.
    package func topicOverrides(_ name: String) async -> TopicConfigResolver.Overrides? { await overrides(of: .topic(name)) }

    /// What was set, by name; nil while the tree cannot be read. From any loop.
    package func overrides(of target: ConfigTarget) async -> TopicConfigResolver.Overrides? {
        await atHome { [self] in
            guard let session else { return nil }
            do throws(KeeperError) {
                return try await stored(target, session).overrides
            } catch {
                logger.warning("settings cannot be read", ("path", target.path), ("reason", "\(error)"))
                return nil
            }
        }
    }

    /// The groups, or the subscriptions, that have settings; nil while the tree cannot be read. From any loop.
    package func namesOfGroupConfigs() async -> [String]? { await names(under: ClusterPath.groupConfigs) }
    package func namesOfClientMetrics() async -> [String]? { await names(under: ClusterPath.clientMetricsConfigs) }

    private func names(under path: String) async -> [String]? {
        await atHome { [self] in
            guard let session else { return nil }
            do throws(KeeperError) {
                return try await session.children(path).names.compactMap(NodeName.decoded).sorted()
            } catch {
                return error.code == .noNode ? [] : nil
            }
        }
    }

    /// What counts for a topic; nil while the tree cannot be read.
    func topicConfig(_ name: String) async -> TopicConfig? {
        guard let session else { return nil }
        do throws(KeeperError) {
            return try await TopicReader(session: session, config: config, logger: logger).settings(of: name).config
        } catch {
            logger.warning("the settings of a topic cannot be read", ("topic", name), ("reason", "\(error)"))
            return nil
        }
    }

    private func stored(
        _ target: ConfigTarget, _ session: any KeeperSession
    ) async throws(KeeperError) -> (overrides: TopicConfigResolver.Overrides, version: Int32?) {
        do throws(KeeperError) {
            let (data, stat) = try await session.get(target.path)
            guard let node = ConfigNode(data) else {
                logger.error(
                    "a node of the coordination tree cannot be read, and is passed over: correct it", ("path", target.path))
                return ([], stat.version)
            }
            return (node.overrides, stat.version)
        } catch {
            guard error.code == .noNode else { throw error }
            return ([], nil)
        }
    }

    // MARK: Altering

    /// Alters settings as `decide` says, whole or not at all, and answers when they act on this broker. From any loop.
    package func alterConfig(
        of target: ConfigTarget, validateOnly: Bool,
        _ decide: @escaping ConfigDecision
    ) async -> ConfigFault? {
        await atHome { [self] in
            let fault = await alter(target, validateOnly: validateOnly, decide)
            // what was opened for settings that are not to be
            if fault != nil, target == .broker(brokerID) { _ = followListeners?(config) }
            return fault
        }
    }

    private func alter(
        _ target: ConfigTarget, validateOnly: Bool,
        _ decide: ConfigDecision
    ) async -> ConfigFault? {
        for _ in 0..<Self.alterationAttempts {
            guard let session else { return ConfigFault(.unknownServerError, "This broker is being stopped.") }
            do throws(KeeperError) {
                let (present, version) = try await stored(target, session)
                let wanted: ConfigAlteration.Stored
                switch decide(ConfigAlteration(of: target, config), present) {
                case .failure(let fault): return fault
                case .success(let decided): wanted = decided
                }
                if validateOnly || present.elementsEqual(wanted, by: { $0 == $1 }) { return nil }
                if target == .broker(brokerID), let reason = open(wanted) { return ConfigFault(.invalidRequest, reason) }
                let results = try await session.multi(Self.writing(wanted, target, version))
                await waitUntilActing(results)
                return nil
            } catch {
                switch error.code {
                // of the parent, or of what went meanwhile; a topic that is gone has no settings
                case .noNode:
                    if case .topic = target, error.operations.first == .noNode {
                        return ConfigFault(.unknownTopicOrPartition, "This server does not host this topic.")
                    }
                    if let fault = await makeParent(of: target, session) { return fault }
                case .badVersion, .nodeExists: continue
                default: return ConfigFault(.unknownServerError, "The coordination service refused: \(error).")
                }
            }
        }
        return ConfigFault(.unknownServerError, "Others alter the same settings at the same time: try again.")
    }

    /// Opens the listeners that this broker's settings ask for, before anything is written: an address that cannot be
    /// had is a reason to refuse.
    private func open(_ own: ConfigAlteration.Stored) -> String? {
        let clusterWide = config.settings.values(in: .dynamicDefaultBroker)
        guard let next = try? startConfig.altered(clusterWide: clusterWide, own: values(own, of: .broker(brokerID)))
        else { return nil }
        return next.listeners == config.listeners ? nil : openListeners?(next)
    }

    /// The settings and the notification of them, both or none.
    private static func writing(
        _ wanted: ConfigAlteration.Stored, _ target: ConfigTarget, _ version: Int32?
    ) -> [KeeperOperation] {
        var operations: [KeeperOperation] = []
        if case .topic(let name) = target { operations.append(.check(path: ClusterPath.topic(name), version: -1)) }
        let isKeptEmpty =
            switch target {
            case .topic, .broker, .brokers: true
            case .group, .clientMetrics: false
            }
        let data = ConfigNode(wanted).bytes
        if let version {
            operations.append(
                wanted.isEmpty && !isKeptEmpty
                    ? .delete(path: target.path, version: version) : .setData(path: target.path, data: data, version: version))
        } else {
            operations.append(.create(path: target.path, data: data, acl: ACL.open, mode: .persistent))
        }
        if let entity = target.entityPath {
            operations.append(notification(of: entity))
        }
        return operations
    }

    static func notification(of entityPath: String) -> KeeperOperation {
        .create(
            path: ClusterPath.configChanges + "/" + ClusterPath.configChangePrefix,
            data: ConfigChangeNode(entityPath: entityPath).bytes, acl: ACL.open, mode: .persistentSequential)
    }

    private func makeParent(of target: ConfigTarget, _ session: any KeeperSession) async -> ConfigFault? {
        await makeParent(of: target.path, session)
    }

    func makeParent(of path: String, _ session: any KeeperSession) async -> ConfigFault? {
        guard let parent = ClusterPath.parent(of: path) else { return nil }
        do throws(KeeperError) {
            _ = try await session.create(parent, nil)
            return nil
        } catch {
            if error.code == .nodeExists { return nil }
            return ConfigFault(.unknownServerError, "The coordination service refused: \(error).")
        }
    }

    /// What is written counts; only how soon it is seen to act is waited for here.
    func waitUntilActing(_ results: [OperationResult]) async {
        guard case .created(let path, _)? = results.last, let number = Self.number(ofNotification: path) else { return }
        _ = await conditions.wait(atMost: Self.alterationPatience) { [self] in lastConfigChange > number || isClosed }
    }

    private static func number(ofNotification path: String) -> Int64? {
        let prefix = ClusterPath.configChanges + "/" + ClusterPath.configChangePrefix
        return path.hasPrefix(prefix) ? Int64(path.dropFirst(prefix.count)) : nil
    }

    // MARK: Acting

    /// Looks at the notifications of changed settings; however often it is called meanwhile, once more after that.
    func configMayHaveChanged() {
        hasConfigChanges = true
        guard !isReadingConfigChanges else { return }
        isReadingConfigChanges = true
        loop.spawn { [self] in
            while hasConfigChanges, let session, !isClosed {
                hasConfigChanges = false
                do throws(KeeperError) {
                    try await readConfigChanges(session)
                } catch {
                    logger.warning("changed settings cannot be read", ("reason", "\(error)"))
                    guard session.state == .connected || session.state == .suspended else { break }
                    await loop.sleep(for: Self.rejoinDelay)
                    hasConfigChanges = true
                }
            }
            isReadingConfigChanges = false
        }
    }

    /// Nothing in a notification is trusted but whose settings changed: they are read anew. At the first look all that
    /// is there is taken for known: topics were, or will be, opened with what the tree says.
    private func readConfigChanges(_ session: any KeeperSession) async throws(KeeperError) {
        let watcher = Watcher { [weak self] _ in self?.configMayHaveChanged() }
        let names = try await session.children(ClusterPath.configChanges, watch: watcher).names
        let isFirst = lastConfigChange < 0
        if isFirst {
            lastConfigChange = 0
            // they may have changed since the start read them
            if try await readBrokerConfig(session) { await applyBrokerConfig() }
            for name in await namesOfGroupConfigs() ?? [] { try await readGroupConfig(name, session) }
            groupConfigsChanged()
            try await readQuotas(session)
        }
        var latest = lastConfigChange
        for name in names {
            guard name.hasPrefix(ClusterPath.configChangePrefix),
                let number = Int64(name.dropFirst(ClusterPath.configChangePrefix.count))
            else { continue }
            let path = ClusterPath.configChanges + "/" + name
            let (data, stat): ([UInt8]?, Stat)
            do throws(KeeperError) { (data, stat) = try await session.get(path) } catch {
                // removed by another broker
                if error.code == .noNode { continue }
                throw error
            }
            // numbers begin at 0; the mark is one above the last
            if number + 1 > lastConfigChange {
                latest = max(latest, number + 1)
                if !isFirst, let change = ConfigChangeNode(data) { try await carryOut(change, session) }
            }
            if stat.ctime < host.clock.wallMilliseconds - Self.notificationLifetimeMilliseconds {
                do throws(KeeperError) { try await session.delete(path) } catch {
                    guard error.code == .noNode else { throw error }
                }
            }
        }
        lastConfigChange = latest
        conditions.changed()
    }

    private func carryOut(_ change: ConfigChangeNode, _ session: any KeeperSession) async throws(KeeperError) {
        if let entity = QuotaEntity(entityPath: change.entityPath) { return try await readQuotas(of: entity, session) }
        switch change.target {
        case nil: return
        case .topic(let name):
            guard topics.table.topic(name) != nil, let config = await topicConfig(name) else { return }
            replicas.configChanged(topic: name, config)
        case .broker(let id) where id != brokerID: return
        case .broker, .brokers: if try await readBrokerConfig(session) { await applyBrokerConfig() }
        case .group(let name):
            try await readGroupConfig(name, session)
            groupConfigsChanged()
        case .clientMetrics: return
        }
    }

    private func readGroupConfig(_ name: String, _ session: any KeeperSession) async throws(KeeperError) {
        groupConfigs[name] = try await stored(.group(name), session).overrides
    }

    /// Takes over what was altered of this broker's settings; false where nothing is new. What cannot be taken is
    /// passed over, and said: a broker of another release may have written it.
    @discardableResult
    func readBrokerConfig(_ session: any KeeperSession) async throws(KeeperError) -> Bool {
        let clusterWide = values(try await stored(.brokers, session).overrides, of: .brokers)
        let own = values(try await stored(.broker(brokerID), session).overrides, of: .broker(brokerID))
        let settings = config.settings
        let isNew = clusterWide != settings.values(in: .dynamicDefaultBroker) || own != settings.values(in: .dynamicBroker)
        guard isNew else { return false }
        do throws(ConfigError) {
            running.current = try startConfig.altered(clusterWide: clusterWide, own: own)
        } catch {
            logger.error("the broker's settings were altered to what cannot be, and stay as they are", ("reason", "\(error)"))
            return false
        }
        return true
    }

    private func values(_ overrides: TopicConfigResolver.Overrides, of target: ConfigTarget) -> [String: ConfigValue] {
        var values: [String: ConfigValue] = [:]
        for (name, text) in overrides {
            guard let definition = ConfigTable.shared.definition(name, for: .broker), !definition.isReadOnly else {
                logger.warning(
                    "a setting of the tree is none that can be altered, and is passed over", ("setting", name),
                    ("path", target.path))
                continue
            }
            do throws(ConfigError) { values[name] = try definition.parse(text) } catch {
                logger.warning("a setting of the tree is passed over", ("path", target.path), ("reason", "\(error)"))
            }
        }
        return values
    }

    /// The broker's settings are what topics have that say nothing themselves.
    private func applyBrokerConfig() async {
        logger.info("settings of the broker were altered")
        await registerListeners()
        replicas.configChanged(config)
        groupConfigsChanged()
        for topic in topics.table.sorted {
            guard let config = await topicConfig(topic.name) else { continue }
            replicas.configChanged(topic: topic.name, config)
        }
    }

    /// Listens where the settings say, and tells the cluster so.
    private func registerListeners() async {
        guard let endpoints = followListeners?(config).map(described), endpoints != registration.endpoints, let session
        else { return }
        registration.endpoints = endpoints
        do throws(KeeperError) {
            _ = try await session.set(ClusterPath.broker(brokerID), registration.bytes)
        } catch {
            // the session has ended: the next registration brings it
            logger.warning("the broker's addresses could not be registered", ("reason", "\(error)"))
        }
    }
}
