internal import MartletBasics
internal import MartletModel
internal import MartletReactor

/// What a log does about damage that it meets while it serves. An index is a repetition of what the batches say, and is made
/// anew; a batch is repeated nowhere.
extension PartitionLog {
    /// Runs a search that an index leads. Where the index misleads it, both indexes of the segment are made anew from its
    /// headers, which is said, and the search runs once more. Reads the segment once, for an incident that no disk has
    /// often; its owner's lock is held meanwhile.
    func withSoundIndexes<R>(
        of index: Int, _ search: (LogSegment) throws(LogError) -> R
    ) throws(LogError) -> R {
        let segment = segments[index]
        do throws(LogError) { return try search(segment) } catch {
            guard case .corrupt(let path, let position, let reason) = error else { throw error }
            guard path != segment.path(.log) else { throw try damage(in: segment, at: position, reason) }
            sayIndexMadeAnew(segment, "\(path): \(reason)")
        }
        do throws(LogError) {
            let written = try segment.remakeIndexes(files, indexInterval: Int(config.indexIntervalBytes))
            unsyncedFiles += written
            if !written.isEmpty { noteFolderChanged() }
            return try search(segment)
        } catch {
            guard case .corrupt(_, let position, let reason) = error else { throw error }
            throw try damage(in: segment, at: position, reason)
        }
    }

    func sayIndexMadeAnew(_ segment: LogSegment, _ reason: String) {
        logger.warning(
            "an index is damaged, and is made anew", ("partition", "\(partition)"), ("segment", "\(segment.baseOffset)"),
            ("reason", reason))
    }

    /// What a segment says of its highest timestamp is held against the batch that has it, before anything is decided by it.
    func confirmLargest(of index: Int) throws(LogError) {
        guard !segments[index].isLargestConfirmed else { return }
        try withSoundIndexes(of: index) { (segment) throws(LogError) in try segment.confirmLargest(files) }
    }

    /// The offset that the damage at a byte begins with: what follows the last batch before it.
    func damage(in segment: LogSegment, at position: Int64, _ reason: String) throws(LogError) -> LogError {
        var scanner = BatchScanner(
            try segment.file(files), baseOffset: segment.baseOffset, from: 0, to: segment.size,
            bufferSize: BatchScanner.recoveryBufferSize)
        var offset = segment.baseOffset
        while scanner.position < Int(position), case .header(let header) = try scanner.peek() {
            offset = header.nextOffset
            scanner.skip(header)
        }
        return damage(in: segment, offset, "\(reason), at byte \(position)")
    }

    func damage(in segment: LogSegment, _ offset: Offset, _ reason: String) -> LogError {
        .damagedBelowDurable(
            path: segment.path(.log), offset: offset, durable: max(offsets.durable, offset + 1), reason: reason)
    }
}
