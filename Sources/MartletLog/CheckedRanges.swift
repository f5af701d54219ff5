/// Which bytes of a segment have been found sound since the log was opened: what this process wrote itself is a tail that
/// begins at `tail`, what was read and checked are ranges below it.
///
/// The tail costs an append nothing, and whoever reads it one comparison.
package struct CheckedRanges: Equatable {
    /// Readers that jump about are checked again rather than remembered without end.
    package static let limit = 64

    /// Everything from here on was written, or read and checked as a whole, by this process.
    package private(set) var tail: Int
    /// Below the tail; by rising position, apart from each other.
    package private(set) var ranges: [Range<Int>] = []

    package init(tail: Int) { self.tail = tail }

    package func contains(_ range: Range<Int>) -> Bool {
        if range.lowerBound >= tail { return true }
        let index = partitionPoint(ranges.count) { ranges[$0].upperBound <= range.lowerBound }
        guard index < ranges.count, ranges[index].lowerBound <= range.lowerBound else { return false }
        return ranges[index].upperBound >= min(range.upperBound, tail)
    }

    package mutating func insert(_ range: Range<Int>) {
        guard range.lowerBound < tail, !range.isEmpty else { return }
        var joined = range
        ranges.removeAll { other in
            guard other.upperBound >= joined.lowerBound, other.lowerBound <= joined.upperBound else { return false }
            joined = min(other.lowerBound, joined.lowerBound)..<max(other.upperBound, joined.upperBound)
            return true
        }
        if joined.upperBound >= tail {
            tail = joined.lowerBound
            return
        }
        if ranges.count == Self.limit {
            let smallest = ranges.indices.min { ranges[$0].count < ranges[$1].count }!
            ranges.remove(at: smallest)
        }
        ranges.insert(joined, at: partitionPoint(ranges.count) { ranges[$0].lowerBound < joined.lowerBound })
    }

    /// The file ends here now; what is appended next is this process's own.
    package mutating func cut(to end: Int) {
        tail = min(tail, end)
        ranges.removeAll { $0.lowerBound >= tail }
        if let last = ranges.last, last.upperBound >= tail {
            tail = last.lowerBound
            ranges.removeLast()
        }
    }
}

/// Says that it is still the segment which a slice was taken of, and not another of the same name. Compared, never looked into.
final class SegmentIdentity: Sendable {}
