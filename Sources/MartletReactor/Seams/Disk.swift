/// What a system call refused, and what was asked of it.
package struct SystemError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What the caller can act upon.
    package enum Kind: Sendable, Equatable {
        case notFound, exists, permissionDenied, noSpace, addressInUse, addressNotAvailable, tooManyFiles
        case notADirectory, isADirectory, notEmpty, busy, connectionLost, inputOutput, other
    }

    package var kind: Kind
    /// The number that the system gave (`errno`), 0 where there is none.
    package var code: Int32
    /// `open`, `pwritev`, `fdatasync`, …
    package var operation: StaticString
    /// The path or address.
    package var subject: String
    /// The system's own words for the code.
    package var reason: String

    package init(_ kind: Kind, code: Int32, operation: StaticString, subject: String, reason: String) {
        self.kind = kind
        self.code = code
        self.operation = operation
        self.subject = subject
        self.reason = reason
    }

    package var description: String { "\(operation) \(subject): \(reason)" }

    package static func == (a: SystemError, b: SystemError) -> Bool {
        a.kind == b.kind && a.code == b.code && a.subject == b.subject && "\(a.operation)" == "\(b.operation)"
    }
}

package enum OpenMode: Sendable, Equatable {
    case read
    /// Read and write an existing file.
    case readWrite
    /// Read and write; made where it is not there, left as it is where it is.
    case create
    /// Read and write; must not be there.
    case createNew
    /// Read and write; empty, whatever was there.
    case truncate
}

package struct FileStatus: Sendable, Equatable {
    package var size: Int64
    package var isDirectory: Bool
    package var modifiedMilliseconds: Int64
    package init(size: Int64, isDirectory: Bool, modifiedMilliseconds: Int64) {
        self.size = size
        self.isDirectory = isDirectory
        self.modifiedMilliseconds = modifiedMilliseconds
    }
}

package struct Space: Sendable, Equatable {
    package var totalBytes: Int64
    package var availableBytes: Int64
    package init(totalBytes: Int64, availableBytes: Int64) {
        self.totalBytes = totalBytes
        self.availableBytes = availableBytes
    }
}

/// The seam of files. Calls are synchronous and may be made from any thread; those that can take long belong on a lane.
///
/// Names that are not UTF-8 are listed with replacement characters, and so cannot be opened.
///
/// What a power cut leaves (and the simulated disk takes away): data of a file reaches the disk by `sync`; a file's
/// name, a rename and a removal by `syncDirectory` of the folder. Everything else may be lost, in any part.
package protocol Disk: AnyObject, Sendable {
    func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any DiskFile
    /// Names in the folder, without `.` and `..`, sorted.
    func list(_ path: String) throws(SystemError) -> [String]
    /// Nil where there is nothing.
    func status(_ path: String) throws(SystemError) -> FileStatus?
    /// Makes the folder, and its parents; one that exists is fine.
    func makeDirectory(_ path: String) throws(SystemError)
    /// Replaces what is at `to`.
    func rename(_ from: String, to: String) throws(SystemError)
    /// Removes a file. One that is not there is fine.
    func remove(_ path: String) throws(SystemError)
    /// Removes a folder with all that is in it. One that is not there is fine.
    func removeTree(_ path: String) throws(SystemError)
    /// Makes names, renames and removals in this folder durable.
    func syncDirectory(_ path: String) throws(SystemError)
    /// Makes everything that was written to the file system of this path durable (`syncfs`).
    func syncFileSystem(_ path: String) throws(SystemError)
    func space(_ path: String) throws(SystemError) -> Space
    /// Holds the lock on a file, which is made where it is not there; nil if another process, or another caller in this
    /// one, holds it. It excludes, and is excluded by, the POSIX record lock (`fcntl F_SETLK`) that Kafka takes.
    /// Released when the returned value is closed or goes away.
    func lock(_ path: String) throws(SystemError) -> (any DiskLock)?
}

package protocol DiskLock: AnyObject, Sendable {
    func close()
}

/// An open file. Calls may come from any thread, also while another thread syncs it. Closed when the last reference
/// goes, or by `close`, after which every call throws.
package protocol DiskFile: AnyObject, Sendable {
    var path: String { get }

    /// One call of the system: how many bytes it moved, fewer than there is room for where it likes; none where the file
    /// has ended. Callers want `read`.
    func readSome(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int

    /// As `readSome`, from the page cache alone; nil where that would have to wait for the disk, or where the file system
    /// cannot tell. Callers want `readCached`.
    func readSomeCached(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int?

    /// One call of the system: how many bytes of the pieces it wrote, one piece after the other. Callers want `write`.
    func writeSome(_ pieces: ArraySlice<UnsafeRawBufferPointer>, at offset: Int64) throws(SystemError) -> Int

    /// As `writeSome` of one piece: what a file of the system does without an array.
    func writeSome(_ piece: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError) -> Int

    /// Makes the file's data (and size) durable. When it throws, nothing of what was not yet synced may be assumed
    /// durable, and a later success means nothing for it.
    func sync() throws(SystemError)

    func truncate(to size: Int64) throws(SystemError)

    /// Gives the file at least `size` bytes, the new ones zero, and reserves their blocks where the file system can.
    func allocate(_ size: Int64) throws(SystemError)

    func size() throws(SystemError) -> Int64

    func close()
}

/// Whole reads and writes, of calls that may move less than they are asked to.
extension DiskFile {
    /// Reads until the buffer is full or the file ends; how many bytes.
    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        var done = 0
        while done < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            let moved = try readSome(into: rest, at: offset + Int64(done))
            if moved == 0 { break }
            done += moved
        }
        return done
    }

    /// As `read`, from the page cache alone; nil where that would have to wait for the disk, also for a part of it, or
    /// where the file system cannot tell.
    package func readCached(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int? {
        var done = 0
        while done < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
            guard let moved = try readSomeCached(into: rest, at: offset + Int64(done)) else { return nil }
            if moved == 0 { break }
            done += moved
        }
        return done
    }

    /// Writes all of the piece. When it throws, any part may have been written.
    package func write(_ piece: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError) {
        var done = 0
        while done < piece.count {
            let rest = UnsafeRawBufferPointer(rebasing: piece[done...])
            done += try some(try writeSome(rest, at: offset + Int64(done)))
        }
    }

    /// Writes all of the pieces, one after the other, with as few system calls as can be. When it throws, any part may
    /// have been written.
    package func write(_ pieces: [UnsafeRawBufferPointer], at offset: Int64) throws(SystemError) {
        if pieces.count == 1 { return try write(pieces[0], at: offset) }
        var rest = pieces[...]
        var position = offset
        while true {
            rest = rest.drop { $0.isEmpty }
            guard !rest.isEmpty else { return }
            var moved = try some(try writeSome(rest, at: position))
            position += Int64(moved)
            while let piece = rest.first, moved >= piece.count {
                moved -= piece.count
                rest.removeFirst()
            }
            // the piece in which it stopped
            guard moved > 0, let piece = rest.popFirst() else { continue }
            let left = UnsafeRawBufferPointer(rebasing: piece[moved...])
            try write(left, at: position)
            position += Int64(left.count)
        }
    }

    package func writeSome(_ piece: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        try writeSome([piece], at: offset)
    }

    /// A call that writes nothing of something would be made again for ever.
    private func some(_ moved: Int) throws(SystemError) -> Int {
        guard moved > 0 else {
            throw SystemError(.inputOutput, code: 5, operation: "pwrite", subject: path, reason: "nothing was written")
        }
        return moved
    }
}

extension Disk {
    /// The whole of a small file; nil where there is none.
    package func contents(_ path: String) throws(SystemError) -> [UInt8]? {
        guard let status = try status(path), !status.isDirectory else { return nil }
        let file = try open(path, .read)
        defer { file.close() }
        var bytes = [UInt8](repeating: 0, count: Int(status.size))
        var failure: SystemError?
        var count = 0
        bytes.withUnsafeMutableBytes { buffer in
            do throws(SystemError) { count = try file.read(into: buffer, at: 0) } catch { failure = error }
        }
        if let failure { throw failure }
        bytes.removeLast(bytes.count - count)
        return bytes
    }

    /// Replaces a small file as a whole: written beside it as `NAME.tmp`, synced, renamed, the folder synced. After a
    /// power cut either the old content or the new is there.
    package func replace(_ path: String, with bytes: [UInt8]) throws(SystemError) {
        let beside = path + ".tmp"
        let file = try open(beside, .truncate)
        defer { file.close() }
        var failure: SystemError?
        bytes.withUnsafeBytes { buffer in
            do throws(SystemError) { try file.write(buffer, at: 0) } catch { failure = error }
        }
        if let failure { throw failure }
        try file.sync()
        try rename(beside, to: path)
        try syncDirectory(parent(of: path))
    }

    private func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}
