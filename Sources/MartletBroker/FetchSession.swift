package import MartletBasics
import MartletCluster
package import MartletModel

/// What a client wants of one partition, and, in a session, what it was last told.
package struct FetchTarget {
    package var topicName: String
    package var topicID: UUID
    package var partition: Int32
    package var fetchOffset: Offset
    package var maxBytes: Int32
    package var currentLeaderEpoch: LeaderEpoch
    package var lastFetchedEpoch: LeaderEpoch
    package var logStartOffset: Offset
    // what the session's last answer said; -1 before the first
    package var toldHighWatermark: Offset = -1
    package var toldLogStart: Offset = -1
    /// The watch that the session keeps on it, from its first wait on.
    var watched: WatchedPartition?

    package init(
        topicName: String, topicID: UUID, partition: Int32, fetchOffset: Offset, maxBytes: Int32,
        currentLeaderEpoch: LeaderEpoch, lastFetchedEpoch: LeaderEpoch, logStartOffset: Offset
    ) {
        self.topicName = topicName
        self.topicID = topicID
        self.partition = partition
        self.fetchOffset = fetchOffset
        self.maxBytes = maxBytes
        self.currentLeaderEpoch = currentLeaderEpoch
        self.lastFetchedEpoch = lastFetchedEpoch
        self.logStartOffset = logStartOffset
    }

    /// What tells one partition of a session from another: topics go by name or by id in all of it.
    struct Key: Hashable {
        var name: String
        var id: UUID
        var partition: Int32
    }

    var key: Key { Key(name: topicID == .zero ? topicName : "", id: topicID, partition: partition) }
}

/// An incremental fetch session (KIP-227): the broker remembers what the client reads, the client sends changes only,
/// and the broker answers with the partitions that have news.
///
/// One request at a time uses it, on any loop; the cache's lock hands it over.
package final class FetchSession: @unchecked Sendable {
    package let id: Int32
    package let usesTopicIDs: Bool
    /// Told of news for as long as the session lives.
    let watch = FetchWatch()
    /// The epoch that the next request must carry: 1 up to the largest number, then 1 again.
    package fileprivate(set) var nextEpoch: Int32 = 1
    /// In the order in which they are served: who got records goes to the back.
    package var targets: [FetchTarget]
    /// Set while a request uses it, by the cache.
    fileprivate(set) var isInUse = true
    /// It is in the cache no more, and ends when it is in use no more.
    fileprivate var isOver = false
    fileprivate var lastUsed: Instant
    /// What it holds of the cache's memory. Guarded by the cache's lock.
    fileprivate var charged: Int

    fileprivate init(id: Int32, usesTopicIDs: Bool, targets: [FetchTarget], charged: Int, now: Instant) {
        self.charged = charged
        self.id = id
        self.usesTopicIDs = usesTopicIDs
        self.targets = targets
        lastUsed = now
    }

    /// Adds, moves and drops partitions as an incremental request says.
    package func update(_ changes: [FetchTarget], forgotten: [FetchTarget]) {
        if !changes.isEmpty {
            var places: [FetchTarget.Key: Int] = [:]
            places.reserveCapacity(targets.count)
            for (index, target) in targets.enumerated() { places[target.key] = index }
            for change in changes { update(change, &places) }
        }
        guard !forgotten.isEmpty else { return }
        let gone = Set(forgotten.map(\.key))
        targets.removeAll { target in
            guard gone.contains(target.key) else { return false }
            target.watched?.end()
            return true
        }
    }

    private func update(_ change: FetchTarget, _ places: inout [FetchTarget.Key: Int]) {
        guard let index = places[change.key] else {
            places[change.key] = targets.count
            targets.append(change)
            return
        }
        let before = targets[index]
        targets[index] = change
        targets[index].toldHighWatermark = before.toldHighWatermark
        targets[index].toldLogStart = before.toldLogStart
        targets[index].watched = before.watched
    }

    /// Moves the partitions that got records behind the others, so that a limit on bytes starves none.
    package func rotate(_ served: Set<Int>) {
        guard !served.isEmpty, served.count < targets.count else { return }
        targets = targets.enumerated().filter { !served.contains($0.offset) }.map(\.element)
            + targets.enumerated().filter { served.contains($0.offset) }.map(\.element)
    }

    /// Watches nothing any more, until it waits again. Not while a request uses it.
    fileprivate func endWatches() {
        for index in targets.indices {
            targets[index].watched?.end()
            targets[index].watched = nil
        }
    }
}

/// The sessions of a broker: at most `max.incremental.fetch.session.cache.slots`, and what there is memory for, the longest
/// unused giving way to new ones.
package final class FetchSessionCache: @unchecked Sendable {
    /// A session used more recently than this does not give way; one that was not watches nothing.
    package static let evictionAge = Interval.seconds(120)
    package let slots: Int
    private let memory: FetchMemory
    private let lock = Lock()
    // guarded by the lock:
    private var sessions: [Int32: FetchSession] = [:]
    private var random: SeededRandom

    package init(slots: Int, memory: FetchMemory, seed: UInt64) {
        self.slots = slots
        self.memory = memory
        random = SeededRandom(seed: seed)
    }

    package var count: Int { lock.withLock { sessions.count } }

    /// A new session, in use; nil where there is no room for one.
    package func create(_ targets: [FetchTarget], usesTopicIDs: Bool, now: Instant) -> FetchSession? {
        lock.withLock {
            let bytes = targets.count * FetchMemory.sessionBytes
            while sessions.count >= slots || !memory.changeSession(by: bytes) {
                // the lowest id breaks ties, so that the choice does not depend on the dictionary's order
                let oldest = sessions.values.filter { !$0.isInUse }.min { ($0.lastUsed, $0.id) < ($1.lastUsed, $1.id) }
                guard let oldest, now - oldest.lastUsed > Self.evictionAge else { return nil }
                end(oldest)
            }
            var id: Int32
            repeat { id = Int32.random(in: 1...Int32.max, using: &random) } while sessions[id] != nil
            let session = FetchSession(id: id, usesTopicIDs: usesTopicIDs, targets: targets, charged: bytes, now: now)
            sessions[id] = session
            return session
        }
    }

    package enum Found {
        case session(FetchSession)
        case refused(ErrorCode)
    }

    /// The session of an incremental request, in use from now on.
    package func use(_ id: Int32, epoch: Int32, usesTopicIDs: Bool, now: Instant) -> Found {
        lock.withLock {
            guard let session = sessions[id] else { return .refused(.fetchSessionIDNotFound) }
            guard session.usesTopicIDs == usesTopicIDs else { return .refused(.fetchSessionTopicIDError) }
            guard session.nextEpoch == epoch, !session.isInUse else { return .refused(.invalidFetchSessionEpoch) }
            session.nextEpoch = epoch == .max ? 1 : epoch + 1
            session.isInUse = true
            session.lastUsed = now
            return .session(session)
        }
    }

    /// A session in use names other partitions now. Where there is no room for them it ends, and false is returned.
    package func resize(_ session: FetchSession) -> Bool {
        lock.withLock {
            // one that is over holds nothing any more, and goes with its request
            guard !session.isOver else { return true }
            let bytes = session.targets.count * FetchMemory.sessionBytes
            guard memory.changeSession(by: bytes - session.charged) else {
                end(session)
                return false
            }
            session.charged = bytes
            return true
        }
    }

    package func release(_ session: FetchSession) {
        lock.withLock {
            session.isInUse = false
            if session.isOver { session.endWatches() }
        }
    }

    package func remove(_ id: Int32) { lock.withLock { if let session = sessions[id] { end(session) } } }

    private func end(_ session: FetchSession) {
        sessions[session.id] = nil
        session.isOver = true
        _ = memory.changeSession(by: -session.charged)
        session.charged = 0
        if !session.isInUse { session.endWatches() }
    }

    /// Ends the watches of sessions whose clients are likely gone. Called now and then.
    package func endOldWatches(now: Instant) {
        lock.withLock {
            let old = sessions.values.filter { !$0.isInUse && now - $0.lastUsed > Self.evictionAge }.sorted { $0.id < $1.id }
            for session in old { session.endWatches() }
        }
    }
}
