#if PLANTED_BUGS
    internal import MartletBasics
#endif

/// Reads the text that all of Kafka's checkpoints share:
///
///     0            the version
///     2            how many rows follow
///     topic 0 42   the rows, words parted by one blank; every line ends with a newline, the last one too
///     topic 1 7
///
/// A file of no bytes is no rows: Kafka makes `cleaner-offset-checkpoint` so. Everything else must fit, for a
/// checkpoint is replaced as a whole: one that was cut or does not parse is damage, and to guess at it could lose
/// records.
struct CheckpointText {
    static let version = 0
    /// More would not be a checkpoint: a broker has not so many partitions.
    static let rowLimit = 10_000_000

    private let bytes: [UInt8]
    private let path: String
    private var position = 0
    private(set) var line = 1
    private var rowsLeft = 0

    init(_ bytes: [UInt8], path: String) throws(LogError) {
        self.bytes = bytes
        self.path = path
        if bytes.isEmpty { return }
        guard try number(Int.self) == Self.version else { throw malformed("a checkpoint begins with version 0") }
        try endOfRow()
        rowsLeft = try number(Int.self)
        guard rowsLeft <= Self.rowLimit else { throw malformed("\(rowsLeft) rows") }
        try endOfRow()
    }

    func malformed(_ reason: String) -> LogError { .malformedFile(path: path, line: line, reason: reason) }

    /// False after the last row, when nothing may follow.
    mutating func nextRow() throws(LogError) -> Bool {
        if rowsLeft == 0 {
            guard position == bytes.count else { throw malformed("more rows than the second line says") }
            return false
        }
        guard position < bytes.count else { throw malformed("\(rowsLeft) rows fewer than the second line says") }
        rowsLeft -= 1
        return true
    }

    mutating func endOfRow() throws(LogError) {
        guard position < bytes.count, bytes[position] == UInt8(ascii: "\n") else {
            throw malformed(
                position < bytes.count ? "more on the line than belongs there" : "the file ends within a line")
        }
        position += 1
        line += 1
    }

    /// The next word of the row, not empty.
    mutating func word() throws(LogError) -> ArraySlice<UInt8> {
        let start = position
        while position < bytes.count, bytes[position] != UInt8(ascii: " "), bytes[position] != UInt8(ascii: "\n") {
            position += 1
        }
        guard position > start else { throw malformed("a word is missing") }
        let word = bytes[start..<position]
        // the blank belongs to the word before it, and another word to the blank
        if position < bytes.count, bytes[position] == UInt8(ascii: " ") {
            position += 1
            guard position < bytes.count, bytes[position] != UInt8(ascii: "\n") else { throw malformed("a blank ends the line") }
        }
        return word
    }

    /// The next word as a number that is not negative.
    mutating func number<T: FixedWidthInteger>(_: T.Type) throws(LogError) -> T {
        let word = try word()
        var value: T = 0
        for digit in word {
            #if PLANTED_BUGS
                if PlantedBug.checkpointNumber.isPlanted, digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "9") {
                    value = value * 10 + T(digit - UInt8(ascii: "0"))
                    continue
                }
            #endif
            let (tens, overflow) = value.multipliedReportingOverflow(by: 10)
            guard digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "9"), !overflow else { throw notANumber(word) }
            let (sum, tooLarge) = tens.addingReportingOverflow(T(digit - UInt8(ascii: "0")))
            guard !tooLarge else { throw notANumber(word) }
            value = sum
        }
        return value
    }

    private func notANumber(_ word: ArraySlice<UInt8>) -> LogError {
        malformed("'\(String(decoding: word.prefix(40), as: UTF8.self))' is not a number that can stand here")
    }

    static func encode(rows: Int, _ write: (inout [UInt8]) -> Void) -> [UInt8] {
        var out = Array("\(version)\n\(rows)\n".utf8)
        write(&out)
        return out
    }
}
