import MartletBasics
import MartletCluster
import MartletModel

/// The transaction that a produce request is of, as its partitions ask about it: none takes records of a transaction that
/// its coordinator does not know to be there, for nobody would ever end it (KIP-890).
///
/// Up to version 11 clients add partitions by AddPartitionsToTxn, and what they produce is verified; from 12 on the broker
/// adds the partitions itself, and verifies all the same, for the producer may be fenced meanwhile.
final class ProduceTransaction: TransactionVerifier, @unchecked Sendable {
    let id: String
    let producer: ProducerIdentity
    let version: Int16
    private let coordinator: TransactionCoordinator
    /// Why the partitions could not be added.
    var refusal = ErrorCode.none

    init(_ id: String, _ producer: ProducerIdentity, version: Int16, coordinator: TransactionCoordinator) {
        self.id = id
        self.producer = producer
        self.version = version
        self.coordinator = coordinator
    }

    var addsPartitions: Bool { version >= 12 }

    func verify(_ producer: ProducerID, _ epoch: ProducerEpoch, in partition: TopicPartition) -> ErrorCode {
        guard refusal == .none else { return refusal }
        guard addsPartitions || coordinator.verifies else { return .none }
        return told(coordinator.verify(id, ProducerIdentity(producer, epoch), CollectionOfOne(partition)))
    }

    /// What of the coordinator's errors a client of this version knows.
    func told(_ error: ErrorCode) -> ErrorCode {
        switch error {
        case .producerFenced: .invalidProducerEpoch
        case .transactionAbortable where version < 11: .invalidTxnState
        case .concurrentTransactions where !addsPartitions: .notEnoughReplicas
        case .coordinatorLoadInProgress, .coordinatorNotAvailable, .notCoordinator: .notEnoughReplicas
        default: error
        }
    }
}

/// A produce request that waits for its partitions to be in its transaction.
private struct WaitingProduce: @unchecked Sendable {
    var header: FrameHeader
    var acks: Int16
    var timeoutMs: Int32
    var parts: ContiguousArray<ProducePart>
    var frame: UnsafeMutableRawBufferPointer
    var buffer: FrameBuffer
}

extension Connection {
    /// Who sends records of a transaction, if the request has any. Several producers in one request: the id is -1.
    func transactionalProducer(
        _ parts: ContiguousArray<ProducePart>, _ frame: UnsafeMutableRawBufferPointer
    ) -> ProducerIdentity? {
        var found: ProducerIdentity?
        for part in parts {
            guard let records = part.records, records.count >= BatchHeader.size else { continue }
            let attributes = frame.loadUnaligned(fromByteOffset: records.offset + BatchHeader.At.attributes, as: Int16.self)
            guard Int16(bigEndian: attributes) & BatchHeader.Attributes.transactional != 0 else { continue }
            let header = BatchHeader(UnsafeRawBufferPointer(rebasing: frame[records.offset..<records.end]))
            let producer = ProducerIdentity(header.producerID, header.producerEpoch)
            if let found, found != producer { return ProducerIdentity(-1, -1) }
            found = producer
        }
        return found
    }

    /// The transaction of a request with transactional records, if it is one.
    func begun(
        _ head: ProduceHead, _ producer: ProducerIdentity, _ header: FrameHeader, _ frame: UnsafeMutableRawBufferPointer
    ) -> Result<ProduceTransaction, CoordinatorFailure> {
        // Kafka's answer: whoever names no transactional id may not use it
        guard let range = head.transactionalID else { return .failure(CoordinatorFailure(.transactionalIDAuthorizationFailed)) }
        guard producer.id >= 0 else { return .failure(CoordinatorFailure(.invalidProducerIDMapping)) }
        let id = String(decoding: frame[range.offset..<range.end], as: UTF8.self)
        return .success(ProduceTransaction(id, producer, version: header.apiVersion, coordinator: broker.transactions))
    }

    /// Adds the partitions that have nothing of the transaction yet to it, where that is for us to do; false if nothing is.
    /// Until they are, and the request is appended, the connection's later requests wait.
    func addToTransaction(
        _ transaction: ProduceTransaction, _ header: FrameHeader, acks: Int16, _ frame: UnsafeMutableRawBufferPointer
    ) -> Bool {
        guard transaction.addsPartitions else { return false }
        let table = broker.topics.table
        var unused = ProduceResult(topicName: "", topicID: .zero, beginsTopic: false, index: 0)
        let producer = transaction.producer
        let missing = shared.produceParts.compactMap { part -> TopicPartition? in
            guard let topic = findTopic(part, frame, table, &unused), !topic.isInternal,
                let partition = topic.partition(part.index),
                !partition.isInTransaction(producer.id, producer.epoch)
            else { return nil }
            return partition.id
        }
        guard !missing.isEmpty, broker.transactions.verify(transaction.id, producer, missing) != .none else { return false }
        let (buffer, bytes) = keepFrame(frame)
        let waiting = WaitingProduce(
            header: header, acks: acks, timeoutMs: produceTimeoutMs, parts: shared.produceParts, frame: bytes, buffer: buffer)
        block(forOwnWork: true)
        let event = AddPartitionsEvent(id: transaction.id, producer: producer, partitions: missing, version: 2)
        broker.transactions.submit(transaction.id, on: loop) { [self] reply in
            transaction.refusal = transaction.told(reply.error)
            goOn(waiting, transaction)
        } _: {
            .addPartitions(event, $0)
        }
        return true
    }

    private func goOn(_ waiting: WaitingProduce, _ transaction: ProduceTransaction) {
        if awaitExchange(waiting.parts, waiting.frame, { [self] in goOn(waiting, transaction) }) { return }
        defer { shared.recycle(waiting.buffer) }
        guard !isClosed else { return }
        produceTimeoutMs = waiting.timeoutMs
        shared.produceParts = waiting.parts
        if waiting.frame.count > CodecLane.inlineLimit,
            checkOnLane(waiting.header, acks: waiting.acks, transaction, waiting.frame, broker.topics.table)
        {
            return
        }
        let appended = appendParts(
            waiting.header, acks: waiting.acks, waiting.parts, waiting.frame, checked: nil, transaction: transaction, fault: nil
        )
        if appended { shared.retain(waiting.buffer) }
        if !isClosed { unblock() }
    }
}
