import SchemaCompiler
import Testing

/// A schema with a slip in it must not become a codec with a slip in it.
@Suite struct ASchemaThatIsWrong {
    private func fault(_ text: String, name: String = "01-Thing") -> String? {
        do {
            _ = try SchemaParser.parse(path: "schemas/\(name).schema", text: text)
            return nil
        } catch { return "\(error)" }
    }

    private func api(_ fields: String...) -> String {
        "api Thing key 1 served-by broker\n\nrequest versions 0-3 flexible 2+\n"
            + fields.map { $0 + "\n" }.joined() + "\nresponse versions 0-3 flexible 2+\n    ErrorCode: int16\n"
    }

    @Test func isNamedByFileLineAndReason() {
        #expect(fault(api("    A: int32", "    B: in32")) == "schemas/01-Thing.schema:5: error: 'in32' is no type")
    }

    @Test(arguments: [
        ("    A int32", "expected 'Name: Type = default', then two spaces and notes"),
        ("   A: int32", "indented by 3 spaces, not by fours"),
        ("        A: int32", "indented too deeply"),
        ("    A:\tint32", "a tab; use spaces"),
        ("    A: int32  since 2", "'since 2' is no note that is known"),
        ("    A: int32  versions 2-", "'2-' is no range of versions"),
        ("    A: int32  versions 4+", "'A' exists in no version of the message"),
        ("    A: int32?", "'A' is of a type that has no null"),
        ("    A: string = null", "'A' is null by default, but never null"),
        ("    A: [[int8]]", "an array of arrays"),
        ("    A: [Thing]", "no struct 'Thing'"),
        ("    A: int8  tag 0", "a tag in versions that are not flexible"),
        ("    A: int8  versions 2+, tag x", "a tag is a number"),
        ("    A: int8\n        B: int8", "fields under 'A', which is no struct"),
        ("    A: int8\n    A: int16", "a second field 'A'"),
        ("    struct X\n        A: int8", "nothing is a 'X'"),
        ("    A: X\n    struct X\n        A: [X]", "'X' would contain itself"),
        ("    A: X\n        B: int8\n    struct X\n        A: int8", "a second struct 'X'"),
        ("    A: int8  versions 2+, tag 0\n    B: int8  versions 2+, tag 0", "a second field with tag 0"),
    ])
    func isRefused(_ fields: String, _ reason: String) {
        #expect(fault(api(fields))?.hasSuffix("error: " + reason) == true, "\(fault(api(fields)) ?? "accepted")")
    }

    @Test func isRefusedWhereItsBlocksDoNotFit() {
        #expect(fault("") != nil)
        #expect(fault("api Thing key 1\nrequest versions 0") != nil)
        #expect(fault("request versions 0") != nil)
        #expect(fault("data Thing versions 0+", name: "Thing")?.contains("they have an end") == true)
        #expect(fault("data Thing versions 0", name: "Other")?.contains("the file is called Other") == true)
        #expect(fault("api Thing key 1 served-by x\nrequest versions 0-1\nresponse versions 0")?
            .contains("differ in versions") == true)
        #expect(fault(api("    A: int32 = 5  versions 1+, ignorable, is brokerId")) == nil)
    }
}
