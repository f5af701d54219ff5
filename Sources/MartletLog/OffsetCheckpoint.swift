package import MartletModel
package import MartletReactor

/// A checkpoint of offsets by partition: rows `topic partition offset`, in any order; we write them by name. See
/// `CheckpointText` for the text around them.
package struct OffsetCheckpoint: Equatable, Sendable {
    package private(set) var offsets: [TopicPartition: Offset] = [:]

    package init() {}
    package init(_ offsets: [TopicPartition: Offset]) { self.offsets = offsets }

    package var count: Int { offsets.count }

    package subscript(_ partition: TopicPartition) -> Offset? {
        get { offsets[partition] }
        set { offsets[partition] = newValue }
    }

    /// By topic, then partition.
    package var rows: [(partition: TopicPartition, offset: Offset)] {
        offsets.map { ($0.key, $0.value) }.sorted { $0.0 < $1.0 }
    }

    /// What the file says; no rows where there is no file.
    package static func read(_ disk: any Disk, _ path: String) throws(LogError) -> OffsetCheckpoint {
        let bytes = try onDisk { () throws(SystemError) in try disk.contents(path) }
        return try decode(bytes ?? [], path: path)
    }

    package static func decode(_ bytes: [UInt8], path: String) throws(LogError) -> OffsetCheckpoint {
        var text = try CheckpointText(bytes, path: path)
        var checkpoint = OffsetCheckpoint()
        // rows of one topic mostly follow one another: its name is made once
        var name: ArraySlice<UInt8> = []
        var topic = ""
        while try text.nextRow() {
            let word = try text.word()
            if word != name {
                name = word
                topic = String(decoding: word, as: UTF8.self)
                guard TopicName.isValid(topic) else { throw text.malformed("no topic can have the name in this row") }
            }
            let partition = TopicPartition(topic, try text.number(Int32.self))
            let offset = try text.number(Offset.self)
            guard checkpoint.offsets.updateValue(offset, forKey: partition) == nil else {
                throw text.malformed("\(partition) a second time")
            }
            try text.endOfRow()
        }
        return checkpoint
    }

    package func encode() -> [UInt8] {
        let rows = rows
        return CheckpointText.encode(rows: rows.count) { out in
            out.reserveCapacity(rows.count * 32)
            for row in rows {
                out.append(contentsOf: row.partition.topic.utf8)
                out.append(contentsOf: " \(row.partition.partition) \(row.offset)\n".utf8)
            }
        }
    }
}
