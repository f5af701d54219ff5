package import MartletBasics
package import MartletReactor

/// What stands between a proposal and the tree: it gives every transaction its place in the one order, and makes it
/// durable on as many machines as it takes. Everything is called on the keeper's loop.
package protocol KeeperReplication: AnyObject {
    /// Called for every transaction once it is decided, in the order of zxids, without gaps, whoever proposed it.
    var onDecided: ((DecidedTransaction) -> Void)? { get set }
    /// Called once, when nothing more will be decided here, and why. What was proposed and is not decided may be
    /// decided or not.
    var onFatal: ((KeeperError) -> Void)? { get set }
    /// The last that was proposed here, or decided before.
    var lastProposed: Zxid { get }
    /// Proposed and not decided.
    var waitingCount: Int { get }
    /// How long it took to make groups of transactions durable.
    var writeLatency: Histogram { get }
    var waitingBytes: Int { get }

    /// Gives the transaction its zxid. That it returns does not mean that it is decided.
    func propose(_ transaction: KeeperTransaction) -> Zxid
    /// Called when everything up to a decided transaction is applied, and may begin a snapshot.
    func didApply(_ tree: borrowing KeeperTree)
    /// Called by the keeper now and then while it has nothing else to do.
    func idle()
    /// No callback comes after `stopped`.
    func stop(_ stopped: @escaping () -> Void)
}

package struct KeeperSettings: Sendable {
    /// Where log and snapshots lie.
    package var directory: String
    /// A snapshot is begun after so many transactions, or so many bytes of log, since the last.
    package var snapshotTransactions = 10_000
    package var snapshotLogBytes = 64 << 20
    package var snapshotsKept = 3
    /// Sessions are looked over so often.
    package var tick = Interval.milliseconds(500)
    /// What a client may ask for as its session's timeout.
    package var shortestTimeout = Interval.milliseconds(1_000)
    package var longestTimeout = Interval.seconds(120)
    package var limits = KeeperLimits()

    package init(directory: String) { self.directory = directory }
}

/// The quorum of one: a transaction is decided when it is durable in this machine's own log.
///
/// One write is in flight at a time; what is proposed meanwhile is the next group, one write and one sync for all of
/// it. Snapshots are written on a lane of their own and never delay the log.
///
/// Unchecked: all of it is touched on the keeper's loop only; what runs on a lane is given values.
package final class SingleReplica: KeeperReplication, @unchecked Sendable {
    private let store: KeeperStore
    private let settings: KeeperSettings
    private let loop: any EventLoop
    private let logLane: any Lane
    private let snapshotLane: any Lane

    package var onDecided: ((DecidedTransaction) -> Void)?
    package var onFatal: ((KeeperError) -> Void)?
    package private(set) var lastProposed: Zxid

    /// The group that the next write takes, and its bytes.
    private var group: [DecidedTransaction] = []
    private var groupBytes = ByteBuffer(capacity: 4096)
    private var flying: [DecidedTransaction] = []
    private var flyingBytes = 0
    private var isWriting = false
    private var writeBegan = Instant(nanoseconds: 0)
    package private(set) var writeLatency = Histogram(.latency)
    private var isTurnArmed = false

    private var file: (any DiskFile)?
    private var fileSize: Int64 = 0
    /// Whether the last group in the file is proved durable by something behind it.
    private var isSealed = true
    /// Whether anything was decided since the last call of `idle`.
    private var wasBusy = false

    private var transactionsSinceSnapshot: Int
    private var bytesSinceSnapshot = 0
    private var isWritingSnapshot = false
    private var hasFailed = false
    private var stopped: (() -> Void)?
    /// The disk is full: what is to be written is tried again at intervals, and everybody waits.
    private var isWaitingForRoom = false
    private static let roomCheckInterval = Interval.milliseconds(500)

    /// Why a write did not come about.
    private enum WriteFault: Error {
        /// The disk is full; nothing of the bytes is left in the file.
        case noRoom(SystemError)
        case failed(SystemError)
    }

    /// Continues behind what was recovered, in a new file and a new epoch.
    package init(
        store: KeeperStore, recovered: borrowing KeeperStore.Recovered, settings: KeeperSettings, host: any Host,
        loop: any EventLoop
    ) {
        self.store = store
        self.settings = settings
        self.loop = loop
        logLane = host.makeLane("keeper-log", threads: 1, limit: 4)
        snapshotLane = host.makeLane("keeper-snapshot", threads: 1, limit: 4)
        let last = recovered.tree.lastZxid
        // the first proposal is the first of the next epoch
        lastProposed = Zxid(rawValue: last.firstOfNextEpoch.rawValue - 1)
        transactionsSinceSnapshot = recovered.replayed
    }

    package var waitingCount: Int { group.count + flying.count }
    package var waitingBytes: Int { groupBytes.count + flyingBytes }

    package func propose(_ transaction: KeeperTransaction) -> Zxid {
        precondition(loop.isCurrent, "proposals are made on the keeper's loop")
        lastProposed = lastProposed.next
        let decided = DecidedTransaction(
            zxid: lastProposed, time: loop.clock.wallMilliseconds, transaction: transaction)
        KeeperLog.append(decided, group: group.first?.zxid ?? decided.zxid, to: &groupBytes)
        group.append(decided)
        armTurn()
        return lastProposed
    }

    private func armTurn() {
        guard !isTurnArmed, !isWriting, !hasFailed else { return }
        isTurnArmed = true
        loop.atEndOfTurn { [self] in
            isTurnArmed = false
            writeGroup()
        }
    }

    private func writeGroup() {
        guard !isWriting, !hasFailed, !group.isEmpty else { return }
        let bytes = groupBytes.array
        flying = group
        flyingBytes = bytes.count
        group = []
        groupBytes.reset()
        isSealed = false
        write(bytes, startingWith: flying[0].zxid, syncing: true)
    }

    private func write(_ bytes: [UInt8], startingWith first: Zxid, syncing: Bool) {
        isWriting = true
        writeBegan = loop.clock.now
        let (store, file, offset) = (store, file, fileSize)
        fileSize = (file == nil ? Int64(KeeperLog.headerSize) : offset) + Int64(bytes.count)
        bytesSinceSnapshot += bytes.count
        let isQueued = logLane.submit(
            { Self.append(bytes, to: file, at: offset, first, store, syncing: syncing) }, on: loop
        ) { [self] result in
            // the completion runs on the loop, which is where all of this object lives
            if case .failure(.noRoom(let cause)) = result {
                fileSize = offset
                bytesSinceSnapshot -= bytes.count
                waitForRoom(bytes, startingWith: first, syncing: syncing, cause)
            } else {
                written(result)
            }
        }
        precondition(isQueued, "one write of the keeper's log is in flight at a time")
    }

    /// On the lane.
    private static func append(
        _ bytes: [UInt8], to file: (any DiskFile)?, at offset: Int64, _ first: Zxid, _ store: KeeperStore, syncing: Bool
    ) -> Result<any DiskFile, WriteFault> {
        let path = store.path(KeeperLog.name(first))
        let opened: any DiskFile
        do throws(SystemError) {
            if let file { opened = file } else { opened = try store.disk.open(path, .createNew) }
        } catch { return .failure(error.kind == .noSpace ? .noRoom(error) : .failed(error)) }
        do throws(SystemError) {
            try opened.write(array: file == nil ? KeeperLog.header(first) + bytes : bytes, at: file == nil ? 0 : offset)
        } catch {
            // a part of it may be there, and must not be when the next attempt is cut short too
            let isUndone: ()? = file == nil ? try? store.disk.remove(path) : try? opened.truncate(to: offset)
            return .failure(error.kind == .noSpace && isUndone != nil ? .noRoom(error) : .failed(error))
        }
        // after a sync that failed nothing is known of what was written: that is for good, whatever the reason
        do throws(SystemError) {
            if syncing { try opened.sync() }
            if file == nil { try store.disk.syncDirectory(store.directory) }
            return .success(opened)
        } catch { return .failure(.failed(error)) }
    }

    /// The disk is full. A change that nobody was told of can wait until there is room; a mere seal is left out.
    private func waitForRoom(_ bytes: [UInt8], startingWith first: Zxid, syncing: Bool, _ cause: SystemError) {
        guard syncing else {
            isWriting = false
            isSealed = false
            if group.isEmpty { finishStopping() } else { writeGroup() }
            return
        }
        guard stopped == nil else { return written(.failure(.failed(cause))) }
        if !isWaitingForRoom {
            store.logger.error(
                "the disk is full: topics cannot be created, deleted or changed until there is room; free some",
                ("directory", store.directory), ("reason", cause.description))
        }
        isWaitingForRoom = true
        loop.schedule(after: Self.roomCheckInterval) { [self] in
            guard isWaitingForRoom, !hasFailed else { return }
            write(bytes, startingWith: first, syncing: true)
        }
    }

    private func written(_ result: Result<any DiskFile, WriteFault>) {
        isWriting = false
        isWaitingForRoom = false
        switch result {
        case .failure(.noRoom(let cause)), .failure(.failed(let cause)):
            fail(.disk("the keeper's log cannot be written; what was asked since is not acknowledged", cause))
        case .success(let opened):
            file = opened
            let decided = flying
            flying = []
            flyingBytes = 0
            transactionsSinceSnapshot += decided.count
            wasBusy = wasBusy || !decided.isEmpty
            // a seal is synced by nobody
            if !decided.isEmpty { writeLatency.record(loop.clock.now - writeBegan) }
            for transaction in decided { onDecided?(transaction) }
        }
        if !hasFailed, !isWriting {
            if group.isEmpty { finishStopping() } else { writeGroup() }
        }
    }

    private func fail(_ error: KeeperError) {
        hasFailed = true
        let told = onFatal
        onFatal = nil
        onDecided = nil
        told?(error)
        finishStopping()
    }

    // MARK: Snapshots

    package func didApply(_ tree: borrowing KeeperTree) {
        guard !isWritingSnapshot, !hasFailed, stopped == nil,
            transactionsSinceSnapshot >= settings.snapshotTransactions
                || bytesSinceSnapshot >= settings.snapshotLogBytes
        else { return }
        isWritingSnapshot = true
        transactionsSinceSnapshot = 0
        bytesSinceSnapshot = 0
        // the next group begins a new file, so that this one can go once snapshots cover it
        file = nil
        let (store, kept, zxid) = (store, settings.snapshotsKept, tree.lastZxid)
        let bytes = KeeperSnapshot.encode(copy tree)
        let isQueued = snapshotLane.submit(
            { () -> SystemError? in
                do throws(SystemError) {
                    try store.write(snapshot: bytes, at: zxid, keeping: kept)
                    return nil
                } catch { return error }
            }, on: loop
        ) { [self] failure in
            isWritingSnapshot = false
            if let failure {
                store.logger.error(
                    "a snapshot could not be written; the log goes on and the next is tried later", ("zxid", "\(zxid)"),
                    ("why", "\(failure)"))
            }
            finishStopping()
        }
        precondition(isQueued, "one snapshot is in flight at a time")
    }

    package func idle() {
        let busy = wasBusy
        wasBusy = false
        if !busy { seal() }
    }

    private func seal() {
        guard !isSealed, !isWriting, group.isEmpty, !hasFailed, file != nil else { return }
        isSealed = true
        write(KeeperLog.seal(after: lastProposed), startingWith: lastProposed.next, syncing: false)
    }

    // MARK: The end

    package func stop(_ stopped: @escaping () -> Void) {
        precondition(self.stopped == nil, "a replica is stopped once")
        self.stopped = stopped
        if isWaitingForRoom {
            isWriting = false
            isWaitingForRoom = false
            let cause = SystemError(.noSpace, code: 0, operation: "write", subject: store.directory, reason: "the disk is full")
            fail(.disk("the keeper's log cannot be written; what was asked since is not acknowledged", cause))
        } else {
            finishStopping()
        }
    }

    private func finishStopping() {
        guard stopped != nil, !isWriting, !isWritingSnapshot, hasFailed || group.isEmpty else { return }
        seal()
        guard !isWriting, let stopped else { return }
        self.stopped = {}
        onDecided = nil
        onFatal = nil
        stopped()
    }
}

extension DiskFile {
    fileprivate func write(array bytes: [UInt8], at offset: Int64) throws(SystemError) {
        var failure: SystemError?
        bytes.withUnsafeBytes { buffer in
            do throws(SystemError) { try write(buffer, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }
}
