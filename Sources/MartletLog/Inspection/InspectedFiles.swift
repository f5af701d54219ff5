internal import MartletBasics
internal import MartletModel
internal import MartletReactor

/// The entries of small files as their bytes say, without judgement; drawn in the files that own the formats.
enum InspectedFiles {
    /// Of a preallocated file, without the zeros that nothing was written over.
    static func offsetIndex(_ bytes: [UInt8], base: Offset) -> [OffsetIndexEntry] {
        entries(bytes, of: SparseIndexes.offsetEntrySize) { reader throws(DecodingFault) in
            OffsetIndexEntry(offset: base + Int64(try reader.int32()), position: Int(try reader.int32()))
        }
    }

    static func timeIndex(_ bytes: [UInt8], base: Offset) -> [TimeIndexEntry] {
        entries(bytes, of: SparseIndexes.timeEntrySize) { reader throws(DecodingFault) in
            TimeIndexEntry(timestamp: try reader.int64(), offset: base + Int64(try reader.int32()))
        }
    }

    static func transactionIndex(_ bytes: [UInt8], path: String) throws(LogError) -> [AbortedTransaction] {
        let size = TransactionIndex.entrySize
        guard bytes.count % size == 0 else {
            throw .corrupt(path: path, position: Int64(bytes.count / size * size), reason: "a part of an entry")
        }
        var versions: [Int16] = []
        let found = entries(bytes, of: size, trimsZeros: false) { reader throws(DecodingFault) in
            versions.append(try reader.int16())
            return AbortedTransaction(
                producerID: try reader.int64(), firstOffset: try reader.int64(), lastOffset: try reader.int64(),
                lastStableOffset: try reader.int64())
        }
        if let index = versions.firstIndex(where: { $0 != 0 }) {
            throw .corrupt(path: path, position: Int64(index * size), reason: "an entry of version \(versions[index])")
        }
        return found
    }

    static func snapshot(_ bytes: [UInt8], path: String) throws(LogError) -> [ReplayedProducer] {
        func bad(_ position: Int64, _ reason: String) -> LogError { .corrupt(path: path, position: position, reason: reason) }
        let (head, size) = (ProducerSnapshotFile.headerSize, ProducerSnapshotFile.entrySize)
        guard bytes.count >= head else { throw bad(0, "\(bytes.count) bytes, fewer than its head") }
        func word(_ at: Int) -> UInt32 { bytes[at..<at + 4].reduce(0) { $0 << 8 | UInt32($1) } }
        let version = Int16(bytes[0]) << 8 | Int16(bytes[1])
        guard version == ProducerSnapshotFile.version else { throw bad(0, "version \(version), and not 1") }
        let crc = bytes.withUnsafeBytes { crc32c(UnsafeRawBufferPointer(rebasing: $0[6...])) }
        guard crc == word(2) else { throw bad(2, "the checksum says \(word(2)), the bytes give \(crc)") }
        let count = Int(Int32(bitPattern: word(6)))
        guard count >= 0, bytes.count - head == count * size else { throw bad(6, "\(count) producers in \(bytes.count) bytes") }
        return entries(Array(bytes[head...]), of: size, trimsZeros: false) { reader throws(DecodingFault) in
            let producer = try reader.int64()
            let epoch = try reader.int16()
            let sequence = try reader.int32()
            let lastOffset = try reader.int64()
            let delta = try reader.int32()
            let timestamp = try reader.int64()
            return ReplayedProducer(
                producerID: producer, epoch: epoch, lastSequence: sequence, lastOffset: lastOffset, offsetDelta: delta,
                timestamp: timestamp, coordinatorEpoch: try reader.int32(), transactionStart: try reader.int64())
        }
    }

    /// Where the zeros begin that end a preallocated file: megabytes of them.
    private static func endOfContent(_ bytes: [UInt8]) -> Int {
        bytes.withUnsafeBytes { raw in
            var end = raw.count
            while end >= 8, raw.loadUnaligned(fromByteOffset: end - 8, as: UInt64.self) == 0 { end -= 8 }
            while end > 0, raw[end - 1] == 0 { end -= 1 }
            return end
        }
    }

    private static func entries<E>(
        _ bytes: [UInt8], of size: Int, trimsZeros: Bool = true, _ read: (inout ByteReader) throws(DecodingFault) -> E
    ) -> [E] {
        var count = bytes.count / size
        if trimsZeros { count = min(count, (endOfContent(bytes) + size - 1) / size) }
        var found: [E] = []
        found.reserveCapacity(count)
        bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            for _ in 0..<count {
                guard let entry = try? read(&reader) else { preconditionFailure("the bytes are whole entries") }
                found.append(entry)
            }
        }
        return found
    }
}
