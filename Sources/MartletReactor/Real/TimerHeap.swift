internal import MartletBasics

/// The timers of one loop: a binary heap by deadline, timers of one deadline in the order they were set.
///
/// A timer has a slot that knows its place in the heap, so that cancelling takes it out at once (O(log n)) and leaves
/// nothing behind. A token is the slot and its generation, so that a late cancel hits nobody else's timer.
struct TimerHeap {
    private struct Entry {
        var deadline: Instant
        var sequence: UInt64
        var slot: Int

        func precedes(_ other: Entry) -> Bool {
            deadline == other.deadline ? sequence < other.sequence : deadline < other.deadline
        }
    }

    private struct Slot {
        var work: (() -> Void)?
        var generation: UInt32
        var heapIndex: Int
    }

    private var heap: [Entry] = []
    private var slots: [Slot] = []
    private var freeSlots: [Int] = []
    private var sequence: UInt64 = 0

    var count: Int { heap.count }
    var earliest: Instant? { heap.first?.deadline }

    mutating func add(_ deadline: Instant, _ work: @escaping () -> Void) -> TimerToken {
        let slot: Int
        if let free = freeSlots.popLast() {
            slot = free
        } else {
            slot = slots.count
            precondition(slot <= Int(UInt32.max), "a loop has no more timers than a token can tell apart")
            slots.append(Slot(work: nil, generation: 0, heapIndex: -1))
        }
        slots[slot].work = work
        heap.append(Entry(deadline: deadline, sequence: sequence, slot: slot))
        sequence += 1
        siftUp(heap.count - 1)
        return TimerToken(id: UInt64(slots[slot].generation) << 32 | UInt64(slot))
    }

    mutating func cancel(_ token: TimerToken) {
        let slot = Int(token.id & 0xFFFF_FFFF)
        guard slot < slots.count, slots[slot].work != nil else { return }
        guard slots[slot].generation == UInt32(token.id >> 32) else { return }
        // what the closure keeps alive goes when this returns, not while the heap is in between
        withExtendedLifetime(remove(at: slots[slot].heapIndex)) {}
    }

    /// Takes out the first timer that is due.
    mutating func popDue(_ now: Instant) -> (() -> Void)? {
        guard let first = heap.first, first.deadline <= now else { return nil }
        return remove(at: 0)
    }

    private mutating func remove(at index: Int) -> (() -> Void)? {
        let slot = heap[index].slot
        let last = heap.removeLast()
        if index < heap.count {
            heap[index] = last
            slots[last.slot].heapIndex = index
            siftDown(index)
            siftUp(slots[last.slot].heapIndex)
        }
        let work = slots[slot].work
        slots[slot] = Slot(work: nil, generation: slots[slot].generation &+ 1, heapIndex: -1)
        freeSlots.append(slot)
        return work
    }

    private mutating func siftUp(_ start: Int) {
        var index = start
        let entry = heap[index]
        while index > 0 {
            let parent = (index - 1) / 2
            guard entry.precedes(heap[parent]) else { break }
            heap[index] = heap[parent]
            slots[heap[index].slot].heapIndex = index
            index = parent
        }
        heap[index] = entry
        slots[entry.slot].heapIndex = index
    }

    private mutating func siftDown(_ start: Int) {
        var index = start
        let entry = heap[index]
        while true {
            var child = 2 * index + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].precedes(heap[child]) { child += 1 }
            guard heap[child].precedes(entry) else { break }
            heap[index] = heap[child]
            slots[heap[index].slot].heapIndex = index
            index = child
        }
        heap[index] = entry
        slots[entry.slot].heapIndex = index
    }
}
