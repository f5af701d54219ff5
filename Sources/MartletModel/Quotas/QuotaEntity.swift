/// A name in an entity that quotas are set for.
package enum QuotaName: Hashable, Sendable {
    case named(String)
    /// All that have no quota by their own name: `<default>` in the tree, null on the wire.
    case everyOther

    package var name: String? {
        if case .named(let name) = self { name } else { nil }
    }
}

/// Whom quotas are set for.
package enum QuotaEntity: Hashable, Sendable {
    case user(QuotaName)
    case client(QuotaName)
    /// A client id of a user.
    case userClient(user: QuotaName, client: QuotaName)
    case address(QuotaName)

    package enum Part: String, Sendable {
        case user
        case client = "client-id"
        case address = "ip"
    }

    /// As requests name it: its types and names.
    package var parts: [(type: Part, name: QuotaName)] {
        switch self {
        case .user(let name): [(.user, name)]
        case .client(let name): [(.client, name)]
        case .userClient(let user, let client): [(.user, user), (.client, client)]
        case .address(let name): [(.address, name)]
        }
    }

    package func name(of part: Part) -> QuotaName? { parts.first { $0.type == part }?.name }

    /// From what a request names, or why there is no such entity.
    package static func read(_ named: [(type: String, name: String?)]) -> Result<QuotaEntity, ConfigFault> {
        func refused(_ message: String) -> Result<QuotaEntity, ConfigFault> { .failure(ConfigFault(.invalidRequest, message)) }
        var found: [Part: QuotaName] = [:]
        for (type, name) in named {
            guard let part = Part(rawValue: type) else {
                return refused("There is no type of entity '\(type.prefix(100))': say user, client-id or ip.")
            }
            if name == "" { return refused("The name of a \(type) is empty; null stands for all others.") }
            guard found.updateValue(name.map { .named($0) } ?? .everyOther, forKey: part) == nil else {
                return refused("The type \(type) is named twice.")
            }
        }
        switch (found[.user], found[.client], found[.address]) {
        case (let user?, nil, nil): return .success(.user(user))
        case (nil, let client?, nil): return .success(.client(client))
        case (let user?, let client?, nil): return .success(.userClient(user: user, client: client))
        case (nil, nil, let address?):
            if let text = address.name, IPAddress(text) == nil { return refused("'\(text.prefix(100))' is no IP address.") }
            return .success(.address(address))
        case (nil, nil, nil): return refused("No entity is named: say user, client-id or ip.")
        default: return refused("An address has no quotas together with a user or a client.")
        }
    }
}

/// What is bounded, by the names that Kafka gave.
package enum QuotaKind: String, CaseIterable, Sendable {
    case consumerBytes = "consumer_byte_rate"
    case producerBytes = "producer_byte_rate"
    /// Of one processor's time, in percent.
    case requestTime = "request_percentage"
    /// Partitions that are created or deleted, a second.
    case mutations = "controller_mutation_rate"
    case connections = "connection_creation_rate"

    private var isWhole: Bool {
        switch self {
        case .consumerBytes, .producerBytes, .connections: true
        case .requestTime, .mutations: false
        }
    }

    private func isFor(_ entity: QuotaEntity) -> Bool {
        if case .address = entity { self == .connections } else { self != .connections }
    }

    /// A value that a request gives, or why it cannot be.
    package static func read(_ key: String, _ value: Double, for entity: QuotaEntity) -> Result<Double, ConfigFault> {
        func refused(_ message: String) -> Result<Double, ConfigFault> { .failure(ConfigFault(.invalidRequest, message)) }
        guard let kind = QuotaKind(rawValue: key), kind.isFor(entity) else {
            let known = allCases.filter { $0.isFor(entity) }.map(\.rawValue).joined(separator: ", ")
            return refused("'\(key.prefix(100))' is no quota of such an entity: there is \(known).")
        }
        guard value.isFinite, value > 0 else { return refused("\(key) must be more than 0.") }
        guard kind.isWhole else { return .success(value) }
        let most = kind == .connections ? Double(Int32.max) : 0x1p62
        guard value <= most else { return refused("\(key) is at most \(Int64(most)).") }
        // clients reckon with binary fractions of what users wrote
        guard (value - value.rounded()).magnitude <= 1e-6, value.rounded() >= 1 else {
            return refused("\(key) must be a whole number.")
        }
        return .success(value.rounded())
    }

    /// As Kafka writes it into the tree: rates of bytes and connections without a fraction.
    package func text(_ value: Double) -> String { isWhole ? "\(Int64(value))" : "\(value)" }

    /// From the tree; nil for what cannot be a bound.
    package func value(_ text: String) -> Double? {
        guard let value = Double(text), value.isFinite, value > 0 else { return nil }
        return value
    }
}

/// A change of one quota that a request asks for.
package struct QuotaEdit: Sendable, Equatable {
    package var key: String
    /// Nil to take it back.
    package var value: Double?

    package init(_ key: String, _ value: Double?) {
        self.key = key
        self.value = value
    }

    /// What is stored after the edits, in the order of the names; what is stored beside quotas stays as it is.
    package static func changing(
        _ stored: [(name: String, value: String)], _ edits: [QuotaEdit], of entity: QuotaEntity
    ) -> Result<[(name: String, value: String)], ConfigFault> {
        var wanted: [String: String] = [:]
        for (name, value) in stored { wanted[name] = value }
        for edit in edits {
            switch QuotaKind.read(edit.key, edit.value ?? 1, for: entity) {
            case .failure(let fault): return .failure(fault)
            case .success(let value):
                wanted[edit.key] = edit.value == nil ? nil : QuotaKind(rawValue: edit.key)?.text(value)
            }
        }
        return .success(wanted.sorted { $0.key < $1.key }.map { ($0.key, $0.value) })
    }
}
