import MartletBasics
package import MartletModel
package import MartletReactor

/// Which answer, and which of its partitions, an append belongs to: numbers of the owner's own.
package struct AppendToken: Sendable, Hashable {
    package var answer: UInt64
    package var index: Int

    package init(answer: UInt64, index: Int) {
        self.answer = answer
        self.index = index
    }
}

/// What a client is told of its append.
package struct AppendOutcome: Sendable, Equatable {
    package var error: ErrorCode
    package var logStartOffset: Offset

    package init(error: ErrorCode, logStartOffset: Offset) {
        self.error = error
        self.logStartOffset = logStartOffset
    }
}

/// Who waits for an append: a connection, or a coordinator that writes to a log of its own.
package protocol AppendOwner: AnyObject, Sendable {
    /// Where it is to be told.
    var loop: any EventLoop { get }
    /// Called once for each append that was reserved with a token, on `loop`.
    func appendFinished(_ token: AppendToken, _ outcome: AppendOutcome)
}

/// When an append may be answered.
package enum Acknowledgement: Sendable, Equatable {
    /// Nobody waits (`acks=0`).
    case none
    /// Written by the leader (`acks=1`).
    case written
    /// Below the high watermark (`acks=all`): on every in-sync replica, as durably as the topic asks.
    case committed
}

/// An entry in a partition's table of appends that somebody waits for. The tables hold waiters of one leadership only:
/// they are emptied when it ends, so that an offset written again under another leader never satisfies an old waiter.
struct AppendWaiter {
    var owner: any AppendOwner
    var token: AppendToken
    /// The offset after the last record.
    var endOffset: Offset
    var deadline: Instant
    /// The leader's own disk counts too (`flush.messages` was reached).
    var needsLocalSync: Bool
}

/// Somebody who wants to know that a partition has more to read: a fetch session, or a fetch without one.
package protocol FetchWatcher: AnyObject, Sendable {
    /// On the thread that brought the news, whichever it is: to be noted, not acted upon. May come more often than
    /// there is news, and once more after the watch has ended.
    func hasNews(of partition: Partition)
}

/// Names one watch of one partition, to end it.
package struct FetchWatchToken: Sendable {
    fileprivate var number: UInt64
}

/// Who watches a partition, in an order that depends on nothing but the calls. Watches end at the same cost however
/// many there are.
struct FetchWatchers {
    private(set) var all: ContiguousArray<any FetchWatcher> = []
    private var numbers: ContiguousArray<UInt64> = []
    private var places: [UInt64: Int] = [:]
    private var lastNumber: UInt64 = 0

    mutating func add(_ watcher: any FetchWatcher) -> FetchWatchToken {
        lastNumber += 1
        places[lastNumber] = all.count
        all.append(watcher)
        numbers.append(lastNumber)
        return FetchWatchToken(number: lastNumber)
    }

    mutating func remove(_ token: FetchWatchToken) {
        guard let place = places.removeValue(forKey: token.number) else { preconditionFailure("a watch ends once") }
        all.swapAt(place, all.count - 1)
        numbers.swapAt(place, numbers.count - 1)
        all.removeLast()
        numbers.removeLast()
        if place < numbers.count { places[numbers[place]] = place }
    }
}

/// What has to be told once a partition's lock is released. Told in order: first who waits for an append, then who
/// waits for data.
package struct PartitionEffects {
    package struct Completion {
        var owner: any AppendOwner
        var token: AppendToken
        var outcome: AppendOutcome
    }

    package private(set) var completions: ContiguousArray<Completion> = []
    private var woken: ContiguousArray<(partition: Partition, watchers: ContiguousArray<any FetchWatcher>)> = []

    package init() {}

    mutating func complete(_ waiter: AppendWaiter, _ error: ErrorCode, logStartOffset: Offset) {
        let outcome = AppendOutcome(error: error, logStartOffset: logStartOffset)
        completions.append(Completion(owner: waiter.owner, token: waiter.token, outcome: outcome))
    }

    /// Under the partition's lock. The list is shared, not copied, unless it changes before it is delivered.
    mutating func wakeWatchers(of partition: Partition) {
        if !partition.watchers.all.isEmpty { woken.append((partition, partition.watchers.all)) }
    }

    package var isEmpty: Bool { completions.isEmpty && woken.isEmpty }

    /// Calls everybody: owners of the current loop at once, others by way of theirs.
    package mutating func deliver() {
        for completion in completions {
            if completion.owner.loop.isCurrent {
                completion.owner.appendFinished(completion.token, completion.outcome)
            } else {
                let (owner, token, outcome) = (completion.owner, completion.token, completion.outcome)
                owner.loop.execute { owner.appendFinished(token, outcome) }
            }
        }
        completions.removeAll(keepingCapacity: true)
        for (partition, watchers) in woken {
            for watcher in watchers { watcher.hasNews(of: partition) }
        }
        woken.removeAll(keepingCapacity: true)
    }
}
