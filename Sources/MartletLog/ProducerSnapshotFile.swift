package import MartletModel
package import MartletReactor
internal import MartletBasics

/// `NNN.snapshot` beside a segment: the producers before offset NNN, so that recovery reads only what follows. One is
/// written at each roll and at a clean stop.
///
///     0 version int16, 1     2 crc uint32: CRC-32C of all that follows it     6 count int32, then `count` entries:
///
///     0 producerId int64              14 lastOffset int64, -1 none        34 coordinatorEpoch int32, -1 none
///     8 epoch int16                   22 offsetDelta int32                38 transactionStart int64, -1 none
///    10 lastSequence int32, -1 none   26 timestamp int64
///
/// All big-endian. Sequence, offset and delta are those of the producer's last batch; the timestamp may be a marker's.
/// A producer known only by a marker, or whose epoch a marker raised, has no batch. We write entries by rising id;
/// Kafka in the order of its hash table.
package enum ProducerSnapshotFile {
    package static let version: Int16 = 1
    package static let headerSize = 10
    package static let entrySize = 46

    /// `00000000000000000042.snapshot`
    package static func fileName(at offset: Offset) -> String {
        let digits = String(offset)
        return String(repeating: "0", count: max(0, 20 - digits.utf8.count)) + digits + ".snapshot"
    }
}

extension ProducerStateTable {
    /// What a snapshot file says. `offset` is the one in its name. The recognition of duplicates begins again with the
    /// last batch of each producer, since a snapshot holds no more.
    package static func load(
        _ disk: any Disk, path: String, at offset: Offset, producerLimit: Int = ProducerStateTable.defaultProducerLimit
    ) throws(LogError) -> ProducerStateTable {
        guard let bytes = try onDisk({ () throws(SystemError) in try disk.contents(path) }) else {
            throw .corrupt(path: path, position: 0, reason: "the producer snapshot is not there")
        }
        return try decode(bytes, path: path, at: offset, producerLimit: producerLimit)
    }

    package static func decode(
        _ bytes: [UInt8], path: String, at offset: Offset, producerLimit: Int = ProducerStateTable.defaultProducerLimit
    ) throws(LogError) -> ProducerStateTable {
        var table = ProducerStateTable(producerLimit: producerLimit)
        var fault: LogError?
        bytes.withUnsafeBytes { raw in
            do throws(LogError) { try table.read(raw, path: path, at: offset) } catch { fault = error }
        }
        if let fault { throw fault }
        table.nextOffset = offset
        return table
    }

    private mutating func read(_ bytes: UnsafeRawBufferPointer, path: String, at offset: Offset) throws(LogError) {
        func bad(_ position: Int, _ reason: String) -> LogError {
            .corrupt(path: path, position: Int64(position), reason: reason)
        }
        do {
            var reader = ByteReader(bytes)
            let version = try reader.int16()
            guard version == ProducerSnapshotFile.version else {
                throw bad(0, "producer snapshot of version \(version), not 1")
            }
            let crc = try reader.uint32()
            guard crc == crc32c(UnsafeRawBufferPointer(rebasing: bytes[6...])) else {
                throw bad(2, "the checksum does not match")
            }
            let count = Int(try reader.int32())
            guard count >= 0, reader.remaining == count * ProducerSnapshotFile.entrySize else {
                throw bad(6, "\(count) producers in \(bytes.count) bytes")
            }
            for _ in 0..<count {
                let position = reader.position
                if let reason = try readEntry(&reader, at: offset) { throw bad(position, reason) }
            }
        } catch let error as LogError {
            throw error
        } catch {
            throw bad(0, "the producer snapshot is cut short at \(bytes.count) bytes")
        }
    }

    /// Takes over one entry; or what is wrong with it.
    private mutating func readEntry(_ reader: inout ByteReader, at offset: Offset) throws(DecodingFault) -> String? {
        let producer = try reader.int64()
        let epoch = try reader.int16()
        let sequence = try reader.int32()
        let lastOffset = try reader.int64()
        let delta = try reader.int32()
        let timestamp = try reader.int64()
        let coordinatorEpoch = try reader.int32()
        let start = try reader.int64()
        if producer < 0 { return "producer \(producer)" }
        if entry(of: producer) != nil { return "producer \(producer) twice" }
        if lastOffset >= offset || start >= offset || delta < 0 || lastOffset >= 0 && Int64(delta) > lastOffset {
            return "producer \(producer) with offset \(lastOffset), delta \(delta), transaction at \(start)"
        }
        var entry = ProducerEntry(producer, epoch: epoch, timestamp: timestamp, at: max(offset - 1, lastOffset))
        entry.coordinatorEpoch = coordinatorEpoch
        entry.transactionStart = max(start, -1)
        if lastOffset >= 0 {
            entry.mayHaveEarlier = true
            entry.append(
                ProducerBatch(lastSequence: sequence, offsetDelta: delta, lastOffset: lastOffset, timestamp: timestamp))
        }
        put(producer, entry)
        return nil
    }

    /// The snapshot of what is known now, for the file named by `nextOffset`.
    package func encodeSnapshot() -> [UInt8] {
        let entries = sortedEntries
        var buffer = ByteBuffer(
            capacity: ProducerSnapshotFile.headerSize + entries.count * ProducerSnapshotFile.entrySize)
        buffer.int16(ProducerSnapshotFile.version)
        buffer.uint32(0)
        buffer.int32(Int32(entries.count))
        for entry in entries {
            let last = entry.last
            buffer.int64(entry.producerID)
            buffer.int16(entry.epoch)
            buffer.int32(last.lastSequence)
            buffer.int64(last.lastOffset)
            buffer.int32(last.offsetDelta)
            buffer.int64(entry.lastTimestamp)
            buffer.int32(entry.coordinatorEpoch)
            buffer.int64(entry.transactionStart)
        }
        buffer.patch(crc32c(UnsafeRawBufferPointer(rebasing: buffer.bytes[6...])), at: 2)
        return buffer.array
    }
}
