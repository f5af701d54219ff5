import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor

/// Writes pages of metrics, each from what was collected for it and what partitions and disks say now. It remembers
/// which topics have samples of their own, and the times of records that groups are behind at.
///
/// Confined to its lane, which has one thread.
final class MetricsPage: @unchecked Sendable {
    private let host: any Host
    private let labelLimit: Int
    private let startedMilliseconds: Int64
    private var topicLabels: TopicLabels
    private let lag = GroupLag()

    init(host: any Host, labelLimit: Int) {
        self.host = host
        self.labelLimit = labelLimit
        startedMilliseconds = host.clock.wallMilliseconds
        topicLabels = TopicLabels(limit: labelLimit)
    }

    func write(_ figures: BrokerFigures) -> [UInt8] {
        var text = MetricsText()
        writeProcess(figures, &text)
        writeRequests(figures.requests, &text)
        writeConnections(figures, &text)
        writeQuotas(figures, &text)
        writeLoops(figures, &text)
        if let replicas = figures.replicas {
            writePartitions(replicas, &text)
            writeDisks(replicas, &text)
            writeUpkeep(replicas.activity.counts, &text)
        }
        writeKeeper(figures, &text)
        if let transactions = figures.transactions { writeTransactions(transactions, &text) }
        if let groups = figures.groups { writeGroups(groups, figures.replicas?.topics.table, &text) }
        return text.bytes
    }

    private func writeProcess(_ figures: BrokerFigures, _ text: inout MetricsText) {
        let usage = host.processUsage()
        text.family(MetricCatalog.ready, figures.isReady ? 1 : 0)
        if let time = usage.processorTime { text.family(MetricCatalog.processorSeconds) { $0.seconds([], time) } }
        if let bytes = usage.residentBytes { text.family(MetricCatalog.residentBytes, bytes) }
        if let bytes = usage.virtualBytes { text.family(MetricCatalog.virtualBytes, bytes) }
        if let bytes = usage.anonymousBytes { text.family(MetricCatalog.anonymousBytes, bytes) }
        if let count = usage.openDescriptors { text.family(MetricCatalog.openDescriptors, count) }
        if let limit = usage.descriptorLimit { text.family(MetricCatalog.descriptorLimit, limit) }
        text.family(MetricCatalog.startTime) { $0.seconds([], .milliseconds(startedMilliseconds)) }
        text.family(MetricCatalog.scrapes, figures.scrapes)
        text.family(MetricCatalog.scrapeSeconds) { $0.seconds([], figures.lastTaken) }
    }

    private func writeRequests(_ counts: RequestCounts, _ text: inout MetricsText) {
        let apis = counts.byApi
        text.family(MetricCatalog.requests) { for api in apis { $0.sample([api.name], api.counts.requests) } }
        text.family(MetricCatalog.requestErrors) { samples in
            for api in apis {
                for (place, count) in api.counts.errors.enumerated() where count > 0 {
                    samples.sample([api.name, RequestCounts.errorName(place)], count)
                }
            }
        }
        text.family(MetricCatalog.requestSeconds) { for api in apis { $0.histogram([api.name], api.counts.latency) } }
        text.family(MetricCatalog.requestBytes) { for api in apis { $0.histogram([api.name], api.counts.requestBytes) } }
        text.family(MetricCatalog.responseBytes) { for api in apis { $0.histogram([api.name], api.counts.responseBytes) } }
    }

    private func writeConnections(_ figures: BrokerFigures, _ text: inout MetricsText) {
        text.family(MetricCatalog.connections, figures.connections.open)
        text.family(MetricCatalog.connectionsOpened, figures.connections.opened)
        text.family(MetricCatalog.connectionsClosed, figures.connections.closed)
        text.family(MetricCatalog.connectionsRefused, figures.connections.refused)
        text.family(MetricCatalog.requestMemory, figures.requestMemory.used)
        text.family(MetricCatalog.requestMemoryLimit, figures.requestMemory.limit)
        text.family(MetricCatalog.requestMemoryWaiting, figures.requestMemory.waiting)
        text.family(MetricCatalog.outboxes, max(figures.requests.outboxBytes, 0))
        text.family(MetricCatalog.fetchSessions, figures.fetchSessions.count)
        text.family(MetricCatalog.fetchSessionLimit, figures.fetchSessions.limit)
        text.family(MetricCatalog.openLogFiles, figures.replicas?.descriptors.openCount ?? 0)
    }

    private func writeQuotas(_ figures: BrokerFigures, _ text: inout MetricsText) {
        let kinds = figures.requests.throttlesByKind
        text.family(MetricCatalog.throttles) { for one in kinds { $0.sample([one.kind.rawValue], one.throttles.count) } }
        text.family(MetricCatalog.throttleSeconds) { for one in kinds { $0.seconds([one.kind.rawValue], one.throttles.span) } }
        text.family(MetricCatalog.quotaMeters, figures.quotaMeters)
    }

    private func writeLoops(_ figures: BrokerFigures, _ text: inout MetricsText) {
        let loops = figures.turns.enumerated().map { (label: ["\($0)"], turns: $1) }
        text.family(MetricCatalog.turnSeconds) { for loop in loops { $0.histogram(loop.label, loop.turns.turns) } }
        text.family(MetricCatalog.longestTurn) { for loop in loops { $0.seconds(loop.label, loop.turns.longest) } }
        // several lanes of one name are told as one
        var names: [String] = []
        var sums: [String: LaneStatus] = [:]
        for (name, status) in figures.lanes {
            if sums[name] == nil { names.append(name) }
            sums[name] = status.added(to: sums[name] ?? LaneStatus())
        }
        func write(_ family: MetricFamily, _ body: (inout MetricSamples, [String], LaneStatus) -> Void) {
            text.family(family) { samples in for name in names { body(&samples, [name], sums[name]!) } }
        }
        write(MetricCatalog.laneQueue) { $0.sample($1, $2.queued) }
        write(MetricCatalog.laneRunning) { $0.sample($1, $2.running) }
        write(MetricCatalog.laneCompleted) { $0.sample($1, $2.completed) }
        write(MetricCatalog.laneRefused) { $0.sample($1, $2.refused) }
        write(MetricCatalog.laneBusy) { $0.seconds($1, nanoseconds: $2.busyNanoseconds) }
        write(MetricCatalog.laneWait) { $0.seconds($1, nanoseconds: $2.waitedNanoseconds) }
    }

    // MARK: Topics and partitions

    private func writePartitions(_ replicas: ReplicaHost, _ text: inout MetricsText) {
        var topics: [(id: UUID, figures: TopicFigures)] = []
        var partitions: [[PartitionFigures]] = []
        for topic in replicas.topics.table.sorted {
            var sum = TopicFigures(name: topic.name)
            let figures = topic.partitions.map(\.figures)
            for one in figures {
                sum.traffic.add(one.traffic)
                sum.sizeBytes += one.sizeBytes
                sum.segments += one.segments
                sum.partitions += 1
            }
            topics.append((topic.id, sum))
            partitions.append(figures)
        }
        let rows = topicLabels.assign(topics, now: host.clock.now)
        writeTopics(rows.map { ($0.name, $0.figures) }, &text)
        let failed = replicas.topics.table.sorted.reduce(0) { $0 + $1.failedCount }
        writeRoles(partitions.joined(), failed: failed, &text)

        let listed = Set(rows.lazy.filter(\.isListed).map(\.name))
        let candidates = zip(topics, partitions).filter { listed.contains($0.0.figures.name) }.flatMap { $0.1 }
        let told = candidates.prefix(labelLimit)
        func write(_ family: MetricFamily, _ value: (PartitionFigures) -> Int64) {
            text.family(family) { samples in
                for one in told { samples.sample([one.id.topic, "\(one.id.partition)"], value(one)) }
            }
        }
        write(MetricCatalog.logStart) { $0.logStartOffset }
        write(MetricCatalog.logEnd) { $0.logEndOffset }
        write(MetricCatalog.highWatermark) { $0.highWatermark }
        write(MetricCatalog.partitionSize) { $0.sizeBytes }
        text.family(MetricCatalog.unlistedPartitions, partitions.reduce(0) { $0 + $1.count } - told.count)
        writeCompaction(partitions.joined().filter(\.isCompacted), told.filter(\.isCompacted), &text)
    }

    private func writeCompaction(_ all: [PartitionFigures], _ told: [PartitionFigures], _ text: inout MetricsText) {
        func write<V: BinaryInteger>(_ family: MetricFamily, _ value: (PartitionUpkeep) -> V?) {
            text.family(family) { samples in
                for one in told {
                    if let value = value(one.upkeep) { samples.sample([one.id.topic, "\(one.id.partition)"], value) }
                }
            }
        }
        text.family(MetricCatalog.uncleanablePartitions, all.count { $0.upkeep.fault != nil })
        let ratio = all.lazy.compactMap { $0.upkeep.cleanability?.dirtyRatio }.max() ?? 0
        text.family(MetricCatalog.maxDirtyRatio) { $0.fraction([], ratio) }
        write(MetricCatalog.compactedUpTo) { $0.cleanability?.firstDirty }
        write(MetricCatalog.cleanBytes) { $0.cleanability?.cleanBytes }
        write(MetricCatalog.dirtyBytes) { $0.cleanability?.cleanableBytes }
        write(MetricCatalog.partitionCompactions) { $0.cleanings }
        write(MetricCatalog.partitionSavedBytes) { max($0.savedBytes, 0) }
        write(MetricCatalog.lastCompaction) { $0.lastCleaned > 0 ? $0.lastCleaned / 1000 : nil }
        write(MetricCatalog.uncleanable) { $0.fault == nil ? 0 : 1 }
    }

    private func writeTopics(_ rows: [(name: String, figures: TopicFigures)], _ text: inout MetricsText) {
        func write<V: BinaryInteger>(_ family: MetricFamily, _ value: (TopicFigures) -> V) {
            text.family(family) { samples in for row in rows { samples.sample([row.name], value(row.figures)) } }
        }
        write(MetricCatalog.topicReceivedRecords) { $0.traffic.recordsIn }
        write(MetricCatalog.topicReceivedBytes) { $0.traffic.bytesIn }
        write(MetricCatalog.topicSentRecords) { $0.traffic.recordsOut }
        write(MetricCatalog.topicSentBytes) { $0.traffic.bytesOut }
        write(MetricCatalog.topicSize) { $0.sizeBytes }
        write(MetricCatalog.topicSegments) { $0.segments }
        write(MetricCatalog.topicPartitions) { $0.partitions }
    }

    /// `failed`: replicas that could not be opened, and have no figures.
    private func writeRoles(_ all: some Sequence<PartitionFigures>, failed: Int, _ text: inout MetricsText) {
        var (leaders, followers, offline, under, waiting) = (0, 0, failed, 0, 0)
        for one in all {
            if one.isOffline { offline += 1 } else if one.isLeader { leaders += 1 } else { followers += 1 }
            if one.isLeader, one.inSyncReplicas < one.replicas { under += 1 }
            waiting += one.waitingAppends
        }
        text.family(MetricCatalog.partitions) { samples in
            samples.sample(["leader"], leaders)
            samples.sample(["follower"], followers)
            samples.sample(["offline"], offline)
        }
        text.family(MetricCatalog.underReplicated, under)
        text.family(MetricCatalog.waitingAppends, waiting)
    }

    // MARK: Disks

    private func writeDisks(_ replicas: ReplicaHost, _ text: inout MetricsText) {
        let units = replicas.units.map { unit in
            (
                path: unit.path, syncs: unit.syncer.statistics, isOffline: unit.directory.isOffline,
                space: try? host.disk.space(unit.path)
            )
        }
        text.family(MetricCatalog.syncSeconds) { for unit in units { $0.histogram([unit.path], unit.syncs.latency) } }
        text.family(MetricCatalog.syncRecords) { for unit in units { $0.histogram([unit.path], unit.syncs.records) } }
        text.family(MetricCatalog.syncedBytes) { for unit in units { $0.sample([unit.path], unit.syncs.bytes) } }
        text.family(MetricCatalog.syncedFiles) { for unit in units { $0.sample([unit.path], unit.syncs.files) } }
        text.family(MetricCatalog.fileSystemSyncs) { for unit in units { $0.sample([unit.path], unit.syncs.fileSystemSyncs) } }
        text.family(MetricCatalog.syncFailures) { for unit in units { $0.sample([unit.path], unit.syncs.failures) } }
        text.family(MetricCatalog.directoryOffline) { samples in
            for unit in units { samples.sample([unit.path], unit.isOffline ? 1 : 0) }
            // one that could not even be opened
            for path in replicas.missingDirectories where !units.contains(where: { $0.path == path }) {
                samples.sample([path], 1)
            }
        }
        text.family(MetricCatalog.diskTotal) {
            for unit in units { if let space = unit.space { $0.sample([unit.path], space.totalBytes) } }
        }
        text.family(MetricCatalog.diskAvailable) {
            for unit in units { if let space = unit.space { $0.sample([unit.path], space.availableBytes) } }
        }
    }

    private func writeUpkeep(_ counts: LogActivity.Counts, _ text: inout MetricsText) {
        text.family(MetricCatalog.rolledSegments, counts.rolledSegments)
        text.family(MetricCatalog.removedSegments) { samples in
            samples.sample(["time"], counts.removedByTime)
            samples.sample(["size"], counts.removedBySize)
            samples.sample(["start"], counts.removedByLogStart)
        }
        text.family(MetricCatalog.removedBytes, counts.removedBytes)
        text.family(MetricCatalog.recoveredLogs, counts.recoveredLogs)
        text.family(MetricCatalog.recoveredBytes, counts.recoveredBytes)
        text.family(MetricCatalog.putAsideBytes, counts.putAsideBytes)
        text.family(MetricCatalog.compactions, counts.cleanings)
        text.family(MetricCatalog.compactionReadBytes, counts.cleanerReadBytes)
        text.family(MetricCatalog.compactionWrittenBytes, counts.cleanerWrittenBytes)
        text.family(MetricCatalog.compactionSavedBytes, counts.cleanerSavedBytes)
        text.family(MetricCatalog.compactionDroppedRecords, counts.cleanerDroppedRecords)
    }

    // MARK: Keeper and groups

    private func writeKeeper(_ figures: BrokerFigures, _ text: inout MetricsText) {
        guard let keeper = figures.keeper else { return }
        text.family(MetricCatalog.keeperZxid, keeper.zxid.rawValue)
        text.family(MetricCatalog.keeperWriteSeconds) { $0.histogram([], keeper.writeLatency) }
        text.family(MetricCatalog.keeperWaiting, keeper.waitingTransactions)
        text.family(MetricCatalog.keeperSessions, keeper.sessions)
        text.family(MetricCatalog.keeperWatches, keeper.watches)
        text.family(MetricCatalog.keeperNodes, keeper.nodes)
        text.family(MetricCatalog.keeperBytes, keeper.treeBytes)
    }

    private func writeTransactions(_ coordinator: TransactionCoordinator, _ text: inout MetricsText) {
        let figures = coordinator.figures
        text.family(MetricCatalog.transactionMemory, coordinator.shared.bytesInUse)
        text.family(MetricCatalog.transactions) { samples in
            for state in TransactionState.allCases { samples.sample([state.name], figures.states[Int(state.rawValue)]) }
        }
        text.family(MetricCatalog.endedTransactions) { samples in
            samples.sample(["commit"], figures.counts.committed)
            samples.sample(["abort"], figures.counts.aborted)
        }
        text.family(MetricCatalog.timedOutTransactions, figures.counts.timedOut)
    }

    private func writeGroups(_ source: any GroupFiguresSource, _ topics: LocalTopicTable?, _ text: inout MetricsText) {
        let groups = source.figures
        text.family(MetricCatalog.groupMemory, source.bytesInUse)
        var states: [String: Int] = [:]
        for group in groups { states[group.state, default: 0] += 1 }
        text.family(MetricCatalog.groups) { for state in states.keys.sorted() { $0.sample([state], states[state]!) } }
        let largest = groups.sorted { ($1.members, $0.id) < ($0.members, $1.id) }.prefix(labelLimit).sorted { $0.id < $1.id }
        text.family(MetricCatalog.groupMembers) { for group in largest { $0.sample([group.id], group.members) } }
        guard let topics else { return }
        let (rows, unlisted) = lag.rows(groups, topics, limit: labelLimit, wallMilliseconds: host.clock.wallMilliseconds)
        func labels(_ row: GroupLagRow) -> [String] { [row.group, row.partition.topic, "\(row.partition.partition)"] }
        text.family(MetricCatalog.groupOffset) { for row in rows { $0.sample(labels(row), row.committed) } }
        text.family(MetricCatalog.groupLagRecords) { for row in rows { $0.sample(labels(row), row.records) } }
        text.family(MetricCatalog.groupLagSeconds) { for row in rows { if let age = row.age { $0.seconds(labels(row), age) } } }
        text.family(MetricCatalog.unlistedGroupPartitions, unlisted)
    }
}

extension LaneStatus {
    fileprivate func added(to other: LaneStatus) -> LaneStatus {
        var sum = other
        sum.queued += queued
        sum.running += running
        sum.completed += completed
        sum.waitedNanoseconds += waitedNanoseconds
        sum.busyNanoseconds += busyNanoseconds
        sum.refused += refused
        return sum
    }
}
