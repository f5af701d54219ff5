internal import MartletBasics
internal import MartletModel
internal import MartletReactor

/// What recovery may do, and where it puts what it cuts.
struct LogRecovery {
    let durableLowerBound: Offset?
    /// Below it everything was synced, in a folder of Kafka's too.
    let recoveryPoint: Offset
    let isBoundLost: Bool
    let cutDirectory: String
    let mayHaveGaps: Bool

    /// A bad batch below is damage.
    var synced: Offset { max(durableLowerBound ?? 0, recoveryPoint) }

    /// A folder that Kafka wrote is taken as Kafka takes it.
    var refusesGaps: Bool { durableLowerBound != nil && !mayHaveGaps }

    init(_ parameters: LogParameters) {
        mayHaveGaps = parameters.mayHaveGaps
        durableLowerBound = parameters.durableLowerBound
        recoveryPoint = parameters.recoveryPoint
        isBoundLost = parameters.isBoundLost
        cutDirectory = parameters.cutDirectory
    }
}

/// Recovery after a crash. From the segment that holds the recovery point on, every batch is read and checked; indexes,
/// producer state and leader epochs are made anew from them.
///
/// The first bad batch is either the mark of a crash or damage. *At or above the durable lower bound* it was never
/// acknowledged: it is cut with all that follows, put aside first. *Below it* synced records are wrong or gone: the log
/// is not opened and not changed. A folder that Kafka wrote is cut above its recovery point, as Kafka does. Where the file
/// of bounds is ours and cannot be read, sound batches behind a bad one say that it was no torn tail.
extension PartitionLog {
    static let putAsidePiece = 256 * 1024
    /// So many cuts of one place keep different names before the oldest is overwritten.
    private static let putAsideNameLimit = 1000

    func recover(from first: Int, _ recovery: LogRecovery) throws(LogError) {
        let from = segments[first].baseOffset
        let bytes = segments[first...].reduce(0) { $0 + $1.size }
        logger.info(
            "recovering", ("partition", "\(partition)"), ("from", "\(from)"),
            ("segments", "\(segments.count - first)"), ("bytes", "\(bytes)"))
        activity.noteRecovery(bytes: bytes)
        try reloadProducers(before: from)
        var index = first
        var expected = from
        while index < segments.count {
            let segment = segments[index]
            if index > first { try passSnapshot(at: segment.baseOffset, recovery) }
            if let cut = try scan(segment, expected: expected, .everything, recovery) {
                _ = try settle(cut, index, expected: max(segment.nextOffset, expected), recovery)
            }
            expected = max(segment.nextOffset, segment.baseOffset)
            try writeAgain(segment, recovery)
            if index < segments.count - 1 { try checkSeam(after: index, end: expected, recovery) }
            if index < segments.count - 1 { try seal(segment) }
            index += 1
        }
        activeIsUnsynced = true
        unsyncedBytes += active.size
        logger.info("recovered", ("partition", "\(partition)"), ("end", "\(expected)"))
    }

    /// Makes the offset and time index of a segment below the recovery point anew. A bad batch in it is damage, or cut,
    /// as above.
    func rebuildIndexes(of index: Int, _ recovery: LogRecovery) throws(LogError) {
        let segment = segments[index]
        let next = segments[index + 1].baseOffset
        let keepsTransactions = try segment.transactions.open(files, in: segment.baseOffset..<next)
        if let cut = try scan(segment, expected: segment.baseOffset, .indexes, recovery),
            try settle(cut, index, expected: segment.nextOffset, recovery)
        {
            return
        }
        if segment.nextOffset < next, recovery.refusesGaps {
            throw .damagedBelowDurable(
                path: segment.path(.log), offset: segment.nextOffset, durable: max(recovery.synced, next),
                reason: "it ends at \(segment.nextOffset), and the next segment begins at \(next)")
        }
        unsyncedFiles += try segment.completeIndexes(files)
        noteFolderChanged()
        segment.close()
        let largest = segment.largest
        segment.adopt(size: segment.size, nextOffset: next, largest: largest)
        segment.noteWhollyChecked()
        segment.isLargestConfirmed = true
        if !keepsTransactions { try rebuildTransactions(of: index) }
    }

    /// Writes the bytes above what was surely synced again, as they are. Where a sync failed in the life before, the page
    /// cache may still show what the disk has not, and calls it clean: a sync alone would succeed and mean nothing.
    private func writeAgain(_ segment: LogSegment, _ recovery: LogRecovery) throws(LogError) {
        guard segment.nextOffset > recovery.synced else { return }
        let file = try segment.file(files)
        var scanner = BatchScanner(
            file, baseOffset: segment.baseOffset, from: 0, to: segment.size, bufferSize: BatchScanner.recoveryBufferSize)
        while case .header(let header) = try scanner.peek(), header.nextOffset <= recovery.synced { scanner.skip(header) }
        try forEachPiece(file, from: scanner.position, to: segment.size) { (piece, position) throws(LogError) in
            try files.write(piece, to: file, at: Int64(position))
            return true
        }
    }

    private enum ScanExtent { case everything, indexes }

    private struct Cut {
        var position: Int
        var end: Int
        var fault: BatchFault
        /// Where the bad batch belongs into the gap before the one it follows: no checksum covers an offset, and that one's is
        /// wrong. What is missing begins where the gap does.
        var doubted: Offset?
    }

    /// Reads and checks a segment from its start; the place of its first bad batch.
    private func scan(_ segment: LogSegment, expected: Offset, _ extent: ScanExtent, _ recovery: LogRecovery)
        throws(LogError) -> Cut?
    {
        let file = try segment.file(files)
        let end = segment.size
        segment.forget()
        if extent == .everything { try segment.transactions.clear(files) }
        var scanner = BatchScanner(
            file, baseOffset: segment.baseOffset, from: 0, to: end, bufferSize: BatchScanner.recoveryBufferSize)
        let next = segments.first { $0.baseOffset > segment.baseOffset }?.baseOffset
        var least = max(expected, segment.baseOffset)
        var (fault, gap): (BatchFault?, Range<Offset>) = (nil, 0..<0)
        scan: while true {
            switch try scanner.peek() {
            case .end: break scan
            case .fault(let found):
                fault = found
                break scan
            case .header(let header):
                guard header.baseOffset >= least else {
                    fault = .offsetFalls(header.baseOffset, expected: least)
                    break scan
                }
                guard header.baseOffset == least || mayLeaveGap(header, from: least, to: next, recovery) else {
                    fault = .gap(header.baseOffset, expected: least)
                    break scan
                }
                let found = try scanner.checksum(header)
                guard found == header.crc else {
                    fault = .checksum(said: header.crc, found: found)
                    break scan
                }
                if extent == .everything { try replay(header, &scanner, into: segment) }
                segment.publish(
                    BatchPlace(header, position: scanner.position), indexInterval: Int(config.indexIntervalBytes))
                gap = least..<header.baseOffset
                least = header.nextOffset
                scanner.skip(header)
            }
        }
        segment.reservedSize = segment.size
        guard let fault else { return nil }
        var cut = Cut(position: scanner.position, end: end, fault: fault)
        if case .offsetFalls(let found, _) = fault, gap.contains(found) { cut.doubted = gap.lowerBound }
        return cut
    }

    /// Whether a batch may begin later than the one before it ends. A compaction leaves gaps, not beyond its segment; in a
    /// segment that was active none has in its middle what was once the end of the log.
    private func mayLeaveGap(_ header: BatchHeader, from end: Offset, to next: Offset?, _ recovery: LogRecovery) -> Bool {
        if recovery.refusesGaps { return false }
        if let next { return header.nextOffset <= next }
        return end >= recovery.synced || header.baseOffset <= recovery.synced
    }

    /// What a batch in the log says about its producer and its leader.
    private func replay(_ header: BatchHeader, _ scanner: inout BatchScanner, into segment: LogSegment?)
        throws(LogError)
    {
        if header.leaderEpoch > (epochs.latestEpoch ?? -1) {
            if epochs.assign(epoch: header.leaderEpoch, startOffset: header.baseOffset) { epochFile = .changed }
        }
        guard header.lastOffset >= producers.nextOffset else { return }
        guard header.isControl else { return producers.apply(header, baseOffset: header.baseOffset) }
        let aborted = applyControl(header, try scanner.marker(header))
        if let aborted, let segment {
            segment.transactions.append(aborted)
            if segment.transactions.mustWrite, let file = try segment.transactions.write(files) {
                unsyncedFiles.append(file)
            }
        }
    }

    // MARK: Cutting

    /// Takes away room that was kept for records, or cuts; whether it did cut.
    private func settle(_ cut: Cut, _ index: Int, expected: Offset, _ recovery: LogRecovery) throws(LogError) -> Bool {
        let segment = segments[index]
        let after = index + 1 < segments.count ? segments[index + 1].baseOffset : nil
        if Self.mayBeRoom(at: expected, segmentAfter: after, synced: recovery.synced),
            try isZero(try segment.file(files), from: cut.position, to: cut.end)
        {
            logger.debug(
                "zeros after the last batch are room that was kept for more", ("partition", "\(partition)"),
                ("offset", "\(expected)"), ("bytes", "\(cut.end - cut.position)"))
            try segment.removeRoom(files)
            return false
        }
        try self.cut(index, at: cut, expected: expected, recovery)
        return true
    }

    private func cut(_ index: Int, at cut: Cut, expected: Offset, _ recovery: LogRecovery) throws(LogError) {
        let segment = segments[index]
        let lost = cut.doubted ?? expected
        if lost < recovery.synced || recovery.isBoundLost {
            let behind = try SoundBatchSearch(
                file: try segment.file(files), baseOffset: segment.baseOffset, end: cut.end
            ).everything(from: cut.position, least: expected)
            if lost < recovery.synced || behind.count > 0 || index + 1 < segments.count {
                throw .damagedBelowDurable(
                    path: segment.path(.log), offset: lost, durable: max(recovery.synced, lost + 1),
                    reason: "\(cut.fault), at byte \(cut.position); \(Self.told(behind, segments.count - 1 - index))")
            }
        }
        let later = segments[(index + 1)...].reduce(0) { $0 + $1.size }
        logger.warning(
            recovery.durableLowerBound == nil
                ? "cutting the log at its first bad batch; nothing says how far this folder had been synced"
                : "cutting what a crash left after the last record that had been synced",
            ("partition", "\(partition)"), ("offset", "\(expected)"), ("file", segment.path(.log)),
            ("position", "\(cut.position)"), ("bytes", "\(cut.end - cut.position)"),
            ("laterSegments", "\(segments.count - 1 - index)"),
            ("laterBytes", "\(later)"), ("reason", "\(cut.fault)"))
        let file = try segment.file(files)
        try putAside(file, segment.baseOffset, from: cut.position, to: cut.end, into: recovery.cutDirectory)
        try putAsideSegments(from: index + 1, into: recovery.cutDirectory)
        if planted.contains(.forgottenTruncation) {
            segment.adopt(size: cut.end, nextOffset: segment.nextOffset, largest: segment.largest)
            segment.noteWhollyChecked()
            segment.isLargestConfirmed = true
        } else {
            try segment.cutFile(to: cut.position, files)
            // what is appended next must not meet the old tail again after another crash
            try onDisk { () throws(SystemError) in try file.sync() }
        }
        if epochs.truncateFromEnd(expected) { epochFile = .changed }
    }

    static func told(_ behind: SoundBatchSearch.Found, _ laterSegments: Int) -> String {
        let batches = behind.count == 0
            ? "no sound batch follows in the file"
            : "\(behind.count) sound batches follow in the file, from offset \(behind.first.offset) to \(behind.lastOffset)"
        return laterSegments == 0 ? batches : "\(batches), and \(laterSegments) segments after it"
    }

    /// Two segments that do not meet. Never so by an append; a compaction leaves gaps, in what had been synced.
    ///
    /// A gap: files reach the disk in any order, so that a power cut can leave a segment without its end and the one
    /// after it whole; above the bound it is that. A folder that Kafka wrote is taken as Kafka takes it. An overlap:
    /// the later segment is what a roll that failed has left, or another's work.
    private func checkSeam(after index: Int, end: Offset, _ recovery: LogRecovery) throws(LogError) {
        let next = segments[index + 1].baseOffset
        guard next != end else { return }
        if next > end {
            if recovery.mayHaveGaps, end < recovery.durableLowerBound ?? .max { return }
            if recovery.durableLowerBound == nil {
                return logger.warning(
                    "a segment ends before the next begins", ("partition", "\(partition)"), ("end", "\(end)"),
                    ("next", "\(next)"))
            }
        }
        let reason = "segment \(segments[index].baseOffset) ends at \(end) and the next begins at \(next)"
        if let bound = recovery.durableLowerBound, end < bound {
            throw .damagedBelowDurable(path: segments[index].path(.log), offset: end, durable: bound, reason: reason)
        }
        logger.warning(
            "cutting what a crash left after the last record that had been synced", ("partition", "\(partition)"),
            ("offset", "\(end)"), ("laterSegments", "\(segments.count - 1 - index)"), ("reason", reason))
        try putAsideSegments(from: index + 1, into: recovery.cutDirectory)
    }

    /// Copies a segment's bytes to a file of their own, unless they are all zero, which a crash leaves where a file had
    /// grown.
    private func putAside(
        _ file: any DiskFile, _ baseOffset: Offset, from start: Int, to end: Int, into directory: String
    ) throws(LogError) {
        guard start < end, try !isZero(file, from: start, to: end) else { return }
        try onDisk { () throws(SystemError) in try disk.makeDirectory(directory) }
        let stem = "\(directory)/\(partition).\(SegmentFile.log.name(baseOffset)).\(start)"
        var path = stem
        for attempt in 1..<Self.putAsideNameLimit where try files.status(path) != nil { path = "\(stem).\(attempt)" }
        let target = try files.open(path, .truncate)
        try forEachPiece(file, from: start, to: end) { (piece, position) throws(LogError) in
            try files.write(piece, to: target, at: Int64(position - start))
            return true
        }
        try onDisk { () throws(SystemError) in
            try target.sync()
            try disk.syncDirectory(directory)
        }
        activity.notePutAside(bytes: end - start)
        logger.info("put aside", ("partition", "\(partition)"), ("bytes", "\(end - start)"), ("file", path))
    }

    private func isZero(_ file: any DiskFile, from start: Int, to end: Int) throws(LogError) -> Bool {
        var allZero = true
        try forEachPiece(file, from: start, to: end) { (piece, _) throws(LogError) in
            allZero = piece.allSatisfy { $0 == 0 }
            return allZero
        }
        return allZero
    }

    private func forEachPiece(
        _ file: any DiskFile, from start: Int, to end: Int,
        _ body: (UnsafeRawBufferPointer, Int) throws(LogError) -> Bool
    ) throws(LogError) {
        guard start < end else { return }
        let buffer = UnsafeMutableRawBufferPointer.allocate(
            byteCount: min(Self.putAsidePiece, end - start), alignment: 16)
        defer { buffer.deallocate() }
        var position = start
        while position < end {
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, end - position)])
            let count = try files.read(file, into: target, at: Int64(position))
            guard count > 0, try body(UnsafeRawBufferPointer(rebasing: buffer[..<count]), position) else { return }
            position += count
        }
    }

    /// Puts whole segments aside and removes their files.
    func putAsideSegments(from index: Int, into directory: String) throws(LogError) {
        var isChanged = false
        while segments.count > index {
            let segment = segments[segments.count - 1]
            // its size may have been counted anew by a scan: what lies in the file goes aside
            let file = try segment.file(files)
            try putAside(file, segment.baseOffset, from: 0, to: Int(try files.size(file)), into: directory)
            segments.removeLast()
            try removeFiles(of: segment)
            try files.remove(segment.path(.snapshot))
            isChanged = true
        }
        // or a power cut might bring them back beside what is appended next
        if isChanged { try onDisk { () throws(SystemError) in try disk.syncDirectory(folder) } }
    }

    // MARK: Producers

    /// The producers' state at the end of the log: the last good snapshot, and what the batches after it say.
    func reloadProducers() throws(LogError) { try reloadProducers(before: offsets.logEnd) }

    /// The same before some offset at which a batch begins.
    func reloadProducers(before end: Offset) throws(LogError) {
        try loadSnapshot(notAbove: end)
        try replayProducers(before: end)
    }

    /// Makes the transaction index of a closed segment anew, from the producers as they were before it and its batches.
    private func rebuildTransactions(of index: Int) throws(LogError) {
        let known = producers
        defer { producers = known }
        try segments[index].transactions.clear(files)
        try loadSnapshot(notAbove: segments[index].baseOffset)
        try replayProducers(before: segments[index].nextOffset)
        logger.warning(
            "a transaction index was damaged, and is made anew", ("partition", "\(partition)"),
            ("segment", "\(segments[index].baseOffset)"))
    }

    /// What the file of leader epochs said, from the headers of all batches.
    func rebuildEpochs() throws(LogError) {
        guard segments.contains(where: { $0.size > 0 }) else { return }
        var history = LeaderEpochHistory()
        for segment in segments {
            var scanner = BatchScanner(
                try segment.file(files), baseOffset: segment.baseOffset, from: 0, to: segment.size,
                bufferSize: BatchScanner.recoveryBufferSize)
            while case .header(let header) = try scanner.peek() {
                if header.leaderEpoch > (history.latestEpoch ?? -1) {
                    history.assign(epoch: header.leaderEpoch, startOffset: header.baseOffset)
                }
                scanner.skip(header)
            }
        }
        epochs = history
        epochFile = .changed
        logger.warning(
            "the leader epochs were missing or damaged, and are made anew", ("partition", "\(partition)"),
            ("epochs", "\(history.entries.count)"))
    }

    private func replayProducers(before end: Offset) throws(LogError) {
        guard producers.nextOffset < end else { return }
        for index in segmentIndex(of: producers.nextOffset)..<segments.count where segments[index].baseOffset < end {
            let segment = segments[index]
            let from =
                segment.baseOffset >= producers.nextOffset
                ? 0 : try segment.find(producers.nextOffset, files)?.position ?? segment.size
            var scanner = BatchScanner(
                try segment.file(files), baseOffset: segment.baseOffset, from: from, to: segment.size,
                bufferSize: BatchScanner.searchBufferSize)
            // a transaction index that got lost with the snapshots is made anew, or readers would see what was aborted
            let lacksTransactions = from == 0 && segment.transactions.isEmpty
            replay: while true {
                switch try scanner.peek() {
                case .header(let header):
                    if header.baseOffset >= end { break replay }
                    try replay(header, &scanner, into: lacksTransactions ? segment : nil)
                    scanner.skip(header)
                case .end:
                    break replay
                case .fault(let fault):
                    throw .corrupt(
                        path: segment.path(.log), position: Int64(scanner.position), reason: fault.description)
                }
            }
            if lacksTransactions, !segment.isActive, let file = try segment.transactions.write(files) {
                logger.warning(
                    "a transaction index was missing, and was made anew", ("partition", "\(partition)"),
                    ("segment", "\(segment.baseOffset)"))
                unsyncedFiles.append(file)
                noteFolderChanged()
            }
        }
    }

    private func loadSnapshot(notAbove end: Offset) throws(LogError) {
        var snapshots: [Offset] = []
        for name in try files.list(folder) {
            guard let parsed = SegmentFile.parse(name), parsed.kind == .snapshot, parsed.suffix.isEmpty else {
                continue
            }
            if parsed.baseOffset <= end { snapshots.append(parsed.baseOffset) }
        }
        snapshots.sort()
        while let offset = snapshots.popLast() {
            do throws(LogError) {
                producers = try ProducerStateTable.load(disk, path: snapshotPath(offset), at: offset)
                return
            } catch {
                guard case .corrupt(_, _, let reason) = error else { throw error }
                logger.warning(
                    "removing a producer snapshot that does not check; an earlier one is used",
                    ("partition", "\(partition)"),
                    ("offset", "\(offset)"), ("reason", reason))
                try files.remove(snapshotPath(offset))
                noteFolderChanged()
            }
        }
        producers.clear(startingAt: segments.first?.baseOffset ?? 0)
    }

    /// Recovery comes to the start of a segment. What a compaction left says less about producers than the snapshot
    /// that was written when the segment was begun; of any other log the batches say more, and the snapshot is written
    /// anew.
    private func passSnapshot(at offset: Offset, _ recovery: LogRecovery) throws(LogError) {
        if recovery.mayHaveGaps, let bytes = try files.contents(snapshotPath(offset)),
            let known = try? ProducerStateTable.decode(bytes, path: snapshotPath(offset), at: offset)
        {
            producers = known
            return
        }
        try writeSnapshot(at: offset)
    }

    /// Keeps the snapshots at which segments begin, and the newest one; none above the log's end.
    func removeStraySnapshots() throws(LogError) {
        var newest: Offset = -1
        for name in try files.list(folder) {
            guard let parsed = SegmentFile.parse(name), parsed.kind == .snapshot, parsed.suffix.isEmpty else {
                continue
            }
            if parsed.baseOffset <= offsets.logEnd { newest = max(newest, parsed.baseOffset) }
        }
        let bases = segments.map(\.baseOffset)
        try removeSnapshots { $0 > offsets.logEnd || ($0 != newest && !bases.contains($0)) }
    }

    /// Writes down the producers' state as it is before the offset.
    func writeSnapshot(at offset: Offset) throws(LogError) {
        let file = try files.open(snapshotPath(offset), .truncate)
        let state = planted.contains(.forgottenProducers) ? ProducerStateTable() : producers
        try files.write(state.encodeSnapshot(), to: file, at: 0)
        unsyncedFiles.append(file)
        noteFolderChanged()
    }

    func removeSnapshots(where isObsolete: (Offset) -> Bool) throws(LogError) {
        for name in try files.list(folder) {
            guard let parsed = SegmentFile.parse(name), parsed.kind == .snapshot, parsed.suffix.isEmpty,
                isObsolete(parsed.baseOffset)
            else { continue }
            try files.remove(folder + "/" + name)
            noteFolderChanged()
        }
    }
}
