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

    /// `head` is the response without its topics; nil for `topics` is all of them.
    package func encode(
        _ head: MetadataResponse, _ topics: [Topic]?, into buffer: inout ByteBuffer, _ errors: inout ErrorCodes
    ) throws(EncodingFault) {
        if version >= 3 { buffer.int32(head.throttleTimeMs) }
        count(head.brokers.count, &buffer)
        for broker in head.brokers { try broker.encode(into: &buffer, version: version) }
        if version >= 2 { try buffer.nullableString(head.clusterID, flexible: flexible, field: "MetadataResponse.ClusterId") }
        if version >= 1 { buffer.int32(head.controllerID) }
        count(topics?.count ?? image.topics.count, &buffer)
        if let topics {
            for topic in topics { try encode(topic, into: &buffer, &errors) }
        } else {
            for index in image.topics.indices { try encode(known: index, into: &buffer, &errors) }
        }
        if version >= 8, version <= 10 { buffer.int32(head.clusterAuthorizedOperations) }
        if version >= 13 { buffer.int16(head.errorCode.rawValue) }
        if flexible { buffer.uvarint(0) }
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
        let elements = partitions.span
        for place in elements.indices { encode(elements[place], into: &buffer, &errors) }
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

    private func encode(_ partition: borrowing PartitionInfo, into buffer: inout ByteBuffer, _ errors: inout ErrorCodes) {
        let error: ErrorCode = partition.leader < 0 ? .leaderNotAvailable : .none
        if error != .none { errors.append(error) }
        buffer.int16(error.rawValue)
        buffer.int32(partition.index)
        buffer.int32(partition.leader)
        if version >= 7 { buffer.int32(partition.leaderEpoch) }
        brokers(partition.replicas.span, &buffer)
        brokers(partition.inSyncReplicas.span, &buffer)
        if version >= 5 { brokers(partition.offlineReplicas.span, &buffer) }
        if flexible { buffer.uvarint(0) }
    }

    @inline(__always)
    private func brokers(_ ids: Span<BrokerID>, _ buffer: inout ByteBuffer) {
        count(ids.count, &buffer)
        for place in ids.indices { buffer.int32(ids[place]) }
    }

    @inline(__always)
    private func count(_ count: Int, _ buffer: inout ByteBuffer) {
        if flexible { buffer.uvarint(UInt32(count) + 1) } else { buffer.int32(Int32(count)) }
    }
}
