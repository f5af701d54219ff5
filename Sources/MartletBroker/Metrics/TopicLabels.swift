package import MartletBasics
package import MartletCluster
package import MartletModel

/// What metrics tell of one topic.
package struct TopicFigures: Sendable, Equatable {
    package var name: String
    package var traffic = PartitionTraffic()
    package var sizeBytes: Int64 = 0
    package var segments = 0
    package var partitions = 0

    package init(name: String) { self.name = name }

    fileprivate mutating func addSizes(_ other: TopicFigures) {
        sizeBytes += other.sizeBytes
        segments += other.segments
        partitions += other.partitions
    }
}

/// Which topics have samples of their own, so that there is a bound on what one broker tells Prometheus.
///
/// Up to the limit every topic has. Beyond it those that have the most traffic do, and the rest is summed under
/// `(other)`, which no topic can be called. A topic keeps its place until it is deleted, or another had more than twice its
/// traffic since the last ranking: places that changed hands at each scrape would give series of one sample each.
///
/// What rises keeps rising: a topic that comes out of the rest leaves there what was counted there, and begins at 0.
package struct TopicLabels: Sendable {
    package static let rest = "(other)"
    static let rankingInterval = Interval.seconds(60)

    /// What is told, and under which name; not listed is the rest.
    package typealias Row = (name: String, figures: TopicFigures, isListed: Bool)

    private struct Entry {
        /// As the topic's replicas told last.
        var last = PartitionTraffic()
        /// Under its own name.
        var told = PartitionTraffic()
        var isListed = false
        /// Bytes since the last ranking.
        var recent: UInt64 = 0
    }

    package let limit: Int
    private var entries: [UUID: Entry] = [:]
    private var restTraffic = PartitionTraffic()
    private var hasRest = false
    private var ranked: Instant?

    package init(limit: Int) {
        precondition(limit >= 0, "a limit is a count")
        self.limit = limit
    }

    /// Names under which the figures are told, in the order of the topics, the rest last.
    package mutating func assign(_ topics: [(id: UUID, figures: TopicFigures)], now: Instant) -> [Row] {
        var known: [UUID: Entry] = [:]
        var fresh: [PartitionTraffic] = []
        for topic in topics {
            var entry = entries[topic.id] ?? Entry()
            let news = topic.figures.traffic.since(entry.last)
            entry.last = topic.figures.traffic
            entry.recent &+= news.bytesIn &+ news.bytesOut
            fresh.append(news)
            known[topic.id] = entry
        }
        entries = known
        rank(topics.map { ($0.id, $0.figures.name) }, now)

        var rows: [Row] = []
        var others = TopicFigures(name: Self.rest)
        for (topic, news) in zip(topics, fresh) {
            if entries[topic.id]!.isListed {
                entries[topic.id]!.told.add(news)
                var figures = topic.figures
                figures.traffic = entries[topic.id]!.told
                rows.append((figures.name, figures, true))
            } else {
                restTraffic.add(news)
                others.addSizes(topic.figures)
                hasRest = true
            }
        }
        others.traffic = restTraffic
        if hasRest { rows.append((Self.rest, others, false)) }
        return rows
    }

    /// `topics` in an order of its own, which decides between equals.
    private mutating func rank(_ topics: [(id: UUID, name: String)], _ now: Instant) {
        var listed = topics.indices.filter { entries[topics[$0].id]!.isListed }
        guard listed.count < topics.count else { return resetRanking(topics.map(\.id), now) }
        let isDue = ranked.map { now - $0 >= Self.rankingInterval } ?? true
        guard listed.count < limit || isDue else { return }
        func recent(_ index: Int) -> UInt64 { entries[topics[index].id]!.recent }
        var waiting = topics.indices.filter { !entries[topics[$0].id]!.isListed }
        waiting.sort { (recent($1), $0) < (recent($0), $1) }
        var next = waiting[...]
        while listed.count < limit, let index = next.popFirst() {
            list(topics[index].id)
            listed.append(index)
        }
        guard isDue else { return }
        listed.sort { (recent($0), $1) < (recent($1), $0) }
        for index in listed {
            guard let challenger = next.first, recent(challenger) / 2 > recent(index) else { break }
            next.removeFirst()
            entries[topics[index].id]!.isListed = false
            list(topics[challenger].id)
        }
        resetRanking(topics.map(\.id), now)
    }

    private mutating func list(_ id: UUID) {
        entries[id]!.isListed = true
        entries[id]!.told = PartitionTraffic()
    }

    private mutating func resetRanking(_ topics: [UUID], _ now: Instant) {
        for id in topics { entries[id]!.recent = 0 }
        ranked = now
    }
}

extension PartitionTraffic {
    package mutating func add(_ other: PartitionTraffic) {
        recordsIn &+= other.recordsIn
        bytesIn &+= other.bytesIn
        recordsOut &+= other.recordsOut
        bytesOut &+= other.bytesOut
    }

    /// What came since; all of it where a replica was opened anew and counts from zero.
    fileprivate func since(_ last: PartitionTraffic) -> PartitionTraffic {
        guard recordsIn >= last.recordsIn, bytesIn >= last.bytesIn, recordsOut >= last.recordsOut, bytesOut >= last.bytesOut
        else { return self }
        return PartitionTraffic(
            recordsIn: recordsIn - last.recordsIn, bytesIn: bytesIn - last.bytesIn, recordsOut: recordsOut - last.recordsOut,
            bytesOut: bytesOut - last.bytesOut)
    }
}
