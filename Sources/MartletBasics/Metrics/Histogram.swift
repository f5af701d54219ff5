/// The bounds of a histogram's buckets: powers of two, so that finding the bucket of a value is one instruction.
package struct HistogramScale: Sendable, Equatable {
    /// The first bucket holds values up to two to this power.
    package let lowestExponent: Int
    /// Buckets with a bound; one more holds what is larger than the last.
    package let bucketCount: Int

    package init(from lowestExponent: Int, to highestExponent: Int) {
        precondition(
            0 <= lowestExponent && lowestExponent <= highestExponent && highestExponent < 63, "bounds are powers of two")
        self.lowestExponent = lowestExponent
        bucketCount = highestExponent - lowestExponent + 1
    }

    /// Nanoseconds, from 16 µs to 34 s.
    package static let latency = HistogramScale(from: 14, to: 35)
    /// Bytes, from 256 to 64 MiB.
    package static let bytes = HistogramScale(from: 8, to: 26)
    /// Things, from 1 to 65,536.
    package static let count = HistogramScale(from: 0, to: 16)

    /// The largest value that the bucket holds.
    package func bound(_ bucket: Int) -> UInt64 { 1 << UInt64(lowestExponent + bucket) }
}

/// How many values fell into which bucket, and their sum. Plain numbers of whoever owns it: recording is an index and
/// two additions.
package struct Histogram: Sendable, Equatable {
    package let scale: HistogramScale
    /// By bucket; the last for what is beyond all bounds.
    package private(set) var counts: [UInt64]
    package private(set) var sum: UInt64 = 0

    package init(_ scale: HistogramScale) {
        self.scale = scale
        counts = [UInt64](repeating: 0, count: scale.bucketCount + 1)
    }

    package var total: UInt64 { counts.reduce(0, &+) }

    package mutating func record(_ value: UInt64) {
        // a bound is part of its bucket: one less than it has as many bits as all that lies above the bound before
        let bits = UInt64.bitWidth - (max(value, 1) &- 1).leadingZeroBitCount
        counts[min(max(bits - scale.lowestExponent, 0), scale.bucketCount)] &+= 1
        sum &+= value
    }

    package mutating func record(_ taken: Interval) { record(UInt64(max(taken.nanoseconds, 0))) }

    package mutating func add(_ other: Histogram) {
        precondition(scale == other.scale, "histograms are added bucket by bucket")
        for bucket in counts.indices { counts[bucket] &+= other.counts[bucket] }
        sum &+= other.sum
    }
}
