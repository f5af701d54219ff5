/// Reads one schema file. Whatever it does not understand is an error that names file and line: a schema that is
/// half understood would become a codec that is half right.
package struct SchemaParser {
    private struct Line {
        var number: Int
        var depth: Int
        var text: String
    }

    private let path: String
    private let fileName: String
    private var lines: [Line] = []
    private var at = 0

    package static func parse(path: String, text: String) throws -> Schema {
        var parser = try SchemaParser(path: path, text: text)
        return try parser.schema()
    }

    private init(path: String, text: String) throws {
        self.path = path
        let last = path.split(separator: "/").last.map(String.init) ?? path
        fileName = last.hasSuffix(".schema") ? String(last.dropLast(7)) : last
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let spaces = line.prefix { $0 == " " }.count
            let content = line.dropFirst(spaces)
            if content.isEmpty { continue }
            if content.contains("\t") { throw SchemaError(path: path, line: index + 1, reason: "a tab; use spaces") }
            if spaces % 4 != 0 {
                throw SchemaError(path: path, line: index + 1, reason: "indented by \(spaces) spaces, not by fours")
            }
            lines.append(Line(number: index + 1, depth: spaces / 4, text: String(content)))
        }
    }

    private func error(_ line: Int, _ reason: String) -> SchemaError {
        SchemaError(path: path, line: line, reason: reason)
    }

    // MARK: Blocks

    private mutating func schema() throws -> Schema {
        var schema = Schema(path: path, name: fileName)
        var apiName: String?
        while at < lines.count {
            let line = lines[at]
            guard line.depth == 0 else { throw error(line.number, "an indented line outside of any message") }
            let words = line.text.split(separator: " ").map(String.init)
            at += 1
            if words[0] == "api" {
                guard words.count >= 4, words[2] == "key", let key = Int(words[3]), apiName == nil else {
                    throw error(line.number, "expected one line 'api NAME key NUMBER served-by …'")
                }
                apiName = words[1]
                schema.apiKey = key
            } else {
                schema.messages.append(try message(words, line, apiName, schema.apiKey))
            }
        }
        if schema.messages.isEmpty { throw error(1, "no message in this file") }
        if apiName != nil { try checkPair(schema) }
        return schema
    }

    private func checkPair(_ schema: Schema) throws {
        guard schema.messages.count == 2, schema.messages[0].kind == .request, schema.messages[1].kind == .response
        else { throw error(1, "an API is one request and then one response") }
        let (request, response) = (schema.messages[0], schema.messages[1])
        guard request.versions == response.versions, request.flexibleFrom == response.flexibleFrom else {
            throw error(response.line, "request and response differ in versions or in flexible versions")
        }
    }

    private mutating func message(_ words: [String], _ line: Line, _ api: String?, _ apiKey: Int?) throws -> Message {
        var rest = words[...]
        let word = rest.removeFirst()
        let kind: Message.Kind
        let name: String
        switch (word, api) {
        case ("request", let api?): (kind, name) = (.request, api + "Request")
        case ("response", let api?): (kind, name) = (.response, api + "Response")
        case ("data", nil): (kind, name) = (.data, rest.popFirst() ?? "")
        case ("header", nil): (kind, name) = (.header, rest.popFirst() ?? "")
        case ("coordinator-key", nil): (kind, name) = (.coordinatorKey, rest.popFirst() ?? "")
        case ("coordinator-value", nil): (kind, name) = (.coordinatorValue, rest.popFirst() ?? "")
        default: throw error(line.number, "'\(word)' does not begin a message here")
        }
        if api == nil, name != fileName { throw error(line.number, "the file is called \(fileName), not '\(name)'") }
        var message = Message(
            kind: kind, name: name, key: apiKey, versions: .all, flexibleFrom: nil,
            root: Structure(name: name, fields: [], line: line.number), line: line.number)
        var sawVersions = false
        while let word = rest.popFirst() {
            switch word {
            case "key":
                guard let text = rest.popFirst(), let key = Int(text) else {
                    throw error(line.number, "'key' wants a number")
                }
                message.key = key
            case "versions":
                message.versions = try range(rest.popFirst() ?? "", line.number)
                sawVersions = true
            case "flexible":
                message.flexibleFrom = 0
                if let first = rest.first, first.first?.isNumber == true {
                    rest.removeFirst()
                    message.flexibleFrom = try range(first, line.number).low
                }
            case "latest-unstable": message.isLatestUnstable = true
            default: throw error(line.number, "'\(word)' is no word of a message's first line")
            }
        }
        guard sawVersions, message.versions.high < VersionRange.open else {
            throw error(line.number, "a message says its versions, and they have an end")
        }
        message.root.fields = try fields(depth: 1, within: message.versions, &message.structures)
        try Completion(path: path).complete(&message)
        return message
    }

    // MARK: Fields

    private mutating func fields(
        depth: Int, within context: VersionRange, _ structures: inout [Structure]
    ) throws -> [Field] {
        var fields: [Field] = []
        while at < lines.count, lines[at].depth >= depth {
            let line = lines[at]
            guard line.depth == depth else { throw error(line.number, "indented too deeply") }
            at += 1
            if line.text.hasPrefix("struct ") {
                let name = String(line.text.dropFirst(7))
                try define(name, line, try self.fields(depth: depth + 1, within: context, &structures), &structures)
                continue
            }
            let field = try field(line, within: context)
            if fields.contains(where: { $0.property == field.property }) {
                throw error(line.number, "a second field '\(field.name)'")
            }
            fields.append(field)
            if at < lines.count, lines[at].depth > depth {
                guard let name = Self.structureName(field.type) else {
                    throw error(lines[at].number, "fields under '\(field.name)', which is no struct")
                }
                let place = structures.count
                let nested = try self.fields(depth: depth + 1, within: field.versions, &structures)
                try define(name, line, nested, &structures, at: place)
            }
        }
        return fields
    }

    private func define(
        _ name: String, _ line: Line, _ fields: [Field], _ structures: inout [Structure], at place: Int? = nil
    ) throws {
        guard name.first?.isUppercase == true, name.allSatisfy({ $0.isLetter || $0.isNumber }) else {
            throw error(line.number, "'\(name)' is no name of a struct")
        }
        if structures.contains(where: { $0.name == name }) { throw error(line.number, "a second struct '\(name)'") }
        structures.insert(Structure(name: name, fields: fields, line: line.number), at: place ?? structures.count)
    }

    static func structureName(_ type: FieldType) -> String? {
        switch type {
        case .structure(let name): name
        case .array(let element): structureName(element)
        default: nil
        }
    }

    /// `Name: Type = default   note, note`
    private func field(_ line: Line, within context: VersionRange) throws -> Field {
        let (text, notes) = Self.partAtSpaces(line.text)
        let words = text.split(separator: " ", maxSplits: 2).map(String.init)
        guard words.count == 2 || (words.count == 3 && words[2].hasPrefix("= ")), words[0].hasSuffix(":") else {
            throw error(line.number, "expected 'Name: Type = default', then two spaces and notes")
        }
        let name = String(words[0].dropLast())
        guard let first = name.first, first.isLetter, name.allSatisfy({ $0.isLetter || $0.isNumber }) else {
            throw error(line.number, "'\(name)' is no name of a field")
        }
        var typeText = words[1]
        let isNullable = typeText.hasSuffix("?")
        if isNullable { typeText.removeLast() }
        let type = try type(typeText, field: name, line.number)
        var field = Field(
            name: name, property: Names.property(name), type: type, nullable: isNullable ? .all : nil,
            versions: context, line: line.number)
        if words.count == 3 { field.defaultText = try defaultText(String(words[2].dropFirst(2)), line.number) }
        for note in notes.split(separator: ",") { try apply(String(note), to: &field, line.number) }
        field.versions = field.versions.intersection(context)
        if field.versions.isEmpty { throw error(line.number, "'\(name)' exists in no version of the message") }
        try checkNull(field)
        return field
    }

    private func checkNull(_ field: Field) throws {
        switch field.type {
        case .string, .bytes, .array, .structure: break
        default: if field.isOptional { throw error(field.line, "'\(field.name)' is of a type that has no null") }
        }
        if field.defaultText == "null", !field.isOptional {
            throw error(field.line, "'\(field.name)' is null by default, but never null")
        }
    }

    private func apply(_ note: String, to field: inout Field, _ line: Int) throws {
        let words = note.split(separator: " ").map(String.init)
        switch (words.first, words.count) {
        case ("versions", 2): field.versions = field.versions.intersection(try range(words[1], line))
        case ("nullable", 2): field.nullable = try range(words[1], line)
        case ("ignorable", 1): field.isIgnorable = true
        case ("inflexible", 1): field.isInflexible = true
        case ("key", 1), ("is", 2): break
        case ("tag", 2), ("tag", 4):
            guard let tag = Int(words[1]), tag >= 0 else { throw error(line, "a tag is a number") }
            field.tag = tag
            if words.count == 4 {
                guard words[2] == "in" else { throw error(line, "expected 'tag NUMBER in VERSIONS'") }
                field.versions = field.versions.intersection(try range(words[3], line))
            }
        default: throw error(line, "'\(note)' is no note that is known")
        }
    }

    private func defaultText(_ text: String, _ line: Int) throws -> String {
        if text.hasPrefix("\"") {
            guard text.count >= 2, text.hasSuffix("\"") else { throw error(line, "an unfinished string") }
            return String(text.dropFirst().dropLast())
        }
        return text
    }

    private func type(_ text: String, field: String, _ line: Int) throws -> FieldType {
        switch text {
        case "bool": return .bool
        case "int8": return .int8
        case "int16": return field == "ErrorCode" ? .errorCode : .int16
        case "uint16": return .uint16
        case "int32": return .int32
        case "uint32": return .uint32
        case "int64": return .int64
        case "float64": return .float64
        case "uuid": return .uuid
        case "string": return .string
        case "bytes", "records": return .bytes
        default: break
        }
        if text.hasPrefix("["), text.hasSuffix("]") {
            let element = try type(String(text.dropFirst().dropLast()), field: "", line)
            if case .array = element { throw error(line, "an array of arrays") }
            return .array(element)
        }
        guard text.first?.isUppercase == true, text.allSatisfy({ $0.isLetter || $0.isNumber }) else {
            throw error(line, "'\(text)' is no type")
        }
        return .structure(text)
    }

    private func range(_ text: String, _ line: Int) throws -> VersionRange {
        if text.hasSuffix("+"), let low = Int(text.dropLast()) {
            return VersionRange(low: low, high: VersionRange.open)
        }
        let ends = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
        if ends.count == 1, let only = ends[0] { return VersionRange(low: only, high: only) }
        if ends.count == 2, let low = ends[0], let high = ends[1], low <= high {
            return VersionRange(low: low, high: high)
        }
        throw error(line, "'\(text)' is no range of versions")
    }

    /// Two or more spaces part a field from its notes.
    private static func partAtSpaces(_ text: String) -> (String, String) {
        let letters = Array(text)
        for index in letters.indices.dropLast() where letters[index] == " " && letters[index + 1] == " " {
            return (String(letters[..<index]), String(letters[index...].drop { $0 == " " }))
        }
        return (text, "")
    }
}

/// What can be said about a message only when all of it was read: what every type name means, where it is used, and
/// that nothing contains itself.
private struct Completion {
    let path: String

    func complete(_ message: inout Message) throws {
        message.root.reach = message.versions
        message.root.holdsBytes = try visit(message.root.fields, message.versions, &message, above: [])
        for structure in message.structures where structure.reach.isEmpty {
            throw SchemaError(path: path, line: structure.line, reason: "nothing is a '\(structure.name)'")
        }
        for structure in [message.root] + message.structures { try checkTags(structure, message) }
    }

    /// Walks down; returns whether bytes were met.
    private func visit(
        _ fields: [Field], _ versions: VersionRange, _ message: inout Message, above: [String]
    ) throws -> Bool {
        var holdsBytes = false
        for field in fields {
            let reach = field.versions.intersection(versions)
            if reach.isEmpty { continue }
            if Self.isBytes(field.type) { holdsBytes = true }
            guard let name = SchemaParser.structureName(field.type) else { continue }
            guard let index = message.structures.firstIndex(where: { $0.name == name }) else {
                throw SchemaError(path: path, line: field.line, reason: "no struct '\(name)'")
            }
            if above.contains(name) {
                throw SchemaError(path: path, line: field.line, reason: "'\(name)' would contain itself")
            }
            message.structures[index].reach = message.structures[index].reach.hull(reach)
            let nested = message.structures[index].fields
            if try visit(nested, reach, &message, above: above + [name]) {
                message.structures[index].holdsBytes = true
                holdsBytes = true
            }
        }
        return holdsBytes
    }

    private static func isBytes(_ type: FieldType) -> Bool {
        switch type {
        case .bytes: true
        case .array(let element): isBytes(element)
        default: false
        }
    }

    private func checkTags(_ structure: Structure, _ message: Message) throws {
        var seen: Set<Int> = []
        for field in structure.fields {
            guard let tag = field.tag else { continue }
            guard seen.insert(tag).inserted else {
                throw SchemaError(path: path, line: field.line, reason: "a second field with tag \(tag)")
            }
            guard let flexible = message.flexibleFrom, field.versions.low >= flexible else {
                throw SchemaError(path: path, line: field.line, reason: "a tag in versions that are not flexible")
            }
        }
    }
}
