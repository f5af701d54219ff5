/// How the names of Kafka's schemas become Swift's.
enum Names {
    private static let reserved: Set<String> = [
        "as", "associatedtype", "break", "case", "catch", "class", "continue", "default", "defer", "deinit", "do",
        "else", "enum", "extension", "fallthrough", "false", "fileprivate", "for", "func", "guard", "if", "import",
        "in", "init", "inout", "internal", "is", "let", "nil", "operator", "precedencegroup", "private", "protocol",
        "public", "repeat", "rethrows", "return", "self", "static", "struct", "subscript", "super", "switch", "throw",
        "throws", "true", "try", "typealias", "var", "where", "while",
    ]

    /// `TopicData` → `topicData`, `NodeIds` → `nodeIDs`, `Id` → `id`, `Isr` → `isr`.
    static func property(_ name: String) -> String {
        let letters = Array(withCapitalIDs(name))
        // a leading run of capitals that is a word of its own (`ID`, `IDs`) goes down as a whole
        if name == "Id" { return "id" }
        if name == "Ids" { return "ids" }
        return String(letters[0]).lowercased() + String(letters[1...])
    }

    /// The same, escaped where Swift's grammar wants it.
    static func declaration(_ property: String) -> String {
        reserved.contains(property) ? "`\(property)`" : property
    }

    /// The words `Id` and `Ids`, wherever they stand but at the start, become `ID` and `IDs`.
    private static func withCapitalIDs(_ name: String) -> String {
        let letters = Array(name)
        var result = ""
        var at = 0
        while at < letters.count {
            if at > 0, letters[at] == "I", at + 1 < letters.count, letters[at + 1] == "d", endsWord(letters, at + 2) {
                result += "ID"
                at += 2
            } else {
                result.append(letters[at])
                at += 1
            }
        }
        return result
    }

    private static func endsWord(_ letters: [Character], _ at: Int) -> Bool {
        if at == letters.count || letters[at].isUppercase { return true }
        return letters[at] == "s" && (at + 1 == letters.count || letters[at + 1].isUppercase)
    }
}
