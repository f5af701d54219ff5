package import MartletModel
internal import MartletReactor

extension PartitionLog {
    /// Makes the folder of a partition that begins empty at an offset. What is there already is opened.
    package static func create(
        _ parameters: LogParameters, topicID: UUID?, startingAt offset: Offset = 0
    ) throws(LogError) -> PartitionLog {
        try onDisk { () throws(SystemError) in try parameters.disk.makeDirectory(parameters.folder) }
        var parameters = parameters
        parameters.logStartOffset = max(parameters.logStartOffset, offset)
        let log = try open(parameters)
        if let topicID, log.topicID == nil { try log.assign(topicID: topicID) }
        log.noteFolderMade()
        return log
    }

    /// The folder's own name lies in the log directory.
    private func noteFolderMade() {
        guard let slash = folder.lastIndex(of: "/") else { return }
        let parent = String(folder[..<slash])
        if !unsyncedFolders.contains(parent) { unsyncedFolders.append(parent) }
    }

    /// Opens a partition's folder, recovering it where it was not closed cleanly.
    package static func open(_ parameters: LogParameters) throws(LogError) -> PartitionLog {
        let log = PartitionLog(parameters)
        try log.files.keepingNames { () throws(LogError) in try log.load(parameters) }
        if !parameters.wasClosedCleanly {
            // the process that made the folder, or files in it, may have ended before it synced their names
            log.noteFolderChanged()
            log.noteFolderMade()
        }
        return log
    }

    /// Writes the topic's id into the folder; one that differs from what is there is refused.
    package func assign(topicID id: UUID) throws(LogError) {
        let path = folder + "/" + PartitionMetadata.fileName
        if let topicID {
            guard topicID == id else {
                throw .wrongIdentity(path: path, what: "topic_id", found: "\(topicID)", expected: "\(id)")
            }
            return
        }
        try onDisk { () throws(SystemError) in try disk.replace(path, with: PartitionMetadata(topicID: id).encode()) }
        topicID = id
    }

    private func load(_ parameters: LogParameters) throws(LogError) {
        try refuseOldFormats()
        try finishInterruptedWork()
        try readSmallFiles()
        try findSegments()

        if segments.isEmpty {
            try startEmpty(parameters)
        } else {
            try loadSegments(parameters)
        }
        reservedEnd = offsets.logEnd
        if lacksEpochs { try rebuildEpochs() }
        // one that began at the end and has no record yet stays: ten thousand idle partitions that start write nothing
        if epochs.truncateFromEnd(offsets.logEnd + 1) { epochFile = .changed }
        if epochs.truncateFromStart(offsets.logStart) { epochFile = .changed }
        producers.advanceLogStart(to: offsets.logStart)
        try removeStraySnapshots()
        precondition(!segments.isEmpty && active.isActive, "an open log has a segment to write to")
        precondition(active.nextOffset <= offsets.logEnd, "no record lies above the log's end")
    }

    /// Both repeat what is known elsewhere: the topic's id lies in the coordination tree, the epochs in the batches.
    private func readSmallFiles() throws(LogError) {
        let path = folder + "/" + PartitionMetadata.fileName
        if let bytes = try files.contents(path) {
            do throws(LogError) { topicID = try PartitionMetadata.decode(bytes, path: path).topicID } catch {
                sayMadeAnew(error)
            }
        }
        guard let bytes = try files.contents(epochPath) else { return lacksEpochs = true }
        do throws(LogError) { epochs = try LeaderEpochHistory.decode(bytes, path: epochPath) } catch {
            sayMadeAnew(error)
            lacksEpochs = true
            epochFile = .changed
        }
    }

    private func sayMadeAnew(_ error: LogError) {
        guard case .malformedFile(let path, let line, let reason) = error else { return }
        logger.warning(
            "a small file is damaged, and is made anew", ("partition", "\(partition)"), ("file", path),
            ("line", "\(line)"), ("reason", reason))
    }

    private func startEmpty(_ parameters: LogParameters) throws(LogError) {
        let start = offsets.logStart
        if let bound = parameters.durableLowerBound, bound > start {
            throw .damagedBelowDurable(
                path: folder, offset: start, durable: bound, reason: "the folder holds no segment")
        }
        try addSegment(at: start)
        producers.clear(startingAt: start)
    }

    // MARK: What was interrupted

    /// A file that is not what it is called for good.
    private struct FoundFile {
        var name: String
        var base: Offset
        var kind: SegmentFile
    }

    /// Finishes removals and the swaps of a compaction; forgets a compaction that had not come to its swap. See
    /// `SegmentSwap`: what a power cut leaves of this is found again by the next start, and leads to the same.
    private func finishInterruptedWork() throws(LogError) {
        var swaps: [FoundFile] = [], kept: [FoundFile] = [], cleaned: [FoundFile] = [], deleted: [FoundFile] = []
        for name in try files.list(folder) {
            guard let parsed = SegmentFile.parse(name) else { continue }
            let file = FoundFile(name: name, base: parsed.baseOffset, kind: parsed.kind)
            switch parsed.suffix {
            case "": kept.append(file)
            case SegmentFile.swapSuffix: swaps.append(file)
            case SegmentFile.cleanedSuffix: cleaned.append(file)
            case SegmentFile.deletedSuffix: deleted.append(file)
            default: continue
            }
        }
        // a crash came when files were being called `.swap`: what they were to replace is still there
        let firstCleaned = cleaned.map(\.base).min() ?? .max
        let worthless = swaps.filter { $0.base >= firstCleaned }
        try removeFound(worthless.filter { $0.kind != .log }, "forgetting a compaction", isSynced: true)
        try removeFound(worthless.filter { $0.kind == .log }, "forgetting a compaction", isSynced: true)
        try removeFound(cleaned, "forgetting a compaction", isSynced: false)
        try removeFound(deleted, "finishing a removal", isSynced: false)
        swaps.removeAll { $0.base >= firstCleaned }
        for swap in swaps where swap.kind == .log {
            let end = try endOfSwap(swap.name, swap.base)
            let replaced = kept.filter { $0.kind != .snapshot && $0.base >= swap.base && $0.base < end }
            // or a power cut might bring one of them back beside what has taken its place
            try removeFound(replaced, "completing a compaction", isSynced: true)
        }
        for swap in swaps {
            let path = folder + "/" + swap.name
            // an index whose log was renamed before the crash belongs to it all the same
            try files.rename(path, to: String(path.dropLast(SegmentFile.swapSuffix.count)))
            noteFolderChanged()
        }
    }

    private func removeFound(_ found: [FoundFile], _ why: String, isSynced: Bool) throws(LogError) {
        guard !found.isEmpty else { return }
        for file in found {
            logger.info(why, ("partition", "\(partition)"), ("file", file.name))
            try files.remove(folder + "/" + file.name)
        }
        noteFolderChanged()
        if isSynced { try onDisk { () throws(SystemError) in try disk.syncDirectory(folder) } }
    }

    /// The offset after the last batch of a segment that a compaction made; it was synced before it got its name.
    private func endOfSwap(_ name: String, _ base: Offset) throws(LogError) -> Offset {
        let file = try files.open(folder + "/" + name, .read)
        let size = Int(try files.size(file))
        var scanner = BatchScanner(
            file, baseOffset: base, from: 0, to: size, bufferSize: BatchScanner.recoveryBufferSize)
        var end = base + 1
        while true {
            switch try scanner.peek() {
            case .header(let header):
                end = header.nextOffset
                scanner.skip(header)
            case .end:
                return end
            case .fault(let fault):
                throw .corrupt(path: folder + "/" + name, position: Int64(scanner.position), reason: fault.description)
            }
        }
    }

    /// Makes a segment of every `.log`, and removes index files that belong to none.
    private func findSegments() throws(LogError) {
        let names = try files.list(folder)
        var bases: [Offset] = []
        for name in names {
            guard let parsed = SegmentFile.parse(name), parsed.suffix.isEmpty, parsed.kind == .log else { continue }
            bases.append(parsed.baseOffset)
        }
        bases.sort()
        for name in names {
            guard let parsed = SegmentFile.parse(name), parsed.suffix.isEmpty, parsed.kind != .log,
                parsed.kind != .snapshot,
                !bases.contains(parsed.baseOffset)
            else { continue }
            logger.warning("removing an index without its segment", ("partition", "\(partition)"), ("file", name))
            try files.remove(folder + "/" + name)
            noteFolderChanged()
        }
        let now = clock.wallMilliseconds
        for base in bases {
            let segment = LogSegment(
                baseOffset: base, folder: folder, createdMilliseconds: now, jitterMilliseconds: nextJitter())
            let size = Int(try files.status(segment.path(.log))?.size ?? 0)
            guard size <= Int(Int32.max) else {
                throw .corrupt(
                    path: segment.path(.log), position: 0, reason: "\(size) bytes are more than a segment can have")
            }
            segment.adopt(size: size, nextOffset: base, largest: nil)
            segments.append(segment)
        }
        for index in segments.indices.dropLast() {
            segments[index].adopt(size: segments[index].size, nextOffset: segments[index + 1].baseOffset, largest: nil)
        }
    }

    // MARK: Segments

    private func loadSegments(_ parameters: LogParameters) throws(LogError) {
        let recovery = LogRecovery(parameters)
        var firstScanned = segments.count
        if !parameters.wasClosedCleanly { firstScanned = firstToScan(from: max(parameters.recoveryPoint, 0)) }
        for index in 0..<firstScanned where index < segments.count - 1 {
            guard try !adoptClosed(segments[index]) else { continue }
            logger.warning(
                "an index is missing or malformed, and is made anew", ("partition", "\(partition)"),
                ("segment", "\(segments[index].baseOffset)"))
            try rebuildIndexes(of: index, recovery)
            if index >= segments.count - 1 {
                // it was cut, and is the last one now
                firstScanned = index
                break
            }
        }
        // a clean stop says where the log ended: what its headers say otherwise is wrong
        let end = parameters.recoveryPoint
        if firstScanned >= segments.count, try !adoptActive(active) || (end > 0 && active.nextOffset != end) {
            logger.warning(
                "the last segment is not as a clean stop leaves it, and is recovered", ("partition", "\(partition)"),
                ("segment", "\(active.baseOffset)"))
            firstScanned = segments.count - 1
        }
        let scanned = firstScanned < segments.count
        if scanned {
            try recover(from: firstScanned, recovery)
        }
        try settleOffsets(parameters, scanned: scanned)
        if !scanned { try reloadProducers() }
    }

    /// The segment that holds the recovery point; or the one that ends there: the roll that ended it came after the sync that
    /// raised the point, and nothing says that its files got their last form on the disk.
    private func firstToScan(from recoveryPoint: Offset) -> Int {
        let index = segmentIndex(of: recoveryPoint)
        return index > 0 && segments[index].baseOffset == recoveryPoint ? index - 1 : index
    }

    /// Trusts a closed segment whose indexes are plausible; false where they are not.
    private func adoptClosed(_ segment: LogSegment) throws(LogError) -> Bool {
        guard segment.size > 0 else { return true }
        guard try files.status(segment.path(.offsetIndex)) != nil, try files.status(segment.path(.timeIndex)) != nil,
            let offsetIndex = try IndexFile(
                try files.open(segment.path(.offsetIndex), .read), entrySize: SparseIndexes.offsetEntrySize),
            let timeIndex = try IndexFile(
                try files.open(segment.path(.timeIndex), .read), entrySize: SparseIndexes.timeEntrySize)
        else { return false }
        if offsetIndex.count > 0 {
            let last = try offsetIndex.offsetEntry(offsetIndex.count - 1, segment.baseOffset)
            guard last.offset >= segment.baseOffset, last.offset < segment.nextOffset, last.position < segment.size
            else { return false }
        }
        var largest: TimeIndexEntry?
        if timeIndex.count > 0 {
            largest = try timeIndex.timeEntry(timeIndex.count - 1, segment.baseOffset)
            guard largest!.offset >= segment.baseOffset, largest!.offset < segment.nextOffset else { return false }
        }
        guard try segment.transactions.open(files, in: segment.baseOffset..<segment.nextOffset) else { return false }
        segment.adopt(size: segment.size, nextOffset: segment.nextOffset, largest: largest)
        return true
    }

    /// Opens the last segment for writing as a clean stop left it; false where it was not left so.
    private func adoptActive(_ segment: LogSegment) throws(LogError) -> Bool {
        guard try segment.activate(files), try segment.transactions.open(files, in: segment.baseOffset..<Offset.max) else {
            return false
        }
        let start = segment.indexes!.lastOffsetEntry
        var largest = segment.indexes!.lastTimeEntry
        var end = segment.baseOffset
        var scanner = BatchScanner(
            try segment.file(files), baseOffset: segment.baseOffset, from: start?.position ?? 0, to: segment.size,
            bufferSize: BatchScanner.searchBufferSize)
        while true {
            switch try scanner.peek() {
            case .header(let header):
                guard header.baseOffset >= end else { return false }
                if scanner.position == start?.position, header.lastOffset != start?.offset { return false }
                if header.maxTimestamp > (largest?.timestamp ?? -1) {
                    largest = TimeIndexEntry(timestamp: header.maxTimestamp, offset: header.lastOffset)
                }
                end = header.nextOffset
                scanner.skip(header)
            case .end:
                segment.adopt(size: segment.size, nextOffset: end, largest: largest)
                return largest.map { $0.offset < max(end, segment.baseOffset + 1) } ?? true
            case .fault:
                return false
            }
        }
    }

    private func settleOffsets(_ parameters: LogParameters, scanned: Bool) throws(LogError) {
        var end = max(active.nextOffset, active.baseOffset)
        let start = max(parameters.logStartOffset, segments[0].baseOffset)
        if let bound = parameters.durableLowerBound, end < bound {
            throw .damagedBelowDurable(
                path: active.path(.log), offset: end, durable: bound, reason: "the log ends at \(end)")
        }
        if start > end {
            // without a bound nothing says whether these records were ever there: as Kafka, begin where the log was
            // said to begin
            logger.error(
                "the log ends before its start: what it holds is put aside, and it begins empty",
                ("partition", "\(partition)"),
                ("end", "\(end)"), ("start", "\(start)"))
            try putAsideSegments(from: 0, into: parameters.cutDirectory)
            try addSegment(at: start)
            producers.clear(startingAt: start)
            end = start
        }
        let recoveryPoint = scanned ? min(max(parameters.recoveryPoint, start), end) : end
        let durable = scanned ? max(recoveryPoint, min(parameters.durableLowerBound ?? 0, end)) : end
        offsets = LogOffsets(logStart: start, recoveryPoint: recoveryPoint, durable: durable, logEnd: end)
    }
}
