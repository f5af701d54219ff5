/// What transactions promise to those who read what is committed: nothing of it, or all of it, and not for ever nothing.
extension Checks {
    /// Who reads what is committed is given nothing of a transaction for whose commit nobody had asked, or whose commit was
    /// refused.
    package static func abortedReads(_ history: RecordedHistory) -> [Verdict] {
        var found: [Verdict] = []
        for (part, time) in zip(history.seen, history.seenTimes) where part.isCommitted {
            for record in part.records {
                guard let sending = history.sendings[record.value]?.first,
                    let name = history.sent[sending].batch.transaction
                else { continue }
                if let asked = history.transactions[name]?.commitAsked, asked <= time { continue }
                found.append(
                    Verdict(
                        .abortedRead,
                        "\(part.consumer) was given \(record.value) at offset \(record.offset) of \(part.place), and \(name) "
                            + "was not committed"))
            }
        }
        return found
    }

    /// Once every transaction has been ended, or its time is over, none holds back readers.
    package static func hangingTransactions(_ history: RecordedHistory) -> [Verdict] {
        var found: [Verdict] = []
        var named: Set<Place> = []
        var since: Int64?
        for event in history.events {
            switch event.kind {
            case .transactionsOver: since = event.time
            // a start may have markers to write; and a transaction that is begun later may be open
            case .ended: since = nil
            case .send(let batch) where batch.transaction != nil: since = nil
            case .saw(let part):
                guard let since, part.asked >= since, let stable = part.lastStable, let end = part.highWatermark,
                    stable < end, history.damages[part.place] == nil, named.insert(part.place).inserted
                else { continue }
                found.append(
                    Verdict(
                        .hangingTransaction,
                        "readers of \(part.place) are held back at offset \(stable), with a high watermark of \(end), and "
                            + "since \(since) no transaction may be open"))
            default: break
            }
        }
        return found
    }

    // MARK: All or nothing

    /// What a reader of what is committed found of one transaction, where all of it must be by now.
    private struct Parts {
        var there: [String] = []
        var gone: [String] = []
    }

    /// Records and offsets of one transaction are there together or not at all, also where nobody was told how it ended.
    package static func halfVisible(_ history: RecordedHistory) -> [Verdict] {
        var readers: [String: [Place: Content]] = [:]
        for content in contents(history) where content.isCommitted {
            readers[content.whole.consumer, default: [:]][content.whole.place] = content
        }
        return readers.sorted { $0.key < $1.key }.flatMap { reader, contents -> [Verdict] in
            let found = parts(history, contents)
            let halves = found.sorted { $0.key < $1.key }.compactMap { name, parts -> Verdict? in
                guard !parts.there.isEmpty, !parts.gone.isEmpty else { return nil }
                return Verdict(
                    .halfVisible, "of \(name), \(reader) found \(parts.there), and \(parts.gone) is not there")
            }
            let read = contents.values.map(\.whole.time).max() ?? 0
            return halves + offsetsWithoutRecords(history, found, after: read)
        }
    }

    private static func parts(_ history: RecordedHistory, _ contents: [Place: Content]) -> [String: Parts] {
        var found: [String: Parts] = [:]
        for one in history.sent where history.isPromised(one) {
            guard let name = one.batch.transaction, let content = contents[one.batch.place], let told = one.told,
                told < content.whole.time, history.damages[one.batch.place] == nil,
                !history.compacted.contains(one.batch.place.topic), (one.offset ?? 0) >= content.whole.start
            else { continue }
            for value in one.batch.values {
                if content.offsets[value] != nil {
                    found[name, default: Parts()].there.append(value)
                } else if one.offset != nil || content.whole.start == 0 {
                    found[name, default: Parts()].gone.append(value)
                }
            }
        }
        return found
    }

    /// The offset that stands at the end is of a transaction whose records are there, and of none before another whose records
    /// are.
    private static func offsetsWithoutRecords(
        _ history: RecordedHistory, _ parts: [String: Parts], after read: Int64
    ) -> [Verdict] {
        var standing: [String: Int64?] = [:]
        for event in history.events where event.time >= read {
            guard case .committed(let group, let place, _, let offset) = event.kind else { continue }
            standing["\(group)/\(place)"] = .some(offset)
        }
        var found: [Verdict] = []
        for (name, offset) in standing.sorted(by: { $0.key < $1.key }) {
            let here = history.commits.filter { "\($0.group)/\($0.place)" == name && $0.transaction != nil }
            guard let last = here.last(where: { $0.offset == offset }) else {
                guard offset == nil, let lost = here.first(where: { isVisible($0, parts) }) else { continue }
                found.append(half(lost, of: name, "nothing"))
                continue
            }
            if let own = last.transaction.flatMap({ parts[$0] }), own.there.isEmpty, let gone = own.gone.first {
                found.append(
                    Verdict(
                        .halfVisible,
                        "\(name) has the offset of \(last.transaction ?? ""), whose record \(gone) is not there"))
            }
            guard let told = last.told, let lost = here.first(where: { $0.sent > told && isVisible($0, parts) }) else {
                continue
            }
            found.append(half(lost, of: name, "the offset \(offset ?? -1)"))
        }
        return found
    }

    private static func isVisible(_ commit: RecordedHistory.Commit, _ parts: [String: Parts]) -> Bool {
        commit.transaction.flatMap { parts[$0] }.map { !$0.there.isEmpty } ?? false
    }

    private static func half(_ commit: RecordedHistory.Commit, of name: String, _ what: String) -> Verdict {
        Verdict(
            .halfVisible,
            "records of \(commit.transaction ?? "") are there, and \(name) has \(what), not its offset "
                + "\(commit.offset ?? -1)")
    }
}
