internal import MartletModel

/// The transactions that hold back readers of committed records, from the oldest: open ones, and ended ones whose
/// marker is not yet below the high watermark.
struct TransactionList: Sendable {
    private struct Item {
        var firstOffset: Offset
        var producerID: ProducerID
        /// -1 while open.
        var marker: Offset
    }

    /// By `firstOffset`, which rises because transactions are opened at the log's end.
    private var items: [Item] = []
    private var endedCount = 0

    var openCount: Int { items.count - endedCount }
    var first: Offset? { items.first?.firstOffset }
    var firstUndecided: Offset? { endedCount == 0 ? first : items.first { $0.marker < 0 }?.firstOffset }

    mutating func open(_ producer: ProducerID, at offset: Offset) {
        items.insert(Item(firstOffset: offset, producerID: producer, marker: -1), at: place(of: offset))
    }

    mutating func complete(from start: Offset, marker: Offset) {
        let index = place(of: start)
        precondition(index < items.count && items[index].firstOffset == start, "a transaction that ends was opened")
        items[index].marker = marker
        endedCount += 1
    }

    /// Forgets the ended ones whose marker lies below this offset.
    mutating func settle(below offset: Offset) {
        guard endedCount > 0 else { return }
        items.removeAll { $0.marker >= 0 && $0.marker < offset }
        endedCount = items.reduce(0) { $0 + ($1.marker >= 0 ? 1 : 0) }
    }

    func hasMarker(from offset: Offset) -> Bool { endedCount > 0 && items.contains { $0.marker >= offset } }

    /// Takes back `open`.
    mutating func remove(from start: Offset) {
        let index = place(of: start)
        guard index < items.count, items[index].firstOffset == start else { return }
        if items[index].marker >= 0 { endedCount -= 1 }
        items.remove(at: index)
    }

    /// Takes back `complete`, or takes over one that a snapshot says is open.
    mutating func reopen(_ producer: ProducerID, at start: Offset) {
        remove(from: start)
        open(producer, at: start)
    }

    private func place(of offset: Offset) -> Int {
        // most look for the newest or add one
        if let last = items.last, last.firstOffset < offset { return items.count }
        var (low, high) = (0, items.count)
        while low < high {
            let middle = (low + high) / 2
            if items[middle].firstOffset < offset { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
