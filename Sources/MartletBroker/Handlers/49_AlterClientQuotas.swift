import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// AlterClientQuotas 0-1: sets and takes back quotas, of each entity all or none. Version 1 is flexible.
enum AlterClientQuotasHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(AlterClientQuotasRequest.self)
        let (broker, responder, client) = (request.broker, request.later(), request.connection.socket.peer.description)
        request.connection.loop.spawn {
            var response = AlterClientQuotasResponse()
            for entry in asked.entries {
                let fault = await carryOut(entry, validateOnly: asked.validateOnly, broker, client)
                var answer = AlterClientQuotasResponse.EntryData()
                answer.errorCode = fault?.error ?? .none
                answer.errorMessage = fault?.message
                answer.entity = entry.entity.map { part in
                    var data = AlterClientQuotasResponse.EntityData()
                    data.entityType = part.entityType
                    data.entityName = part.entityName
                    return data
                }
                response.entries.append(answer)
            }
            responder.answer(response)
        }
    }

    private static func carryOut(
        _ entry: AlterClientQuotasRequest.EntryData, validateOnly: Bool, _ broker: Broker, _ client: String
    ) async -> ConfigFault? {
        let entity: QuotaEntity
        switch QuotaEntity.read(entry.entity.map { ($0.entityType, $0.entityName) }) {
        case .failure(let fault): return fault
        case .success(let named): entity = named
        }
        let edits = entry.ops.map { QuotaEdit($0.key, $0.remove ? nil : $0.value) }
        let fault = await broker.cluster.alterQuotas(of: entity, edits, validateOnly: validateOnly)
        if fault == nil, !validateOnly {
            broker.log.requests.info(
                "quotas were altered", ("of", entity.entityPath), ("quotas", edits.map(\.key).joined(separator: ",")),
                ("client", client))
        }
        return fault
    }
}
