/// The rules for names of topics.
package enum TopicName {
    package static let lengthLimit = 249

    /// Letters, digits, `.`, `_` and `-`, at most 249 of them; not `.` or `..`, which are folders.
    package static func isValid(_ name: String) -> Bool { fault(name) == nil }

    /// What is wrong with a name, as a sentence; nil if it is fine.
    package static func fault(_ name: String) -> String? {
        if name.isEmpty { return "Topic name is invalid: it is empty." }
        if name == "." || name == ".." { return "Topic name is invalid: '.' and '..' are not allowed." }
        if name.utf8.count > lengthLimit { return "Topic name is invalid: it is longer than \(lengthLimit) characters." }
        let plain = name.utf8.allSatisfy { byte in
            (byte >= 0x30 && byte <= 0x39) || (byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7A)
                || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
        }
        return plain ? nil : "Topic name '\(name)' is invalid: it may hold letters, digits, '.', '_' and '-' only."
    }

    /// Metrics fold `.` into `_`: two names that differ only there collide.
    package static func collides(_ a: String, _ b: String) -> Bool { a != b && folded(a) == folded(b) }

    package static func folded(_ name: String) -> String { String(name.map { $0 == "." ? "_" : $0 }) }
}
