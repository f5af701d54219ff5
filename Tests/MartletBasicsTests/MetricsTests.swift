import MartletBasics
import Testing

private func text(_ family: MetricFamily, _ body: (inout MetricSamples) -> Void) -> String {
    var text = MetricsText()
    text.family(family, body)
    return String(decoding: text.bytes, as: UTF8.self)
}

@Suite struct TextOfMetrics {
    @Test func aFamilyIsItsHelpItsTypeAndItsSamples() {
        let family = MetricFamily("requests_total", .counter, "Requests that came.", labels: ["api", "error"])
        let written = text(family) {
            $0.sample(["Fetch", "NONE"], 12)
            $0.sample(["Produce", "NONE"], UInt64.max)
        }
        #expect(
            written == """
                # HELP requests_total Requests that came.
                # TYPE requests_total counter
                requests_total{api="Fetch",error="NONE"} 12
                requests_total{api="Produce",error="NONE"} 18446744073709551615

                """)
    }

    @Test func whatWouldEndALabelOrALineIsEscaped() {
        let family = MetricFamily("group_members", .gauge, "A \\ and\na \"line\".", labels: ["group"])
        let written = text(family) { $0.sample(["a\"b\\c\nd{}=,\u{E9}"], -1) }
        #expect(
            written == """
                # HELP group_members A \\\\ and\\na "line".
                # TYPE group_members gauge
                group_members{group="a\\"b\\\\c\\nd{}=,\u{E9}"} -1

                """)
    }

    @Test func aHistogramIsCumulativeAndEndsInAllThereIs() {
        var histogram = Histogram(HistogramScale(from: 0, to: 2))
        for value: UInt64 in [0, 1, 2, 3, 4, 5, 100] { histogram.record(value) }
        let written = text(MetricFamily("batch_records", .histogram, "Sizes.")) { $0.histogram([], histogram) }
        #expect(
            written == """
                # HELP batch_records Sizes.
                # TYPE batch_records histogram
                batch_records_bucket{le="1"} 2
                batch_records_bucket{le="2"} 3
                batch_records_bucket{le="4"} 5
                batch_records_bucket{le="+Inf"} 7
                batch_records_sum 115
                batch_records_count 7

                """)
    }

    @Test func durationsAreToldInSecondsToTheNanosecond() {
        var histogram = Histogram(HistogramScale(from: 14, to: 15))
        histogram.record(Interval.microseconds(16))
        histogram.record(Interval.seconds(2))
        histogram.record(Interval(nanoseconds: -5))
        let written = text(MetricFamily("sync_duration_seconds", .histogram, "Syncs.", labels: ["d"])) {
            $0.histogram(["x"], histogram)
        }
        #expect(written.contains("sync_duration_seconds_bucket{d=\"x\",le=\"0.000016384\"} 2\n"))
        #expect(written.contains("sync_duration_seconds_bucket{d=\"x\",le=\"0.000032768\"} 2\n"))
        #expect(written.contains("sync_duration_seconds_sum{d=\"x\"} 2.000016\n"))
        #expect(written.contains("sync_duration_seconds_count{d=\"x\"} 3\n"))
    }

    @Test(
        arguments: [
            (0, "0"), (1, "0.000000001"), (1_000_000_000, "1"), (-1_500_000_000, "-1.5"), (16384, "0.000016384"),
            (.min, "-9223372036.854775808"),
            (.max, "9223372036.854775807"), (10_000_000_000, "10"),
        ] as [(Int64, String)])
    func numbersOfNanosecondsAreExactDecimals(_ value: Int64, _ expected: String) {
        #expect(MetricSamples.decimal(value, digits: 9) == expected)
    }
}

@Suite struct Histograms {
    @Test func everyValueFallsIntoTheFirstBucketWhoseBoundItDoesNotExceed() {
        var random = SeededRandom(seed: 7)
        let scale = HistogramScale(from: 4, to: 20)
        var values: [UInt64] = [0, 1, .max]
        for exponent: UInt64 in 0..<40 { values += [(1 << exponent) - 1, 1 << exponent, (1 << exponent) + 1] }
        for _ in 0..<2000 { values.append(random.next() >> (random.next() % 64)) }
        for value in values {
            var histogram = Histogram(scale)
            histogram.record(value)
            let expected = (0..<scale.bucketCount).first { value <= scale.bound($0) } ?? scale.bucketCount
            #expect(histogram.counts[expected] == 1 && histogram.total == 1, "\(value)")
        }
    }

    @Test func whatSeveralLoopsCountedAddsUp() {
        var (a, b) = (Histogram(.bytes), Histogram(.bytes))
        for value: UInt64 in [1, 300, 1 << 30] { a.record(value) }
        for value: UInt64 in [300, 5000] { b.record(value) }
        a.add(b)
        #expect(a.total == 5 && a.sum == 5601 + (1 << 30))
        #expect(a.counts[1] == 2)
    }
}
