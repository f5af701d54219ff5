import Foundation

/// A file of the repository, as the rules look at it.
struct SourceFile: Sendable {
    /// From the root of the package, as `Sources/MartletLog/Syncer.swift`.
    let path: String
    let text: String
    /// The text of a Swift file with comments and the insides of string literals blanked out; line numbers stay.
    let code: String

    var isSwift: Bool { path.hasSuffix(".swift") }
    /// `MartletLog` of the path above.
    var target: String {
        let parts = path.split(separator: "/")
        return parts.count > 2 ? String(parts[1]) : ""
    }
    var isSource: Bool { path.hasPrefix("Sources/") }

    init(path: String, text: String) {
        self.path = path
        self.text = text
        code = path.hasSuffix(".swift") ? Self.withoutCommentsAndLiterals(text) : text
    }

    /// Walks the bytes once. Interpolations inside a literal are blanked with it: a rule that must see them does not exist.
    static func withoutCommentsAndLiterals(_ text: String) -> String {
        enum Place { case code, lineComment, blockComment(Int), literal, longLiteral, rawLiteral(Int) }
        let quote = UInt8(ascii: "\""), slash = UInt8(ascii: "/"), star = UInt8(ascii: "*"), newline = UInt8(ascii: "\n")
        let hash = UInt8(ascii: "#"), backslash = UInt8(ascii: "\\")
        var bytes = Array(text.utf8)
        var place = Place.code
        var at = 0
        func byte(_ ahead: Int) -> UInt8 { at + ahead < bytes.count ? bytes[at + ahead] : 0 }
        func blank(_ count: Int) {
            for index in at..<min(at + count, bytes.count) where bytes[index] != newline { bytes[index] = UInt8(ascii: " ") }
            at += count
        }
        while at < bytes.count {
            switch place {
            case .code:
                if byte(0) == slash, byte(1) == slash {
                    place = .lineComment
                } else if byte(0) == slash, byte(1) == star {
                    place = .blockComment(1)
                    blank(2)
                } else if byte(0) == hash, byte(1) == quote || (byte(1) == hash && byte(2) == quote) {
                    let hashes = byte(1) == quote ? 1 : 2
                    at += hashes + 1
                    place = .rawLiteral(hashes)
                } else if byte(0) == quote {
                    let isLong = byte(1) == quote && byte(2) == quote
                    place = isLong ? .longLiteral : .literal
                    at += isLong ? 3 : 1
                } else {
                    at += 1
                }
            case .lineComment:
                if byte(0) == newline { place = .code }
                blank(1)
            case .blockComment(let depth):
                if byte(0) == star, byte(1) == slash {
                    place = depth == 1 ? .code : .blockComment(depth - 1)
                    blank(2)
                } else if byte(0) == slash, byte(1) == star {
                    place = .blockComment(depth + 1)
                    blank(2)
                } else {
                    blank(1)
                }
            case .literal:
                if byte(0) == backslash {
                    blank(2)
                } else if byte(0) == quote || byte(0) == newline {
                    place = .code
                    at += 1
                } else {
                    blank(1)
                }
            case .longLiteral:
                if byte(0) == backslash {
                    blank(2)
                } else if byte(0) == quote, byte(1) == quote, byte(2) == quote {
                    place = .code
                    at += 3
                } else {
                    blank(1)
                }
            case .rawLiteral(let hashes):
                if byte(0) == quote, byte(1) == hash, hashes == 1 || byte(2) == hash {
                    place = .code
                    at += 1 + hashes
                } else {
                    blank(1)
                }
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// Every text file that is part of the project: what lies under the root, but for what is built or written by a broker.
enum Repository {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    private static let outside: Set = [".build", ".git", "data", "__pycache__"]
    private static let kinds: Set = ["swift", "md", "py", "go", "c", "h", "txt", "schema", "modulemap", "yml", ""]

    static let files: [SourceFile] = read("").sorted { $0.path < $1.path }
    static var swift: [SourceFile] { files.filter(\.isSwift) }
    static var sources: [SourceFile] { files.filter { $0.isSwift && $0.isSource } }

    private static func read(_ folder: String) -> [SourceFile] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: root.appendingPathComponent(folder).path)) ?? []
        return names.flatMap { name -> [SourceFile] in
            guard !outside.contains(name) else { return [] }
            let path = folder.isEmpty ? name : folder + "/" + name
            let url = root.appendingPathComponent(path)
            var isFolder: ObjCBool = false
            guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) else { return [] }
            if isFolder.boolValue { return read(path) }
            guard kinds.contains(url.pathExtension) || name.hasPrefix("."), let text = try? String(contentsOf: url, encoding: .utf8)
            else { return [] }
            return [SourceFile(path: path, text: text)]
        }
    }
}

/// A place in a file, printed as editors understand it.
struct Finding: CustomStringConvertible, Sendable {
    let path: String
    let line: Int
    let what: String
    var description: String { "\(path):\(line): \(what)" }
}

extension SourceFile {
    /// The lines at which a pattern begins, in the code or in the whole text.
    func lines(matching pattern: NSRegularExpression, inComments: Bool = false) -> [Int] {
        let searched = inComments ? text : code
        let matches = pattern.matches(in: searched, range: NSRange(location: 0, length: (searched as NSString).length))
        guard !matches.isEmpty else { return [] }
        let characters = searched as NSString
        var line = 1
        var at = 0
        return matches.map { match in
            while at < match.range.location {
                if characters.character(at: at) == 10 { line += 1 }
                at += 1
            }
            return line
        }
    }
}

func pattern(_ text: String) -> NSRegularExpression {
    do {
        return try NSRegularExpression(pattern: text, options: [.anchorsMatchLines])
    } catch {
        preconditionFailure("\(text) is no pattern: \(error)")
    }
}
