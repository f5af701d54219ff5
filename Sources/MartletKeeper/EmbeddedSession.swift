package import MartletBasics
package import MartletReactor

/// A session with the keeper in the same process.
///
/// Unchecked: `registry`, `barrier` and the flags belong to the keeper's loop; `shared` is guarded by its lock.
package final class EmbeddedSession: KeeperSession, @unchecked Sendable {
    package let id: Int64
    package let timeout: Interval
    package let loop: any EventLoop
    private let keeper: EmbeddedKeeper
    private let hasHeartbeats: Bool

    // On the keeper's loop.
    var registry = WatcherRegistry()
    /// Its last write or sync; reads come behind it.
    var barrier = Zxid.zero
    private(set) var hasEnded = false
    private var isHeartbeatUnderway = false

    private let lock = Lock()
    private var sharedState = KeeperSessionState.connected
    private var sharedHandler: (@Sendable (KeeperSessionState) -> Void)?

    init(id: Int64, timeout: Interval, loop: any EventLoop, keeper: EmbeddedKeeper, hasHeartbeats: Bool) {
        self.id = id
        self.timeout = timeout
        self.loop = loop
        self.keeper = keeper
        self.hasHeartbeats = hasHeartbeats
    }

    package var state: KeeperSessionState { lock.withLock { sharedState } }

    package var onStateChange: (@Sendable (KeeperSessionState) -> Void)? {
        get { lock.withLock { sharedHandler } }
        set { lock.withLock { sharedHandler = newValue } }
    }

    /// Runs a callback where the user expects it. All callbacks go this way, and so keep their order.
    func deliver(_ work: @escaping @Sendable () -> Void) {
        if loop === keeper.loop { work() } else { loop.execute(work) }
    }

    // MARK: From the keeper, on its loop

    func tell(_ event: WatchEvent) {
        for watcher in registry.watchers(of: event) { deliver { watcher.handle(event) } }
    }

    func become(_ state: KeeperSessionState) {
        if state == .expired || state == .closed {
            hasEnded = true
            registry = WatcherRegistry()
        }
        deliver { [self] in
            let handler = lock.withLock {
                sharedState = state
                return sharedHandler
            }
            handler?(state)
        }
    }

    var endedError: KeeperError { KeeperError(.sessionExpired, "the session has ended; open another") }

    /// Asks the session's loop whether it still turns.
    func heartbeat() {
        guard hasHeartbeats, !isHeartbeatUnderway else { return }
        if loop === keeper.loop { return keeper.touch(id) }
        isHeartbeatUnderway = true
        loop.execute { [self] in
            keeper.loop.execute { [self] in
                isHeartbeatUnderway = false
                keeper.touch(id)
            }
        }
    }

    /// Keeps the session alive. From any thread.
    package func touch() {
        keeper.onLoop { [self] in keeper.touch(id) }
    }

    // MARK: From the user

    package func propose(
        _ operation: KeeperOperation, completion: @escaping @Sendable (Result<OperationResult, KeeperError>) -> Void
    ) {
        write(.operation(session: id, operation)) { result in completion(result.map { $0[0] }) }
    }

    package func propose(
        multi operations: [KeeperOperation],
        completion: @escaping @Sendable (Result<[OperationResult], KeeperError>) -> Void
    ) {
        write(.multi(session: id, operations), completion)
    }

    private func write(
        _ transaction: KeeperTransaction,
        _ completion: @escaping @Sendable (Result<[OperationResult], KeeperError>) -> Void
    ) {
        keeper.onLoop { [self] in
            keeper.write(transaction, of: self) { [self] result in
                let results = result.map(\.results)
                deliver { completion(results) }
            }
        }
    }

    package func read(
        _ query: KeeperQuery, watch watcher: Watcher?,
        completion: @escaping @Sendable (Result<KeeperAnswer, KeeperError>) -> Void
    ) {
        keeper.onLoop { [self] in
            keeper.afterWrites(of: self) { [self] error in
                let answer = error.map { .failure($0) } ?? keeper.answer(query, watch: watcher, of: self)
                deliver { completion(answer) }
            }
        }
    }

    package func addWatch(
        _ path: String, _ mode: AddWatchMode, _ watcher: Watcher,
        completion: @escaping @Sendable (Result<Void, KeeperError>) -> Void
    ) {
        keeper.onLoop { [self] in
            keeper.afterWrites(of: self) { [self] error in
                finish(error ?? keeper.addWatch(path, mode, watcher, of: self), completion)
            }
        }
    }

    package func removeWatch(
        _ path: String, _ kind: WatchKind, _ watcher: Watcher?,
        completion: @escaping @Sendable (Result<Void, KeeperError>) -> Void
    ) {
        keeper.onLoop { [self] in
            keeper.afterWrites(of: self) { [self] error in
                finish(error ?? keeper.removeWatch(path, kind, watcher, of: self), completion)
            }
        }
    }

    package func sync(_ path: String, completion: @escaping @Sendable (Result<Void, KeeperError>) -> Void) {
        keeper.onLoop { [self] in
            keeper.afterWrites(of: self, everything: true) { [self] error in finish(error, completion) }
        }
    }

    package func close(completion: @escaping @Sendable () -> Void) {
        keeper.onLoop { [self] in
            keeper.write(.closeSession(id: id, expired: false), of: self) { [self] _ in deliver(completion) }
        }
    }

    private func finish(_ error: KeeperError?, _ completion: @escaping @Sendable (Result<Void, KeeperError>) -> Void) {
        deliver { completion(error.map { .failure($0) } ?? .success(())) }
    }
}
