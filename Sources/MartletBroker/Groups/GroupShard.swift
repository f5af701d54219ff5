import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor

/// Who waits for a group's answer, and where he is told.
final class GroupWaiter: @unchecked Sendable {
    let loop: any EventLoop
    private let answer: (GroupReply) -> Void

    init(_ loop: any EventLoop, _ answer: @escaping (GroupReply) -> Void) {
        self.loop = loop
        self.answer = answer
    }

    func tell(_ reply: GroupReply) {
        if loop.isCurrent { answer(reply) } else { loop.execute { self.answer(reply) } }
    }
}

/// One partition of `__consumer_offsets` on this broker, and the groups in it: carries out what `GroupMachine` decides.
///
///     away --leadership gained--> loading --all is read--> serving --leadership lost--> away
///
/// The machine is entered under the lock, from whichever loop a request came on. What it wants written is collected,
/// and goes into the log as one batch at the end of the turn: many commits are one append. Their places in the log
/// are taken under the same lock, so the log has the order of the decisions. Answers are given after the lock.
final class GroupShard: AppendOwner, @unchecked Sendable {
    private enum State {
        case away
        case loading(GroupLoader)
        case serving(Serving)
    }

    /// While a partition is led and its groups are known.
    private final class Serving {
        let partition: Partition
        let leaderEpoch: LeaderEpoch
        var machine: GroupMachine
        var waiters: [GroupTicket: GroupWaiter] = [:]
        var batch = GroupBatch()
        /// Batches of which the machine has not been told yet, in the order of the log.
        var inFlight = RingQueue<InFlight>()

        init(_ partition: Partition, _ leaderEpoch: LeaderEpoch, _ machine: GroupMachine) {
            self.partition = partition
            self.leaderEpoch = leaderEpoch
            self.machine = machine
        }

        /// A new leader may have been told of, and nobody have told this shard yet.
        var isCurrent: Bool { partition.isLeader && partition.leaderEpoch == leaderEpoch }
    }

    private struct InFlight {
        var number: UInt64
        var contents: [GroupBatch.Entry]
        var base: Offset
        /// Nil while its fate is not known.
        var error: ErrorCode?
    }

    /// What is told once the lock is released.
    private struct Outcome {
        var replies: [(GroupWaiter, GroupReply)] = []
        var effects = PartitionEffects()
        var searches: [PatternSearch] = []

        mutating func deliver(_ shard: GroupShard) {
            for search in searches { shard.carryOut(search) }
            for (waiter, reply) in replies { waiter.tell(reply) }
            effects.deliver()
        }
    }

    private static let retryDelay = Interval.milliseconds(20)
    private static let failureDelay = Interval.seconds(1)

    let index: Int32
    /// Where its timer runs and its appends are told of.
    let loop: any EventLoop
    private unowned let coordinator: GroupCoordinator
    private let clock: any Clock
    private let logger: Logger
    private let lock = Lock()
    // guarded by the lock:
    private var state = State.away
    private var lastTicket: UInt64 = 0
    private var lastBatch: UInt64 = 0
    private var isFlushScheduled = false
    private var countedBytes = 0
    /// When the timer that is set will look.
    private var timerAt: Instant?
    // of the loop:
    private var timer: TimerToken?

    init(index: Int32, loop: any EventLoop, coordinator: GroupCoordinator) {
        self.index = index
        self.loop = loop
        self.coordinator = coordinator
        clock = coordinator.clock
        logger = coordinator.logger
    }

    private var moment: GroupMoment {
        GroupMoment(
            now: clock.now, wallMilliseconds: clock.wallMilliseconds, isFull: coordinator.isFull,
            surroundings: coordinator.surroundings)
    }

    // MARK: Leadership

    /// Follows what this broker has of the partition now. On the first loop.
    func follow(_ partition: Partition?) {
        let led = partition.flatMap { $0.isLeader ? ($0, $0.leaderEpoch) : nil }
        var outcome = Outcome()
        let loader = lock.withLock { () -> GroupLoader? in
            switch state {
            case .away: break
            case .loading(let loader):
                if let led, loader.partition === led.0, loader.leaderEpoch == led.1 { return nil }
            case .serving(let serving):
                if let led, serving.partition === led.0, serving.leaderEpoch == led.1 { return nil }
                leave(serving, &outcome)
            }
            guard let led else {
                state = .away
                return nil
            }
            let loader = GroupLoader(
                led.0, leaderEpoch: led.1, settings: coordinator.settings(for: led.0), seed: coordinator.nextSeed(),
                clock: clock, surroundings: coordinator.surroundings)
            state = .loading(loader)
            return loader
        }
        outcome.deliver(self)
        if let loader { load(loader) }
    }

    /// The groups are another broker's now, or nobody's. Under the lock.
    private func leave(_ serving: Serving, _ outcome: inout Outcome) {
        for ticket in serving.waiters.keys.sorted(by: { $0.number < $1.number }) {
            outcome.replies.append((serving.waiters[ticket]!, .failed(.notCoordinator)))
        }
        count(0)
        logger.info(
            "groups were given up", ("partition", serving.partition.id.description), ("epoch", "\(serving.leaderEpoch)"))
    }

    private func count(_ bytes: Int) {
        coordinator.count(bytes - countedBytes)
        countedBytes = bytes
    }

    // MARK: Loading

    private func load(_ loader: GroupLoader) {
        let isQueued = coordinator.loading.submit({ loader.run() }, on: loop) { [weak self] step in self?.loaded(loader, step) }
        if !isQueued { later(Self.retryDelay, loader) }
    }

    private func later(_ delay: Interval, _ loader: GroupLoader) {
        let again: @Sendable () -> Void = { [weak self] in
            guard let self, isWanted(loader) else { return }
            load(loader)
        }
        if loop.isCurrent {
            loop.schedule(after: delay, again)
        } else {
            loop.execute { [loop] in loop.schedule(after: delay, again) }
        }
    }

    private func isWanted(_ loader: GroupLoader) -> Bool {
        lock.withLock { if case .loading(let wanted) = state { wanted === loader } else { false } }
    }

    private func loaded(_ loader: GroupLoader, _ step: GroupLoader.Step) {
        guard isWanted(loader) else { return }
        switch step {
        case .waits: later(Self.retryDelay, loader)
        case .failed(let reason):
            logger.error(
                "groups cannot be read; tried again", ("partition", loader.partition.id.description), ("reason", reason))
            giveUp(loader)
        case .finished: serve(loader)
        }
    }

    private func giveUp(_ loader: GroupLoader) {
        loop.schedule(after: Self.failureDelay) { [weak self] in
            guard let self, isWanted(loader) else { return }
            lock.withLock { state = .away }
            follow(loader.partition)
        }
    }

    private func serve(_ loader: GroupLoader) {
        var outcome = Outcome()
        let (groups, skipped) = (loader.recordCount, loader.skippedCount)
        lock.withLock {
            guard case .loading(let wanted) = state, wanted === loader else { return }
            let (machine, actions) = loader.handOver()
            let serving = Serving(loader.partition, loader.leaderEpoch, machine)
            state = .serving(serving)
            carryOut(actions, serving, &outcome)
            settle(serving)
        }
        outcome.deliver(self)
        if groups > 0 {
            logger.info("groups were read", ("partition", loader.partition.id.description), ("records", "\(groups)"))
        }
        if skipped > 0 {
            logger.warning(
                "records of no known kind were left alone", ("partition", loader.partition.id.description),
                ("records", "\(skipped)"))
        }
        coordinator.began(self, committedFor: loader.committedTopics)
    }

    // MARK: Requests

    /// Hands a request to the machine; `answer` is called once, on the loop that is given, perhaps before this returns.
    func submit(on requestLoop: any EventLoop, _ answer: @escaping (GroupReply) -> Void, _ event: (GroupTicket) -> GroupEvent) {
        let waiter = GroupWaiter(requestLoop, answer)
        var outcome = Outcome()
        lock.withLock {
            let serving: Serving
            switch state {
            case .away: return outcome.replies.append((waiter, .failed(.notCoordinator)))
            case .loading: return outcome.replies.append((waiter, .failed(.coordinatorLoadInProgress)))
            case .serving(let known) where !known.isCurrent: return outcome.replies.append((waiter, .failed(.notCoordinator)))
            case .serving(let known): serving = known
            }
            lastTicket += 1
            let ticket = GroupTicket(number: lastTicket)
            serving.waiters[ticket] = waiter
            handle(event(ticket), serving, &outcome)
        }
        outcome.deliver(self)
    }

    /// Something happened that nobody asked for.
    func note(_ event: GroupEvent) {
        var outcome = Outcome()
        lock.withLock {
            guard case .serving(let serving) = state else { return }
            handle(event, serving, &outcome)
        }
        outcome.deliver(self)
    }

    /// What the groups are now, or why that cannot be told.
    func read<R>(_ body: (GroupMachine) -> R) -> Result<R, GroupWriteFailure> {
        lock.withLock {
            switch state {
            case .away: .failure(GroupWriteFailure(.notCoordinator))
            case .loading: .failure(GroupWriteFailure(.coordinatorLoadInProgress))
            case .serving(let serving):
                serving.isCurrent ? .success(body(serving.machine)) : .failure(GroupWriteFailure(.notCoordinator))
            }
        }
    }

    var isLoading: Bool { lock.withLock { if case .loading = state { true } else { false } } }

    // MARK: Carrying out, under the lock

    private func handle(_ event: GroupEvent, _ serving: Serving, _ outcome: inout Outcome) {
        carryOut(serving.machine.handle(event, at: moment), serving, &outcome)
        settle(serving)
    }

    private func carryOut(_ actions: [GroupAction], _ serving: Serving, _ outcome: inout Outcome) {
        for action in actions {
            switch action {
            case .answer(let ticket, let reply):
                guard let waiter = serving.waiters.removeValue(forKey: ticket) else {
                    preconditionFailure("a request is answered once")
                }
                outcome.replies.append((waiter, reply))
            case .append(let number, let records): add(number, records, serving, &outcome)
            case .search(let search): outcome.searches.append(search)
            }
        }
    }

    /// After each entry: what the groups cost, and when the machine is to be called next.
    private func settle(_ serving: Serving) {
        count(serving.machine.bytes)
        guard let next = serving.machine.nextDeadline, timerAt.map({ next < $0 }) ?? true else { return }
        timerAt = next
        if loop.isCurrent { setTimer(next) } else { loop.execute { [weak self] in self?.setTimer(next) } }
    }

    /// On the loop.
    private func setTimer(_ at: Instant) {
        if let timer { loop.cancel(timer) }
        timer = loop.schedule(after: max(at - clock.now, .zero)) { [weak self] in self?.timeHasCome() }
    }

    private func timeHasCome() {
        timer = nil
        lock.withLock { timerAt = nil }
        note(.timePassed)
    }

    /// How many topics there are, and what an expression is, nobody knows: it is looked for on a lane.
    private func carryOut(_ search: PatternSearch) {
        let surroundings = coordinator.surroundings
        let isQueued = coordinator.searching.submit({ search.run(in: surroundings) }, on: loop) { [weak self] findings in
            self?.note(.patternsFound(findings))
        }
        guard !isQueued else { return }
        // the next heartbeat asks again
        loop.execute { [weak self] in self?.note(.patternsFound(PatternFindings(group: search.group, topics: [], version: -1)))
        }
    }

    // MARK: Writing

    private func add(_ number: UInt64, _ records: [GroupRecord], _ serving: Serving, _ outcome: inout Outcome) {
        let limit = Int(serving.partition.topicConfig.maxMessageBytes)
        if serving.batch.add(number, records, limit: limit, wallMilliseconds: clock.wallMilliseconds) == .full {
            write(serving, &outcome)
            guard serving.batch.add(number, records, limit: limit, wallMilliseconds: clock.wallMilliseconds) == .added else {
                return carryOut(
                    serving.machine.handle(.written(number, .failure(GroupWriteFailure(.messageTooLarge))), at: moment),
                    serving, &outcome)
            }
        }
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        // what runs here is a turn of one of the loops: they, and their lanes' completions, are all that calls
        coordinator.atEndOfTurn { [weak self] in self?.flush() }
    }

    private func flush() {
        var outcome = Outcome()
        lock.withLock {
            isFlushScheduled = false
            guard case .serving(let serving) = state else { return }
            write(serving, &outcome)
        }
        outcome.deliver(self)
    }

    /// Appends what was collected. Under the lock: what is decided later comes later in the log.
    private func write(_ serving: Serving, _ outcome: inout Outcome) {
        guard !serving.batch.isEmpty else { return }
        lastBatch += 1
        let number = lastBatch
        let contents = serving.batch.entries
        let request = AppendRequest(
            .committed, owner: self, token: AppendToken(answer: number, index: Int(serving.leaderEpoch)),
            deadline: clock.now + coordinator.commitTimeout, origin: .coordinator)
        let start = serving.batch.finish { serving.partition.append($0, request) }
        switch start {
        case .reserved(let base, _):
            serving.inFlight.append(InFlight(number: number, contents: contents, base: base, error: nil))
            serving.partition.writeReserved(&outcome.effects)
        case .duplicate: preconditionFailure("a coordinator's batches have no sequence to be known by")
        case .refused(let error, let message):
            logger.warning(
                "a change of groups was not written", ("partition", serving.partition.id.description),
                ("error", error.description),
                ("reason", message ?? ""))
            told(contents, .failure(GroupWriteFailure(error)), serving, &outcome)
        }
    }

    private func told(
        _ contents: [GroupBatch.Entry], _ result: Result<Offset, GroupWriteFailure>, _ serving: Serving,
        _ outcome: inout Outcome
    ) {
        for entry in contents {
            let written = result.map { $0 + Int64(entry.firstRecord) }
            carryOut(serving.machine.handle(.written(entry.number, written), at: moment), serving, &outcome)
        }
        settle(serving)
    }

    /// Several threads may bring such news, and one overtake another: the machine is told in the order of the log.
    func appendFinished(_ token: AppendToken, _ appended: AppendOutcome) {
        var outcome = Outcome()
        lock.withLock {
            // what an earlier leadership wrote says nothing to this one
            guard case .serving(let serving) = state else { return }
            for index in 0..<serving.inFlight.count where serving.inFlight[index].number == token.answer {
                serving.inFlight[index].error = appended.error
            }
            while let batch = serving.inFlight.first, let error = batch.error {
                serving.inFlight.popFirst()
                let result: Result<Offset, GroupWriteFailure> =
                    error == .none ? .success(batch.base) : .failure(GroupWriteFailure(error))
                told(batch.contents, result, serving, &outcome)
            }
        }
        outcome.deliver(self)
    }
}

/// What a turn wants written, as one batch.
struct GroupBatch: ~Copyable {
    struct Entry {
        /// The machine's number.
        var number: UInt64
        /// Its first record's place in the batch.
        var firstRecord: Int32
    }

    enum Added: Equatable {
        case added
        /// It does not fit behind what is there.
        case full
    }

    private(set) var entries: [Entry] = []
    private var builder = BatchBuilder()
    private var bytes = ByteBuffer()
    private var pieces: [(key: Range<Int>, value: Range<Int>?)] = []
    private let contexts = CodecContexts()

    var isEmpty: Bool { entries.isEmpty }

    /// Adds the records if the batch stays within the limit with all of them.
    mutating func add(_ number: UInt64, _ records: [GroupRecord], limit: Int, wallMilliseconds: Int64) -> Added {
        // what is far too much is not encoded to find that out
        guard records.count * 32 <= limit else { return .full }
        bytes.truncate(to: 0)
        pieces.removeAll(keepingCapacity: true)
        var value = ByteBuffer(capacity: 64)
        for record in records {
            let start = bytes.count
            value.truncate(to: 0)
            let hasValue: Bool
            do throws(EncodingFault) { hasValue = try GroupRecords.encode(record, key: &bytes, value: &value) } catch {
                // a field longer than its length can tell: as much too large as anything
                return .full
            }
            let end = bytes.count
            bytes.append(value.bytes)
            pieces.append((start..<end, hasValue ? end..<bytes.count : nil))
        }
        // at most so much goes with each record
        guard builder.uncompressedSize + bytes.count + records.count * 32 <= limit else { return .full }
        entries.append(Entry(number: number, firstRecord: builder.recordCount))
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        for piece in pieces {
            let key = UnsafeRawBufferPointer(rebasing: bytes.bytes[piece.key])
            let value = piece.value.map { UnsafeRawBufferPointer(rebasing: bytes.bytes[$0]) }
            builder.append(timestamp: wallMilliseconds, key: key, value: value, rawHeaders: (0, nothing))
        }
        return .added
    }

    /// Hands out the batch, whose bytes live until this returns, and begins anew.
    mutating func finish<R>(_ body: (UnsafeMutableRawBufferPointer) -> R) -> R {
        bytes.truncate(to: 0)
        builder.finish(into: &bytes, contexts: contexts)
        entries.removeAll(keepingCapacity: true)
        return body(bytes.mutableBytes)
    }

    /// Gives back what one large batch took.
    mutating func release() { bytes.reset() }
}
