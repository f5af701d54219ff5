import MartletReactor

/// Files in memory, for one thread, of a few kilobytes: a disk that costs nothing to make and nothing to forget.
final class MemoryDisk: Disk, @unchecked Sendable {
    private var files: [String: MemoryFile] = [:]
    private var folders: Set = ["/", "."]

    private func fault(_ kind: SystemError.Kind, _ operation: StaticString, _ path: String) -> SystemError {
        SystemError(kind, code: 0, operation: operation, subject: path, reason: "\(kind)")
    }

    func put(_ bytes: [UInt8], at path: String) { files[path] = MemoryFile(path, bytes) }

    func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any DiskFile {
        if let file = files[path], mode != .createNew {
            if mode == .truncate { file.bytes = [] }
            return file
        }
        guard mode != .createNew || files[path] == nil else { throw fault(.exists, "open", path) }
        guard mode != .read, mode != .readWrite else { throw fault(.notFound, "open", path) }
        let file = MemoryFile(path, [])
        files[path] = file
        return file
    }

    func list(_ path: String) throws(SystemError) -> [String] {
        guard folders.contains(path) else { throw fault(.notFound, "opendir", path) }
        let inside = path + "/"
        let paths = files.keys.sorted() + folders.sorted()
        return paths.filter { $0.hasPrefix(inside) && !$0.dropFirst(inside.count).contains("/") }
            .map { String($0.dropFirst(inside.count)) }.sorted()
    }

    func status(_ path: String) throws(SystemError) -> FileStatus? {
        if let file = files[path] {
            return FileStatus(size: Int64(file.bytes.count), isDirectory: false, modifiedMilliseconds: 0)
        }
        return folders.contains(path) ? FileStatus(size: 0, isDirectory: true, modifiedMilliseconds: 0) : nil
    }

    func makeDirectory(_ path: String) throws(SystemError) {
        var made = ""
        for name in path.split(separator: "/") {
            made += "/" + name
            guard files[made] == nil else { throw fault(.notADirectory, "mkdir", path) }
            folders.insert(made)
        }
    }

    func rename(_ from: String, to: String) throws(SystemError) {
        guard let file = files.removeValue(forKey: from) else { throw fault(.notFound, "rename", from) }
        files[to] = file
    }

    func remove(_ path: String) throws(SystemError) { files[path] = nil }

    func removeTree(_ path: String) throws(SystemError) {
        for name in files.keys.sorted() where name.hasPrefix(path + "/") { files[name] = nil }
        folders = folders.filter { $0 != path && !$0.hasPrefix(path + "/") }
    }

    func syncDirectory(_ path: String) throws(SystemError) {}
    func syncFileSystem(_ path: String) throws(SystemError) {}
    func space(_ path: String) throws(SystemError) -> Space { Space(totalBytes: 1 << 40, availableBytes: 1 << 40) }
    func lock(_ path: String) throws(SystemError) -> (any DiskLock)? { MemoryLock() }
}

private final class MemoryLock: DiskLock {
    func close() {}
}

private final class MemoryFile: DiskFile, @unchecked Sendable {
    /// No reader has a reason to make a file larger than this from an input of a few kilobytes.
    private static let sizeLimit = 64 << 20

    let path: String
    var bytes: [UInt8]

    init(_ path: String, _ bytes: [UInt8]) {
        self.path = path
        self.bytes = bytes
    }

    func readSome(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        precondition(offset >= 0, "a file is read from a place in it")
        let count = max(0, min(buffer.count, bytes.count - Int(offset)))
        if count > 0 {
            bytes.withUnsafeBytes {
                buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[Int(offset)..<Int(offset) + count]))
            }
        }
        return count
    }

    func readSomeCached(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int? {
        try readSome(into: buffer, at: offset)
    }

    func writeSome(_ pieces: ArraySlice<UnsafeRawBufferPointer>, at offset: Int64) throws(SystemError) -> Int {
        precondition(offset >= 0, "a file is written at a place in it")
        var place = Int(offset)
        for piece in pieces {
            grow(to: place + piece.count)
            bytes.replaceSubrange(place..<place + piece.count, with: piece)
            place += piece.count
        }
        return place - Int(offset)
    }

    func sync() throws(SystemError) {}

    func truncate(to size: Int64) throws(SystemError) {
        grow(to: Int(size))
        bytes.removeLast(bytes.count - Int(size))
    }

    func allocate(_ size: Int64) throws(SystemError) { grow(to: Int(size)) }

    private func grow(to size: Int) {
        precondition(size <= Self.sizeLimit, "a file grows without need")
        if size > bytes.count { bytes += [UInt8](repeating: 0, count: size - bytes.count) }
    }

    func size() throws(SystemError) -> Int64 { Int64(bytes.count) }
    func close() {}
}
