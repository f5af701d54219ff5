import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletWire

/// A fetch from its request to its answer: looks at the partitions, waits for enough, warms what is cold.
///
/// Confined to its connection's loop.
final class FetchUnderway: @unchecked Sendable {
    let loop: any EventLoop
    private let connection: Connection
    private let header: FrameHeader
    private let limits: FetchLimits
    private let usesTopicIDs: Bool
    /// Nil for a fetch without a session.
    private let session: FetchSession?
    /// The first answer of a session names every partition.
    private let isFull: Bool
    private var targets: [FetchTarget]
    private var hosted: [Partition?]
    /// Targets whose replica here could not be opened.
    private var failed: Set<Int> = []
    /// What `hosted` was found in.
    private var tableGeneration: UInt64 = 0
    private let watch: FetchWatch
    /// The watches of a fetch without a session; a session keeps its own.
    private var ownWatches: [WatchedPartition] = []
    /// How many bytes of records the last look found, by target and in all.
    private var foundBytes: [Int] = []
    private var foundBytesSum = 0

    /// Before a fetch asks again for a lane that was full.
    private static let fullLaneDelay = Interval.milliseconds(5)

    private var responder: Responder?
    private var timer: TimerToken?
    private var isLookScheduled = false
    private var isWarming = false
    private var warmedOnce = false
    private var isTimeUp = false
    /// A replica is waited for that is being exchanged for its copy in another log directory.
    private var awaitsExchange = false

    init(
        _ request: Request, limits: FetchLimits, usesTopicIDs: Bool, session: FetchSession?, isFull: Bool, targets: [FetchTarget]
    ) {
        loop = request.connection.loop
        connection = request.connection
        header = request.header
        self.limits = limits
        self.usesTopicIDs = usesTopicIDs
        self.session = session
        watch = session?.watch ?? FetchWatch()
        self.isFull = isFull
        self.targets = targets
        hosted = []
        resolve()
    }

    /// Finds the partitions that are served here, and the names of topics asked for by id.
    private func resolve() {
        let table = connection.broker.topics.table
        tableGeneration = table.generation
        var lastName: String?, lastID: UUID?
        var topic: LocalTopic?
        failed = []
        hosted = targets.indices.map { index in
            if usesTopicIDs {
                if lastID != targets[index].topicID { topic = table.topic(targets[index].topicID) }
                lastID = targets[index].topicID
                targets[index].topicName = topic?.name ?? ""
            } else {
                if lastName != targets[index].topicName { topic = table.topic(targets[index].topicName) }
                lastName = targets[index].topicName
            }
            let partition = topic?.partition(targets[index].partition)
            if partition == nil, topic?.hasFailed(targets[index].partition) == true { failed.insert(index) }
            return partition
        }
    }

    /// Answers now if it can, else waits.
    func begin(_ request: Request) throws {
        let round = look()
        if round.partitions.contains(where: { $0.found.isUnsettled }) {
            let settling = Settling(loop)
            if settling.begin(round.partitions.compactMap { $0.found.isUnsettled ? hosted[$0.target] : nil }) {
                responder = request.later()
                connection.onAbandon = { [self] in abandon() }
                return settling.whenDone { [self] in goOn() }
            }
        }
        if let settling = exchange(round) {
            responder = request.later()
            connection.onAbandon = { [self] in abandon() }
            return goOn(after: settling)
        }
        let isDone = round.isEnough(limits) || limits.maxWait <= .zero || targets.isEmpty
        if isDone, isHot(round) { return try conclude(round) }
        responder = request.later()
        connection.onAbandon = { [self] in abandon() }
        if isDone { return warm(round) }
        wait()
    }

    /// What was acknowledged is there to be read now.
    private func goOn() {
        guard responder != nil else { return }
        let round = look()
        if round.isEnough(limits) || limits.maxWait <= .zero { answer(round) } else { wait() }
    }

    // MARK: a replica that moves

    /// What is to be waited for where a replica cannot be read only because it is exchanged for its copy just now.
    private func exchange(_ round: FetchRound) -> Settling? {
        guard round.hasError, connection.broker.topics.areExchanging else { return nil }
        let settling = Settling(loop)
        let closed = round.partitions.compactMap { $0.found.error == .notLeaderOrFollower ? hosted[$0.target] : nil }
        return settling.begin(exchangesOf: closed, toAppend: false) ? settling : nil
    }

    private func goOn(after settling: Settling) {
        awaitsExchange = true
        settling.whenDone { [self] in
            awaitsExchange = false
            guard responder != nil else { return }
            let round = look()
            if isTimeUp || round.isEnough(limits) || limits.maxWait <= .zero { return answer(round) }
            guard timer != nil else { return wait() }
            // the one that was watched is gone
            for watched in ownWatches { watched.end() }
            ownWatches = []
            watchPartitions()
            scheduleLook(atAll: true)
        }
    }

    // MARK: waiting

    private func wait() {
        timer = loop.schedule(after: limits.maxWait) { [self] in
            timer = nil
            isTimeUp = true
            answer()
        }
        watch.begin(self)
        watchPartitions()
        // what arrived between the look and the watch has told nobody
        scheduleLook(atAll: true)
    }

    /// A session watches from its first wait on, and keeps its watches; those of a partition that was made anew go over
    /// to the new one.
    private func watchPartitions() {
        guard let session else {
            ownWatches = hosted.compactMap { $0.map { WatchedPartition($0, by: watch) } }
            return
        }
        for index in targets.indices where targets[index].watched?.isOf(hosted[index]) != true {
            targets[index].watched?.end()
            targets[index].watched = hosted[index].map { WatchedPartition($0, by: watch) }
        }
        session.targets = targets
    }

    private func look() -> FetchRound {
        // a topic may have been deleted, or made anew
        if connection.broker.topics.table.generation != tableGeneration { resolve() }
        let round = FetchRound.look(targets, partitions: hosted, failed: failed, limits, usesTopicIDs: usesTopicIDs)
        foundBytes = [Int](repeating: 0, count: targets.count)
        for partition in round.partitions { foundBytes[partition.target] = partition.recordBytes }
        foundBytesSum = round.bytes
        return round
    }

    /// Called by the watch, once until its news are taken.
    func hasNews() { scheduleLook(atAll: false) }

    private func scheduleLook(atAll: Bool) {
        guard !isLookScheduled, responder != nil, !isWarming, !awaitsExchange else { return }
        isLookScheduled = true
        loop.atEndOfTurn { [self] in
            isLookScheduled = false
            guard responder != nil, !isWarming, !awaitsExchange else { return }
            let news = watch.takeNews()
            guard atAll || isWorthALook(news) else { return }
            let round = look()
            if round.isEnough(limits) { answer(round) }
        }
    }

    /// Whether the partitions with news make what is there enough: among many that are waited for, the others need not
    /// be asked.
    private func isWorthALook(_ news: ContiguousArray<Partition>?) -> Bool {
        guard let news, connection.broker.topics.table.generation == tableGeneration else { return true }
        for partition in news {
            guard let index = hosted.firstIndex(where: { $0 === partition }) else { continue }
            let found = partition.fetch(FetchRound.question(targets[index], limits, left: limits.maxBytes, firstBatchWhole: true))
            guard found.error == .none, found.divergingEpoch == nil else { return true }
            let bytes = found.slice?.count ?? 0
            foundBytesSum += bytes - foundBytes[index]
            foundBytes[index] = bytes
        }
        return foundBytesSum >= limits.minBytes
    }

    private func answer() {
        guard responder != nil, !isWarming, !awaitsExchange else { return }
        answer(look())
    }

    private func answer(_ round: FetchRound) {
        if let settling = exchange(round) { return goOn(after: settling) }
        guard isHot(round) else { return warm(round) }
        guard let responder else { return }
        release()
        self.responder = nil
        responder.finish { try conclude(round) }
    }

    private func release() {
        if let timer { loop.cancel(timer) }
        timer = nil
        watch.end()
        for watched in ownWatches { watched.end() }
        ownWatches = []
    }

    /// The peer has gone: nobody takes the answer.
    private func abandon() {
        release()
        responder = nil
        if let session { connection.broker.fetchSessions.release(session) }
    }

    // MARK: cold data

    /// Whether the records were found sound in the life of this process, and lie in the page cache, so that sending them
    /// does not hold up the loop. The latter is asked once a fetch: what was read ahead and is gone again by then would
    /// be gone the next time too.
    private func isHot(_ round: FetchRound) -> Bool {
        round.partitions.allSatisfy { partition in
            guard let slice = partition.found.slice else { return true }
            return !slice.needsCheck && (warmedOnce || slice.isCached)
        }
    }

    /// Reads what is to be sent on the lane for cold reads, so that it lies in the page cache afterwards, and checks what
    /// nobody has checked yet.
    private func warm(_ round: FetchRound) {
        isWarming = true
        warmedOnce = true
        let slices = round.partitions.compactMap { partition -> (partition: Partition?, slice: LogSlice)? in
            guard let slice = partition.found.slice, slice.needsCheck || !slice.isCached else { return nil }
            return (hosted[partition.target], slice)
        }
        let queued = connection.broker.coldReads.submit(
            {
                for (partition, slice) in slices {
                    if let verdict = slice.check() { partition?.noteChecked(verdict) } else { slice.readAhead() }
                }
            }, on: loop,
            then: { [self] in
                isWarming = false
                answer()
            })
        guard !queued else { return }
        // a lane that is full has work for longer than that
        loop.schedule(after: Self.fullLaneDelay) { [self] in
            isWarming = false
            answer()
        }
    }

    // MARK: the answer

    private func conclude(_ round: FetchRound) throws {
        let throttle = limits.follower == nil && connection.limits != nil ? connection.throttleFetch(bytes: round.bytes) : 0
        guard throttle == 0 else { return try comeAgain(throttle) }
        finishSession(round)
        try encode(round)
    }

    /// The client has had its share, and gets nothing now. Its session is as before, or, where this was to be the first
    /// answer of one, is none.
    private func comeAgain(_ throttleTimeMs: Int32) throws {
        var told: Int32 = 0
        if let session {
            connection.broker.fetchSessions.release(session)
            if isFull { connection.broker.fetchSessions.remove(session.id) } else { told = session.id }
        }
        let encoder = FetchAnswerEncoder(
            header: header, version: header.apiVersion, sessionID: told, throttleTimeMs: throttleTimeMs)
        let size = try encoder.encode([], [], readCommitted: limits.readCommitted, to: &connection.outbox)
        count([], size)
        connection.noteUnsent()
    }

    private func finishSession(_ round: FetchRound) {
        guard let session else { return }
        var served: Set<Int> = []
        for partition in round.partitions {
            if partition.recordBytes > 0 { served.insert(partition.target) }
        }
        answered = isFull ? round.partitions : round.partitions.filter { hasNews($0) }
        for partition in round.partitions {
            targets[partition.target].toldHighWatermark = partition.found.error == .none ? partition.found.highWatermark : -1
            targets[partition.target].toldLogStart = partition.found.error == .none ? partition.found.logStartOffset : -1
        }
        let described = targets
        session.targets = targets
        session.rotate(served)
        targets = described
        connection.broker.fetchSessions.release(session)
    }

    /// What is encoded when a session leaves some out.
    private var answered: [FetchedPartition]?

    private func hasNews(_ partition: FetchedPartition) -> Bool {
        let target = targets[partition.target], found = partition.found
        return found.error != .none || partition.recordBytes > 0 || found.divergingEpoch != nil
            || found.highWatermark != target.toldHighWatermark || found.logStartOffset != target.toldLogStart
    }

    private func encode(_ round: FetchRound) throws {
        let encoder = FetchAnswerEncoder(header: header, version: header.apiVersion, sessionID: session?.id ?? 0)
        let told = answered ?? round.partitions
        let size = try encoder.encode(told, targets, readCommitted: limits.readCommitted, to: &connection.outbox)
        count(told, size)
        if limits.follower == nil { connection.countFetched(bytes: size) }
        connection.noteUnsent()
    }

    private func count(_ told: [FetchedPartition], _ size: Int) {
        var errors = ErrorCodes()
        for partition in told {
            if partition.found.error != .none { errors.append(partition.found.error) }
            // what other brokers copy is no consumer's
            guard limits.follower == nil, let slice = partition.found.slice, !slice.isEmpty else { continue }
            hosted[partition.target]?.countSent(slice)
        }
        connection.shared.answered(header.apiKey, bytes: size, began: connection.lastActive, errors)
    }
}
