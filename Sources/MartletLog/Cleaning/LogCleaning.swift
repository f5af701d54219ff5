internal import MartletBasics
package import MartletModel
internal import MartletReactor

/// How a cleaning reaches the log that it works at: under the lock that guards it, for as long as it is to be worked at.
package protocol CleaningAccess: AnyObject, Sendable {
    /// Throws `closed` where the log is not to be touched any more.
    func withLog<R>(_ body: (PartitionLog) throws(LogError) -> R) throws(LogError) -> R
}

/// What a cleaning may take.
package struct CleaningLimits: Sendable {
    /// For the keys' last offsets.
    package var mapBytes = 128 << 20
    package var mapLoadFactor = 0.9
    /// For reading and for writing together.
    package var bufferBytes = 512 << 10
    package init() {}
}

/// What a cleaning has done so far.
package struct CleaningFigures: Equatable, Sendable {
    package var readBytes: Int64 = 0
    package var writtenBytes: Int64 = 0
    /// Bytes of the segments that were exchanged, and of those that came in their place.
    package var oldBytes: Int64 = 0
    package var newBytes: Int64 = 0
    package var droppedRecords: Int64 = 0
    package var keptRecords: Int64 = 0
    /// Keys that were told apart.
    package var keys: Int64 = 0
    package init() {}
}

/// One cleaning of one log, in pieces that a lane does one after the other.
///
///     mapping    reads the dirty part, and notes the last offset of every key, until all is read or the map is full
///     cleaning   reads everything from the log's first segment on, and writes what stays: a group of segments becomes one
///     swapping   puts that in their place (`SegmentSwap`); the next group
///
/// The log's lock is taken for moments only: to open a file, and for the renames. Where the log went back meanwhile, was
/// closed or replaced, the cleaning is *overtaken*: nothing of what it was at remains, and what it had exchanged is sound.
package final class LogCleaning: @unchecked Sendable {
    package enum Outcome: Sendable { case working, finished, overtaken }

    private enum Phase {
        case mapping(segment: Int)
        case cleaning
        case swapping(SegmentSwap)
        case finished
    }

    package let plan: CleaningPlan
    package private(set) var figures = CleaningFigures()
    /// Everything below was looked at.
    package private(set) var endOffset: Offset
    /// Files that are to be removed when `file.delete.delay.ms` has passed. Taken by who does that.
    private var retiredPaths: [String] = []

    private let access: any CleaningAccess
    private let limits: CleaningLimits
    private let keys: KeyOffsets
    private let contexts = CodecContexts()
    private var phase = Phase.mapping(segment: 0)
    private var reader: CleaningReader?
    private var mapTransactions = CleaningTransactions()
    private var opened = ByteBuffer()
    /// Keys that were read, and are to be noted.
    private var read: [(hash: KeyHash, offset: Offset)] = []
    private var cleaner: BatchCleaner?
    private var groups: [Range<Int>] = []
    private var group: CleanedSegment?
    private var nextSegment = 0

    /// - Parameter secret: nobody else's: the keys' hashes are made with it.
    package init(
        _ plan: CleaningPlan, access: any CleaningAccess, limits: CleaningLimits, secret: (UInt64, UInt64)
    ) {
        self.plan = plan
        self.access = access
        self.limits = limits
        let first = plan.cleanability.firstDirty
        endOffset = first
        let range = max(plan.cleanability.firstUncleanable - first, 1)
        keys = KeyOffsets(
            memoryBytes: limits.mapBytes, loadFactor: limits.mapLoadFactor, keys: Int(clamping: range),
            secret: KeyHash.Secret(low: secret.0, high: secret.1))
        let dirty = plan.segments.firstIndex { $0.endOffset > first } ?? plan.segments.count
        phase = .mapping(segment: dirty)
    }

    /// Half of the buffers is for reading.
    private var readBufferBytes: Int { max(limits.bufferBytes / 2, 4096) }

    /// Goes on, for about so many bytes read and written.
    package func advance(atMost limit: Int) throws(LogError) -> Outcome {
        let goal = figures.readBytes + figures.writtenBytes + Int64(max(limit, 1))
        do throws(LogError) {
            guard try isCurrent() else { return overtaken() }
            while figures.readBytes + figures.writtenBytes < goal {
                switch phase {
                case .mapping(let segment): try map(segment, goal)
                case .cleaning: try clean(goal)
                case .swapping(let swap): guard try exchange(swap) else { return overtaken() }
                case .finished: return .finished
                }
            }
            if case .finished = phase { return .finished }
            return .working
        } catch {
            // what a log that went away meanwhile leads to is no fault of the disk's
            if (try? isCurrent()) == false { return overtaken() }
            abandon()
            if case .swapping(let swap) = phase { try? access.withLog { (log) throws(LogError) in try log.giveUp(swap) } }
            throw error
        }
    }

    /// What was retired since the last call.
    package func takeRetiredPaths() -> [String] {
        defer { retiredPaths = [] }
        return retiredPaths
    }

    /// Nothing more is done: what lies beside the log goes.
    package func abandon() {
        reader = nil
        cleaner = nil
        group?.discard()
        group = nil
    }

    private func overtaken() -> Outcome {
        abandon()
        return .overtaken
    }

    private func isCurrent() throws(LogError) -> Bool {
        do throws(LogError) {
            return try access.withLog { (log) throws(LogError) in
                try log.requireOpen()
                return log.generation == plan.generation
            }
        } catch {
            if case .closed = error { return false }
            throw error
        }
    }

    private func open(_ planned: PlannedSegment) throws(LogError) -> CleaningReader {
        let file = try access.withLog { (log) throws(LogError) in try planned.segment.file(log.files) }
        return CleaningReader(
            file, path: SegmentFile.log.path(plan.folder, planned.baseOffset), baseOffset: planned.baseOffset,
            size: planned.size, bufferBytes: readBufferBytes)
    }

    /// Aborted transactions of which batches may lie in `[from, upTo)`, from the index of a segment and those after it.
    private func aborted(from index: Int, notBefore first: Offset, upTo: Offset) throws(LogError) -> [AbortedTransaction] {
        var found: [AbortedTransaction] = []
        let later = plan.segments[index...].map(\.transactions).filter { !$0.isEmpty } + plan.laterTransactions
        for transactions in later {
            var isComplete = false
            try transactions.forEach(plan.files) { transaction in
                if transaction.firstOffset >= first, transaction.firstOffset < upTo { found.append(transaction) }
                isComplete = transaction.lastStableOffset >= upTo
                return !isComplete
            }
            if isComplete { break }
        }
        return found
    }

    // MARK: Mapping

    private func map(_ index: Int, _ goal: Int64) throws(LogError) {
        guard index < plan.segments.count else { return try beginCleaning(at: plan.cleanability.firstUncleanable) }
        let planned = plan.segments[index]
        if reader == nil {
            let isFirst = planned.baseOffset <= plan.cleanability.firstDirty
            reader = try open(planned)
            // one that spans segments is told with the first of them
            mapTransactions.add(
                try aborted(from: index, notBefore: isFirst ? 0 : planned.baseOffset, upTo: planned.endOffset))
        }
        while figures.readBytes + figures.writtenBytes < goal {
            let position = reader!.position
            guard let (header, bytes) = try reader!.next() else {
                reader = nil
                phase = .mapping(segment: index + 1)
                endOffset = planned.endOffset
                return
            }
            figures.readBytes += Int64(header.totalSize)
            if header.isControl {
                _ = mapTransactions.passMarker(
                    header, BatchCleaner.controlType(header, bytes), isEmpty: header.recordCount == 0)
            } else if !mapTransactions.passBatch(header), header.lastOffset >= plan.cleanability.firstDirty {
                guard try note(header, bytes, position) else { return try beginCleaning(at: endOffset) }
            }
            endOffset = max(endOffset, header.nextOffset)
        }
    }

    /// Notes the keys of a batch; false where the map is full, and the end lies at the record that found no room.
    private func note(_ header: BatchHeader, _ bytes: UnsafeRawBufferPointer, _ position: Int) throws(LogError) -> Bool {
        guard header.recordCount > 0 else { return true }
        read.removeAll(keepingCapacity: true)
        let overlooksTombstones = plan.planted.contains(.overlookedTombstones)
        opened.reset(keeping: 1 << 20)
        do throws(CleaningFault) {
            let records = try BatchCleaner.open(header, bytes, contexts, &opened)
            var cursor = RecordCursor(records, count: header.recordCount)
            while let record = try BatchCleaner.next(&cursor) {
                guard record.offsetDelta >= 0, record.offsetDelta <= header.lastOffsetDelta else { throw .offsets }
                let offset = header.baseOffset + Int64(record.offsetDelta)
                guard let key = cursor.bytes(in: record.key), offset >= plan.cleanability.firstDirty else { continue }
                if overlooksTombstones, !record.hasValue { continue }
                read.append((keys.hash(key), offset))
                if read.count == KeyOffsets.keysAtOnce, !noteRead() { return false }
            }
        } catch {
            throw reader!.corrupt(error.description, at: position)
        }
        return noteRead()
    }

    /// False where the map is full.
    private func noteRead() -> Bool {
        for one in read {
            guard keys.note(one.hash, at: one.offset) else {
                endOffset = one.offset
                return false
            }
        }
        read.removeAll(keepingCapacity: true)
        return true
    }

    // MARK: Cleaning

    private func beginCleaning(at end: Offset) throws(LogError) {
        reader = nil
        endOffset = end
        figures.keys = Int64(keys.count)
        let count = plan.segments.prefix { $0.baseOffset < end }.count
        groups = try CleaningGroups.of(Array(plan.segments[..<count]), plan)
        cleaner = BatchCleaner(
            keys: keys, end: end, nowMilliseconds: plan.nowMilliseconds, deleteRetentionMs: plan.config.deleteRetentionMs,
            lastOfProducers: plan.lastOfProducers, contexts: contexts)
        nextSegment = 0
        phase = groups.isEmpty ? .finished : .cleaning
    }

    private func clean(_ goal: Int64) throws(LogError) {
        guard let segments = groups.first else {
            phase = .finished
            return
        }
        if group == nil {
            group = try CleanedSegment(Array(plan.segments[segments]), plan, bufferBytes: limits.bufferBytes / 2)
        }
        guard nextSegment < segments.upperBound else { return try finish(group!) }
        let planned = plan.segments[nextSegment]
        if reader == nil {
            reader = try open(planned)
            cleaner!.transactions.add(
                try aborted(
                    from: nextSegment, notBefore: nextSegment == 0 ? 0 : planned.baseOffset, upTo: planned.endOffset))
        }
        while figures.readBytes + figures.writtenBytes < goal {
            let position = reader!.position
            guard let (header, bytes) = try reader!.next() else {
                reader = nil
                nextSegment += 1
                return
            }
            figures.readBytes += Int64(header.totalSize)
            do throws(CleaningFault) {
                try group!.take(header, bytes, cleaner!, &figures)
            } catch {
                throw reader!.corrupt(error.description, at: position)
            }
            figures.writtenBytes += try group!.writeIfFull()
        }
    }

    private func finish(_ cleaned: CleanedSegment) throws(LogError) {
        figures.writtenBytes += try cleaned.finish()
        groups.removeFirst()
        guard !cleaned.isUnchanged else {
            cleaned.discard()
            group = nil
            return
        }
        phase = .swapping(SegmentSwap(cleaned.segment, for: cleaned.old.map(\.segment)))
    }

    // MARK: Swapping

    /// False where the log is another meanwhile.
    private func exchange(_ swap: SegmentSwap) throws(LogError) -> Bool {
        let (files, folder, generation) = (plan.files, plan.folder, plan.generation)
        func syncFolder() throws(LogError) {
            try onDisk { () throws(SystemError) in try files.disk.syncDirectory(folder) }
        }
        guard try access.withLog({ (log) throws(LogError) in try log.beginSwap(swap, generation: generation) }) else {
            return false
        }
        let cleaned = group!
        // from here on the log knows of it, and ends what is begun whatever becomes of this cleaning
        group = nil
        try syncFolder()
        guard let retired = try access.withLog({ (log) throws(LogError) in try log.exchange(swap) }) else { return false }
        retiredPaths += retired
        figures.oldBytes += cleaned.old.reduce(0) { $0 + Int64($1.size) }
        figures.newBytes += Int64(cleaned.segment.size)
        try syncFolder()
        try access.withLog { (log) throws(LogError) in try log.endSwap(swap) }
        try syncFolder()
        phase = groups.isEmpty ? .finished : .cleaning
        return true
    }
}
