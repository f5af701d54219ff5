import MartletBasics
import MartletKeeper
package import MartletModel
import MartletReactor

/// Quotas of users, clients and addresses, as the tree has them. A user's node may hold its SCRAM credentials beside
/// them, which stay as they are.
extension ClusterMember {
    // MARK: Reading

    /// All of them, at the start.
    func readQuotas(_ session: any KeeperSession) async throws(KeeperError) {
        var entities: [QuotaEntity] = []
        for user in try await named(under: ClusterPath.userConfigs, session) {
            entities.append(.user(user))
            for client in try await named(under: QuotaEntity.clients(of: user), session) {
                entities.append(.userClient(user: user, client: client))
            }
        }
        for client in try await named(under: ClusterPath.clientConfigs, session) { entities.append(.client(client)) }
        for address in try await named(under: ClusterPath.addressConfigs, session) { entities.append(.address(address)) }
        var values: [QuotaEntity: ClientQuotas.Values] = [:]
        for entity in entities { values[entity] = bounds(try await storedQuotas(entity, session).settings, of: entity) }
        take(ClientQuotas(values))
    }

    /// Those of one that a notification names.
    func readQuotas(of entity: QuotaEntity, _ session: any KeeperSession) async throws(KeeperError) {
        let values = bounds(try await storedQuotas(entity, session).settings, of: entity)
        guard values != quotas[entity] else { return }
        take(quotas.with(entity, values))
    }

    private func take(_ changed: ClientQuotas) {
        quotas = changed
        onQuotas?(changed)
    }

    private func named(under path: String, _ session: any KeeperSession) async throws(KeeperError) -> [QuotaName] {
        do throws(KeeperError) {
            return try await session.children(path).names.compactMap(QuotaEntity.name(ofNode:))
        } catch {
            guard error.code == .noNode else { throw error }
            return []
        }
    }

    /// A version of nil: there is no such node. One without data is a user that only its clients' quotas brought about.
    private func storedQuotas(
        _ entity: QuotaEntity, _ session: any KeeperSession
    ) async throws(KeeperError) -> (settings: [(name: String, value: String)], version: Int32?) {
        do throws(KeeperError) {
            let (data, stat) = try await session.get(entity.path)
            guard let data, !data.isEmpty else { return ([], stat.version) }
            guard let node = ConfigNode(data) else {
                logger.error(
                    "a node of the coordination tree cannot be read, and is passed over: correct it", ("path", entity.path))
                return ([], stat.version)
            }
            return (node.overrides, stat.version)
        } catch {
            guard error.code == .noNode else { throw error }
            return ([], nil)
        }
    }

    private func bounds(_ settings: [(name: String, value: String)], of entity: QuotaEntity) -> ClientQuotas.Values {
        var values: ClientQuotas.Values = [:]
        for (name, text) in settings {
            guard let kind = QuotaKind(rawValue: name) else { continue }
            guard let value = kind.value(text) else {
                logger.warning(
                    "a quota of the tree is no bound, and is passed over", ("path", entity.path), ("quota", name),
                    ("value", text))
                continue
            }
            values[kind] = value
        }
        return values
    }

    /// As they count on this broker. From any loop.
    package func currentQuotas() async -> ClientQuotas { await atHome { [self] in quotas } }

    // MARK: Altering

    /// Alters the quotas of one entity, all edits or none, and answers when they act on this broker. From any loop.
    package func alterQuotas(of entity: QuotaEntity, _ edits: [QuotaEdit], validateOnly: Bool) async -> ConfigFault? {
        await atHome { [self] in await alter(entity, edits, validateOnly: validateOnly) }
    }

    private func alter(_ entity: QuotaEntity, _ edits: [QuotaEdit], validateOnly: Bool) async -> ConfigFault? {
        // what cannot be is refused whatever the tree says
        if case .failure(let fault) = QuotaEdit.changing([], edits, of: entity) { return fault }
        if validateOnly { return nil }
        for _ in 0..<Self.alterationAttempts {
            guard let session else { return ConfigFault(.unknownServerError, "This broker is being stopped.") }
            do throws(KeeperError) {
                let (present, version) = try await storedQuotas(entity, session)
                let wanted: [(name: String, value: String)]
                switch QuotaEdit.changing(present, edits, of: entity) {
                case .failure(let fault): return fault
                case .success(let changed): wanted = changed
                }
                if present.elementsEqual(wanted, by: { $0 == $1 }) { return nil }
                let data = ConfigNode(wanted).bytes
                let write: KeeperOperation =
                    version.map { .setData(path: entity.path, data: data, version: $0) }
                    ?? .create(path: entity.path, data: data, acl: ACL.open, mode: .persistent)
                let results = try await session.multi([write, Self.notification(of: entity.entityPath)])
                await waitUntilActing(results)
                return nil
            } catch {
                switch error.code {
                case .noNode: if let fault = await makeAncestors(of: entity, session) { return fault }
                case .badVersion, .nodeExists: continue
                default: return ConfigFault(.unknownServerError, "The coordination service refused: \(error).")
                }
            }
        }
        return ConfigFault(.unknownServerError, "Others alter the same quotas at the same time: try again.")
    }

    /// A client of a user lies two levels below the user.
    private func makeAncestors(of entity: QuotaEntity, _ session: any KeeperSession) async -> ConfigFault? {
        if case .userClient(let user, _) = entity,
            let fault = await makeParent(of: QuotaEntity.clients(of: user), session)
        {
            return fault
        }
        return await makeParent(of: entity.path, session)
    }
}
