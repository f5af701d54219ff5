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

/// An entry in a partition's table of appends that somebody waits for. The tables hold waiters of one leadership only: they are emptied
/// when it ends, so that an offset written again under another leader never satisfies an old waiter.
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
    var loop: any EventLoop { get }
    /// On `loop`. May come more often than there is news.
    func partitionHasNews()
}

/// What has to be told once a partition's lock is released. Told in order: first who waits for an append, then who waits for data.
package struct PartitionEffects {
    package struct Completion {
        var owner: any AppendOwner
        var token: AppendToken
        var outcome: AppendOutcome
    }

    package private(set) var completions: ContiguousArray<Completion> = []
    package private(set) var watchers: ContiguousArray<any FetchWatcher> = []

    package init() {}

    mutating func complete(_ waiter: AppendWaiter, _ error: ErrorCode, logStartOffset: Offset) {
        let outcome = AppendOutcome(error: error, logStartOffset: logStartOffset)
        completions.append(Completion(owner: waiter.owner, token: waiter.token, outcome: outcome))
    }

    mutating func wake(_ watching: ContiguousArray<any FetchWatcher>) {
        if !watching.isEmpty { watchers.append(contentsOf: watching) }
    }

    package var isEmpty: Bool { completions.isEmpty && watchers.isEmpty }

    /// Calls everybody: those of the current loop at once, others by way of theirs.
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
        for watcher in watchers {
            if watcher.loop.isCurrent {
                watcher.partitionHasNews()
            } else {
                watcher.loop.execute { watcher.partitionHasNews() }
            }
        }
        watchers.removeAll(keepingCapacity: true)
    }
}
