internal import MartletBasics

/// A file or folder. It lives for as long as a name or an open file leads to it.
final class Inode {
    let number: UInt64
    let isDirectory: Bool
    var modifiedMilliseconds: Int64
    /// Of a file.
    var content = PagedContent()
    var unreadable: [Range<Int64>] = []
    var openCount = 0
    var isNamed = false
    /// Of a folder: as programs see it, and as the disk has it.
    var entries: [String: Inode] = [:]
    var durableEntries: [String: Inode] = [:]

    init(number: UInt64, isDirectory: Bool, modifiedMilliseconds: Int64) {
        self.number = number
        self.isDirectory = isDirectory
        self.modifiedMilliseconds = modifiedMilliseconds
    }

    /// What it takes of the disk. A hole counts as if it were filled.
    var blockBytes: Int64 { isDirectory ? 0 : Int64(PagedContent.pagesCount(content.size)) * Int64(Page.size) }
}

/// A change of names that the disk does not have yet: made whole or not at all.
private struct NameChange {
    var removed: (folder: Inode, name: String)?
    var added: (folder: Inode, name: String, inode: Inode)?
    /// A folder that is removed: what was removed from it goes before.
    var emptied: Inode?

    func touches(_ folder: Inode) -> Bool {
        removed?.folder === folder || added?.folder === folder || emptied === folder
    }

    var folders: [Inode] { [removed?.folder, added?.folder, emptied].compactMap { $0 } }

    func makeDurable() {
        if let removed { removed.folder.durableEntries[removed.name] = nil }
        if let added { added.folder.durableEntries[added.name] = added.inode }
    }
}

/// The names of a simulated file system, as they are and as the disk has them.
///
/// Between the two stand the changes that no sync of a folder has covered, in their order. A sync of a folder takes
/// the changes that touch it, and those before them that touch a folder which these touch. A power cut keeps of each
/// folder's changes a beginning, and the seed says how long a one.
struct FileTree {
    /// More changes than this do not wait: as a kernel does in time, the tree makes the older half durable by itself.
    static let changesLimit = 10_000

    let root: Inode
    private var changes: ContiguousArray<NameChange> = []
    private var inodesCount: UInt64 = 1

    init() {
        root = Inode(number: 0, isDirectory: true, modifiedMilliseconds: SimulatedClock.epochMilliseconds)
        root.isNamed = true
    }

    // MARK: Paths

    static func parts(_ path: String) -> [Substring] {
        var parts: [Substring] = []
        for part in path.split(separator: "/") where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(part) }
        }
        return parts
    }

    enum Found {
        case inode(Inode)
        case nothing
        /// A file stands where the path needs a folder.
        case blocked
    }

    func find(_ path: String) -> Found { find(Self.parts(path)[...]) }

    func find(_ parts: ArraySlice<Substring>) -> Found {
        var inode = root
        for part in parts {
            guard inode.isDirectory else { return .blocked }
            guard let next = inode.entries[String(part)] else { return .nothing }
            inode = next
        }
        return .inode(inode)
    }

    // MARK: Changes

    mutating func add(_ name: String, to folder: Inode, isDirectory: Bool, at time: Int64) -> Inode {
        let inode = Inode(number: inodesCount, isDirectory: isDirectory, modifiedMilliseconds: time)
        inodesCount += 1
        inode.isNamed = true
        folder.entries[name] = inode
        record(NameChange(added: (folder, name, inode)))
        return inode
    }

    mutating func remove(_ name: String, from folder: Inode) {
        guard let inode = folder.entries.removeValue(forKey: name) else { return }
        inode.isNamed = false
        record(NameChange(removed: (folder, name), emptied: inode.isDirectory ? inode : nil))
    }

    mutating func rename(_ name: String, in folder: Inode, to newName: String, in newFolder: Inode) {
        guard let inode = folder.entries.removeValue(forKey: name) else { return }
        newFolder.entries[newName]?.isNamed = false
        newFolder.entries[newName] = inode
        record(NameChange(removed: (folder, name), added: (newFolder, newName, inode)))
    }

    private mutating func record(_ change: NameChange) {
        changes.append(change)
        guard changes.count > Self.changesLimit else { return }
        for old in changes.prefix(Self.changesLimit / 2) { old.makeDurable() }
        changes.removeFirst(Self.changesLimit / 2)
    }

    // MARK: Durability

    mutating func sync(_ folder: Inode) {
        var folders = [folder]
        var taken = [Bool](repeating: false, count: changes.count)
        for index in changes.indices.reversed() where folders.contains(where: { changes[index].touches($0) }) {
            taken[index] = true
            for other in changes[index].folders where !folders.contains(where: { $0 === other }) {
                folders.append(other)
            }
        }
        var left: ContiguousArray<NameChange> = []
        for index in changes.indices {
            if taken[index] { changes[index].makeDurable() } else { left.append(changes[index]) }
        }
        changes = left
    }

    mutating func syncAll() {
        for change in changes { change.makeDurable() }
        changes = []
        forEachFile { $0.content.sync() }
    }

    mutating func losePower(_ random: inout SeededRandom) {
        let mood = random.below(4)
        var stopped: [Inode] = []
        for change in changes {
            let follows = change.folders.contains { folder in stopped.contains { $0 === folder } }
            if !follows, mood == 0 || (mood != 1 && random.chance(3, in: 4)) {
                change.makeDurable()
            } else {
                for folder in change.folders where !stopped.contains(where: { $0 === folder }) {
                    stopped.append(folder)
                }
            }
        }
        changes = []
        restore(root)
        forEachFile { file in file.content.losePower(&random) }
    }

    private func restore(_ folder: Inode) {
        for inode in folder.entries.values { inode.isNamed = false }
        folder.entries = folder.durableEntries
        for name in folder.entries.keys.sorted() {
            guard let inode = folder.entries[name] else { continue }
            inode.isNamed = true
            if inode.isDirectory { restore(inode) }
        }
    }

    /// Every file that has a name, in the order of their paths.
    func forEachFile(_ body: (Inode) -> Void) { Self.forEachFile(in: root, body) }

    static func forEachFile(in folder: Inode, _ body: (Inode) -> Void) {
        for name in folder.entries.keys.sorted() {
            guard let inode = folder.entries[name] else { continue }
            if inode.isDirectory { forEachFile(in: inode, body) } else { body(inode) }
        }
    }
}
