import MartletBasics
import MartletClient
import MartletModel

/// What `martlet config` does for users, clients and addresses: their settings are quotas.
struct QuotaSettings {
    /// The word that begins an entity, and what it is.
    static let kinds = ["user", "client", "ip"]
    /// Stands for all that have none of their own, as in Kafka's tree.
    static let everyOther = "<default>"

    let entity: QuotaEntity
    let rest: [String]

    /// From `user NAME`, `client NAME`, `user NAME client NAME` or `ip ADDRESS`, and what follows.
    init(_ operands: [String]) throws(CommandLineArguments.Fault) {
        var rest = operands[...]
        func name() throws(CommandLineArguments.Fault) -> QuotaName {
            let kind = rest.removeFirst()
            guard let name = rest.popFirst(), !name.isEmpty else {
                throw CommandLineArguments.Fault(
                    "which \(kind)? Its name follows the word, '\(Self.everyOther)' for every other")
            }
            return name == Self.everyOther ? .everyOther : .named(name)
        }
        let first = rest[0]
        let named = try name()
        switch first {
        case "user":
            if rest.first == "client" {
                let client = try name()
                entity = .userClient(user: named, client: client)
            } else {
                entity = .user(named)
            }
        case "client": entity = .client(named)
        default:
            if let address = named.name, IPAddress(address) == nil {
                throw CommandLineArguments.Fault("'\(address)' is no IP address")
            }
            entity = .address(named)
        }
        self.rest = Array(rest)
    }

    // MARK: get

    func get(_ session: Session) async throws {
        let all = try await session.client.quotas(of: entity)
        for name in rest where !QuotaKind.allCases.contains(where: { $0.rawValue == name }) {
            let known = QuotaKind.allCases.map(\.rawValue)
            let nearest = nearestName(to: name, among: known).map { "; the nearest is \($0)" } ?? ""
            session.complain(partly: "there is no quota \(name)\(nearest)")
        }
        let shown = all.filter { rest.isEmpty || rest.contains($0.kind) }
        var table = TextTable([.init("QUOTA"), .init("VALUE", .right)])
        var quotas: [JSONValue] = []
        for quota in shown {
            table.add(quota.kind, Self.text(quota.value))
            quotas.append(["name": .string(quota.kind), "value": .string(Self.text(quota.value))])
        }
        session.show(
            ["resource": "quota", "entity": json, "quotas": .array(quotas)],
            shown.isEmpty ? "" : table.text(isStyled: session.isStyled))
        if shown.isEmpty, !session.isJSON { session.remark("No quota is set for \(entity.title).") }
    }

    private static func text(_ value: Double) -> String { Int64(exactly: value).map { "\($0)" } ?? "\(value)" }

    /// By type; null stands for every other.
    private var json: JSONValue {
        let members = entity.parts.map { part in
            JSONObject.Member(part.type.rawValue, part.name.name.map { JSONValue.string($0) } ?? .null)
        }
        return .object(JSONObject(members))
    }

    // MARK: set

    func edits(_ changes: [ResourceConfigChange]) throws(CommandLineArguments.Fault) -> [QuotaEdit] {
        var edits: [QuotaEdit] = []
        for change in changes {
            switch change {
            case .delete(let name): edits.append(QuotaEdit(name, nil))
            case .set(let name, let text):
                guard let value = Double(text), value.isFinite else {
                    throw CommandLineArguments.Fault("\(name)=\(text): a quota is a number")
                }
                edits.append(QuotaEdit(name, value))
            case .append(let name, _), .subtract(let name, _):
                throw CommandLineArguments.Fault("\(name) is no list: set it, or take it back with --delete \(name)")
            }
        }
        if case .failure(let fault) = QuotaEdit.changing([], edits, of: entity) {
            throw CommandLineArguments.Fault(fault.message)
        }
        return edits
    }

    func set(_ session: Session, _ edits: [QuotaEdit]) async throws {
        let validateOnly = session.arguments.has("validate-only")
        try await session.client.change(edits, of: entity, validateOnly: validateOnly)
        let names = edits.map(\.key)
        session.show(
            ["resource": "quota", "entity": json, "changed": .array(validateOnly ? [] : names.map { .string($0) })],
            "\(entity.title): \(names.joined(separator: ", ")) \(validateOnly ? "could be changed" : "changed")\n")
    }
}
