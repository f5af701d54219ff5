import MartletBasics
import MartletModel
import Testing

/// What Kafka wrote to its disks, read by us, against what Kafka itself served of it.
@Suite struct KafkasOwnBatches {
    /// All batches of a partition's segments, each checked by its checksum.
    static func batches(_ archive: Archive, _ partition: String) throws -> [[UInt8]] {
        var found: [[UInt8]] = []
        for segment in try archive.segments(of: partition) {
            try segment.withUnsafeBytes {
                var walker = BatchWalker($0, checkingChecksums: true)
                while true {
                    switch walker.next() {
                    case .batch(let position, let header): found.append([UInt8](walker.batch(at: position, header)))
                    case .end: return
                    case let step: throw Archive.Failure(what: "\(partition) at \(walker.position): \(step)")
                    }
                }
            }
        }
        return found
    }

    static func compare(_ batch: [UInt8], _ listed: JSON, _ place: String) throws {
        let header = header(batch)
        #expect(header.lastOffset == listed["lastOffset"].integer, "\(place)")
        #expect(Int64(header.totalSize) == listed["sizeInBytes"].integer, "\(place)")
        #expect(Int64(header.leaderEpoch) == listed["leaderEpoch"].integer, "\(place)")
        #expect(header.codec.map { "\($0)" } == listed["codec"].text, "\(place)")
        #expect(header.isTransactional == listed["transactional"].bool, "\(place)")
        #expect(header.isControl == listed["control"].bool, "\(place)")
        #expect(header.maxTimestamp == listed["maxTimestamp"].integer, "\(place)")
        #expect(header.producerID == listed["producerId"].integer, "\(place)")
        let (records, deltas) = try read(batch)
        let expected = listed["records"].list
        #expect(records.count == expected.count && records.count == Int(header.recordCount), "\(place)")
        for ((record, delta), row) in zip(zip(records, deltas), expected.map(\.list)) {
            #expect(header.baseOffset + Int64(delta) == row[0].integer, "\(place)")
            let headers = row[4].list.map { RecordHeader($0.list[0].bytes ?? [], $0.list[1].bytes) }
            let said = Rec(row[2].bytes, row[3].bytes, headers, timestamp: row[1].integer ?? -99)
            #expect(record == said, "\(place)")
        }
    }

    @Test(arguments: ["zk39-clean", "kraft43-clean"])
    func everyBatchSaysWhatKafkaServedOfIt(name: String) throws {
        guard let archive = try Archive(name) else { return }
        var compared = 0
        var codecs: Set<CompressionCodec> = []
        for (topic, partitions) in archive.listing["topics"].members {
            for (partition, state) in partitions.members {
                let start = state["logStartOffset"].integer ?? 0
                let stored = try Self.batches(archive, "\(topic)-\(partition)").filter { header($0).lastOffset >= start }
                let listed = state["batches"].list
                #expect(stored.count == listed.count, "\(topic)-\(partition)")
                for (batch, listing) in zip(stored, listed) {
                    try Self.compare(batch, listing, "\(name) \(topic)-\(partition) at \(header(batch).baseOffset)")
                    codecs.insert(header(batch).codec!)
                    compared += 1
                }
            }
        }
        #expect(compared > 800)
        #expect(codecs.count == 5)
    }

    /// Producers' batches as Kafka stored them would be taken by us too, and, built anew by us, are Kafka's to the byte
    /// where nothing is compressed.
    @Test func whatKafkaTookWeTakeAndBuildAlike() throws {
        guard let archive = try Archive("zk39-clean") else { return }
        var rebuilt = 0
        let contexts = CodecContexts()
        for topic in ["codec-none", "codec-gzip", "codec-snappy", "codec-lz4", "codec-zstd", "codec-big", "shapes", "idempotent"] {
            for batch in try Self.batches(archive, "\(topic)-0") {
                let sent = edited(batch) { $0.baseOffset = 0 }
                let judged = try judge(sent, now: header(batch).maxTimestamp)
                #expect(judged.stored == sent, "\(topic)")
                guard header(batch).codec == CompressionCodec.none else { continue }
                let header = header(batch)
                var builder = BatchBuilder(BatchIdentity(header))
                for record in try read(batch).records {
                    builder.append(
                        timestamp: record.timestamp, key: record.key, value: record.value, headers: record.headers)
                }
                var output = ByteBuffer()
                builder.finish(into: &output, contexts: contexts)
                #expect(output.array == batch, "\(topic) at \(header.baseOffset)")
                rebuilt += 1
            }
        }
        #expect(rebuilt > 30)
    }
}
