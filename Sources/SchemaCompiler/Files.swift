#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// Reading and writing whole text files.
enum Files {
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    static func read(_ path: String) throws -> String {
        guard let file = fopen(path, "rb") else { throw Failure(description: "cannot read \(path)") }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = fread(&chunk, 1, chunk.count, file)
            if count == 0 { break }
            bytes += chunk[..<count]
        }
        guard ferror(file) == 0 else { throw Failure(description: "cannot read \(path)") }
        return String(decoding: bytes, as: UTF8.self)
    }

    static func write(_ text: String, to path: String) throws {
        // a file that says the same already keeps its date, and what depends on it is not built again
        if let old = try? read(path), old == text { return }
        guard let file = fopen(path, "wb") else { throw Failure(description: "cannot write \(path)") }
        let bytes = Array(text.utf8)
        let written = fwrite(bytes, 1, bytes.count, file)
        guard fclose(file) == 0, written == bytes.count else { throw Failure(description: "cannot write \(path)") }
    }

    static func succeed() -> Never { exit(0) }

    static func fail(_ message: String) -> Never {
        if let errors = fdopen(2, "w") {
            fputs(message + "\n", errors)
            fflush(errors)
        }
        exit(1)
    }
}
