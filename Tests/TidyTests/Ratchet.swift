import Foundation
import Testing

/// Rules that are not met everywhere: `ratchet.txt` holds how many offences there are, and the numbers only fall.
enum Ratchet {
    private static let path = "Tests/TidyTests/ratchet.txt"
    /// Who sweeps one line away need not touch the numbers; who sweeps a file does.
    private static let slack = 10

    static let allowed: [String: Int] = {
        var table: [String: Int] = [:]
        for line in Repository.files.first(where: { $0.path == path })?.text.split(separator: "\n") ?? []
        where !line.hasPrefix("#") {
            let words = line.split(separator: " ")
            if words.count == 2, let count = Int(words[1]) { table[String(words[0])] = count }
        }
        return table
    }()

    static func check(_ rule: String, _ findings: [Finding]) {
        let limit = allowed[rule] ?? 0
        if findings.count > limit {
            let listed = findings.map(\.description).joined(separator: "\n")
            Issue.record("\(rule): \(findings.count) places, and \(limit) are allowed in \(path); all of them:\n\(listed)")
        } else if limit - findings.count > slack || (findings.isEmpty && limit > 0) {
            Issue.record("\(rule): only \(findings.count) places are left: write that into \(path), where \(limit) stands")
        }
    }
}
