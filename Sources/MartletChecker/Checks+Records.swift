/// The checkers. Each is a function of a history alone, and gives what it found wrong, in the history's order.
package enum Checks {
    /// More findings of one kind than this say nothing new.
    static let findingsLimit = 20

    /// Everything that is wrong with a history.
    package static func judge(_ history: RecordedHistory) -> [Verdict] {
        let checks: [(RecordedHistory) -> [Verdict]] = [
            lostWrites, duplicates, reordered, phantoms, tornWrites, abortedReads, inconsistentOffsets, offsetsGoneBack,
            halfVisible, hangingTransactions, lostKeys, staleReads, lostCommits, lostTopics, broken,
        ]
        return checks.flatMap { check in Array(check(history).prefix(findingsLimit)) }
    }

    package static func judge(_ events: [HistoryEvent]) -> [Verdict] { judge(RecordedHistory(events)) }

    /// What a client found by itself.
    package static func broken(_ history: RecordedHistory) -> [Verdict] {
        history.events.compactMap { event in
            if case .broken(let sentence) = event.kind { Verdict(.broken, sentence) } else { nil }
        }
    }

    // MARK: What is there

    /// What one who read a partition whole found in it.
    struct Content {
        var whole: RecordedHistory.Whole
        var offsets: [String: Int64] = [:]
        var isCommitted = false
    }

    static func contents(_ history: RecordedHistory) -> [Content] {
        history.wholes.map { whole in
            var content = Content(whole: whole)
            for (part, time) in zip(history.seen, history.seenTimes)
            where part.consumer == whole.consumer && part.place == whole.place && time <= whole.time {
                if part.isCommitted { content.isCommitted = true }
                for record in part.records { content.offsets[record.value] = record.offset }
            }
            return content
        }
    }

    /// Of every acknowledged record: is it there? And of every one that was read: is it there still?
    package static func lostWrites(_ history: RecordedHistory) -> [Verdict] {
        contents(history).flatMap { content -> [Verdict] in
            let place = content.whole.place
            guard history.damages[place] == nil else { return [] }
            var found: [Verdict] = []
            if content.whole.start > history.deletedBefore[place] ?? 0 {
                found.append(
                    Verdict(
                        .lostWrite,
                        "\(place) begins at offset \(content.whole.start), and nobody had anything deleted beyond "
                            + "\(history.deletedBefore[place] ?? 0)"))
            }
            // of a compacted topic `lostKeys` knows what has to be there
            guard !history.compacted.contains(place.topic) else { return found }
            for one in history.sent where one.batch.place == place && history.isPromised(one) {
                guard let told = one.told, told < content.whole.time else { continue }
                found += lost(one, content, history)
            }
            return found + noLongerSeen(content, history)
        }
    }

    private static func lost(_ one: RecordedHistory.Sent, _ content: Content, _ history: RecordedHistory) -> [Verdict] {
        if content.isCommitted, !history.isCommitted(one.batch) { return [] }
        return one.batch.values.enumerated().compactMap { index, value in
            guard content.offsets[value] == nil else { return nil }
            let told = one.offset.map { $0 + Int64(index) }
            // without an offset it may have been before what was deleted
            if let told, told < content.whole.start { return nil }
            if told == nil, content.whole.start > 0 { return nil }
            return Verdict(
                .lostWrite,
                "\(value) was acknowledged (acks=\(one.batch.acks)) at offset \(told.map(String.init) ?? "?") of "
                    + "\(one.batch.place) at \(one.told ?? 0), and is gone")
        }
    }

    private static func noLongerSeen(_ content: Content, _ history: RecordedHistory) -> [Verdict] {
        var found: [Verdict] = []
        var named: Set<String> = []
        for (part, time) in zip(history.seen, history.seenTimes)
        where part.place == content.whole.place && time < content.whole.time && (!content.isCommitted || part.isCommitted) {
            for record in part.records where record.offset >= content.whole.start && content.offsets[record.value] == nil {
                guard named.insert(record.value).inserted else { continue }
                found.append(
                    Verdict(
                        .lostWrite,
                        "\(record.value) was read at offset \(record.offset) of \(part.place) by \(part.consumer) at \(time), "
                            + "and is gone"))
            }
        }
        return found
    }

    /// A batch is wholly there or not at all, but for what lies before the partition's start.
    package static func tornWrites(_ history: RecordedHistory) -> [Verdict] {
        contents(history).flatMap { content -> [Verdict] in
            guard history.damages[content.whole.place] == nil,
                !history.compacted.contains(content.whole.place.topic)
            else { return [] }
            return history.sent.compactMap { one -> Verdict? in
                guard one.batch.place == content.whole.place, one.time < content.whole.time else { return nil }
                let values = one.batch.values
                let there = values.filter { content.offsets[$0] != nil }
                guard there.count < values.count, let at = values.firstIndex(where: { content.offsets[$0] != nil }),
                    let offset = content.offsets[values[at]]
                else { return nil }
                let base = offset - Int64(at)
                let isTorn = values.indices.contains {
                    content.offsets[values[$0]] == nil && base + Int64($0) >= content.whole.start
                }
                guard isTorn else { return nil }
                return Verdict(.tornWrite, "of the batch \(one.batch.values) in \(one.batch.place) only \(there) is there")
            }
        }
    }

    // MARK: What was seen

    /// Each record is there once; but who sends one again without sequence numbers may find it twice.
    package static func duplicates(_ history: RecordedHistory) -> [Verdict] {
        var first: [String: (place: Place, offset: Int64)] = [:]
        var found: [Verdict] = []
        for part in history.seen {
            for record in part.records {
                guard let known = first[record.value] else {
                    first[record.value] = (part.place, record.offset)
                    continue
                }
                guard known.place != part.place || known.offset != record.offset else { continue }
                let sendings = history.sendings[record.value] ?? []
                let mayRepeat = sendings.count > 1 && sendings.allSatisfy { !history.sent[$0].batch.isIdempotent }
                if mayRepeat, known.place == part.place { continue }
                found.append(
                    Verdict(
                        .duplicate,
                        "\(record.value) is at offset \(known.offset) of \(known.place), and at offset \(record.offset) of "
                            + "\(part.place)"))
                first[record.value] = (part.place, record.offset)
            }
        }
        return found
    }

    /// Records of an idempotent producer follow each other in a partition as they were sent first.
    package static func reordered(_ history: RecordedHistory) -> [Verdict] {
        var order: [String: Int] = [:]
        for one in history.sent where one.batch.isIdempotent {
            for value in one.batch.values where order[value] == nil { order[value] = order.count }
        }
        var found: [Verdict] = []
        for (place, values) in history.log() {
            var last: [String: (order: Int, value: String)] = [:]
            var had: Set<String> = []
            for (offset, value) in values {
                guard let number = order[value], had.insert(value).inserted else { continue }
                guard let sending = history.sendings[value]?.first else { continue }
                let producer = history.sent[sending].batch.producer
                if let before = last[producer], before.order > number {
                    found.append(
                        Verdict(
                            .reordered,
                            "\(place) has \(value) at offset \(offset), after \(before.value), which \(producer) "
                                + "sent later"))
                }
                if last[producer].map({ $0.order < number }) ?? true { last[producer] = (number, value) }
            }
        }
        return found
    }

    /// Whatever is read was sent, to there, before, and not refused.
    package static func phantoms(_ history: RecordedHistory) -> [Verdict] {
        var found: [Verdict] = []
        var known: Set<SeenRecord> = []
        for (part, time) in zip(history.seen, history.seenTimes) {
            for record in part.records {
                let sendings = (history.sendings[record.value] ?? []).filter {
                    history.sent[$0].batch.place == part.place && history.sent[$0].time <= time
                }
                guard sendings.isEmpty || sendings.allSatisfy({ history.sent[$0].isRefused }) else { continue }
                guard known.insert(record).inserted else { continue }
                found.append(
                    Verdict(
                        .phantom,
                        "\(part.place) has at offset \(record.offset) \(record.value), which "
                            + "\(sendings.isEmpty ? "nobody had sent there" : "was refused")"))
            }
        }
        return found
    }

    /// One offset has one value, and a record the offset that was told of it. What was damaged may have lost its end, and then
    /// gives its offsets anew: what was asked for before the damage, and came after it, is of before.
    package static func inconsistentOffsets(_ history: RecordedHistory) -> [Verdict] {
        var found: [Verdict] = []
        var foundAt: [Place: [Int64: String]] = [:]
        var offsetOf: [Place: [String: Int64]] = [:]
        var damagesCounts: [Place: Int] = [:]
        for part in history.seen {
            if let damages = history.damages[part.place] {
                let count = damages.count { $0 <= part.asked }
                if count != damagesCounts.updateValue(count, forKey: part.place) { foundAt[part.place] = nil }
            }
            for record in part.records {
                offsetOf[part.place, default: [:]][record.value] = record.offset
                guard let known = foundAt[part.place, default: [:]].updateValue(record.value, forKey: record.offset),
                    known != record.value
                else { continue }
                found.append(
                    Verdict(
                        .inconsistentOffset,
                        "\(part.place) had \(known) at offset \(record.offset), and then \(record.value)"))
            }
        }
        for one in history.sent where history.isPromised(one) && history.damages[one.batch.place] == nil {
            guard let base = one.offset else { continue }
            for (index, value) in one.batch.values.enumerated() {
                let offset = base + Int64(index)
                let isSentOnce = one.batch.isIdempotent || history.sendings[value]?.count == 1
                if let there = foundAt[one.batch.place]?[offset] {
                    guard there != value else { continue }
                    found.append(
                        Verdict(
                            .inconsistentOffset,
                            "\(value) was acknowledged at offset \(offset) of \(one.batch.place), where \(there) is"))
                } else if isSentOnce, let other = offsetOf[one.batch.place]?[value], other != offset {
                    found.append(
                        Verdict(
                            .inconsistentOffset,
                            "\(value) was acknowledged at offset \(offset) of \(one.batch.place), and is at \(other)"))
                }
            }
        }
        return found
    }
}

extension RecordedHistory {
    /// Each partition's records as anybody saw them, by offset.
    func log() -> [(Place, [(Int64, String)])] {
        var all: [Place: [Int64: String]] = [:]
        for part in seen {
            for record in part.records { all[part.place, default: [:]][record.offset] = record.value }
        }
        return all.sorted { $0.key < $1.key }.map { place, values in
            (place, values.sorted { $0.key < $1.key }.map { ($0.key, $0.value) })
        }
    }
}
