package import MartletBasics
package import MartletReactor

package enum KeeperSessionState: Sendable, Equatable {
    /// Requests are served.
    case connected
    /// The keeper cannot be reached; the session may live or end meanwhile. Can become connected or expired.
    case suspended
    /// The keeper has ended the session: its ephemeral nodes are gone and so are its watches. For good.
    case expired
    /// Closed by its owner. For good.
    case closed
}

/// What is asked without changing anything.
package enum KeeperQuery: Equatable, Sendable {
    case data(path: String)
    case exists(path: String)
    case children(path: String)
    case acl(path: String)
}

package enum KeeperAnswer: Equatable, Sendable {
    case data([UInt8]?, Stat)
    /// Nil: there is no such node.
    case exists(Stat?)
    /// Names, sorted by their bytes.
    case children([String], Stat)
    case acl([ACL], Stat)
}

/// A session with the coordination service, wherever that is. Users do not know which implementation they have.
///
/// What a session promises, as ZooKeeper does: its requests are carried out in the order in which they were made; a
/// read sees all its own earlier writes; every callback runs on the session's loop, in order; a watcher hears of a
/// change before any answer that shows that change or a later one arrives. Requests may be made from any thread, and
/// keep the order of the thread.
///
/// The callback forms below are what an implementation provides. The asynchronous ones in the extension are made of
/// them: called from a task that prefers the session's loop, they never leave it.
package protocol KeeperSession: AnyObject, Sendable {
    var id: Int64 { get }
    var loop: any EventLoop { get }
    var timeout: Interval { get }
    var state: KeeperSessionState { get }
    /// Called on the session's loop. Set before the session is used.
    var onStateChange: (@Sendable (KeeperSessionState) -> Void)? { get set }

    func propose(
        _ operation: KeeperOperation, completion: @escaping @Sendable (Result<OperationResult, KeeperError>) -> Void)
    /// All of the operations or none.
    func propose(
        multi operations: [KeeperOperation],
        completion: @escaping @Sendable (Result<[OperationResult], KeeperError>) -> Void)
    /// A watcher given with `data` or `children` is registered if the node exists, with `exists` in any case; it is
    /// told once.
    func read(
        _ query: KeeperQuery, watch watcher: Watcher?,
        completion: @escaping @Sendable (Result<KeeperAnswer, KeeperError>) -> Void)
    func addWatch(
        _ path: String, _ mode: AddWatchMode, _ watcher: Watcher,
        completion: @escaping @Sendable (Result<Void, KeeperError>) -> Void)
    /// `noWatcher` where there is none. Without a watcher: all of that kind.
    func removeWatch(
        _ path: String, _ kind: WatchKind, _ watcher: Watcher?,
        completion: @escaping @Sendable (Result<Void, KeeperError>) -> Void)
    /// Completes when this session sees everything that any session was answered before.
    func sync(_ path: String, completion: @escaping @Sendable (Result<Void, KeeperError>) -> Void)
    /// Ends the session and removes its ephemeral nodes. Completes also where the session had ended already.
    func close(completion: @escaping @Sendable () -> Void)
}

extension KeeperSession {
    package func create(
        _ path: String, _ data: [UInt8]?, _ mode: CreateMode = .persistent, acl: [ACL] = ACL.open
    ) async throws(KeeperError) -> (path: String, stat: Stat) {
        guard
            case .created(let path, let stat) = try await perform(.create(path: path, data: data, acl: acl, mode: mode))
        else { preconditionFailure("a creation is answered as one") }
        return (path, stat)
    }

    package func get(
        _ path: String, watch: Watcher? = nil
    ) async throws(KeeperError) -> (data: [UInt8]?, stat: Stat) {
        guard case .data(let data, let stat) = try await answer(.data(path: path), watch) else {
            preconditionFailure("data is answered with data")
        }
        return (data, stat)
    }

    package func exists(_ path: String, watch: Watcher? = nil) async throws(KeeperError) -> Stat? {
        guard case .exists(let stat) = try await answer(.exists(path: path), watch) else {
            preconditionFailure("existence is answered with existence")
        }
        return stat
    }

    package func children(
        _ path: String, watch: Watcher? = nil
    ) async throws(KeeperError) -> (names: [String], stat: Stat) {
        guard case .children(let names, let stat) = try await answer(.children(path: path), watch) else {
            preconditionFailure("children are answered with children")
        }
        return (names, stat)
    }

    package func acl(_ path: String) async throws(KeeperError) -> (acl: [ACL], stat: Stat) {
        guard case .acl(let acl, let stat) = try await answer(.acl(path: path), nil) else {
            preconditionFailure("an access list is answered with one")
        }
        return (acl, stat)
    }

    // By way of a `Result`: a release build of Swift 6.3.1 returned garbage for the `Stat` that was taken
    // right out of a call with typed errors.
    package func set(_ path: String, _ data: [UInt8]?, version: Int32 = -1) async throws(KeeperError) -> Stat {
        try newStat(await outcome(of: .setData(path: path, data: data, version: version)))
    }

    package func setACL(_ path: String, _ acl: [ACL], version: Int32 = -1) async throws(KeeperError) -> Stat {
        try newStat(await outcome(of: .setACL(path: path, acl: acl, version: version)))
    }

    private func newStat(_ outcome: Result<OperationResult, KeeperError>) throws(KeeperError) -> Stat {
        guard case .set(let stat) = try outcome.get() else { preconditionFailure("a change is answered with the new stat") }
        return stat
    }

    package func delete(_ path: String, version: Int32 = -1) async throws(KeeperError) {
        _ = try await perform(.delete(path: path, version: version))
    }

    /// All of the operations or none; the error of a refused one tells the code of each in `operations`.
    package func multi(_ operations: [KeeperOperation]) async throws(KeeperError) -> [OperationResult] {
        try await withUnsafeContinuation { continuation in
            propose(multi: operations) { continuation.resume(returning: $0) }
        }.get()
    }

    package func addWatch(_ path: String, _ mode: AddWatchMode, _ watcher: Watcher) async throws(KeeperError) {
        try await withUnsafeContinuation { continuation in
            addWatch(path, mode, watcher) { continuation.resume(returning: $0) }
        }.get()
    }

    package func removeWatch(_ path: String, _ kind: WatchKind, _ watcher: Watcher? = nil) async throws(KeeperError) {
        try await withUnsafeContinuation { continuation in
            removeWatch(path, kind, watcher) { continuation.resume(returning: $0) }
        }.get()
    }

    package func sync(_ path: String = "/") async throws(KeeperError) {
        try await withUnsafeContinuation { continuation in
            sync(path) { continuation.resume(returning: $0) }
        }.get()
    }

    package func close() async {
        await withUnsafeContinuation { continuation in
            close { continuation.resume() }
        }
    }

    private func perform(_ operation: KeeperOperation) async throws(KeeperError) -> OperationResult {
        try await outcome(of: operation).get()
    }

    private func outcome(of operation: KeeperOperation) async -> Result<OperationResult, KeeperError> {
        await withUnsafeContinuation { continuation in
            propose(operation) { continuation.resume(returning: $0) }
        }
    }

    private func answer(_ query: KeeperQuery, _ watcher: Watcher?) async throws(KeeperError) -> KeeperAnswer {
        try await withUnsafeContinuation { continuation in
            read(query, watch: watcher) { continuation.resume(returning: $0) }
        }.get()
    }
}
