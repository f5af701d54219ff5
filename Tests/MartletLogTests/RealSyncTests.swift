import Glibc
import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import Synchronization
import Testing

/// A log that threads of several loops append to, each append waiting for its sync before the next, on the real disk.
private final class SharedLog: SyncParticipant, @unchecked Sendable {
    let arming = SyncArming()
    private let file: any DiskFile
    private let lock = Lock()
    // Guarded by `lock`:
    private var end: Offset = 0
    private var durable: Offset = 0
    private var hasUnsynced = false
    private var waiters: [(offset: Offset, loop: any EventLoop, work: @Sendable () -> Void)] = []
    private let syncer: Syncer

    init(_ file: any DiskFile, _ syncer: Syncer) { (self.file, self.syncer) = (file, syncer) }

    func append(on loop: any EventLoop, _ work: @escaping @Sendable () -> Void) {
        lock.withLock {
            do { try [UInt8](repeating: 1, count: 1024).withUnsafeBytes { try file.write($0, at: end * 1024) } } catch {
                Issue.record("\(error)")
            }
            end += 1
            hasUnsynced = true
            waiters.append((end, loop, work))
            // under the lock on purpose: nothing is called back from here
            syncer.arm(self, urgent: true)
        }
    }

    func takeUnsynced() -> UnsyncedWrites? {
        lock.withLock {
            guard hasUnsynced else { return nil }
            hasUnsynced = false
            return UnsyncedWrites(files: [file], folders: [], endOffset: end, generation: 0, bytes: 1024)
        }
    }

    func synced(_ writes: UnsyncedWrites) {
        let ready = lock.withLock {
            durable = max(durable, writes.endOffset)
            let ready = waiters.filter { $0.offset <= durable }
            waiters.removeAll { $0.offset <= durable }
            return ready
        }
        for waiter in ready { waiter.loop.execute(waiter.work) }
    }

    func syncFailed(_: UnsyncedWrites, _ error: SystemError) { Issue.record("\(error)") }
}

@Suite struct SyncsOnTheRealDisk {
    @Test func appendsOfSeveralLoopsAreAllAnswered() throws {
        var template = Array("/tmp/martlet-sync-XXXXXX".utf8CString)
        let path = try String(cString: #require(mkdtemp(&template)))
        let host = try RealHost(loops: 2, log: SilentLog())
        defer {
            host.stop()
            try? host.disk.removeTree(path)
        }
        let syncer = Syncer(
            disk: host.disk, path: path, lane: host.makeLane("sync", threads: 4, limit: 64), loop: host.loops[0]
        ) {
            Issue.record("\($0)")
        }
        let logs = try (0..<3).map { SharedLog(try host.disk.open("\(path)/\($0).log", .create), syncer) }
        let rounds = 40
        let answered = Atomic<Int>(0)
        @Sendable func produce(_ client: Int, _ round: Int) {
            guard round < rounds else { return }
            let loop = host.loops[client % 2]
            logs[client % 3].append(on: loop) {
                answered.wrappingAdd(1, ordering: .relaxed)
                produce(client, round + 1)
            }
        }
        for client in 0..<12 { host.loops[client % 2].execute { produce(client, 0) } }
        let deadline = host.clock.now + .seconds(60)
        while answered.load(ordering: .relaxed) < 12 * rounds, host.clock.now < deadline { usleep(1000) }
        #expect(answered.load(ordering: .relaxed) == 12 * rounds)
        let statistics = syncer.statistics
        #expect(statistics.cycles < 12 * rounds, "appends share cycles")
        #expect(statistics.latency.total == statistics.cycles)
    }
}
