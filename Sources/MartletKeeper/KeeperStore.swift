package import MartletBasics
package import MartletReactor

/// The keeper's directory, read and repaired at the start. All of it blocks: for a lane.
///
/// What must hold afterwards: the tree is that of the newest good snapshot and every record behind it, without a gap;
/// every transaction that was acknowledged is among them; what was cut was never acknowledged.
package struct KeeperStore: Sendable {
    package let disk: any Disk
    package let directory: String
    package let logger: Logger

    package init(disk: any Disk, directory: String, logger: Logger) {
        self.disk = disk
        self.directory = directory
        self.logger = logger
    }

    package struct Recovered: Sendable {
        package var tree: KeeperTree
        /// Of the snapshot it began with; zero without one.
        package var snapshot: Zxid
        package var replayed: Int
    }

    struct Listing {
        /// Both by rising zxid.
        var snapshots: [Zxid] = []
        var logs: [Zxid] = []
        var unfinished: [String] = []
    }

    func path(_ name: String) -> String { directory + "/" + name }

    func list() throws(SystemError) -> Listing {
        var listing = Listing()
        for name in try disk.list(directory) {
            if name.hasSuffix(".tmp") { listing.unfinished.append(name) }
            if name.hasPrefix("snapshot."), let zxid = Zxid(hexadecimal: name.dropFirst(9)) {
                listing.snapshots.append(zxid)
            }
            if name.hasPrefix("log."), let zxid = Zxid(hexadecimal: name.dropFirst(4)) { listing.logs.append(zxid) }
        }
        listing.snapshots.sort()
        listing.logs.sort()
        return listing
    }

    /// Makes the directory, and its own name durable: without that, a power cut takes it with all that was synced
    /// inside.
    func makeDirectory() throws(SystemError) {
        try disk.makeDirectory(directory)
        var path = directory[...]
        while path != "/", path != "." {
            let slash = path.lastIndex(of: "/")
            path = slash.map { $0 == path.startIndex ? "/" : path[..<$0] } ?? "."
            do throws(SystemError) {
                try disk.syncDirectory(String(path))
            } catch {
                // a folder that we may not read is none that was made for this one
                if error.kind != .permissionDenied { throw error }
            }
        }
    }

    package func recover() throws(KeeperError) -> Recovered {
        let listing: Listing
        do throws(SystemError) {
            listing = try list()
            for name in listing.unfinished { try disk.remove(path(name)) }
        } catch { throw .disk("the keeper's directory cannot be used", error) }

        var recovered = try newestSnapshot(of: listing)
        // a file may be skipped if the one after it begins at or before the snapshot
        var firstNeeded = 0
        while firstNeeded + 1 < listing.logs.count, listing.logs[firstNeeded + 1] <= recovered.snapshot {
            firstNeeded += 1
        }
        for index in listing.logs.indices.dropFirst(firstNeeded) {
            try replay(listing.logs[index], isLast: index == listing.logs.count - 1, into: &recovered)
        }
        logger.info(
            "the coordination tree is loaded", ("zxid", "\(recovered.tree.lastZxid)"),
            ("snapshot", "\(recovered.snapshot)"),
            ("replayed", "\(recovered.replayed)"), ("nodes", "\(recovered.tree.nodeCount)"))
        return recovered
    }

    private func newestSnapshot(of listing: Listing) throws(KeeperError) -> Recovered {
        for zxid in listing.snapshots.reversed() {
            let path = path(KeeperSnapshot.name(zxid))
            let result = try contents(path).withUnsafeBytes { KeeperSnapshot.decode($0, named: zxid) }
            switch result {
            case .success(let tree): return Recovered(tree: tree, snapshot: zxid, replayed: 0)
            case .failure(let fault):
                logger.error(
                    "a snapshot is damaged and set aside; an older one and the log behind it are read instead",
                    ("file", path), ("why", fault.reason))
                do throws(SystemError) {
                    try disk.rename(path, to: path + ".damaged")
                    try disk.syncDirectory(directory)
                } catch { throw .disk("a damaged snapshot cannot be set aside", error) }
            }
        }
        return Recovered(tree: KeeperTree(), snapshot: .zero, replayed: 0)
    }

    private func contents(_ path: String) throws(KeeperError) -> [UInt8] {
        do throws(SystemError) {
            guard let bytes = try disk.contents(path) else {
                throw SystemError(.notFound, code: 2, operation: "open", subject: path, reason: "no such file")
            }
            return bytes
        } catch { throw .disk("the keeper's directory cannot be read", error) }
    }

    private func replay(_ first: Zxid, isLast: Bool, into recovered: inout Recovered) throws(KeeperError) {
        let path = path(KeeperLog.name(first))
        let bytes = try contents(path)
        let read = bytes.withUnsafeBytes { KeeperLog.read($0, named: first) }
        switch read.end {
        case .clean: break
        case .damaged(_, let why): throw .damaged(path, why)
        case .torn where !isLast:
            throw .damaged(path, "it ends badly at byte \(read.goodSize), and a newer file exists")
        case .torn: break
        }
        if isLast, first <= recovered.snapshot, (read.records.last?.zxid ?? .zero) < recovered.snapshot {
            throw .damaged(path, "it ends before the transaction \(recovered.snapshot), of which there is a snapshot")
        }
        for record in read.records where record.zxid > recovered.tree.lastZxid {
            let last = recovered.tree.lastZxid
            if record.zxid != last.next {
                // only the opening of the tree begins an epoch, and it says what it found
                guard case .boot(_, let after) = record.transaction, after == last, record.zxid == last.firstOfNextEpoch
                else { throw .damaged(path, "the transactions between \(last) and \(record.zxid) are missing") }
            }
            _ = recovered.tree.apply(record.transaction, zxid: record.zxid, time: record.time)
            recovered.replayed += 1
        }
        if isLast { try settle(path, bytes, read) }
    }

    /// Makes what was read of the last file what the disk holds, before anything is built upon it. What follows the
    /// last good record goes. The rest is written anew: the process before may have ended between a write and its
    /// sync, or because a sync failed, and then the page cache shows bytes that the disk does not have, and that
    /// another sync of the same file would not write.
    private func settle(_ path: String, _ bytes: [UInt8], _ read: KeeperLog.Contents) throws(KeeperError) {
        if read.end == .torn {
            logger.warning(
                "the end of the keeper's log was never synced and is cut; nothing of it was acknowledged",
                ("file", path),
                ("kept", "\(read.goodSize)"), ("cut", "\(bytes.count - read.goodSize)"))
        }
        do throws(SystemError) {
            if read.records.isEmpty {
                try disk.remove(path)
                try disk.syncDirectory(directory)
            } else {
                try disk.replace(path, with: Array(bytes[..<read.goodSize]))
            }
        } catch { throw .disk("the end of the keeper's log cannot be made durable", error) }
    }

    /// Writes a snapshot and then drops what it and its `keeping - 1` predecessors make superfluous.
    func write(snapshot bytes: [UInt8], at zxid: Zxid, keeping: Int) throws(SystemError) {
        try disk.replace(path(KeeperSnapshot.name(zxid)), with: bytes)
        let listing = try list()
        guard listing.snapshots.count >= keeping else { return }
        let kept = listing.snapshots.suffix(keeping)
        for old in listing.snapshots.dropLast(kept.count) { try disk.remove(path(KeeperSnapshot.name(old))) }
        // a log is needed unless the next begins right behind the oldest snapshot, or before
        let oldest = kept.first!
        for (log, following) in zip(listing.logs, listing.logs.dropFirst()) where following <= oldest.next {
            try disk.remove(path(KeeperLog.name(log)))
        }
        try disk.syncDirectory(directory)
    }
}
