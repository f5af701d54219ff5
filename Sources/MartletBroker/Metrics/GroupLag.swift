package import MartletBasics
package import MartletCluster
import MartletLog
package import MartletModel
import MartletReactor

/// What metrics tell of one consumer group.
package struct GroupFigures: Sendable {
    package var id: String
    /// Kafka's word for its state: `Stable`, `Empty`, …
    package var state: String
    package var members: Int
    /// What it has committed, each partition once.
    package var offsets: [(partition: TopicPartition, offset: Offset)]

    package init(id: String, state: String, members: Int, offsets: [(partition: TopicPartition, offset: Offset)]) {
        self.id = id
        self.state = state
        self.members = members
        self.offsets = offsets
    }
}

/// Where the groups of this broker are asked. On the lane: it may take a while, and must not keep anybody else waiting.
package protocol GroupFiguresSource: AnyObject, Sendable {
    /// All groups that this broker coordinates, by id.
    var figures: [GroupFigures] { get }
    /// What they all take of memory, roughly.
    var bytesInUse: Int { get }
}

/// How far a group is behind in one partition.
package struct GroupLagRow: Sendable, Equatable {
    package var group: String
    package var partition: TopicPartition
    package var committed: Offset
    /// Records that it can read and has not committed.
    package var records: Int64
    /// How long ago the oldest of them was written, by the time that it carries; nil where it carries none.
    package var age: Interval?
}

/// Finds how far groups are behind, in records and in time.
///
/// In time: the record at the committed offset is the oldest that was not read, and says when it was written. Its batch is
/// read from the log for that, once for each offset that is committed: what was found is kept for the next time.
///
/// Confined to the lane that metrics are made on.
package final class GroupLag {
    /// A larger batch is not opened for one record's time: the time of its first record is told.
    private static let batchLimit = 4 << 20

    private struct Place: Hashable {
        var partition: TopicPartition
        var offset: Offset
    }

    private let contexts = CodecContexts()
    private var times: [Place: Int64] = [:]

    package init() {}

    /// At most `limit` rows, those that are the furthest behind, by group, topic and partition; and how many were left out.
    package func rows(
        _ groups: [GroupFigures], _ topics: LocalTopicTable, limit: Int, wallMilliseconds now: Int64
    ) -> (rows: [GroupLagRow], unlisted: Int) {
        var rows: [GroupLagRow] = []
        for group in groups {
            for (id, committed) in group.offsets {
                guard let partition = topics.topic(id.topic)?.partition(id.partition), partition.isLeader else { continue }
                let behind = partition.highWatermark - max(committed, partition.logStartOffset)
                rows.append(
                    GroupLagRow(group: group.id, partition: id, committed: committed, records: max(behind, 0), age: .zero))
            }
        }
        let all = rows.count
        if all > limit {
            rows.sort { a, b in a.records != b.records ? a.records > b.records : a.comesBefore(b) }
            rows.removeLast(all - limit)
        }
        rows.sort { $0.comesBefore($1) }
        var found: [Place: Int64] = [:]
        for index in rows.indices where rows[index].records > 0 {
            let place = Place(partition: rows[index].partition, offset: rows[index].committed)
            let time = found[place] ?? times[place] ?? timeOfRecord(at: place, topics)
            found[place] = time
            rows[index].age = time.map { .milliseconds(max(now - $0, 0)) }
        }
        times = found
        return (rows, all - rows.count)
    }

    /// Milliseconds since 1970 of the first record at or after the place.
    private func timeOfRecord(at place: Place, _ topics: LocalTopicTable) -> Int64? {
        guard let partition = topics.topic(place.partition.topic)?.partition(place.partition.partition) else { return nil }
        let offset = max(place.offset, partition.logStartOffset)
        let found = partition.fetch(PartitionFetchRequest(offset: offset, maxBytes: 0, firstBatchWhole: true))
        guard let slice = found.slice, let file = slice.file, slice.firstBatchSize >= BatchHeader.size else { return nil }
        var bytes = [UInt8](repeating: 0, count: BatchHeader.size)
        guard Self.read(file, at: slice.position, &bytes) else { return nil }
        let header = bytes.withUnsafeBytes { BatchHeader($0) }
        guard header.maxTimestamp >= 0 else { return nil }
        if header.timestampType == .logAppendTime || header.maxTimestamp == header.baseTimestamp { return header.maxTimestamp }
        guard header.totalSize == slice.firstBatchSize, header.totalSize <= Self.batchLimit else { return header.baseTimestamp }
        var batch = [UInt8](repeating: 0, count: header.totalSize)
        guard Self.read(file, at: slice.position, &batch) else { return nil }
        let time = batch.withUnsafeBytes { timeOfRecord(at: offset, in: $0, header) } ?? header.baseTimestamp
        return time >= 0 ? time : nil
    }

    private func timeOfRecord(at offset: Offset, in batch: UnsafeRawBufferPointer, _ header: BatchHeader) -> Int64? {
        guard BatchHeader.checksum(of: batch) == header.crc else { return nil }
        var scratch = ByteBuffer()
        let limit = TimeSearch.decompressedLimit
        guard let records = try? header.records(of: batch, contexts: contexts, scratch: &scratch, limit: limit)
        else { return nil }
        var cursor = RecordCursor(records, count: header.recordCount)
        while let record = try? cursor.next() {
            if header.baseOffset + Int64(record.offsetDelta) >= offset { return header.timestamp(of: record) }
        }
        return nil
    }

    private static func read(_ file: any DiskFile, at position: Int64, _ bytes: inout [UInt8]) -> Bool {
        let wanted = bytes.count
        let count = bytes.withUnsafeMutableBytes { try? file.read(into: $0, at: position) }
        return count == wanted
    }
}

extension GroupLagRow {
    fileprivate func comesBefore(_ other: GroupLagRow) -> Bool {
        (group, partition.topic, partition.partition) < (other.group, other.partition.topic, other.partition.partition)
    }
}
