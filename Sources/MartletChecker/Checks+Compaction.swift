/// What a compacted topic promises: of each key the last record, or after a tombstone none.
extension Checks {
    /// Of each key the last record that was acknowledged, or seen by anybody, is there in the end, or a later one; a
    /// tombstone may be gone, but then nothing of its key is there that it had removed. Transactions in compacted topics
    /// are not judged.
    package static func lostKeys(_ history: RecordedHistory) -> [Verdict] {
        guard !history.compacted.isEmpty else { return [] }
        var seenAt: [Place: [String: Int64]] = [:]
        for part in history.seen where history.compacted.contains(part.place.topic) {
            for record in part.records { seenAt[part.place, default: [:]][record.value] = record.offset }
        }
        return contents(history).flatMap { content -> [Verdict] in
            let place = content.whole.place
            guard history.compacted.contains(place.topic), history.damages[place] == nil else { return [] }
            let sent = history.sent.filter {
                $0.batch.place == place && $0.time < content.whole.time && $0.batch.keys.count == $0.batch.values.count
                    && $0.batch.transaction == nil
            }
            return judge(sent, content, seenAt[place] ?? [:], history)
        }
    }

    private static func judge(
        _ sent: [RecordedHistory.Sent], _ content: Content, _ seenAt: [String: Int64], _ history: RecordedHistory
    ) -> [Verdict] {
        var known = seenAt
        for one in sent where history.isPromised(one) {
            guard let base = one.offset else { continue }
            for (index, value) in one.batch.values.enumerated() { known[value] = base + Int64(index) }
        }
        var keys: [String: FoundOfKey] = [:]
        for one in sent {
            for (index, value) in one.batch.values.enumerated() {
                let key = one.batch.keys[index]
                let isTombstone = one.batch.tombstones.contains(index)
                guard let offset = known[value] else {
                    if isTombstone, !one.isRefused { keys[key, default: FoundOfKey()].isDoubtful = true }
                    continue
                }
                keys[key, default: FoundOfKey()].take(
                    RecordOfKey(offset: offset, value: value, isTombstone: isTombstone),
                    isThere: content.offsets[value] != nil)
            }
        }
        return keys.sorted { $0.key < $1.key }.flatMap { $0.value.verdicts(on: $0.key, content.whole) }
    }
}

/// What is known of one key, and what of it is there.
private struct FoundOfKey {
    /// A tombstone of which nobody knows where it is, if it is: it may have removed what was before it, and be gone.
    var isDoubtful = false
    private var last: RecordOfKey?
    private var newestThere: RecordOfKey?
    private var oldestThere: RecordOfKey?
    private var newestGoneTombstone: RecordOfKey?

    mutating func take(_ record: RecordOfKey, isThere: Bool) {
        if last.map({ $0.offset < record.offset }) ?? true { last = record }
        guard isThere else {
            if record.isTombstone, newestGoneTombstone.map({ $0.offset < record.offset }) ?? true {
                newestGoneTombstone = record
            }
            return
        }
        if newestThere.map({ $0.offset < record.offset }) ?? true { newestThere = record }
        if oldestThere.map({ $0.offset > record.offset }) ?? true { oldestThere = record }
    }

    func verdicts(on key: String, _ whole: RecordedHistory.Whole) -> [Verdict] {
        var found: [Verdict] = []
        // a tombstone goes after what it removed, also where the key is written again
        if let gone = newestGoneTombstone, let left = oldestThere, left.offset < gone.offset, gone.offset >= whole.start {
            found.append(
                Verdict(
                    .revivedKey,
                    "\(gone.value) at offset \(gone.offset) of \(whole.place) had removed the key \(key), and is gone, and "
                        + "\(left.value) is there"))
        }
        guard !isDoubtful, let last, !last.isTombstone, last.offset >= whole.start else { return found }
        guard newestThere.map({ $0.offset < last.offset }) ?? true else { return found }
        let left = newestThere.map { "which has \($0.value) again" } ?? "of which nothing is there"
        found.append(
            Verdict(
                .lostWrite, "\(last.value) at offset \(last.offset) of \(whole.place) is the last of the key \(key), \(left)"))
        return found
    }
}

private struct RecordOfKey {
    var offset: Int64
    var value: String
    var isTombstone: Bool
}
