import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor

/// What the shards of one coordinator share, and what they tell it.
protocol ShardOwner: AnyObject, Sendable {
    associatedtype Machine: CoordinatorMachine
    typealias Shard = CoordinatorShard<Self>

    var shared: CoordinatorShared { get }
    /// From any thread.
    var moment: Machine.Moment { get }
    /// An empty one, to be loaded from this partition.
    func makeMachine(for partition: Partition) -> Machine
    /// A shard has read all that its partition holds. On the shard's loop.
    func began(_ shard: Shard, _ summary: Machine.Summary)
    /// Carries out what a machine wants of the world. Without the shard's lock, on whatever thread.
    func perform(_ effect: Machine.Effect, for shard: Shard, leaderEpoch: LeaderEpoch)
}

/// Who waits for a coordinator's answer, and where he is told.
final class CoordinatorWaiter<Reply: CoordinatorReply>: @unchecked Sendable {
    let loop: any EventLoop
    private let answer: (Reply) -> Void

    init(_ loop: any EventLoop, _ answer: @escaping (Reply) -> Void) {
        self.loop = loop
        self.answer = answer
    }

    func tell(_ reply: Reply) {
        if loop.isCurrent { answer(reply) } else { loop.execute { self.answer(reply) } }
    }
}

/// One partition of an internal topic on this broker, and what is coordinated in it: carries out what its machine decides.
///
///     away --leadership gained--> loading --all is read--> serving --leadership lost--> away
///
/// The machine is entered under the lock, from whichever loop a request came on. What it wants written is collected,
/// and goes into the log as one batch at the end of the turn: many commits are one append. Their places in the log
/// are taken under the same lock, so the log has the order of the decisions. Answers are given after the lock.
final class CoordinatorShard<Owner: ShardOwner>: AppendOwner, @unchecked Sendable {
    typealias Machine = Owner.Machine
    typealias Reply = Machine.Reply
    typealias Waiter = CoordinatorWaiter<Reply>
    typealias Replay = PartitionReplay<Machine>

    private enum State {
        case away
        case loading(Replay)
        case serving(Serving)
    }

    /// While a partition is led and what it holds is known.
    private final class Serving {
        let partition: Partition
        let leaderEpoch: LeaderEpoch
        var machine: Machine
        var waiters: [CoordinatorTicket: Waiter] = [:]
        var batch = CoordinatorBatch()
        /// Batches of which the machine has not been told yet, in the order of the log.
        var inFlight = RingQueue<InFlight>()

        init(_ partition: Partition, _ leaderEpoch: LeaderEpoch, _ machine: Machine) {
            self.partition = partition
            self.leaderEpoch = leaderEpoch
            self.machine = machine
        }

        /// A new leader may have been told of, and nobody have told this shard yet.
        var isCurrent: Bool { partition.isLeader && partition.leaderEpoch == leaderEpoch }
    }

    private struct InFlight {
        var number: UInt64
        var contents: [CoordinatorBatch.Entry]
        var base: Offset
        /// Nil while its fate is not known.
        var error: ErrorCode?
    }

    /// What is told once the lock is released.
    private struct Outcome {
        var replies: [(Waiter, Reply)] = []
        var effects = PartitionEffects()
        var wanted: [(effect: Machine.Effect, leaderEpoch: LeaderEpoch)] = []
    }

    private static var retryDelay: Interval { .milliseconds(20) }
    private static var failureDelay: Interval { .seconds(1) }
    /// Of a planted bug: one batch in so many is lost.
    private static var plantedLossEvery: UInt64 { 5 }

    let index: Int32
    /// Where its timer runs and its appends are told of.
    let loop: any EventLoop
    private unowned let owner: Owner
    private let shared: CoordinatorShared
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

    init(index: Int32, loop: any EventLoop, owner: Owner) {
        self.index = index
        self.loop = loop
        self.owner = owner
        shared = owner.shared
        clock = shared.clock
        logger = shared.logger
    }

    private func deliver(_ outcome: inout Outcome) {
        for (waiter, reply) in outcome.replies { waiter.tell(reply) }
        outcome.effects.deliver()
        for wanted in outcome.wanted { owner.perform(wanted.effect, for: self, leaderEpoch: wanted.leaderEpoch) }
    }

    private var moment: Machine.Moment { owner.moment }

    // MARK: Leadership

    /// Follows what this broker has of the partition now. On the first loop.
    func follow(_ partition: Partition?) {
        let led = partition.flatMap { $0.isLeader ? ($0, $0.leaderEpoch) : nil }
        var outcome = Outcome()
        let loader = lock.withLock { () -> Replay? in
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
            let loader = Replay(led.0, leaderEpoch: led.1, into: owner.makeMachine(for: led.0)) { [owner] in owner.moment }
            state = .loading(loader)
            return loader
        }
        deliver(&outcome)
        if let loader { load(loader) }
    }

    /// What it coordinates is another broker's now, or nobody's. Under the lock.
    private func leave(_ serving: Serving, _ outcome: inout Outcome) {
        for ticket in serving.waiters.keys.sorted(by: { $0.number < $1.number }) {
            outcome.replies.append((serving.waiters[ticket]!, .failed(.notCoordinator)))
        }
        count(0)
        logger.info(
            "what a partition coordinates was given up", ("partition", serving.partition.id.description),
            ("epoch", "\(serving.leaderEpoch)"))
    }

    private func count(_ bytes: Int) {
        shared.count(bytes - countedBytes)
        countedBytes = bytes
    }

    // MARK: Loading

    private func load(_ loader: Replay) {
        let isQueued = shared.loading.submit({ loader.run() }, on: loop) { [weak self] step in self?.loaded(loader, step) }
        if !isQueued { later(Self.retryDelay, loader) }
    }

    private func later(_ delay: Interval, _ loader: Replay) {
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

    private func isWanted(_ loader: Replay) -> Bool {
        lock.withLock { if case .loading(let wanted) = state { wanted === loader } else { false } }
    }

    private func loaded(_ loader: Replay, _ step: Replay.Step) {
        guard isWanted(loader) else { return }
        switch step {
        case .waits: later(Self.retryDelay, loader)
        case .failed(let reason):
            logger.error(
                "what a partition coordinates cannot be read; tried again", ("partition", loader.partition.id.description),
                ("reason", reason))
            giveUp(loader)
        case .finished: serve(loader)
        }
    }

    private func giveUp(_ loader: Replay) {
        loop.schedule(after: Self.failureDelay) { [weak self] in
            guard let self, isWanted(loader) else { return }
            lock.withLock { state = .away }
            follow(loader.partition)
        }
    }

    private func serve(_ loader: Replay) {
        var outcome = Outcome()
        let (records, skipped) = (loader.recordCount, loader.skippedCount)
        var summary: Machine.Summary?
        lock.withLock {
            guard case .loading(let wanted) = state, wanted === loader else { return }
            let loaded = loader.handOver()
            let serving = Serving(loader.partition, loader.leaderEpoch, loaded.machine)
            state = .serving(serving)
            carryOut(loaded.actions, serving, &outcome)
            settle(serving)
            summary = loaded.summary
        }
        guard let summary else { return }
        deliver(&outcome)
        if records > 0 {
            logger.info(
                "what a partition coordinates was read", ("partition", loader.partition.id.description),
                ("records", "\(records)"))
        }
        if skipped > 0 {
            logger.warning(
                "records of no known kind were left alone", ("partition", loader.partition.id.description),
                ("records", "\(skipped)"))
        }
        owner.began(self, summary)
    }

    // MARK: Requests

    /// Hands a request to the machine; `answer` is called once, on the loop that is given, perhaps before this returns.
    func submit(
        on requestLoop: any EventLoop, _ answer: @escaping (Reply) -> Void, _ event: (CoordinatorTicket) -> Machine.Event
    ) {
        let waiter = Waiter(requestLoop, answer)
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
            let ticket = CoordinatorTicket(number: lastTicket)
            serving.waiters[ticket] = waiter
            handle(event(ticket), serving, &outcome)
        }
        deliver(&outcome)
    }

    /// Something happened that nobody asked for.
    func note(_ event: Machine.Event) {
        var outcome = Outcome()
        lock.withLock {
            guard case .serving(let serving) = state else { return }
            handle(event, serving, &outcome)
        }
        deliver(&outcome)
    }

    /// What it holds now, or why that cannot be told.
    func read<R>(_ body: (Machine) -> R) -> Result<R, CoordinatorFailure> {
        lock.withLock {
            switch state {
            case .away: .failure(CoordinatorFailure(.notCoordinator))
            case .loading: .failure(CoordinatorFailure(.coordinatorLoadInProgress))
            case .serving(let serving):
                serving.isCurrent ? .success(body(serving.machine)) : .failure(CoordinatorFailure(.notCoordinator))
            }
        }
    }

    /// Whether it serves, and has done so since this leadership began.
    func isServing(_ leaderEpoch: LeaderEpoch) -> Bool {
        lock.withLock {
            if case .serving(let serving) = state { serving.leaderEpoch == leaderEpoch && serving.isCurrent } else { false }
        }
    }

    var isLoading: Bool { lock.withLock { if case .loading = state { true } else { false } } }

    // MARK: Carrying out, under the lock

    private func handle(_ event: Machine.Event, _ serving: Serving, _ outcome: inout Outcome) {
        carryOut(serving.machine.handle(event, at: moment), serving, &outcome)
        settle(serving)
    }

    private func carryOut(_ actions: [Machine.Action], _ serving: Serving, _ outcome: inout Outcome) {
        for action in actions {
            switch action {
            case .answer(let ticket, let reply):
                guard let waiter = serving.waiters.removeValue(forKey: ticket) else {
                    preconditionFailure("a request is answered once")
                }
                outcome.replies.append((waiter, reply))
            case .append(let number, let records): add(number, records, serving, &outcome)
            case .appendInTransaction(let number, let records, let producer):
                addAlone(number, records, producer, serving, &outcome)
            case .endTransaction(let number, let end): write(number, end, serving, &outcome)
            case .effect(let effect): outcome.wanted.append((effect, serving.leaderEpoch))
            }
        }
    }

    /// After each entry: what all of it costs, and when the machine is to be called next.
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

    // MARK: Writing

    private func add(_ number: UInt64, _ records: [Machine.Record], _ serving: Serving, _ outcome: inout Outcome) {
        let limit = Int(serving.partition.topicConfig.maxMessageBytes)
        if serving.batch.add(number, records, limit: limit, wallMilliseconds: clock.wallMilliseconds) == .full {
            write(serving, &outcome)
            guard serving.batch.add(number, records, limit: limit, wallMilliseconds: clock.wallMilliseconds) == .added else {
                return carryOut(
                    serving.machine.handle(.written(number, .failure(CoordinatorFailure(.messageTooLarge))), at: moment),
                    serving, &outcome)
            }
        }
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        // what runs here is a turn of one of the loops: they, and their lanes' completions, are all that calls
        shared.atEndOfTurn { [weak self] in self?.flush() }
    }

    private func flush() {
        var outcome = Outcome()
        lock.withLock {
            isFlushScheduled = false
            guard case .serving(let serving) = state else { return }
            write(serving, &outcome)
        }
        deliver(&outcome)
    }

    /// Appends what was collected. Under the lock: what is decided later comes later in the log.
    private func write(_ serving: Serving, _ outcome: inout Outcome) {
        guard !serving.batch.isEmpty else { return }
        let contents = serving.batch.entries
        let request = nextAppend(serving)
        if shared.planted.contains(.lostCommit), lastBatch % Self.plantedLossEvery == 0 {
            serving.batch.finish { _ in }
            return told(contents, .success(0), serving, &outcome)
        }
        let start = serving.batch.finish { serving.partition.append($0, request) }
        started(start, contents, serving, &outcome)
    }

    /// Records of a transaction are a batch by themselves, with its producer's id.
    private func addAlone(
        _ number: UInt64, _ records: [Machine.Record], _ producer: ProducerIdentity, _ serving: Serving,
        _ outcome: inout Outcome
    ) {
        write(serving, &outcome)
        var batch = CoordinatorBatch(
            BatchIdentity(producerID: producer.id, epoch: producer.epoch, baseSequence: 0, isTransactional: true))
        let limit = Int(serving.partition.topicConfig.maxMessageBytes)
        guard batch.add(number, records, limit: limit, wallMilliseconds: clock.wallMilliseconds) == .added else {
            return told(
                [.init(number: number, firstRecord: 0)], .failure(CoordinatorFailure(.messageTooLarge)), serving, &outcome)
        }
        let contents = batch.entries
        let request = nextAppend(serving)
        let start = batch.finish { serving.partition.append($0, request) }
        started(start, contents, serving, &outcome)
    }

    private func write(_ number: UInt64, _ end: TransactionEnd, _ serving: Serving, _ outcome: inout Outcome) {
        write(serving, &outcome)
        var request = nextAppend(serving)
        request.endsInNextEpoch = end.version >= 2
        var bytes = ByteBuffer(capacity: 128)
        BatchBuilder.write(
            end.marker, producerID: end.producer.id, epoch: end.producer.epoch, timestamp: clock.wallMilliseconds, into: &bytes,
            contexts: CodecContexts())
        let start = serving.partition.append(bytes.mutableBytes, request)
        started(start, [.init(number: number, firstRecord: 0)], serving, &outcome)
    }

    private func nextAppend(_ serving: Serving) -> AppendRequest {
        lastBatch += 1
        return AppendRequest(
            .committed, owner: self, token: AppendToken(answer: lastBatch, index: Int(serving.leaderEpoch)),
            deadline: clock.now + shared.commitTimeout, origin: .coordinator)
    }

    /// What was reserved is written before its bytes go.
    private func started(
        _ start: AppendStart, _ contents: [CoordinatorBatch.Entry], _ serving: Serving, _ outcome: inout Outcome
    ) {
        switch start {
        case .reserved(let base, _):
            serving.inFlight.append(InFlight(number: lastBatch, contents: contents, base: base, error: nil))
            serving.partition.writeReserved(&outcome.effects)
        case .duplicate: preconditionFailure("a coordinator's batches have no sequence to be known by")
        case .refused(let error, let message):
            logger.warning(
                "what a coordinator decided was not written", ("partition", serving.partition.id.description),
                ("error", error.description),
                ("reason", message ?? ""))
            told(contents, .failure(CoordinatorFailure(error)), serving, &outcome)
        }
    }

    private func told(
        _ contents: [CoordinatorBatch.Entry], _ result: Result<Offset, CoordinatorFailure>, _ serving: Serving,
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
                let result: Result<Offset, CoordinatorFailure> =
                    error == .none ? .success(batch.base) : .failure(CoordinatorFailure(error))
                told(batch.contents, result, serving, &outcome)
            }
        }
        deliver(&outcome)
    }
}
