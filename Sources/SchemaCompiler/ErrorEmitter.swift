/// Writes `collectErrors` of a struct of a response: which error codes it carries, itself and in what is nested in it.
struct ErrorEmitter {
    let message: Message
    let structure: Structure

    func emit(into out: inout SwiftText) {
        guard message.kind == .response, tellsErrors(structure) else { return }
        out.line()
        out.block("package func collectErrors(_ found: inout ErrorCodes)") { out in
            for field in structure.fields { self.emit(field, into: &out) }
        }
    }

    private func emit(_ field: Field, into out: inout SwiftText) {
        let place = "self.\(field.property)"
        switch field.type {
        case .errorCode:
            out.line("if \(place) != .none { found.append(\(place)) }")
        case .structure where tellsErrors(field.type):
            out.line("\(place)\(field.isOptional ? "?" : "").collectErrors(&found)")
        case .array where tellsErrors(field.type):
            // by index: an element that is bound to a name is copied with all its arrays
            if field.isOptional {
                out.block("if let elements = \(place)") { out in
                    out.line("for index in elements.indices { elements[index].collectErrors(&found) }")
                }
            } else {
                out.line("for index in \(place).indices { \(place)[index].collectErrors(&found) }")
            }
        default: break
        }
    }

    private func tellsErrors(_ type: FieldType) -> Bool {
        switch type {
        case .errorCode: true
        case .structure(let name): message.structure(name).map(tellsErrors) ?? false
        // codes in an array of their own are no fields called ErrorCode
        case .array(.structure(let name)): message.structure(name).map(tellsErrors) ?? false
        default: false
        }
    }

    /// Structures do not contain themselves, so this ends.
    private func tellsErrors(_ structure: Structure) -> Bool { structure.fields.contains { tellsErrors($0.type) } }
}
