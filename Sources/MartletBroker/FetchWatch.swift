import MartletBasics
package import MartletCluster
import MartletReactor

/// What watches the partitions of one fetch session for as long as it lives, or of one fetch without a session while it waits: notes which of
/// them have news, and wakes the fetch that waits, if one does, once.
package final class FetchWatch: FetchWatcher, @unchecked Sendable {
    /// More partitions than these with news at once, and all are looked at.
    private static let newsLimit = 64

    private let lock = Lock()
    // guarded by the lock:
    private var waiting: FetchUnderway?
    private var isTold = false
    private var news: ContiguousArray<Partition> = []
    private var isNewsEverywhere = false

    /// From now on this fetch is told of news. What came before, nobody was told of: it looks once more itself.
    func begin(_ fetch: FetchUnderway) {
        lock.withLock {
            waiting = fetch
            isTold = false
            isNewsEverywhere = false
            news.removeAll(keepingCapacity: true)
        }
    }

    func end() {
        lock.withLock {
            waiting = nil
            news.removeAll()
        }
    }

    package func hasNews(of partition: Partition) {
        let told: FetchUnderway? = lock.withLock {
            guard let waiting else { return nil }
            if news.count >= Self.newsLimit {
                isNewsEverywhere = true
            } else if !news.contains(where: { $0 === partition }) {
                news.append(partition)
            }
            guard !isTold else { return nil }
            isTold = true
            return waiting
        }
        guard let told else { return }
        if told.loop.isCurrent { told.hasNews() } else { told.loop.execute { told.hasNews() } }
    }

    /// The partitions with news since the last call; nil for all of them.
    func takeNews() -> ContiguousArray<Partition>? {
        lock.withLock {
            defer {
                news.removeAll(keepingCapacity: true)
                isNewsEverywhere = false
                isTold = false
            }
            return isNewsEverywhere ? nil : news
        }
    }
}

/// A partition that is watched for a fetch target.
struct WatchedPartition {
    private let partition: Partition
    private let token: FetchWatchToken

    init(_ partition: Partition, by watch: FetchWatch) {
        self.partition = partition
        token = partition.watch(watch)
    }

    func isOf(_ other: Partition?) -> Bool { partition === other }
    func end() { partition.unwatch(token) }
}
