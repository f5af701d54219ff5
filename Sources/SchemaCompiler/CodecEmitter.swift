/// Writes `decode` and `encode` of one struct, and `ownBytes` where it holds bytes.
struct CodecEmitter {
    let message: Message
    let structure: Structure
    let target: MessageEmitter.Target

    private var types: TypeNames { TypeNames(target: target, message: message.name) }
    private var defaults: Defaults { Defaults(target: target, message: message.name) }
    private var isRoot: Bool { structure.name == message.name }
    private var flexible: VersionRange? {
        message.flexibleFrom.map { VersionRange(low: $0, high: VersionRange.open) }
    }
    /// Fields in line, and fields in the tagged section by rising tag.
    private var inline: [Field] { structure.fields.filter { $0.tag == nil && exists($0) } }
    /// The same, neighbours that exist in the same versions together.
    private var runs: [[Field]] {
        var runs: [[Field]] = []
        for field in inline {
            if let last = runs.last, condition(last[0]) == condition(field) {
                runs[runs.count - 1].append(field)
            } else {
                runs.append([field])
            }
        }
        return runs
    }
    private var tagged: [Field] {
        structure.fields.filter { $0.tag != nil && exists($0) }.sorted { ($0.tag ?? 0) < ($1.tag ?? 0) }
    }

    func emit(into out: inout SwiftText) {
        emitDecode(into: &out)
        out.line()
        emitEncode(into: &out)
        if target == .wire, structure.holdsBytes || isRoot {
            out.line()
            emitOwnBytes(into: &out)
        }
    }

    private func exists(_ field: Field) -> Bool { !field.versions.intersection(structure.reach).isEmpty }

    private func versions(_ field: Field) -> VersionRange { field.versions.intersection(structure.reach) }

    private func condition(_ field: Field) -> String? { field.versions.condition(within: structure.reach) }

    /// A Swift expression of whether lengths are compact, for a field in the versions that it has.
    private func isFlexible(_ field: Field) -> String {
        guard let flexible, !field.isInflexible else { return "false" }
        switch flexible.condition(within: versions(field)) {
        case nil: return "true"
        case "false": return "false"
        default: return "flexible"
        }
    }

    private func path(_ field: Field) -> String {
        isRoot ? "\(message.name).\(field.name)" : "\(message.name).\(structure.name).\(field.name)"
    }

    /// `string`, or `nullableString`.
    private static func method(_ name: String, isNullable: Bool) -> String {
        isNullable ? "nullable" + name.prefix(1).uppercased() + name.dropFirst() : name
    }

    /// Whether the struct in question needs the frame to be encoded.
    private func holdsBytes(_ name: String) -> Bool {
        target == .wire && message.structure(name)?.holdsBytes == true
    }

    /// `let flexible`, where the body asks for it.
    private func emitFlexible(for body: SwiftText, into out: inout SwiftText) {
        guard let from = message.flexibleFrom else { return }
        if body.text.contains(": flexible") || body.text.contains("if flexible ") {
            out.line("let flexible: Bool = version >= \(from)")
        }
    }

    // MARK: Decoding

    private func emitDecode(into out: inout SwiftText) {
        out.block(
            "package static func decode(from reader: inout ByteReader, version: Int16) throws(DecodingFault) -> Self"
        ) { out in
            if isRoot {
                out.block("guard version >= \(message.versions.low), version <= \(message.versions.high) else") { out in
                    out.line("throw .malformed(\"no such version of \(message.name)\", at: reader.position)")
                }
            }
            var body = SwiftText()
            for group in runs {
                body.onlyIf(condition(group[0])) { out in
                    for field in group { self.emitDecode(field, from: "reader", into: &out) }
                }
            }
            emitDecodeTags(into: &body)
            emitFlexible(for: body, into: &out)
            out.line("\(body.text.contains("value.") ? "var" : "let") value = Self()")
            out.append(body)
            out.line("return value")
        }
    }

    private func emitDecode(_ field: Field, from reader: String, into out: inout SwiftText) {
        let place = "value.\(field.property)"
        guard let nullable = field.nullable?.condition(within: versions(field)) else {
            return emitDecode(field, isNullable: field.isOptional, from: reader, to: place, into: &out)
        }
        if nullable == "false" {
            return emitDecode(field, isNullable: false, from: reader, to: place, into: &out)
        }
        out.block("if \(nullable)") { self.emitDecode(field, isNullable: true, from: reader, to: place, into: &$0) }
        out.otherwise { self.emitDecode(field, isNullable: false, from: reader, to: place, into: &$0) }
    }

    private func emitDecode(
        _ field: Field, isNullable: Bool, from reader: String, to place: String, into out: inout SwiftText
    ) {
        let flexible = isFlexible(field)
        func named(_ name: String) -> String { Self.method(name, isNullable: isNullable) }
        switch field.type {
        case .string: out.line("\(place) = try \(reader).\(named("string"))(flexible: \(flexible))")
        case .bytes:
            let name = target == .wire ? "wireBytes" : "byteArray"
            out.line("\(place) = try \(reader).\(named(name))(flexible: \(flexible))")
        case .structure:
            let decode = "\(place) = try \(types.swift(field.type)).decode(from: &\(reader), version: version)"
            if isNullable {
                // in line the marker is an int8, -1 or 1; in a tagged field it is a varint, 0 or 1
                let marker = field.tag == nil ? "int8() >= 0" : "uvarint() > 0"
                out.block("if try \(reader).\(marker)") { $0.line(decode) }
                out.otherwise { $0.line("\(place) = nil") }
            } else {
                out.line(decode)
            }
        case .array(let element):
            emitDecodeArray(field, of: element, isNullable: isNullable, from: reader, to: place, into: &out)
        case .errorCode: out.line("\(place) = ErrorCode(rawValue: try \(reader).int16())")
        default: out.line("\(place) = try \(reader).\(types.fixed(field.type) ?? "")()")
        }
    }

    private func emitDecodeArray(
        _ field: Field, of element: FieldType, isNullable: Bool, from reader: String, to place: String,
        into out: inout SwiftText
    ) {
        let flexible = isFlexible(field)
        let minimum = MinimumSizes(message: message).expression(element, field, in: versions(field), flexible)
        let name = isNullable ? "nullableArrayCount" : "arrayCount"
        out.block("do") { out in
            let stride = "MemoryLayout<\(types.swift(element))>.stride"
            out.line("let count: Int = try \(reader).\(name)(")
            out.line("    flexible: \(flexible), minimum: \(minimum), stride: \(stride))")
            if isNullable {
                out.block("if count < 0") { $0.line("\(place) = nil") }
                out.otherwise { self.emitDecodeElements(element, flexible, from: reader, to: place, into: &$0) }
            } else {
                emitDecodeElements(element, flexible, from: reader, to: place, into: &out)
            }
        }
    }

    private func emitDecodeElements(
        _ element: FieldType, _ flexible: String, from reader: String, to place: String, into out: inout SwiftText
    ) {
        switch element {
        case .int8, .int16, .int32, .int64, .uuid:
            out.line("\(place) = try \(reader).\(types.fixed(element) ?? "")Array(count: count)")
        case .string: out.line("\(place) = try \(reader).stringArray(count: count, flexible: \(flexible))")
        default:
            out.line("var items: [\(types.swift(element))] = []")
            out.line("items.reserveCapacity(min(count, ByteReader.elementsReservedLimit))")
            let decode: String
            switch element {
            case .structure: decode = "\(types.swift(element)).decode(from: &\(reader), version: version)"
            case .bytes: decode = "\(reader).\(target == .wire ? "wireBytes" : "byteArray")(flexible: \(flexible))"
            default: decode = "\(reader).\(types.fixed(element) ?? "")()"
            }
            out.block("for _ in 0..<count") { $0.line("items.append(try \(decode))") }
            out.line("\(place) = items")
        }
    }

    private func emitDecodeTags(into out: inout SwiftText) {
        guard let flexible else { return }
        let always = flexible.condition(within: structure.reach)
        if always == "false" { return }
        out.onlyIf(always == nil ? nil : "flexible") { out in
            if tagged.isEmpty { return out.line("try reader.skipTaggedFields()") }
            out.line("var tags: UInt32 = try reader.uvarint()")
            out.block("while tags > 0") { out in
                out.line("tags &-= 1")
                out.line("let tag: UInt32 = try reader.uvarint()")
                out.line("var field: ByteReader = try reader.taggedValue()")
                out.line("switch tag {")
                for tagged in tagged {
                    let known = condition(tagged).map { " where \($0)" } ?? ""
                    out.line("case \(tagged.tag ?? 0)\(known):")
                    out.indented { self.emitDecode(tagged, from: "field", into: &$0) }
                }
                out.line("default: continue")
                out.line("}")
                out.line("try reader.finish(field)")
            }
        }
    }

    // MARK: Encoding

    private func emitEncode(into out: inout SwiftText) {
        let frame = target == .wire && (isRoot || structure.holdsBytes) ? ", frame: UnsafeRawBufferPointer?" : ""
        out.block(
            "package func encode(into buffer: inout ByteBuffer, version: Int16\(frame)) throws(EncodingFault)"
        ) { out in
            if isRoot {
                out.block("guard version >= \(message.versions.low), version <= \(message.versions.high) else") { out in
                    out.line("throw .unsupportedVersion(\"\(message.name)\", version: version)")
                }
            }
            var body = SwiftText()
            for field in structure.fields where !exists(field) || field.tag != nil { emitRefusal(field, into: &body) }
            for group in runs { emitEncode(group, into: &body) }
            emitEncodeTags(into: &body)
            emitFlexible(for: body, into: &out)
            out.append(body)
        }
    }

    /// A field that this struct never has, or a tagged one that the version lacks.
    private func emitRefusal(_ field: Field, into out: inout SwiftText) {
        guard let condition = condition(field) else { return }
        emitRefusal(field, where: condition == "false" ? "" : "!(\(condition)), ", into: &out)
    }

    /// A field that the version lacks is an error where it holds something, unless the schema lets it be dropped.
    private func emitRefusal(_ field: Field, where absent: String, into out: inout SwiftText) {
        if field.isIgnorable { return }
        out.block("if \(absent)\(defaults.differs(field))") { out in
            out.line("throw .unsupportedField(\"\(self.path(field))\", version: version)")
        }
    }

    /// Fields that the same versions have.
    private func emitEncode(_ group: [Field], into out: inout SwiftText) {
        let condition = condition(group[0])
        out.onlyIf(condition) { out in
            for field in group { self.emitEncode(field, into: &out) }
        }
        if condition == nil || group.allSatisfy(\.isIgnorable) { return }
        out.otherwise { out in
            for field in group { self.emitRefusal(field, where: "", into: &out) }
        }
    }

    private func emitEncode(_ field: Field, into out: inout SwiftText) {
        let nullable = field.nullable?.condition(within: versions(field))
        if field.isOptional, let nullable {
            let allowed = nullable == "false" ? "" : "!(\(nullable)), "
            out.block("if \(allowed)self.\(field.property) == nil") { out in
                out.line("throw .unexpectedNull(\"\(self.path(field))\")")
            }
        }
        let flexible = isFlexible(field)
        func named(_ name: String) -> String { Self.method(name, isNullable: field.isOptional) }
        let value = "self.\(field.property)"
        let tail = "flexible: \(flexible), field: \"\(path(field))\")"
        switch field.type {
        case .string: out.line("try buffer.\(named("string"))(\(value), \(tail)")
        case .bytes where target == .records: out.line("try buffer.\(named("byteArray"))(\(value), \(tail)")
        case .bytes:
            out.line("try buffer.\(named("wireBytes"))(")
            out.line("    \(value), flexible: \(flexible), frame: frame, field: \"\(path(field))\")")
        case .structure(let name): emitEncodeStructure(field, name, into: &out)
        case .array(let element): emitEncodeArray(field, element, flexible, into: &out)
        case .errorCode: out.line("buffer.int16(\(value).rawValue)")
        default: out.line("buffer.\(types.fixed(field.type) ?? "")(\(value))")
        }
    }

    private func emitEncodeStructure(_ field: Field, _ name: String, into out: inout SwiftText) {
        let frame = holdsBytes(name) ? ", frame: frame" : ""
        let call = "encode(into: &buffer, version: version\(frame))"
        guard field.isOptional else { return out.line("try self.\(field.property).\(call)") }
        let nullable = field.nullable?.condition(within: versions(field))
        let isTagged = field.tag != nil
        out.block("if let item = self.\(field.property)") { out in
            if nullable != "false" { out.onlyIf(nullable) { $0.line("buffer.\(isTagged ? "uvarint(1)" : "int8(1)")") } }
            out.line("try item.\(call)")
        }
        if nullable != "false" { out.otherwise { $0.line("buffer.\(isTagged ? "uvarint(0)" : "int8(-1)")") } }
    }

    private func emitEncodeArray(_ field: Field, _ element: FieldType, _ flexible: String, into out: inout SwiftText) {
        guard field.isOptional else {
            return out.block("do") { out in
                self.emitEncodeElements("self.\(field.property)", field, element, flexible, into: &out)
            }
        }
        out.block("if let list = self.\(field.property)") { out in
            self.emitEncodeElements("list", field, element, flexible, into: &out)
        }
        out.otherwise { $0.line("buffer.nullArray(flexible: \(flexible))") }
    }

    private func emitEncodeElements(
        _ list: String, _ field: Field, _ element: FieldType, _ flexible: String, into out: inout SwiftText
    ) {
        out.line("buffer.arrayCount(\(list).count, flexible: \(flexible))")
        let tail = "flexible: \(flexible), field: \"\(path(field))\")"
        switch element {
        case .int8, .int16, .int32, .int64, .uuid: out.line("buffer.\(types.fixed(element) ?? "")Array(\(list))")
        case .string: out.line("try buffer.stringArray(\(list), \(tail)")
        default:
            let encode: String
            switch element {
            case .structure(let name):
                let frame = holdsBytes(name) ? ", frame: frame" : ""
                encode = "try items[index].encode(into: &buffer, version: version\(frame))"
            case .bytes where target == .wire:
                encode = "try buffer.wireBytes(items[index], frame: frame, \(tail)"
            case .bytes: encode = "try buffer.byteArray(items[index], \(tail)"
            default: encode = "buffer.\(types.fixed(element) ?? "")(items[index])"
            }
            // a span, since iterating the array itself would retain and release every element
            out.line("let items: Span<\(types.swift(element))> = \(list).span")
            out.block("for index in items.indices") { $0.line(encode) }
        }
    }

    private func emitEncodeTags(into out: inout SwiftText) {
        guard let flexible else { return }
        let always = flexible.condition(within: structure.reach)
        if always == "false" { return }
        out.onlyIf(always == nil ? nil : "flexible") { out in
            if tagged.isEmpty { return out.line("buffer.uvarint(0)") }
            out.line("var tags: UInt32 = 0")
            for field in tagged { out.line("if \(self.isSaid(field)) { tags &+= 1 }") }
            out.line("buffer.uvarint(tags)")
            for field in tagged {
                out.block("if \(self.isSaid(field))") { out in
                    out.line("buffer.uvarint(\(field.tag ?? 0))")
                    out.line("let start: Int = buffer.count")
                    self.emitEncode(field, into: &out)
                    out.line("buffer.insertSize(before: start)")
                }
            }
        }
    }

    /// Whether a tagged field is written: the version has it, and it is not at its default.
    private func isSaid(_ field: Field) -> String {
        let flexibleReach = flexible.map { structure.reach.intersection($0) } ?? structure.reach
        let has = field.versions.condition(within: flexibleReach).map { "\($0), " } ?? ""
        return has + defaults.differs(field)
    }

    // MARK: Bytes

    private func emitOwnBytes(into out: inout SwiftText) {
        if !structure.holdsBytes {
            out.line("/// Nothing of this message lies in the frame.")
            return out.line("package mutating func ownBytes(of frame: UnsafeRawBufferPointer) {}")
        }
        if isRoot { out.line("/// Copies what lies in the frame, so that the message can outlive it.") }
        out.block("package mutating func ownBytes(of frame: UnsafeRawBufferPointer)") { out in
            for field in structure.fields {
                let mark = field.isOptional ? "?" : ""
                let property = "self.\(field.property)\(mark)"
                switch field.type {
                case .bytes: out.line("\(property).own(of: frame)")
                case .structure(let name) where holdsBytes(name): out.line("\(property).ownBytes(of: frame)")
                case .array(.bytes): emitOwnElements(field, "own", into: &out)
                case .array(.structure(let name)) where holdsBytes(name): emitOwnElements(field, "ownBytes", into: &out)
                default: break
                }
            }
        }
    }

    private func emitOwnElements(_ field: Field, _ call: String, into out: inout SwiftText) {
        let list = "self.\(field.property)\(field.isOptional ? "?" : "")"
        let count = field.isOptional ? "(\(list).count ?? 0)" : "\(list).count"
        out.block("for index in 0..<\(count)") { $0.line("\(list)[index].\(call)(of: frame)") }
    }
}
