/// A page of metrics as Prometheus reads it: text format 0.0.4.
///
///     # HELP martlet_requests_total Requests that were received.
///     # TYPE martlet_requests_total counter
///     martlet_requests_total{api="Fetch"} 12
///
/// A family is written once, with all of its samples: the format wants them together, and no two alike.
package struct MetricsText {
    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    package private(set) var bytes: [UInt8] = []
    private var written: Set<String> = []

    package init() {}

    package mutating func family(_ family: MetricFamily, _ body: (inout MetricSamples) -> Void) {
        precondition(written.insert(family.name).inserted, "\(family.name) is written once")
        append("# HELP ")
        append(family.name)
        append(" ")
        MetricSamples.append(escaped: family.help, quotes: false, to: &bytes)
        append("\n# TYPE ")
        append(family.name)
        append(" ")
        append(family.kind.rawValue)
        append("\n")
        var samples = MetricSamples(family, bytes)
        // handed over and back, so that the page is never copied
        bytes = []
        body(&samples)
        bytes = samples.bytes
    }

    /// A family of one sample without labels.
    package mutating func family(_ family: MetricFamily, _ value: some BinaryInteger) {
        self.family(family) { $0.sample([], value) }
    }

    private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }
}

/// The samples of one family.
package struct MetricSamples {
    private let family: MetricFamily
    fileprivate var bytes: [UInt8]

    fileprivate init(_ family: MetricFamily, _ bytes: [UInt8]) {
        self.family = family
        self.bytes = bytes
    }

    package mutating func sample(_ labels: [String], _ value: some BinaryInteger) {
        begin("", labels, le: nil)
        end("\(value)")
    }

    /// Seconds, given in nanoseconds.
    package mutating func seconds(_ labels: [String], nanoseconds: Int64) {
        begin("", labels, le: nil)
        end(Self.decimal(nanoseconds, digits: 9))
    }

    /// A share between 0 and 1, to a thousandth.
    package mutating func fraction(_ labels: [String], _ value: Double) {
        begin("", labels, le: nil)
        end(Self.decimal(Int64((min(max(value, 0), 1) * 1000).rounded()), digits: 3))
    }

    package mutating func seconds(_ labels: [String], _ interval: Interval) {
        seconds(labels, nanoseconds: interval.nanoseconds)
    }

    /// A histogram whose values are nanoseconds is told in seconds.
    package mutating func histogram(_ labels: [String], _ histogram: Histogram) {
        precondition(family.kind == .histogram, "\(family.name) is no histogram")
        let isTime = family.name.hasSuffix("_seconds")
        func text(_ value: UInt64) -> String { isTime ? Self.decimal(Int64(clamping: value), digits: 9) : "\(value)" }
        var below: UInt64 = 0
        for bucket in 0..<histogram.scale.bucketCount {
            below &+= histogram.counts[bucket]
            begin("_bucket", labels, le: text(histogram.scale.bound(bucket)))
            end("\(below)")
        }
        let total = histogram.total
        begin("_bucket", labels, le: "+Inf")
        end("\(total)")
        begin("_sum", labels, le: nil)
        end(text(histogram.sum))
        begin("_count", labels, le: nil)
        end("\(total)")
    }

    private mutating func begin(_ suffix: String, _ labels: [String], le: String?) {
        precondition(labels.count == family.labels.count, "\(family.name) has the labels \(family.labels)")
        precondition(suffix.isEmpty == (family.kind != .histogram), "\(family.name) is a \(family.kind)")
        bytes.append(contentsOf: family.name.utf8)
        bytes.append(contentsOf: suffix.utf8)
        if !labels.isEmpty || le != nil {
            bytes.append(UInt8(ascii: "{"))
            for (index, value) in labels.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                append(label: family.labels[index], value)
            }
            if let le {
                if !labels.isEmpty { bytes.append(UInt8(ascii: ",")) }
                append(label: "le", le)
            }
            bytes.append(UInt8(ascii: "}"))
        }
        bytes.append(UInt8(ascii: " "))
    }

    private mutating func end(_ value: String) {
        bytes.append(contentsOf: value.utf8)
        bytes.append(UInt8(ascii: "\n"))
    }

    private mutating func append(label: String, _ value: String) {
        bytes.append(contentsOf: label.utf8)
        bytes.append(contentsOf: "=\"".utf8)
        Self.append(escaped: value, quotes: true, to: &bytes)
        bytes.append(UInt8(ascii: "\""))
    }

    fileprivate static func append(escaped text: String, quotes: Bool, to bytes: inout [UInt8]) {
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\\"): bytes.append(contentsOf: #"\\"#.utf8)
            case UInt8(ascii: "\n"): bytes.append(contentsOf: #"\n"#.utf8)
            case UInt8(ascii: "\"") where quotes: bytes.append(contentsOf: #"\""#.utf8)
            default: bytes.append(byte)
            }
        }
    }

    /// An integer of billionths, thousandths, … as a decimal number, exact: 16384 of nine digits is 0.000016384.
    package static func decimal(_ value: Int64, digits: Int) -> String {
        var unit: UInt64 = 1
        for _ in 0..<digits { unit *= 10 }
        let (whole, rest) = value.magnitude.quotientAndRemainder(dividingBy: unit)
        let sign = value < 0 ? "-" : ""
        guard rest > 0 else { return "\(sign)\(whole)" }
        var fraction = String(rest)
        fraction = String(repeating: "0", count: digits - fraction.utf8.count) + fraction
        while fraction.hasSuffix("0") { fraction.removeLast() }
        return "\(sign)\(whole).\(fraction)"
    }
}
