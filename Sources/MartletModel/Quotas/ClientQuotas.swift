/// All quotas of a cluster at one moment.
package final class ClientQuotas: Sendable {
    package typealias Values = [QuotaKind: Double]

    /// A bound that counts, and who shares it.
    package struct Bound: Hashable, Sendable {
        package var kind: QuotaKind
        package var value: Double
        /// Nil where clients of all users share it.
        package var user: String?
        /// Nil where all clients of the user share it.
        package var client: String?

        package init(_ kind: QuotaKind, _ value: Double, user: String?, client: String?) {
            (self.kind, self.value, self.user, self.client) = (kind, value, user, client)
        }
    }

    private let values: [QuotaEntity: Values]
    private let addresses: [IPAddress: Double]
    /// Whether anybody but addresses has a quota.
    package let concernsRequests: Bool
    package let concernsAddresses: Bool

    package init(_ values: [QuotaEntity: Values] = [:]) {
        self.values = values.filter { !$0.value.isEmpty }
        var addresses: [IPAddress: Double] = [:]
        var concernsRequests = false, concernsAddresses = false
        // in any order: of two spellings of one address the lower bound counts
        for (entity, values) in self.values {
            guard case .address(let name) = entity else {
                concernsRequests = true
                continue
            }
            guard let rate = values[.connections] else { continue }
            concernsAddresses = true
            if let address = name.name.flatMap({ IPAddress($0) }) { addresses[address] = min(rate, addresses[address] ?? rate) }
        }
        self.addresses = addresses
        self.concernsRequests = concernsRequests
        self.concernsAddresses = concernsAddresses
    }

    package subscript(_ entity: QuotaEntity) -> Values { values[entity] ?? [:] }

    /// The same with other values for one entity.
    package func with(_ entity: QuotaEntity, _ changed: Values) -> ClientQuotas {
        var all = values
        all[entity] = changed
        return ClientQuotas(all)
    }

    /// By entity: users before clients before addresses, the default of each last.
    package var sorted: [(entity: QuotaEntity, values: Values)] {
        values.sorted { $0.key.order.lexicographicallyPrecedes($1.key.order) }.map { ($0.key, $0.value) }
    }

    // MARK: What counts

    /// The bound of a kind for requests of a user and client id: the first that is set of
    ///
    ///     user and client · user and other clients · user
    ///     other users and client · other users and other clients · other users
    ///     client · other clients
    ///
    /// Who is named by the entity that it is set for shares it: all clients of a user where it is the user's. A default
    /// is each one's own.
    package func bound(_ kind: QuotaKind, user: String, client: String) -> Bound? {
        for userName in [QuotaName.named(user), .everyOther] {
            for clientName in [QuotaName.named(client), .everyOther] {
                if let value = values[.userClient(user: userName, client: clientName)]?[kind] {
                    return Bound(kind, value, user: user, client: client)
                }
            }
            if let value = values[.user(userName)]?[kind] { return Bound(kind, value, user: user, client: nil) }
        }
        for clientName in [QuotaName.named(client), .everyOther] {
            if let value = values[.client(clientName)]?[kind] { return Bound(kind, value, user: nil, client: client) }
        }
        return nil
    }

    /// How many connections a second an address may make; nil for any number.
    package func connectionRate(of address: IPAddress?) -> Double? {
        address.flatMap { addresses[$0] } ?? values[.address(.everyOther)]?[.connections]
    }

    // MARK: Asking

    /// One condition of a question for quotas.
    package struct Condition: Sendable, Equatable {
        package enum Match: Sendable, Equatable {
            case name(String)
            case everyOther
            case any
        }

        package var part: QuotaEntity.Part
        package var match: Match

        package init(_ part: QuotaEntity.Part, _ match: Match) {
            self.part = part
            self.match = match
        }
    }

    /// The entities that meet all conditions; `isStrict` leaves out those that have other parts beside.
    package func matching(_ conditions: [Condition], isStrict: Bool) -> [(entity: QuotaEntity, values: Values)] {
        sorted.filter { entry in
            if isStrict, entry.entity.parts.count != conditions.count { return false }
            return conditions.allSatisfy { condition in
                guard let name = entry.entity.name(of: condition.part) else { return false }
                switch condition.match {
                case .any: return true
                case .everyOther: return name == .everyOther
                case .name(let wanted): return name == .named(wanted)
                }
            }
        }
    }
}

extension QuotaEntity {
    fileprivate var order: [String] {
        func word(_ name: QuotaName) -> String { name.name.map { "a" + $0 } ?? "b" }
        switch self {
        case .user(let name): return ["1", word(name)]
        case .userClient(let user, let client): return ["1", word(user), word(client)]
        case .client(let name): return ["2", word(name)]
        case .address(let name): return ["3", word(name)]
        }
    }
}
