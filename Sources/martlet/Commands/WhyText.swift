import MartletBasics
import MartletClient

/// What `--why` adds to a description.
enum WhyText {
    static let flag = CommandLineArguments.Flag(
        "why", "Says in sentences what is waited for; only brokers of this kind can.")
    static let note = #"""
        With --why and --json, each has "why": [{"code": "member-not-joined", "subject": …, "text": …, "since":
        milliseconds since 1970, "left": milliseconds}, …]; `since` and `left` are null where nobody can say. Codes stay
        as they are; sentences may change.
        """#

    static func text(_ reasons: [WaitReason]) -> String {
        if reasons.isEmpty { return "why: nothing is waited for\n" }
        return "why:\n" + reasons.map { "  - \(TextTable.shown($0.text))\n" }.joined()
    }

    static func json(_ reasons: [WaitReason]) -> JSONValue {
        .array(
            reasons.map { reason -> JSONValue in
                [
                    "code": .string(reason.code), "subject": .string(reason.subject), "text": .string(reason.text),
                    "since": reason.since.map { .int($0) } ?? .null, "left": reason.left.map { .int($0) } ?? .null,
                ]
            })
    }
}
