import MartletBasics

/// The bound on what fetches and fetch sessions hold of the partitions that they name. A partition takes 16 bytes of a
/// request and hundreds here, and a session, or a fetch that waits, keeps them when its request is long over.
///
/// Sessions have at most a quarter of it, clients' fetches leave another to those of followers. Who finds no room is not
/// refused: it gets no session, which costs it larger requests, or an empty answer and a pause (`pause`).
package final class FetchMemory: @unchecked Sendable {
    /// Of a partition in a session: itself, and its watch.
    package static let sessionBytes = 192
    /// Of a partition in a fetch: the same, and, where a look is done in steps, what is found, of many at a time.
    package static let waitingBytes = 256
    package static let lookBytes = 640
    /// A fetch of so many is among the kilobytes that each connection has.
    package static let freeCount = 8
    /// How long a client waits that finds no room.
    static let pause = Interval.milliseconds(200)

    package let limit: Int
    private let lock = Lock()
    // guarded by the lock:
    private var fetchBytes = 0
    private var sessionsBytes = 0

    package init(limit: Int) {
        precondition(limit > 0, "a memory bound is a size")
        self.limit = limit
    }

    package var sessionsLimit: Int { limit / 4 }
    private var clientsLimit: Int { limit / 4 * 3 }

    /// The most partitions that one fetch may name: more could find no room beside the sessions there may be.
    package var partitionsLimit: Int { (clientsLimit - sessionsLimit) / Self.lookBytes }

    static func bytes(ofFetch count: Int) -> Int {
        count <= freeCount ? 0 : count * (count > FetchUnderway.stepLimit ? lookBytes : waitingBytes)
    }

    /// True if there is room for it, which it has from now on.
    package func takeFetch(_ bytes: Int, isFollower: Bool) -> Bool {
        guard bytes > 0 else { return true }
        return lock.withLock {
            guard bytes <= (isFollower ? limit : clientsLimit) - fetchBytes - sessionsBytes else { return false }
            fetchBytes += bytes
            return true
        }
    }

    package func releaseFetch(_ bytes: Int) {
        guard bytes > 0 else { return }
        lock.withLock {
            fetchBytes -= bytes
            precondition(fetchBytes >= 0, "what is released was taken")
        }
    }

    /// A session comes, grows, shrinks or goes. What makes it smaller has room always.
    func changeSession(by bytes: Int) -> Bool {
        lock.withLock {
            if bytes > 0 {
                let room = min(sessionsLimit - sessionsBytes, clientsLimit - fetchBytes - sessionsBytes)
                guard bytes <= room else { return false }
            }
            sessionsBytes += bytes
            precondition(sessionsBytes >= 0, "what is released was taken")
            return true
        }
    }

    package var inUse: Int { lock.withLock { fetchBytes + sessionsBytes } }
}
