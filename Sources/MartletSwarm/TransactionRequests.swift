import MartletBasics
package import MartletModel
package import MartletSimulation
import MartletWire

/// The versions at which one client speaks of transactions: the first protocol, and KIP-890's.
package struct TransactionVersions: Sendable {
    package var initialize: Int16
    package var produce: Int16
    package var offsets: Int16
    package var end: Int16
    /// What a transaction writes to is told before it is written.
    package var addsPartitions: Bool

    package static let all = [
        TransactionVersions(initialize: 4, produce: 9, offsets: 3, end: 3, addsPartitions: true),
        TransactionVersions(initialize: 5, produce: 12, offsets: 5, end: 5, addsPartitions: false),
    ]
}

/// A batch as a reader of committed records finds it.
package struct CommittedBatch {
    package var baseOffset: Offset
    package var values: [[UInt8]]
}

/// What a fetch of committed records was answered.
package struct CommittedFetch {
    package var error: ErrorCode
    package var highWatermark: Offset
    package var lastStableOffset: Offset
    /// Where to go on.
    package var nextOffset: Offset
    package var batches: [CommittedBatch]
}

/// The requests of transactional producers, and of those who read what they have committed.
extension SimulatedClient {
    private static let findCoordinatorVersion: Int16 = 4
    private static let offsetFetchVersion: Int16 = 7
    private static let fetchVersion: Int16 = 12
    private static let addVersion: Int16 = 3

    /// Of a group (0) or a transactional id (1).
    package func findCoordinator(of key: String, kind: Int8) async throws(ClientFault) -> ErrorCode {
        var request = FindCoordinatorRequest()
        request.coordinatorKeys = [key]
        request.keyType = kind
        return try await ask(request, version: Self.findCoordinatorVersion).coordinators.first?.errorCode ?? .unknownServerError
    }

    package func initialize(
        _ id: String, timeoutMs: Int32, _ versions: TransactionVersions
    ) async throws(ClientFault) -> (error: ErrorCode, id: ProducerID, epoch: ProducerEpoch) {
        var request = InitProducerIdRequest()
        request.transactionalID = id
        request.transactionTimeoutMs = timeoutMs
        let answer = try await ask(request, version: versions.initialize)
        return (answer.errorCode, answer.producerID, answer.producerEpoch)
    }

    package func add(
        _ partitions: [Int32], of topic: String, to id: String, _ producer: (id: ProducerID, epoch: ProducerEpoch)
    ) async throws(ClientFault) -> ErrorCode {
        var added = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic()
        added.name = topic
        added.partitions = partitions
        var request = AddPartitionsToTxnRequest()
        request.v3AndBelowTransactionalID = id
        request.v3AndBelowProducerID = producer.id
        request.v3AndBelowProducerEpoch = producer.epoch
        request.v3AndBelowTopics = [added]
        let answer = try await ask(request, version: Self.addVersion)
        let codes = answer.resultsByTopicV3AndBelow.flatMap { $0.resultsByPartition.map(\.partitionErrorCode) }
        return ErrorCode(rawValue: codes.first { $0 != 0 } ?? 0)
    }

    package func produce(
        _ batch: [UInt8], to topic: String, _ partition: Int32, in id: String, _ versions: TransactionVersions
    ) async throws(ClientFault) -> (error: ErrorCode, offset: Offset) {
        let request = ProduceRequest(batch, to: topic, partition, acks: -1, transactionalID: id)
        let response = try await ask(request, version: versions.produce)
        guard let answer = response.responses.first?.partitionResponses.first, answer.index == partition else {
            throw .malformed("no answer for the partition")
        }
        return (answer.errorCode, answer.baseOffset)
    }

    package func addOffsets(
        of group: String, to id: String, _ producer: (id: ProducerID, epoch: ProducerEpoch)
    ) async throws(ClientFault) -> ErrorCode {
        var request = AddOffsetsToTxnRequest()
        request.transactionalID = id
        request.producerID = producer.id
        request.producerEpoch = producer.epoch
        request.groupID = group
        return try await ask(request, version: Self.addVersion).errorCode
    }

    package func commit(
        _ offset: Offset, of topic: String, _ partition: Int32, in group: String, _ id: String,
        _ producer: (id: ProducerID, epoch: ProducerEpoch), _ versions: TransactionVersions
    ) async throws(ClientFault) -> ErrorCode {
        var part = TxnOffsetCommitRequest.TxnOffsetCommitRequestPartition()
        part.partitionIndex = partition
        part.committedOffset = offset
        var committed = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic()
        committed.name = topic
        committed.partitions = [part]
        var request = TxnOffsetCommitRequest()
        request.transactionalID = id
        request.groupID = group
        request.producerID = producer.id
        request.producerEpoch = producer.epoch
        request.topics = [committed]
        let answer = try await ask(request, version: versions.offsets)
        return answer.topics.first?.partitions.first?.errorCode ?? .unknownServerError
    }

    package func end(
        _ id: String, _ producer: (id: ProducerID, epoch: ProducerEpoch), commits: Bool, _ versions: TransactionVersions
    ) async throws(ClientFault) -> (error: ErrorCode, id: ProducerID, epoch: ProducerEpoch) {
        var request = EndTxnRequest()
        request.transactionalID = id
        request.producerID = producer.id
        request.producerEpoch = producer.epoch
        request.committed = commits
        let answer = try await ask(request, version: versions.end)
        let next = versions.end >= 5 && answer.errorCode == .none ? (answer.producerID, answer.producerEpoch) : producer
        return (answer.errorCode, next.0, next.1)
    }

    /// What a group has committed for a partition, and no open transaction may change; -1 is nothing. Nil while one may,
    /// or nobody tells.
    package func stableOffset(_ group: String, _ topic: String, _ partition: Int32) async throws(ClientFault) -> Offset? {
        var wanted = OffsetFetchRequest.OffsetFetchRequestTopic()
        wanted.name = topic
        wanted.partitionIndexes = [partition]
        var request = OffsetFetchRequest()
        request.groupID = group
        request.topics = [wanted]
        request.requireStable = true
        let answer = try await ask(request, version: Self.offsetFetchVersion)
        guard answer.errorCode == .none, let found = answer.topics.first?.partitions.first, found.errorCode == .none else {
            return nil
        }
        return found.committedOffset
    }

    /// Committed records from an offset: those of aborted transactions are left out here, as every client does, by what the
    /// answer says of them.
    package func fetchCommitted(
        _ topic: String, _ partition: Int32, from offset: Offset
    ) async throws(ClientFault) -> CommittedFetch {
        var part = FetchRequest.FetchPartition()
        part.partition = partition
        part.fetchOffset = offset
        part.partitionMaxBytes = 4 << 10
        var asked = FetchRequest.FetchTopic()
        asked.topic = topic
        asked.partitions = [part]
        var request = FetchRequest()
        request.isolationLevel = 1
        request.minBytes = 0
        request.maxBytes = 1 << 20
        request.topics = [asked]
        let response = try await ask(request, version: Self.fetchVersion)
        guard let found = response.responses.first?.partitions.first else { throw .malformed("no answer for the partition") }
        var fetch = CommittedFetch(
            error: found.errorCode, highWatermark: found.highWatermark, lastStableOffset: found.lastStableOffset,
            nextOffset: offset, batches: [])
        guard found.errorCode == .none, case .owned(let bytes) = found.records else { return fetch }
        try Self.take(bytes, try AbortedTransactions(found.abortedTransactions), &fetch, from: offset)
        return fetch
    }

    private static func take(
        _ bytes: [UInt8], _ told: AbortedTransactions, _ fetch: inout CommittedFetch, from offset: Offset
    ) throws(ClientFault) {
        var aborted = told
        let fault = bytes.withUnsafeBytes { bytes -> ClientFault? in
            var walker = BatchWalker(bytes, checkingChecksums: true)
            while case .batch(let position, let header) = walker.next() {
                fetch.nextOffset = max(fetch.nextOffset, header.lastOffset + 1)
                let records = UnsafeRawBufferPointer(rebasing: walker.batch(at: position, header)[BatchHeader.size...])
                do {
                    guard try !aborted.hides(header, records), header.lastOffset >= offset else { continue }
                    var cursor = RecordCursor(records, count: header.recordCount)
                    var values: [[UInt8]] = []
                    while let record = try cursor.next() {
                        values.append(cursor.bytes(in: record.value).map(Array.init) ?? [])
                    }
                    fetch.batches.append(CommittedBatch(baseOffset: header.baseOffset, values: values))
                } catch {
                    return .malformed("\(error)")
                }
            }
            return nil
        }
        if let fault { throw fault }
    }
}
