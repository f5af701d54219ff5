package import MartletBasics
package import MartletModel
package import MartletReactor
internal import Synchronization

/// How far one partition is durable, as its log last heard from the syncer. Raised with every sync, so it costs one
/// store.
package final class DurableMark: Sendable {
    package let partition: TopicPartition
    private let value: Atomic<Int64>

    fileprivate init(_ partition: TopicPartition, _ offset: Offset) {
        self.partition = partition
        value = Atomic(offset)
    }

    package var offset: Offset { value.load(ordering: .relaxed) }

    /// After the sync that made it true. One caller at a time: the log's lock is held.
    package func raise(to offset: Offset) { value.store(offset, ordering: .relaxed) }
}

/// A lower bound of what is durable, on disk: below it a bad batch is damage to data that was acknowledged, above it
/// the torn tail of a crash. `martlet-durable-offset-checkpoint` at the top of the log directory, in the format of
/// Kafka's checkpoints, which Kafka leaves alone.
///
/// Durable offsets rise, so an old file is still a true bound: *raising* needs no hurry. The file is written at most
/// every `interval` while syncs go on: beside, synced, then renamed without syncing the folder. Without that one sync a
/// power cut could leave an empty file behind the rename, which claims nothing, and with it the detection of damage
/// would be gone just when it is needed; without a sync of the folder it leaves the file before, which claims less. So
/// a write costs a sync of one small file ten times a second on the sync lane, which the lane's other threads do not
/// wait for; a write that takes long waits longer for the next (`costShare`), so that 10,000 partitions do not keep a
/// thread busy.
///
/// *Lowering* is the other way round: the file must say less before the log does. A truncation, a deleted partition and
/// one that is made anew under an old name call `lower` first, which is durable when it returns.
///
/// Admitted: a Kafka broker that runs on the directory between two unclean stops of ours may truncate below a bound it
/// does not know. The file is removed at a clean stop, and made anew, from the recovery points, where a clean marker says that
/// recovery has nothing to read.
package final class DurableOffsets: @unchecked Sendable {
    package static let fileName = "martlet-durable-offset-checkpoint"

    package struct Settings: Sendable {
        package var interval: Interval = .milliseconds(100)
        /// The pause after a write is at least this many times what the write took.
        package var costShare: Int64 = 20
        package init() {}
    }

    private let disk: any Disk
    private let path: String
    private let settings: Settings
    /// The file is of this broker's own run: a partition without a row was made in it, and nothing of it is known to be
    /// durable.
    private let isOurs: Bool

    private let lock = Lock()
    // Guarded by `lock`:
    private var marks: [TopicPartition: DurableMark] = [:]
    /// Rows of the file as it was found, of partitions that have not registered yet (recovery, or an offline log).
    private var found: OffsetCheckpoint
    private var isScheduled = false
    private var isClosed = false

    /// One write at a time. Held while the disk works: by a thread of a lane, or by who lowers a bound and must wait
    /// anyway.
    private let writing: Mutex<Written>

    private struct Written {
        /// What the file says: equal rows are not written again.
        var checkpoint: OffsetCheckpoint
        var count: UInt64 = 0
    }

    init(_ disk: any Disk, directory: String, found: OffsetCheckpoint, isOurs: Bool, settings: Settings) {
        self.disk = disk
        self.found = found
        self.settings = settings
        self.isOurs = isOurs
        writing = Mutex(Written(checkpoint: found))
        path = directory + "/" + Self.fileName
    }

    /// What was on disk when the directory was opened and has not been taken over or lowered; nil where nothing is
    /// known, as for a directory that Kafka wrote.
    package func bound(of partition: TopicPartition) -> Offset? { lock.withLock { found[partition] } ?? (isOurs ? 0 : nil) }

    /// The mark of a log that is open now, which begins at what recovery found durable (nothing that was only written
    /// counts).
    package func register(_ partition: TopicPartition, durable offset: Offset) -> DurableMark {
        let mark = DurableMark(partition, offset)
        lock.withLock {
            marks[partition] = mark
            found[partition] = nil
        }
        return mark
    }

    /// How often the file was written.
    package var writeCount: UInt64 { writing.withLock { $0.count } }

    // MARK: Raising

    /// Some mark was raised. On `loop`, once a sync cycle; the write happens on `lane` later, and is skipped where
    /// nothing has changed.
    package func raised(lane: any Lane, loop: any EventLoop, failed: @escaping @Sendable (LogError) -> Void) {
        let begins = lock.withLock {
            guard !isScheduled, !isClosed else { return false }
            isScheduled = true
            return true
        }
        guard begins else { return }
        loop.schedule(after: settings.interval) { self.startWrite(lane, loop, failed) }
    }

    private func startWrite(_ lane: any Lane, _ loop: any EventLoop, _ failed: @escaping @Sendable (LogError) -> Void) {
        let began = loop.clock.now
        let accepted = lane.submit(
            { () -> LogError? in
                do throws(LogError) {
                    try self.write()
                    return nil
                } catch { return error }
            }, on: loop,
            then: { error in
                if let error { failed(error) }
                self.writeEnded(after: loop.clock.now - began, on: loop, isFailure: error != nil)
            })
        // a full lane: the next cycle asks again
        if !accepted { lock.withLock { isScheduled = false } }
    }

    /// Another may begin when the pause is over that the cost of this one asks for.
    private func writeEnded(after taken: Interval, on loop: any EventLoop, isFailure: Bool) {
        let pause = Interval.nanoseconds(taken.nanoseconds * settings.costShare) - settings.interval
        if isFailure || pause <= .zero {
            lock.withLock { isScheduled = false }
        } else {
            loop.schedule(after: pause) { self.lock.withLock { self.isScheduled = false } }
        }
    }

    /// Writes what has changed. On a lane.
    package func write() throws(LogError) {
        try writing.withLock { (written) throws(LogError) in
            let checkpoint = lock.withLock { isClosed ? nil : current() }
            guard let checkpoint, checkpoint != written.checkpoint else { return }
            let (disk, path) = (disk, path)
            try onDisk { () throws(SystemError) in
                let file = try disk.open(path + ".tmp", .truncate)
                defer { file.close() }
                var refusal: SystemError?
                checkpoint.encode().withUnsafeBytes { bytes in
                    do throws(SystemError) { try file.write(bytes, at: 0) } catch { refusal = error }
                }
                if let refusal { throw refusal }
                try file.sync()
                try disk.rename(path + ".tmp", to: path)
            }
            written.checkpoint = checkpoint
            written.count += 1
        }
    }

    private func current() -> OffsetCheckpoint {
        var checkpoint = found
        for (partition, mark) in marks { checkpoint[partition] = mark.offset }
        return checkpoint
    }

    // MARK: Lowering

    /// The partitions' logs are about to end at `offset`, or (nil) to go: durable when this returns. On a lane, or while
    /// starting; costs a sync where a bound was above, and one for all of them.
    package func lower(_ partitions: [TopicPartition], to offset: Offset?) throws(LogError) {
        try writing.withLock { (written) throws(LogError) in
            // where the file says no more its rows need not be gathered: thousands of partitions are made one after the other
            let mustWrite = partitions.contains { written.checkpoint[$0] ?? -1 > offset ?? -1 }
            let checkpoint: OffsetCheckpoint? = lock.withLock {
                for partition in partitions { lowerRow(of: partition, to: offset) }
                return isClosed || !mustWrite ? nil : current()
            }
            guard let checkpoint else { return }
            try onDisk { () throws(SystemError) in try disk.replace(path, with: checkpoint.encode()) }
            written.checkpoint = checkpoint
            written.count += 1
        }
    }

    private func lowerRow(of partition: TopicPartition, to offset: Offset?) {
        guard let offset else {
            marks[partition] = nil
            found[partition] = nil
            return
        }
        if let mark = marks[partition], mark.offset > offset { mark.raise(to: offset) }
        if let bound = found[partition], bound > offset { found[partition] = offset }
    }

    /// After a clean stop the recovery points say it all.
    func close(removingFile: Bool) throws(LogError) {
        try writing.withLock { (_) throws(LogError) in
            lock.withLock { isClosed = true }
            if removingFile { try onDisk { () throws(SystemError) in try disk.remove(path) } }
        }
    }
}
