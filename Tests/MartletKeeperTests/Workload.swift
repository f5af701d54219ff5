import MartletBasics
import MartletKeeper

/// Random operations on a few paths, so that they meet.
struct Workload {
    var random: SeededRandom
    private let paths = ["/a", "/b", "/a/x", "/a/y", "/b/x", "/a/x/1", "/b/x/2"]

    init(seed: UInt64) { random = SeededRandom(seed: seed &+ 0x10AD) }

    mutating func operations() -> [KeeperOperation] {
        (0..<(random.chance(1, in: 3) ? 2 + random.below(4) : 1)).map { _ in operation() }
    }

    private mutating func operation() -> KeeperOperation {
        let path = paths[random.below(paths.count)]
        let version: Int32 = random.chance(1, in: 2) ? -1 : Int32(random.below(3))
        let size = random.chance(1, in: 8) ? random.below(5000) : random.below(200)
        let data = random.chance(1, in: 5) ? nil : (0..<size).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        switch random.below(10) {
        case 0...4:
            return .create(path: path, data: data, acl: ACL.open, mode: CreateMode(rawValue: UInt8(random.below(3)))!)
        case 5...6: return .setData(path: path, data: data, version: version)
        case 7...8: return .delete(path: path, version: version)
        default: return .check(path: path, version: version)
        }
    }
}

/// What the tree should hold, written a second time as simply as can be: a dictionary of paths that is copied for
/// every transaction.
struct Model {
    struct Node: Equatable {
        var data: [UInt8]?
        var version: Int32 = 0
        var isEphemeral: Bool
        var creations = 0
    }

    var nodes: [String: Node] = ["": Node(isEphemeral: false)]

    mutating func apply(_ operations: [KeeperOperation]) {
        let before = nodes
        for operation in operations where !perform(operation) {
            nodes = before
            return
        }
    }

    private func hasChildren(_ path: String) -> Bool { nodes.keys.contains { $0.hasPrefix(path + "/") } }

    private mutating func perform(_ operation: KeeperOperation) -> Bool {
        switch operation {
        case .create(let asked, let data, _, let mode):
            let parent = String(asked[..<asked.lastIndex(of: "/")!])
            guard let above = nodes[parent], !above.isEphemeral else { return false }
            let digits = String(above.creations)
            let path = mode.isSequential ? asked + String(repeating: "0", count: 10 - digits.count) + digits : asked
            guard nodes[path] == nil else { return false }
            nodes[path] = Node(data: data, isEphemeral: mode.isEphemeral)
            nodes[parent]!.creations += 1
        case .setData(let path, let data, let version):
            guard let node = nodes[path], version == -1 || version == node.version else { return false }
            nodes[path]!.data = data
            nodes[path]!.version += 1
        case .delete(let path, let version):
            guard let node = nodes[path], version == -1 || version == node.version, !hasChildren(path) else {
                return false
            }
            nodes[path] = nil
        case .check(let path, let version):
            guard let node = nodes[path], version == -1 || version == node.version else { return false }
        case .setACL: return false
        }
        return true
    }

    mutating func endSessions() { nodes = nodes.filter { !$0.value.isEphemeral } }

    /// Everything it holds, as text.
    var text: String {
        nodes.map { path, node in
            path.isEmpty
                ? "/ \(node.creations)"
                : "\(path) \(node.creations) \(node.version) \(node.isEphemeral) \(node.data.map { "\($0)" } ?? "null")"
        }.sorted().joined(separator: "\n")
    }
}

extension KeeperTree {
    /// The same text of a tree.
    var text: String {
        func creations(_ stat: Stat) -> Int32 { (stat.cversion + stat.numChildren) / 2 }
        var lines = ["/ \(creations(stat(.root)!))"]
        func visit(_ path: NodePath) {
            for name in try! children(path).names {
                let child = path.child(NodePath(name))
                if child.string == "/zookeeper" { continue }
                let (data, stat) = try! self.data(child)
                lines.append(
                    "\(child) \(creations(stat)) \(stat.version) \(stat.ephemeralOwner != 0) \(data.map { "\($0)" } ?? "null")"
                )
                visit(child)
            }
        }
        visit(.root)
        return lines.sorted().joined(separator: "\n")
    }
}
