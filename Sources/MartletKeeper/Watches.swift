/// What a watch tells. A watch says that something changed, not what it is now: who wants to know reads again.
package struct WatchEvent: Equatable, Sendable {
    /// ZooKeeper's numbers.
    package enum Kind: Int32, Sendable {
        case nodeCreated = 1
        case nodeDeleted = 2
        case nodeDataChanged = 3
        case nodeChildrenChanged = 4
    }

    package var kind: Kind
    package var path: String
    /// The transaction that made the change.
    package var zxid: Zxid

    package init(_ kind: Kind, _ path: String, _ zxid: Zxid) {
        self.kind = kind
        self.path = path
        self.zxid = zxid
    }
}

/// How a watch that reading does not set lives; ZooKeeper's numbers.
package enum AddWatchMode: Int32, Sendable {
    /// Tells of every change of the node and of its list of children, until it is removed.
    case persistent = 0
    /// Tells of every creation, deletion and change of data of the node and all below it. Never `nodeChildrenChanged`.
    case persistentRecursive = 1
}

/// Which watches of a path are meant when some are removed; ZooKeeper's numbers.
package enum WatchKind: Int32, Sendable {
    case children = 1
    case data = 2
    case any = 3
    case persistent = 4
    case persistentRecursive = 5
}

/// Which session watches what: the keeper's side of watches. It is not part of the tree: it lives with the process
/// that serves the sessions, and is neither logged nor replicated.
///
/// A session is told of one change of one node once, however many watches of it match; whom it tells of it is the
/// session's own business (`WatcherRegistry`).
package struct WatchTable: Sendable {
    private enum Slot: Int { case data, children, persistent, recursive }

    private var data: [NodePath: Set<Int64>] = [:]
    private var children: [NodePath: Set<Int64>] = [:]
    private var persistent: [NodePath: Set<Int64>] = [:]
    private var recursive: [NodePath: Set<Int64>] = [:]
    /// What each session watches, to end it with the session.
    private var bySession: [Int64: [Set<NodePath>]] = [:]
    package private(set) var count = 0

    package init() {}

    /// One-shot: set by reading the data, or by asking whether the node exists (it need not).
    package mutating func watchData(_ path: NodePath, _ session: Int64) { insert(.data, path, session) }
    /// One-shot: set by reading the children.
    package mutating func watchChildren(_ path: NodePath, _ session: Int64) { insert(.children, path, session) }

    package mutating func add(_ path: NodePath, _ mode: AddWatchMode, _ session: Int64) {
        switch mode {
        case .persistent: insert(.persistent, path, session)
        case .persistentRecursive: insert(.recursive, path, session)
        }
    }

    /// Whether there was one to remove.
    package mutating func remove(_ path: NodePath, _ kind: WatchKind, _ session: Int64) -> Bool {
        let slots: [Slot] =
            switch kind {
            case .children: [.children]
            case .data: [.data]
            case .persistent: [.persistent]
            case .persistentRecursive: [.recursive]
            case .any: [.data, .children, .persistent, .recursive]
            }
        var removed = false
        for slot in slots where take(slot, path, session) { removed = true }
        return removed
    }

    package mutating func removeAll(of session: Int64) {
        for (index, paths) in (bySession[session] ?? []).enumerated() {
            for path in paths { _ = take(Slot(rawValue: index)!, path, session) }
        }
        bySession[session] = nil
    }

    /// Who is told of a change, in this order: for each event, sessions by rising id. One-shot watches that match are
    /// gone afterwards.
    package mutating func trigger(_ change: NodeChange, _ zxid: Zxid) -> [(session: Int64, event: WatchEvent)] {
        if count == 0 { return [] }
        var told: [(session: Int64, event: WatchEvent)] = []
        let path = change.path
        var watching = takeAll(.data, path)
        watching.formUnion(persistent[path] ?? [])
        if !recursive.isEmpty {
            var ancestor: NodePath? = path
            while let at = ancestor {
                watching.formUnion(recursive[at] ?? [])
                ancestor = at.parent
            }
        }
        let kind: WatchEvent.Kind
        switch change.kind {
        case .dataChanged: kind = .nodeDataChanged
        case .created: kind = .nodeCreated
        case .deleted:
            kind = .nodeDeleted
            // one who watches the children of a deleted node hears that it is deleted, once
            watching.formUnion(takeAll(.children, path))
        }
        let event = WatchEvent(kind, path.string, zxid)
        for session in watching.sorted() { told.append((session, event)) }
        guard change.kind != .dataChanged, let parent = path.parent else { return told }
        let ofParent = takeAll(.children, parent).union(persistent[parent] ?? [])
        let childrenEvent = WatchEvent(.nodeChildrenChanged, parent.string, zxid)
        for session in ofParent.sorted() { told.append((session, childrenEvent)) }
        return told
    }

    // MARK: Slots

    private func sessions(_ slot: Slot, _ path: NodePath) -> Set<Int64> {
        switch slot {
        case .data: data[path] ?? []
        case .children: children[path] ?? []
        case .persistent: persistent[path] ?? []
        case .recursive: recursive[path] ?? []
        }
    }

    private mutating func change(_ slot: Slot, _ path: NodePath, _ body: (inout Set<Int64>) -> Void) {
        func change(_ table: inout [NodePath: Set<Int64>]) {
            body(&table[path, default: []])
            if table[path]!.isEmpty { table[path] = nil }
        }
        switch slot {
        case .data: change(&data)
        case .children: change(&children)
        case .persistent: change(&persistent)
        case .recursive: change(&recursive)
        }
    }

    private mutating func insert(_ slot: Slot, _ path: NodePath, _ session: Int64) {
        var inserted = false
        change(slot, path) { inserted = $0.insert(session).inserted }
        guard inserted else { return }
        count += 1
        bySession[session, default: [[], [], [], []]][slot.rawValue].insert(path)
    }

    private mutating func take(_ slot: Slot, _ path: NodePath, _ session: Int64) -> Bool {
        var removed = false
        change(slot, path) { removed = $0.remove(session) != nil }
        guard removed else { return false }
        count -= 1
        bySession[session]?[slot.rawValue].remove(path)
        return true
    }

    private mutating func takeAll(_ slot: Slot, _ path: NodePath) -> Set<Int64> {
        let all = sessions(slot, path)
        for session in all { _ = take(slot, path, session) }
        return all
    }
}

/// Somebody inside the process who wants to know of changes. One watcher may watch many nodes; it is told of one
/// change once.
package final class Watcher: Sendable {
    let handle: @Sendable (WatchEvent) -> Void

    /// The closure is called on the loop of the session, in the order of zxids, before any answer that shows a later
    /// state.
    package init(_ handle: @escaping @Sendable (WatchEvent) -> Void) { self.handle = handle }
}

/// Whom a session tells of an event: a session's own side of watches, the same whether the keeper is in the process
/// or not. Watchers are told in the order in which they were registered.
package struct WatcherRegistry: Sendable {
    private var data: [NodePath: [Watcher]] = [:]
    private var children: [NodePath: [Watcher]] = [:]
    private var persistent: [NodePath: [Watcher]] = [:]
    private var recursive: [NodePath: [Watcher]] = [:]

    package init() {}

    package mutating func watchData(_ path: NodePath, _ watcher: Watcher) {
        Self.add(watcher, to: &data[path, default: []])
    }
    package mutating func watchChildren(_ path: NodePath, _ watcher: Watcher) {
        Self.add(watcher, to: &children[path, default: []])
    }
    package mutating func add(_ path: NodePath, _ mode: AddWatchMode, _ watcher: Watcher) {
        switch mode {
        case .persistent: Self.add(watcher, to: &persistent[path, default: []])
        case .persistentRecursive: Self.add(watcher, to: &recursive[path, default: []])
        }
    }

    /// Removes one watcher, or all, of the path. Whether there was one, and the kinds of which none is left.
    package mutating func remove(
        _ path: NodePath, _ kind: WatchKind, _ watcher: Watcher?
    ) -> (removed: Bool, ended: [WatchKind]) {
        var result = (removed: false, ended: [WatchKind]())
        func take(_ kind: WatchKind, _ table: inout [NodePath: [Watcher]]) {
            guard let all = table[path] else { return }
            let kept = watcher.map { gone in all.filter { $0 !== gone } } ?? []
            if kept.count < all.count { result.removed = true }
            table[path] = kept.isEmpty ? nil : kept
            if kept.isEmpty { result.ended.append(kind) }
        }
        if kind == .data || kind == .any { take(.data, &data) }
        if kind == .children || kind == .any { take(.children, &children) }
        if kind == .persistent || kind == .any { take(.persistent, &persistent) }
        if kind == .persistentRecursive || kind == .any { take(.persistentRecursive, &recursive) }
        return result
    }

    /// Who is told of this event; one-shot watches that match are gone afterwards.
    package mutating func watchers(of event: WatchEvent) -> [Watcher] {
        let path = NodePath(event.path)
        var told: [Watcher] = []
        func tell(_ watchers: [Watcher]?) {
            for watcher in watchers ?? [] { Self.add(watcher, to: &told) }
        }
        if event.kind != .nodeChildrenChanged { tell(data.removeValue(forKey: path)) }
        if event.kind == .nodeChildrenChanged || event.kind == .nodeDeleted { tell(children.removeValue(forKey: path)) }
        tell(persistent[path])
        if event.kind != .nodeChildrenChanged, !recursive.isEmpty {
            var ancestor: NodePath? = path
            while let at = ancestor {
                tell(recursive[at])
                ancestor = at.parent
            }
        }
        return told
    }

    private static func add(_ watcher: Watcher, to watchers: inout [Watcher]) {
        if !watchers.contains(where: { $0 === watcher }) { watchers.append(watcher) }
    }
}
