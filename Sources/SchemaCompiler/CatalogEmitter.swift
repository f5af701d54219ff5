/// Writes, for tests, how to make a random value of every message that a version can say, and the list of them all.
struct CatalogEmitter {
    let messages: [Message]
    /// What gives fields their values.
    var source = "SeededRandom"

    func emit(into out: inout SwiftText) {
        for message in messages { emitRandom(message, as: "RandomMessage", into: &out) }
        for (name, isWire) in [("wire", true), ("records", false)] {
            let listed = messages.filter { $0.kind.isWire == isWire }
            out.block("extension Catalog") { out in
                out.line("static let \(name): [CatalogEntry] = [")
                for message in listed { out.line("    CatalogEntry(\(name): \(message.name).self),") }
                out.line("]")
            }
        }
    }

    func emitList(into out: inout SwiftText) {
        for message in messages where message.kind != .response {
            emitRandom(message, as: message.kind.isWire ? "DrawnMessage" : "DrawnRecord", into: &out)
        }
        out.block("enum MessageList") { out in
            self.emitList("requests", "DrawnMessage", messages.filter { $0.kind == .request }, into: &out)
            self.emitList("responses", "WireMessage", messages.filter { $0.kind == .response }, into: &out)
            self.emitList("records", "DrawnRecord", messages.filter { !$0.kind.isWire }, into: &out)
        }
    }

    private func emitRandom(_ message: Message, as conformance: String, into out: inout SwiftText) {
        for structure in [message.root] + message.structures {
            let isRoot = structure.name == message.name
            let name = isRoot ? message.name : "\(message.name).\(structure.name)"
            out.block("extension \(name)\(isRoot ? ": " + conformance : "")") { out in
                self.emitRandom(structure, message, into: &out)
            }
            out.line()
        }
    }

    private func emitList(_ name: String, _ type: String, _ listed: [Message], into out: inout SwiftText) {
        out.line("static let \(name): [any \(type).Type] = [")
        for message in listed { out.line("    \(message.name).self,") }
        out.line("]")
    }

    private func emitRandom(_ structure: Structure, _ message: Message, into out: inout SwiftText) {
        out.block("static func random(version: Int16, using random: inout \(source)) -> Self") { out in
            let fields = structure.fields.filter { !$0.versions.intersection(structure.reach).isEmpty }
            out.line("\(fields.isEmpty ? "let" : "var") value = Self()")
            for field in fields {
                out.onlyIf(field.versions.condition(within: structure.reach)) { out in
                    self.emitRandom(field, structure, message, into: &out)
                }
            }
            out.line("return value")
        }
    }

    private func emitRandom(_ field: Field, _ structure: Structure, _ message: Message, into out: inout SwiftText) {
        let assignment = "value.\(field.property) = \(expression(field.type, message))"
        guard let nullable = field.nullable else { return out.line(assignment) }
        let condition = nullable.condition(within: field.versions.intersection(structure.reach))
        if condition == "false" { return out.line(assignment) }
        let mayBeNull = condition.map { "\($0), " } ?? ""
        out.line("if \(mayBeNull)random.chance(1, in: 4) { value.\(field.property) = nil } else { \(assignment) }")
    }

    private func expression(_ type: FieldType, _ message: Message) -> String {
        switch type {
        case .structure(let name): "\(message.name).\(name).random(version: version, using: &random)"
        case .array(let element): "(0..<random.elementCount()).map { _ in \(expression(element, message)) }"
        case .bytes: message.key != nil && message.kind.isWire ? "random.wireBytes()" : "random.byteArray()"
        case .errorCode: "ErrorCode(rawValue: random.int16())"
        case .bool: "random.bool()"
        case .int8: "random.int8()"
        case .int16: "random.int16()"
        case .uint16: "random.uint16()"
        case .int32: "random.int32()"
        case .uint32: "random.uint32()"
        case .int64: "random.int64()"
        case .float64: "random.float64()"
        case .uuid: "random.uuid()"
        case .string: "random.text()"
        }
    }
}

extension Message.Kind {
    var isWire: Bool { self == .request || self == .response }
}
