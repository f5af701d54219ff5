package import MartletBasics

/// One thing that `LogVerifier` has seen in a file.
package struct Finding: Equatable, Sendable {
    package enum Severity: String, Sendable {
        /// The file does not say what it must.
        case damage
        /// Allowed, and worth knowing: what a killed broker leaves for its recovery, or a cleaner.
        case note
    }

    package var severity: Severity
    /// The file, or the folder where no file is meant.
    package var path: String
    /// Where in the file it begins, in bytes; nil where it is about the whole.
    package var position: Int64?
    package var message: String

    package init(_ severity: Severity, _ path: String, at position: Int64? = nil, _ message: String) {
        self.severity = severity
        self.path = path
        self.position = position
        self.message = message
    }

    package var json: JSONValue {
        var object: JSONObject = ["severity": .string(severity.rawValue), "file": .string(path)]
        if let position { object["position"] = .int(position) }
        object["message"] = .string(message)
        return .object(object)
    }
}

extension Finding: CustomStringConvertible {
    package var description: String {
        "\(severity.rawValue) \(path)\(position.map { ", byte \($0)" } ?? ""): \(message)"
    }
}

/// What was gone through, counted.
package struct InspectionCounts: Equatable, Sendable {
    package var directories = 0
    package var partitions = 0
    package var segments = 0
    package var batches = 0
    package var records = 0
    package var bytes: Int64 = 0
    package var offsetIndexEntries = 0
    package var timeIndexEntries = 0
    package var abortedTransactions = 0
    package var snapshotEntries = 0

    package init() {}

    package var json: JSONValue {
        [
            "directories": .int(Int64(directories)), "partitions": .int(Int64(partitions)),
            "segments": .int(Int64(segments)), "batches": .int(Int64(batches)), "records": .int(Int64(records)),
            "bytes": .int(bytes), "offsetIndexEntries": .int(Int64(offsetIndexEntries)),
            "timeIndexEntries": .int(Int64(timeIndexEntries)), "abortedTransactions": .int(Int64(abortedTransactions)),
            "snapshotEntries": .int(Int64(snapshotEntries)),
        ]
    }
}
