import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// DescribeClientQuotas 0-1: the quotas of users, client ids and addresses that meet all conditions. Version 1 is
/// flexible.
enum DescribeClientQuotasHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(DescribeClientQuotasRequest.self)
        var response = DescribeClientQuotasResponse()
        response.errorMessage = nil
        let conditions: [ClientQuotas.Condition]
        switch read(asked.components) {
        case .failure(let fault):
            response.errorCode = fault.error
            response.errorMessage = fault.message
            response.entries = nil
            return try request.answer(response)
        case .success(let wanted): conditions = wanted
        }
        let (cluster, responder) = (request.broker.cluster, request.later())
        request.connection.loop.spawn {
            let found = await cluster.currentQuotas().matching(conditions, isStrict: asked.strict)
            var response = DescribeClientQuotasResponse()
            response.errorMessage = nil
            response.entries = found.map(describe)
            responder.answer(response)
        }
    }

    private static func describe(
        _ found: (entity: QuotaEntity, values: ClientQuotas.Values)
    ) -> DescribeClientQuotasResponse.EntryData {
        var entry = DescribeClientQuotasResponse.EntryData()
        entry.entity = found.entity.parts.map { part in
            var data = DescribeClientQuotasResponse.EntityData()
            data.entityType = part.type.rawValue
            data.entityName = part.name.name
            return data
        }
        entry.values = QuotaKind.allCases.compactMap { kind in
            guard let value = found.values[kind] else { return nil }
            var data = DescribeClientQuotasResponse.ValueData()
            data.key = kind.rawValue
            data.value = value
            return data
        }
        return entry
    }

    private static func read(
        _ components: [DescribeClientQuotasRequest.ComponentData]
    ) -> Result<[ClientQuotas.Condition], ConfigFault> {
        func refused(_ message: String) -> Result<[ClientQuotas.Condition], ConfigFault> {
            .failure(ConfigFault(.invalidRequest, message))
        }
        var conditions: [ClientQuotas.Condition] = []
        for component in components {
            if component.entityType.isEmpty { return refused("The type of an entity is empty: say user, client-id or ip.") }
            guard let part = QuotaEntity.Part(rawValue: component.entityType) else {
                return .failure(
                    ConfigFault(.unsupportedVersion, "There is no type of entity '\(component.entityType.prefix(100))'."))
            }
            guard !conditions.contains(where: { $0.part == part }) else {
                return refused("The type \(component.entityType) is named twice.")
            }
            switch (component.matchType, component.match) {
            case (0, let name?): conditions.append(.init(part, .name(name)))
            case (1, nil): conditions.append(.init(part, .everyOther))
            case (2, nil): conditions.append(.init(part, .any))
            case (0, nil): return refused("An exact match takes a name.")
            case (1, .some), (2, .some): return refused("Only an exact match takes a name.")
            default: return refused("There is no type of match \(component.matchType).")
            }
        }
        if conditions.count > 1, conditions.contains(where: { $0.part == .address }) {
            return refused("An address cannot be matched together with users or clients.")
        }
        return .success(conditions)
    }
}
