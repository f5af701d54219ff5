package import MartletBasics

/// What a keeper says of itself: for metrics.
package struct KeeperStatistics: Sendable, Equatable {
    /// The last transaction that was applied.
    package var zxid: Zxid
    package var nodes = 0
    package var treeBytes = 0
    package var sessions = 0
    package var watches = 0
    /// Proposed and not durable yet.
    package var waitingTransactions = 0
    /// How long groups of transactions took to be durable, since the start.
    package var writeLatency: Histogram

    init(zxid: Zxid, writeLatency: Histogram) {
        self.zxid = zxid
        self.writeLatency = writeLatency
    }
}
