package import MartletModel
package import MartletReactor

/// A range of a segment file that a fetch is answered with. It begins with a whole batch, which may begin below the
/// offset asked for.
package struct LogSlice: Sendable {
    /// Nil where there is nothing to send.
    package var file: (any DiskFile)?
    package var position: Int64
    package var count: Int
    /// The base offset of the first batch; the offset asked for where there is none.
    package var firstBatchBaseOffset: Offset
    /// The size of the first batch: a `count` below it means that the batch was not asked to be whole.
    package var firstBatchSize: Int
    /// About how many records it carries: exact where it goes up to the end that was asked for, else as many as its part of
    /// the bytes up to there.
    package var recordCount: Int64 = 0
    var origin: SliceOrigin?

    package init(file: (any DiskFile)?, position: Int64, count: Int, firstBatchBaseOffset: Offset, firstBatchSize: Int) {
        self.file = file
        self.position = position
        self.count = count
        self.firstBatchBaseOffset = firstBatchBaseOffset
        self.firstBatchSize = firstBatchSize
    }

    package var isEmpty: Bool { count == 0 }

    static func empty(_ offset: Offset) -> LogSlice {
        LogSlice(file: nil, position: 0, count: 0, firstBatchBaseOffset: offset, firstBatchSize: 0)
    }
}

/// The places of the last batches of the active segment: readers at the tail, and the high watermark, are found here
/// without a search.
struct RecentBatches {
    static let limit = 32
    private var places: [BatchPlace] = []
    private var oldest = 0

    mutating func removeAll() {
        places.removeAll(keepingCapacity: true)
        oldest = 0
    }

    mutating func append(_ place: BatchPlace) {
        if places.count < Self.limit {
            places.append(place)
        } else {
            places[oldest] = place
            oldest = (oldest + 1) % Self.limit
        }
    }

    private func at(_ index: Int) -> BatchPlace {
        let place = oldest + index
        return places[place < places.count ? place : place - places.count]
    }

    /// The first batch whose last offset is not below the given one, if that is surely among these.
    func find(_ offset: Offset) -> BatchPlace? {
        guard !places.isEmpty, at(0).baseOffset <= offset else { return nil }
        let index = partitionPoint(places.count) { at($0).lastOffset < offset }
        return index < places.count ? at(index) : nil
    }
}

extension PartitionLog {
    /// Finds what a fetch from an offset is answered with: batches from the one that holds the offset (or the next
    /// there is) up to `limit`, at most `maxBytes`, within one segment. As in Kafka the last batch may be cut by
    /// `maxBytes`; with `firstBatchWhole` the first is given whole whatever its size. `limit` is an end that readers
    /// may not pass: the log end, the high watermark, or the last stable offset; a batch that reaches beyond it is not
    /// given.
    package func read(
        from offset: Offset, maxBytes: Int, limit: Offset, firstBatchWhole: Bool
    ) throws(LogError) -> LogSlice {
        if case .closed = condition { throw .closed("the log of \(partition)") }
        guard offset >= offsets.logStart, offset <= offsets.logEnd else {
            throw .offsetOutOfRange(offset: offset, start: offsets.logStart, end: offsets.logEnd)
        }
        let limit = min(limit, offsets.logEnd)
        guard offset < limit, maxBytes > 0 || firstBatchWhole else { return .empty(offset) }
        var index = segmentIndex(of: offset)
        while index < segments.count, segments[index].baseOffset < limit {
            if let first = try find(offset, in: index) {
                guard first.lastOffset < limit else { return .empty(offset) }
                return try slice(index, first, maxBytes: maxBytes, limit: limit, firstBatchWhole: firstBatchWhole)
            }
            // a compacted segment may hold nothing from this offset on
            index += 1
        }
        return .empty(offset)
    }

    private func slice(
        _ index: Int, _ first: BatchPlace, maxBytes: Int, limit: Offset, firstBatchWhole: Bool
    ) throws(LogError) -> LogSlice {
        let segment = segments[index]
        var end = segment.size
        if limit < upperBound(index), let beyond = try find(limit, in: index) { end = beyond.position }
        // so it is in a sound file; a disk that changed what was written must not end the process
        guard end >= first.position + first.size else {
            throw damage(in: segment, first.baseOffset, "offsets fall behind this batch, at byte \(end)")
        }
        var count = min(maxBytes, end - first.position)
        if firstBatchWhole { count = max(count, first.size) }
        var slice = LogSlice(
            file: try segment.file(files), position: Int64(first.position), count: count,
            firstBatchBaseOffset: first.baseOffset, firstBatchSize: first.size)
        slice.origin = SliceOrigin(
            identity: segment.identity, baseOffset: segment.baseOffset, size: segment.size, limit: upperBound(index),
            generation: generation, durable: offsets.durable,
            isChecked: segment.checked.contains(first.position..<first.position + count))
        let (records, bytes) = (min(limit, upperBound(index)) - first.baseOffset, Int64(end - first.position))
        slice.recordCount = Int64(count) == bytes ? records : Int64(Double(records) * Double(count) / Double(max(bytes, 1)))
        return slice
    }

    func find(_ offset: Offset, in index: Int) throws(LogError) -> BatchPlace? {
        if index == segments.count - 1, let place = recent.find(offset) { return place }
        return try withSoundIndexes(of: index) { (segment) throws(LogError) in try segment.find(offset, files) }
    }

    /// How many bytes of batches lie between two offsets, the first batch counted whole: what a fetch that waits for
    /// `min.bytes` asks. Across segments the whole ones in between count.
    package func byteCount(from start: Offset, to end: Offset) throws(LogError) -> Int64 {
        let end = min(end, offsets.logEnd)
        guard start < end, start >= offsets.logStart else { return 0 }
        let (first, last) = (segmentIndex(of: start), segmentIndex(of: end))
        let from = try find(start, in: first)?.position ?? segments[first].size
        let to = end == offsets.logEnd ? segments[last].size : try find(end, in: last)?.position ?? segments[last].size
        if first == last { return Int64(max(to - from, 0)) }
        let between = segments[(first + 1)..<last].reduce(Int64(0)) { $0 + Int64($1.size) }
        return Int64(segments[first].size - from) + between + Int64(to)
    }

    /// Aborted transactions that a reader of `[from, upTo)` must drop, by rising first offset.
    package func abortedTransactions(from: Offset, upTo: Offset) throws(LogError) -> [AbortedTransaction] {
        guard from < upTo else { return [] }
        var found: [AbortedTransaction] = []
        for index in segmentIndex(of: from)..<segments.count {
            var isComplete = false
            guard !segments[index].transactions.isEmpty else { continue }
            try segments[index].transactions.forEach(files) { transaction in
                if transaction.lastOffset >= from, transaction.firstOffset < upTo { found.append(transaction) }
                // every transaction whose marker comes later began at or above this
                isComplete = transaction.lastStableOffset >= upTo
                return !isComplete
            }
            if isComplete { break }
        }
        return found.sorted { ($0.firstOffset, $0.producerID) < ($1.firstOffset, $1.producerID) }
    }

    /// Where readers of committed records stop.
    package func lastStableOffset(highWatermark: Offset) -> Offset {
        min(producers.firstUnstableOffset ?? highWatermark, highWatermark)
    }

    /// The high watermark passed these offsets: transactions that ended below it hold readers back no more.
    package func noteHighWatermark(_ offset: Offset) { producers.advanceHighWatermark(to: offset) }

    /// Where the log of a leader epoch ends here, and the epoch that says so (OffsetForLeaderEpoch).
    package func endOffset(for epoch: LeaderEpoch) -> (epoch: LeaderEpoch, endOffset: Offset)? {
        epochs.endOffset(for: epoch, logEnd: offsets.logEnd)
    }

    package var latestEpoch: LeaderEpoch? { epochs.latestEpoch }
}
