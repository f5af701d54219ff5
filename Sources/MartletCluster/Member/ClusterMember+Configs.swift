import MartletBasics
import MartletKeeper
package import MartletModel
import MartletReactor

/// Settings of topics, as the tree has them.
extension ClusterMember {
    /// Notifications older than this are removed, by any broker.
    private static let notificationLifetimeMilliseconds: Int64 = 15 * 60 * 1000

    /// What was set for a topic, by name; nil while the tree cannot be read. From any loop.
    package func topicOverrides(_ name: String) async -> TopicConfigResolver.Overrides? {
        await atHome { [self] in await readSettings(name)?.overrides }
    }

    /// What counts for a topic; nil while the tree cannot be read.
    func topicConfig(_ name: String) async -> TopicConfig? { await readSettings(name)?.config }

    private func readSettings(_ name: String) async -> (overrides: TopicConfigResolver.Overrides, config: TopicConfig)? {
        guard let session else { return nil }
        do throws(KeeperError) {
            return try await TopicReader(session: session, config: config, logger: logger).settings(of: name)
        } catch {
            logger.warning("the settings of a topic cannot be read", ("topic", name), ("reason", "\(error)"))
            return nil
        }
    }

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

    /// Nothing in a notification is trusted but whose settings changed: they are read anew. At the first look all that is there is taken
    /// for known: topics were, or will be, opened with what the tree says.
    private func readConfigChanges(_ session: any KeeperSession) async throws(KeeperError) {
        let watcher = Watcher { [weak self] _ in self?.configMayHaveChanged() }
        let names = try await session.children(ClusterPath.configChanges, watch: watcher).names
        let isFirst = lastConfigChange < 0
        if isFirst { lastConfigChange = 0 }
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
                if !isFirst, let topic = ConfigChangeNode(data)?.topic, topics.table.topic(topic) != nil,
                    let config = await topicConfig(topic) {
                    replicas.configChanged(topic: topic, config)
                }
            }
            if stat.ctime < host.clock.wallMilliseconds - Self.notificationLifetimeMilliseconds {
                do throws(KeeperError) { try await session.delete(path) } catch {
                    guard error.code == .noNode else { throw error }
                }
            }
        }
        lastConfigChange = latest
    }
}
