package import MartletModel

/// Where quotas are kept in the tree, as Kafka 3.9 does: `/config/users/alice/clients/<default>`. Names are encoded, so
/// that `<default>` is nobody's.
extension QuotaEntity {
    private static let everyOther = "<default>"

    package var path: String {
        switch self {
        case .user(let user): ClusterPath.userConfigs + "/" + Self.node(user)
        case .client(let client): ClusterPath.clientConfigs + "/" + Self.node(client)
        case .userClient(let user, let client): Self.clients(of: user) + "/" + Self.node(client)
        case .address(let address): ClusterPath.addressConfigs + "/" + Self.node(address)
        }
    }

    package static func clients(of user: QuotaName) -> String {
        ClusterPath.userConfigs + "/" + node(user) + "/clients"
    }

    /// What a notification of a change says.
    package var entityPath: String { String(path.dropFirst("/config/".count)) }

    package init?(entityPath: String) {
        let parts = entityPath.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2 || parts.count == 4, let name = Self.name(ofNode: parts[1]) else { return nil }
        switch (parts[0], parts.count) {
        case ("users", 2): self = .user(name)
        case ("clients", 2): self = .client(name)
        case ("ips", 2): self = .address(name)
        case ("users", 4):
            guard parts[2] == "clients", let client = Self.name(ofNode: parts[3]) else { return nil }
            self = .userClient(user: name, client: client)
        default: return nil
        }
    }

    private static func node(_ name: QuotaName) -> String {
        switch name {
        case .named(let name): NodeName.encoded(name)
        case .everyOther: everyOther
        }
    }

    /// Nil for a node that names nobody.
    package static func name(ofNode node: String) -> QuotaName? {
        if node == everyOther { return .everyOther }
        return NodeName.decoded(node).flatMap { $0.isEmpty ? nil : .named($0) }
    }
}
