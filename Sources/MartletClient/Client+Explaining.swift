import MartletModel
package import MartletWire

/// What something waits for, as the brokers say.
extension Client {
    /// Why a group does not go on: its coordinator is asked.
    package func reasons(ofGroup id: String) async throws(ClientError) -> [ExplainResponse.Reason] {
        try await explain(.group, id, at: .coordinator(of: id), "group \(id)")
    }

    /// Why a topic's partitions do not go on: every broker is asked, for each knows what it leads.
    package func reasons(ofTopic name: String) async throws(ClientError) -> [ExplainResponse.Reason] {
        var found: [ExplainResponse.Reason] = []
        for broker in cluster.brokers.map(\.id) {
            for reason in try await explain(.topic, name, at: .broker(broker), "topic \(name)")
            where !found.contains(where: { $0.code == reason.code && $0.subject == reason.subject }) {
                found.append(reason)
            }
        }
        return found
    }

    private func explain(
        _ kind: ExplainRequest.Kind, _ name: String, at route: Route, _ title: String
    ) async throws(ClientError) -> [ExplainResponse.Reason] {
        let answer = try await ask(route, judging: { $0.errorCode }) {
            (_) throws(ClientError) -> ExplainRequest in ExplainRequest(kind, name)
        }
        guard answer.message.errorCode == .none else {
            throw .refused(what: "why \(title) waits", answer.message.errorCode, message: nil)
        }
        return answer.message.reasons
    }
}
