import MartletBasics
import MartletClient
import MartletModel

/// What a batch may hold here: enough for every path, and little enough for many inputs a second.
private let decompressedLimit = 1 << 20

/// Settings of the topic and the version in three bytes, then what a producer sent for a partition. With bit 7 of the
/// first byte the checksum is made right, which no mutation would manage.
func fuzzBatch(_ input: inout FuzzInput) {
    let (choice, more, version) = (input.byte(), input.byte(), Int16(3 + input.byte() % 11))
    var config = TopicConfig()
    let codecs: [StoredCompression] = [.producer] + CompressionCodec.allCases.map { .codec($0) }
    config.compression = codecs[Int(choice & 7) % codecs.count]
    if choice & 8 != 0 { config.cleanupPolicy = .compact }
    if choice & 16 != 0 { config.messageTimestampType = .logAppendTime }
    if more & 1 != 0 { config.maxMessageBytes = 200 }
    if more & 2 != 0 { config.segmentBytes = 150 }
    let given = input.rest()
    let records = UnsafeMutableRawBufferPointer.allocate(byteCount: given.count, alignment: 1)
    defer { records.deallocate() }
    records.copyMemory(from: given)
    if choice & 128 != 0, records.count >= BatchHeader.size {
        records.storeBytes(
            of: Int32(truncatingIfNeeded: records.count - BatchHeader.lengthOverhead).bigEndian,
            toByteOffset: BatchHeader.At.batchLength, as: Int32.self)
        BatchHeader.seal(records)
    }
    let contexts = CodecContexts()
    var validator = BatchValidator(contexts: contexts, decompressedBytesLimit: decompressedLimit)
    guard let valid = try? validator.validate(records, config: config, version: version, now: 1_700_000_000_000) else { return }
    let stored = UnsafeRawBufferPointer(
        valid.isRewritten ? validator.rewritten : UnsafeMutableRawBufferPointer(rebasing: records[..<valid.header.totalSize]))
    checkStored(stored, valid, contexts)
}

/// What was judged good is a batch that a log can hold and a consumer read.
private func checkStored(_ stored: UnsafeRawBufferPointer, _ valid: ValidatedBatch, _ contexts: CodecContexts) {
    var walker = BatchWalker(stored, checkingChecksums: true)
    guard case .batch(let position, let header) = walker.next(), position == 0, case .end = walker.next() else {
        preconditionFailure("a batch that was judged good is none")
    }
    precondition(header.lastOffsetDelta == valid.header.lastOffsetDelta, "the result tells another batch")
    var scratch = ByteBuffer()
    guard let area = try? header.records(of: stored, contexts: contexts, scratch: &scratch, limit: 2 * decompressedLimit) else {
        preconditionFailure("a batch that was judged good cannot be read")
    }
    var cursor = RecordCursor(area, count: header.recordCount)
    var offset: Int32 = 0
    do {
        while let record = try cursor.next() {
            precondition(record.offsetDelta == offset, "the offsets of a batch that was judged good do not count up")
            offset += 1
            readHeaders(of: record, cursor)
        }
    } catch {
        preconditionFailure("a batch that was judged good ends with \(error)")
    }
    precondition(offset == header.recordCount, "a batch that was judged good has another count")
}

private func readHeaders(of record: RecordView, _ cursor: RecordCursor) {
    _ = sum(cursor.bytes(in: record.key)) &+ sum(cursor.bytes(in: record.value))
    var headers = cursor.headers(of: record)
    while let header = headers.next() {
        let name: UnsafeRawBufferPointer = cursor.bytes(in: header.name)
        _ = sum(name) &+ sum(cursor.bytes(in: header.value))
    }
}

/// Reads every byte: one that is not there is found by the address sanitizer.
@inline(never)
private func sum(_ bytes: UnsafeRawBufferPointer?) -> UInt8 {
    var all: UInt8 = 0
    for byte in bytes ?? UnsafeRawBufferPointer(start: nil, count: 0) { all &+= byte }
    return all
}

/// A choice, an offset to begin at, then batches one after the other, as in the answer to a fetch.
func fuzzFetched(_ input: inout FuzzInput) {
    let (choice, from) = (input.byte(), Offset(input.byte()))
    var bytes = [UInt8](input.rest())
    if choice & 128 != 0 { sealBatches(&bytes) }
    let aborted: [(producer: ProducerID, first: Offset)]? = choice & 1 == 0 ? nil : [(7, 0), (7, 3), (9, 2)]
    let partition = TopicPartition("t", 0)
    let records = FetchedRecords(
        partition, from: from, records: bytes, aborted: aborted, contexts: CodecContexts(),
        decompressedBytesLimit: decompressedLimit)
    var last = from - 1
    while true {
        let more = try? records.nextBatch { record in
            precondition(record.offset >= from, "a record before the offset that was asked for")
            readHeaders(of: record.view, record.cursor)
            _ = RecordJSON.line(record, of: partition).bytes
            last = record.offset
            return choice & 2 == 0
        }
        guard more == true else { break }
        precondition(records.nextOffset > last, "the next offset is behind what was read")
    }
}

/// Makes the checksum of each batch right, as far as whole ones follow one another.
func sealBatches(_ bytes: inout [UInt8]) {
    bytes.withUnsafeMutableBytes { all in
        var position = 0
        while all.count - position >= BatchHeader.size {
            let length = Int32(
                bigEndian: all.loadUnaligned(fromByteOffset: position + BatchHeader.At.batchLength, as: Int32.self))
            let size = Int(length) + BatchHeader.lengthOverhead
            guard size >= BatchHeader.size, size <= all.count - position else { return }
            BatchHeader.seal(UnsafeMutableRawBufferPointer(rebasing: all[position..<position + size]))
            position += size
        }
    }
}

/// The codec, then what it is to open.
func fuzzDecompression(_ input: inout FuzzInput) {
    let codec = CompressionCodec.allCases[Int(input.byte()) % CompressionCodec.allCases.count]
    let source = input.rest()
    let contexts = CodecContexts()
    var output = ByteBuffer()
    output.append([1, 2, 3])
    guard (try? contexts.decompress(source, codec: codec, into: &output, limit: decompressedLimit)) != nil else {
        return precondition(output.array == [1, 2, 3], "a fault leaves what was there before")
    }
    precondition(output.count - 3 <= decompressedLimit, "more came out than was allowed")
    guard output.count < 1 << 16 else { return }
    let plain = output.array.dropFirst(3)
    var packed = ByteBuffer()
    var again = ByteBuffer()
    plain.withUnsafeBytes { contexts.compress($0, codec: codec, level: codec.defaultLevel, into: &packed) }
    guard (try? contexts.decompress(packed.bytes, codec: codec, into: &again, limit: decompressedLimit)) != nil,
        again.array.elementsEqual(plain)
    else { preconditionFailure("\(codec) does not read what it wrote") }
}
