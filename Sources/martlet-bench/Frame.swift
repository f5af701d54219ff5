import MartletBasics
import MartletModel
import MartletWire

/// The versions that the load speaks: old enough for every broker of the last years.
enum SpokenVersion {
    static let produce: Int16 = 9
    static let fetch: Int16 = 12
    static let metadata: Int16 = 9
    static let createTopics: Int16 = 5
    static let deleteTopics: Int16 = 5
    static let apiVersions: Int16 = 3
    static let findCoordinator: Int16 = 3
    static let joinGroup: Int16 = 5
    static let syncGroup: Int16 = 3
    static let offsetCommit: Int16 = 7
    static let consumerGroupHeartbeat: Int16 = 1
    static let incrementalAlterConfigs: Int16 = 1
    static let initProducerID: Int16 = 4
    static let addPartitions: Int16 = 3

    /// By its version a client says which of the two protocols of transactions it speaks.
    static func produce(in spoken: Case.TransactionProtocol) -> Int16 { spoken == .first ? 11 : 12 }
    static func endTransaction(in spoken: Case.TransactionProtocol) -> Int16 { spoken == .first ? 3 : 5 }
}

/// A request as it goes over the wire, its size before it. Its bytes stay where they are for as long as it lives, so
/// one can be sent again and again.
final class Frame {
    let correlationID: Int32
    let bytes: UnsafeRawBufferPointer
    private let memory: UnsafeMutableRawBufferPointer

    init<R: WireRequest>(_ request: R, version: Int16, correlationID: Int32) throws(BenchFault) {
        var buffer = ByteBuffer(capacity: 512)
        buffer.int32(0)
        let header = RequestHeader(
            apiKey: R.apiKey, apiVersion: version, correlationID: correlationID, clientID: "martlet-bench")
        do {
            try header.encode(into: &buffer)
            try request.encode(into: &buffer, version: version)
        } catch {
            throw BenchFault("a request of the load cannot be encoded: \(error)")
        }
        buffer.patch(Int32(buffer.count - 4), at: 0)
        memory = .allocate(byteCount: buffer.count, alignment: 16)
        memory.copyMemory(from: buffer.bytes)
        bytes = UnsafeRawBufferPointer(memory)
        self.correlationID = correlationID
    }

    deinit { memory.deallocate() }
}

extension Frame {
    /// One batch for one partition.
    convenience init(
        producing batch: [UInt8], to topic: String, partition: Int32, acks: Int16, correlationID: Int32
    ) throws(BenchFault) {
        let request = ProduceRequest(batch, to: topic, partition, acks: acks)
        try self.init(request, version: SpokenVersion.produce, correlationID: correlationID)
    }

    /// One partition from an offset on; an answer comes as soon as there is a byte, and without one after half a
    /// second.
    convenience init(
        fetching topic: String, partition: Int32, from offset: Offset, bytes: Int32, correlationID: Int32
    ) throws(BenchFault) {
        var part = FetchRequest.FetchPartition()
        part.partition = partition
        part.fetchOffset = offset
        part.partitionMaxBytes = bytes
        var data = FetchRequest.FetchTopic()
        data.topic = topic
        data.partitions = [part]
        var request = FetchRequest()
        request.maxWaitMs = 500
        request.minBytes = 1
        request.topics = [data]
        try self.init(request, version: SpokenVersion.fetch, correlationID: correlationID)
    }
}
