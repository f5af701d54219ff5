internal import MartletModel
internal import MartletReactor

/// The exchange of segments for the one that a cleaning made of them. Files are synced between the steps, without the
/// log's lock; what is done under it are renames, and what is in memory.
///
///     *named*       0.log.swap       0.log  50.log              on the disk for good: from here on a start goes forward
///     *exchanged*   0.log.swap       0.log.deleted  50.log.deleted      readers have the new one
///                   0.log            (the old ones are removed after `file.delete.delay.ms`)
///
/// Before *named* is synced a start may find any part of it, and goes back: as long as there is a `.cleaned` file of
/// the same segment, or of one before it, a `.swap` file is worthless. The old files keep their names until it is. They
/// have lost them for good before the new ones get theirs: two segments must never cover one offset. Who goes back
/// removes the indexes first, for good, then the batches: an index that is left alone belongs to batches that have
/// their name already.
///
/// Who cuts the log, or closes it, first brings this to an end by itself (`settleSwap`), one way or the other.
final class SegmentSwap {
    enum Stage { case named, exchanged }

    let new: LogSegment
    let old: [LogSegment]
    var stage = Stage.named

    init(_ new: LogSegment, for old: [LogSegment]) {
        self.new = new
        self.old = old
    }
}

extension PartitionLog {
    /// Whether files have names that are not theirs for good: the folder is not to be copied now.
    package var isExchanging: Bool { swap != nil }

    /// The first step: the cleaned files, which are synced, are called `.swap`. False where the log is not any more
    /// what it was when the cleaning began.
    func beginSwap(_ next: SegmentSwap, generation: UInt64) throws(LogError) -> Bool {
        try requireOpen()
        guard self.generation == generation, swap == nil, placeOf(next.old) != nil else { return false }
        do throws(LogError) { try next.new.rename(to: SegmentFile.swapSuffix, files) } catch {
            do throws(LogError) { try forgetSwapFiles(of: next.new) } catch {
                breakDown("what was cleaned could not be taken back: \(error)")
            }
            throw error
        }
        swap = next
        return true
    }

    /// The second step, when the new names are on the disk. Nil where the swap was ended meanwhile; else the files to be
    /// removed later.
    func exchange(_ ongoing: SegmentSwap) throws(LogError) -> [String]? {
        try requireOpen()
        guard swap === ongoing else { return nil }
        guard let place = placeOf(ongoing.old) else {
            preconditionFailure("segments leave a log only when no swap is under way")
        }
        segments.replaceSubrange(place..<place + ongoing.old.count, with: [ongoing.new])
        ongoing.stage = .exchanged
        exchanges += 1
        do throws(LogError) { return try retire(ongoing) } catch {
            breakDown("cleaned segments could not be given up: \(error)")
            throw error
        }
    }

    /// The last step, when the old names are gone from the disk. The folder is to be synced once more.
    func endSwap(_ ongoing: SegmentSwap) throws(LogError) {
        guard swap === ongoing else { return }
        try requireOpen()
        do throws(LogError) { try ongoing.new.rename(to: "", files) } catch {
            breakDown("a cleaned segment could not get its name: \(error)")
            throw error
        }
        swap = nil
        noteFolderChanged()
    }

    /// The disk refused in the middle of it.
    func giveUp(_ ongoing: SegmentSwap) throws(LogError) { if swap === ongoing { try settleSwap() } }

    /// Ends a swap that is under way, at once and for good: the log is about to be cut, or closed.
    func settleSwap() throws(LogError) {
        guard let ongoing = swap else { return }
        switch ongoing.stage {
        case .named:
            try forgetSwapFiles(of: ongoing.new)
        case .exchanged:
            try syncFolder()
            try ongoing.new.rename(to: "", files)
            try syncFolder()
        }
        swap = nil
    }

    /// What the old segments have becomes `.deleted`; but for the snapshot at the start of the first, which is the new
    /// one's too.
    private func retire(_ ongoing: SegmentSwap) throws(LogError) -> [String] {
        var paths: [String] = []
        for segment in ongoing.old {
            segment.forgetFiles(files)
            for kind in SegmentFile.allCases {
                if kind == .snapshot, segment.baseOffset == ongoing.new.baseOffset { continue }
                let path = segment.path(kind)
                guard try files.status(path) != nil else { continue }
                try files.rename(path, to: path + SegmentFile.deletedSuffix)
                paths.append(path + SegmentFile.deletedSuffix)
            }
        }
        return paths
    }

    /// Where these segments lie, if they still do, one after the other.
    private func placeOf(_ wanted: [LogSegment]) -> Int? {
        guard let place = segments.firstIndex(where: { $0 === wanted[0] }), place + wanted.count <= sealedCount else {
            return nil
        }
        return zip(segments[place...], wanted).allSatisfy { $0 === $1 } ? place : nil
    }

    /// Goes back: nothing was replaced yet.
    private func forgetSwapFiles(of segment: LogSegment) throws(LogError) {
        segment.forgetFiles(files)
        for kind in SegmentFile.allCases.reversed() where kind != .snapshot {
            if kind == .log { try syncFolder() }
            try files.remove(kind.path(folder, segment.baseOffset) + SegmentFile.swapSuffix)
        }
        try syncFolder()
        for kind in SegmentFile.allCases where kind != .snapshot {
            try files.remove(kind.path(folder, segment.baseOffset) + SegmentFile.cleanedSuffix)
        }
    }

    private func syncFolder() throws(LogError) {
        try onDisk { () throws(SystemError) in try disk.syncDirectory(folder) }
    }
}

extension ProducerStateTable {
    /// The last of every producer that is remembered.
    var lastOfProducers: [ProducerID: LastOfProducer] {
        var found: [ProducerID: LastOfProducer] = [:]
        forEachEntry { entry in
            found[entry.producerID] = LastOfProducer(
                dataOffset: entry.last.lastOffset >= 0 ? entry.last.lastOffset : nil, epoch: entry.epoch)
        }
        return found
    }
}
