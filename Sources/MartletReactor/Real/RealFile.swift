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

    /// Reads until the buffer is full or the file ends: how many bytes, or a negated errno.
    @inline(__always)
    private func fill(
        _ buffer: UnsafeMutableRawBufferPointer, from offset: Int64, _ operation: StaticString,
        _ read: (Int32, UnsafeMutableRawPointer, Int, Int64) -> Int
    ) throws(SystemError) -> Int {
        try withDescriptor(operation) { descriptor in
            var done = 0
            while done < buffer.count {
                let moved = read(descriptor, buffer.baseAddress! + done, buffer.count - done, offset + Int64(done))
                if moved < 0 { return moved }
                if moved == 0 { break }
                done += moved
            }
            return done
        }
    }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        let done = try fill(buffer, from: offset, "pread") { martlet_pread($0, $1, $2, $3) }
        if done < 0 { throw SystemError(errno: Int32(done), "pread", path) }
        return done
    }

    package func readCached(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int? {
        let done = try fill(buffer, from: offset, "preadv2") { martlet_pread_cached($0, $1, $2, $3) }
        if done >= 0 { return done }
        // a file system that cannot tell is treated as a slow one
        if done == -Int(EAGAIN) || done == -Int(EOPNOTSUPP) { return nil }
        throw SystemError(errno: Int32(done), "preadv2", path)
    }

    package func write(_ piece: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError) {
        let code = try withDescriptor("pwrite") { descriptor in
            var done = 0
            while done < piece.count {
                let moved = martlet_pwrite(
                    descriptor, piece.baseAddress! + done, piece.count - done, offset + Int64(done))
                if moved < 0 { return Int32(moved) }
                if moved == 0 { return -EIO }
                done += moved
            }
            return 0
        }
        if code < 0 { throw SystemError(errno: code, "pwrite", path) }
    }

    package func write(_ pieces: [UnsafeRawBufferPointer], at offset: Int64) throws(SystemError) {
        if pieces.count == 1 { return try write(pieces[0], at: offset) }
        var index = 0
        var position = offset
        while index < pieces.count {
            let count = min(pieces.count - index, Int(MARTLET_PIECES_LIMIT))
            position += try writeGroup(pieces[index..<(index + count)], at: position)
            index += count
        }
    }

    /// Writes all of at most MARTLET_PIECES_LIMIT pieces; how many bytes.
    private func writeGroup(
        _ pieces: ArraySlice<UnsafeRawBufferPointer>, at offset: Int64
    ) throws(SystemError) -> Int64 {
        let done = try withDescriptor("pwritev") { descriptor in
            withUnsafeTemporaryAllocation(of: iovec.self, capacity: pieces.count) { vectors in
                var used = 0
                for piece in pieces where piece.count > 0 {
                    let start = UnsafeMutableRawPointer(mutating: piece.baseAddress)
                    vectors[used] = iovec(iov_base: start, iov_len: piece.count)
                    used += 1
                }
                return Self.writeAll(descriptor, vectors.baseAddress!, used, offset)
            }
        }
        if done < 0 { throw SystemError(errno: Int32(done), "pwritev", path) }
        return done
    }

    private static func writeAll(
        _ descriptor: Int32, _ vectors: UnsafeMutablePointer<iovec>, _ count: Int, _ offset: Int64
    ) -> Int64 {
        var vectors = vectors, count = count, done: Int64 = 0
        while count > 0 {
            var moved = martlet_pwritev(descriptor, vectors, Int32(count), offset + done)
            if moved < 0 { return Int64(moved) }
            if moved == 0 { return -Int64(EIO) }
            done += Int64(moved)
            while count > 0, moved >= vectors.pointee.iov_len {
                moved -= vectors.pointee.iov_len
                vectors += 1
                count -= 1
            }
            if moved > 0 {
                vectors.pointee.iov_base += moved
                vectors.pointee.iov_len -= moved
            }
        }
        return done
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
