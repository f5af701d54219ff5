import MartletBasics
import MartletClient
import MartletModel

/// `martlet topic describe --upkeep`: how far the partitions of a topic are compacted, and what that saved, as their
/// leaders' metrics tell it.
struct TopicUpkeep {
    struct Row {
        var partition: Int32
        var compactedUpTo: Int64?
        var cleanBytes: Int64?
        var dirtyBytes: Int64?
        var compactions: Int64?
        var savedBytes: Int64?
        var lastSeconds: Int64?
        var isUncleanable: Bool

        /// Nil where nobody has looked yet.
        var dirtyShare: Double? {
            guard let cleanBytes, let dirtyBytes else { return nil }
            return cleanBytes + dirtyBytes > 0 ? Double(dirtyBytes) / Double(cleanBytes + dirtyBytes) : 0
        }
    }

    /// The pages of the brokers that were asked so far; an empty one where a broker could not be.
    private var pages: [BrokerID: PartitionSamples] = [:]

    mutating func rows(of topic: ClusterView.Topic, _ session: Session) async throws -> [Row] {
        var rows: [Row] = []
        for part in topic.partitions where part.leader >= 0 {
            let samples = try await samples(of: part.leader, session)
            let place = TopicPartition(topic.name, part.index)
            func value(_ name: String) -> Int64? { samples.integer("martlet_partition_\(name)", place) }
            // a broker tells these of partitions that are compacted
            guard let isUncleanable = value("uncleanable") else { continue }
            rows.append(
                Row(
                    partition: part.index, compactedUpTo: value("compacted_offset"), cleanBytes: value("clean_bytes"),
                    dirtyBytes: value("dirty_bytes"), compactions: value("compactions_total"),
                    savedBytes: value("compaction_saved_bytes_total"),
                    lastSeconds: value("last_compaction_timestamp_seconds"), isUncleanable: isUncleanable != 0))
        }
        return rows
    }

    private mutating func samples(of broker: BrokerID, _ session: Session) async throws -> PartitionSamples {
        if let known = pages[broker] { return known }
        var found = PartitionSamples([])
        do {
            let host = session.client.cluster.brokers.first { $0.id == broker }?.endpoint.host ?? "127.0.0.1"
            found = PartitionSamples(try await MetricsReading.page(of: broker, at: host, session))
        } catch let fault as CommandFault {
            session.complain(partly: fault.description ?? "")
        }
        pages[broker] = found
        return found
    }

    static func text(_ rows: [Row], isStyled: Bool) -> String {
        guard !rows.isEmpty else { return "  nothing of it is compacted, or its broker does not tell of it\n" }
        var table = TextTable([
            .init("PARTITION", .right), .init("COMPACTED TO", .right), .init("CLEAN BYTES", .right),
            .init("DIRTY BYTES", .right), .init("DIRTY", .right), .init("COMPACTIONS", .right), .init("SAVED BYTES", .right), .init("LAST"),
        ])
        func shown(_ value: Int64?) -> String { value.map { "\($0)" } ?? "" }
        for row in rows {
            table.add(
                "\(row.partition)", shown(row.compactedUpTo), shown(row.cleanBytes), shown(row.dirtyBytes),
                row.dirtyShare.map { "\(Int(($0 * 100).rounded()))%" } ?? "", shown(row.compactions), shown(row.savedBytes),
                row.isUncleanable
                    ? "cannot be read: see the broker's log"
                    : row.lastSeconds.map { WallTime.text($0 * 1000) } ?? "never")
        }
        return table.text(isStyled: isStyled)
    }

    static func json(_ rows: [Row]) -> JSONValue {
        func shown(_ value: Int64?) -> JSONValue { value.map { .int($0) } ?? .null }
        return .array(
            rows.map { row in
                [
                    "partition": .int(Int64(row.partition)), "compactedTo": shown(row.compactedUpTo),
                    "cleanBytes": shown(row.cleanBytes), "dirtyBytes": shown(row.dirtyBytes),
                    "compactions": shown(row.compactions), "savedBytes": shown(row.savedBytes),
                    "lastCompactedMs": shown(row.lastSeconds.map { $0 * 1000 }), "uncleanable": .bool(row.isUncleanable),
                ]
            })
    }
}
