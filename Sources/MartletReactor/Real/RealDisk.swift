import CMartlet
import Glibc

/// The machine's file systems.
package final class RealDisk: Disk {
    package init() {}

    package func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any DiskFile {
        let flags =
            switch mode {
            case .read: MARTLET_OPEN_READ
            case .readWrite: MARTLET_OPEN_WRITE
            case .create: MARTLET_OPEN_WRITE | MARTLET_OPEN_CREATE
            case .createNew: MARTLET_OPEN_WRITE | MARTLET_OPEN_CREATE | MARTLET_OPEN_EXCLUSIVE
            case .truncate: MARTLET_OPEN_WRITE | MARTLET_OPEN_CREATE | MARTLET_OPEN_TRUNCATE
            }
        let descriptor = martlet_open(path, Int32(flags))
        guard descriptor >= 0 else { throw SystemError(errno: descriptor, "open", path) }
        return RealFile(descriptor: descriptor, path: path)
    }

    package func list(_ path: String) throws(SystemError) -> [String] {
        final class Names {
            var all: [String] = []
        }
        let names = Names()
        let code = martlet_list(path, Unmanaged.passUnretained(names).toOpaque()) { context, name in
            Unmanaged<Names>.fromOpaque(context!).takeUnretainedValue().all.append(String(cString: name!))
        }
        guard code == 0 else { throw SystemError(errno: code, "opendir", path) }
        return names.all.sorted()
    }

    package func status(_ path: String) throws(SystemError) -> FileStatus? {
        var found = martlet_status()
        let code = martlet_status(path, &found)
        if code == -ENOENT || code == -ENOTDIR { return nil }
        guard code == 0 else { throw SystemError(errno: code, "stat", path) }
        return FileStatus(
            size: found.size, isDirectory: found.is_directory != 0, modifiedMilliseconds: found.modified_milliseconds)
    }

    package func makeDirectory(_ path: String) throws(SystemError) {
        let code = martlet_make_directory(path)
        switch -code {
        case 0: return
        case EEXIST:
            guard let found = try status(path), found.isDirectory else {
                throw SystemError(errno: ENOTDIR, "mkdir", path)
            }
        case ENOENT:
            guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else {
                throw SystemError(errno: code, "mkdir", path)
            }
            try makeDirectory(String(path[..<slash]))
            let again = martlet_make_directory(path)
            guard again == 0 || again == -EEXIST else { throw SystemError(errno: again, "mkdir", path) }
        default: throw SystemError(errno: code, "mkdir", path)
        }
    }

    package func rename(_ from: String, to: String) throws(SystemError) {
        let code = martlet_rename(from, to)
        guard code == 0 else { throw SystemError(errno: code, "rename", "\(from) to \(to)") }
    }

    package func remove(_ path: String) throws(SystemError) {
        let code = martlet_unlink(path)
        guard code == 0 || code == -ENOENT else { throw SystemError(errno: code, "unlink", path) }
    }

    package func removeTree(_ path: String) throws(SystemError) {
        let code = martlet_remove_tree(path)
        guard code == 0 || code == -ENOENT else { throw SystemError(errno: code, "remove", path) }
    }

    package func syncDirectory(_ path: String) throws(SystemError) { try withDirectory(path, "fsync", martlet_fsync) }
    package func syncFileSystem(_ path: String) throws(SystemError) {
        try withDirectory(path, "syncfs", martlet_syncfs)
    }

    private func withDirectory(
        _ path: String, _ operation: StaticString, _ body: (Int32) -> Int32
    ) throws(SystemError) {
        let descriptor = martlet_open(path, Int32(MARTLET_OPEN_DIRECTORY))
        guard descriptor >= 0 else { throw SystemError(errno: descriptor, "open", path) }
        let code = body(descriptor)
        _ = martlet_close(descriptor)
        guard code == 0 else { throw SystemError(errno: code, operation, path) }
    }

    package func space(_ path: String) throws(SystemError) -> Space {
        var total: Int64 = 0, available: Int64 = 0
        let code = martlet_space(path, &total, &available)
        guard code == 0 else { throw SystemError(errno: code, "statvfs", path) }
        return Space(totalBytes: total, availableBytes: available)
    }

    package func lock(_ path: String) throws(SystemError) -> (any DiskLock)? {
        let descriptor = martlet_open(path, Int32(MARTLET_OPEN_WRITE | MARTLET_OPEN_CREATE))
        guard descriptor >= 0 else { throw SystemError(errno: descriptor, "open", path) }
        let code = martlet_lock(descriptor)
        if code == 0 { return RealLock(RealFile(descriptor: descriptor, path: path)) }
        _ = martlet_close(descriptor)
        if code == -EAGAIN { return nil }
        throw SystemError(errno: code, "fcntl", path)
    }
}

/// A lock that is held: it goes with the descriptor.
private final class RealLock: DiskLock {
    private let file: RealFile
    init(_ file: RealFile) { self.file = file }
    func close() { file.close() }
}
