/// Counts of latencies in nanoseconds. Below 256 each value has a bucket of its own; above, each power of two is cut
/// into 128, so that a percentile is right within one per cent. Larger values than 2^40 (18 minutes) count as that.
struct LatencyHistogram {
    private static let subdivisionBits = 7
    private static let largestExponent = 40 - subdivisionBits
    private var counts = ContiguousArray<UInt32>(repeating: 0, count: (largestExponent + 2) << subdivisionBits)
    private(set) var total = 0
    private(set) var maximum: Int64 = 0

    mutating func record(_ nanoseconds: Int64) {
        let value = min(max(nanoseconds, 0), (1 << 40) - 1)
        counts[Self.bucket(of: value)] += 1
        total += 1
        maximum = max(maximum, nanoseconds)
    }

    /// The latency that so many of a thousand do not exceed; 0 where nothing was counted.
    func permille(_ share: Int) -> Int64 {
        let wanted = (total * share + 999) / 1000
        var seen = 0
        for (bucket, count) in counts.enumerated() where count > 0 {
            seen += Int(count)
            if seen >= wanted { return min(Self.middle(of: bucket), maximum) }
        }
        return maximum
    }

    private static func exponent(of value: Int64) -> Int {
        max(0, 63 - value.leadingZeroBitCount - subdivisionBits)
    }

    private static func bucket(of value: Int64) -> Int {
        let exponent = exponent(of: value)
        return exponent << subdivisionBits + Int(value >> Int64(exponent))
    }

    private static func middle(of bucket: Int) -> Int64 {
        let exponent = max(0, bucket >> subdivisionBits - 1)
        let start = Int64(bucket - exponent << subdivisionBits) << Int64(exponent)
        return start + (1 << Int64(exponent)) / 2
    }
}
