import MartletBasics
package import MartletModel
package import MartletWire

/// What a batch that was sent became, as far as the client was told.
package enum ProduceOutcome: Equatable, Sendable {
    case appended(at: Offset)
    case refused(ErrorCode)
    /// No answer came: it may be there or not.
    case unknown(ClientFault)
}

/// What one partition of a fetch was answered.
package struct FetchedPartition: Sendable {
    package var partition: Int32
    package var error: ErrorCode
    package var highWatermark: Offset
    package var logStart: Offset
    package var records: [UInt8]
}

/// The requests that tests make, at versions that name topics by name.
extension SimulatedClient {
    private static let produceVersion: Int16 = 9
    private static let fetchVersion: Int16 = 12
    private static let metadataVersion: Int16 = 12
    private static let createTopicsVersion: Int16 = 7
    private static let deleteTopicsVersion: Int16 = 4
    private static let listOffsetsVersion: Int16 = 6
    private static let initProducerIDVersion: Int16 = 4
    private static let timeoutMilliseconds: Int32 = 30_000

    // MARK: Topics

    /// The topic's answer: its id, or an error and the message that goes with it.
    package func createTopic(
        _ name: String, partitions: Int32, configs: [(name: String, value: String)] = []
    ) async throws(ClientFault) -> CreateTopicsResponse.CreatableTopicResult {
        var topic = CreateTopicsRequest.CreatableTopic()
        topic.name = name
        topic.numPartitions = partitions
        topic.replicationFactor = 1
        topic.configs = configs.map { setting in
            var config = CreateTopicsRequest.CreatableTopicConfig()
            config.name = setting.name
            config.value = setting.value
            return config
        }
        var request = CreateTopicsRequest()
        request.topics = [topic]
        request.timeoutMs = Self.timeoutMilliseconds
        let response = try await ask(request, version: Self.createTopicsVersion)
        guard response.topics.count == 1 else { throw .malformed("\(response.topics.count) topics for one that was asked for") }
        return response.topics[0]
    }

    package func deleteTopic(_ name: String) async throws(ClientFault) -> ErrorCode {
        var request = DeleteTopicsRequest()
        request.topicNames = [name]
        request.timeoutMs = Self.timeoutMilliseconds
        let response = try await ask(request, version: Self.deleteTopicsVersion)
        guard response.responses.count == 1 else { throw .malformed("not one answer for one topic") }
        return response.responses[0].errorCode
    }

    /// All topics, or those named; none is created by asking.
    package func metadata(of names: [String]? = nil) async throws(ClientFault) -> MetadataResponse {
        var request = MetadataRequest()
        request.allowAutoTopicCreation = false
        request.topics = names?.map { name in
            var topic = MetadataRequest.MetadataRequestTopic()
            topic.name = name
            return topic
        }
        return try await ask(request, version: Self.metadataVersion)
    }

    /// The offset that a time leads to; -1 the end, -2 the beginning.
    package func offset(
        of topic: String, _ partition: Int32, at timestamp: Int64
    ) async throws(ClientFault) -> (error: ErrorCode, offset: Offset) {
        var part = ListOffsetsRequest.ListOffsetsPartition()
        part.partitionIndex = partition
        part.timestamp = timestamp
        var asked = ListOffsetsRequest.ListOffsetsTopic()
        asked.name = topic
        asked.partitions = [part]
        var request = ListOffsetsRequest()
        request.replicaID = -1
        request.topics = [asked]
        let response = try await ask(request, version: Self.listOffsetsVersion)
        guard let answer = response.topics.first?.partitions.first else { throw .malformed("no answer for the partition") }
        return (answer.errorCode, answer.offset)
    }

    // MARK: Records

    /// An id for an idempotent producer, in epoch 0; nil where the broker has none to give now.
    package func initProducerID() async throws(ClientFault) -> (id: ProducerID, epoch: ProducerEpoch)? {
        var request = InitProducerIdRequest()
        request.transactionalID = nil
        request.transactionTimeoutMs = Self.timeoutMilliseconds
        let response = try await ask(request, version: Self.initProducerIDVersion)
        return response.errorCode == .none ? (response.producerID, response.producerEpoch) : nil
    }

    /// Sends one batch. With acks=0 nothing is ever told, and `then` not called.
    package func produce(
        _ batch: [UInt8], to topic: String, _ partition: Int32, acks: Int16, then: @escaping (ProduceOutcome) -> Void
    ) {
        let request = ProduceRequest(batch, to: topic, partition, acks: acks, timeoutMs: Self.timeoutMilliseconds)
        if acks == 0 {
            tell(request, version: Self.produceVersion)
            return
        }
        ask(request, version: Self.produceVersion) { result in
            switch result {
            case .failure(let fault): then(.unknown(fault))
            case .success(let response):
                guard let answer = response.responses.first?.partitionResponses.first, answer.index == partition else {
                    return then(.unknown(.malformed("no answer for the partition")))
                }
                then(answer.errorCode == .none ? .appended(at: answer.baseOffset) : .refused(answer.errorCode))
            }
        }
    }

    /// Fetches from some partitions of a topic, and waits at the broker for so long where there is nothing.
    package func fetch(
        _ topic: String, _ places: [(partition: Int32, offset: Offset)], waitMilliseconds: Int32, bytesLimit: Int32 = 1 << 20
    ) async throws(ClientFault) -> [FetchedPartition] {
        var asked = FetchRequest.FetchTopic()
        asked.topic = topic
        asked.partitions = places.map { place in
            var part = FetchRequest.FetchPartition()
            part.partition = place.partition
            part.fetchOffset = place.offset
            part.partitionMaxBytes = bytesLimit
            return part
        }
        var request = FetchRequest()
        request.maxWaitMs = waitMilliseconds
        request.minBytes = 1
        request.maxBytes = bytesLimit
        request.topics = [asked]
        let response = try await ask(request, version: Self.fetchVersion)
        guard response.errorCode == .none else { throw .malformed("a fetch was answered with \(response.errorCode)") }
        return response.responses.flatMap(\.partitions).map { part in
            var records: [UInt8] = []
            if case .owned(let bytes) = part.records { records = bytes }
            return FetchedPartition(
                partition: part.partitionIndex, error: part.errorCode, highWatermark: part.highWatermark,
                logStart: part.logStartOffset, records: records)
        }
    }
}
