/// A record that makes its batch unacceptable, as Produce answers it from version 8 on.
package struct RecordError: Equatable, Sendable {
    /// The record's place in its batch, counted from 0.
    package var batchIndex: Int32
    package var message: String

    package init(batchIndex: Int32, message: String) {
        self.batchIndex = batchIndex
        self.message = message
    }
}

/// Why a partition's records in a Produce request are not appended.
package struct BatchRejection: Error, Equatable {
    /// Of one batch at most this many records are named; the reason counts them all.
    package static let recordErrorsLimit = 1000

    package var code: ErrorCode
    /// What was wrong, for our log.
    package var reason: String
    /// The records at fault, where single records are.
    package var recordErrors: [RecordError]

    package init(_ code: ErrorCode, _ reason: String, recordErrors: [RecordError] = []) {
        self.code = code
        self.reason = reason
        self.recordErrors = recordErrors
    }

    /// What the answer says beside the code: as in Kafka, something where single records are at fault, else null.
    package var answerMessage: String? { recordErrors.isEmpty ? nil : reason }
}

extension BatchRejection: CustomStringConvertible {
    package var description: String { "\(code): \(reason)" }
}
