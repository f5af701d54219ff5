import Testing

@Suite struct ThrottledResponses {
    /// A client that is not told to wait runs into a connection that nobody reads, and takes the broker for dead.
    @Test func everyResponseThatCanTellItsClientToWaitDoes() throws {
        let list = try #require(Repository.sources.first { $0.path.hasSuffix("MartletBroker/Quotas/ThrottledResponses.swift") })
        let listed = list.text.lowercased()
        let schemas = Repository.files.filter { $0.path.hasPrefix("Sources/MartletWire/Schemas/apis/") }
        var told = 0
        for schema in schemas where schema.text.contains("ThrottleTimeMs") {
            let words = schema.text.split(whereSeparator: \.isWhitespace)
            let name = try #require(words.firstIndex(of: "api").map { words[$0 + 1] }, "\(schema.path)")
            #expect(listed.contains("extension \(name.lowercased())response: throttledresponse"), "\(schema.path)")
            told += 1
        }
        #expect(told > 60)
    }
}
