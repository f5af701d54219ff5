import MartletBasics
import MartletCluster
import MartletModel

/// What a client wants of one partition, and, in a session, what it was last told.
struct FetchTarget {
    var topicName: String
    var topicID: UUID
    var partition: Int32
    var fetchOffset: Offset
    var maxBytes: Int32
    var currentLeaderEpoch: LeaderEpoch
    var lastFetchedEpoch: LeaderEpoch
    var logStartOffset: Offset
    // what the session's last answer said; -1 before the first
    var toldHighWatermark: Offset = -1
    var toldLogStart: Offset = -1

    func isSamePartition(as other: FetchTarget) -> Bool {
        guard partition == other.partition else { return false }
        return topicID == .zero && other.topicID == .zero ? topicName == other.topicName : topicID == other.topicID
    }
}

/// An incremental fetch session (KIP-227): the broker remembers what the client reads, the client sends changes only, and the broker answers with
/// the partitions that have news.
///
/// One request at a time uses it, on any loop; the cache's lock hands it over.
final class FetchSession: @unchecked Sendable {
    let id: Int32
    let usesTopicIDs: Bool
    /// The epoch that the next request must carry: 1 up to the largest number, then 1 again.
    var nextEpoch: Int32 = 1
    /// In the order in which they are served: who got records goes to the back.
    var targets: [FetchTarget]
    /// Set while a request uses it, by the cache.
    fileprivate(set) var isInUse = true
    fileprivate var lastUsed: Instant
    fileprivate var createdAt: Instant

    fileprivate init(id: Int32, usesTopicIDs: Bool, targets: [FetchTarget], now: Instant) {
        self.id = id
        self.usesTopicIDs = usesTopicIDs
        self.targets = targets
        lastUsed = now
        createdAt = now
    }

    /// Adds, moves and drops partitions as an incremental request says.
    func update(_ changes: [FetchTarget], forgotten: [FetchTarget]) {
        for change in changes {
            if let index = targets.firstIndex(where: { $0.isSamePartition(as: change) }) {
                let (highWatermark, logStart) = (targets[index].toldHighWatermark, targets[index].toldLogStart)
                targets[index] = change
                targets[index].toldHighWatermark = highWatermark
                targets[index].toldLogStart = logStart
            } else {
                targets.append(change)
            }
        }
        for gone in forgotten { targets.removeAll { $0.isSamePartition(as: gone) } }
    }

    /// Moves the partitions that got records behind the others, so that a limit on bytes starves none.
    func rotate(_ served: Set<Int>) {
        guard !served.isEmpty, served.count < targets.count else { return }
        targets = targets.enumerated().filter { !served.contains($0.offset) }.map(\.element)
            + targets.enumerated().filter { served.contains($0.offset) }.map(\.element)
    }
}

/// The sessions of a broker: at most `max.incremental.fetch.session.cache.slots`, the longest unused giving way to new ones.
final class FetchSessionCache: @unchecked Sendable {
    /// A session used more recently than this does not give way.
    static let evictionAge = Interval.seconds(120)
    let slots: Int
    private let lock = Lock()
    // guarded by the lock:
    private var sessions: [Int32: FetchSession] = [:]
    private var random: SeededRandom

    init(slots: Int, seed: UInt64) {
        self.slots = slots
        random = SeededRandom(seed: seed)
    }

    var count: Int { lock.withLock { sessions.count } }

    /// A new session, in use; nil where there is no room for one.
    func create(_ targets: [FetchTarget], usesTopicIDs: Bool, now: Instant) -> FetchSession? {
        lock.withLock {
            if sessions.count >= slots {
                // the lowest id breaks ties, so that the choice does not depend on the dictionary's order
                let oldest = sessions.values.filter { !$0.isInUse }.min { ($0.lastUsed, $0.id) < ($1.lastUsed, $1.id) }
                guard let oldest, now - oldest.lastUsed > Self.evictionAge else { return nil }
                sessions[oldest.id] = nil
            }
            var id: Int32
            repeat { id = Int32.random(in: 1...Int32.max, using: &random) } while sessions[id] != nil
            let session = FetchSession(id: id, usesTopicIDs: usesTopicIDs, targets: targets, now: now)
            sessions[id] = session
            return session
        }
    }

    enum Found {
        case session(FetchSession)
        case refused(ErrorCode)
    }

    /// The session of an incremental request, in use from now on.
    func use(_ id: Int32, epoch: Int32, usesTopicIDs: Bool, now: Instant) -> Found {
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

    func release(_ session: FetchSession) { lock.withLock { session.isInUse = false } }

    func remove(_ id: Int32) { lock.withLock { sessions[id] = nil } }
}
