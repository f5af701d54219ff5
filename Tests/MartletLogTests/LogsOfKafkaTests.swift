import Foundation
import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import Testing

/// What lies beside the package on a machine that has it, and programs to run on it.
enum KafkaData {
    static let folder: String = {
        let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        return "/" + root + "/../shared/kafka-data"
    }()

    static let isThere = access(folder + "/read_dir.py", R_OK) == 0

    static func temporaryFolder() throws -> String {
        var template = Array("/tmp/martlet-log-XXXXXX".utf8CString)
        return try String(cString: #require(mkdtemp(&template)))
    }

    /// Runs a program; its status, and what it said.
    static func run(_ words: [String]) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = words
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }

    /// Whether the independent reader finds nothing wrong with a log directory that was closed cleanly.
    static func expectSound(_ directories: [String], expect listing: String? = nil) throws {
        let extra = listing.map { ["--expect", $0] } ?? []
        let (status, output) = try run(["python3", folder + "/read_dir.py"] + directories + extra)
        #expect(
            status == 0,
            "\(output.split(separator: "\n").filter { $0.contains("ERROR") }.prefix(12).joined(separator: "\n"))\n\(output.suffix(300))"
        )
    }
}

/// Every log that Kafka wrote is opened, and gives record for record what Kafka served from it; and the folder is sound
/// when we leave it.
@Suite(.serialized) struct LogsOfKafka {
    typealias Object = [String: Any]

    @Test(
        .enabled(if: KafkaData.isThere),
        arguments: [
            "zk39-clean", "zk39-replica", "zk39-jbod", "zk39-killed", "zk39-torn", "kraft43-clean", "kraft43-killed",
            "kraft43-torn",
        ])
    func everyLogIsServedAsKafkaServedIt(archive: String) throws {
        let top = try KafkaData.temporaryFolder()
        let disk = RealDisk()
        defer { try? disk.removeTree(top) }
        try #require(try KafkaData.run(["tar", "xJf", "\(KafkaData.folder)/\(archive).tar.xz", "-C", top]).status == 0)
        let listing = "\(KafkaData.folder)/\(archive).json"
        let said = try #require(
            try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: listing))) as? Object)
        let topics = try #require(said["topics"] as? Object)
        let inside = "\(top)/\(archive)"
        let directories =
            try disk.contents(inside + "/meta.properties") != nil
            ? [inside] : disk.list(inside).map { "\(inside)/\($0)" }
        var compared = 0
        for directory in directories {
            var ends = OffsetCheckpoint()
            let recoveryPoints = try OffsetCheckpoint.read(disk, directory + "/recovery-point-offset-checkpoint")
            let logStarts = try OffsetCheckpoint.read(disk, directory + "/log-start-offset-checkpoint")
            let cleaned = try OffsetCheckpoint.read(disk, directory + "/cleaner-offset-checkpoint")
            let marker = directory + "/" + CleanShutdownMarker.fileName
            let isClean = try disk.status(marker) != nil
            for name in try disk.list(directory) {
                guard let folder = PartitionFolder(parsing: name), folder.kind == .live else { continue }
                let partition = folder.partition
                let world = LogWorld(
                    disk: disk, folder: "\(directory)/\(name)", partition: partition, cutDirectory: top + "/cut")
                configure(
                    &world.config, (said["topicConfigs"] as? Object)?[partition.topic] as? [String: String] ?? [:])
                var parameters = world.parameters
                parameters.wasClosedCleanly = isClean
                parameters.recoveryPoint = recoveryPoints[partition] ?? 0
                parameters.logStartOffset = logStarts[partition] ?? 0
                parameters.mayHaveGaps = parameters.mayHaveGaps || cleaned[partition] != nil
                let log = try PartitionLog.open(parameters)
                let expected = try #require((topics[partition.topic] as? Object)?["\(partition.partition)"] as? Object)
                try compare(log, expected, "\(archive) \(name)")
                try log.close(clean: true)
                ends[partition] = log.logEndOffset
                compared += 1
            }
            try disk.replace(directory + "/recovery-point-offset-checkpoint", with: ends.encode())
            if !isClean { try disk.replace(marker, with: CleanShutdownMarker.encode(brokerEpoch: -1)) }
        }
        #expect(compared > 3)
        try KafkaData.expectSound(directories, expect: listing)
    }

    private func configure(_ config: inout TopicConfig, _ said: [String: String]) {
        if let interval = said["index.interval.bytes"].flatMap(Int32.init) { config.indexIntervalBytes = interval }
        if said["cleanup.policy"]?.contains("compact") == true { config.cleanupPolicy = .compact }
    }

    private func compare(_ log: PartitionLog, _ expected: Object, _ what: String) throws {
        func number(_ key: String) -> Int64 { (expected[key] as? NSNumber)?.int64Value ?? -99 }
        #expect(log.logStartOffset == number("logStartOffset"), "\(what)")
        #expect(log.logEndOffset == number("logEndOffset"), "\(what)")
        log.noteHighWatermark(number("highWatermark"))
        #expect(log.lastStableOffset(highWatermark: number("highWatermark")) == number("lastStableOffset"), "\(what)")
        try compareAborted(log, expected, lastStable: number("lastStableOffset"), what)
        let batches = try log.batches()
        let batchesThere = try #require(expected["batches"] as? [Object])
        #expect(batches.count == batchesThere.count, "\(what)")
        for (batch, there) in zip(batches, batchesThere) {
            let difference = try difference(batch, there)
            #expect(difference == nil, "\(what)")
            if difference != nil { break }
        }
        // from the middle of every batch, a reader gets that batch first
        for batch in batches {
            let header = batch.withUnsafeBytes { BatchHeader($0) }
            for offset in Set([header.baseOffset, (header.baseOffset + header.lastOffset) / 2, header.lastOffset])
                .sorted()
            where offset >= log.logStartOffset {
                let slice = try log.read(from: offset, maxBytes: 1, limit: log.logEndOffset, firstBatchWhole: true)
                #expect(try log.bytes(slice) == batch, "\(what) at \(offset)")
            }
        }
    }

    /// The listing has what one fetch of committed records from the start answers: within the first segment, up to the
    /// last stable offset.
    private func compareAborted(_ log: PartitionLog, _ expected: Object, lastStable: Offset, _ what: String) throws {
        let slice = try log.read(from: log.logStartOffset, maxBytes: 1 << 20, limit: lastStable, firstBatchWhole: true)
        var end = log.logStartOffset
        let bytes = try log.bytes(slice)
        var position = 0
        while position < bytes.count {
            let header = bytes[position...].withUnsafeBytes { BatchHeader($0) }
            end = header.nextOffset
            position += header.totalSize
        }
        let aborted = try log.abortedTransactions(from: log.logStartOffset, upTo: end).map {
            [$0.producerID, $0.firstOffset]
        }
        if what.hasSuffix("torn txn-0") {
            // its transaction indexes were removed: Kafka then gives aborted records to readers, and we make the index
            // anew
            #expect(aborted == stride(from: 5, through: 95, by: 15).map { [2, $0] }, "\(what)")
        } else {
            let there = try #require(expected["abortedTransactions"] as? [[NSNumber]])
            #expect(aborted == there.map { $0.map(\.int64Value) }, "\(what)")
        }
    }

    private func difference(_ batch: [UInt8], _ there: Object) throws -> String? {
        let header = batch.withUnsafeBytes { BatchHeader($0) }
        let numbers: [(String, Int64)] = [
            ("baseOffset", header.baseOffset), ("lastOffset", header.lastOffset), ("sizeInBytes", Int64(batch.count)),
            ("leaderEpoch", Int64(header.leaderEpoch)), ("baseTimestamp", header.baseTimestamp),
            ("maxTimestamp", header.maxTimestamp),
            ("producerId", header.producerID), ("producerEpoch", Int64(header.producerEpoch)),
            ("baseSequence", Int64(header.baseSequence)),
            ("transactional", header.isTransactional ? 1 : 0), ("control", header.isControl ? 1 : 0),
        ]
        for (key, value) in numbers where (there[key] as? NSNumber)?.int64Value != value {
            return "\(key) \(value), not \(there[key] ?? "nothing"), in the batch at \(header.baseOffset)"
        }
        let records = try #require(there["records"] as? [[Any]])
        var scratch = ByteBuffer()
        return try batch.withUnsafeBytes { raw in
            let opened = try header.records(of: raw, contexts: CodecContexts(), scratch: &scratch, limit: 1 << 28)
            var cursor = RecordCursor(opened, count: header.recordCount)
            var index = 0
            while let record = try cursor.next() {
                guard index < records.count else { return "more records in the batch at \(header.baseOffset)" }
                var headers: [[Any]] = []
                for header in cursor.headers(of: record) {
                    let name: UnsafeRawBufferPointer = cursor.bytes(in: header.name)
                    headers.append([text(name), text(cursor.bytes(in: header.value))])
                }
                let mine: [Any] = [
                    header.baseOffset + Int64(record.offsetDelta), header.timestamp(of: record),
                    text(cursor.bytes(in: record.key)),
                    text(cursor.bytes(in: record.value)), headers,
                ]
                let (a, b) = (plain(mine), plain(records[index]))
                if a != b { return "\(a.prefix(200)), not \(b.prefix(200))" }
                index += 1
            }
            return index == records.count ? nil : "fewer records in the batch at \(header.baseOffset)"
        }
    }

    /// As the listings write bytes: text where they are plain UTF-8, else hexadecimal.
    private func text(_ bytes: UnsafeRawBufferPointer?) -> Any {
        guard let bytes else { return NSNull() }
        return ["hex": bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()]
    }

    private func plain(_ value: Any) -> String {
        switch value {
        case is NSNull: "null"
        case let list as [Any]: "[" + list.map(plain).joined(separator: ",") + "]"
        case let object as [String: Any]: "\(object["hex"] ?? "?")"
        case let string as String: string.utf8.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        case let number as Int64: "\(number)"
        case let number as NSNumber: "\(number.int64Value)"
        default: "\(value)"
        }
    }
}
