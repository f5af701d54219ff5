import MartletBasics
import MartletReactor

/// The partitions of a log directory in which something has its time: an append that may wait for so long, a flush that
/// is due after so long, a sync that could not begin and is to be asked for again. The others are not looked at, and
/// mostly there are many thousands of them.
///
/// A partition joins when something of the kind begins, and leaves with the first look that finds nothing more of it: it
/// need not be told when the wait is over, which is soon, and a partition that is written to all the time joins once
/// between two looks. The looks are in the order of joining.
package final class TimedPartitions: @unchecked Sendable {
    /// A directory does not keep its partitions: they keep it.
    private struct Member {
        weak var partition: Partition?
    }

    private let lock = Lock()
    // guarded by the lock, which is taken under a partition's:
    private var joined: ContiguousArray<Member> = []
    private var looks: UInt64 = 0

    package init() {}

    /// How many partitions were looked at so far.
    package var lookCount: UInt64 { lock.withLock { looks } }

    /// Not for one that is among them.
    func join(_ partition: Partition) { lock.withLock { joined.append(Member(partition: partition)) } }

    /// Ends what has had its time. Called now and then.
    func look(now: Instant) {
        let present = lock.withLock {
            defer { joined = [] }
            looks &+= UInt64(joined.count)
            return joined
        }
        guard !present.isEmpty else { return }
        let staying = present.filter { $0.partition?.endWaits(now: now) == true }
        guard !staying.isEmpty else { return }
        // who joined meanwhile comes behind those who have been here for longer
        lock.withLock { joined = staying + joined }
    }
}

extension Partition {
    /// Something that has its time begins. Under the lock.
    @inline(__always)
    func beginTimed() {
        guard !isTimed else { return }
        isTimed = true
        directory.timed.join(self)
    }

    /// Answers those who have waited for the replicas, or for this disk, as long as they wanted, and asks for the sync
    /// that is due. Whether there is anything left to look at later.
    fileprivate func endWaits(now: Instant) -> Bool {
        var effects = PartitionEffects()
        let (isFlushDue, stays) = lock.withLock {
            expire(&committedWaiters, now, &effects)
            expire(&durableWaiters, now, &effects)
            expire(&exchangeWaiters, now, &effects)
            let isFlushDue = takeDueFlush(now: now)
            isTimed = isAnythingTimed
            return (isFlushDue, isTimed)
        }
        effects.deliver()
        if isFlushDue { directory.syncer.arm(self, urgent: true) }
        return stays
    }

    /// `flush.ms`: whether the oldest unsynced append has waited for that long, or the last sync could not begin.
    private func takeDueFlush(now: Instant) -> Bool {
        if mustRetrySync {
            mustRetrySync = false
            return true
        }
        guard config.flushMs != .max, let since = unsyncedSince else { return false }
        return now - since >= .milliseconds(config.flushMs)
    }

    private var isAnythingTimed: Bool {
        // its log is closed while it is exchanged
        guard offlineReason == nil else { return !exchangeWaiters.isEmpty }
        return !exchangeWaiters.isEmpty || !committedWaiters.isEmpty || !durableWaiters.isEmpty || isFlushTimed
    }

    /// `flush.ms` runs. Under the lock.
    var isFlushTimed: Bool { config.flushMs != .max && unsyncedSince != nil }

    private func expire(_ waiters: inout RingQueue<AppendWaiter>, _ now: Instant, _ effects: inout PartitionEffects) {
        guard (0..<waiters.count).contains(where: { waiters[$0].deadline <= now }) else { return }
        var kept = RingQueue<AppendWaiter>()
        while let waiter = waiters.popFirst() {
            if waiter.deadline <= now {
                effects.complete(waiter, .requestTimedOut, logStartOffset: -1)
            } else {
                kept.append(waiter)
            }
        }
        waiters = kept
    }
}
