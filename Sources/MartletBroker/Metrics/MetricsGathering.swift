import MartletBasics
package import MartletCluster
package import MartletKeeper
package import MartletModel
package import MartletReactor

/// Collects what a broker tells of itself.
///
///     first loop ──> each loop: a copy of its counts ──> first loop: keeper, lanes
///                ──> lane: partitions, groups, text ──> first loop
///
/// A loop gives a copy of plain numbers, and is done in microseconds, however many partitions there are; those, and
/// groups, are asked on the lane, one lock at a time, and there the page is written. One page is made at a time: who asks
/// meanwhile gets the next one, so that what happened before the question is in the answer.
///
/// Confined to the first loop.
package final class MetricsGathering: @unchecked Sendable {
    private static let laneLimit = 4

    private let host: any Host
    private let loop: any EventLoop
    private let lane: any Lane
    private let page: MetricsPage
    private var waiting: [@Sendable ([UInt8]?) -> Void] = []
    private var isRunning = false
    private var isStopped = false
    private var scrapes: UInt64 = 0
    private var lastTaken = Interval.zero

    // What is there to be asked, as the start comes to it.
    package weak var broker: Broker?
    package weak var replicas: ReplicaHost?
    package weak var keeper: EmbeddedKeeper?
    package var isReady = false

    package init(host: any Host, config: BrokerConfig) {
        self.host = host
        loop = host.loops[0]
        lane = host.makeLane("metrics", threads: 1, limit: Self.laneLimit)
        page = MetricsPage(host: host, labelLimit: Int(config.metricsLabelLimit))
    }

    /// Calls `done` on the first loop with a page; nil where there will be none.
    package func page(_ done: @escaping @Sendable ([UInt8]?) -> Void) {
        precondition(loop.isCurrent, "metrics are gathered from the first loop")
        guard !isStopped else { return done(nil) }
        waiting.append(done)
        if !isRunning { begin() }
    }

    /// Nothing is asked any more; who waits is told.
    package func stop() {
        isStopped = true
        let left = waiting
        waiting = []
        for done in left { done(nil) }
    }

    private func begin() {
        isRunning = true
        scrapes += 1
        let takers = waiting
        waiting = []
        let began = loop.clock.now
        var figures = BrokerFigures(scrapes: scrapes, lastTaken: lastTaken)
        figures.turns.reserveCapacity(host.loops.count)
        visit(0, figures) { [self] figures in
            write(atHome(figures)) { bytes in
                self.lastTaken = self.loop.clock.now - began
                for taker in takers { taker(bytes) }
                self.isRunning = false
                if !self.waiting.isEmpty, !self.isStopped { self.begin() }
            }
        }
    }

    /// Goes to each loop in turn; `done` is called on the first.
    private func visit(_ index: Int, _ figures: BrokerFigures, _ done: @escaping @Sendable (BrokerFigures) -> Void) {
        guard index < host.loops.count else { return loop.execute { done(figures) } }
        host.loops[index].execute { [self] in
            var figures = figures
            figures.turns.append(host.loops[index].turnStatistics)
            if let counts = broker?.requestCounts(ofLoop: index) { figures.requests.add(counts) }
            visit(index + 1, figures, done)
        }
    }

    private func atHome(_ gathered: BrokerFigures) -> BrokerFigures {
        var figures = gathered
        figures.isReady = isReady
        figures.keeper = keeper?.statistics
        figures.lanes = host.lanes.map { ($0.name, $0.status) }
        if let broker {
            figures.connections = broker.connections.statistics
            figures.requestMemory = (broker.requestMemory.inUse, broker.requestMemory.limit, broker.requestMemory.waitingCount)
            figures.quotaMeters = broker.quotaMeters.count
            figures.fetchSessions = (broker.fetchSessions.count, broker.fetchSessions.slots)
        }
        figures.replicas = replicas
        figures.groups = broker?.groups
        figures.transactions = broker?.transactions
        return figures
    }

    private func write(_ figures: BrokerFigures, _ done: @escaping @Sendable ([UInt8]?) -> Void) {
        let page = page
        if !lane.submit({ page.write(figures) }, on: loop, then: done) { loop.execute { done(nil) } }
    }
}

/// What was collected on the loops for one page.
struct BrokerFigures: @unchecked Sendable {
    var scrapes: UInt64
    var lastTaken: Interval
    var isReady = false
    var requests = RequestCounts()
    var turns: [TurnStatistics] = []
    var lanes: [(name: String, status: LaneStatus)] = []
    var connections = Connections.Statistics()
    var requestMemory = (used: 0, limit: 0, waiting: 0)
    var fetchSessions = (count: 0, limit: 0)
    var quotaMeters = 0
    var keeper: KeeperStatistics?
    /// Asked on the lane: its table of topics, its directories and their syncers may be from any thread.
    var replicas: ReplicaHost?
    var groups: (any GroupFiguresSource)?
    var transactions: TransactionCoordinator?

    init(scrapes: UInt64, lastTaken: Interval) {
        self.scrapes = scrapes
        self.lastTaken = lastTaken
    }
}
