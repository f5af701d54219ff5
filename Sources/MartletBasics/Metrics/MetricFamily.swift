/// What a metric is: its name and meaning, once for all the samples that it has.
///
/// Names are Prometheus': base units (seconds, bytes), `_total` at the end of what only rises.
package struct MetricFamily: Sendable, Equatable {
    package enum Kind: String, Sendable {
        case counter, gauge, histogram
    }

    package let name: String
    package let kind: Kind
    package let help: String
    /// The names of the labels that each sample has, in this order.
    package let labels: [String]

    package init(_ name: String, _ kind: Kind, _ help: String, labels: [String] = []) {
        precondition(
            Self.isName(name) && labels.allSatisfy(Self.isName) && !labels.contains("le"), "\(name) is told by plain names")
        precondition((kind == .counter) == name.hasSuffix("_total"), "\(name): counters, and they alone, end in _total")
        self.name = name
        self.kind = kind
        self.help = help
        self.labels = labels
    }

    private static func isName(_ name: String) -> Bool {
        guard let first = name.utf8.first, first < UInt8(ascii: "0") || first > UInt8(ascii: "9") else { return false }
        return name.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"): true
            default: false
            }
        }
    }
}
