package import MartletBasics

/// Putting headers into bytes, and changing them where they lie.
extension BatchHeader {
    /// The mask of the codec in the attributes, and the bits beside it.
    package enum Attributes {
        package static let codecMask: Int16 = 0x07
        package static let appendTime: Int16 = 0x08, transactional: Int16 = 0x10
        package static let control: Int16 = 0x20, deleteHorizon: Int16 = 0x40
    }

    /// Writes all fields as they are into the first 61 bytes.
    package func write(to bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count >= BatchHeader.size, "a batch header is 61 bytes")
        func store<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
            bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
        }
        store(baseOffset, At.baseOffset)
        store(batchLength, At.batchLength)
        store(leaderEpoch, At.leaderEpoch)
        store(magic, At.magic)
        store(crc, At.crc)
        store(attributes, At.attributes)
        store(lastOffsetDelta, At.lastOffsetDelta)
        store(baseTimestamp, At.baseTimestamp)
        store(maxTimestamp, At.maxTimestamp)
        store(producerID, At.producerID)
        store(producerEpoch, At.producerEpoch)
        store(baseSequence, At.baseSequence)
        store(recordCount, At.recordCount)
    }

    /// What a leader sets in a batch that it appends. The checksum does not cover it.
    @inlinable package static func assign(
        baseOffset: Offset, leaderEpoch: LeaderEpoch, in batch: UnsafeMutableRawBufferPointer
    ) {
        precondition(batch.count >= BatchHeader.size, "a batch header is 61 bytes")
        batch.storeBytes(of: baseOffset.bigEndian, toByteOffset: At.baseOffset, as: Int64.self)
        batch.storeBytes(of: leaderEpoch.bigEndian, toByteOffset: At.leaderEpoch, as: Int32.self)
    }

    /// The checksum of a whole batch, as it should stand in its header.
    @inlinable package static func checksum(of batch: UnsafeRawBufferPointer) -> UInt32 {
        precondition(batch.count >= BatchHeader.size, "a batch has a header of 61 bytes")
        return crc32c(UnsafeRawBufferPointer(rebasing: batch[At.attributes...]))
    }

    /// Computes a whole batch's checksum and puts it into its header.
    @discardableResult
    package static func seal(_ batch: UnsafeMutableRawBufferPointer) -> UInt32 {
        let crc = checksum(of: UnsafeRawBufferPointer(batch))
        batch.storeBytes(of: crc.bigEndian, toByteOffset: At.crc, as: UInt32.self)
        return crc
    }

    /// The time of a record of this batch: its own, or the time of the append where that is what the batch keeps.
    @inlinable package func timestamp(of record: RecordView) -> Int64 {
        timestampType == .logAppendTime ? maxTimestamp : baseTimestamp &+ record.timestampDelta
    }

    /// The uncompressed records of a whole batch: in place, or decompressed at the end of `scratch`.
    package func records(
        of batch: UnsafeRawBufferPointer, contexts: CodecContexts, scratch: inout ByteBuffer, limit: Int
    ) throws(CompressionFault) -> UnsafeRawBufferPointer {
        precondition(batch.count == totalSize && totalSize >= BatchHeader.size, "a whole batch and nothing more")
        let stored = UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...])
        guard let codec else { throw .unreadable(.none, "codec \(attributes & 7) does not exist") }
        guard codec != .none else { return stored }
        let start = scratch.count
        try contexts.decompress(stored, codec: codec, into: &scratch, limit: limit)
        return UnsafeRawBufferPointer(rebasing: scratch.bytes[start...])
    }
}
