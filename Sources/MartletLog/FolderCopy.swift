package import MartletModel
package import MartletReactor

/// How far a segment can be copied while its log is in use.
package struct SegmentExtent: Sendable, Equatable {
    package var baseOffset: Offset
    /// Bytes of published batches.
    package var size: Int64
    /// The offset after the last of them.
    package var nextOffset: Offset
    /// None of its files changes any more.
    package var isSealed: Bool
}

extension PartitionLog {
    /// From the oldest segment to the active one.
    package var extents: [SegmentExtent] {
        let sealedCount = segments.count - 1 - unsealedCount
        return segments.enumerated().map { index, segment in
            SegmentExtent(
                baseOffset: segment.baseOffset, size: Int64(segment.size), nextOffset: segment.nextOffset,
                isSealed: index < sealedCount)
        }
    }
}

/// A copy of a partition's folder in the making, while the log in it is written to.
///
///     begin                 an empty folder
///     advance … advance     batches, from the oldest segment on; of sealed segments the other files too. Synced
///     finish                the log is closed: what is left, and the small files; nothing else remains. All of it synced
///
/// A file that retention takes away in between is passed over, and gone after `finish`. Blocks: on a lane, one call at a time.
package final class FolderCopy: @unchecked Sendable {
    private static let bufferBytes = 1 << 20
    private static let otherFiles: Set<String> = [LeaderEpochHistory.fileName, PartitionMetadata.fileName]

    package struct Progress: Sendable, Equatable {
        package var copiedBytes: Int64 = 0
        package var leftBytes: Int64 = 0
        /// Everything below is copied.
        package var copiedUpTo: Offset = 0
    }

    private let disk: any Disk
    private let source: String
    package let target: String
    /// How far the batches of a segment are copied.
    private var copied: [Offset: Int64] = [:]
    /// Segments of which every file is copied.
    private var whole: Set<Offset> = []

    package init(_ disk: any Disk, from source: String, to target: String) {
        self.disk = disk
        self.source = source
        self.target = target
    }

    package func begin() throws(LogError) {
        try onDisk { () throws(SystemError) in
            try disk.makeDirectory(target)
            try disk.syncDirectory(parent)
        }
    }

    /// The log directory that the copy lies in.
    private var parent: String { String(target[..<target.lastIndex(of: "/")!]) }

    /// Copies at most `limit` bytes of batches of what the log holds now.
    package func advance(_ extents: [SegmentExtent], atMost limit: Int64) throws(LogError) -> Progress {
        var room = limit
        for extent in extents where room > 0 {
            let done = copied[extent.baseOffset] ?? 0
            let end = min(extent.size, done + room)
            if done < end || done == 0 {
                try copyBatches(extent.baseOffset, from: done, to: end)
                copied[extent.baseOffset] = end
                room -= end - done
            }
            guard extent.isSealed, end == extent.size, !whole.contains(extent.baseOffset) else { continue }
            for kind in SegmentFile.allCases where kind != .log { try copyWhole(kind.name(extent.baseOffset)) }
            whole.insert(extent.baseOffset)
        }
        return progress(extents)
    }

    private func progress(_ extents: [SegmentExtent]) -> Progress {
        var progress = Progress()
        progress.copiedUpTo = extents.first?.baseOffset ?? 0
        var isUnbroken = true
        for extent in extents {
            let done = copied[extent.baseOffset] ?? 0
            progress.copiedBytes += done
            progress.leftBytes += extent.size - done
            guard isUnbroken else { continue }
            isUnbroken = done == extent.size
            progress.copiedUpTo = isUnbroken ? extent.nextOffset : extent.baseOffset
        }
        return progress
    }

    /// The log was closed cleanly, and nobody writes to it.
    package func finish() throws(LogError) {
        var kept: Set<String> = []
        for name in try onDisk({ () throws(SystemError) in try disk.list(source) }) {
            if let parsed = SegmentFile.parse(name) {
                guard parsed.suffix.isEmpty else { continue }
                kept.insert(name)
                if parsed.kind == .log {
                    let size = try onDisk { () throws(SystemError) in try disk.status(source + "/" + name) }?.size ?? 0
                    try copyBatches(parsed.baseOffset, from: min(copied[parsed.baseOffset] ?? 0, size), to: size)
                } else if !whole.contains(parsed.baseOffset) {
                    try copyWhole(name)
                }
            } else if Self.otherFiles.contains(name) {
                kept.insert(name)
                try copyWhole(name)
            }
        }
        try onDisk { () throws(SystemError) in
            for name in try disk.list(target) where !kept.contains(name) { try disk.remove(target + "/" + name) }
            try disk.syncDirectory(target)
            try disk.syncDirectory(parent)
        }
    }

    private func copyBatches(_ baseOffset: Offset, from start: Int64, to end: Int64) throws(LogError) {
        try copy(SegmentFile.log.name(baseOffset), from: start, to: end)
    }

    private func copyWhole(_ name: String) throws(LogError) {
        guard let status = try onDisk({ () throws(SystemError) in try disk.status(source + "/" + name) }) else { return }
        try copy(name, from: 0, to: status.size)
    }

    /// Makes a file of the copy as long as `end`, with the bytes of the original from `start` on, and syncs it.
    private func copy(_ name: String, from start: Int64, to end: Int64) throws(LogError) {
        try onDisk { () throws(SystemError) in
            guard try disk.status(source + "/" + name) != nil else { return }
            let original = try disk.open(source + "/" + name, .read)
            defer { original.close() }
            let copy = try disk.open(target + "/" + name, .create)
            defer { copy.close() }
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.bufferBytes, alignment: 16)
            defer { buffer.deallocate() }
            var position = start
            while position < end {
                let wanted = Int(min(Int64(buffer.count), end - position))
                let count = try original.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted]), at: position)
                guard count > 0 else {
                    throw SystemError(
                        .inputOutput, code: 0, operation: "read", subject: original.path, reason: "it ends before its batches do")
                }
                try copy.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]), at: position)
                position += Int64(count)
            }
            if try copy.size() != end { try copy.truncate(to: end) }
            try copy.sync()
        }
    }
}
