/// Writes the table of all APIs.
struct ApiKeyEmitter {
    let schemas: [Schema]

    func emit(into out: inout SwiftText) {
        let apis = schemas.filter { $0.apiKey != nil }.sorted { ($0.apiKey ?? 0) < ($1.apiKey ?? 0) }
        out.line("/// Every API that a schema describes, by its key.")
        out.block("package enum ApiKey: Int16, CaseIterable, Sendable") { out in
            for api in apis { out.line("case \(Names.declaration(Self.caseName(api))) = \(api.apiKey ?? 0)") }
        }
        out.line()
        out.block("extension ApiKey") { out in
            Self.emitSwitch("/// Kafka's name of the API.", "name: String", apis, into: &out) {
                "\"\(Self.apiName($0))\""
            }
            out.line()
            Self.emitSwitch(
                "/// The versions that the schema describes.", "versions: ClosedRange<Int16>", apis, into: &out
            ) { "\($0.messages[0].versions.low)...\($0.messages[0].versions.high)" }
            out.line()
            Self.emitSwitch(
                "/// The first version with compact lengths and tagged fields; nil if there is none.",
                "firstFlexibleVersion: Int16?", apis, into: &out
            ) { $0.messages[0].flexibleFrom.map(String.init) ?? "nil" }
            out.line()
            out.line("/// Whether the highest version is not yet offered to clients.")
            let unstable = apis.filter { $0.messages[0].isLatestUnstable }.map { "self == .\(Self.caseName($0))" }
            let condition = unstable.isEmpty ? "false" : unstable.joined(separator: " || ")
            out.line("package var isLatestVersionUnstable: Bool { \(condition) }")
        }
    }

    private static func emitSwitch(
        _ comment: String, _ declaration: String, _ apis: [Schema], into out: inout SwiftText,
        _ value: (Schema) -> String
    ) {
        out.line(comment)
        out.block("package var \(declaration)") { out in
            out.line("switch self {")
            for api in apis { out.line("case .\(Self.caseName(api)): \(value(api))") }
            out.line("}")
        }
    }

    private static func apiName(_ schema: Schema) -> String {
        String(schema.messages[0].name.dropLast("Request".count))
    }

    private static func caseName(_ schema: Schema) -> String { Names.property(apiName(schema)) }
}
