/// What a compacted topic promises: of each key the last record, or after a tombstone none.
extension Checks {
    private struct LastOfKey {
        var offset: Int64
        var value: String
        var isTombstone: Bool
    }

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
        var last: [String: LastOfKey] = [:]
        var there: [String: LastOfKey] = [:]
        // a tombstone of which nobody knows where it is, if it is: it may have removed what was before it, and be gone
        var doubtful: Set<String> = []
        for one in sent {
            for (index, value) in one.batch.values.enumerated() {
                let key = one.batch.keys[index]
                let isTombstone = one.batch.tombstones.contains(index)
                guard let offset = known[value] else {
                    if isTombstone, !one.isRefused { doubtful.insert(key) }
                    continue
                }
                let record = LastOfKey(offset: offset, value: value, isTombstone: isTombstone)
                if last[key].map({ $0.offset < offset }) ?? true { last[key] = record }
                if content.offsets[value] != nil, there[key].map({ $0.offset < offset }) ?? true { there[key] = record }
            }
        }
        return last.sorted { $0.key < $1.key }.compactMap { key, last in
            let place = content.whole.place
            guard last.offset >= content.whole.start, !doubtful.contains(key) else { return nil }
            let told = "\(last.value) at offset \(last.offset) of \(place)"
            guard let found = there[key] else {
                return last.isTombstone
                    ? nil : Verdict(.lostWrite, "\(told) is the last of the key \(key), and nothing of it is there")
            }
            guard found.offset < last.offset else { return nil }
            return last.isTombstone
                ? Verdict(.revivedKey, "\(told) had removed the key \(key), which has \(found.value) again")
                : Verdict(.lostWrite, "\(told) is the last of the key \(key), which has \(found.value) again")
        }
    }
}
