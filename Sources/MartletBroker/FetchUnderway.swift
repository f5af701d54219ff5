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
    /// What `hosted` was found in; 0 before the first look.
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
    /// A look in steps that is under way, what it is for, and the target that it goes on with.
    private var lookUnderway: (round: FetchRound, purpose: Purpose, next: Int)?
    private var hadNewsMeanwhile = false
    /// What it holds of the memory for fetches, for as long as anything knows it.
    private let charged: Int

    /// A fetch of more partitions than these looks at them in steps, between which others have their turn.
    static let stepLimit = 128
    /// So many are looked at between two looks at the clock.
    private static let piece = 16

    /// What a look is for.
    private enum Purpose {
        /// To answer at once, or else to wait.
        case begin
        /// The same, when what was acknowledged is there to be read.
        case settled
        /// The same, when a replica that was exchanged is there again.
        case exchanged
        /// To answer if there is enough now.
        case news
        case answer
    }

    init(
        _ request: Request, limits: FetchLimits, usesTopicIDs: Bool, session: FetchSession?, isFull: Bool,
        targets: [FetchTarget], charged: Int
    ) {
        self.charged = charged
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
    }

    deinit { connection.broker.fetchMemory.releaseFetch(charged) }

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
        guard targets.count <= Self.stepLimit else {
            promise(request)
            return look(for: .begin)
        }
        let round = look()
        if settle(round, request) { return }
        if let settling = exchange(round) {
            promise(request)
            return goOn(after: settling)
        }
        let isDone = isEnough(round)
        if isDone, isHot(round) { return try conclude(round) }
        promise(request)
        if isDone { return warm(round) }
        wait()
    }

    private func promise(_ request: Request) {
        responder = request.later()
        connection.onAbandon = { [self] in abandon() }
    }

    /// Whether what was acknowledged is waited for first. `request`: where no answer is promised yet.
    private func settle(_ round: FetchRound, _ request: Request?) -> Bool {
        let unsettled = round.partitions.compactMap { $0.found.isUnsettled ? hosted[$0.target] : nil }
        guard !unsettled.isEmpty else { return false }
        let settling = Settling(loop)
        guard settling.begin(unsettled) else { return false }
        if let request { promise(request) }
        settling.whenDone { [self] in
            if responder != nil { look(for: .settled) }
        }
        return true
    }

    /// Whether a fetch that begins is answered without waiting.
    private func isEnough(_ round: FetchRound) -> Bool { round.isEnough(limits) || limits.maxWait <= .zero || targets.isEmpty }

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
            if responder != nil { look(for: .exchanged) }
        }
    }

    // MARK: waiting

    /// Goes on waiting where a partition that was watched is gone, and another stands for it.
    private func waitAnew() {
        guard timer != nil else { return wait() }
        for watched in ownWatches { watched.end() }
        ownWatches = []
        watchPartitions()
        scheduleLook(atAll: true)
    }

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

    // MARK: looks

    private func look(for purpose: Purpose) {
        guard targets.count > Self.stepLimit else { return decide(purpose, look()) }
        prepareLook()
        var round = FetchRound()
        round.partitions.reserveCapacity(targets.count)
        round.cold = []
        lookUnderway = (round, purpose, 0)
        connection.shared.lookLater(self)
    }

    private func look() -> FetchRound {
        prepareLook()
        var round = FetchRound()
        round.partitions.reserveCapacity(targets.count)
        round.look(at: 0..<targets.count, of: targets, hosted, limits)
        complete(&round)
        return round
    }

    /// A topic may have been deleted, or made anew.
    private func prepareLook() {
        if connection.broker.topics.table.generation != tableGeneration { resolve() }
    }

    private func complete(_ round: inout FetchRound) {
        round.addMissing(targets, hosted, failed: failed, usesTopicIDs: usesTopicIDs)
        foundBytes = [Int](repeating: 0, count: targets.count)
        for partition in round.partitions { foundBytes[partition.target] = partition.recordBytes }
        foundBytesSum = round.bytes
    }

    /// Goes on with a look in steps, at so many partitions, until a time; how many it were. Partitions that went meanwhile
    /// say so themselves.
    func lookOn(atMost count: Int, until end: Instant) -> Int {
        // the peer may have gone
        guard responder != nil, var look = lookUnderway else { return 0 }
        // the round is changed in place
        lookUnderway = nil
        let (first, last) = (look.next, min(targets.count, look.next + count))
        while look.next < last {
            let known = look.round.partitions.count
            let piece = look.next..<min(look.next + Self.piece, last)
            look.round.look(at: piece, of: targets, hosted, limits)
            look.round.cold! += look.round.partitions[known...].indices.filter { !isHot(look.round.partitions[$0]) }
            look.next = piece.upperBound
            if loop.clock.now >= end { break }
        }
        guard look.next == targets.count else {
            lookUnderway = look
            connection.shared.lookLater(self)
            return look.next - first
        }
        complete(&look.round)
        decide(look.purpose, look.round)
        if hadNewsMeanwhile {
            hadNewsMeanwhile = false
            scheduleLook(atAll: false)
        }
        return look.next - first
    }

    /// What follows from a look, for a fetch that has promised an answer.
    private func decide(_ purpose: Purpose, _ round: FetchRound) {
        switch purpose {
        case .answer: answer(round)
        case _ where isTimeUp: answer(round)
        case .begin where settle(round, nil): break
        case .begin, .settled:
            if isEnough(round) { answer(round) } else { wait() }
        case .exchanged:
            if isEnough(round) { answer(round) } else { waitAnew() }
        case .news:
            if round.isEnough(limits) { answer(round) }
        }
    }

    /// Called by the watch, once until its news are taken.
    func hasNews() { scheduleLook(atAll: false) }

    private func scheduleLook(atAll: Bool) {
        guard !isLookScheduled, responder != nil, !isWarming, !awaitsExchange else { return }
        guard lookUnderway == nil else { return hadNewsMeanwhile = true }
        isLookScheduled = true
        loop.atEndOfTurn { [self] in
            isLookScheduled = false
            guard responder != nil, !isWarming, !awaitsExchange else { return }
            guard lookUnderway == nil else { return hadNewsMeanwhile = true }
            let news = watch.takeNews()
            if atAll || isWorthALook(news) { look(for: .news) }
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
        guard responder != nil, !isWarming, !awaitsExchange, lookUnderway == nil else { return }
        look(for: .answer)
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
        lookUnderway = nil
        if let session { connection.broker.fetchSessions.release(session) }
    }

    // MARK: cold data

    /// Whether the records were found sound in the life of this process, and lie in the page cache, so that sending them
    /// does not hold up the loop. The latter is asked once a fetch: what was read ahead and is gone again by then would
    /// be gone the next time too.
    private func isHot(_ round: FetchRound) -> Bool { round.cold?.isEmpty ?? round.partitions.allSatisfy(isHot) }

    private func isHot(_ partition: FetchedPartition) -> Bool {
        guard let slice = partition.found.slice else { return true }
        return !slice.needsCheck && (warmedOnce || slice.isCached)
    }

    /// Reads what is to be sent on the lane for cold reads, so that it lies in the page cache afterwards, and checks what
    /// nobody has checked yet.
    private func warm(_ round: FetchRound) {
        isWarming = true
        warmedOnce = true
        let cold = round.cold?.map { round.partitions[$0] } ?? round.partitions
        let slices = cold.compactMap { partition -> (partition: Partition?, slice: LogSlice)? in
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

    /// There is no room for it now: the client gets nothing, and is not listened to for a while.
    func putOff(for span: Interval) throws {
        connection.mute(for: span)
        try comeAgain(Int32(clamping: span.nanoseconds / 1_000_000))
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
