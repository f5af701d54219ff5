internal import MartletModel

/// Room ahead of the active segment's end: zeros that are written with one sync, so that the syncs of what comes next find
/// the file as long as it has to be. A file that grows has its inode written with every sync, and on a file system with a
/// journal a commit of that; over bytes that lie there the sync writes the bytes alone (docs/design/room-ahead.md).
///
/// Readers know `LogSegment.size`, and never come here. A roll and a clean stop cut the room off; recovery takes zeros behind
/// the last batch for what they are.
extension PartitionLog {
    /// With more than this in one sync the bytes themselves are what it costs.
    private static let largestSync = 16 * 1024
    /// As much room as has been appended since the log was opened, so that a log that hardly grows takes no disk: at most
    /// twice the bytes are written. No more than this, or a share of a small segment; the least is what is worth the call.
    private static let most = (bytes: 256 * 1024, share: 4)
    private static let least = (bytes: 16 * 1024, share: 64)

    /// Whether zeros after the batches of a segment are room, `next` being the offset that would have come there: only
    /// where nothing can have lain in their place. The segment after goes on with that offset, or, where there is none,
    /// all that is known to have been synced lies before it.
    static func mayBeRoom(at next: Offset, segmentAfter: Offset?, synced: Offset) -> Bool {
        if let segmentAfter { next == segmentAfter } else { next >= synced }
    }

    /// Before a sync. That there is no space for it is no fault of the records: they have their place.
    func keepRoomAhead() {
        let segment = active
        guard activeIsUnsynced, unsyncedBytes > 0, unsyncedBytes <= Self.largestSync,
            segment.fileEnd - segment.reservedSize < unsyncedBytes
        else { return }
        let whole = Int(config.segmentBytes)
        let room = min(grownBytes, Self.most.bytes, whole / Self.most.share, whole - segment.reservedSize)
        guard room >= min(Self.least.bytes, whole / Self.least.share) else { return }
        do throws(LogError) { try segment.makeRoom(to: segment.reservedSize + room, files) } catch {
            // asked again when as much has come once more
            grownBytes = 0
            postpone(error)
        }
    }
}
