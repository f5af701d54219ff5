import MartletBasics
package import MartletModel
import MartletReactor
import MartletWire

/// A record to be written.
package struct ProducedRecord: Sendable, Equatable {
    package var key: [UInt8]?
    /// Nil is null: a tombstone on a compacted topic.
    package var value: [UInt8]?
    package var headers: [RecordHeader]
    /// Nil is now.
    package var timestamp: Int64?
    /// Nil is for the key to say, or nobody.
    package var partition: Int32?

    package init(
        key: [UInt8]? = nil, value: [UInt8]?, headers: [RecordHeader] = [], timestamp: Int64? = nil, partition: Int32? = nil
    ) {
        self.key = key
        self.value = value
        self.headers = headers
        self.timestamp = timestamp
        self.partition = partition
    }

    fileprivate var sizeBound: Int {
        let fields = (key?.count ?? 0) + (value?.count ?? 0)
        return headers.reduce(fields + 40) { $0 + $1.name.count + ($1.value?.count ?? 0) + 10 }
    }
}

/// Writes records to one topic: each partition's in the order in which they were given, each once.
///
///     let producer = try await Producer.open(client, topic: "orders")
///     try await producer.append(ProducedRecord(value: line))     // waits while too much is under way
///     try await producer.finish()                                // everything is answered
///
/// With `acks=all` it is an idempotent producer, so that a batch which is sent again after a lost connection is not there
/// twice. One batch a partition is under way; what comes meanwhile goes together into the next.
package final class Producer: @unchecked Sendable {
    package enum Acks: Int16, Sendable {
        case none = 0, leader = 1, all = -1
    }

    package struct Settings: Sendable {
        package var acks = Acks.all
        package var codec = CompressionCodec.none
        /// What a batch may hold, uncompressed; a larger record has one of its own.
        package var batchBytes = 512 << 10
        /// What may wait and be under way altogether.
        package var bufferedBytesLimit = 32 << 20

        package init() {}
    }

    /// What was written to one partition so far.
    package struct Delivered: Sendable, Equatable {
        package var partition: Int32
        package var records: Int64
        /// Of the first and the last record; nil where the broker does not say (acks=0).
        package var firstOffset: Offset?
        package var lastOffset: Offset?
    }

    private struct Batch {
        var bytes: [UInt8]
        var recordCount: Int32
        var baseSequence: Int32
    }

    private final class Queue {
        let partition: Int32
        var builder: BatchBuilder
        var closed = RingQueue<Batch>()
        var isSending = false
        var nextSequence: Int32 = 0
        var delivered: Delivered

        init(_ partition: Int32) {
            self.partition = partition
            builder = BatchBuilder(capacity: 1024)
            delivered = Delivered(partition: partition, records: 0)
        }
    }

    package let topic: String
    private let client: Client
    private let settings: Settings
    private let contexts = CodecContexts()
    private let identity: BatchIdentity
    private let partitionCount: Int32
    private var queues: [Queue] = []
    private var stickyPartition: Int32 = 0
    private var bufferedBytes = 0
    private var failure: ClientError?
    private var waiting: [UnsafeContinuation<Void, Never>] = []

    private init(_ client: Client, _ topic: String, _ settings: Settings, _ identity: BatchIdentity, partitions: Int32) {
        self.client = client
        self.topic = topic
        self.settings = settings
        self.identity = identity
        partitionCount = partitions
    }

    /// Finds the topic, which the broker may create, and gets an id for what must not be written twice.
    package static func open(
        _ client: Client, topic: String, settings: Settings = Settings()
    ) async throws(ClientError) -> Producer {
        let count = try await partitions(of: topic, client)
        var identity = BatchIdentity()
        if settings.acks == .all {
            let answer = try await self.identity(client).message
            identity = BatchIdentity(producerID: answer.producerID, epoch: answer.producerEpoch, baseSequence: 0)
        }
        return Producer(client, topic, settings, identity, partitions: count)
    }

    /// A topic that was just created by asking is not there at once.
    private static let unknownTopicAttemptsLimit = 6

    private static func partitions(of topic: String, _ client: Client) async throws(ClientError) -> Int32 {
        var patience = Patience(client)
        while true {
            let view = try await client.refresh(topics: [topic], creating: true)
            let found = view.topic(topic)
            let isLed = found?.partitions.allSatisfy { $0.leader >= 0 } ?? false
            if let found, found.error == .none, !found.partitions.isEmpty, isLed { return Int32(found.partitions.count) }
            let code = found?.error ?? .unknownTopicOrPartition
            let mayCome = code == .none || code.callsForAnotherTry
                || (code == .unknownTopicOrPartition && patience.attemptsCount < unknownTopicAttemptsLimit)
            guard mayCome, patience.isLeft else {
                throw .refused(what: "topic \(topic)", code == .none ? .leaderNotAvailable : code, message: nil)
            }
            await patience.wait()
        }
    }

    private static func identity(_ client: Client) async throws(ClientError) -> Answer<InitProducerIdResponse> {
        let answer = try await client.ask(.any, judging: { $0.errorCode }) {
            (_) throws(ClientError) -> InitProducerIdRequest in
            var request = InitProducerIdRequest()
            request.transactionalID = nil
            request.transactionTimeoutMs = .max
            return request
        }
        guard answer.message.errorCode == .none else {
            throw .refused(what: "a producer id", answer.message.errorCode, message: nil)
        }
        return answer
    }

    // MARK: Records

    /// What was written, by partition.
    package var delivered: [Delivered] {
        queues.map(\.delivered).filter { $0.records > 0 }.sorted { $0.partition < $1.partition }
    }

    /// Takes a record; waits while too much is buffered. Throws what went wrong with this one or any before it.
    package func append(_ record: ProducedRecord) async throws(ClientError) {
        if let failure { throw failure }
        let size = record.sizeBound
        guard size < BrokerConnection.unsentBytesLimit / 2 else { throw .invalid("a record of \(size) bytes is too large") }
        if let wanted = record.partition, wanted < 0 || wanted >= partitionCount {
            throw .invalid("topic \(topic) has no partition \(wanted): it has \(partitionCount), from 0")
        }
        while bufferedBytes > 0, bufferedBytes + size > settings.bufferedBytesLimit {
            send()
            await withUnsafeContinuation { waiting.append($0) }
            if let failure { throw failure }
        }
        let queue = queue(partition(for: record))
        if !queue.builder.isEmpty, queue.builder.uncompressedSize + size > settings.batchBytes {
            close(queue)
            startSending(queue)
        }
        let before = queue.builder.uncompressedSize
        queue.builder.append(
            timestamp: record.timestamp ?? client.clock.wallMilliseconds, key: record.key, value: record.value,
            headers: record.headers)
        bufferedBytes += queue.builder.uncompressedSize - before
    }

    private func partition(for record: ProducedRecord) -> Int32 {
        if let chosen = record.partition { return chosen }
        if let key = record.key { return Partitioning.partition(of: key, among: partitionCount) }
        return stickyPartition
    }

    private func queue(_ partition: Int32) -> Queue {
        if let known = queues.first(where: { $0.partition == partition }) { return known }
        let queue = Queue(partition)
        queues.append(queue)
        return queue
    }

    /// Sends what was taken, as far as nothing else of its partition is under way.
    package func send() {
        for queue in queues where !queue.isSending && !queue.builder.isEmpty {
            close(queue)
            startSending(queue)
        }
    }

    /// Waits until everything is answered.
    package func finish() async throws(ClientError) {
        while failure == nil, bufferedBytes > 0 {
            send()
            await withUnsafeContinuation { waiting.append($0) }
        }
        if let failure { throw failure }
    }

    private func close(_ queue: Queue) {
        let uncompressed = queue.builder.uncompressedSize - BatchHeader.size
        var identity = identity
        let count = queue.builder.recordCount
        if identity.producerID >= 0 {
            identity.baseSequence = queue.nextSequence
            queue.nextSequence = Int32((Int64(queue.nextSequence) + Int64(count)) & 0x7FFF_FFFF)
        }
        queue.builder.identity = identity
        var output = ByteBuffer(capacity: uncompressed + BatchHeader.size)
        queue.builder.finish(into: &output, codec: settings.codec, contexts: contexts)
        // what nobody assigned goes on to the next partition with the next batch
        if queue.partition == stickyPartition { stickyPartition = (stickyPartition + 1) % partitionCount }
        let batch = Batch(bytes: output.array, recordCount: count, baseSequence: identity.baseSequence)
        bufferedBytes += batch.bytes.count - uncompressed
        queue.closed.append(batch)
    }

    // MARK: Sending

    private func startSending(_ queue: Queue) {
        guard !queue.isSending, failure == nil else { return }
        queue.isSending = true
        let partition = queue.partition
        client.loop.spawn { [self] in await sendAll(partition) }
    }

    private func sendAll(_ partition: Int32) async {
        let queue = queue(partition)
        while failure == nil, let batch = queue.closed.first {
            do throws(ClientError) {
                let offset = try await deliver(batch, to: partition)
                queue.delivered.records += Int64(batch.recordCount)
                if let offset {
                    queue.delivered.firstOffset = queue.delivered.firstOffset ?? offset
                    queue.delivered.lastOffset = offset + Int64(batch.recordCount) - 1
                }
            } catch {
                failure = failure ?? error
            }
            queue.closed.popFirst()
            bufferedBytes -= batch.bytes.count
            if queue.closed.isEmpty, !queue.builder.isEmpty { close(queue) }
            wake()
        }
        queue.isSending = false
        wake()
    }

    private func wake() {
        let resumed = waiting
        waiting = []
        for one in resumed { one.resume() }
    }

    /// Sends a batch until it is answered for good; its offset, where the broker says one.
    private func deliver(_ batch: Batch, to partition: Int32) async throws(ClientError) -> Offset? {
        let place = TopicPartition(topic, partition)
        var patience = Patience(client)
        while true {
            do throws(ClientError) {
                return try await attempt(batch, place)
            } catch {
                // without an id nobody can tell whether it was written: as for every other producer, at least once
                let mayPass = error.code?.isRetriable ?? error.concernsConnection
                guard mayPass, patience.isLeft else { throw error }
            }
            await patience.wait()
            do throws(ClientError) {
                try await client.refresh(topics: [topic])
            } catch {
                guard error.concernsConnection, patience.isLeft else { throw error }
            }
        }
    }

    private func attempt(_ batch: Batch, _ place: TopicPartition) async throws(ClientError) -> Offset? {
        guard let leader = client.cluster.leader(of: place), leader.leader >= 0 else { throw client.leaderFault(of: place) }
        let request = ProduceRequest(
            batch.bytes, to: topic, place.partition, acks: settings.acks.rawValue,
            timeoutMs: Int32(clamping: client.settings.requestTimeLimit.milliseconds))
        // from version 13 on topics go by id
        let limit: Int16 = 12
        guard settings.acks != .none else {
            try await client.tell(leader.leader, request, atMost: limit)
            return nil
        }
        let answer = try await client.ask(.broker(leader.leader), atMost: limit, once: true) {
            (_) throws(ClientError) -> ProduceRequest in request
        }
        let found = answer.message.responses.first?.partitionResponses.first { $0.index == place.partition }
        guard let found else {
            throw .malformedAnswer(what: "Produce", broker: answer.broker, reason: "it says nothing of \(place)")
        }
        // it was written by the attempt before
        if found.errorCode == .duplicateSequenceNumber { return nil }
        guard found.errorCode == .none else {
            let reasons = [found.errorMessage] + found.recordErrors.prefix(3).map(\.batchIndexErrorMessage)
            let message = reasons.compactMap { $0 }.joined(separator: "; ")
            throw .refused(
                what: "a batch for \(place) was refused", found.errorCode, message: message.isEmpty ? nil : message)
        }
        return found.baseOffset < 0 ? nil : found.baseOffset
    }
}
