package import MartletBasics
package import MartletCluster
package import MartletModel
package import MartletWire

/// Writes the answer of Metadata from the image itself. The generated encoder would want every partition as a value with
/// three lists of its own first, which for ten thousand of them costs more than all the rest; a test compares the two.
package struct MetadataAnswerEncoder {
    /// A topic that is told of.
    package enum Topic {
        /// By its place in the image.
        case known(Int)
        case failed(name: String?, id: UUID, ErrorCode)
    }

    private let version: Int16
    private let image: MetadataImage
    private let topicOperations: Int32
    private var flexible: Bool { version >= 9 }

    /// `topicOperations`: what the client may do with each topic, where it asks.
    package init(version: Int16, image: MetadataImage, topicOperations: Int32) {
        self.version = version
        self.image = image
        self.topicOperations = topicOperations
    }

    /// `head` is the response without its topics; nil for `topics` is all of them, which `kept` has where another asked
    /// for them before.
    package func encode(
        _ head: MetadataResponse, _ topics: [Topic]?, kept: KeptMetadata? = nil, into buffer: inout ByteBuffer,
        _ errors: inout ErrorCodes
    ) throws(EncodingFault) {
        if version >= 3 { buffer.int32(head.throttleTimeMs) }
        count(head.brokers.count, &buffer)
        for broker in head.brokers { try broker.encode(into: &buffer, version: version) }
        if version >= 2 { try buffer.nullableString(head.clusterID, flexible: flexible, field: "MetadataResponse.ClusterId") }
        if version >= 1 { buffer.int32(head.controllerID) }
        if let topics {
            count(topics.count, &buffer)
            for topic in topics { try encode(topic, into: &buffer, &errors) }
        } else {
            try encodeAll(kept, into: &buffer, &errors)
        }
        if version >= 8, version <= 10 { buffer.int32(head.clusterAuthorizedOperations) }
        if version >= 13 { buffer.int16(head.errorCode.rawValue) }
        if flexible { buffer.uvarint(0) }
    }

    private func encodeAll(_ kept: KeptMetadata?, into buffer: inout ByteBuffer, _ errors: inout ErrorCodes) throws(EncodingFault) {
        if let kept = kept?.topics(of: image, version, topicOperations) {
            buffer.append(kept.bytes)
            for error in kept.errors.all { errors.append(error) }
            return
        }
        let start = buffer.count
        var found = ErrorCodes()
        count(image.topics.count, &buffer)
        for index in image.topics.indices { try encode(known: index, into: &buffer, &found) }
        for error in found.all { errors.append(error) }
        let bytes = [UInt8](UnsafeRawBufferPointer(rebasing: buffer.bytes[start...]))
        kept?.keep(KeptMetadata.Topics(image: image, version: version, operations: topicOperations, bytes: bytes, errors: found))
    }

    private func encode(_ topic: Topic, into buffer: inout ByteBuffer, _ errors: inout ErrorCodes) throws(EncodingFault) {
        switch topic {
        case .known(let index): try encode(known: index, into: &buffer, &errors)
        case .failed(let name, let id, let error):
            errors.append(error)
            try begin(error, name, id, isInternal: false, partitions: 0, &buffer)
            end(&buffer)
        }
    }

    /// By place: a topic that is bound to a name is copied, and so are the lists of its partitions.
    private func encode(known index: Int, into buffer: inout ByteBuffer, _ errors: inout ErrorCodes) throws(EncodingFault) {
        let partitions = image.topics[index].partitions
        try begin(
            .none, image.topics[index].name, image.topics[index].id, isInternal: image.topics[index].isInternal,
            partitions: partitions.count, &buffer)
        partitions.withUnsafeBufferPointer { elements in
            for place in elements.indices { encode(elements.baseAddress! + place, into: &buffer, &errors) }
        }
        end(&buffer)
    }

    private func begin(
        _ error: ErrorCode, _ name: String?, _ id: UUID, isInternal: Bool, partitions: Int, _ buffer: inout ByteBuffer
    ) throws(EncodingFault) {
        buffer.int16(error.rawValue)
        if name == nil, version < 12 { throw .unexpectedNull("MetadataResponse.MetadataResponseTopic.Name") }
        try buffer.nullableString(name, flexible: flexible, field: "MetadataResponse.MetadataResponseTopic.Name")
        if version >= 10 { buffer.uuid(id) }
        if version >= 1 { buffer.bool(isInternal) }
        count(partitions, &buffer)
    }

    private func end(_ buffer: inout ByteBuffer) {
        if version >= 8 { buffer.int32(topicOperations) }
        if flexible { buffer.uvarint(0) }
    }

    /// Where it lies: as an argument it would be copied, with a count of references for each of its lists.
    private func encode(
        _ partition: UnsafePointer<PartitionInfo>, into buffer: inout ByteBuffer, _ errors: inout ErrorCodes
    ) {
        let leader = partition.pointee.leader
        let error: ErrorCode = leader < 0 ? .leaderNotAvailable : .none
        if error != .none { errors.append(error) }
        buffer.int16(error.rawValue)
        buffer.int32(partition.pointee.index)
        buffer.int32(leader)
        if version >= 7 { buffer.int32(partition.pointee.leaderEpoch) }
        partition.pointee.replicas.withUnsafeBufferPointer { brokers($0, &buffer) }
        partition.pointee.inSyncReplicas.withUnsafeBufferPointer { brokers($0, &buffer) }
        if version >= 5 { partition.pointee.offlineReplicas.withUnsafeBufferPointer { brokers($0, &buffer) } }
        if flexible { buffer.uvarint(0) }
    }

    @inline(__always)
    private func brokers(_ ids: UnsafeBufferPointer<BrokerID>, _ buffer: inout ByteBuffer) {
        count(ids.count, &buffer)
        for id in ids { buffer.int32(id) }
    }

    @inline(__always)
    private func count(_ count: Int, _ buffer: inout ByteBuffer) {
        if flexible { buffer.uvarint(UInt32(count) + 1) } else { buffer.int32(Int32(count)) }
    }
}

/// The topics of the last image as they were last told of, all of them: clients of one kind ask in one version, and for
/// as long as nothing changes each gets the same bytes. One entry, for all loops.
package final class KeptMetadata: @unchecked Sendable {
    struct Topics {
        let image: MetadataImage
        let version: Int16
        let operations: Int32
        let bytes: [UInt8]
        let errors: ErrorCodes
    }

    private let lock = Lock()
    // guarded by the lock:
    private var last: Topics?

    package init() {}

    fileprivate func topics(of image: MetadataImage, _ version: Int16, _ operations: Int32) -> Topics? {
        guard let last = lock.withLock({ last }) else { return nil }
        return last.image === image && last.version == version && last.operations == operations ? last : nil
    }

    fileprivate func keep(_ topics: Topics) { lock.withLock { last = topics } }
}
