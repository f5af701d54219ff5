import MartletBasics
import MartletReactor

/// A disk that keeps, when the power is cut, what was synced, and of the rest what chance leaves of it: any unsynced write whole, in part or
/// not at all, and any unsynced change of a folder or not.
final class MemoryDisk: Disk, @unchecked Sendable {
    final class Node {
        var current: [UInt8] = []
        var durable: [UInt8] = []
        /// Since the last sync.
        var changes: [Change] = []
    }

    enum Change {
        case write(offset: Int, bytes: [UInt8])
        case size(Int)
    }

    private enum NameChange {
        case put(String, Node)
        case move(String, String)
        case remove(String)
    }

    private var random: SeededRandom
    private var names: [String: Node] = [:]
    private var durableNames: [String: Node] = [:]
    private var nameChanges: [NameChange] = []
    private var held: Set<String> = []
    /// The power goes during the operation on the disk that this counts down to.
    var operationsUntilPowerCut: Int?
    private(set) var isOff = false
    var failsSyncs = false
    private(set) var syncCount = 0

    init(seed: UInt64) { random = SeededRandom(seed: seed &+ 0xD15C) }

    // MARK: Power

    /// The machine starts again with what is left.
    func restart() {
        for change in nameChanges where random.chance(1, in: 2) { apply(change, to: &durableNames) }
        nameChanges = []
        var seen: Set<ObjectIdentifier> = []
        for name in durableNames.keys.sorted() {
            let node = durableNames[name]!
            guard seen.insert(ObjectIdentifier(node)).inserted else { continue }
            for change in node.changes { leave(change, in: &node.durable) }
            node.changes = []
            node.current = node.durable
        }
        names = durableNames
        held = []
        isOff = false
        operationsUntilPowerCut = nil
    }

    private func leave(_ change: Change, in bytes: inout [UInt8]) {
        switch change {
        case .size(let size): if random.chance(1, in: 2) { Self.resize(&bytes, size) }
        case .write(let offset, let written):
            switch random.below(4) {
            case 0: break
            case 1: Self.write(written, at: offset, in: &bytes)
            case 2: Self.write(Array(written.prefix(random.below(written.count + 1))), at: offset, in: &bytes)
            default:
                // the size arrived, and some pieces of the data did not
                var holed = written
                for start in stride(from: 0, to: holed.count, by: 64) where random.chance(1, in: 3) {
                    for at in start..<min(start + 64, holed.count) { holed[at] = 0 }
                }
                Self.write(holed, at: offset, in: &bytes)
            }
        }
    }

    fileprivate func operate(_ name: StaticString, _ subject: String) throws(SystemError) {
        if let left = operationsUntilPowerCut {
            operationsUntilPowerCut = left - 1
            if left <= 0 { isOff = true }
        }
        if isOff { throw SystemError(.inputOutput, code: 5, operation: name, subject: subject, reason: "the power is off") }
    }

    static func write(_ written: [UInt8], at offset: Int, in bytes: inout [UInt8]) {
        if bytes.count < offset + written.count { resize(&bytes, offset + written.count) }
        bytes.replaceSubrange(offset..<(offset + written.count), with: written)
    }

    static func resize(_ bytes: inout [UInt8], _ size: Int) {
        if size < bytes.count { bytes.removeLast(bytes.count - size) }
        if size > bytes.count { bytes += [UInt8](repeating: 0, count: size - bytes.count) }
    }

    private func apply(_ change: NameChange, to names: inout [String: Node]) {
        switch change {
        case .put(let name, let node): names[name] = node
        case .move(let from, let to): if let node = names.removeValue(forKey: from) { names[to] = node }
        case .remove(let name): names[name] = nil
        }
    }

    private func record(_ change: NameChange) {
        apply(change, to: &names)
        nameChanges.append(change)
    }

    // MARK: What tests do to files

    func bytes(_ path: String) -> [UInt8]? { names[path]?.current }
    func setBytes(_ path: String, _ bytes: [UInt8]) {
        names[path]!.current = bytes
        names[path]!.durable = bytes
    }
    func files(_ prefix: String) -> [String] { names.keys.filter { $0.hasPrefix(prefix) }.sorted() }

    // MARK: Disk

    func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any DiskFile {
        try operate("open", path)
        if let node = names[path] {
            if mode == .createNew {
                throw SystemError(.exists, code: 17, operation: "open", subject: path, reason: "file exists")
            }
            if mode == .truncate {
                node.current = []
                node.changes.append(.size(0))
            }
            return File(self, path, node)
        }
        if mode == .read || mode == .readWrite {
            throw SystemError(.notFound, code: 2, operation: "open", subject: path, reason: "no such file")
        }
        let node = Node()
        record(.put(path, node))
        return File(self, path, node)
    }

    func list(_ path: String) throws(SystemError) -> [String] {
        try operate("list", path)
        return names.keys.filter { $0.hasPrefix(path + "/") }.map { String($0.dropFirst(path.utf8.count + 1)) }.sorted()
    }

    func status(_ path: String) throws(SystemError) -> FileStatus? {
        try operate("stat", path)
        return names[path].map { FileStatus(size: Int64($0.current.count), isDirectory: false, modifiedMilliseconds: 0) }
    }

    func makeDirectory(_ path: String) throws(SystemError) { try operate("mkdir", path) }

    func rename(_ from: String, to: String) throws(SystemError) {
        try operate("rename", from)
        record(.move(from, to))
    }

    func remove(_ path: String) throws(SystemError) {
        try operate("unlink", path)
        if names[path] != nil { record(.remove(path)) }
    }

    func removeTree(_ path: String) throws(SystemError) {
        for name in files(path + "/") { try remove(name) }
    }

    func syncDirectory(_ path: String) throws(SystemError) {
        try operate("fsync", path)
        for change in nameChanges { apply(change, to: &durableNames) }
        nameChanges = []
    }

    func syncFileSystem(_ path: String) throws(SystemError) {
        try syncDirectory(path)
        for name in files("") { try File(self, name, names[name]!).sync() }
    }

    func space(_: String) throws(SystemError) -> Space { Space(totalBytes: 1 << 40, availableBytes: 1 << 40) }

    func lock(_ path: String) throws(SystemError) -> (any DiskLock)? {
        try operate("lock", path)
        return held.insert(path).inserted ? HeldLock { [self] in held.remove(path) } : nil
    }

    private final class HeldLock: DiskLock, @unchecked Sendable {
        let release: () -> Void
        init(_ release: @escaping () -> Void) { self.release = release }
        func close() { release() }
    }

    private final class File: DiskFile, @unchecked Sendable {
        let disk: MemoryDisk
        let path: String
        let node: Node

        init(_ disk: MemoryDisk, _ path: String, _ node: Node) {
            self.disk = disk
            self.path = path
            self.node = node
        }

        func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
            try disk.operate("pread", path)
            let bytes = node.current.dropFirst(Int(offset)).prefix(buffer.count)
            buffer.copyBytes(from: bytes)
            return bytes.count
        }

        func readCached(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int? {
            try read(into: buffer, at: offset)
        }

        func write(_ pieces: [UnsafeRawBufferPointer], at offset: Int64) throws(SystemError) {
            let bytes = pieces.flatMap { [UInt8]($0) }
            // the operation during which the power goes may still reach the disk in part
            MemoryDisk.write(bytes, at: Int(offset), in: &node.current)
            node.changes.append(.write(offset: Int(offset), bytes: bytes))
            try disk.operate("pwritev", path)
        }

        func sync() throws(SystemError) {
            try disk.operate("fdatasync", path)
            if disk.failsSyncs {
                throw SystemError(.inputOutput, code: 5, operation: "fdatasync", subject: path, reason: "input/output error")
            }
            disk.syncCount += 1
            node.durable = node.current
            node.changes = []
        }

        func truncate(to size: Int64) throws(SystemError) {
            try disk.operate("ftruncate", path)
            MemoryDisk.resize(&node.current, Int(size))
            node.changes.append(.size(Int(size)))
        }

        func allocate(_ size: Int64) throws(SystemError) { try disk.operate("fallocate", path) }
        func size() throws(SystemError) -> Int64 { Int64(node.current.count) }
        func close() {}
    }
}
