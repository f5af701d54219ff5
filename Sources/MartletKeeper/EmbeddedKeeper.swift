package import MartletBasics
package import MartletReactor

/// The keeper inside the process: the tree in memory, its order and its durability by a `KeeperReplication`, its
/// watches and sessions.
///
/// Everything lives on one loop. A write is proposed, becomes durable, is applied, is told to watchers, and only then
/// is answered, each in the order of zxids; a read is answered from memory, behind its own session's writes.
///
/// A failure to write the log ends it: `onFatal` is called once, no write after the last durable one is ever answered
/// as done, and the process is expected to stop, because what the disk holds is not known any more.
///
/// Unchecked: all state is touched on the loop only, which the doors assert.
package final class EmbeddedKeeper: @unchecked Sendable {
    private enum Phase {
        case open
        case failed(KeeperError)
        case closed
    }

    package let loop: any EventLoop
    let settings: KeeperSettings
    private let logger: Logger
    private let host: any Host
    private let lock: any DiskLock
    private let replication: any KeeperReplication
    /// Names this process among those that opened the tree: the zxid of its opening, which no other has.
    private let boot: UInt64

    private var phase = Phase.open
    private var tree: KeeperTree
    private var watches = WatchTable()
    private var deadlines: SessionDeadlines
    /// The sessions of users inside the process.
    private var sessions: [Int64: EmbeddedSession] = [:]
    /// What waits for a transaction to be applied, in the order in which it came; nil is told where that is not known
    /// to happen.
    private var waiting: [Zxid: [(Applied?) -> Void]] = [:]
    private var waitingReads = 0
    /// Nodes that proposed transactions may add.
    private var waitingCreations = 0
    /// Bytes that proposed transactions may add to the tree.
    private var waitingGrowth = 0
    private var waitingSessions = 0
    private var timer: TimerToken?
    /// Called once on the loop: the log cannot be written, and the process must stop.
    package var onFatal: ((KeeperError) -> Void)?

    private init(
        host: any Host, loop: any EventLoop, settings: KeeperSettings, logger: Logger, lock: any DiskLock,
        store: KeeperStore, recovered: KeeperStore.Recovered
    ) {
        self.host = host
        self.loop = loop
        self.settings = settings
        self.logger = logger
        self.lock = lock
        tree = recovered.tree
        deadlines = SessionDeadlines(tick: settings.tick)
        boot = UInt64(recovered.tree.lastZxid.firstOfNextEpoch.rawValue)
        replication = SingleReplica(store: store, recovered: recovered, settings: settings, host: host, loop: loop)
        replication.onDecided = { [weak self] in self?.apply($0) }
        replication.onFatal = { [weak self] in self?.fail($0) }
    }

    /// Unguessable, because over the network it is a part of what a client proves itself with. Two that are proposed
    /// at once and meet are refused when they are applied.
    private func newSessionID() -> Int64 {
        while true {
            let id = Int64(host.randomSeed() & UInt64(Int64.max))
            if id != 0, tree.session(id) == nil { return id }
        }
    }

    // MARK: Opening and closing

    /// Reads the directory, ends the sessions that lived in the process that had it open before, and begins an epoch.
    /// Called from a task on the loop; the disk is waited for on a lane.
    package static func open(
        host: any Host, loop: any EventLoop, settings: KeeperSettings, logger: Logger
    ) async throws(KeeperError) -> EmbeddedKeeper {
        let store = KeeperStore(disk: host.disk, directory: settings.directory, logger: logger)
        let lane = host.makeLane("keeper-open", threads: 1, limit: 1)
        let result = await withUnsafeContinuation { continuation in
            let isQueued = lane.submit({ Self.openStore(store) }, on: loop) { continuation.resume(returning: $0) }
            precondition(isQueued, "a new lane has room")
        }
        let (lock, recovered) = try result.get()
        let keeper = await withUnsafeContinuation { continuation in
            loop.execute {
                let keeper = EmbeddedKeeper(
                    host: host, loop: loop, settings: settings, logger: logger, lock: lock, store: store,
                    recovered: recovered)
                continuation.resume(returning: keeper)
            }
        }
        try await withUnsafeContinuation { continuation in keeper.begin { continuation.resume(returning: $0) } }.get()
        return keeper
    }

    private static func openStore(
        _ store: KeeperStore
    ) -> Result<(any DiskLock, KeeperStore.Recovered), KeeperError> {
        do throws(KeeperError) {
            let lock: (any DiskLock)?
            do throws(SystemError) {
                try store.makeDirectory()
                lock = try store.disk.lock(store.path(".lock"))
            } catch { throw .disk("the keeper's directory cannot be used", error) }
            guard let lock else {
                throw KeeperError(
                    .systemError,
                    "\(store.directory) is in use by another process; stop that one, or give this one a directory of its own"
                )
            }
            return .success((lock, try store.recover()))
        } catch { return .failure(error) }
    }

    private func begin(_ completion: @escaping @Sendable (Result<Void, KeeperError>) -> Void) {
        onLoop { [self] in
            let found = tree.lastZxid
            propose(.boot(id: boot, after: found)) { [self] applied in
                guard applied != nil else { return completion(.failure(unknownOutcome)) }
                for session in tree.sessionRecords { track(session) }
                armTick()
                completion(.success(()))
            }
        }
    }

    /// Waits for what was proposed, then lets go of the directory. Sessions are left as they are: who opened one
    /// closes it before.
    package func close() async {
        await withUnsafeContinuation { continuation in
            onLoop { [self] in
                if let timer { loop.cancel(timer) }
                timer = nil
                if case .open = phase { phase = .closed }
                replication.stop { [self] in
                    lock.close()
                    for id in sessions.keys.sorted() { sessions[id]!.become(.suspended) }
                    sessions = [:]
                    abandonWaiting()
                    continuation.resume()
                }
            }
        }
    }

    func onLoop(_ work: @escaping @Sendable () -> Void) {
        if loop.isCurrent { work() } else { loop.execute(work) }
    }

    // MARK: Proposals and what comes of them

    @discardableResult
    private func propose(_ transaction: KeeperTransaction, _ completion: @escaping (Applied?) -> Void) -> Zxid {
        let creations = transaction.creations
        let growth = transaction.growth
        waitingCreations += creations
        waitingGrowth += growth
        let zxid = replication.propose(transaction)
        waiting[zxid, default: []].append { [self] applied in
            waitingCreations -= creations
            waitingGrowth -= growth
            completion(applied)
        }
        return zxid
    }

    private func apply(_ decided: DecidedTransaction) {
        let applied = tree.apply(decided.transaction, zxid: decided.zxid, time: decided.time)
        for id in applied.closedSessions {
            watches.removeAll(of: id)
            deadlines.forget(id)
        }
        if case .createSession(let record) = decided.transaction, applied.code == .ok { track(record) }
        for change in applied.changes {
            for (session, event) in watches.trigger(change, decided.zxid) { sessions[session]?.tell(event) }
        }
        for id in applied.closedSessions {
            guard let session = sessions.removeValue(forKey: id) else { continue }
            var isExpired = true
            if case .closeSession(_, let expired) = decided.transaction { isExpired = expired }
            if isExpired { logger.warning("a session has expired", ("session", hexadecimal(id))) }
            session.become(isExpired ? .expired : .closed)
        }
        for completion in waiting.removeValue(forKey: decided.zxid) ?? [] { completion(applied) }
        replication.didApply(tree)
    }

    private func fail(_ error: KeeperError) {
        logger.error("the coordination tree has stopped", ("why", error.message))
        phase = .failed(error)
        if let timer { loop.cancel(timer) }
        timer = nil
        for id in sessions.keys.sorted() { sessions[id]!.become(.suspended) }
        abandonWaiting()
        onFatal?(error)
        onFatal = nil
    }

    private func abandonWaiting() {
        let left = waiting
        waiting = [:]
        for zxid in left.keys.sorted() {
            for completion in left[zxid]! { completion(nil) }
        }
    }

    private var unknownOutcome: KeeperError {
        if case .failed(let error) = phase {
            return KeeperError(.connectionLoss, "not known to be done: \(error.message)", cause: error.cause)
        }
        return KeeperError(.connectionLoss, "the keeper is closed")
    }

    private func hexadecimal(_ id: Int64) -> String { "0x" + String(UInt64(bitPattern: id), radix: 16) }

    // MARK: Time

    private func track(_ session: SessionRecord) {
        deadlines.track(session.id, timeout: .milliseconds(Int64(session.timeoutMilliseconds)), now: loop.clock.now)
    }

    private func armTick() {
        timer = loop.schedule(after: settings.tick) { [weak self] in self?.tick() }
    }

    private func tick() {
        guard case .open = phase else { return }
        for id in sessions.keys.sorted() { sessions[id]!.heartbeat() }
        for id in deadlines.due(now: loop.clock.now) { propose(.closeSession(id: id, expired: true)) { _ in } }
        replication.idle()
        armTick()
    }

    /// Somebody has heard of this session. On the loop.
    package func touch(_ session: Int64) {
        precondition(loop.isCurrent, "the keeper's state is touched on its loop")
        deadlines.touch(session, now: loop.clock.now)
    }

    // MARK: Sessions inside the process

    /// A new session whose callbacks run on `loop`. With `heartbeats` it lives for as long as that loop turns;
    /// without, `touch` keeps it alive.
    package func openSession(
        timeout: Interval, on loop: any EventLoop, heartbeats: Bool = true,
        completion: @escaping @Sendable (Result<EmbeddedSession, KeeperError>) -> Void
    ) {
        onLoop { [self] in
            let timeout = min(max(timeout, settings.shortestTimeout), settings.longestTimeout)
            guard case .open = phase else { return completion(.failure(unknownOutcome)) }
            guard tree.sessionCount + waitingSessions < settings.limits.sessions else {
                let limit = settings.limits.sessions
                return completion(.failure(KeeperError(.quotaExceeded, "the limit of \(limit) sessions is reached")))
            }
            let id = newSessionID()
            let record = SessionRecord(
                id: id, timeoutMilliseconds: Int32(timeout.milliseconds), password: [], boot: boot)
            waitingSessions += 1
            propose(.createSession(record)) { [self] applied in
                waitingSessions -= 1
                guard let applied else { return completion(.failure(unknownOutcome)) }
                guard applied.code == .ok else {
                    return completion(.failure(KeeperError(applied.code, "the session \(id) exists already")))
                }
                let session = EmbeddedSession(
                    id: id, timeout: timeout, loop: loop, keeper: self, hasHeartbeats: heartbeats)
                sessions[id] = session
                session.deliver { completion(.success(session)) }
            }
        }
    }

    package func openSession(
        timeout: Interval, on loop: any EventLoop, heartbeats: Bool = true
    ) async throws(KeeperError) -> EmbeddedSession {
        try await withUnsafeContinuation { continuation in
            openSession(timeout: timeout, on: loop, heartbeats: heartbeats) { continuation.resume(returning: $0) }
        }.get()
    }

    // MARK: What sessions ask, on the loop

    func write(
        _ transaction: KeeperTransaction, of session: EmbeddedSession,
        completion: @escaping (Result<Applied, KeeperError>) -> Void
    ) {
        if let refusal = refusal(of: transaction, by: session) { return completion(.failure(refusal)) }
        session.barrier = propose(transaction) { [self] applied in
            guard let applied else { return completion(.failure(unknownOutcome)) }
            completion(applied.code == .ok ? .success(applied) : .failure(applied.error(of: transaction)))
        }
    }

    private func refusal(of transaction: KeeperTransaction, by session: EmbeddedSession) -> KeeperError? {
        guard case .open = phase else { return unknownOutcome }
        if session.hasEnded { return session.endedError }
        if case .closeSession = transaction { return nil }
        let limits = settings.limits
        if replication.waitingCount >= limits.waitingTransactions || replication.waitingBytes >= limits.waitingBytes {
            return KeeperError(.throttledOp, "too many transactions wait for the keeper's log; try again later")
        }
        var bytes = 0
        for operation in transaction.operations {
            let (data, size) = operation.sizes
            if data > limits.dataBytes {
                return KeeperError(
                    .badArguments,
                    "\(operation.path): \(data) bytes of data, more than the limit of \(limits.dataBytes)")
            }
            bytes += size
        }
        if bytes > limits.transactionBytes {
            return KeeperError(
                .badArguments, "a transaction of \(bytes) bytes, more than the limit of \(limits.transactionBytes)")
        }
        let creations = transaction.creations
        if creations > 0, tree.nodeCount + waitingCreations + creations > limits.nodes {
            return KeeperError(.quotaExceeded, "the limit of \(limits.nodes) nodes is reached")
        }
        let growth = transaction.growth
        if growth > 0, tree.bytes + waitingGrowth + growth > limits.treeBytes {
            return KeeperError(.quotaExceeded, "the limit of \(limits.treeBytes) bytes in the tree is reached")
        }
        return nil
    }

    /// Runs `body` once the session sees its own writes, which it mostly does already.
    func afterWrites(of session: EmbeddedSession, everything: Bool = false, _ body: @escaping (KeeperError?) -> Void) {
        if case .open = phase {} else { return body(unknownOutcome) }
        if session.hasEnded { return body(session.endedError) }
        // a read that is made behind a sync comes behind it, also where nobody waited for the sync
        if everything { session.barrier = replication.lastProposed }
        let needed = session.barrier
        guard needed > tree.lastZxid else { return body(nil) }
        guard waitingReads < settings.limits.waitingReads else {
            return body(KeeperError(.throttledOp, "too many reads wait for the keeper's log; try again later"))
        }
        waitingReads += 1
        waiting[needed, default: []].append { [self] applied in
            waitingReads -= 1
            body(applied == nil ? unknownOutcome : session.hasEnded ? session.endedError : nil)
        }
    }

    func answer(
        _ query: KeeperQuery, watch watcher: Watcher?, of session: EmbeddedSession
    ) -> Result<KeeperAnswer, KeeperError> {
        let path = query.path
        if let fault = NodePath.fault(in: path) { return .failure(KeeperError(.badArguments, "\(path): \(fault)")) }
        if watcher != nil, let full = watchesFull { return .failure(full) }
        let node = NodePath(path)
        do throws(KeeperErrorCode) {
            switch query {
            case .data:
                let (data, stat) = try tree.data(node)
                if let watcher { watchData(node, watcher, session) }
                return .success(.data(data, stat))
            case .exists:
                if let watcher { watchData(node, watcher, session) }
                return .success(.exists(tree.stat(node)))
            case .children:
                let (names, stat) = try tree.children(node)
                if let watcher {
                    watches.watchChildren(node, session.id)
                    session.registry.watchChildren(node, watcher)
                }
                return .success(.children(names, stat))
            case .acl:
                let (acl, stat) = try tree.acl(node)
                return .success(.acl(acl, stat))
            }
        } catch { return .failure(KeeperError(error, "\(path): \(error)")) }
    }

    private func watchData(_ node: NodePath, _ watcher: Watcher, _ session: EmbeddedSession) {
        watches.watchData(node, session.id)
        session.registry.watchData(node, watcher)
    }

    private var watchesFull: KeeperError? {
        guard watches.count >= settings.limits.watches else { return nil }
        return KeeperError(.quotaExceeded, "the limit of \(settings.limits.watches) watches is reached")
    }

    func addWatch(_ path: String, _ mode: AddWatchMode, _ watcher: Watcher, of session: EmbeddedSession) -> KeeperError?
    {
        if let fault = NodePath.fault(in: path) { return KeeperError(.badArguments, "\(path): \(fault)") }
        if let full = watchesFull { return full }
        watches.add(NodePath(path), mode, session.id)
        session.registry.add(NodePath(path), mode, watcher)
        return nil
    }

    func removeWatch(_ path: String, _ kind: WatchKind, _ watcher: Watcher?, of session: EmbeddedSession)
        -> KeeperError?
    {
        let node = NodePath(path)
        let (removed, ended) = session.registry.remove(node, kind, watcher)
        guard removed else { return KeeperError(.noWatcher, "\(path): nobody watches it so") }
        for kind in ended { _ = watches.remove(node, kind, session.id) }
        return nil
    }

    // MARK: For the start block, metrics and tests

    package var lastZxid: Zxid {
        precondition(loop.isCurrent, "the keeper's state is read on its loop")
        return tree.lastZxid
    }

    /// On the loop.
    package var statistics: KeeperStatistics {
        precondition(loop.isCurrent, "the keeper's state is read on its loop")
        var statistics = KeeperStatistics(zxid: tree.lastZxid, writeLatency: replication.writeLatency)
        statistics.nodes = tree.nodeCount
        statistics.treeBytes = tree.bytes
        statistics.sessions = tree.sessionCount
        statistics.watches = watches.count
        statistics.waitingTransactions = replication.waitingCount
        return statistics
    }

    /// A copy of the tree as it is now. On the loop.
    package var snapshot: KeeperTree {
        precondition(loop.isCurrent, "the keeper's state is read on its loop")
        return tree
    }
}

extension KeeperTransaction {
    var operations: [KeeperOperation] {
        switch self {
        case .operation(_, let operation): [operation]
        case .multi(_, let operations): operations
        case .boot, .createSession, .closeSession: []
        }
    }

    /// How many bytes the tree may grow by; what is deleted does not count against it.
    var growth: Int {
        operations.reduce(0) {
            switch $1 {
            case .create(let path, let data, _, _): $0 + KeeperTree.cost(path.utf8.count + 10, data)
            case .setData(_, let data, _): $0 + (data?.count ?? 0)
            case .delete, .setACL, .check: $0
            }
        }
    }

    /// How many nodes it may add.
    var creations: Int {
        operations.count { if case .create = $0 { true } else { false } }
    }
}

extension KeeperOperation {
    /// The bytes of its data, and about how many it takes in a transaction.
    var sizes: (data: Int, total: Int) {
        var data: [UInt8]?
        var list: [ACL] = []
        switch self {
        case .create(_, let value, let acl, _): (data, list) = (value, acl)
        case .setData(_, let value, _): data = value
        case .setACL(_, let acl, _): list = acl
        case .delete, .check: break
        }
        let count = data?.count ?? 0
        let lists = list.reduce(0) { $0 + 16 + $1.scheme.utf8.count + $1.id.utf8.count }
        return (count, count + lists + path.utf8.count + 24)
    }
}

extension KeeperQuery {
    var path: String {
        switch self {
        case .data(let path), .exists(let path), .children(let path), .acl(let path): path
        }
    }
}

extension Applied {
    /// Why a transaction was refused, in words.
    func error(of transaction: KeeperTransaction) -> KeeperError {
        let operations = transaction.operations
        let codes = results.map { if case .failed(let code) = $0 { code } else { KeeperErrorCode.ok } }
        guard let index = codes.firstIndex(where: { $0 == code }), index < operations.count else {
            return KeeperError(code, "\(code)")
        }
        let path = operations[index].path
        var reason = "\(code)"
        if code == .badArguments, let fault = NodePath.fault(in: path) { reason = fault }
        guard case .multi = transaction else { return KeeperError(code, "\(path): \(reason)") }
        return KeeperError(code, "operation \(index) of a multi, \(path): \(reason)", operations: codes)
    }
}
