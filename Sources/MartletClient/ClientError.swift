package import MartletModel

/// Why something that was asked of a cluster was not done.
package enum ClientError: Error, Equatable, Sendable {
    /// No broker could be connected to; a reason for each address that was tried.
    case unreachable([String])
    /// The connection ended before the answer came. Nobody knows whether the request was carried out, unless `isSafe`:
    /// then it never left.
    case connectionLost(broker: String, reason: String, isSafe: Bool)
    /// No answer in time: the same doubt.
    case timedOut(what: String, broker: String, afterMs: Int64)
    /// What came is no answer to what was asked.
    case malformedAnswer(what: String, broker: String, reason: String)
    /// The broker does not have the API, or not in a version that can say what is wanted.
    case unsupported(what: String, broker: String, reason: String)
    /// The broker's answer is an error.
    case refused(what: String, ErrorCode, message: String?)
    /// Nothing was sent, for what was to be sent is not possible.
    case invalid(String)

    /// Whether the connection is at fault, not what was asked.
    package var concernsConnection: Bool {
        switch self {
        case .unreachable, .connectionLost, .timedOut: true
        case .malformedAnswer, .unsupported, .refused, .invalid: false
        }
    }

    /// Whether it is certain that the broker did nothing of what was asked.
    package var isSafe: Bool {
        switch self {
        case .unreachable, .unsupported, .refused, .invalid: true
        case .connectionLost(_, _, let isSafe): isSafe
        case .timedOut, .malformedAnswer: false
        }
    }

    package var isUnsupported: Bool { if case .unsupported = self { true } else { false } }

    /// Kafka's code, where the broker gave one.
    package var code: ErrorCode? {
        if case .refused(_, let code, _) = self { code } else { nil }
    }
}

extension ClientError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .unreachable(let reasons):
            "no broker can be reached: \(reasons.joined(separator: "; "))"
        case .connectionLost(let broker, let reason, _): "the connection to \(broker) was lost: \(reason)"
        case .timedOut(let what, let broker, let milliseconds):
            "\(broker) did not answer \(what) within \(milliseconds) ms"
        case .malformedAnswer(let what, let broker, let reason):
            "what \(broker) answered to \(what) cannot be read: \(reason)"
        case .unsupported(let what, let broker, let reason): "\(broker) cannot do \(what): \(reason)"
        case .refused(let what, let code, let message):
            // many brokers repeat the code's name as the message
            message.map { "\(what): \($0) (\(code))" } ?? "\(what): \(code)"
        case .invalid(let reason): reason
        }
    }
}
