/// From schema files to Swift files: what the generator's command line asks for.
package enum Generation {
    private static func generated(_ imports: [String], _ body: (inout SwiftText) -> Void) -> String {
        var out = SwiftText()
        out.line("// Generated from the schemas; the schema is the source, edit that.")
        for name in imports { out.line(name) }
        out.line()
        body(&out)
        return out.text
    }

    /// `00-Produce` → `Produce`.
    private static func swiftFileName(_ schema: Schema) -> String {
        let parts = schema.name.split(separator: "-", maxSplits: 1)
        return String(parts.last ?? "") + ".swift"
    }

    /// What the file must import: a plain import of something unused would be a warning, and so an error.
    private static func wireImports(_ schema: Schema) -> [String] {
        func needsModel(_ type: FieldType) -> Bool {
            switch type {
            case .errorCode, .uuid: true
            case .array(let element): needsModel(element)
            default: false
            }
        }
        let structures = schema.messages.flatMap { [$0.root] + $0.structures }
        let model = structures.contains { $0.fields.contains { needsModel($0.type) } }
        return ["package import MartletBasics"] + (model ? ["package import MartletModel"] : [])
    }

    /// No two APIs have one key.
    private static func checkKeys(_ schemas: [Schema]) throws {
        var seen: [Int: Schema] = [:]
        for schema in schemas {
            guard let key = schema.apiKey else { continue }
            if let other = seen[key] {
                throw SchemaError(path: schema.path, line: 1, reason: "key \(key) is that of \(other.name) already")
            }
            seen[key] = schema
        }
    }

    /// `WireGenerator wire|records|catalog|list FOLDER SCHEMA…`
    ///
    /// Writes Swift into the folder: for `wire`, one file an API and ApiKey.swift; for `records`, one file a record;
    /// for `catalog`, one file that makes random values of every message and lists them all, which only tests need; for
    /// `list`, one file that lists them, and makes requests and records of a fuzzer's bytes.
    package static func run(_ arguments: [String]) -> Never {
        do {
            try generate(arguments)
            Files.succeed()
        } catch {
            Files.fail("\(error)")
        }
    }

    private static func generate(_ arguments: [String]) throws {
        guard arguments.count > 3 else { Files.fail("usage: WireGenerator wire|records|catalog|list FOLDER SCHEMA…") }
        let folder = arguments[2]
        let schemas = try arguments[3...].sorted().map { try SchemaParser.parse(path: $0, text: try Files.read($0)) }
        try checkKeys(schemas)
        switch arguments[1] {
        case "wire":
            for schema in schemas {
                let text = generated(wireImports(schema)) { out in
                    for message in schema.messages { MessageEmitter(message: message, target: .wire).emit(into: &out) }
                }
                try Files.write(text, to: folder + "/" + swiftFileName(schema))
            }
            let table = generated([]) { ApiKeyEmitter(schemas: schemas).emit(into: &$0) }
            try Files.write(table, to: folder + "/ApiKey.swift")
        case "records":
            for schema in schemas {
                let text = generated(["package import MartletBasics"]) { out in
                    for message in schema.messages {
                        MessageEmitter(message: message, target: .records).emit(into: &out)
                    }
                }
                try Files.write(text, to: folder + "/" + swiftFileName(schema))
            }
        case "catalog":
            let text = generated(["import MartletBasics", "import MartletModel", "import MartletWire"]) { out in
                CatalogEmitter(messages: schemas.flatMap(\.messages)).emit(into: &out)
            }
            try Files.write(text, to: folder + "/RandomMessages.swift")
        case "list":
            let text = generated(["import MartletModel", "import MartletWire"]) { out in
                CatalogEmitter(messages: schemas.flatMap(\.messages), source: "FieldSource").emitList(into: &out)
            }
            try Files.write(text, to: folder + "/MessageList.swift")
        default: Files.fail("'\(arguments[1])' is nothing that can be generated")
        }
    }
}
