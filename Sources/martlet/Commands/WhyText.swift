import MartletBasics
import MartletClient
import MartletWire

/// What `--why` adds to a description.
enum WhyText {
    static let flag = CommandLineArguments.Flag(
        "why", "Says in sentences what is waited for; only brokers of this kind can.")
    static let note = #"""
        With --why and --json, each has "why": [{"code": "member-not-joined", "subject": …, "text": …, "since": ms since 1970,
        "left": ms}, …]; `since` and `left` are null where nobody can say. Codes stay as they are; sentences may change.
        """#

    static func text(_ reasons: [ExplainResponse.Reason]) -> String {
        if reasons.isEmpty { return "why: nothing is waited for\n" }
        return "why:\n" + reasons.map { "  - \(TextTable.shown($0.text))\n" }.joined()
    }

    static func json(_ reasons: [ExplainResponse.Reason]) -> JSONValue {
        .array(
            reasons.map { reason -> JSONValue in
                [
                    "code": .string(reason.code), "subject": .string(reason.subject), "text": .string(reason.text),
                    "since": reason.sinceMs < 0 ? .null : .int(reason.sinceMs),
                    "left": reason.leftMs < 0 ? .null : .int(reason.leftMs),
                ]
            })
    }
}
