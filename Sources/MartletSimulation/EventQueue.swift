/// Names one event of the queue, to cancel it.
struct EventID: Equatable {
    var slot: UInt32
    var generation: UInt32
}

/// The events of a simulated world, by time; those of one moment in an order that the seed decides, never by chance.
///
/// A heap of plain numbers over slots that hold what is to be done: sifting moves no references, and a cancelled event
/// lets go of what it held at once, though its entry stays until its time comes or too many such entries have gathered.
struct EventQueue {
    private struct Entry {
        var time: Int64
        /// 24 seeded bits, then a sequence number of 40: no two are the same, so the order is total.
        var order: UInt64
        var slot: UInt32

        static func < (a: Entry, b: Entry) -> Bool { a.time < b.time || (a.time == b.time && a.order < b.order) }
    }

    private struct Slot {
        var body: (() -> Void)?
        var generation: UInt32
    }

    /// Fewer cancelled entries than this are not worth a sweep.
    private static let sweepFloor = 4096

    private var heap: ContiguousArray<Entry> = []
    private var slots: ContiguousArray<Slot> = []
    private var free: ContiguousArray<UInt32> = []
    private var sequence: UInt64 = 0
    private var cancelledCount = 0

    var isEmpty: Bool { heap.count == cancelledCount }

    mutating func push(at time: Int64, tieBreak: UInt64, _ body: @escaping () -> Void) -> EventID {
        let slot: UInt32
        if let reused = free.popLast() {
            slot = reused
            slots[Int(slot)].body = body
        } else {
            slot = UInt32(slots.count)
            slots.append(Slot(body: body, generation: 0))
        }
        sequence += 1
        let order = (tieBreak & 0xFF_FFFF) << 40 | (sequence & 0xFF_FFFF_FFFF)
        heap.append(Entry(time: time, order: order, slot: slot))
        siftUp(heap.count - 1)
        return EventID(slot: slot, generation: slots[Int(slot)].generation)
    }

    /// An event that has run, or was cancelled, is ignored.
    mutating func cancel(_ id: EventID) {
        let slot = Int(id.slot)
        guard slot < slots.count, slots[slot].generation == id.generation, slots[slot].body != nil else { return }
        slots[slot].body = nil
        cancelledCount += 1
        if cancelledCount > Self.sweepFloor, cancelledCount * 2 > heap.count { sweep() }
    }

    /// When the next event is due.
    mutating func nextTime() -> Int64? {
        while let top = heap.first {
            if slots[Int(top.slot)].body != nil { return top.time }
            removeTop()
            release(top.slot)
            cancelledCount -= 1
        }
        return nil
    }

    /// Takes the next event, which `nextTime` has just told of.
    mutating func pop() -> () -> Void {
        let slot = heap[0].slot
        guard let body = slots[Int(slot)].body else { preconditionFailure("pop follows nextTime") }
        removeTop()
        release(slot)
        return body
    }

    mutating func removeAll() {
        // what the events hold may cancel others as it goes away, so it goes away once the queue is whole again
        let gone = slots
        self = EventQueue()
        withExtendedLifetime(gone) {}
    }

    private mutating func release(_ slot: UInt32) {
        slots[Int(slot)].body = nil
        slots[Int(slot)].generation &+= 1
        free.append(slot)
    }

    private mutating func removeTop() {
        let last = heap.removeLast()
        guard !heap.isEmpty else { return }
        heap[0] = last
        siftDown(0)
    }

    private mutating func sweep() {
        var kept: ContiguousArray<Entry> = []
        kept.reserveCapacity(heap.count - cancelledCount)
        for entry in heap {
            if slots[Int(entry.slot)].body != nil { kept.append(entry) } else { release(entry.slot) }
        }
        heap = kept
        cancelledCount = 0
        for index in stride(from: heap.count / 4, through: 0, by: -1) where index < heap.count { siftDown(index) }
    }

    private mutating func siftUp(_ start: Int) {
        heap.withUnsafeMutableBufferPointer { heap in
            var index = start
            let entry = heap[index]
            while index > 0 {
                let parent = (index - 1) / 4
                guard entry < heap[parent] else { break }
                heap[index] = heap[parent]
                index = parent
            }
            heap[index] = entry
        }
    }

    private mutating func siftDown(_ start: Int) {
        heap.withUnsafeMutableBufferPointer { heap in
            var index = start
            let entry = heap[index]
            while true {
                let first = index * 4 + 1
                guard first < heap.count else { break }
                var least = first
                for child in (first + 1)..<max(min(first + 4, heap.count), first + 1) where heap[child] < heap[least] {
                    least = child
                }
                guard heap[least] < entry else { break }
                heap[index] = heap[least]
                index = least
            }
            heap[index] = entry
        }
    }
}
