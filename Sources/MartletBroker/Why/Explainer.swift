package import MartletBasics
import MartletCluster
import MartletLog
package import MartletModel
import MartletReactor

/// Says what a group or a topic waits for, from the state of this broker's coordinators, partitions and quotas.
///
/// What else can make somebody wait joins in here: a type of group in `GroupMachine.explain`, whose switch knows all
/// types; whatever holds back a partition in `reasons(of:)`, which groups and topics share.
package struct Explainer {
    /// A group that is behind and has committed nothing for so long is said to commit nothing.
    package static let commitPatience = Interval.seconds(30)

    private let broker: Broker
    private let now: Instant
    private let wall: Int64
    private let transactions: KnownTransactions

    package init(_ broker: Broker) {
        self.broker = broker
        now = broker.clock.now
        wall = broker.clock.wallMilliseconds
        transactions = KnownTransactions(broker.transactions)
    }

    package func group(_ id: String) -> Result<[Reason], ErrorCode> {
        let moment = GroupMoment(now: now, wallMilliseconds: wall)
        switch broker.groups.read(id, { $0.explain(id, at: moment) }) {
        case .failure(let failure): return .failure(failure.error)
        case .success(nil): return .failure(.groupIDNotFound)
        case .success(let found?):
            var reasons = Reasons()
            reasons.add(found.reasons)
            for (place, producer) in found.openOffsets { reasons.add(openOffset(place, producer)) }
            for client in found.clients { reasons.add(throttles(of: client)) }
            for (place, committed) in found.offsets {
                reasons.add(self.reasons(of: place))
                if let lag = lag(place, committed, hasMembers: !found.clients.isEmpty) { reasons.add(lag) }
            }
            return .success(reasons.all)
        }
    }

    package func topic(_ name: String) -> Result<[Reason], ErrorCode> {
        guard let info = broker.metadata.current.topic(name) else { return .failure(.unknownTopicOrPartition) }
        var reasons = Reasons()
        for partition in info.partitions { reasons.add(self.reasons(of: TopicPartition(name, partition.index))) }
        for meter in broker.quotaMeters.throttled(now: now) { reasons.add(throttle(meter)) }
        return .success(reasons.all)
    }

    // MARK: Partitions

    private func reasons(of place: TopicPartition) -> [Reason] {
        guard let topic = broker.metadata.current.topic(place.topic),
            let info = topic.partitions.first(where: { $0.index == place.partition })
        else {
            return [Reason("no-partition", "\(place)", "\(place) does not exist any more.")]
        }
        guard info.leader >= 0 else {
            let replicas = info.replicas.map(String.init).joined(separator: ", ")
            return [
                Reason(
                    "no-leader", "\(place)",
                    "\(place) has no leader: nothing can be written or read before one of its replicas (on \(replicas)) "
                        + "is back.")
            ]
        }
        guard let partition = broker.topics.table.topic(place.topic)?.partition(place.partition), partition.isLeader else {
            return []
        }
        var reasons: [Reason] = []
        let needed = min(Int(partition.topicConfig.minInsyncReplicas), info.replicas.count)
        if info.inSyncReplicas.count < needed {
            let text = "\(place) has \(info.inSyncReplicas.count) of \(info.replicas.count) replicas in sync, and needs "
                + "\(needed) (min.insync.replicas): records with acks=all are refused."
            reasons.append(Reason("not-enough-replicas", "\(place)", text))
        }
        return reasons + openTransactions(partition)
    }

    /// The transaction that began first holds back the last stable offset; others that are open follow it.
    private func openTransactions(_ partition: Partition) -> [Reason] {
        guard case .success(let producers) = partition.describeProducers() else { return [] }
        let open = producers.filter { $0.transactionStart >= 0 }.sorted { a, b in
            (a.transactionStart, a.id) < (b.transactionStart, b.id)
        }
        guard let first = open.first else { return [] }
        let held = max(partition.highWatermark - first.transactionStart, 0)
        let others = open.count > 1
            ? " After it \(Spoken.count(Int64(open.count - 1), "other transaction")) must end, too." : ""
        let known = transactions[first.id]
        let wrote = first.lastTimestamp >= 0
            ? ", which last wrote \(Spoken.span(milliseconds: wall - first.lastTimestamp)) ago," : ""
        return [
            Reason(
                "open-transaction", "\(partition.id)",
                "\(partition.id): \(Self.name(known)) of producer \(first.id) (epoch \(first.epoch))\(wrote) is open since "
                    + "offset \(first.transactionStart): \(Spoken.count(held, "record")) from there on cannot be read with "
                    + "isolation.level=read_committed before it ends.\(Self.end(of: known, wall: wall))\(others)",
                since: known?.startTimestamp ?? (first.lastTimestamp >= 0 ? first.lastTimestamp : nil),
                left: Self.left(of: known, wall: wall))
        ]
    }

    private func openOffset(_ place: TopicPartition, _ producer: ProducerID) -> Reason {
        let known = transactions[producer]
        return Reason(
            "offset-in-transaction", "\(place)",
            "An offset for \(place) belongs to \(Self.name(known)) of producer \(producer), which is open: members that begin "
                + "to read this partition wait until it ends.\(Self.end(of: known, wall: wall))",
            since: known?.startTimestamp, left: Self.left(of: known, wall: wall))
    }

    // MARK: Transactions

    /// Whose coordinator is another broker, or nobody, has no name here.
    private static func name(_ transaction: OpenTransaction?) -> String {
        transaction.map { "transaction \(Spoken.name($0.id))" } ?? "a transaction"
    }

    /// What is known of how it ends.
    package static func end(of transaction: OpenTransaction?, wall: Int64) -> String {
        guard let transaction else { return "" }
        switch transaction.state {
        case .prepareCommit: return " It commits: its partitions are being told."
        case .prepareAbort: return " It is aborted: its partitions are being told."
        case .ongoing:
            let began = " It began \(Spoken.span(milliseconds: wall - transaction.startTimestamp)) ago, and"
            guard let left = left(of: transaction, wall: wall), left > .zero else { return began + " is about to be aborted." }
            return began + " is aborted if it is still open in \(Spoken.span(left)) (transaction.timeout.ms)."
        case .empty, .completeCommit, .completeAbort: return ""  // none of these is open
        }
    }

    /// Until its coordinator aborts it.
    private static func left(of transaction: OpenTransaction?, wall: Int64) -> Interval? {
        guard let transaction, transaction.state == .ongoing else { return nil }
        return .milliseconds(max(transaction.startTimestamp + Int64(transaction.timeoutMs) - wall, 0))
    }

    private func lag(_ place: TopicPartition, _ committed: CommittedOffset, hasMembers: Bool) -> Reason? {
        guard let partition = broker.topics.table.topic(place.topic)?.partition(place.partition), partition.isLeader
        else { return nil }
        let behind = partition.highWatermark - max(committed.offset, partition.logStartOffset)
        let silence = wall - committed.commitTimestamp
        guard behind > 0, silence >= Self.commitPatience.milliseconds else { return nil }
        let why = hasMembers
            ? "its members do not commit, or do not get on" : "it has no members that would read on"
        return Reason(
            "no-commits", "\(place)",
            "\(place): \(Spoken.count(behind, "record")) behind, and nothing was committed for "
                + "\(Spoken.span(milliseconds: silence)): \(why).",
            since: committed.commitTimestamp)
    }

    // MARK: Quotas

    private func throttles(of client: String) -> [Reason] {
        broker.quotaMeters.throttled(now: now).filter { meter in
            meter.key.client == client || meter.key.client == nil && meter.key.user == Principal.anonymous.name
        }.flatMap(throttle)
    }

    private func throttle(_ meter: QuotaMeter) -> [Reason] {
        guard let waits = meter.throttle(now: now) else { return [] }
        let who = [meter.key.user.map { "user \(Spoken.name($0))" }, meter.key.client.map { "client \(Spoken.name($0))" }]
            .compactMap { $0 }.joined(separator: ", ")
        let since = wall - (now - waits.since).milliseconds
        return [Reason(
            "quota", meter.key.client ?? meter.key.user ?? "",
            "The quota \(meter.key.kind.rawValue) holds back \(who): it is beyond its bound, and has to wait for "
                + "\(Spoken.span(waits.left)) more.",
            since: since, left: waits.left)]
    }
}

/// The open transactions that this broker coordinates: looked for once, and only where somebody waits for one.
private final class KnownTransactions {
    private let coordinator: TransactionCoordinator
    private lazy var open = coordinator.open()

    init(_ coordinator: TransactionCoordinator) { self.coordinator = coordinator }

    subscript(producer: ProducerID) -> OpenTransaction? { open[producer] }
}
