internal import MartletBasics
internal import MartletModel
package import MartletReactor

/// Shows what the files of a log directory hold, entry by entry, also where they are damaged. Writes nothing.
///
/// For people a line an entry, in the words of Kafka's DumpLogSegments; for programs one JSON object a line, each with the
/// `file` it is from and the `kind` of the entry.
package struct LogDumper {
    package struct Options: Sendable {
        /// Records too, and not only the headers of their batches.
        package var records = false
        package var json = false
        /// Whose records a file's are taken for; nil: as the topic's name in the folder says.
        package var coordinator: CoordinatorRecords?

        package init() {}
    }

    private let disk: any Disk
    private let options: Options
    /// Given each line, without its end.
    private let emit: (String) -> Void

    package init(disk: any Disk, options: Options, emit: @escaping (String) -> Void) {
        self.disk = disk
        self.options = options
        self.emit = emit
    }

    /// A file, a partition's folder or a log directory. False where nothing there is of a log.
    package func show(_ path: String) throws(LogError) -> Bool {
        let disk = disk
        guard let status = try onDisk({ () throws(SystemError) in try disk.status(path) }) else { return false }
        guard status.isDirectory else { return try dumpFile(path, coordinator(path)) }
        var isAny = false
        let isPartition = PartitionFolder(parsing: Self.lastName(path)) != nil
        for name in try onDisk({ () throws(SystemError) in try disk.list(path) }) {
            let inner = path + "/" + name
            let isFolder = try onDisk({ () throws(SystemError) in try disk.status(inner) })?.isDirectory == true
            // folders of partitions lie in log directories, and nowhere deeper
            if isFolder, isPartition || PartitionFolder(parsing: name) == nil { continue }
            let isDumped = isFolder ? try show(inner) : try dumpFile(inner, coordinator(inner))
            isAny = isAny || isDumped
        }
        return isAny
    }

    private static func lastName(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? "" }

    private func coordinator(_ path: String) -> CoordinatorRecords? {
        if let chosen = options.coordinator { return chosen }
        let names = path.split(separator: "/")
        guard names.count > 1, let folder = PartitionFolder(parsing: String(names[names.count - 2])) else { return nil }
        return CoordinatorRecords(topic: folder.partition.topic)
    }

    private func dumpFile(_ path: String, _ coordinator: CoordinatorRecords?) throws(LogError) -> Bool {
        let name = Self.lastName(path)
        if let parsed = SegmentFile.parse(name) {
            begin(path)
            switch parsed.kind {
            case .log: try dumpLog(path, parsed.baseOffset, coordinator)
            case .offsetIndex: try dumpOffsetIndex(path, parsed.baseOffset)
            case .timeIndex: try dumpTimeIndex(path, parsed.baseOffset)
            case .transactionIndex: try dumpTransactionIndex(path)
            case .snapshot: try dumpSnapshot(path)
            }
            return true
        }
        let bare = name.hasSuffix(".tmp") ? String(name.dropLast(4)) : name
        switch bare {
        case LeaderEpochHistory.fileName: try dumpEpochs(path)
        case PartitionMetadata.fileName, MetaProperties.fileName, CleanShutdownMarker.fileName: try dumpText(path)
        case DurableOffsets.fileName: try dumpCheckpoint(path)
        default:
            guard LogDirectory.Checkpoint(rawValue: bare) != nil else { return false }
            try dumpCheckpoint(path)
        }
        return true
    }

    // MARK: Saying

    private func begin(_ path: String) { if !options.json { emit("Dumping \(path)") } }

    /// Each field as `name: value` for people.
    private func say(_ path: String, _ kind: String, _ fields: [JSONObject.Member], text: String? = nil) {
        guard options.json else {
            return emit(text ?? fields.map { "\($0.name): \(Self.plain($0.value))" }.joined(separator: " "))
        }
        let head: [JSONObject.Member] = [.init("file", .string(path)), .init("kind", .string(kind))]
        emit(Self.text(.object(JSONObject(head + fields))))
    }

    private static func text(_ value: JSONValue) -> String { String(decoding: value.bytes, as: UTF8.self) }
    private static func plain(_ value: JSONValue) -> String { value.string ?? text(value) }

    private func sayFault(_ path: String, at position: Int64?, _ reason: String) {
        var fields: [JSONObject.Member] = [.init("reason", .string(reason))]
        if let position { fields.insert(.init("position", .int(position)), at: 0) }
        say(path, "damage", fields, text: "damaged\(position.map { " at byte \($0)" } ?? ""): \(reason)")
    }

    private func sayFault(_ path: String, _ error: LogError) {
        switch error {
        case .corrupt(_, let position, let reason): sayFault(path, at: position, reason)
        case .malformedFile(_, let line, let reason): sayFault(path, at: nil, "line \(line): \(reason)")
        default: sayFault(path, at: nil, "\(error)")
        }
    }

    private func contents(_ path: String) throws(LogError) -> [UInt8] {
        let disk = disk
        return try onDisk { () throws(SystemError) in try disk.contents(path) } ?? []
    }

    // MARK: Batches

    private func dumpLog(_ path: String, _ base: Offset, _ coordinator: CoordinatorRecords?) throws(LogError) {
        let reader = try SegmentReader(path, baseOffset: base, on: disk)
        if !options.json { emit("Log starting offset: \(base)") }
        while true {
            switch try reader.next() {
            case .end: return
            case .room(let position):
                if !options.json { emit("\(reader.size - position) zero bytes follow: room for records to come") }
                return
            case .stopped(let position, let reason):
                return sayFault(path, at: position, "\(reason); \(reader.size - position) bytes are left")
            case .batch(let batch): show(batch, reader, coordinator)
            }
        }
    }

    private func show(_ batch: SegmentReader.Batch, _ reader: SegmentReader, _ coordinator: CoordinatorRecords?) {
        var fields = Self.fields(of: batch)
        guard options.records, batch.fault == nil else { return say(reader.path, "batch", fields) }
        var records: [[JSONObject.Member]] = []
        let fault = reader.forEachRecord(of: batch) { record, cursor in
            records.append(Self.fields(of: record, cursor, batch.header, coordinator))
        }
        if options.json {
            fields.append(.init("records", .array(records.map { .object(JSONObject($0)) })))
            if let fault { fields.append(.init("fault", .string(fault))) }
            return say(reader.path, "batch", fields)
        }
        say(reader.path, "batch", fields)
        for record in records {
            // a text keeps its quotes: what is empty, null or hexadecimal can be told apart
            emit("| " + record.map { "\($0.name): \(Self.text($0.value))" }.joined(separator: " "))
        }
        if let fault { sayFault(reader.path, at: batch.position, fault) }
    }

    private static func fields(of batch: SegmentReader.Batch) -> [JSONObject.Member] {
        let header = batch.header
        let last = header.baseOffset.addingReportingOverflow(Int64(header.lastOffsetDelta)).partialValue
        var fields: [JSONObject.Member] = [
            .init("baseOffset", .int(header.baseOffset)), .init("lastOffset", .int(last)),
            .init("count", .int(Int64(header.recordCount))), .init("baseSequence", .int(Int64(header.baseSequence))),
            .init("lastSequence", .int(Int64(header.lastSequence))), .init("producerId", .int(header.producerID)),
            .init("producerEpoch", .int(Int64(header.producerEpoch))),
            .init("partitionLeaderEpoch", .int(Int64(header.leaderEpoch))),
            .init("isTransactional", .bool(header.isTransactional)), .init("isControl", .bool(header.isControl)),
            .init("position", .int(batch.position)),
            .init("timestampType", .string(header.timestampType == .createTime ? "CreateTime" : "LogAppendTime")),
            .init("baseTimestamp", .int(header.baseTimestamp)), .init("maxTimestamp", .int(header.maxTimestamp)),
            .init("size", .int(Int64(header.totalSize))), .init("magic", .int(Int64(header.magic))),
            .init("compresscodec", header.codec.map { .string("\($0)") } ?? .int(Int64(header.attributes & 7))),
            .init("crc", .int(Int64(header.crc))), .init("isvalid", .bool(batch.fault == nil)),
        ]
        if header.hasDeleteHorizon { fields.insert(.init("deleteHorizonMs", .int(header.baseTimestamp)), at: 10) }
        if let fault = batch.fault { fields.append(.init("fault", .string(fault))) }
        return fields
    }

    private static func fields(
        of record: RecordView, _ cursor: RecordCursor, _ header: BatchHeader, _ coordinator: CoordinatorRecords?
    ) -> [JSONObject.Member] {
        let key = cursor.bytes(in: record.key).map(Array.init)
        let value = cursor.bytes(in: record.value).map(Array.init)
        var fields: [JSONObject.Member] = [
            .init("offset", .int(header.baseOffset + Int64(record.offsetDelta))),
            .init("timestamp", .int(header.timestamp(of: record))),
        ]
        if header.hasProducer, header.baseSequence >= 0 {
            let sequence = (Int64(header.baseSequence) + Int64(record.offsetDelta)) & 0x7FFF_FFFF
            fields.append(.init("sequence", .int(sequence)))
        }
        let headers: [JSONValue] = cursor.headers(of: record).map { name, value in
            let name: UnsafeRawBufferPointer = cursor.bytes(in: name)
            return .array([JSONValue(bytes: Array(name)), JSONValue(bytes: cursor.bytes(in: value).map(Array.init))])
        }
        fields += [
            .init("keySize", .int(Int64(key?.count ?? -1))), .init("valueSize", .int(Int64(value?.count ?? -1))),
            .init("headers", .array(headers)),
        ]
        if header.isControl { return fields + marker(record, cursor, key, value) }
        if let decoded = coordinator?.decode(key: key, value: value) {
            return fields + [.init("key", decoded.key), .init("value", decoded.value)]
        }
        return fields + [.init("key", JSONValue(bytes: key)), .init("value", JSONValue(bytes: value))]
    }

    private static func marker(
        _ record: RecordView, _ cursor: RecordCursor, _ key: [UInt8]?, _ value: [UInt8]?
    ) -> [JSONObject.Member] {
        guard let keyBytes = cursor.bytes(in: record.key), let valueBytes = cursor.bytes(in: record.value),
            let marker = EndTransactionMarker(key: keyBytes, value: valueBytes)
        else { return [.init("key", JSONValue(bytes: key)), .init("value", JSONValue(bytes: value))] }
        return [
            .init("endTxnMarker", .string(marker.type == .commit ? "COMMIT" : "ABORT")),
            .init("coordinatorEpoch", .int(Int64(marker.coordinatorEpoch))),
        ]
    }

    // MARK: Indexes and snapshots

    private func dumpOffsetIndex(_ path: String, _ base: Offset) throws(LogError) {
        for entry in InspectedFiles.offsetIndex(try contents(path), base: base) {
            say(path, "offsetIndex", [.init("offset", .int(entry.offset)), .init("position", .int(Int64(entry.position)))])
        }
    }

    private func dumpTimeIndex(_ path: String, _ base: Offset) throws(LogError) {
        for entry in InspectedFiles.timeIndex(try contents(path), base: base) {
            say(path, "timeIndex", [.init("timestamp", .int(entry.timestamp)), .init("offset", .int(entry.offset))])
        }
    }

    private func dumpTransactionIndex(_ path: String) throws(LogError) {
        let bytes = try contents(path)
        let entries: [AbortedTransaction]
        do throws(LogError) { entries = try InspectedFiles.transactionIndex(bytes, path: path) } catch {
            return sayFault(path, error)
        }
        for entry in entries {
            say(path, "abortedTransaction", [
                .init("version", 0), .init("producerId", .int(entry.producerID)), .init("firstOffset", .int(entry.firstOffset)),
                .init("lastOffset", .int(entry.lastOffset)), .init("lastStableOffset", .int(entry.lastStableOffset)),
            ])
        }
    }

    private func dumpSnapshot(_ path: String) throws(LogError) {
        let bytes = try contents(path)
        let entries: [ReplayedProducer]
        do throws(LogError) { entries = try InspectedFiles.snapshot(bytes, path: path) } catch { return sayFault(path, error) }
        for entry in entries {
            say(path, "producer", [
                .init("producerId", .int(entry.producerID)), .init("producerEpoch", .int(Int64(entry.epoch))),
                .init("lastSequence", .int(Int64(entry.lastSequence))), .init("lastOffset", .int(entry.lastOffset)),
                .init("offsetDelta", .int(Int64(entry.offsetDelta))), .init("timestamp", .int(entry.timestamp)),
                .init("coordinatorEpoch", .int(Int64(entry.coordinatorEpoch))),
                .init("currentTransactionFirstOffset", entry.transactionStart < 0 ? .null : .int(entry.transactionStart)),
            ])
        }
    }

    // MARK: Texts

    private func dumpEpochs(_ path: String) throws(LogError) {
        begin(path)
        do throws(LogError) {
            for entry in try LeaderEpochHistory.decode(try contents(path), path: path).entries {
                let fields = [("epoch", Int64(entry.epoch)), ("startOffset", entry.startOffset)]
                say(path, "leaderEpoch", fields.map { .init($0.0, .int($0.1)) })
            }
        } catch { sayFault(path, error) }
    }

    private func dumpCheckpoint(_ path: String) throws(LogError) {
        begin(path)
        do throws(LogError) {
            for row in try OffsetCheckpoint.decode(try contents(path), path: path).rows {
                say(path, "checkpoint", [
                    .init("topic", .string(row.partition.topic)), .init("partition", .int(Int64(row.partition.partition))),
                    .init("offset", .int(row.offset)),
                ])
            }
        } catch { sayFault(path, error) }
    }

    private func dumpText(_ path: String) throws(LogError) {
        begin(path)
        for line in try contents(path).split(separator: UInt8(ascii: "\n")) {
            let text = JSONValue(bytes: Array(line))
            say(path, "text", [.init("line", text)], text: Self.plain(text))
        }
    }
}
