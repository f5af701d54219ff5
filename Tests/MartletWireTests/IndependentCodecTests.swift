import MartletBasics
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// Our bytes, read by a codec that was written by others in another language from the same schemas. A round trip alone
/// would not notice two fields in the wrong order.
@Suite struct AnIndependentCodec {
    static let codec = packageRoot + "/../shared/conformance/kwire.py"
    static var isThere: Bool { access(codec, R_OK) == 0 }

    /// Where it differs from Kafka. Kafka's own records are the judge of these, in `RecordsThatKafkaWrote`: version 0
    /// of a transaction has no tagged fields in line, and a tagged field that may be null has null for no default.
    private static func isReadOtherwise(_ name: String, _ version: Int16) -> Bool {
        switch name {
        case "TransactionLogValue": version == 0
        case "ConsumerGroupMemberMetadataValue", "ConsumerGroupCurrentMemberAssignmentValue": true
        default: false
        }
    }

    @Test(.enabled(if: isThere, "the independent codec is not at hand"))
    func readsWhatWeWriteAndWritesTheSame() throws {
        var samples: [String] = []
        for message in Catalog.wire + Catalog.records {
            for version in message.versions {
                if Self.isReadOtherwise(message.name, version) { continue }
                var random = SeededRandom(seed: 0xC0DE)
                for _ in 0..<4 {
                    let (bytes, text) = try message.sample(version, &random)
                    samples.append("\(message.name)\t\(version)\t\(hex(bytes))\t\(text)")
                }
            }
        }
        let path = "/tmp/martlet-wire-samples-\(getpid()).txt"
        let file = try #require(fopen(path, "w"))
        defer { unlink(path) }
        for line in samples { fputs(line + "\n", file) }
        fclose(file)
        let script = packageRoot + "/Tests/MartletWireTests/check_samples.py"
        let output = try lines(of: "python3 '\(script)' '\(Self.codec)' '\(path)' 2>&1")
        #expect(output.last == "\(samples.count) samples agree", "\(output.prefix(10).joined(separator: "\n"))")
    }
}
