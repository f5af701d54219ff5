import Foundation
import Testing

/// The rules of STYLE.md that a program can check. Each says what to do instead.
@Suite struct TidyTests {
    private static let columns = 128
    private static let linesOfFile = 600
    private static let linesOfFunction = 60

    private func report(_ findings: [Finding]) {
        for finding in findings { Issue.record("\(finding)") }
    }

    @Test func `the rules look at the whole project`() {
        #expect(Repository.sources.count > 100)
        #expect(
            Set(Repository.sources.map(\.target)) == Set(ImportTable.rows.keys), "a target without a row in the import table")
    }

    @Test func `comments and literals are not code`() {
        func code(_ text: String) -> String { SourceFile(path: "Sources/X/a.swift", text: text).code }
        #expect(code("a(\"print(\") // try!\nb()") == "a(\"      \")        \nb()")
        #expect(code("/* one /* two */ three */ b()") == "                          b()")
        #expect(code("a(#\"x\"y\"#) + \"\\\"Task {\"") == "a(#\"   \"#) + \"        \"")
        #expect(code("\"\"\"\nTask {\n\"\"\"\nc()") == "\"\"\"\n      \n\"\"\"\nc()")
    }

    @Test func `a target imports only what its row names`() {
        let imports = pattern(
            #"^[ \t]*(?:@\w+ )*(?:(?:package|public|internal|private|fileprivate) )?import (?:(?:struct|class|enum|func|protocol) )?(\w+)"#
        )
        for file in Repository.sources {
            let code = file.code as NSString
            let mayImport = (ImportTable.rows[file.target] ?? []).union(ImportTable.language)
            for match in imports.matches(in: file.code, range: NSRange(location: 0, length: code.length)) {
                let imported = code.substring(with: match.range(at: 1))
                #expect(
                    mayImport.contains(imported),
                    "\(file.path) imports \(imported), which the row of \(file.target) does not name")
            }
        }
    }

    @Test func `banned calls have their replacement`() {
        report(banned(BannedCall.inSources, in: Repository.sources))
        report(banned(BannedCall.inTests, in: Repository.swift.filter { $0.path.hasPrefix("Tests/") }))
        report(banned(BannedCall.inManifest, in: Repository.files.filter { $0.path == "Package.swift" }))
    }

    private func banned(_ calls: [BannedCall], in files: [SourceFile]) -> [Finding] {
        calls.flatMap { call -> [Finding] in
            let expression = pattern(call.pattern)
            return files.filter { file in !call.allowed.contains { file.path.hasPrefix($0) } }.flatMap { file in
                file.lines(matching: expression).map { line in
                    let said = file.text.split(separator: "\n", omittingEmptySubsequences: false)[line - 1].trimmingCharacters(
                        in: .whitespaces)
                    return Finding(path: file.path, line: line, what: "`\(said)`: use \(call.instead)")
                }
            }
        }
    }

    @Test func `nothing is left over`() {
        let leftOver = pattern(
            ["FIX" + "ME", "TO" + "DO", "X" + "XX", "HA" + "CK"].map { #"\b"# + $0 + #"\b"# }.joined(separator: "|"))
        for file in Repository.files {
            report(
                file.lines(matching: leftOver, inComments: true).map {
                    Finding(path: file.path, line: $0, what: "a left-over note")
                })
        }
    }

    /// The repository speaks of what it is, not of where and how it was made.
    @Test func `no words of a workshop`() {
        let words = [
            "issue " + "#", "/wo" + "rk/", "help" + "er-", "Co-" + "Authored-By", "Clau" + "de", "Anthro" + "pic",
            "Chat" + "GPT",
            #"\b[Ii]ssue \d"#, "JI" + "RA", "\\bthis sess" + "ion of mine",
        ]
        let forbidden = pattern(words.joined(separator: "|"))
        for file in Repository.files {
            report(
                file.lines(matching: forbidden, inComments: true).map {
                    Finding(path: file.path, line: $0, what: "a word of the workshop")
                })
        }
    }

    @Test func `the server does not know what lies beside the repository`() {
        let beside = pattern(#"\.\./sha"# + "red")
        for file in Repository.files where file.isSource || file.path.hasPrefix("Plugins/") {
            report(
                file.lines(matching: beside, inComments: true).map {
                    Finding(path: file.path, line: $0, what: "material that only tests use")
                })
        }
    }

    @Test func `text is plain`() {
        let trailing = pattern(#"[ \t]+$"#)
        for file in Repository.files where file.path != "LICENSE" {
            report(
                file.lines(matching: trailing, inComments: true).map {
                    Finding(path: file.path, line: $0, what: "blanks at the end of a line")
                })
            if file.isSwift, file.text.contains("\t") { report([Finding(path: file.path, line: 1, what: "has a tab")]) }
            if !file.text.isEmpty, !file.text.hasSuffix("\n") {
                report([Finding(path: file.path, line: 1, what: "does not end with a newline")])
            }
        }
    }

    @Test func `lines are short enough to read two files side by side`() {
        let long = Repository.swift.flatMap { file in
            file.text.split(separator: "\n", omittingEmptySubsequences: false).enumerated().compactMap { index, line in
                line.utf8.count > Self.columns && line.count > Self.columns
                    ? Finding(path: file.path, line: index + 1, what: "\(line.count) columns, more than \(Self.columns)") : nil
            }
        }
        Ratchet.check("long-lines", long)
    }

    @Test func `files are short enough to be read`() {
        let long = Repository.swift.compactMap { file -> Finding? in
            let count = file.text.utf8.count { $0 == 10 }
            return count > Self.linesOfFile
                ? Finding(path: file.path, line: count, what: "more than \(Self.linesOfFile) lines") : nil
        }
        Ratchet.check("long-files", long)
    }

    @Test func `functions are short enough to be understood`() {
        let begins = pattern(#"^[ \t]*(?:@\w+(?:\([^)]*\))?\s+)*(?:\w+\s+)*?(?:func\s+[\w`<=>!+*/&|^~-]+|init[?!]?)\s*[(<]"#)
        let long = Repository.sources.flatMap { file -> [Finding] in
            let lines = file.code.split(separator: "\n", omittingEmptySubsequences: false)
            return file.lines(matching: begins).compactMap { first in
                let length = Self.lengthOfBody(lines[(first - 1)...])
                return length > Self.linesOfFunction
                    ? Finding(path: file.path, line: first, what: "a function of \(length) lines") : nil
            }
        }
        Ratchet.check("long-functions", long)
    }

    /// The lines from a declaration to the brace that ends it; of a requirement without a body, one.
    static func lengthOfBody(_ lines: ArraySlice<Substring>) -> Int {
        var depth = 0
        for (index, line) in lines.enumerated() {
            for byte in line.utf8 {
                if byte == UInt8(ascii: "{") { depth += 1 }
                if byte == UInt8(ascii: "}") { depth -= 1 }
                if depth < 0 { return index }
                if depth == 0, byte == UInt8(ascii: "}") { return index + 1 }
            }
            if depth == 0, index > 12 { return 1 }
        }
        return 1
    }

    /// Swift seeds its hashes anew in each process: what goes through a dictionary in its order cannot be replayed.
    /// Where the order is not seen, a comment on the line or the one before says so with the words "any order".
    @Test func `hashed collections are not gone through in their order`() {
        let findings = Repository.sources.filter { $0.target != "SchemaCompiler" }.flatMap(HashedIteration.findings)
        Ratchet.check("hashed-iterations", findings)
    }
}
