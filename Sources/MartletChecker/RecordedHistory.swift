/// A history, put in order for those who judge it: each batch with what became of it, each partition with what was seen
/// at its offsets.
package struct RecordedHistory: Sendable {
    struct Sent: Sendable {
        var batch: SentBatch
        var time: Int64
        var told: Int64?
        var outcome = Outcome.unknown("no answer")

        var offset: Int64? { if case .accepted(let offset) = outcome { offset } else { nil } }
        var isAccepted: Bool { if case .accepted = outcome { true } else { false } }
        var isRefused: Bool { if case .refused = outcome { true } else { false } }
    }

    struct Commit: Sendable {
        var group: String
        var place: Place
        var offset: Int64?
        var sent: Int64
        /// When it surely was there: acknowledged, or read by somebody.
        var there: Int64?
        /// When it surely was there, or surely would not be any more.
        var decided: Int64?
        var isRefused = false
        var transaction: String?
        /// When it was acknowledged.
        var told: Int64?
    }

    struct TopicChange: Sendable {
        var topic: String
        /// How many it has from then on; 0 where it is deleted.
        var partitions: Int
        var sent: Int64
        var done: Int64?
    }

    struct Transaction: Sendable {
        /// By operation, when its commit was asked for. What was refused asked for nothing.
        var commitsAsked: [Int: Int64] = [:]
        var isCommitted = false

        /// When it was asked for first.
        var commitAsked: Int64? { commitsAsked.values.min() }
    }

    struct Whole: Sendable {
        var consumer: String
        var place: Place
        var time: Int64
        var start: Int64
        var end: Int64
    }

    package let events: [HistoryEvent]
    /// In the order in which they were sent.
    private(set) var sent: [Sent] = []
    /// By value, the batches that it went with.
    private(set) var sendings: [String: [Int]] = [:]
    private(set) var seen: [SeenPart] = []
    private(set) var seenTimes: [Int64] = []
    private(set) var wholes: [Whole] = []
    private(set) var commits: [Commit] = []
    private(set) var topicChanges: [TopicChange] = []
    private(set) var transactions: [String: Transaction] = [:]
    /// Up to where somebody asked for records to be deleted.
    private(set) var deletedBefore: [Place: Int64] = [:]
    /// Where a log begins since records were deleted, and when that was acknowledged.
    private(set) var deletions: [Place: [(told: Int64, start: Int64)]] = [:]
    /// When bytes of a partition were damaged.
    private(set) var damages: [Place: [Int64]] = [:]
    /// Topics in which what is superseded may be gone.
    private(set) var compacted: Set<String> = []
    private(set) var ends: [(time: Int64, how: LifeEnd)] = []

    private enum Operation { case send(Int), commit(Int), topic(Int), transaction(String, commits: Bool), deletion(Place) }

    package init(_ unsorted: [HistoryEvent]) {
        // clients of real processes write files of their own: their lines come together by time, and stay in their
        // order where times are equal
        events = unsorted.enumerated().sorted { ($0.element.time, $0.offset) < ($1.element.time, $1.offset) }.map(\.element)
        var operations: [Int: Operation] = [:]
        for event in events { take(event, &operations) }
    }

    private mutating func take(_ event: HistoryEvent, _ operations: inout [Int: Operation]) {
        switch event.kind {
        case .send(let batch):
            operations[batch.operation] = .send(sent.count)
            for value in batch.values { sendings[value, default: []].append(sent.count) }
            sent.append(Sent(batch: batch, time: event.time))
            if let name = batch.transaction, transactions[name] == nil { transactions[name] = Transaction() }
        case .endTransaction(let operation, let name, let commits):
            operations[operation] = .transaction(name, commits: commits)
            if commits { transactions[name, default: Transaction()].commitsAsked[operation] = event.time }
        case .deleteRecords(let operation, let place, let before):
            operations[operation] = .deletion(place)
            deletedBefore[place] = max(deletedBefore[place] ?? 0, before < 0 ? .max : before)
        case .commit(let operation, let group, let place, let offset, let transaction):
            operations[operation] = .commit(commits.count)
            commits.append(
                Commit(group: group, place: place, offset: offset, sent: event.time, transaction: transaction))
        case .makeTopic(let operation, let topic, let partitions):
            operations[operation] = .topic(topicChanges.count)
            topicChanges.append(TopicChange(topic: topic, partitions: partitions, sent: event.time))
        case .deleteTopic(let operation, let topic):
            operations[operation] = .topic(topicChanges.count)
            topicChanges.append(TopicChange(topic: topic, partitions: 0, sent: event.time))
        case .told(let operation, let outcome):
            if case .refused = outcome, case .transaction(let name, commits: true) = operations[operation] {
                transactions[name]?.commitsAsked[operation] = nil
            }
            if let operation = operations[operation] { take(outcome, of: operation, at: event.time) }
        case .saw(let part):
            seen.append(part)
            seenTimes.append(event.time)
        case .whole(let consumer, let place, let start, let end):
            wholes.append(Whole(consumer: consumer, place: place, time: event.time, start: start, end: end))
        case .ended(let how):
            ends.append((event.time, how))
            // what was on its way to it is there, or never will be
            for index in commits.indices where commits[index].decided == nil { commits[index].decided = event.time }
        case .damaged(let place): damages[place, default: []].append(event.time)
        case .compacted(let topic): compacted.insert(topic)
        case .listed, .outOfRange, .committed, .topics, .transactionsOver, .broken, .note: break
        }
    }

    private mutating func take(_ outcome: Outcome, of operation: Operation, at time: Int64) {
        switch operation {
        case .send(let index):
            sent[index].told = time
            sent[index].outcome = outcome
        case .commit(let index):
            switch outcome {
            case .accepted:
                commits[index].there = time
                commits[index].told = time
                commits[index].decided = min(commits[index].decided ?? time, time)
            case .refused:
                commits[index].isRefused = true
                commits[index].decided = time
            case .unknown: break
            }
        case .topic(let index):
            if case .accepted = outcome { topicChanges[index].done = time }
        case .deletion(let place):
            if case .accepted(let start?) = outcome { deletions[place, default: []].append((time, start)) }
        case .transaction(let name, let commits):
            if case .accepted = outcome, commits { transactions[name]?.isCommitted = true }
        }
    }

    /// Whether what was acknowledged has to outlive all that came after. Of acks=1 the first stop or power cut decides: a
    /// kill leaves the page cache.
    func isPromised(_ one: Sent) -> Bool {
        guard one.isAccepted, let told = one.told else { return false }
        guard one.batch.acks != -1 else { return true }
        return ends.first { $0.time >= one.time && $0.how != .kill && ($0.time >= told || $0.how == .powerCut) }?.how
            != .powerCut
    }

    /// Which life of the broker a moment lies in.
    func life(at time: Int64) -> Int { ends.count { $0.time <= time } }

    /// Whether a reader of what is committed is to be given it.
    func isCommitted(_ batch: SentBatch) -> Bool {
        guard let name = batch.transaction else { return true }
        return transactions[name]?.isCommitted == true
    }
}
