/// What happened to a node, in the order in which ZooKeeper tells it.
package struct NodeChange: Equatable, Sendable {
    package enum Kind: Sendable { case created, deleted, dataChanged }
    package var kind: Kind
    package var path: NodePath

    package init(_ kind: Kind, _ path: NodePath) {
        self.kind = kind
        self.path = path
    }
}

/// What applying one transaction came to.
package struct Applied: Equatable, Sendable {
    package var zxid: Zxid
    /// The code of the first thing that failed; `ok` where the transaction was carried out.
    package var code = KeeperErrorCode.ok
    /// One for each operation; empty for transactions of sessions.
    package var results: [OperationResult] = []
    /// Empty where the transaction was refused.
    package var changes: [NodeChange] = []
    /// The sessions that ended, in order.
    package var closedSessions: [Int64] = []
}

/// The tree of nodes and the table of sessions: a value that only `apply` changes, and that one list of transactions
/// always brings to the same state, on every machine. It knows no clock, no watch, no disk.
///
/// What must hold, and is asserted where it is cheap:
/// - every node but the root has a parent that lists it, and an ephemeral node has no children;
/// - every ephemeral node is listed by its session, which exists;
/// - zxids only rise; a transaction that is refused changes nothing but the last zxid.
package struct KeeperTree: Sendable {
    struct Node: Equatable, Sendable {
        var data: [UInt8]?
        var acl: [ACL]
        var czxid: Zxid
        var mzxid: Zxid
        var pzxid: Zxid
        var ctime: Int64
        var mtime: Int64
        var version: Int32 = 0
        var aversion: Int32 = 0
        /// How many children were ever created: the number of the next sequential one.
        var creations: Int32 = 0
        var ephemeralOwner: Int64 = 0
        /// Names, sorted by their bytes.
        var children: [NodePath] = []

        init(data: [UInt8]?, acl: [ACL], zxid: Zxid, time: Int64, owner: Int64 = 0) {
            self.data = data
            self.acl = acl
            czxid = zxid
            mzxid = zxid
            pzxid = zxid
            ctime = time
            mtime = time
            ephemeralOwner = owner
        }

        var stat: Stat {
            // creations are counted, removals follow from what is left: together the changes that clients see
            let count = Int32(children.count)
            return Stat(
                czxid: czxid, mzxid: mzxid, pzxid: pzxid, ctime: ctime, mtime: mtime, version: version,
                cversion: creations &* 2 &- count, aversion: aversion, ephemeralOwner: ephemeralOwner,
                dataLength: Int32(data?.count ?? 0), numChildren: count)
        }
    }

    struct Session: Sendable {
        var record: SessionRecord
        var ephemerals: Set<NodePath> = []
    }

    /// Nodes that every ZooKeeper has, and that nobody may delete.
    private static let reserved = ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"].map { NodePath($0) }

    var nodes: [NodePath: Node]
    var sessions: [Int64: Session] = [:]
    package internal(set) var lastZxid = Zxid.zero
    /// About what the nodes take of memory: each by `cost`.
    package internal(set) var bytes = 0

    /// A tree as a new ZooKeeper has it.
    package init() {
        nodes = [:]
        for path in Self.reserved {
            nodes[path] = Node(
                data: [], acl: path == Self.reserved[2] ? ACL.readOnly : ACL.open, zxid: .zero, time: 0)
            if let parent = path.parent { nodes[parent]!.children.append(path.name) }
        }
    }

    static func cost(_ pathSize: Int, _ data: [UInt8]?) -> Int { 256 + 2 * pathSize + (data?.count ?? 0) }

    package var nodeCount: Int { nodes.count }
    package var sessionCount: Int { sessions.count }

    // MARK: Reading

    package func contains(_ path: NodePath) -> Bool { nodes[path] != nil }
    package func stat(_ path: NodePath) -> Stat? { nodes[path]?.stat }

    package func data(_ path: NodePath) throws(KeeperErrorCode) -> (data: [UInt8]?, stat: Stat) {
        guard let node = nodes[path] else { throw .noNode }
        return (node.data, node.stat)
    }

    /// The names, sorted by their bytes.
    package func children(_ path: NodePath) throws(KeeperErrorCode) -> (names: [String], stat: Stat) {
        guard let node = nodes[path] else { throw .noNode }
        return (node.children.map(\.string), node.stat)
    }

    package func acl(_ path: NodePath) throws(KeeperErrorCode) -> (acl: [ACL], stat: Stat) {
        guard let node = nodes[path] else { throw .noNode }
        return (node.acl, node.stat)
    }

    package func session(_ id: Int64) -> SessionRecord? { sessions[id]?.record }

    /// All sessions, sorted by their identifiers.
    package var sessionRecords: [SessionRecord] { sessions.values.map(\.record).sorted { $0.id < $1.id } }

    /// The paths of a session's ephemeral nodes, oldest first.
    package func ephemerals(of session: Int64) -> [NodePath] {
        guard let paths = sessions[session]?.ephemerals else { return [] }
        return paths.sorted { a, b in
            let (first, second) = (nodes[a]!.czxid, nodes[b]!.czxid)
            return first == second ? a < b : first < second
        }
    }

    // MARK: Changing

    /// Carries out a transaction; all of it or, where an operation fails, nothing.
    package mutating func apply(_ transaction: KeeperTransaction, zxid: Zxid, time: Int64) -> Applied {
        precondition(zxid > lastZxid, "transactions are applied in the order of their zxids")
        lastZxid = zxid
        var step = Step(zxid: zxid, time: time)
        var applied = Applied(zxid: zxid)
        switch transaction {
        case .boot(let id, _):
            let former = sessionRecords.filter { $0.boot != 0 && $0.boot != id }
            for session in former { close(session.id, &step, &applied) }
        case .createSession(let record):
            if sessions[record.id] != nil || record.id == 0 {
                applied.code = .badArguments
            } else {
                sessions[record.id] = Session(record: record)
            }
        case .closeSession(let id, _):
            if sessions[id] == nil { applied.code = .sessionExpired } else { close(id, &step, &applied) }
        case .operation(let session, let operation):
            perform([operation], of: session, &step, &applied)
        case .multi(let session, let operations):
            perform(operations, of: session, &step, &applied)
        }
        if applied.code == .ok { applied.changes = step.changes }
        return applied
    }

    private mutating func close(_ id: Int64, _ step: inout Step, _ applied: inout Applied) {
        for path in ephemerals(of: id) { remove(path, &step) }
        sessions[id] = nil
        applied.closedSessions.append(id)
    }

    private mutating func perform(
        _ operations: [KeeperOperation], of session: Int64, _ step: inout Step, _ applied: inout Applied
    ) {
        guard sessions[session] != nil else { return fail(0, of: operations.count, .sessionExpired, &applied) }
        step.session = session
        applied.results.reserveCapacity(operations.count)
        for (index, operation) in operations.enumerated() {
            do throws(KeeperErrorCode) {
                applied.results.append(try perform(operation, &step))
            } catch {
                for former in step.former.reversed() { restore(former) }
                return fail(index, of: operations.count, error, &applied)
            }
        }
    }

    /// The shape in which ZooKeeper answers a failed `multi`.
    private func fail(_ index: Int, of count: Int, _ code: KeeperErrorCode, _ applied: inout Applied) {
        applied.code = code
        applied.results = (0..<count).map {
            .failed($0 < index ? .ok : $0 == index ? code : .runtimeInconsistency)
        }
    }
}

// MARK: Operations

extension KeeperTree {
    /// What one transaction carries along while it is applied.
    struct Step {
        var zxid: Zxid
        var time: Int64
        var session: Int64 = 0
        var changes: [NodeChange] = []
        /// How to take back what was done, should a later operation fail.
        var former: [Former] = []

        init(zxid: Zxid, time: Int64) {
            self.zxid = zxid
            self.time = time
        }
    }

    /// What a node was before an operation.
    enum Former {
        case absent(NodePath, parentPzxid: Zxid)
        case present(NodePath, Node, parentPzxid: Zxid)
        case data(NodePath, [UInt8]?, mzxid: Zxid, mtime: Int64, version: Int32)
        case acl(NodePath, [ACL], aversion: Int32)
    }

    private mutating func perform(
        _ operation: KeeperOperation, _ step: inout Step
    ) throws(KeeperErrorCode) -> OperationResult {
        switch operation {
        case .create(let path, let data, let acl, let mode): return try create(path, data, acl, mode, &step)
        case .delete(let path, let version): return try delete(try valid(path), version, &step)
        case .setData(let path, let data, let version): return try setData(try valid(path), data, version, &step)
        case .setACL(let path, let acl, let version): return try setACL(try valid(path), acl, version, &step)
        case .check(let path, let version):
            let path = try valid(path)
            guard let node = nodes[path] else { throw .noNode }
            try match(version, node.version)
            return .checked
        }
    }

    private func valid(_ path: String) throws(KeeperErrorCode) -> NodePath {
        guard NodePath.fault(in: path) == nil else { throw .badArguments }
        return NodePath(path)
    }

    private func match(_ expected: Int32, _ current: Int32) throws(KeeperErrorCode) {
        if expected != -1, expected != current { throw .badVersion }
    }

    /// -1 means "any" where a version is asked for, so no node ever has it.
    private func successor(of version: Int32) -> Int32 { version == -2 ? 0 : version &+ 1 }

    private mutating func create(
        _ asked: String, _ data: [UInt8]?, _ acl: [ACL], _ mode: CreateMode, _ step: inout Step
    ) throws(KeeperErrorCode) -> OperationResult {
        guard !acl.isEmpty else { throw .invalidACL }
        // "/queue/" is a fine path for a sequential node: the number is its name
        guard NodePath.fault(in: mode.isSequential ? asked + "1" : asked) == nil else { throw .badArguments }
        if asked == "/", !mode.isSequential { throw .nodeExists }
        let parentPath = NodePath(asked).parent ?? .root
        guard let parent = nodes[parentPath] else { throw .noNode }
        let path = mode.isSequential ? NodePath(asked + Self.sequence(parent.creations)) : NodePath(asked)
        if nodes[path] != nil { throw .nodeExists }
        if parent.ephemeralOwner != 0 { throw .noChildrenForEphemerals }
        step.former.append(.absent(path, parentPzxid: parent.pzxid))

        let node = Node(
            data: data, acl: acl, zxid: step.zxid, time: step.time, owner: mode.isEphemeral ? step.session : 0)
        insert(path, node, under: parentPath)
        nodes[parentPath]!.creations &+= 1
        nodes[parentPath]!.pzxid = step.zxid
        step.changes.append(NodeChange(.created, path))
        return .created(path: path.string, stat: node.stat)
    }

    /// Ten digits, as `%010d` gives them, also past the largest number, where ZooKeeper's counter turns negative.
    private static func sequence(_ number: Int32) -> String {
        let digits = String(number.magnitude)
        let sign = number < 0 ? "-" : ""
        return sign + String(repeating: "0", count: max(0, 10 - sign.utf8.count - digits.utf8.count)) + digits
    }

    private mutating func delete(
        _ path: NodePath, _ version: Int32, _ step: inout Step
    ) throws(KeeperErrorCode) -> OperationResult {
        if Self.isReserved(path) { throw .badArguments }
        guard let node = nodes[path] else { throw .noNode }
        try match(version, node.version)
        if !node.children.isEmpty { throw .notEmpty }
        remove(path, &step)
        return .deleted
    }

    static func isReserved(_ path: NodePath) -> Bool { reserved.contains(path) }

    private mutating func remove(_ path: NodePath, _ step: inout Step) {
        guard let node = nodes[path], let parentPath = path.parent, let parent = nodes[parentPath] else {
            preconditionFailure("a node that is removed exists, and has a parent")
        }
        step.former.append(.present(path, node, parentPzxid: parent.pzxid))
        take(path, from: parentPath)
        nodes[parentPath]!.pzxid = step.zxid
        step.changes.append(NodeChange(.deleted, path))
    }

    private mutating func setData(
        _ path: NodePath, _ data: [UInt8]?, _ version: Int32, _ step: inout Step
    ) throws(KeeperErrorCode) -> OperationResult {
        guard let node = nodes[path] else { throw .noNode }
        try match(version, node.version)
        step.former.append(.data(path, node.data, mzxid: node.mzxid, mtime: node.mtime, version: node.version))
        replaceData(of: path, with: data)
        nodes[path]!.mzxid = step.zxid
        nodes[path]!.mtime = step.time
        nodes[path]!.version = successor(of: node.version)
        step.changes.append(NodeChange(.dataChanged, path))
        return .set(stat: nodes[path]!.stat)
    }

    private mutating func setACL(
        _ path: NodePath, _ acl: [ACL], _ version: Int32, _ step: inout Step
    ) throws(KeeperErrorCode) -> OperationResult {
        guard let node = nodes[path] else { throw .noNode }
        guard !acl.isEmpty else { throw .invalidACL }
        try match(version, node.aversion)
        step.former.append(.acl(path, node.acl, aversion: node.aversion))
        nodes[path]!.acl = acl
        nodes[path]!.aversion = successor(of: node.aversion)
        return .set(stat: nodes[path]!.stat)
    }

    private mutating func restore(_ former: Former) {
        switch former {
        case .absent(let path, let parentPzxid):
            let parent = path.parent!
            take(path, from: parent)
            nodes[parent]!.creations &-= 1
            nodes[parent]!.pzxid = parentPzxid
        case .present(let path, let node, let parentPzxid):
            insert(path, node, under: path.parent!)
            nodes[path.parent!]!.pzxid = parentPzxid
        case .data(let path, let data, let mzxid, let mtime, let version):
            replaceData(of: path, with: data)
            nodes[path]!.mzxid = mzxid
            nodes[path]!.mtime = mtime
            nodes[path]!.version = version
        case .acl(let path, let acl, let aversion):
            nodes[path]!.acl = acl
            nodes[path]!.aversion = aversion
        }
    }

    // MARK: Nodes and the lists that name them

    func position(of name: NodePath, in names: [NodePath]) -> (index: Int, found: Bool) {
        var low = 0
        var high = names.count
        while low < high {
            let middle = (low + high) / 2
            if names[middle] < name { low = middle + 1 } else { high = middle }
        }
        return (low, low < names.count && names[low] == name)
    }

    private mutating func replaceData(of path: NodePath, with data: [UInt8]?) {
        bytes += (data?.count ?? 0) - (nodes[path]!.data?.count ?? 0)
        nodes[path]!.data = data
    }

    private mutating func insert(_ path: NodePath, _ node: Node, under parent: NodePath) {
        let name = path.name
        let (index, found) = position(of: name, in: nodes[parent]!.children)
        precondition(!found, "a parent lists a child once")
        nodes[parent]!.children.insert(name, at: index)
        nodes[path] = node
        bytes += Self.cost(path.string.utf8.count, node.data)
        if node.ephemeralOwner != 0 { sessions[node.ephemeralOwner]!.ephemerals.insert(path) }
    }

    private mutating func take(_ path: NodePath, from parent: NodePath) {
        let (index, found) = position(of: path.name, in: nodes[parent]!.children)
        precondition(found, "a parent lists its child")
        nodes[parent]!.children.remove(at: index)
        let node = nodes.removeValue(forKey: path)!
        precondition(node.children.isEmpty, "a node with children stays")
        bytes -= Self.cost(path.string.utf8.count, node.data)
        if node.ephemeralOwner != 0 { sessions[node.ephemeralOwner]!.ephemerals.remove(path) }
    }
}
