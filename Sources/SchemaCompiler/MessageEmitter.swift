/// Writes the Swift types of one message and their codecs.
///
/// The code is straight: one statement a field, conditions on the version only where the schema has them, every type
/// written out. That is what compiles fast and runs without surprises.
struct MessageEmitter {
    enum Target { case wire, records }

    let message: Message
    let target: Target

    // MARK: The types

    func emit(into out: inout SwiftText) {
        let name = message.name
        out.block("package struct \(name): \(conformance)") { out in
            self.emitConstants(into: &out)
            self.emitProperties(message.root, into: &out)
            for structure in message.structures {
                out.line()
                out.block("package struct \(structure.name): Equatable, Sendable") { out in
                    self.emitProperties(structure, into: &out)
                }
            }
        }
        for structure in [message.root] + message.structures {
            out.line()
            out.block("extension \(qualified(structure))") { out in
                CodecEmitter(message: message, structure: structure, target: target).emit(into: &out)
                ErrorEmitter(message: message, structure: structure).emit(into: &out)
            }
        }
        out.line()
    }

    private var conformance: String {
        switch message.kind {
        case .request: "WireRequest"
        case .response: "WireResponse"
        default: "VersionedRecord"
        }
    }

    func qualified(_ structure: Structure) -> String {
        structure.name == message.name ? message.name : "\(message.name).\(structure.name)"
    }

    private func emitConstants(into out: inout SwiftText) {
        if target == .wire {
            out.line("package static var apiKey: Int16 { \(message.key ?? -1) }")
            if message.kind == .request {
                out.line("package typealias Response = \(message.name.dropLast("Request".count))Response")
            }
        } else {
            let prefix = message.kind == .coordinatorKey ? message.key.map(String.init) : nil
            out.line("package static var keyPrefix: Int16? { \(prefix ?? "nil") }")
            if let key = message.key { out.line("package static var key: Int16 { \(key) }") }
        }
        let versions = message.versions
        out.line("package static var versions: ClosedRange<Int16> { \(versions.low)...\(versions.high) }")
        let flexible = message.flexibleFrom.map { "version >= \($0)" } ?? "false"
        out.line("package static func isFlexible(_ version: Int16) -> Bool { \(flexible) }")
        out.line()
    }

    private func emitProperties(_ structure: Structure, into out: inout SwiftText) {
        for field in structure.fields {
            let type = TypeNames(target: target, message: message.name).swift(field.type)
            let name = Names.declaration(field.property) + ": " + type + (field.isOptional ? "?" : "")
            out.line("package var \(name) = \(Defaults(target: target, message: message.name).literal(field))")
        }
        if !structure.fields.isEmpty { out.line() }
        out.line("package init() {}")
    }
}

/// What the types of the schema are called in Swift.
struct TypeNames {
    let target: MessageEmitter.Target
    /// Nested types are written with their message's name: others in the module may be called the same.
    let message: String

    func swift(_ type: FieldType) -> String {
        switch type {
        case .bool: "Bool"
        case .int8: "Int8"
        case .int16: "Int16"
        case .uint16: "UInt16"
        case .int32: "Int32"
        case .uint32: "UInt32"
        case .int64: "Int64"
        case .float64: "Double"
        case .errorCode: "ErrorCode"
        case .uuid: "UUID"
        case .string: "String"
        case .bytes: target == .wire ? "WireBytes" : "[UInt8]"
        case .structure(let name): "\(message).\(name)"
        case .array(let element): "[\(swift(element))]"
        }
    }

    /// The methods of `ByteReader` and `ByteBuffer` for types of fixed width.
    func fixed(_ type: FieldType) -> String? {
        switch type {
        case .bool: "bool"
        case .int8: "int8"
        case .int16: "int16"
        case .uint16: "uint16"
        case .int32: "int32"
        case .uint32: "uint32"
        case .int64: "int64"
        case .float64: "float64"
        case .uuid: "uuid"
        default: nil
        }
    }
}

/// Default values: their literals, and the question whether a property differs from its own.
struct Defaults {
    let target: MessageEmitter.Target
    let message: String

    func literal(_ field: Field) -> String {
        if field.defaultText == "null" { return "nil" }
        switch field.type {
        case .bool: return field.defaultText ?? "false"
        case .errorCode: return "ErrorCode(rawValue: \(field.defaultText ?? "0"))"
        case .uuid: return ".zero"
        case .string: return "\"\(field.defaultText ?? "")\""
        case .bytes: return target == .wire ? ".empty" : "[]"
        case .structure(let name): return "\(message).\(name)()"
        case .array: return "[]"
        default: return field.defaultText ?? "0"
        }
    }

    /// A Swift condition: whether `self`'s property is not at its default.
    func differs(_ field: Field) -> String {
        let property = "self.\(field.property)"
        if field.defaultText == "null" { return "\(property) != nil" }
        switch field.type {
        case .bool: return field.defaultText == "true" ? "!\(property)" : property
        case .errorCode: return "\(property).rawValue != \(field.defaultText ?? "0")"
        case .string where field.defaultText ?? "" != "": return "\(property) != \"\(field.defaultText ?? "")\""
        case .string, .bytes, .array:
            return field.isOptional ? "\(property)?.isEmpty != true" : "!\(property).isEmpty"
        default: return "\(property) != \(literal(field))"
        }
    }
}
