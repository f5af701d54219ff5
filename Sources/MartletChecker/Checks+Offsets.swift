extension Checks {
    /// An offset that somebody was told, with when he asked and when he was told.
    private struct Look {
        var asked: Int64
        var told: Int64
        var offset: Int64
        var consumer: String
    }

    private struct Looks {
        var ends: [Look] = []
        var starts: [Look] = []
        var stables: [Look] = []
    }

    private static func looks(_ history: RecordedHistory) -> [(Place, Looks)] {
        var all: [Place: Looks] = [:]
        for event in history.events {
            switch event.kind {
            case .saw(let part):
                if let end = part.highWatermark {
                    all[part.place, default: Looks()].ends.append(
                        Look(asked: part.asked, told: event.time, offset: end, consumer: part.consumer))
                }
                if let start = part.logStart {
                    all[part.place, default: Looks()].starts.append(
                        Look(asked: part.asked, told: event.time, offset: start, consumer: part.consumer))
                }
                if let stable = part.lastStable {
                    all[part.place, default: Looks()].stables.append(
                        Look(asked: part.asked, told: event.time, offset: stable, consumer: part.consumer))
                }
            case .listed(let consumer, let place, let asked, let start, let end):
                if let end {
                    all[place, default: Looks()].ends.append(
                        Look(asked: asked, told: event.time, offset: end, consumer: consumer))
                }
                if let start {
                    all[place, default: Looks()].starts.append(
                        Look(asked: asked, told: event.time, offset: start, consumer: consumer))
                }
            default: break
            }
        }
        return all.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    /// By when it was known, the greatest offset known by then.
    private struct Rising {
        private var times: [Int64] = []
        private var most: [Int64] = []

        /// Looks come in the order of their times.
        init(_ known: [(time: Int64, offset: Int64)]) {
            for one in known {
                times.append(one.time)
                most.append(max(one.offset, most.last ?? .min))
            }
        }

        /// What was known before this moment.
        func known(before time: Int64) -> Int64? {
            var low = 0
            var high = times.count
            while low < high {
                let middle = (low + high) / 2
                if times[middle] < time { low = middle + 1 } else { high = middle }
            }
            return low > 0 ? most[low - 1] : nil
        }
    }

    /// High watermarks, last stable offsets and log starts only rise, and what could be read once stays in range.
    /// Partitions whose bytes were damaged are excused. A log start may fall with the end of a broker's life, where the
    /// deletion was not acknowledged.
    package static func offsetsGoneBack(_ history: RecordedHistory) -> [Verdict] {
        var found: [Verdict] = []
        var risings: [Place: Rising] = [:]
        for (place, looks) in looks(history) where history.damages[place] == nil {
            risings[place] = Rising(looks.ends.map { ($0.told, $0.offset) })
            var kinds = [("high watermark", looks.ends)]
            // what was deleted may be there again after a crash, with the transactions that were open in it
            if history.deletedBefore[place] == nil { kinds.append(("last stable offset", looks.stables)) }
            for life in 0...history.ends.count {
                kinds.append(
                    (
                        "log "
                            + "start",
                        looks.starts.filter { history.life(at: $0.asked) == life && history.life(at: $0.told) == life }
                    ))
            }
            for (name, ordered) in kinds {
                let rising = Rising(ordered.map { ($0.told, $0.offset) })
                for look in ordered {
                    guard let before = rising.known(before: look.asked), look.offset < before else { continue }
                    found.append(
                        Verdict(
                            .offsetGoneBack,
                            "the \(name) of \(place) was \(before), and \(look.consumer), who asked at \(look.asked), was told "
                                + "\(look.offset)"))
                }
            }
        }
        found += deletedRecordsThatCameBack(history)
        for event in history.events {
            guard case .outOfRange(let consumer, let place, let asked, let from) = event.kind else { continue }
            guard history.damages[place] == nil, from >= history.deletedBefore[place] ?? 0 else { continue }
            guard let before = risings[place]?.known(before: asked), from <= before else { continue }
            found.append(
                Verdict(
                    .offsetGoneBack,
                    "\(place) had a high watermark of \(before), and \(consumer), who asked at \(asked), was told that \(from) "
                        + "is out of range"))
        }
        for whole in history.wholes where history.damages[whole.place] == nil {
            guard let before = risings[whole.place]?.known(before: whole.time), whole.end < before else { continue }
            found.append(
                Verdict(
                    .offsetGoneBack, "\(whole.place) ends at \(whole.end), and had a high watermark of \(before)"))
        }
        return found
    }

    private static func deletedRecordsThatCameBack(_ history: RecordedHistory) -> [Verdict] {
        let begins = history.deletions.mapValues { deletions in Rising(deletions.map { ($0.told, $0.start) }) }
        func verdict(_ place: Place, _ asked: Int64, _ start: Int64, _ who: String) -> Verdict? {
            guard let before = begins[place]?.known(before: asked), start < before, history.damages[place] == nil else { return nil }
            return Verdict(
                .offsetGoneBack,
                "records of \(place) before \(before) were deleted, which was acknowledged, and \(who), who asked at \(asked), "
                    + "found it to begin at \(start)")
        }
        let seen = looks(history).flatMap { place, looks in
            looks.starts.compactMap { verdict(place, $0.asked, $0.offset, $0.consumer) }
        }
        return seen + history.wholes.compactMap { verdict($0.place, $0.time, $0.start, $0.consumer) }
    }

    /// Who asks after a write with acks=all was acknowledged is told of an end behind it.
    package static func staleReads(_ history: RecordedHistory) -> [Verdict] {
        var acknowledged: [Place: [(time: Int64, offset: Int64)]] = [:]
        for one in history.sent where one.batch.acks == -1 && one.isAccepted {
            guard let told = one.told, let offset = one.offset else { continue }
            acknowledged[one.batch.place, default: []].append((told, offset + Int64(one.batch.values.count)))
        }
        return looks(history).flatMap { place, looks -> [Verdict] in
            guard history.damages[place] == nil, let known = acknowledged[place] else { return [] }
            let rising = Rising(known.sorted { $0.time < $1.time })
            return looks.ends.compactMap { look in
                guard let end = rising.known(before: look.asked), look.offset < end else { return nil }
                return Verdict(
                    .staleRead,
                    "writes up to offset \(end) of \(place) were acknowledged, and \(look.consumer), who asked at "
                        + "\(look.asked), was told that it ends at \(look.offset)")
            }
        }
    }

    // MARK: Commits

    /// A commit that was acknowledged, or read, is what is read, until another may have followed it. Each judgement
    /// looks at when a request was sent and when its answer came: between the two it may have been carried out at any
    /// moment.
    package static func lostCommits(_ history: RecordedHistory) -> [Verdict] {
        var commits = history.commits
        var places: [String: [Int]] = [:]
        for index in commits.indices { places["\(commits[index].group)/\(commits[index].place)", default: []].append(index) }
        var found: [Verdict] = []
        for event in history.events {
            guard case .committed(let group, let place, let asked, let offset) = event.kind else { continue }
            let name = "\(group)/\(place)"
            let here = places[name] ?? []
            // One that was there when the question was asked hides all that were decided before it was sent.
            let hiding = here.filter { commits[$0].there.map { $0 < asked } ?? false }.max {
                commits[$0].sent < commits[$1].sent
            }
            let candidates = here.filter { commits[$0].offset == offset && commits[$0].sent <= event.time }
            if candidates.isEmpty {
                if let offset {
                    found.append(Verdict(.commitLost, "\(name) has the offset \(offset), which nobody committed there"))
                } else if let hiding {
                    found.append(
                        Verdict(
                            .commitLost, "nothing is committed for \(name), and \(told(commits[hiding])) had been"))
                }
                continue
            }
            let possible = candidates.filter { index in
                guard !commits[index].isRefused else { return false }
                guard let hiding, hiding != index, let decided = commits[index].decided else { return true }
                return decided >= commits[hiding].sent
            }
            guard possible.isEmpty else {
                // where only one commit can have been read it is known to be there
                if possible.count == 1, let only = possible.first {
                    commits[only].there = min(commits[only].there ?? event.time, event.time)
                    commits[only].decided = min(commits[only].decided ?? event.time, event.time)
                }
                continue
            }
            let shown = offset.map { "the offset \($0)" } ?? "nothing"
            if let hiding {
                found.append(
                    Verdict(
                        .commitLost,
                        "\(name) went back to \(shown), and \(told(commits[hiding])) had "
                            + "followed it"))
            } else if offset != nil {
                found.append(Verdict(.commitLost, "\(name) has \(shown), which was refused"))
            }
        }
        return found
    }

    private static func told(_ commit: RecordedHistory.Commit) -> String {
        commit.offset.map { "the offset \($0), sent at \(commit.sent)," } ?? "a removal at \(commit.sent)"
    }

    // MARK: Topics

    /// A topic that was made is there with its partitions until somebody asks for its end, and none is there after it was
    /// deleted.
    package static func lostTopics(_ history: RecordedHistory) -> [Verdict] {
        var found: [Verdict] = []
        for event in history.events {
            guard case .topics(let asked, let there) = event.kind else { continue }
            for name in Set(history.topicChanges.map(\.topic)).sorted() {
                let changes = history.topicChanges.filter { $0.topic == name && $0.sent <= event.time }
                let isMade = changes.contains { $0.partitions > 0 && ($0.done ?? .max) < asked }
                let isDeletionAsked = changes.contains { $0.partitions == 0 }
                let isDeleted = changes.contains { $0.partitions == 0 && ($0.done ?? .max) < asked }
                if isDeleted, there[name] != nil {
                    found.append(
                        Verdict(
                            .topicLost,
                            "topic \(name) was deleted, and is "
                                + "there"))
                }
                guard isMade, !isDeletionAsked else { continue }
                guard let partitions = there[name] else {
                    found.append(Verdict(.topicLost, "topic \(name) was made, and is gone"))
                    continue
                }
                let least = changes.filter { ($0.done ?? .max) < asked }.map(\.partitions).max() ?? 0
                let most = changes.map(\.partitions).max() ?? 0
                if partitions < least || partitions > most {
                    found.append(
                        Verdict(
                            .topicLost, "topic \(name) was given \(least) partitions, at most \(most), and has \(partitions)"))
                }
            }
        }
        return found
    }
}
