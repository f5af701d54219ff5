import MartletBasics
import MartletModel
import MartletWire

/// Explain 0, of our own: what a group or a topic waits for.
enum ExplainHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(ExplainRequest.self)
        let explainer = Explainer(request.broker)
        var response = ExplainResponse()
        switch asked.kind == .group ? explainer.group(asked.name) : explainer.topic(asked.name) {
        case .failure(let error): response.errorCode = error
        case .success(let reasons): response.reasons = reasons.map(tell)
        }
        try request.answer(response)
    }

    private static func tell(_ reason: Reason) -> ExplainResponse.Reason {
        var told = ExplainResponse.Reason()
        (told.code, told.subject, told.text) = (reason.code, reason.subject, reason.text)
        told.sinceMs = reason.since ?? -1
        told.leftMs = reason.left?.milliseconds ?? -1
        return told
    }
}
