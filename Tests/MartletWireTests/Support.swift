import MartletBasics
import MartletWire
import Testing

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// The folder of Package.swift.
let packageRoot: String = {
    let parts = #filePath.split(separator: "/")
    return "/" + parts.dropLast(3).joined(separator: "/")
}()

func encoded<Message: WireMessage>(_ message: Message, version: Int16) throws -> [UInt8] {
    var buffer = ByteBuffer()
    try message.encode(into: &buffer, version: version)
    return buffer.array
}

/// Decodes from bytes that live as long as the call; what lies in them is copied.
func decoded<Message: WireMessage>(_: Message.Type, _ bytes: [UInt8], version: Int16) throws -> Message {
    try bytes.withUnsafeBytes { raw in
        var reader = ByteReader(raw)
        var message = try Message.decode(from: &reader, version: version)
        message.ownBytes(of: raw)
        return message
    }
}

func hex(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
}

func bytes(hex text: some StringProtocol) -> [UInt8] {
    let digits = Array(text.utf8).map { $0 < 58 ? $0 - 48 : $0 - 87 }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

/// What a shell command prints, line by line.
func lines(of command: String) throws -> [String] {
    let pipe = try #require(popen(command, "r"))
    var text: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while case let count = fread(&chunk, 1, chunk.count, pipe), count > 0 { text += chunk[..<count] }
    pclose(pipe)
    return String(decoding: text, as: UTF8.self).split(separator: "\n").map(String.init)
}

func contents(of path: String) throws -> [UInt8] {
    let file = try #require(fopen(path, "rb"), "\(path)")
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while case let count = fread(&chunk, 1, chunk.count, file), count > 0 { bytes += chunk[..<count] }
    return bytes
}
