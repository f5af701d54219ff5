import MartletModel
import MartletWire

/// Why a group or a topic does not go on, as a broker says.
package struct WaitReason: Sendable, Equatable {
    /// A word that stays.
    package var code: String
    /// Whom it is about.
    package var subject: String
    package var text: String
    /// Milliseconds since 1970; nil where nobody can say.
    package var since: Int64?
    /// Milliseconds until it ends by itself; nil where it does not.
    package var left: Int64?

    init(_ told: ExplainResponse.Reason) {
        (code, subject, text) = (told.code, told.subject, told.text)
        since = told.sinceMs < 0 ? nil : told.sinceMs
        left = told.leftMs < 0 ? nil : told.leftMs
    }
}

/// What something waits for, as the brokers say.
extension Client {
    /// Why a group does not go on: its coordinator is asked.
    package func reasons(ofGroup id: String) async throws(ClientError) -> [WaitReason] {
        try await explain(.group, id, at: .coordinator(of: id), "group \(id)")
    }

    /// Why a topic's partitions do not go on: every broker is asked, for each knows what it leads.
    package func reasons(ofTopic name: String) async throws(ClientError) -> [WaitReason] {
        var found: [WaitReason] = []
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
    ) async throws(ClientError) -> [WaitReason] {
        let answer = try await ask(route, judging: { $0.errorCode }) {
            (_) throws(ClientError) -> ExplainRequest in ExplainRequest(kind, name)
        }
        guard answer.message.errorCode == .none else {
            throw .refused(what: "why \(title) waits", answer.message.errorCode, message: nil)
        }
        return answer.message.reasons.map(WaitReason.init)
    }
}
