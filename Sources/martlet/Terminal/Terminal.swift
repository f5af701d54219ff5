import Glibc

/// What the program says to the person, or the program, that runs it.
enum Terminal {
    /// What became of something that was to be written.
    enum Written: Sendable, Equatable {
        case done
        /// Nobody reads any more.
        case readerGone
        /// With the system's code.
        case failed(Int32)
    }

    @discardableResult
    static func say(_ text: String) -> Written { write(text + "\n") }
    static func complain(_ text: String) { _ = write(Array((text + "\n").utf8), to: STDERR_FILENO) }
    /// Text that ends its own lines.
    @discardableResult
    static func write(_ text: String) -> Written { write(Array(text.utf8), to: STDOUT_FILENO) }

    /// Writes all of it, unless it cannot.
    static func write(_ bytes: [UInt8], to descriptor: Int32) -> Written {
        bytes.withUnsafeBytes { buffer in
            var rest = buffer[...]
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return errno == EPIPE ? .readerGone : .failed(errno) }
                rest = rest.dropFirst(count)
            }
            return .done
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
