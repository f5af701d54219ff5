import MartletBasics

/// Why a line is no event.
package struct HistoryFault: Error, Hashable, Sendable, CustomStringConvertible {
    package var line: Int
    package var reason: String

    package init(line: Int, reason: String) {
        self.line = line
        self.reason = reason
    }

    package var description: String { "line \(line): \(reason)" }
}

/// Histories as lines of JSON, one event a line. docs/design/checkers.md lists them.
package enum HistoryLines {
    private static let lineBytesLimit = 16 << 20

    package static func events(in bytes: UnsafeRawBufferPointer) throws(HistoryFault) -> [HistoryEvent] {
        var events: [HistoryEvent] = []
        var number = 0
        var start = 0
        while start < bytes.count {
            let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.count
            let line = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
            number += 1
            start = end + 1
            if line.allSatisfy({ $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\r") }) { continue }
            let value: JSONValue
            do throws(JSONFault) {
                value = try JSONValue(parsing: line, limits: JSONLimits(bytes: lineBytesLimit))
            } catch {
                throw HistoryFault(line: number, reason: error.description)
            }
            events.append(try Fields(value, line: number).event())
        }
        return events
    }
}
