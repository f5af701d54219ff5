package import MartletModel
import MartletWire

/// Quotas.
extension Client {
    /// What is set for one entity by itself, by name.
    package func quotas(of entity: QuotaEntity) async throws(ClientError) -> [(kind: String, value: Double)] {
        let answer = try await ask(.any, judging: { $0.errorCode }) { (_) throws(ClientError) -> DescribeClientQuotasRequest in
            var request = DescribeClientQuotasRequest()
            request.strict = true
            request.components = entity.parts.map { part in
                var component = DescribeClientQuotasRequest.ComponentData()
                component.entityType = part.type.rawValue
                component.matchType = part.name == .everyOther ? 1 : 0
                component.match = part.name.name
                return component
            }
            return request
        }
        guard answer.message.errorCode == .none else {
            throw .refused(
                what: "the quotas of \(entity.title)", answer.message.errorCode, message: answer.message.errorMessage)
        }
        let values = answer.message.entries?.first?.values ?? []
        return values.map { (kind: $0.key, value: $0.value) }.sorted { $0.kind < $1.kind }
    }

    /// Sets quotas and takes them back, all of them or none.
    package func change(_ edits: [QuotaEdit], of entity: QuotaEntity, validateOnly: Bool) async throws(ClientError) {
        let answer = try await ask(.any, isRepeatable: false) { (_) throws(ClientError) -> AlterClientQuotasRequest in
            var entry = AlterClientQuotasRequest.EntryData()
            entry.entity = entity.parts.map { part in
                var data = AlterClientQuotasRequest.EntityData()
                data.entityType = part.type.rawValue
                data.entityName = part.name.name
                return data
            }
            entry.ops = edits.map { edit in
                var op = AlterClientQuotasRequest.OpData()
                op.key = edit.key
                op.value = edit.value ?? 0
                op.remove = edit.value == nil
                return op
            }
            var request = AlterClientQuotasRequest()
            request.entries = [entry]
            request.validateOnly = validateOnly
            return request
        }
        guard let result = answer.message.entries.first else {
            throw .malformedAnswer(what: "AlterClientQuotas", broker: answer.broker, reason: "it is empty")
        }
        guard result.errorCode == .none else {
            throw .refused(
                what: "the quotas of \(entity.title) were not changed", result.errorCode, message: result.errorMessage)
        }
    }
}

extension QuotaEntity {
    /// As a person names it: `user alice, client app`.
    package var title: String {
        parts.map { part in
            let kind = part.type == .client ? "client" : part.type.rawValue
            return part.name.name.map { "\(kind) \($0)" } ?? "every other \(kind)"
        }.joined(separator: ", ")
    }
}
