import Glibc
import MartletBasics
import MartletReactor

/// Standard input, read on a lane so that the loop goes on meanwhile. Confined to the loop.
final class StandardInput: @unchecked Sendable {
    private static let chunkBytes = 256 << 10
    /// A line without an end is no line.
    static let lineBytesLimit = 64 << 20

    private let lane: any Lane
    private let loop: any EventLoop
    private var waiting: UnsafeContinuation<[UInt8]?, Never>?
    private var isOver = false
    private var rest: [UInt8] = []

    init(_ session: Session) {
        lane = session.host.makeLane("stdin", threads: 1, limit: 1)
        loop = session.loop
    }

    /// The lines that came next, without their ends, at least one; nil at the end. The last needs no end.
    func lines() async throws -> [[UInt8]]? {
        while true {
            guard let chunk = await chunk() else {
                guard !rest.isEmpty else { return nil }
                defer { rest = [] }
                return [rest]
            }
            guard rest.count + chunk.count <= Self.lineBytesLimit else {
                throw CommandFault("a line is longer than \(Self.lineBytesLimit) bytes")
            }
            var lines: [[UInt8]] = []
            var start = 0
            while let end = chunk[start...].firstIndex(of: UInt8(ascii: "\n")) {
                lines.append(rest.isEmpty ? Array(chunk[start..<end]) : rest + chunk[start..<end])
                rest = []
                start = end + 1
            }
            rest += chunk[start...]
            if !lines.isEmpty { return lines }
        }
    }

    /// What was not read is left; an unfinished line is dropped.
    func stop() {
        isOver = true
        rest = []
        waiting?.resume(returning: nil)
        waiting = nil
    }

    private func chunk() async -> [UInt8]? {
        guard !isOver else { return nil }
        return await withUnsafeContinuation { continuation in
            waiting = continuation
            let isTaken = lane.submit(Self.read, on: loop) { [self] bytes in
                if bytes == nil { isOver = true }
                waiting?.resume(returning: bytes)
                waiting = nil
            }
            precondition(isTaken, "one chunk is read at a time")
        }
    }

    /// Nil at the end, and where it cannot be read.
    private static func read() -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: chunkBytes)
        while true {
            let count = buffer.withUnsafeMutableBytes { Glibc.read(STDIN_FILENO, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return nil }
            buffer.removeLast(buffer.count - count)
            return buffer
        }
    }
}

/// Standard output for much: collected, and written on a lane, so that a reader that stands still does not keep Ctrl-C
/// from being heard. Confined to the loop.
final class StandardOutput: @unchecked Sendable {
    static let chunkBytes = 128 << 10

    private let lane: any Lane
    private let loop: any EventLoop
    private var buffer: [UInt8] = []

    init(_ session: Session) {
        lane = session.host.makeLane("stdout", threads: 1, limit: 1)
        loop = session.loop
    }

    func append(_ bytes: some Sequence<UInt8>) { buffer.append(contentsOf: bytes) }
    func append(_ text: String) { buffer.append(contentsOf: text.utf8) }

    var isFull: Bool { buffer.count >= Self.chunkBytes }

    /// False where nobody reads any more.
    func flush() async throws -> Bool {
        guard !buffer.isEmpty else { return true }
        let bytes = buffer
        buffer.removeAll(keepingCapacity: true)
        let written = try await lane.run(on: loop) { Terminal.write(bytes, to: STDOUT_FILENO) }
        if case .failed(let code) = written { throw CommandFault(outputFails: code) }
        return written == .done
    }
}
