import CMartlet
import Glibc
import Synchronization

/// An open file of the system.
package final class RealFile: DiskFile {
    package let path: String
    private let descriptor: Int32
    /// Who uses the descriptor, so that a close never takes it away from under a call of another thread (its number
    /// could by then be another file's): bit 0 closed, bit 1 given back, from bit 2 on the calls under way. The last of
    /// them gives it back.
    private let uses = Atomic<Int>(0)

    init(descriptor: Int32, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    deinit { close() }

    package func close() {
        let before = uses.bitwiseOr(1, ordering: .acquiringAndReleasing).oldValue
        if before == 0 { giveBack() }
    }

    private func giveBack() {
        guard uses.compareExchange(expected: 1, desired: 3, ordering: .acquiringAndReleasing).exchanged else { return }
        _ = martlet_close(descriptor)
    }

    /// Runs `body` with the descriptor, which stays this file's meanwhile.
    @inline(__always)
    func withDescriptor<R>(_ operation: StaticString, _ body: (Int32) -> R) throws(SystemError) -> R {
        let before = uses.add(4, ordering: .acquiring).oldValue
        defer {
            if uses.subtract(4, ordering: .acquiringAndReleasing).newValue == 1 { giveBack() }
        }
        guard before & 1 == 0 else {
            throw SystemError(.other, code: EBADF, operation: operation, subject: path, reason: "the file was closed")
        }
        return body(descriptor)
    }

    /// A call that gives 0 or a negated errno.
    private func check(_ operation: StaticString, _ body: (Int32) -> Int32) throws(SystemError) {
        let code = try withDescriptor(operation, body)
        if code < 0 { throw SystemError(errno: code, operation, path) }
    }

    /// A call that gives how many bytes it moved, or a negated errno.
    @inline(__always)
    private func moving(_ operation: StaticString, _ body: (Int32) -> Int) throws(SystemError) -> Int {
        let moved = try withDescriptor(operation, body)
        if moved < 0 { throw SystemError(errno: Int32(moved), operation, path) }
        return moved
    }

    package func readSome(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        guard let start = buffer.baseAddress else { return 0 }
        return try moving("pread") { martlet_pread($0, start, buffer.count, offset) }
    }

    package func readSomeCached(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int? {
        guard let start = buffer.baseAddress else { return 0 }
        let moved = try withDescriptor("preadv2") { martlet_pread_cached($0, start, buffer.count, offset) }
        if moved >= 0 { return moved }
        // a file system that cannot tell is treated as a slow one
        if moved == -Int(EAGAIN) || moved == -Int(EOPNOTSUPP) { return nil }
        throw SystemError(errno: Int32(moved), "preadv2", path)
    }

    package func writeSome(_ piece: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        guard let start = piece.baseAddress else { return 0 }
        return try moving("pwrite") { martlet_pwrite($0, start, piece.count, offset) }
    }

    package func writeSome(_ pieces: ArraySlice<UnsafeRawBufferPointer>, at offset: Int64) throws(SystemError) -> Int {
        let pieces = pieces.prefix(Int(MARTLET_PIECES_LIMIT))
        return try moving("pwritev") { descriptor in
            withUnsafeTemporaryAllocation(of: iovec.self, capacity: pieces.count) { vectors in
                var used = 0
                for piece in pieces where piece.count > 0 {
                    let start = UnsafeMutableRawPointer(mutating: piece.baseAddress)
                    vectors[used] = iovec(iov_base: start, iov_len: piece.count)
                    used += 1
                }
                return martlet_pwritev(descriptor, vectors.baseAddress!, Int32(used), offset)
            }
        }
    }

    package func sync() throws(SystemError) { try check("fdatasync") { martlet_fdatasync($0) } }
    package func truncate(to size: Int64) throws(SystemError) { try check("ftruncate") { martlet_truncate($0, size) } }
    package func allocate(_ size: Int64) throws(SystemError) { try check("fallocate") { martlet_allocate($0, size) } }

    package func size() throws(SystemError) -> Int64 {
        var size: Int64 = 0
        try check("fstat") { martlet_size($0, &size) }
        return size
    }
}
