import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor

/// Writes the marker that ends a transaction into some partitions, and tells what became of each when all is known.
/// Confined to its loop.
final class MarkerWrite: AppendOwner, @unchecked Sendable {
    let loop: any EventLoop
    private let end: TransactionEnd
    private let partitions: [TopicPartition]
    private let done: ([ErrorCode]) -> Void
    private var errors: [ErrorCode]
    /// The start counts as one, so that nothing is told before all are asked.
    private var pending = 1

    private init(
        _ end: TransactionEnd, _ partitions: [TopicPartition], _ loop: any EventLoop, _ done: @escaping ([ErrorCode]) -> Void
    ) {
        self.end = end
        self.partitions = partitions
        self.loop = loop
        self.done = done
        errors = Array(repeating: .none, count: partitions.count)
    }

    /// `done` is called once, on the loop, perhaps before this returns; the errors are in the order of the partitions.
    static func begin(
        _ end: TransactionEnd, _ partitions: [TopicPartition], coordinator: TransactionCoordinator, on loop: any EventLoop,
        _ done: @escaping ([ErrorCode]) -> Void
    ) {
        let write = MarkerWrite(end, partitions, loop, done)
        var effects = PartitionEffects()
        for index in partitions.indices { write.begin(index, coordinator, &effects) }
        effects.deliver()
        write.finished()
    }

    private func begin(_ index: Int, _ coordinator: TransactionCoordinator, _ effects: inout PartitionEffects) {
        let id = partitions[index]
        if id.topic == InternalTopics.offsets {
            let shards = coordinator.groups.allShards
            guard id.partition >= 0, Int(id.partition) < shards.count else { return errors[index] = .unknownTopicOrPartition }
            pending += 1
            return shards[Int(id.partition)].submit(on: loop) { [self] reply in
                if case .failed(let error) = reply { errors[index] = error }
                finished()
            } _: {
                .endTransaction(end, $0)
            }
        }
        guard let partition = coordinator.cluster.topics.table.topic(id.topic)?.partition(id.partition) else {
            return errors[index] = .unknownTopicOrPartition
        }
        let shared = coordinator.shared
        var request = AppendRequest(
            .committed, owner: self, token: AppendToken(answer: 0, index: index),
            deadline: shared.clock.now + shared.commitTimeout,
            origin: .coordinator)
        request.endsInNextEpoch = end.version >= 2
        var bytes = ByteBuffer(capacity: 128)
        BatchBuilder.write(
            end.marker, producerID: end.producer.id, epoch: end.producer.epoch, timestamp: shared.clock.wallMilliseconds,
            into: &bytes, contexts: CodecContexts())
        switch partition.append(bytes.mutableBytes, request) {
        case .reserved:
            pending += 1
            // the bytes go when this returns
            partition.writeReserved(&effects)
        case .duplicate: preconditionFailure("a marker has no sequence to be known by")
        case .refused(let error, _): errors[index] = error
        }
    }

    func appendFinished(_ token: AppendToken, _ outcome: AppendOutcome) {
        errors[token.index] = outcome.error
        finished()
    }

    private func finished() {
        pending -= 1
        if pending == 0 { done(errors) }
    }
}

/// Brings a transaction's end to all its partitions, as often as needed; the machine is told when all have it. On the
/// loop of the shard. It ends with the shard's leadership: who leads next reads that the transaction is ending, and
/// begins anew. A partition that is told twice has a marker more, which ends nothing.
final class MarkerDelivery: @unchecked Sendable {
    private static let firstDelay = Interval.milliseconds(50)
    private static let lastDelay = Interval.seconds(5)

    private let ending: EndingTransaction
    private let leaderEpoch: LeaderEpoch
    private let shard: TransactionShard
    private let coordinator: TransactionCoordinator
    private var left: [TopicPartition]
    private var delay = firstDelay

    init(_ ending: EndingTransaction, leaderEpoch: LeaderEpoch, shard: TransactionShard, coordinator: TransactionCoordinator) {
        self.ending = ending
        self.leaderEpoch = leaderEpoch
        self.shard = shard
        self.coordinator = coordinator
        left = ending.partitions
    }

    func deliver() {
        guard shard.isServing(leaderEpoch) else { return }
        let marker = EndTransactionMarker(ending.commits ? .commit : .abort, coordinatorEpoch: leaderEpoch)
        let end = TransactionEnd(ending.producer, marker, version: ending.version)
        MarkerWrite.begin(end, left, coordinator: coordinator, on: shard.loop) { [self] in told($0) }
    }

    private func told(_ errors: [ErrorCode]) {
        left = zip(left, errors).filter { mustTryAgain($0, $1) }.map(\.0)
        guard !left.isEmpty else { return shard.note(.markersWritten(ending)) }
        let wait = delay
        delay = min(delay + delay, Self.lastDelay)
        shard.loop.schedule(after: wait) { [self] in deliver() }
    }

    private func mustTryAgain(_ partition: TopicPartition, _ error: ErrorCode) -> Bool {
        switch error {
        case .none: return false
        case .unknownTopicOrPartition where coordinator.isGone(partition):
            coordinator.shared.logger.info(
                "a transaction ended whose topic was deleted", ("transactional-id", ending.id),
                ("partition", partition.description))
            return false
        case .invalidProducerEpoch, .transactionCoordinatorFenced:
            // an operator has ended it there, or a producer after this one has
            coordinator.shared.logger.warning(
                "a transaction was ended by somebody else", ("transactional-id", ending.id),
                ("partition", partition.description),
                ("error", error.description))
            return false
        default: return true
        }
    }
}
