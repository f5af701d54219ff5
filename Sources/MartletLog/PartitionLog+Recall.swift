internal import MartletBasics
internal import MartletModel
internal import MartletReactor

/// Kafka's snapshots hold a producer's last batch alone. A producer has up to five in flight, and when the broker is
/// back it sends again all that were not answered: the first of them would follow nothing that is known, and be refused
/// for good although it was appended. So when a producer that is known from a snapshot sends what is out of order, the
/// log itself is asked once for its earlier batches.
extension PartitionLog {
    /// How far back is looked in each of the last two segments: five batches of one producer lie within that, or were
    /// answered long ago.
    private static let recallBytesLimit = 64 << 20

    /// Looks for the batches that a snapshot could not tell of. True if any were found.
    func recallBatches(of producer: ProducerID) throws(LogError) -> Bool {
        guard let gap = producers.takeGap(of: producer) else { return false }
        var found: [ProducerBatch] = []
        let last = segmentIndex(of: gap.before)
        for index in max(last - 1, 0)...last {
            let segment = segments[index]
            let end = index == last ? try find(gap.before, in: index)?.position ?? segment.size : segment.size
            var scanner = BatchScanner(
                try segment.file(files), baseOffset: segment.baseOffset, from: try recallStart(index, end: end, before: gap.before), to: end,
                bufferSize: BatchScanner.searchBufferSize)
            scan: while true {
                guard case .header(let header) = try scanner.peek() else { break scan }
                scanner.skip(header)
                guard header.producerID == producer, header.producerEpoch == gap.epoch, !header.isControl else { continue }
                found.append(
                    ProducerBatch(
                        lastSequence: header.lastSequence, offsetDelta: header.lastOffsetDelta, lastOffset: header.lastOffset,
                        timestamp: header.maxTimestamp))
                if found.count > gap.count { found.removeFirst() }
            }
        }
        for batch in found.reversed() {
            guard producers.addEarlier(batch, of: producer) else { break }
        }
        return !found.isEmpty
    }

    /// Where to begin so that about the limit is read: batches are taken to be spread evenly over their offsets.
    private func recallStart(_ index: Int, end: Int, before: Offset) throws(LogError) -> Int {
        guard end > Self.recallBytesLimit else { return 0 }
        let base = segments[index].baseOffset
        let upper = index + 1 < segments.count ? min(before, segments[index + 1].baseOffset) : before
        let share = Double(end - Self.recallBytesLimit) / Double(end)
        let place = try find(base + Offset(Double(upper - base) * share), in: index)
        return min(place?.position ?? 0, end)
    }
}
