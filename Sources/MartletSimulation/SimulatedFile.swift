internal import MartletBasics
internal import MartletReactor

/// An open file of one process.
final class SimulatedFile: DiskFile, @unchecked Sendable {
    let path: String
    private let disk: SimulatedDisk
    private let files: SimulatedFileSystem
    private let inode: Inode
    private let isWritable: Bool
    private var isOpen = true

    init(disk: SimulatedDisk, inode: Inode, path: String, isWritable: Bool) {
        self.disk = disk
        self.inode = inode
        self.path = path
        self.isWritable = isWritable
        files = disk.files
        inode.openCount += 1
        disk.process.openInodes[ObjectIdentifier(self)] = inode
    }

    deinit { close() }

    func close() {
        guard isOpen else { return }
        isOpen = false
        // what the system has closed at the end of the process is not closed again
        guard disk.process.openInodes.removeValue(forKey: ObjectIdentifier(self)) != nil else { return }
        inode.openCount -= 1
        files.releaseSpace(inode)
    }

    private func admit(_ operation: DiskOperation, writes: Bool = false) throws(SystemError) -> SystemError.Kind? {
        let fault = try disk.admit(operation, path)
        guard isOpen, isWritable || !writes else {
            throw SystemError(.other, code: 9, operation: operation.call, subject: path, reason: "Bad file descriptor")
        }
        return fault
    }

    private func begin(_ operation: DiskOperation, writes: Bool = false) throws(SystemError) {
        if let fault = try admit(operation, writes: writes) { throw disk.error(fault, operation, path) }
    }

    func readSome(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        try begin(.read)
        guard !isUnreadable(buffer.count, at: offset) else { throw disk.error(.inputOutput, .read, path) }
        files.spend(files.readLatency)
        if inode.content.isCold(buffer.count, at: offset) { files.coldReadsCount += 1 }
        return inode.content.read(into: part(of: buffer), at: offset)
    }

    /// Of a buffer what one call fills.
    private func part(of buffer: UnsafeMutableRawBufferPointer) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: buffer.prefix(files.movedCount(of: buffer.count)))
    }

    func readSomeCached(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int? {
        try begin(.read)
        // damaged sectors never get into the cache
        if isUnreadable(buffer.count, at: offset) { return nil }
        if inode.content.isCold(buffer.count, at: offset) {
            files.coldReadsCount += 1
            return nil
        }
        if files.evictionOneIn > 0, files.random.chance(1, in: files.evictionOneIn) { return nil }
        return inode.content.read(into: part(of: buffer), at: offset)
    }

    private func isUnreadable(_ count: Int, at offset: Int64) -> Bool {
        guard !inode.unreadable.isEmpty, count > 0 else { return false }
        return inode.unreadable.contains { $0.overlaps(offset..<(offset + Int64(count))) }
    }

    func writeSome(_ pieces: ArraySlice<UnsafeRawBufferPointer>, at offset: Int64) throws(SystemError) -> Int {
        precondition(offset >= 0, "a file is written from its beginning on")
        let fault = try admit(.write, writes: true)
        var room = files.roomBytes(inode, at: offset)
        let total = pieces.reduce(into: Int64(0)) { $0 += Int64($1.count) }
        var failure = fault
        if fault == nil, total > 0, room <= 0 {
            failure = .noSpace
            files.foundNoRoom(.write, path)
        }
        let most = fault == nil ? Int64(files.movedCount(of: Int(total))) : Int64.random(in: 0...total, using: &files.random)
        room = min(max(room, 0), most)
        let moved = Int(room)
        files.spend(files.writeLatency)
        var digest = inode.number
        files.resizing(inode, at: disk.wallMilliseconds) { inode in
            var position = offset
            for piece in pieces where room > 0 {
                let part = UnsafeRawBufferPointer(rebasing: piece.prefix(Int(min(Int64(piece.count), room))))
                inode.content.write(part, at: position)
                digest = digest &* 31 &+ UInt64(crc32c(part)) &+ UInt64(position)
                position += Int64(part.count)
                room -= Int64(part.count)
            }
        }
        disk.note(.write, digest)
        if let failure { throw disk.error(failure, .write, path) }
        return moved
    }

    func sync() throws(SystemError) {
        let fault = try admit(.sync)
        files.spend(files.syncLatency)
        disk.note(.sync, inode.number)
        if let fault {
            inode.content.failSync()
            throw disk.error(fault, .sync, path)
        }
        inode.content.sync()
    }

    func truncate(to size: Int64) throws(SystemError) {
        precondition(size >= 0, "a file has no negative size")
        try begin(.truncate, writes: true)
        guard size <= inode.content.size || files.roomBytes(inode, at: size) >= 0 else {
            files.foundNoRoom(.truncate, path)
            throw disk.error(.noSpace, .truncate, path)
        }
        files.resizing(inode, at: disk.wallMilliseconds) { $0.content.truncate(to: size) }
        disk.note(.truncate, inode.number &+ UInt64(size) &* 31)
    }

    func allocate(_ size: Int64) throws(SystemError) {
        precondition(size >= 0, "a file has no negative size")
        try begin(.allocate, writes: true)
        guard files.roomBytes(inode, at: size) >= 0 else {
            files.foundNoRoom(.allocate, path)
            throw disk.error(.noSpace, .allocate, path)
        }
        files.resizing(inode, at: disk.wallMilliseconds) { $0.content.grow(to: size) }
        disk.note(.allocate, inode.number &+ UInt64(size) &* 31)
    }

    func size() throws(SystemError) -> Int64 {
        try begin(.status)
        return inode.content.size
    }
}
