package import MartletModel

/// `partition.metadata` in a partition's folder: which topic it belongs to, should its name be used again.
///
///     version: 0
///     topic_id: 22 characters        no newline behind them
package struct PartitionMetadata: Equatable, Sendable {
    package static let fileName = "partition.metadata"

    package var topicID: UUID

    package init(topicID: UUID) { self.topicID = topicID }

    package static func decode(_ bytes: [UInt8], path: String) throws(LogError) -> PartitionMetadata {
        func bad(_ line: Int, _ reason: String) -> LogError { .malformedFile(path: path, line: line, reason: reason) }
        var lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map {
            String(decoding: $0, as: UTF8.self)
        }
        if lines.last == "" { lines.removeLast() }
        guard lines.count == 2 else { throw bad(1, "\(lines.count) lines where two must be") }
        guard lines[0] == "version: 0" else { throw bad(1, "'\(lines[0].prefix(40))' where 'version: 0' must be") }
        guard lines[1].hasPrefix("topic_id: "), let id = UUID(lines[1].dropFirst("topic_id: ".count)), id != .zero
        else {
            throw bad(2, "'\(lines[1].prefix(60))' where 'topic_id: ' and an id must be")
        }
        return PartitionMetadata(topicID: id)
    }

    package func encode() -> [UInt8] { Array("version: 0\ntopic_id: \(topicID)".utf8) }

    /// Whether this may be what damage made of an id, for nothing in the file would show it. Ids are random in 122 of their
    /// bits, so that two of them differ in some 61; in 20 or fewer one pair in 10^14. Three characters hold 18.
    package func isDamaged(from other: UUID) -> Bool {
        (topicID.high ^ other.high).nonzeroBitCount + (topicID.low ^ other.low).nonzeroBitCount <= 20
    }
}

/// `.kafka_cleanshutdown` in a log directory: there only after a clean stop, and then no log needs to be read at the
/// start.
///
///     {"version":0,"brokerEpoch":-1}       no newline; brokers before 3.7 left the file empty
package enum CleanShutdownMarker {
    package static let fileName = ".kafka_cleanshutdown"

    /// The broker epoch; nil where the marker has none, which makes it no less a marker.
    package static func decode(_ bytes: [UInt8]) -> Int64? {
        let text = String(decoding: bytes.prefix(200), as: UTF8.self)
        let key = "\"brokerEpoch\":"
        guard let at = text.range(of: key) else { return nil }
        let rest = text[at...].drop { $0 == " " }
        return Int64(rest.prefix { $0 == "-" || $0.isNumber })
    }

    package static func encode(brokerEpoch: Int64) -> [UInt8] {
        Array("{\"version\":0,\"brokerEpoch\":\(brokerEpoch)}".utf8)
    }
}

extension String {
    /// Where the text behind `part` begins.
    fileprivate func range(of part: String) -> String.Index? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(part) { return index(start, offsetBy: part.count) }
            start = index(after: start)
        }
        return nil
    }
}
