package import MartletReactor
internal import MartletBasics

/// Bounds the files that are open: 10,000 partitions have more segments and indexes than a process may have
/// descriptors.
///
/// A segment keeps a `CachedFile` and asks for the open file each time it needs one; the least recently asked for is
/// dropped where the limit is reached. A dropped file is closed when the last who holds it lets go, so that what is
/// being read or synced stays open: the process may have as many more descriptors as there are such operations.
package final class DescriptorCache: @unchecked Sendable {
    private struct Slot {
        var owner: CachedFile
        var file: any DiskFile
        var previous: Int32 = -1
        var next: Int32 = -1
    }

    private let disk: any Disk
    package let limit: Int

    private let lock = Lock()
    // Guarded by `lock`, as is all of a `CachedFile`:
    private var slots: [Slot] = []
    private var newest: Int32 = -1
    private var oldest: Int32 = -1
    private var counts = Statistics()

    package struct Statistics: Sendable, Equatable {
        package var opened: UInt64 = 0
        package var evicted: UInt64 = 0
        package init() {}
    }

    package init(disk: any Disk, limit: Int) {
        precondition(limit > 0, "a cache of descriptors holds at least one")
        self.disk = disk
        self.limit = limit
    }

    package var openCount: Int { lock.withLock { slots.count } }
    package var statistics: Statistics { lock.withLock { counts } }

    /// The open file. Held by the caller for as long as it uses it, not longer.
    package func file(_ cached: CachedFile) throws(SystemError) -> any DiskFile {
        let (known, path, mode) = lock.withLock { (touch(cached), cached.currentPath, cached.mode) }
        if let known { return known }
        let opened = try open(path, mode)
        // released outside the lock: it may be the last reference, which closes the file
        var dropped: (any DiskFile)?
        defer { withExtendedLifetime(dropped) {} }
        return lock.withLock {
            // another thread may have opened it meanwhile: one of the two is enough
            if let other = touch(cached) { return other }
            if slots.count >= limit { dropped = evictOldest() }
            counts.opened += 1
            add(cached, opened)
            return opened
        }
    }

    /// Puts a file that was opened or made elsewhere into the cache.
    package func insert(_ file: any DiskFile, as cached: CachedFile) {
        var dropped: (any DiskFile)?
        var replaced: (any DiskFile)?
        lock.withLock {
            replaced = remove(cached)
            if slots.count >= limit { dropped = evictOldest() }
            add(cached, file)
        }
        withExtendedLifetime((dropped, replaced)) {}
    }

    /// The file is not needed any more, or will be removed.
    package func forget(_ cached: CachedFile) {
        let dropped = lock.withLock { remove(cached) }
        withExtendedLifetime(dropped) {}
    }

    /// The file has another name now. An open one stays valid.
    package func renamed(_ cached: CachedFile, to path: String) { lock.withLock { cached.currentPath = path } }

    /// The name under which it would be opened.
    package func path(of cached: CachedFile) -> String { lock.withLock { cached.currentPath } }

    /// Where the process has no descriptor left, an eighth of the cache gives way, once.
    private func open(_ path: String, _ mode: OpenMode) throws(SystemError) -> any DiskFile {
        do throws(SystemError) { return try disk.open(path, mode) } catch {
            guard error.kind == .tooManyFiles else { throw error }
        }
        giveWay()
        return try disk.open(path, mode)
    }

    /// What is dropped is closed when this returns, unless somebody else holds it.
    private func giveWay() {
        let dropped = lock.withLock { (0..<max(1, slots.count / 8)).map { _ in slots.isEmpty ? nil : evictOldest() } }
        withExtendedLifetime(dropped) {}
    }

    // MARK: The order of use; the lock is held

    private func touch(_ cached: CachedFile) -> (any DiskFile)? {
        let slot = cached.slot
        guard slot >= 0 else { return nil }
        if slot != newest {
            unlink(slot)
            link(slot)
        }
        return slots[Int(slot)].file
    }

    private func add(_ cached: CachedFile, _ file: any DiskFile) {
        cached.slot = Int32(slots.count)
        slots.append(Slot(owner: cached, file: file))
        link(cached.slot)
    }

    private func evictOldest() -> (any DiskFile)? {
        counts.evicted += 1
        return remove(slots[Int(oldest)].owner)
    }

    /// The last slot moves into the gap, so that the slots stay as many as there are open files.
    private func remove(_ cached: CachedFile) -> (any DiskFile)? {
        let slot = cached.slot
        guard slot >= 0 else { return nil }
        unlink(slot)
        cached.slot = -1
        let file = slots[Int(slot)].file
        let last = slots.removeLast()
        guard Int(slot) < slots.count else { return file }
        slots[Int(slot)] = last
        last.owner.slot = slot
        if last.previous >= 0 { slots[Int(last.previous)].next = slot } else { newest = slot }
        if last.next >= 0 { slots[Int(last.next)].previous = slot } else { oldest = slot }
        return file
    }

    private func link(_ slot: Int32) {
        slots[Int(slot)].previous = -1
        slots[Int(slot)].next = newest
        if newest >= 0 { slots[Int(newest)].previous = slot } else { oldest = slot }
        newest = slot
    }

    private func unlink(_ slot: Int32) {
        let (previous, next) = (slots[Int(slot)].previous, slots[Int(slot)].next)
        if previous >= 0 { slots[Int(previous)].next = next } else { newest = next }
        if next >= 0 { slots[Int(next)].previous = previous } else { oldest = previous }
    }
}

/// A file that is opened when it is needed. Its fields belong to the cache.
package final class CachedFile: @unchecked Sendable {
    fileprivate let mode: OpenMode
    fileprivate var currentPath: String
    /// -1 while it is not open.
    fileprivate var slot: Int32 = -1

    package init(_ path: String, _ mode: OpenMode = .readWrite) {
        precondition(
            mode == .read || mode == .readWrite || mode == .create, "a file opened again must keep what is in it")
        self.mode = mode
        currentPath = path
    }
}
