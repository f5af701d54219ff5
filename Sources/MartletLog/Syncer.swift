package import MartletBasics
package import MartletReactor
internal import Synchronization

/// The group commit of one log directory.
///
/// Writers arm it. A *cycle* takes all participants that were armed since the last, asks each what it wrote, syncs that
/// by the cheapest means, and tells each that its writes are durable. One cycle runs at a time; what is armed meanwhile
/// makes up the next.
///
///     idle ── armed, urgent ──────────> start queued (end of the loop's turn, so that the whole turn shares the cycle) ──> running
///     idle ── armed, nobody waits ────> timer, `delay` after the first ──> running
///     running ── all parts done ──────> published; then as from idle, the age of the first armed counted
///
/// A handful of files is synced by parallel `fdatasync` on the lane, more than `fileSystemThreshold` by one `syncfs`: a
/// thousand files take 20 to 120 ms so, and up to a second one by one. A single file costs one hand-off to the lane and
/// back.
///
/// Where somebody waits, one file is all there is to sync, the disk has been quick and the loop has nothing else to do, the
/// loop syncs it itself: the hand-off would cost as much as the sync (docs/design/sync-in-place.md).
///
/// After a failed sync the writes behind it are lost or not, nobody can tell, and a later success would mean nothing
/// for them. So the participants concerned hear `syncFailed`, the directory is reported as failed, and every later
/// cycle fails without touching the disk.
package final class Syncer: @unchecked Sendable {
    package struct Settings: Sendable {
        /// How old the first unsynced append may be when its sync begins, where nobody waits for it:
        /// `martlet.sync.delay.ms`.
        package var delay: Interval = .milliseconds(2)
        /// Files that are synced at once; more than the lane has threads gains nothing.
        package var parallelism = 8
        /// With more files (and folders) than this the whole file system is synced instead.
        package var fileSystemThreshold = 64
        /// What takes longer is a slow sync; zero: the loop never syncs by itself.
        package var quickLimit = Interval.milliseconds(1)
        package var planted: PlantedBugs = []
        package init() {}
    }

    /// A full lane is asked again after this long.
    private static let refusedDelay = Interval.milliseconds(1)

    private struct Work {
        var participant: any SyncParticipant
        var writes: UnsyncedWrites
    }

    private enum Next { case nothing, start, timer(Interval) }

    private let disk: any Disk
    private let path: String
    private let lane: any Lane
    private let loop: any EventLoop
    private let settings: Settings
    private let failed: @Sendable (SystemError) -> Void

    private let lock = Lock()
    // Guarded by `lock`:
    private var armed: [any SyncParticipant] = []
    private var firstArmed = Instant(nanoseconds: 0)
    private var isUrgent = false
    private var isStartQueued = false
    private var isTimerSet = false
    private var isRunning = false
    /// The number of the cycle that runs, or ran last.
    private var cycle: UInt64 = 0
    private var drains: [(cycle: UInt64, then: @Sendable () -> Void)] = []
    private var counts = SyncStatistics()

    // On the loop only:
    private var taken: [any SyncParticipant] = []
    private var works: [Work] = []
    private var jobs = SyncJobs()
    private var faults: [SyncFault] = []
    private var partsRunning = 0
    private var partsLeft = 0..<0
    private var began = Instant(nanoseconds: 0)
    private var failure: SystemError?
    private var isAwaited = false
    private var wasQuick = false
    private var stalls = StallAllowance()

    /// `failed` is called once, on the loop, with the first sync that the disk refused.
    package init(
        disk: any Disk, path: String, lane: any Lane, loop: any EventLoop, settings: Settings = Settings(),
        failed: @escaping @Sendable (SystemError) -> Void
    ) {
        precondition(settings.parallelism > 0 && settings.fileSystemThreshold > 0, "a sync needs a thread and a file")
        self.disk = disk
        self.path = path
        self.lane = lane
        self.loop = loop
        self.settings = settings
        self.failed = failed
    }

    package var statistics: SyncStatistics { lock.withLock { counts } }

    // MARK: Arming

    /// The participant has written. From any thread, also while the participant's own lock is held: nothing is called
    /// back from here. After each write; where it is armed already this costs one load.
    ///
    /// Why the load needs no ordering: the cycle puts the level down *before* it takes the participant's lock in
    /// `takeUnsynced`. A write that this call did not see taken was therefore made after the level went down, and the
    /// call sees that.
    @inline(__always)
    package func arm(_ participant: some SyncParticipant, urgent: Bool) {
        let arming = participant.arming
        if arming.level.load(ordering: .relaxed) < (urgent ? 2 : 1) { arm(participant, arming, urgent: urgent) }
    }

    @inline(never)
    private func arm(_ participant: any SyncParticipant, _ arming: SyncArming, urgent: Bool) {
        let next: Next = lock.withLock {
            let before = arming.level.load(ordering: .relaxed)
            arming.level.store(max(before, urgent ? 2 : 1), ordering: .relaxed)
            if before == 0 {
                if armed.isEmpty { firstArmed = loop.clock.now }
                armed.append(participant)
            }
            if urgent { isUrgent = true }
            return plan()
        }
        perform(next)
    }

    /// Calls `then` on the loop when everything that was armed until now is synced, or has failed. Does not wait for
    /// the delay.
    package func drain(then: @escaping @Sendable () -> Void) {
        let (isDone, next): (Bool, Next) = lock.withLock {
            guard isRunning || !armed.isEmpty else { return (true, .nothing) }
            drains.append((armed.isEmpty ? cycle : cycle + 1, then))
            if !armed.isEmpty { isUrgent = true }
            return (false, plan())
        }
        if isDone { loop.execute(then) } else { perform(next) }
    }

    /// What must be set going; the lock is held. What is already under way is not begun twice.
    private func plan() -> Next {
        guard !isRunning, !armed.isEmpty else { return .nothing }
        let rest = settings.delay - (loop.clock.now - firstArmed)
        if isUrgent || rest <= .zero {
            if isStartQueued { return .nothing }
            isStartQueued = true
            return .start
        }
        if isTimerSet || isStartQueued { return .nothing }
        isTimerSet = true
        return .timer(rest)
    }

    private func perform(_ next: Next) {
        switch next {
        case .nothing: break
        case .start where loop.isCurrent: queueStart()
        case .start: loop.execute { self.queueStart() }
        case .timer(let rest) where loop.isCurrent: loop.schedule(after: rest) { self.timerFired() }
        case .timer(let rest): loop.execute { self.loop.schedule(after: rest) { self.timerFired() } }
        }
    }

    /// At the end of the turn, behind the appends that were put off to it, so that they are part of the cycle.
    private func queueStart() {
        loop.atEndOfTurn { self.loop.atEndOfTurn { self.startCycle() } }
    }

    private func timerFired() {
        perform(
            lock.withLock {
                isTimerSet = false
                return plan()
            })
    }

    // MARK: A cycle, on the loop

    private func startCycle() {
        precondition(loop.isCurrent, "a cycle begins on the syncer's loop")
        lock.withLock {
            precondition(!isRunning && works.isEmpty, "one sync cycle at a time")
            isStartQueued = false
            isAwaited = isUrgent
            isUrgent = false
            isRunning = true
            cycle += 1
            swap(&armed, &taken)
            for participant in taken { participant.arming.level.store(0, ordering: .relaxed) }
        }
        for participant in taken {
            guard let writes = participant.takeUnsynced() else { continue }
            works.append(Work(participant: participant, writes: writes))
            jobs.folders.append(contentsOf: writes.folders)
            jobs.files.append(contentsOf: writes.files)
        }
        taken.removeAll(keepingCapacity: true)
        began = loop.clock.now
        if settings.planted.contains(.skippedSync) { jobs.files.removeAll() }
        if failure != nil || jobs.count == 0 {
            finish()
        } else if mayRunInPlace {
            faults = jobs.run(from: 0, by: 1, in: path, on: disk)
            finish(inPlace: true)
        } else {
            begin()
        }
    }

    private var mayRunInPlace: Bool {
        isAwaited && jobs.count == 1 && wasQuick && stalls.isLeft(at: began) && loop.hasNothingReady
    }

    /// Each part takes every n-th job: which is which is settled here, so that it does not depend on how threads run.
    private func begin() {
        partsLeft = 0..<(jobs.count > settings.fileSystemThreshold ? 1 : min(jobs.count, settings.parallelism))
        submitParts()
    }

    private func submitParts() {
        let (disk, path, jobs, stride) = (disk, path, jobs, partsLeft.upperBound)
        let isWhole = jobs.count > settings.fileSystemThreshold
        while let part = partsLeft.first {
            let isAccepted =
                isWhole
                ? submit { syncFileSystem(disk, path) }
                : submit { jobs.run(from: part, by: stride, in: path, on: disk) }
            guard isAccepted else {
                lock.withLock { counts.refusals += 1 }
                loop.schedule(after: Self.refusedDelay) { self.submitParts() }
                return
            }
            partsLeft.removeFirst()
        }
        // a lane that completed all at once has not ended the cycle, for parts were left
        if partsRunning == 0 { finish() }
    }

    private func submit(_ part: @escaping @Sendable () -> [SyncFault]) -> Bool {
        // counted first, should a lane complete at once
        partsRunning += 1
        if lane.submit(part, on: loop, then: { self.partEnded($0) }) { return true }
        partsRunning -= 1
        return false
    }

    private func partEnded(_ found: [SyncFault]) {
        if !found.isEmpty { faults.append(contentsOf: found) }
        partsRunning -= 1
        if partsRunning == 0, partsLeft.isEmpty { finish() }
    }

    private func finish(inPlace: Bool = false) {
        count(inPlace: inPlace)
        let newFailure = failure == nil ? faults.min { $0.job < $1.job }?.error : nil
        publish()
        jobs.clear()
        works.removeAll(keepingCapacity: works.capacity <= 1024)
        faults.removeAll()
        if let newFailure {
            failure = newFailure
            failed(newFailure)
        }
        var ended: [@Sendable () -> Void] = []
        let next: Next = lock.withLock {
            isRunning = false
            if !drains.isEmpty {
                ended = drains.filter { $0.cycle <= cycle }.map(\.then)
                drains.removeAll { $0.cycle <= cycle }
            }
            return plan()
        }
        for then in ended { then() }
        perform(next)
    }

    /// In the order of arming. What a participant arms in here belongs to the next cycle.
    private func publish() {
        var (folder, file) = (0, jobs.folders.count)
        for work in works {
            let folders = folder..<(folder + work.writes.folders.count)
            let files = file..<(file + work.writes.files.count)
            (folder, file) = (folders.upperBound, files.upperBound)
            if let error = failure ?? fault(in: folders, files) {
                work.participant.syncFailed(work.writes, error)
            } else {
                work.participant.synced(work.writes)
            }
        }
    }

    private func fault(in folders: Range<Int>, _ files: Range<Int>) -> SystemError? {
        if faults.isEmpty { return nil }
        return faults.first { $0.job == SyncFault.allJobs || folders.contains($0.job) || files.contains($0.job) }?.error
    }

    private func count(inPlace: Bool) {
        guard failure == nil, jobs.count > 0 else { return }
        let taken = loop.clock.now - began
        wasQuick = taken < settings.quickLimit
        if inPlace, !wasQuick { stalls.charge(taken) }
        lock.withLock {
            if inPlace { counts.inPlace += 1 }
            counts.cycles += 1
            if jobs.count > settings.fileSystemThreshold { counts.fileSystemSyncs += 1 }
            counts.files += UInt64(jobs.files.count)
            counts.folders += UInt64(jobs.folders.count)
            counts.bytes += works.reduce(0) { $0 + UInt64($1.writes.bytes) }
            counts.failures += UInt64(faults.count)
            counts.latency.record(taken)
            counts.records.record(works.reduce(0) { $0 + UInt64(max($1.writes.records, 0)) })
        }
    }
}

/// One job that failed: folders count from 0, files go on from there.
struct SyncFault: Sendable {
    /// Every job of the cycle: the sync of the file system failed.
    static let allJobs = -1
    var job: Int
    var error: SystemError
}

/// What a cycle has to sync. The parts on the lane read the lists; the loop changes them only while no part runs.
private final class SyncJobs: @unchecked Sendable {
    var folders: [String] = []
    var files: [any DiskFile] = []

    var count: Int { folders.count + files.count }

    func run(from first: Int, by step: Int, in directory: String, on disk: any Disk) -> [SyncFault] {
        var faults: [SyncFault] = []
        for job in stride(from: first, to: count, by: step) {
            do throws(SystemError) {
                if job < folders.count {
                    try sync(folders[job], in: directory, on: disk)
                } else {
                    try files[job - folders.count].sync()
                }
            } catch { faults.append(SyncFault(job: job, error: error)) }
        }
        return faults
    }

    /// A partition's folder may have been deleted, or moved to another log directory, meanwhile: nothing in it is to be
    /// found again, and the disk is blameless, as long as the log directory itself is there.
    private func sync(_ folder: String, in directory: String, on disk: any Disk) throws(SystemError) {
        do throws(SystemError) { try disk.syncDirectory(folder) } catch {
            guard error.kind == .notFound, folder != directory else { throw error }
            try disk.syncDirectory(directory)
        }
    }

    func clear() {
        folders.removeAll(keepingCapacity: folders.capacity <= 1024)
        files.removeAll(keepingCapacity: files.capacity <= 1024)
    }
}

private func syncFileSystem(_ disk: any Disk, _ path: String) -> [SyncFault] {
    do throws(SystemError) {
        try disk.syncFileSystem(path)
        return []
    } catch { return [SyncFault(job: SyncFault.allJobs, error: error)] }
}

/// What a syncer has done since it was made.
package struct SyncStatistics: Sendable, Equatable {
    package var cycles: UInt64 = 0
    package var fileSystemSyncs: UInt64 = 0
    /// Cycles that ran on the loop itself.
    package var inPlace: UInt64 = 0
    package var files: UInt64 = 0
    package var folders: UInt64 = 0
    package var bytes: UInt64 = 0
    /// Syncs that the disk refused.
    package var failures: UInt64 = 0
    /// How often the lane was full.
    package var refusals: UInt64 = 0
    package var latency = Histogram(.latency)
    /// Records that became durable together.
    package var records = Histogram(.count)
}
