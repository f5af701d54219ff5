internal import MartletBasics

/// A batch that may be appended once it was given its base offset and leader epoch.
package struct ValidatedBatch: Equatable, Sendable {
    /// As the batch will be stored; base offset and leader epoch are not set yet.
    package var header: BatchHeader
    /// Whether the bytes to append are the validator's `rewritten`, not the first `header.totalSize` of those given.
    package var isRewritten: Bool
    /// The offset delta of the first record with the header's max timestamp; where the batch keeps the time of its append, or
    /// no record has a time, of the last record.
    package var maxTimestampOffsetDelta: Int32
    /// The time of the append where the topic keeps that, else -1: what Produce answers.
    package var appendTime: Int64
}

/// Judges what a client sends for one partition in a Produce request, and makes it what is stored.
///
/// What is checked, in Kafka's order, and answered if it is wrong:
///
/// | | error |
/// |---|---|
/// | one whole batch (bytes after it that are no whole batch are ignored) of format 2 | 87; 2 where a length is below 14 or the format none that ever was |
/// | zstd only from Produce 7 on | 76 |
/// | base offset 0 | 87 |
/// | at most `max.message.bytes` | 10 |
/// | a length that holds a header, and the checksum | 2 |
/// | a codec that exists | -1 |
/// | count = last offset delta + 1 > 0; no control batch; a producer has a sequence | 87 |
/// | the compressed bytes can be read; they hold no more than our limit | -1; 10 |
/// | the records' bytes, and their count | 87 |
/// | keys, on a compacted topic | 87, each record named |
/// | times between the topic's bounds; no append time from a client | 32, each record named |
/// | after recompression again at most `max.message.bytes`; at most `segment.bytes` | 10; 18 |
///
/// What is changed: the max timestamp and the kind of timestamp, in place; the codec, where the topic wants another, in
/// `rewritten`. Records whose offset deltas do not count up from 0 are numbered anew there (Kafka does so where the batch is
/// compressed, and else serves wrong offsets).
///
/// Transactions, producer ids and epochs are not judged here: `firstHeader` and the result tell what the batch claims.
package struct BatchValidator: ~Copyable {
    /// What a batch may hold once decompressed, unless the validator was made with another limit.
    package static let defaultDecompressedBytesLimit = 128 * 1024 * 1024
    /// What the buffers keep between batches.
    private static let retainedBytesLimit = 1024 * 1024
    /// The smallest length Kafka's reader takes for that of a batch: the overhead of a message of format 0.
    private static let smallestLength: Int32 = 14

    package let contexts: CodecContexts
    let decompressedBytesLimit: Int
    private var decompressed: ByteBuffer
    private var rewrittenBytes: ByteBuffer

    package init(contexts: CodecContexts, decompressedBytesLimit: Int = defaultDecompressedBytesLimit) {
        precondition(decompressedBytesLimit > 0 && decompressedBytesLimit < Int(Int32.max), "the limit is below 2 GiB")
        self.contexts = contexts
        self.decompressedBytesLimit = decompressedBytesLimit
        decompressed = ByteBuffer(capacity: 16)
        rewrittenBytes = ByteBuffer(capacity: 16)
    }

    /// The batch to append, where the last result said that it was rewritten; valid until the next validation.
    package var rewritten: UnsafeMutableRawBufferPointer { rewrittenBytes.mutableBytes }

    /// The header of the first batch, unchecked: what is asked of transactions and producers before anything is judged.
    package static func firstHeader(_ records: UnsafeRawBufferPointer) -> BatchHeader? {
        records.count >= BatchHeader.size ? BatchHeader(records) : nil
    }

    /// Judges `records`, the bytes of one partition in a Produce request, and changes in place what may be.
    ///
    /// - Parameters:
    ///   - version: that of the Produce request.
    ///   - now: the wall clock, in milliseconds since 1970.
    package mutating func validate(
        _ records: UnsafeMutableRawBufferPointer, config: TopicConfig, version: Int16, now: Int64
    ) throws(BatchRejection) -> ValidatedBatch {
        let size = try Self.sizeOfOnlyBatch(UnsafeRawBufferPointer(records), version: version)
        let batch = UnsafeMutableRawBufferPointer(rebasing: records[..<size])
        let baseOffset = Int64(bigEndian: batch.loadUnaligned(as: Int64.self))
        guard baseOffset == 0 else { throw .init(.invalidRecord, "the base offset is \(baseOffset); send 0") }
        guard size <= Int(config.maxMessageBytes) else { throw Self.tooLarge(size, config) }
        guard size >= BatchHeader.size else {
            throw .init(.corruptMessage, "a batch of \(size) bytes is smaller than a batch header")
        }
        let header = BatchHeader(UnsafeRawBufferPointer(batch))
        let computed = BatchHeader.checksum(of: UnsafeRawBufferPointer(batch))
        guard computed == header.crc else {
            throw .init(.corruptMessage, "the checksum is \(header.crc), of bytes whose checksum is \(computed)")
        }
        let codec = try Self.checkHeader(header)

        var area = UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...])
        if codec != .none {
            try decompress(area, codec: codec)
            area = decompressed.bytes
        }
        var rules = RecordRules(header: header, config: config, now: now)
        let walked = try rules.walk(area, header: header)

        let validated: ValidatedBatch
        if let target = Self.targetCodec(codec, walked, config) {
            validated = rewrite(area, header: header, codec: target, walked: walked, config: config, now: now)
            let newSize = validated.header.totalSize
            guard newSize <= Int(config.maxMessageBytes) else { throw Self.tooLarge(newSize, config) }
        } else {
            validated = Self.settle(batch, header: header, walked: walked, config: config, now: now)
        }
        guard validated.header.totalSize <= Int(config.segmentBytes) else {
            throw .init(
                .recordListTooLarge,
                "a batch of \(validated.header.totalSize) bytes is larger than segment.bytes, \(config.segmentBytes)")
        }
        return validated
    }

    // MARK: The frame

    /// The size of the one batch, which lies whole in the bytes; its format is 2. It may be less than a header.
    @inline(__always)
    private static func sizeOfOnlyBatch(
        _ records: UnsafeRawBufferPointer, version: Int16
    ) throws(BatchRejection) -> Int {
        guard let size = try wholeBatch(records, at: 0) else {
            throw .init(.invalidRecord, "no whole batch; send exactly one a partition")
        }
        let magic = records.load(fromByteOffset: BatchHeader.At.magic, as: Int8.self)
        guard magic == 2 else { throw .init(.invalidRecord, "format \(magic); Produce 3 and later carry format 2") }
        if version < 7, size >= BatchHeader.At.attributes + 2 {
            let attributes = Int16(
                bigEndian: records.loadUnaligned(fromByteOffset: BatchHeader.At.attributes, as: Int16.self))
            if attributes & BatchHeader.Attributes.codecMask == Int16(CompressionCodec.zstd.rawValue) {
                throw .init(.unsupportedCompressionType, "zstd needs Produce 7 or later; this is \(version)")
            }
        }
        if size < records.count, try wholeBatch(records, at: size) != nil {
            throw .init(.invalidRecord, "more than one batch; send exactly one a partition")
        }
        return size
    }

    /// The size of the batch that begins at `start`, or nil if it does not end among the bytes.
    private static func wholeBatch(
        _ records: UnsafeRawBufferPointer, at start: Int
    ) throws(BatchRejection) -> Int? {
        let remaining = records.count - start
        guard remaining >= BatchHeader.lengthOverhead else { return nil }
        let length = Int32(
            bigEndian: records.loadUnaligned(fromByteOffset: start + BatchHeader.At.batchLength, as: Int32.self))
        guard length >= smallestLength else { throw .init(.corruptMessage, "a batch length of \(length)") }
        guard remaining > BatchHeader.At.magic else { return nil }
        let magic = records.load(fromByteOffset: start + BatchHeader.At.magic, as: Int8.self)
        guard (0...2).contains(magic) else { throw .init(.corruptMessage, "format \(magic)") }
        let size = Int(length) + BatchHeader.lengthOverhead
        return size <= remaining ? size : nil
    }

    @inline(__always)
    private static func checkHeader(_ header: BatchHeader) throws(BatchRejection) -> CompressionCodec {
        guard let codec = header.codec else {
            throw .init(.unknownServerError, "codec \(header.attributes & 7) does not exist")
        }
        guard header.lastOffsetDelta >= 0, header.recordCount > 0,
            Int64(header.recordCount) == Int64(header.lastOffsetDelta) + 1
        else {
            throw .init(
                .invalidRecord,
                "\(header.recordCount) records under a last offset delta of \(header.lastOffsetDelta)")
        }
        guard !header.isControl else { throw .init(.invalidRecord, "clients may not write control records") }
        guard !header.hasProducer || header.baseSequence >= 0 else {
            throw .init(
                .invalidRecord, "producer \(header.producerID) sent the sequence \(header.baseSequence); send 0 or more")
        }
        return codec
    }

    @inline(never)
    private static func tooLarge(_ size: Int, _ config: TopicConfig) -> BatchRejection {
        BatchRejection(
            .messageTooLarge,
            "a batch of \(size) bytes is larger than max.message.bytes, \(config.maxMessageBytes)")
    }

    private mutating func decompress(
        _ area: UnsafeRawBufferPointer, codec: CompressionCodec
    ) throws(BatchRejection) {
        decompressed.reset(keeping: Self.retainedBytesLimit)
        do {
            try contexts.decompress(area, codec: codec, into: &decompressed, limit: decompressedBytesLimit)
        } catch {
            // a bomb leaves nothing of its size behind
            decompressed.reset(keeping: Self.retainedBytesLimit)
            switch error {
            case .tooLarge: throw .init(.messageTooLarge, "\(error)")
            case .unreadable: throw .init(.unknownServerError, "\(error)")
            }
        }
    }

    // MARK: What is stored

    /// The codec to write the batch in anew; nil where it can stay as it is.
    @inline(__always)
    private static func targetCodec(
        _ codec: CompressionCodec, _ walked: RecordRules.Walked, _ config: TopicConfig
    ) -> CompressionCodec? {
        let wanted =
            switch config.compression {
            case .producer: codec
            case .codec(let fixed): fixed
            }
        return wanted == codec && walked.offsetsCountUp ? nil : wanted
    }

    /// Leaves the batch where it lies, with the kind of timestamp and the max timestamp that the topic wants.
    @inline(__always)
    private static func settle(
        _ batch: UnsafeMutableRawBufferPointer, header: BatchHeader, walked: RecordRules.Walked,
        config: TopicConfig, now: Int64
    ) -> ValidatedBatch {
        let keepsAppendTime = config.messageTimestampType == .logAppendTime
        var settled = header
        let maxTimestamp = keepsAppendTime ? now : walked.maxTimestamp
        if header.maxTimestamp != maxTimestamp || header.timestampType != config.messageTimestampType {
            settled.maxTimestamp = maxTimestamp
            settled.attributes &= ~BatchHeader.Attributes.appendTime
            if keepsAppendTime { settled.attributes |= BatchHeader.Attributes.appendTime }
            settled.write(to: batch)
            settled.crc = BatchHeader.seal(batch)
        }
        return ValidatedBatch(
            header: settled, isRewritten: false,
            maxTimestampOffsetDelta: keepsAppendTime ? header.lastOffsetDelta : walked.maxTimestampIndex,
            appendTime: keepsAppendTime ? now : -1)
    }

    /// Writes the batch anew in `rewrittenBytes`.
    @inline(never)
    private mutating func rewrite(
        _ area: UnsafeRawBufferPointer, header: BatchHeader, codec: CompressionCodec, walked: RecordRules.Walked,
        config: TopicConfig, now: Int64
    ) -> ValidatedBatch {
        let keepsAppendTime = config.messageTimestampType == .logAppendTime
        var identity = BatchIdentity(header)
        identity.leaderEpoch = -1
        identity.deleteHorizon = nil
        identity.appendTime = keepsAppendTime ? now : nil
        rewrittenBytes.reset(keeping: Self.retainedBytesLimit)
        let level = config.level(of: codec)
        let stored: BatchHeader
        // as Kafka does, a batch written anew counts its times from its first record's
        if walked.offsetsCountUp, walked.firstTimestampDelta == 0, header.timestampType == .createTime {
            let shape = BatchBuilder.Shape(
                recordCount: header.recordCount, lastOffsetDelta: header.lastOffsetDelta,
                baseTimestamp: header.baseTimestamp, maxTimestamp: keepsAppendTime ? now : walked.maxTimestamp)
            stored = BatchBuilder.write(
                area, identity: identity, codec: codec, level: level, contexts: contexts, shape: shape,
                into: &rewrittenBytes)
        } else {
            var builder = BatchBuilder(identity, capacity: area.count + BatchHeader.size)
            var cursor = RecordCursor(area, count: header.recordCount)
            while let record = Self.nextChecked(&cursor) {
                builder.append(record, from: cursor, timestamp: header.timestamp(of: record))
            }
            stored = builder.finish(into: &rewrittenBytes, codec: codec, level: level, contexts: contexts)
        }
        return ValidatedBatch(
            header: stored, isRewritten: true,
            maxTimestampOffsetDelta: keepsAppendTime ? header.lastOffsetDelta : walked.maxTimestampIndex,
            appendTime: keepsAppendTime ? now : -1)
    }

    private static func nextChecked(_ cursor: inout RecordCursor) -> RecordView? {
        do {
            return try cursor.next()
        } catch {
            preconditionFailure("records are written anew only after all of them were checked")
        }
    }
}
