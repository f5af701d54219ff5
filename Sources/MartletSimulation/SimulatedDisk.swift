internal import MartletBasics
package import MartletReactor

/// The disk as one process has it. Every call first asks whether that process still lives.
package final class SimulatedDisk: Disk, @unchecked Sendable {
    let process: SimulatedProcess
    let files: SimulatedFileSystem
    private let world: SimulatedWorld

    init(process: SimulatedProcess, files: SimulatedFileSystem) {
        self.process = process
        self.files = files
        world = process.world
    }

    // MARK: Refusals

    func error(_ kind: SystemError.Kind, _ operation: DiskOperation, _ path: String) -> SystemError {
        let (code, reason) = Self.words(for: kind)
        return SystemError(kind, code: code, operation: operation.call, subject: path, reason: reason)
    }

    /// Linux's numbers and words.
    static func words(for kind: SystemError.Kind) -> (Int32, String) {
        switch kind {
        case .notFound: (2, "No such file or directory")
        case .inputOutput: (5, "Input/output error")
        case .permissionDenied: (13, "Permission denied")
        case .busy: (16, "Device or resource busy")
        case .exists: (17, "File exists")
        case .notADirectory: (20, "Not a directory")
        case .isADirectory: (21, "Is a directory")
        case .tooManyFiles: (24, "Too many open files")
        case .noSpace: (28, "No space left on device")
        case .notEmpty: (39, "Directory not empty")
        case .addressInUse: (98, "Address already in use")
        case .addressNotAvailable: (99, "Cannot assign requested address")
        case .connectionLost: (104, "Connection reset by peer")
        case .other: (0, "the process was killed")
        }
    }

    /// Refuses what a dead process asks, cuts the power where that is due, and gives the fault to run into.
    func admit(_ operation: DiskOperation, _ path: String) throws(SystemError) -> SystemError.Kind? {
        world.checkThread()
        process.passSeam()
        if operation.changes, process.isAlive, let left = process.diskOperationsLeft {
            process.diskOperationsLeft = left - 1
            if left <= 0 { process.host?.powerCut() }
        }
        guard process.isAlive else { throw error(.other, operation, path) }
        return files.takeFault(operation, path)
    }

    func begin(_ operation: DiskOperation, _ path: String) throws(SystemError) {
        if let fault = try admit(operation, path) { throw error(fault, operation, path) }
    }

    func note(_ operation: DiskOperation, _ digest: UInt64) {
        world.note(.disk, files.subject, digest &* 31 &+ UInt64(operation.rawValue))
    }

    // MARK: Finding

    private func inode(_ operation: DiskOperation, _ path: String) throws(SystemError) -> Inode {
        switch files.tree.find(path) {
        case .inode(let inode): return inode
        case .nothing: throw error(.notFound, operation, path)
        case .blocked: throw error(.notADirectory, operation, path)
        }
    }

    private func folder(_ operation: DiskOperation, _ path: String) throws(SystemError) -> Inode {
        let inode = try inode(operation, path)
        guard inode.isDirectory else { throw error(.notADirectory, operation, path) }
        return inode
    }

    /// The folder that a path's last name is in.
    private func place(
        _ operation: DiskOperation, _ path: String
    ) throws(SystemError) -> (folder: Inode, name: String) {
        let parts = FileTree.parts(path)
        guard let last = parts.last else { throw error(.isADirectory, operation, path) }
        switch files.tree.find(parts.dropLast()) {
        case .inode(let folder) where folder.isDirectory: return (folder, String(last))
        case .nothing: throw error(.notFound, operation, path)
        default: throw error(.notADirectory, operation, path)
        }
    }

    var wallMilliseconds: Int64 { process.wallMilliseconds }

    // MARK: Disk

    package func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any DiskFile {
        try begin(.open, path)
        guard process.openInodes.count < files.openFilesLimit else { throw error(.tooManyFiles, .open, path) }
        let inode: Inode
        switch mode {
        case .read, .readWrite:
            inode = try self.inode(.open, path)
        case .create, .createNew, .truncate:
            let place = try place(.open, path)
            if let existing = place.folder.entries[place.name] {
                if mode == .createNew { throw error(.exists, .open, path) }
                inode = existing
            } else {
                inode = files.tree.add(place.name, to: place.folder, isDirectory: false, at: wallMilliseconds)
                note(.open, stableHash(path))
            }
        }
        guard !inode.isDirectory else { throw error(.isADirectory, .open, path) }
        if mode == .truncate, inode.content.size > 0 {
            files.resizing(inode, at: wallMilliseconds) { $0.content.truncate(to: 0) }
            note(.truncate, inode.number)
        }
        return SimulatedFile(disk: self, inode: inode, path: path, isWritable: mode != .read)
    }

    package func list(_ path: String) throws(SystemError) -> [String] {
        try begin(.list, path)
        return try folder(.list, path).entries.keys.sorted()
    }

    package func status(_ path: String) throws(SystemError) -> FileStatus? {
        try begin(.status, path)
        guard case .inode(let inode) = files.tree.find(path) else { return nil }
        return FileStatus(
            size: inode.isDirectory ? Int64(Page.size) : inode.content.size, isDirectory: inode.isDirectory,
            modifiedMilliseconds: inode.modifiedMilliseconds)
    }

    package func makeDirectory(_ path: String) throws(SystemError) {
        try begin(.makeDirectory, path)
        var folder = files.tree.root
        for part in FileTree.parts(path) {
            let name = String(part)
            if let next = folder.entries[name] {
                guard next.isDirectory else { throw error(.notADirectory, .makeDirectory, path) }
                folder = next
            } else {
                folder = files.tree.add(name, to: folder, isDirectory: true, at: wallMilliseconds)
                note(.makeDirectory, stableHash(path))
            }
        }
    }

    package func rename(_ from: String, to: String) throws(SystemError) {
        try begin(.rename, from)
        let source = try place(.rename, from)
        guard let moved = source.folder.entries[source.name] else { throw error(.notFound, .rename, from) }
        let target = try place(.rename, to)
        let replaced = target.folder.entries[target.name]
        if replaced === moved { return }
        if moved.isDirectory, FileTree.parts(to).starts(with: FileTree.parts(from)) {
            throw SystemError(.other, code: 22, operation: "rename", subject: from, reason: "Invalid argument")
        }
        if let replaced {
            if moved.isDirectory, !replaced.isDirectory { throw error(.notADirectory, .rename, to) }
            if !moved.isDirectory, replaced.isDirectory { throw error(.isADirectory, .rename, to) }
            if replaced.isDirectory, !replaced.entries.isEmpty { throw error(.notEmpty, .rename, to) }
        }
        files.tree.rename(source.name, in: source.folder, to: target.name, in: target.folder)
        if let replaced { files.releaseSpace(replaced) }
        note(.rename, stableHash(from) &+ 3 &* stableHash(to))
    }

    package func remove(_ path: String) throws(SystemError) {
        try begin(.remove, path)
        guard case .inode(let inode) = files.tree.find(path) else { return }
        guard !inode.isDirectory else { throw error(.isADirectory, .remove, path) }
        let place = try place(.remove, path)
        unlink(place.name, in: place.folder)
        note(.remove, stableHash(path))
    }

    package func removeTree(_ path: String) throws(SystemError) {
        try begin(.remove, path)
        guard case .inode(let inode) = files.tree.find(path) else { return }
        if inode.isDirectory { try empty(inode, path) }
        let place = try place(.remove, path)
        unlink(place.name, in: place.folder)
        note(.remove, stableHash(path))
    }

    /// Each name is a call of its own: the power may go between them.
    private func empty(_ folder: Inode, _ path: String) throws(SystemError) {
        for name in folder.entries.keys.sorted() {
            let below = "\(path)/\(name)"
            try begin(.remove, below)
            if let inode = folder.entries[name], inode.isDirectory { try empty(inode, below) }
            unlink(name, in: folder)
        }
    }

    private func unlink(_ name: String, in folder: Inode) {
        guard let inode = folder.entries[name] else { return }
        files.tree.remove(name, from: folder)
        files.releaseSpace(inode)
    }

    package func syncDirectory(_ path: String) throws(SystemError) {
        try begin(.syncDirectory, path)
        let folder = try folder(.syncDirectory, path)
        files.spend(files.syncLatency)
        files.tree.sync(folder)
        note(.syncDirectory, folder.number)
    }

    package func syncFileSystem(_ path: String) throws(SystemError) {
        if let fault = try admit(.syncFileSystem, path) {
            files.tree.forEachFile { $0.content.failSync() }
            throw error(fault, .syncFileSystem, path)
        }
        _ = try inode(.syncFileSystem, path)
        files.spend(files.syncLatency)
        files.tree.syncAll()
        note(.syncFileSystem, 0)
    }

    package func space(_ path: String) throws(SystemError) -> Space {
        try begin(.space, path)
        _ = try inode(.space, path)
        return Space(totalBytes: files.capacityBytes, availableBytes: max(files.capacityBytes - files.usedBytes, 0))
    }

    package func lock(_ path: String) throws(SystemError) -> (any DiskLock)? {
        try begin(.lock, path)
        let place = try place(.lock, path)
        let inode = place.folder.entries[place.name]
            ?? files.tree.add(place.name, to: place.folder, isDirectory: false, at: wallMilliseconds)
        guard !inode.isDirectory else { throw error(.isADirectory, .lock, path) }
        guard !files.locks.contains(where: { $0.inode === inode }) else { return nil }
        files.locks.append(.init(inode: inode, process: process))
        return SimulatedLock(disk: self, inode: inode)
    }

    func unlock(_ inode: Inode) {
        files.locks.removeAll { $0.inode === inode && $0.process === process }
    }
}

final class SimulatedLock: DiskLock, @unchecked Sendable {
    private let disk: SimulatedDisk
    private var inode: Inode?

    init(disk: SimulatedDisk, inode: Inode) {
        self.disk = disk
        self.inode = inode
    }

    deinit { if let inode { disk.unlock(inode) } }

    func close() {
        guard let held = inode else { return }
        inode = nil
        disk.unlock(held)
    }
}
