package import MartletReactor

/// ZooKeeper's error codes, with its numbers. Codes down to -100 are faults of the system, those below are answers to
/// a request.
package enum KeeperErrorCode: Int32, Error, Sendable, CaseIterable {
    case ok = 0
    case systemError = -1
    case runtimeInconsistency = -2
    /// What is on the disk contradicts itself.
    case dataInconsistency = -3
    /// The outcome is not known: it may have been done, and may not.
    case connectionLoss = -4
    case marshallingError = -5
    case unimplemented = -6
    case operationTimeout = -7
    case badArguments = -8
    case noNode = -101
    case noAuth = -102
    case badVersion = -103
    case noChildrenForEphemerals = -108
    case nodeExists = -110
    case notEmpty = -111
    case sessionExpired = -112
    case invalidCallback = -113
    case invalidACL = -114
    case authFailed = -115
    case sessionMoved = -118
    case noWatcher = -121
    case quotaExceeded = -125
    /// Refused before anything was done, because too much is waiting already.
    case throttledOp = -127
}

/// The one error of this target: ZooKeeper's code, and a sentence that says what happened and, where something can be
/// done, what to do.
package struct KeeperError: Error, Sendable, Equatable, CustomStringConvertible {
    package var code: KeeperErrorCode
    package var message: String
    /// Of a `multi` that was refused: one code for each of its operations, in ZooKeeper's shape: `ok` before the one
    /// that failed, its code, `runtimeInconsistency` after it. Empty otherwise.
    package var operations: [KeeperErrorCode]
    package var cause: SystemError?

    package init(
        _ code: KeeperErrorCode, _ message: String, operations: [KeeperErrorCode] = [], cause: SystemError? = nil
    ) {
        self.code = code
        self.message = message
        self.operations = operations
        self.cause = cause
    }

    package var description: String { "\(code) (\(code.rawValue)): \(message)" }
}

extension KeeperError {
    static func disk(_ doing: String, _ cause: SystemError) -> KeeperError {
        KeeperError(.systemError, "\(doing): \(cause)", cause: cause)
    }

    static func damaged(_ path: String, _ what: String) -> KeeperError {
        KeeperError(
            .dataInconsistency,
            """
            \(path) is damaged: \(what). It holds cluster state that was already acknowledged, so nothing is cut away. \
            Restore the keeper's directory from a copy, or move the whole directory aside to start with an empty tree.
            """)
    }
}
