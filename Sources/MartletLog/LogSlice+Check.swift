internal import MartletModel
import MartletReactor

/// What has to be known of a slice to check it elsewhere, without its log.
struct SliceOrigin: Sendable {
    let identity: SegmentIdentity
    let baseOffset: Offset
    /// How many bytes of batches the segment had.
    let size: Int
    /// Every batch of the slice lies below.
    let limit: Offset
    let generation: UInt64
    let durable: Offset
    /// Whether these bytes were found sound since the log was opened.
    let isChecked: Bool
}

/// What a check of a slice has found; its log takes it by `noteChecked`.
package struct SliceVerdict: Sendable {
    let origin: SliceOrigin
    let checked: Range<Int>
    package let failure: LogError?
}

/// Nothing that was synced is served before it was found sound once in the life of this process: framing, checksums, and that
/// offsets rise. Whoever is about to send a slice that `needsCheck` has it checked on a lane first, where what is not in
/// the page cache is read ahead anyway, and is checked again.
extension LogSlice {
    package var needsCheck: Bool { origin.map { !$0.isChecked } ?? false }

    /// Reads every batch that begins in the slice; the last one beyond its end, where it is cut. Blocks.
    package func check() -> SliceVerdict? {
        guard let origin, let file, count > 0 else { return nil }
        let start = Int(position)
        var scanner = BatchScanner(
            file, baseOffset: origin.baseOffset, from: start, to: max(origin.size, start),
            bufferSize: BatchScanner.recoveryBufferSize)
        var least = firstBatchBaseOffset
        do throws(LogError) {
            while scanner.position < start + count {
                if let reason = try Self.fault(&scanner, &least, below: origin.limit) {
                    let damage = LogError.damagedBelowDurable(
                        path: file.path, offset: least, durable: max(origin.durable, least + 1),
                        reason: "\(reason), at byte \(scanner.position)")
                    return SliceVerdict(origin: origin, checked: start..<scanner.position, failure: damage)
                }
            }
            return SliceVerdict(origin: origin, checked: start..<scanner.position, failure: nil)
        } catch {
            return SliceVerdict(origin: origin, checked: start..<start, failure: error)
        }
    }

    /// Goes past a sound batch; else what is wrong.
    private static func fault(
        _ scanner: inout BatchScanner, _ least: inout Offset, below limit: Offset
    ) throws(LogError) -> BatchFault? {
        switch try scanner.peek() {
        case .end: return .shortHeader(0)
        case .fault(let fault): return fault
        case .header(let header):
            guard header.baseOffset >= least else { return .offsetFalls(header.baseOffset, expected: least) }
            guard header.lastOffset < limit else { return .offsetTooFar(header.lastOffset) }
            let found = try scanner.checksum(header)
            guard found == header.crc else { return .checksum(said: header.crc, found: found) }
            least = header.nextOffset
            scanner.skip(header)
            return nil
        }
    }
}

extension PartitionLog {
    /// Remembers what was found sound; throws what was not. A verdict on what has left the log meanwhile says nothing.
    package func noteChecked(_ verdict: SliceVerdict) throws(LogError) {
        let origin = verdict.origin
        guard origin.generation == generation,
            let segment = segments.first(where: { $0.identity === origin.identity })
        else { return }
        if let failure = verdict.failure { throw failure }
        segment.checked.insert(verdict.checked)
    }
}
