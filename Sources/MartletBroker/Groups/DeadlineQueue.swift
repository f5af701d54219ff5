import MartletBasics

/// Something of a group that is due at some moment, if nothing happens before.
class Timed {
    /// Nil: nothing is waited for.
    fileprivate(set) var due: Instant?
    /// The entry of the queue that speaks for it; others of it are stale.
    fileprivate var armed: (at: Instant, order: UInt64)?
}

/// Who is due next, for as many as there are members. To put something off, as every heartbeat does, costs nothing:
/// the entry stays where it is and is moved when its old moment comes. What is due at the same moment comes in the
/// order in which it was asked for.
struct DeadlineQueue {
    private struct Entry {
        var at: Instant
        var order: UInt64
        var subject: Timed

        func isBefore(_ other: Entry) -> Bool { (at, order) < (other.at, other.order) }
        var isStale: Bool { subject.armed.map { $0.at != at || $0.order != order } ?? true }
    }

    /// Idle entries beyond these, and beyond half of all, are swept out.
    private static let idleLimit = 64

    private var heap: [Entry] = []
    private var lastOrder: UInt64 = 0
    /// Entries that are stale, or whose subjects wait for nothing.
    private var idleCount = 0

    /// Not after the next moment at which something is due.
    var next: Instant? { heap.first?.at }
    var count: Int { heap.count }

    mutating func set(_ subject: Timed, due: Instant?) {
        if subject.armed != nil { idleCount += (due == nil ? 1 : 0) - (subject.due == nil ? 1 : 0) }
        subject.due = due
        if let due {
            if let armed = subject.armed {
                guard due < armed.at else { return }
                idleCount += 1
            }
            arm(subject, due)
        }
        if idleCount > Self.idleLimit, idleCount > heap.count / 2 { sweep() }
    }

    /// The next that is due; it is due no more.
    mutating func popDue(_ now: Instant) -> Timed? {
        while let first = heap.first, first.at <= now {
            removeFirst()
            guard !first.isStale else {
                idleCount -= 1
                continue
            }
            let subject = first.subject
            subject.armed = nil
            guard let due = subject.due else {
                idleCount -= 1
                continue
            }
            guard due <= now else {
                arm(subject, due)
                continue
            }
            subject.due = nil
            return subject
        }
        return nil
    }

    private mutating func arm(_ subject: Timed, _ at: Instant) {
        lastOrder += 1
        subject.armed = (at, lastOrder)
        heap.append(Entry(at: at, order: lastOrder, subject: subject))
        rise(heap.count - 1)
    }

    private mutating func sweep() {
        var kept: [Entry] = []
        for entry in heap where !entry.isStale {
            if entry.subject.due == nil { entry.subject.armed = nil } else { kept.append(entry) }
        }
        heap = kept
        for index in stride(from: heap.count / 2 - 1, through: 0, by: -1) { sink(index) }
        idleCount = 0
    }

    private mutating func removeFirst() {
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        if !heap.isEmpty { sink(0) }
    }

    private mutating func rise(_ start: Int) {
        var index = start
        while index > 0, heap[index].isBefore(heap[(index - 1) / 2]) {
            heap.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    private mutating func sink(_ start: Int) {
        var index = start
        while true {
            var least = index
            for child in [2 * index + 1, 2 * index + 2] where child < heap.count && heap[child].isBefore(heap[least]) {
                least = child
            }
            guard least != index else { return }
            heap.swapAt(index, least)
            index = least
        }
    }
}
