package import MartletModel

/// Which leader epoch wrote which offsets of a partition: `leader-epoch-checkpoint`. A follower asks its leader by it
/// where their logs part.
///
/// The file is a checkpoint whose rows are `epoch startOffset`, both strictly rising.
package struct LeaderEpochHistory: Equatable, Sendable {
    package struct Entry: Equatable, Sendable {
        package var epoch: LeaderEpoch
        /// The first offset that the epoch's leader wrote, or was to write.
        package var startOffset: Offset

        package init(epoch: LeaderEpoch, startOffset: Offset) {
            self.epoch = epoch
            self.startOffset = startOffset
        }
    }

    package static let fileName = "leader-epoch-checkpoint"

    package private(set) var entries: [Entry] = []

    package init() {}

    package var isEmpty: Bool { entries.isEmpty }
    package var latestEpoch: LeaderEpoch? { entries.last?.epoch }

    /// The epoch begins here: at a leader when it takes over, at a follower with the first batch of it. An entry that
    /// the new one contradicts (a later epoch, or an epoch that wrote nothing) goes. Whether anything changed, so that
    /// the file must be written.
    @discardableResult
    package mutating func assign(epoch: LeaderEpoch, startOffset: Offset) -> Bool {
        guard epoch >= 0, startOffset >= 0 else { return false }
        if let last = entries.last, last.epoch == epoch, startOffset >= last.startOffset { return false }
        while let last = entries.last, last.epoch >= epoch || last.startOffset >= startOffset { entries.removeLast() }
        entries.append(Entry(epoch: epoch, startOffset: startOffset))
        return true
    }

    /// Where the log of `requested` ended, and the epoch that says so: the largest known one not above the requested.
    /// Nil where the request is of an epoch that this replica has not seen yet, or of none.
    package func endOffset(for requested: LeaderEpoch, logEnd: Offset) -> (epoch: LeaderEpoch, endOffset: Offset)? {
        guard requested >= 0, let latest = latestEpoch else { return nil }
        if requested == latest { return (requested, logEnd) }
        let higher = firstIndex { $0.epoch > requested }
        guard higher < entries.count else { return nil }
        // below all that is known, the answer keeps the epoch asked for: its offsets end where the oldest known one
        // begins
        return (higher == 0 ? requested : entries[higher - 1].epoch, entries[higher].startOffset)
    }

    /// The epoch that wrote this offset; nil below the first known one.
    package func epoch(at offset: Offset) -> LeaderEpoch? {
        let after = firstIndex { $0.startOffset > offset }
        return after == 0 ? nil : entries[after - 1].epoch
    }

    /// The log now ends at this offset. Whether anything changed.
    @discardableResult
    package mutating func truncateFromEnd(_ end: Offset) -> Bool {
        let keep = firstIndex { $0.startOffset >= end }
        guard keep < entries.count else { return false }
        entries.removeSubrange(keep...)
        return true
    }

    /// The log now begins at this offset: the epoch that wrote it stays, and begins there. Whether anything changed.
    @discardableResult
    package mutating func truncateFromStart(_ start: Offset) -> Bool {
        let after = firstIndex { $0.startOffset > start }
        guard after > 0, after > 1 || entries[0].startOffset < start else { return false }
        entries.removeSubrange(..<(after - 1))
        entries[0].startOffset = start
        return true
    }

    package mutating func clear() { entries.removeAll() }

    private func firstIndex(where isPast: (Entry) -> Bool) -> Int {
        var (low, high) = (0, entries.count)
        while low < high {
            let middle = (low + high) / 2
            if isPast(entries[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

// MARK: The file

extension LeaderEpochHistory {
    package static func decode(_ bytes: [UInt8], path: String) throws(LogError) -> LeaderEpochHistory {
        var text = try CheckpointText(bytes, path: path)
        var history = LeaderEpochHistory()
        while try text.nextRow() {
            let epoch = try text.number(LeaderEpoch.self)
            let start = try text.number(Offset.self)
            try text.endOfRow()
            if let last = history.entries.last, epoch <= last.epoch || start <= last.startOffset {
                throw text.malformed("epoch \(epoch) at \(start) after epoch \(last.epoch) at \(last.startOffset)")
            }
            history.entries.append(Entry(epoch: epoch, startOffset: start))
        }
        return history
    }

    package func encode() -> [UInt8] {
        CheckpointText.encode(rows: entries.count) { out in
            for entry in entries { out.append(contentsOf: "\(entry.epoch) \(entry.startOffset)\n".utf8) }
        }
    }
}
