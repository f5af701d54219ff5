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

    @Test(.enabled(if: isThere, "the independent codec is not at hand")) func readsWhatWeWriteAndWritesTheSame() throws {
        var samples: [String] = []
        for message in Catalog.wire + Catalog.records {
            for version in message.versions {
                // its transaction log v0 has the tagged fields in line, which Kafka's has not
                if message.name == "TransactionLogValue", version == 0 { continue }
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
