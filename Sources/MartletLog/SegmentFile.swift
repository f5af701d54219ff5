package import MartletModel

/// What files of a partition's folder are called: the offset at which they begin in 20 digits, and what they are.
package enum SegmentFile: String, Sendable, CaseIterable {
    case log = ".log"
    case offsetIndex = ".index"
    case timeIndex = ".timeindex"
    case transactionIndex = ".txnindex"
    case snapshot = ".snapshot"

    /// Waiting for removal; finished by the next start where it did not come to it.
    package static let deletedSuffix = ".deleted"
    /// A compaction's work that was not yet swapped in; worthless after a crash.
    package static let cleanedSuffix = ".cleaned"
    /// A compaction's result that replaces what its offsets cover; a start completes it.
    package static let swapSuffix = ".swap"

    package func name(_ baseOffset: Offset) -> String {
        precondition(baseOffset >= 0, "a file of a log begins at an offset")
        let digits = String(baseOffset)
        return String(repeating: "0", count: 20 - digits.utf8.count) + digits + rawValue
    }

    package func path(_ folder: String, _ baseOffset: Offset) -> String { folder + "/" + name(baseOffset) }

    /// The offset and kind of a name, and what follows them (`.deleted`, …); nil for any other name.
    package static func parse(_ name: String) -> (baseOffset: Offset, kind: SegmentFile, suffix: String)? {
        let characters = Array(name.utf8)
        guard characters.count >= 24, characters[20] == UInt8(ascii: ".") else { return nil }
        var offset: Int64 = 0
        for character in characters[..<20] {
            guard character >= 0x30, character <= 0x39 else { return nil }
            let (tens, overflow) = offset.multipliedReportingOverflow(by: 10)
            let (sum, carry) = tens.addingReportingOverflow(Int64(character - 0x30))
            guard !overflow, !carry else { return nil }
            offset = sum
        }
        let rest = String(decoding: characters[20...], as: UTF8.self)
        // `.index` begins no other kind's name, and neither does any other
        for kind in SegmentFile.allCases where rest.hasPrefix(kind.rawValue) {
            return (offset, kind, String(rest.dropFirst(kind.rawValue.count)))
        }
        return nil
    }
}
