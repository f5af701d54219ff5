internal import MartletBasics
package import MartletModel
internal import MartletReactor

/// A record found by its time.
package struct TimestampedOffset: Equatable, Sendable {
    package var timestamp: Int64
    package var offset: Offset
    /// The leader epoch that wrote it; -1 where that is not known.
    package var leaderEpoch: LeaderEpoch

    package init(timestamp: Int64, offset: Offset, leaderEpoch: LeaderEpoch) {
        self.timestamp = timestamp
        self.offset = offset
        self.leaderEpoch = leaderEpoch
    }
}

/// What a search in compressed batches works with; kept by whoever makes many.
package struct TimeSearch: ~Copyable {
    /// A batch that says it is larger than this when opened is damaged.
    package static let decompressedLimit = 128 * 1024 * 1024

    let contexts: CodecContexts
    var stored = ByteBuffer()
    var opened = ByteBuffer()

    package init(contexts: CodecContexts) { self.contexts = contexts }
}

/// ListOffsets. May read and decompress a batch: the work of a lane where that is large.
extension PartitionLog {
    /// The first record, below `limit`, whose timestamp is the given one or later; nil where there is none.
    package func firstOffset(
        atOrAfter timestamp: Int64, limit: Offset, _ search: inout TimeSearch
    ) throws(LogError) -> TimestampedOffset? {
        for index in segments.indices {
            let segment = segments[index]
            guard segment.nextOffset > offsets.logStart else { continue }
            try confirmLargest(of: index)
            guard (segment.largest?.timestamp ?? -1) >= timestamp else { continue }
            let start = try withSoundIndexes(of: index) { (segment) throws(LogError) in
                try segment.startOfSearch(timestamp: timestamp, files)
            }
            var scanner = BatchScanner(
                try segment.file(files), baseOffset: segment.baseOffset, from: start, to: segment.size,
                bufferSize: BatchScanner.searchBufferSize)
            while let header = try nextHeader(&scanner, segment) {
                if header.baseOffset >= limit { return nil }
                if header.maxTimestamp >= timestamp, header.lastOffset >= offsets.logStart {
                    let found = try firstRecord(header, scanner.position, segment, &search) { time, offset in
                        time >= timestamp && offset >= offsets.logStart
                    }
                    if let found { return found.offset < limit ? found : nil }
                }
                scanner.skip(header)
            }
        }
        return nil
    }

    /// The record with the highest timestamp, the first of several; nil for a log without one.
    package func offsetOfMaxTimestamp(_ search: inout TimeSearch) throws(LogError) -> TimestampedOffset? {
        var best: (segment: LogSegment, entry: TimeIndexEntry)?
        for index in segments.indices {
            try confirmLargest(of: index)
            let segment = segments[index]
            guard let entry = segment.largest, entry.timestamp > (best?.entry.timestamp ?? -1),
                entry.offset >= offsets.logStart
            else { continue }
            best = (segment, entry)
        }
        guard let best, let place = try best.segment.find(best.entry.offset, files) else { return nil }
        var scanner = BatchScanner(
            try best.segment.file(files), baseOffset: best.segment.baseOffset, from: place.position,
            to: best.segment.size,
            bufferSize: BatchScanner.searchBufferSize)
        guard let header = try nextHeader(&scanner, best.segment) else { return nil }
        return try firstRecord(header, place.position, best.segment, &search) { time, _ in time >= header.maxTimestamp }
    }

    private func nextHeader(_ scanner: inout BatchScanner, _ segment: LogSegment) throws(LogError) -> BatchHeader? {
        switch try scanner.peek() {
        case .header(let header): return header
        case .end: return nil
        case .fault(let fault):
            throw .corrupt(path: segment.path(.log), position: Int64(scanner.position), reason: fault.description)
        }
    }

    /// The first record of a batch that is wanted.
    private func firstRecord(
        _ header: BatchHeader, _ position: Int, _ segment: LogSegment, _ search: inout TimeSearch,
        _ isWanted: (Int64, Offset) -> Bool
    ) throws(LogError) -> TimestampedOffset? {
        func bad(_ reason: String) -> LogError {
            .corrupt(path: segment.path(.log), position: Int64(position), reason: reason)
        }
        search.stored.reset(keeping: 1 << 20)
        search.opened.reset(keeping: 1 << 20)
        let target = UnsafeMutableRawBufferPointer(
            start: search.stored.extend(header.totalSize), count: header.totalSize)
        let count = try files.read(try segment.file(files), into: target, at: Int64(position))
        guard count == header.totalSize else { throw bad("the batch ends early") }
        // damage to synced data is found before anything is built upon it
        guard BatchHeader.checksum(of: UnsafeRawBufferPointer(target)) == header.crc else {
            throw bad("the checksum does not match")
        }
        let records: UnsafeRawBufferPointer
        do throws(CompressionFault) {
            records = try header.records(
                of: UnsafeRawBufferPointer(target), contexts: search.contexts, scratch: &search.opened,
                limit: TimeSearch.decompressedLimit)
        } catch {
            throw bad("\(error)")
        }
        var cursor = RecordCursor(records, count: header.recordCount)
        do throws(RecordFault) {
            while let record = try cursor.next() {
                let time = header.timestamp(of: record)
                let offset = header.baseOffset + Int64(record.offsetDelta)
                if isWanted(time, offset) {
                    return TimestampedOffset(timestamp: time, offset: offset, leaderEpoch: header.leaderEpoch)
                }
            }
        } catch {
            throw bad("\(error)")
        }
        return nil
    }
}
