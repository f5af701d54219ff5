import Glibc

/// Directories that Kafka wrote, where this checkout has them beside it, unpacked into a folder that goes with the value.
final class Archive {
    let listing: JSON
    private let folder: String

    /// Nil where there is no such archive.
    init?(_ name: String) throws {
        let root = String(#filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined())
        let data = root + "/../shared/kafka-data/"
        guard access(data + name + ".tar.xz", R_OK) == 0, access(data + name + ".json", R_OK) == 0 else { return nil }
        var template = Array("/tmp/martlet-archive-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw Failure(what: "no temporary folder") }
        folder = String(cString: made)
        listing = try JSON(Self.contents(of: data + name + ".json"))
        try Self.run("/usr/bin/tar", "xJf", data + name + ".tar.xz", "-C", folder, "--strip-components=1")
    }

    deinit { try? Self.run("/bin/rm", "-rf", folder) }

    struct Failure: Error { var what: String }

    /// The segments of a partition, in order, each with all its bytes.
    func segments(of partition: String) throws -> [[UInt8]] {
        var found = glob_t()
        defer { globfree(&found) }
        guard glob("\(folder)/\(partition)/*.log", 0, nil, &found) == 0 else { return [] }
        return try (0..<Int(found.gl_pathc)).map { try Self.contents(of: String(cString: found.gl_pathv[$0]!)) }
    }

    private static func contents(of path: String) throws -> [UInt8] {
        guard let file = fopen(path, "rb") else { throw Failure(what: "cannot open \(path)") }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while case let count = fread(&chunk, 1, chunk.count, file), count > 0 { bytes += chunk[..<count] }
        return bytes
    }

    private static func run(_ command: String...) throws {
        var arguments: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var process: pid_t = 0
        var status: Int32 = 0
        guard posix_spawn(&process, command[0], nil, nil, &arguments, environ) == 0,
            waitpid(process, &status, 0) == process, status == 0
        else { throw Failure(what: command.joined(separator: " ")) }
    }
}

/// As much of JSON as the listings need.
indirect enum JSON {
    case null, bool(Bool), integer(Int64), text(String), list([JSON]), object([(String, JSON)])

    subscript(_ name: String) -> JSON {
        guard case .object(let members) = self else { return .null }
        return members.first { $0.0 == name }?.1 ?? .null
    }

    var list: [JSON] { if case .list(let elements) = self { elements } else { [] } }
    var members: [(String, JSON)] { if case .object(let members) = self { members } else { [] } }
    var integer: Int64? { if case .integer(let value) = self { value } else { nil } }
    var text: String? { if case .text(let value) = self { value } else { nil } }
    var bool: Bool? { if case .bool(let value) = self { value } else { nil } }

    /// Bytes as the listings have them: text, `{"hex": …}`, or null.
    var bytes: [UInt8]? {
        if let text { return Array(text.utf8) }
        guard let digits = self["hex"].text.map({ Array($0.utf8) }) else { return nil }
        func value(_ digit: UInt8) -> UInt8 { digit < 58 ? digit - 48 : digit - 87 }
        return stride(from: 0, to: digits.count, by: 2).map { value(digits[$0]) << 4 | value(digits[$0 + 1]) }
    }

    init(_ bytes: [UInt8]) throws {
        var position = 0
        self = try JSON.value(bytes, &position)
    }

    private static func value(_ bytes: [UInt8], _ at: inout Int) throws -> JSON {
        skipSpace(bytes, &at)
        switch bytes[at] {
        case UInt8(ascii: "{"):
            var members: [(String, JSON)] = []
            try elements(bytes, &at, end: UInt8(ascii: "}")) { at in
                skipSpace(bytes, &at)
                let name = try string(bytes, &at)
                skipSpace(bytes, &at)
                at += 1  // the colon
                members.append((name, try value(bytes, &at)))
            }
            return .object(members)
        case UInt8(ascii: "["):
            var list: [JSON] = []
            try elements(bytes, &at, end: UInt8(ascii: "]")) { at in list.append(try value(bytes, &at)) }
            return .list(list)
        case UInt8(ascii: "\""): return .text(try string(bytes, &at))
        case UInt8(ascii: "t"): at += 4; return .bool(true)
        case UInt8(ascii: "f"): at += 5; return .bool(false)
        case UInt8(ascii: "n"): at += 4; return .null
        default:
            let start = at
            while at < bytes.count, !Array(",]} \n".utf8).contains(bytes[at]) { at += 1 }
            guard let number = Int64(String(decoding: bytes[start..<at], as: UTF8.self)) else { return .null }
            return .integer(number)
        }
    }

    private static func elements(
        _ bytes: [UInt8], _ at: inout Int, end: UInt8, _ element: (inout Int) throws -> Void
    ) throws {
        at += 1
        skipSpace(bytes, &at)
        while bytes[at] != end {
            try element(&at)
            skipSpace(bytes, &at)
            if bytes[at] == UInt8(ascii: ",") { at += 1 }
            skipSpace(bytes, &at)
        }
        at += 1
    }

    private static func skipSpace(_ bytes: [UInt8], _ at: inout Int) {
        while at < bytes.count, bytes[at] <= 32 { at += 1 }
    }

    private static func string(_ bytes: [UInt8], _ at: inout Int) throws -> String {
        at += 1
        var units: [UInt8] = []
        while bytes[at] != UInt8(ascii: "\"") {
            guard bytes[at] == UInt8(ascii: "\\") else {
                units.append(bytes[at])
                at += 1
                continue
            }
            at += 2
            switch bytes[at - 1] {
            case UInt8(ascii: "n"): units.append(10)
            case UInt8(ascii: "t"): units.append(9)
            case UInt8(ascii: "r"): units.append(13)
            case UInt8(ascii: "b"): units.append(8)
            case UInt8(ascii: "f"): units.append(12)
            case UInt8(ascii: "u"):
                var utf16: [UInt16] = [try unit(bytes, &at)]
                if utf16[0] & 0xFC00 == 0xD800 {
                    at += 2
                    utf16.append(try unit(bytes, &at))
                }
                units += Array(String(decoding: utf16, as: UTF16.self).utf8)
            default: units.append(bytes[at - 1])
            }
        }
        at += 1
        return String(decoding: units, as: UTF8.self)
    }

    private static func unit(_ bytes: [UInt8], _ at: inout Int) throws -> UInt16 {
        guard let unit = UInt16(String(decoding: bytes[at..<at + 4], as: UTF8.self), radix: 16) else {
            throw Archive.Failure(what: "a malformed escape")
        }
        at += 4
        return unit
    }
}
