package import MartletBasics

/// Why something does not go on, for a person.
package struct Reason: Equatable, Sendable {
    /// A word that stays, for programs.
    package var code: String
    /// Whom it is about: a member, a partition, a client.
    package var subject: String
    package var text: String
    /// Milliseconds since 1970; nil where that is not known.
    package var since: Int64?
    /// How long until it ends by itself; nil where it does not.
    package var left: Interval?

    package init(_ code: String, _ subject: String, _ text: String, since: Int64? = nil, left: Interval? = nil) {
        (self.code, self.subject, self.text) = (code, subject, text)
        (self.since, self.left) = (since, left)
    }
}

/// The reasons of one answer, of each kind the first few, and how many more there are.
package struct Reasons: Sendable {
    package static let limitPerKind = 20

    private var counts: [String: Int] = [:]
    private var found: [Reason] = []
    private var kinds: [String] = []

    package init() {}

    package mutating func add(_ reason: Reason) {
        if counts[reason.code] == nil { kinds.append(reason.code) }
        counts[reason.code, default: 0] += 1
        if counts[reason.code]! <= Self.limitPerKind { found.append(reason) }
    }

    package mutating func add(_ reasons: [Reason]) { for reason in reasons { add(reason) } }

    package var all: [Reason] {
        found + kinds.compactMap { kind in
            let more = counts[kind]! - Self.limitPerKind
            return more > 0 ? Reason(kind, "", "There are \(more) more of the same kind (\(kind)).") : nil
        }
    }
}

/// Spans and names as sentences have them.
enum Spoken {
    private static let nameLimit = 200

    static func span(_ interval: Interval) -> String { span(milliseconds: interval.milliseconds) }

    static func span(milliseconds: Int64) -> String {
        let milliseconds = max(milliseconds, 0)
        switch milliseconds {
        case ..<1000: return "\(milliseconds) ms"
        case ..<120_000: return "\(milliseconds / 1000) s"
        case ..<7_200_000: return "\(milliseconds / 60_000) min"
        case ..<172_800_000: return "\(milliseconds / 3_600_000) h"
        default: return "\(milliseconds / 86_400_000) days"
        }
    }

    /// Empty where the moment is not known.
    static func since(_ moment: Int64?, now: Int64) -> String { moment.map { " for \(span(milliseconds: now - $0))" } ?? "" }

    /// What a client calls itself may be of any length.
    static func name(_ text: String) -> String {
        text.utf8.count <= nameLimit ? text : String(text.prefix(nameLimit / 4)) + "…"
    }

    static func count(_ number: Int64, _ thing: String) -> String { number == 1 ? "1 \(thing)" : "\(number) \(thing)s" }
}
