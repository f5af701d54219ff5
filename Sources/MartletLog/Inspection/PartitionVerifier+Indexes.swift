internal import MartletModel

/// The three indexes of a segment, held against its batches.
extension PartitionVerifier {
    func checkIndexes(_ scanned: ScannedSegment, _ base: Offset, isLast: Bool) throws(LogError) {
        try checkOffsetIndex(scanned, base, isLast: isLast)
        try checkTimeIndex(scanned, base, isLast: isLast)
    }

    private func index(_ base: Offset, _ kind: SegmentFile, _ entrySize: Int, isLast: Bool) throws(LogError) -> [UInt8]? {
        let file = name(base, kind)
        guard let bytes = try contents(file) else {
            fault(file, "not there")
            return nil
        }
        if bytes.count % entrySize != 0 {
            let position = Int64(bytes.count / entrySize * entrySize)
            let message = "\(bytes.count) bytes are not whole entries of \(entrySize)"
            if isLast { fault(file, at: position, message) } else { damage(file, at: position, message) }
        }
        return bytes
    }

    private func checkOffsetIndex(_ scanned: ScannedSegment, _ base: Offset, isLast: Bool) throws(LogError) {
        let size = SparseIndexes.offsetEntrySize
        guard let bytes = try index(base, .offsetIndex, size, isLast: isLast) else { return }
        let file = name(base, .offsetIndex)
        let entries = InspectedFiles.offsetIndex(bytes, base: base)
        if bytes.count > size * entries.count, !isLast || isClean {
            fault(file, at: Int64(size * entries.count), "zeros follow its \(entries.count) entries: it was not cut to size")
        }
        var before = OffsetIndexEntry(offset: base - 1, position: 0)
        for (place, entry) in entries.enumerated() {
            let at = Int64(place * size)
            let told = "(offset \(entry.offset), position \(entry.position))"
            if entry.offset <= before.offset || entry.position <= before.position {
                fault(file, at: at, "\(told) after (offset \(before.offset), position \(before.position))")
            }
            before = entry
            guard let batch = scanned.batch(at: Int64(entry.position)) else {
                if scanned.isCut, Int64(entry.position) >= scanned.soundBytes {
                    note(file, at: at, "\(told) points past the place where recovery cuts")
                } else {
                    fault(file, at: at, "\(told): no batch begins there")
                }
                continue
            }
            let isOther = !scanned.hasEnd(entry.offset) && !(isCompacted && batch.base <= entry.offset)
            if entry.offset < batch.base || isOther {
                fault(file, at: at, "\(told): the batch there is \(batch.base)...\(batch.last)")
            } else if entry.offset != batch.last {
                note(file, at: at, "\(told): the batch there ends at \(batch.last); several were appended at once")
            }
        }
        counts.offsetIndexEntries += entries.count
    }

    private func checkTimeIndex(_ scanned: ScannedSegment, _ base: Offset, isLast: Bool) throws(LogError) {
        let size = SparseIndexes.timeEntrySize
        guard let bytes = try index(base, .timeIndex, size, isLast: isLast) else { return }
        let file = name(base, .timeIndex)
        let entries = InspectedFiles.timeIndex(bytes, base: base)
        if bytes.count > size * entries.count, !isLast || isClean {
            fault(file, at: Int64(size * entries.count), "zeros follow its \(entries.count) entries: it was not cut to size")
        }
        var before: TimeIndexEntry?
        for (place, entry) in entries.enumerated() {
            let at = Int64(place * size)
            let told = "(timestamp \(entry.timestamp), offset \(entry.offset))"
            if let before, entry.timestamp <= before.timestamp || entry.offset < before.offset {
                fault(file, at: at, "\(told) after (timestamp \(before.timestamp), offset \(before.offset))")
            }
            before = entry
            if scanned.isCut, entry.offset > scanned.batches.last?.last ?? -1 {
                note(file, at: at, "\(told) points past the place where recovery cuts")
                continue
            }
            let batch = scanned.record(of: entry.timestamp)
            guard let batch, batch.base <= entry.offset, entry.offset <= batch.last else {
                fault(file, at: at, "\(told): that is not where this highest timestamp so far stands")
                continue
            }
            if entry.offset != batch.last {
                note(file, at: at, "\(told): the batch with that timestamp ends at \(batch.last)")
            }
        }
        counts.timeIndexEntries += entries.count
        let highest = scanned.highestTimestamp
        if highest > -1, !isLast || isClean, entries.last?.timestamp != highest {
            let last = entries.last.map { "\($0.timestamp)" } ?? "nothing"
            fault(file, "it ends at \(last), the highest timestamp is \(highest)")
        }
    }

    func checkTransactionIndex(_ base: Offset, _ wanted: [AbortedTransaction]) throws(LogError) {
        let file = name(base, .transactionIndex)
        var have: [AbortedTransaction] = []
        if let bytes = try contents(file) {
            do throws(LogError) { have = try InspectedFiles.transactionIndex(bytes, path: file) } catch { said(file, error) }
        }
        guard have != wanted else { return counts.abortedTransactions += have.count }
        func told(_ list: [AbortedTransaction]) -> String {
            let shown = list.prefix(Self.entriesTold).map {
                "(producer \($0.producerID), \($0.firstOffset)...\($0.lastOffset), stable \($0.lastStableOffset))"
            }
            return shown.isEmpty ? "nothing" : shown.joined(separator: " ") + (list.count > shown.count ? " …" : "")
        }
        let place = zip(have, wanted).enumerated().first { $1.0 != $1.1 }?.offset ?? min(have.count, wanted.count)
        let message = "it says \(told(Array(have[place...]))); the batches give \(told(Array(wanted[place...])))"
        let position = Int64(place * TransactionIndex.entrySize)
        if isCompacted {
            note(file, at: position, message + ", after a cleaning")
        } else if segments[0] > 0, Set(have.map(\.lastOffset)).isSuperset(of: wanted.map(\.lastOffset)) {
            note(file, at: position, message + "; transactions may have begun below the first segment")
        } else {
            fault(file, at: position, message)
        }
    }

    /// Entries of a transaction index that one line tells.
    private static let entriesTold = 4
}
