/// Swift source, line by line, with its indentation.
struct SwiftText {
    private(set) var text = ""
    private var depth = 0

    mutating func line(_ content: String = "") {
        if !content.isEmpty {
            for _ in 0..<depth { text += "    " }
            text += content
        }
        text += "\n"
    }

    /// `opening {`, what `body` writes, and `}`.
    mutating func block(_ opening: String, _ body: (inout SwiftText) -> Void) {
        line(opening.isEmpty ? "{" : opening + " {")
        depth += 1
        body(&self)
        depth -= 1
        line("}")
    }

    /// `} else {` instead of the brace that the last block ended with.
    mutating func otherwise(_ body: (inout SwiftText) -> Void) {
        precondition(text.hasSuffix("}\n"), "only a block has an else")
        text.removeLast()
        text += " else {\n"
        depth += 1
        body(&self)
        depth -= 1
        line("}")
    }

    /// The body, one level deeper.
    mutating func indented(_ body: (inout SwiftText) -> Void) {
        depth += 1
        body(&self)
        depth -= 1
    }

    /// The body, inside `if condition { }` where there is a condition.
    mutating func onlyIf(_ condition: String?, _ body: (inout SwiftText) -> Void) {
        if let condition { block("if \(condition)", body) } else { body(&self) }
    }

    /// Lines written by another text, at this one's depth.
    mutating func append(_ other: SwiftText) {
        let parts = other.text.split(separator: "\n", omittingEmptySubsequences: false)
        for part in parts.dropLast() { line(String(part)) }
    }
}
