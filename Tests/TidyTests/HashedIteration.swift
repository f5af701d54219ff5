import Foundation

/// A guess, file by file: names declared as dictionaries or sets, and loops over them that do not sort.
enum HashedIteration {
    private static let declared = pattern(
        #"\b(?:let|var) (\w+)(?:: (?:Mutex<)?(?:\[[^\[\]()\n]+: [^\n]+\]|Set<[^\n]*>|Dictionary<[^\n]*>)|(?:: [^=\n]+)? = (?:\[:\]|Set[<(]|Dictionary[<(]))"#)

    static func findings(_ file: SourceFile) -> [Finding] {
        let code = file.code as NSString
        let names = Set(
            declared.matches(in: file.code, range: NSRange(location: 0, length: code.length)).map { code.substring(with: $0.range(at: 1)) })
        guard !names.isEmpty else { return [] }
        let either = "(?:" + names.sorted().joined(separator: "|") + ")"
        let visits = pattern(
            #"\bin (?:\w+[.?!]+)*"# + either + #"(?:\.keys|\.values)?\s*(?:where\b|\{|$)|(?<!\w)(?:\w+[.?!]+)?"# + either
                + #"(?:\.keys|\.values)?\.(?:map|compactMap|flatMap|forEach|first|randomElement|popFirst|enumerated)\b(?![^\n]*\.(?:sorted|sort|min|max|reduce)\b)"#)
        let lines = file.text.split(separator: "\n", omittingEmptySubsequences: false)
        return file.lines(matching: visits).compactMap { line in
            let said = lines[max(line - 2, 0)..<line].contains { $0.contains("any order") }
            return said ? nil : Finding(path: file.path, line: line, what: "in the order of a hash: \(lines[line - 1].trimmingCharacters(in: .whitespaces))")
        }
    }
}
