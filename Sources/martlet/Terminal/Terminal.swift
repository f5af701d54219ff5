import Glibc

/// What the program says to the person, or the program, that runs it.
enum Terminal {
    static func say(_ text: String) { write(text + "\n") }
    static func complain(_ text: String) { write(Array((text + "\n").utf8), to: STDERR_FILENO) }
    /// Text that ends its own lines.
    static func write(_ text: String) { write(Array(text.utf8), to: STDOUT_FILENO) }

    /// Writes all of it, and says whether it could: not where the reader has gone.
    @discardableResult
    static func write(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
        bytes.withUnsafeBytes { buffer in
            var rest = buffer[...]
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return false }
                rest = rest.dropFirst(count)
            }
            return true
        }
    }
}

extension Terminal {
    static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

    /// Whether colours are wanted there: on a terminal, unless NO_COLOR (no-color.org) is set or it is a dumb one.
    static func isStyled(_ descriptor: Int32) -> Bool {
        guard isTerminal(descriptor) else { return false }
        if let refused = getenv("NO_COLOR"), refused.pointee != 0 { return false }
        guard let kind = getenv("TERM") else { return false }
        return String(cString: kind) != "dumb"
    }
}
