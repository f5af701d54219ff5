import MartletBasics
package import MartletModel
import MartletWire

package struct ListedTransaction: Sendable, Equatable {
    package var id: String
    package var producerID: ProducerID
    package var state: String
    package var coordinator: BrokerID
}

/// Which transactions are listed; what is empty or nil leaves none out.
package struct TransactionFilter: Sendable {
    package var states: [String] = []
    package var producerIDs: [ProducerID] = []
    /// Open for longer than this.
    package var longerThanMs: Int64?
    /// For the whole transactional id.
    package var pattern: String?

    package init() {}
}

/// A transactional id at one moment. A class, as `ClusterView` is.
package final class TransactionDescription: Sendable {
    package let id: String
    package let state: String
    package let producerID: ProducerID
    package let epoch: ProducerEpoch
    package let timeoutMs: Int32
    /// Nil where none was begun.
    package let startMilliseconds: Int64?
    /// Sorted.
    package let partitions: [TopicPartition]

    init(
        id: String, state: String, producerID: ProducerID, epoch: ProducerEpoch, timeoutMs: Int32, startMilliseconds: Int64?,
        partitions: [TopicPartition]
    ) {
        self.id = id
        self.state = state
        self.producerID = producerID
        self.epoch = epoch
        self.timeoutMs = timeoutMs
        self.startMilliseconds = startMilliseconds
        self.partitions = partitions
    }
}

/// A transaction that is open in a partition, as the partition's leader knows of it.
package struct OpenTransaction: Sendable, Equatable {
    package var partition: TopicPartition
    package var producerID: ProducerID
    package var epoch: ProducerEpoch
    package var startOffset: Offset
    /// When its producer last wrote.
    package var lastTimestamp: Int64
    package var coordinatorEpoch: Int32
}

/// An open transaction that its coordinator will not end, and why that is known.
package struct HangingTransaction: Sendable, Equatable {
    package var open: OpenTransaction
    /// Nil where no transactional id has the producer id.
    package var transactionalID: String?
    package var reason: String
}

/// Transactions.
extension Client {
    /// The transactional ids of all brokers, by id. Brokers that could not be asked are told with their fault.
    package func transactions(
        _ filter: TransactionFilter = TransactionFilter()
    ) async throws(ClientError) -> (transactions: [ListedTransaction], faults: [ClientError]) {
        try await refresh(topics: [])
        let results = await concurrently(cluster.brokers.map(\.id)) { [self] id in await listed(filter, at: id) }
        var found: [ListedTransaction] = []
        var faults: [ClientError] = []
        for result in results {
            switch result {
            case .success(let some): found += some
            case .failure(let error): faults.append(error)
            }
        }
        if found.isEmpty, let fault = faults.first { throw fault }
        return (found.sorted { $0.id < $1.id }, faults)
    }

    private func listed(_ filter: TransactionFilter, at broker: BrokerID) async -> Result<[ListedTransaction], ClientError> {
        do throws(ClientError) {
            let answer = try await ask(.broker(broker), judging: { $0.errorCode }) {
                (version) throws(ClientError) -> ListTransactionsRequest in
                var request = ListTransactionsRequest()
                request.stateFilters = filter.states
                request.producerIDFilters = filter.producerIDs
                if let longer = filter.longerThanMs {
                    guard version >= 1 else { throw .invalid("this broker is too old to tell how long transactions are open") }
                    request.durationFilter = longer
                }
                if let pattern = filter.pattern {
                    guard version >= 2 else { throw .invalid("this broker is too old to look for a pattern") }
                    request.transactionalIDPattern = pattern
                }
                return request
            }
            guard answer.message.errorCode == .none else {
                throw .refused(what: "the transactions of broker \(broker)", answer.message.errorCode, message: nil)
            }
            if let unknown = answer.message.unknownStateFilters.first {
                throw .invalid("broker \(broker) knows no state \(unknown)")
            }
            return .success(
                answer.message.transactionStates.map {
                    ListedTransaction(
                        id: $0.transactionalID, producerID: $0.producerID, state: $0.transactionState, coordinator: broker)
                })
        } catch {
            return .failure(error)
        }
    }

    package func transaction(_ id: String) async throws(ClientError) -> TransactionDescription {
        let answer = try await ask(
            .transactionCoordinator(of: id), judging: { $0.transactionStates.first?.errorCode ?? .none }
        ) { (_) throws(ClientError) -> DescribeTransactionsRequest in
            var request = DescribeTransactionsRequest()
            request.transactionalIDs = [id]
            return request
        }
        guard let found = answer.message.transactionStates.first else {
            throw .malformedAnswer(what: "DescribeTransactions", broker: answer.broker, reason: "it is empty")
        }
        guard found.errorCode == .none else { throw .refused(what: "transactional id \(id)", found.errorCode, message: nil) }
        let partitions = found.topics.flatMap { topic in topic.partitions.map { TopicPartition(topic.topic, $0) } }
        return TransactionDescription(
            id: found.transactionalID, state: found.transactionState, producerID: found.producerID, epoch: found.producerEpoch,
            timeoutMs: found.transactionTimeoutMs,
            startMilliseconds: found.transactionStartTimeMs >= 0 ? found.transactionStartTimeMs : nil,
            partitions: partitions.sorted())
    }

    /// Has the coordinator abort what a transactional id has open; whoever uses it is fenced.
    package func terminateTransaction(_ id: String) async throws(ClientError) {
        let answer = try await ask(.transactionCoordinator(of: id), judging: { $0.errorCode }) {
            (_) throws(ClientError) -> InitProducerIdRequest in
            var request = InitProducerIdRequest()
            request.transactionalID = id
            // nobody begins a transaction with this epoch
            request.transactionTimeoutMs = 60_000
            return request
        }
        guard answer.message.errorCode == .none else {
            throw .refused(what: "the transaction of \(id) was not aborted", answer.message.errorCode, message: nil)
        }
    }

    // MARK: In partitions

    /// The transactions that are open in these partitions, as their leaders know of them.
    package func openTransactions(in partitions: [TopicPartition]) async throws(ClientError) -> [OpenTransaction] {
        try await refresh(topics: Array(Set(partitions.map(\.topic))).sorted())
        var byLeader: [BrokerID: [TopicPartition]] = [:]
        for partition in partitions {
            guard let leader = cluster.leader(of: partition), leader.leader >= 0 else {
                throw .refused(what: "\(partition)", .leaderNotAvailable, message: "the partition has no leader")
            }
            byLeader[leader.leader, default: []].append(partition)
        }
        var found: [OpenTransaction] = []
        for leader in byLeader.keys.sorted() { found += try await openTransactions(in: byLeader[leader]!, at: leader) }
        return found.sorted { ($0.partition, $0.startOffset) < ($1.partition, $1.startOffset) }
    }

    private func openTransactions(
        in partitions: [TopicPartition], at leader: BrokerID
    ) async throws(ClientError) -> [OpenTransaction] {
        let answer = try await ask(.broker(leader)) { (_) throws(ClientError) -> DescribeProducersRequest in
            var request = DescribeProducersRequest()
            for partition in partitions.sorted() {
                if request.topics.last?.name != partition.topic {
                    var topic = DescribeProducersRequest.TopicRequest()
                    topic.name = partition.topic
                    request.topics.append(topic)
                }
                request.topics[request.topics.count - 1].partitionIndexes.append(partition.partition)
            }
            return request
        }
        var found: [OpenTransaction] = []
        for topic in answer.message.topics {
            for part in topic.partitions {
                let partition = TopicPartition(topic.name, part.partitionIndex)
                guard part.errorCode == .none else {
                    throw .refused(what: "the producers of \(partition)", part.errorCode, message: part.errorMessage)
                }
                for producer in part.activeProducers where producer.currentTxnStartOffset >= 0 {
                    found.append(
                        OpenTransaction(
                            partition: partition, producerID: producer.producerID,
                            epoch: ProducerEpoch(clamping: producer.producerEpoch), startOffset: producer.currentTxnStartOffset,
                            lastTimestamp: producer.lastTimestamp, coordinatorEpoch: producer.coordinatorEpoch))
                }
            }
        }
        return found
    }

    /// Those of some open transactions that nobody will end: their coordinator knows nothing of them, or not of the partition.
    package func hanging(among open: [OpenTransaction]) async throws(ClientError) -> [HangingTransaction] {
        guard !open.isEmpty else { return [] }
        var filter = TransactionFilter()
        filter.producerIDs = Array(Set(open.map(\.producerID))).sorted()
        let (listed, faults) = try await transactions(filter)
        // one that was not asked may know of it
        if let fault = faults.first { throw fault }
        var hanging: [HangingTransaction] = []
        for one in open {
            guard let known = listed.first(where: { $0.producerID == one.producerID }) else {
                hanging.append(HangingTransaction(open: one, reason: "no transactional id has this producer id"))
                continue
            }
            let described = try await transaction(known.id)
            let isEnding = described.state != "Empty" && !described.state.hasPrefix("Complete")
            guard !isEnding || !described.partitions.contains(one.partition) else { continue }
            let reason =
                isEnding ? "its transaction does not have this partition" : "its transaction has ended: \(described.state)"
            hanging.append(HangingTransaction(open: one, transactionalID: known.id, reason: reason))
        }
        // one may have ended between the two questions
        guard !hanging.isEmpty else { return [] }
        let still = try await openTransactions(in: Array(Set(hanging.map(\.open.partition))).sorted())
        return hanging.filter { one in
            still.contains { $0.partition == one.open.partition && $0.startOffset == one.open.startOffset }
        }
    }

    /// Ends a transaction in one partition, whatever its coordinator knows of it.
    package func abort(_ open: OpenTransaction) async throws(ClientError) {
        let leader = cluster.leader(of: open.partition)?.leader ?? -1
        let answer = try await ask(.broker(leader), isRepeatable: false) { (_) throws(ClientError) -> WriteTxnMarkersRequest in
            var topic = WriteTxnMarkersRequest.WritableTxnMarkerTopic()
            topic.name = open.partition.topic
            topic.partitionIndexes = [open.partition.partition]
            var marker = WriteTxnMarkersRequest.WritableTxnMarker()
            marker.producerID = open.producerID
            marker.producerEpoch = open.epoch
            marker.transactionResult = false
            marker.coordinatorEpoch = max(open.coordinatorEpoch, 0)
            marker.topics = [topic]
            var request = WriteTxnMarkersRequest()
            request.markers = [marker]
            return request
        }
        let code = answer.message.markers.first?.topics.first?.partitions.first?.errorCode ?? .unknownServerError
        guard code == .none else {
            throw .refused(what: "the transaction in \(open.partition) was not aborted", code, message: nil)
        }
    }
}
