internal import MartletBasics
internal import MartletModel
internal import MartletReactor

/// Which segments become one: as many that follow one another as `segment.bytes` and the size of an index allow, as in
/// Kafka.
enum CleaningGroups {
    static func of(_ segments: [PlannedSegment], _ plan: CleaningPlan) throws(LogError) -> [Range<Int>] {
        var groups: [Range<Int>] = []
        var start = 0
        var (bytes, offsetIndex, timeIndex) = (0, 0, 0)
        for (place, segment) in segments.enumerated() {
            let entries = try indexBytes(of: segment, plan)
            let fits =
                bytes + segment.size <= Int(plan.config.segmentBytes)
                && offsetIndex + entries.offsets <= Int(plan.config.segmentIndexBytes)
                && timeIndex + entries.times <= Int(plan.config.segmentIndexBytes)
                && (segment.size == 0 || segment.endOffset - 1 - segments[start].baseOffset <= Int64(Int32.max))
            if place > start, !fits {
                groups.append(start..<place)
                start = place
                (bytes, offsetIndex, timeIndex) = (0, 0, 0)
            }
            bytes += segment.size
            offsetIndex += entries.offsets
            timeIndex += entries.times
        }
        if start < segments.count { groups.append(start..<segments.count) }
        return groups
    }

    private static func indexBytes(of segment: PlannedSegment, _ plan: CleaningPlan) throws(LogError) -> (
        offsets: Int, times: Int
    ) {
        let offsets = try plan.files.status(SegmentFile.offsetIndex.path(plan.folder, segment.baseOffset))?.size ?? 0
        let times = try plan.files.status(SegmentFile.timeIndex.path(plan.folder, segment.baseOffset))?.size ?? 0
        return (Int(offsets), Int(times))
    }
}

/// The segment that a cleaning makes of a group of others, in files that end in `.cleaned`.
final class CleanedSegment {
    let old: [PlannedSegment]
    let segment: LogSegment
    private let files: LogFiles
    private let indexInterval: Int
    private let bufferBytes: Int
    private let file: any DiskFile
    private var output = ByteBuffer(capacity: 64 * 1024)
    /// Of what is in the file already.
    private var writtenBytes = 0
    private var isAsItWas = true
    private var abortedCount = 0
    /// The last batch that was read and not written.
    private var lastDropped: BatchHeader?
    private var oldAbortedCount: Int

    init(_ old: [PlannedSegment], _ plan: CleaningPlan, bufferBytes: Int) throws(LogError) {
        self.old = old
        files = plan.files
        indexInterval = Int(plan.config.indexIntervalBytes)
        self.bufferBytes = max(bufferBytes, 4096)
        oldAbortedCount = old.reduce(0) { $0 + $1.transactions.countInFile + $1.transactions.tail.count }
        segment = LogSegment(
            baseOffset: old[0].baseOffset, folder: plan.folder,
            createdMilliseconds: old[old.count - 1].segment.createdMilliseconds,
            jitterMilliseconds: 0, suffix: SegmentFile.cleanedSuffix)
        // what a cleaning that was given up, or a crash, has left under these names is worth nothing
        for kind in SegmentFile.allCases where kind != .snapshot {
            try files.remove(segment.path(kind))
        }
        try segment.make(files, indexBytes: 0)
        file = try segment.file(files)
    }

    /// The files say nothing that those of the one old segment do not.
    var isUnchanged: Bool { isAsItWas && old.count == 1 && abortedCount == oldAbortedCount }

    /// Takes what stays of the next batch.
    func take(
        _ header: BatchHeader, _ bytes: UnsafeRawBufferPointer, _ cleaner: BatchCleaner, _ figures: inout CleaningFigures
    ) throws(CleaningFault) {
        let start = output.count
        let outcome = try cleaner.clean(header, bytes, into: &output)
        figures.droppedRecords += Int64(outcome.dropped)
        figures.keptRecords += Int64(outcome.kept)
        isAsItWas = isAsItWas && outcome.isUnchanged
        if let aborted = outcome.aborted {
            segment.transactions.append(aborted)
            abortedCount += 1
        }
        guard let written = outcome.written else {
            lastDropped = header
            return
        }
        lastDropped = nil
        guard writtenBytes + output.count <= Int(Int32.max) else {
            output.truncate(to: start)
            throw .tooLarge
        }
        segment.publish(BatchPlace(written, position: writtenBytes + start), indexInterval: indexInterval)
    }

    /// How many bytes were written.
    func writeIfFull() throws(LogError) -> Int64 { output.count >= bufferBytes ? try write() : 0 }

    private func write() throws(LogError) -> Int64 {
        if segment.transactions.mustWrite { _ = try segment.transactions.write(files) }
        guard output.count > 0 else { return 0 }
        let count = output.count
        try files.write(output.bytes, to: file, at: Int64(writtenBytes))
        writtenBytes += count
        output.reset(keeping: bufferBytes * 2)
        return Int64(count)
    }

    /// Writes the rest and the indexes, and syncs all of it. How many bytes were written.
    func finish() throws(LogError) -> Int64 {
        reachLastSegment()
        let count = try write()
        guard !isUnchanged else { return count }
        var written = try segment.completeIndexes(files)
        if segment.transactions.countInFile > 0, written.count < 3 {
            // what waited was written before the end, and is to be synced as well
            written.append(try files.open(segment.path(.transactionIndex), .readWrite))
        }
        written.append(file)
        for file in written { try onDisk { () throws(SystemError) in try file.sync() } }
        segment.close()
        segment.adopt(size: segment.size, nextOffset: old[old.count - 1].endOffset, largest: segment.largest)
        return count
    }

    /// A start that finds the new segment beside the old ones takes it that those were replaced whose offsets it covers,
    /// as Kafka does. So it must reach into the last one that has batches: with an empty batch, where nothing of it stayed.
    private func reachLastSegment() {
        guard let last = old.last(where: { $0.size > 0 }), last.baseOffset > old[0].baseOffset,
            segment.nextOffset <= last.baseOffset, let dropped = lastDropped
        else { return }
        let start = output.count
        let empty = BatchCleaner.writeEmpty(dropped, into: &output)
        segment.publish(BatchPlace(empty, position: writtenBytes + start), indexInterval: indexInterval)
    }

    /// Removes the files. One that cannot be removed now is by the next cleaning, or the next start.
    func discard() {
        segment.close()
        segment.forgetFiles(files)
        for kind in SegmentFile.allCases where kind != .snapshot { try? files.remove(segment.path(kind)) }
    }
}
