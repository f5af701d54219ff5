package import MartletBasics
package import MartletModel

/// One partition of a produce request, as ranges of the frame.
package struct ProducePart {
    /// Empty from version 13 on, where topics go by id.
    package var topicName: ByteRange
    package var topicID: UUID
    package var beginsTopic: Bool
    package var index: Int32
    /// Nil for null records.
    package var records: ByteRange?
}

/// What a produce request says of all its partitions, read by hand: the generated decoder (a test compares them)
/// would make arrays of arrays of what is looked at once.
package struct ProduceHead {
    /// Nil from a producer without transactions.
    package let transactionalID: ByteRange?
    package let acks: Int16
    package let timeoutMs: Int32

    /// Reads all of the request, so that nothing of one that ends too early is acted upon; its partitions go into `parts`.
    package init(
        _ reader: inout ByteReader, version: Int16, into parts: inout ContiguousArray<ProducePart>
    ) throws(DecodingFault) {
        let flexible = version >= 9
        parts.removeAll(keepingCapacity: true)
        transactionalID = try reader.nullableStringRange(flexible: flexible)
        acks = try reader.int16()
        timeoutMs = try reader.int32()
        let topicCount = try reader.arrayCount(flexible: flexible, minimum: 2, stride: MemoryLayout<ProducePart>.stride)
        for _ in 0..<topicCount {
            var name = ByteRange(offset: 0, count: 0)
            var id = UUID.zero
            if version >= 13 { id = try reader.uuid() } else { name = try reader.stringRange(flexible: flexible) }
            let partitionCount = try reader.arrayCount(flexible: flexible, minimum: 5, stride: MemoryLayout<ProducePart>.stride)
            for place in 0..<partitionCount {
                let index = try reader.int32()
                let records = try reader.nullableByteRange(flexible: flexible)
                if flexible { try reader.skipTaggedFields() }
                parts.append(
                    ProducePart(topicName: name, topicID: id, beginsTopic: place == 0, index: index, records: records))
            }
            if flexible { try reader.skipTaggedFields() }
        }
        if flexible { try reader.skipTaggedFields() }
    }
}
