package import MartletBasics

// The tree as bytes: the body of a snapshot. Equal trees give equal bytes, so it is also what two replicas compare.
//
//   last zxid i64
//   sessions: count u32, each (by rising id) id i64, timeout i32, boot u64, password (size uvarint, bytes)
//   nodes: count u32, each (by path; a parent so comes before its children)
//     path string · data · acl · czxid mzxid pzxid i64 · ctime mtime i64 · version aversion creations i32 · owner i64
//
// Strings, data and access lists as in a transaction. Names of children are not written: paths tell them.

extension KeeperTree {
    package func encode(into buffer: inout ByteBuffer) {
        buffer.integer(lastZxid.rawValue)
        buffer.integer(UInt32(sessions.count))
        for record in sessionRecords { record.encode(into: &buffer) }
        buffer.integer(UInt32(nodes.count))
        for path in nodes.keys.sorted() {
            let node = nodes[path]!
            buffer.text(path.string)
            buffer.data(node.data)
            buffer.accessList(node.acl)
            buffer.integer(node.czxid.rawValue)
            buffer.integer(node.mzxid.rawValue)
            buffer.integer(node.pzxid.rawValue)
            buffer.integer(node.ctime)
            buffer.integer(node.mtime)
            buffer.integer(node.version)
            buffer.integer(node.aversion)
            buffer.integer(node.creations)
            buffer.integer(node.ephemeralOwner)
        }
    }

    /// Reads what `encode` wrote, and refuses bytes that say anything a tree cannot be.
    package init(from reader: inout ByteReader) throws(DecodingFault) {
        nodes = [:]
        lastZxid = Zxid(rawValue: try reader.int64())
        guard lastZxid >= .zero else { throw .malformed("a negative zxid", at: 0) }
        for _ in 0..<(try reader.uint32()) {
            let start = reader.position
            let record = try SessionRecord(from: &reader)
            guard sessions[record.id] == nil else { throw .malformed("a session that is there twice", at: start) }
            sessions[record.id] = Session(record: record)
        }
        for _ in 0..<(try reader.uint32()) { try readNode(from: &reader) }
        guard reader.isAtEnd else { throw .malformed("bytes after the last node", at: reader.position) }
        for path in KeeperTree().nodes.keys where nodes[path] == nil {
            throw .malformed("a tree without the nodes that every tree has", at: reader.position)
        }
    }

    private mutating func readNode(from reader: inout ByteReader) throws(DecodingFault) {
        let start = reader.position
        let text = try reader.text()
        guard NodePath.fault(in: text) == nil else { throw .malformed("a path that no node can have", at: start) }
        let path = NodePath(text)
        guard nodes[path] == nil else { throw .malformed("a node that is there twice", at: start) }
        let data = try reader.data()
        var node = Node(data: data, acl: try reader.accessList(), zxid: .zero, time: 0)
        node.czxid = Zxid(rawValue: try reader.int64())
        node.mzxid = Zxid(rawValue: try reader.int64())
        node.pzxid = Zxid(rawValue: try reader.int64())
        node.ctime = try reader.int64()
        node.mtime = try reader.int64()
        node.version = try reader.int32()
        node.aversion = try reader.int32()
        node.creations = try reader.int32()
        node.ephemeralOwner = try reader.int64()
        if let parentPath = path.parent {
            guard let parent = nodes[parentPath], parent.ephemeralOwner == 0 else {
                throw .malformed("a node without a parent that may have children", at: start)
            }
            guard parent.children.last.map({ $0 < path.name }) ?? true else {
                throw .malformed("nodes that are not in the order of their paths", at: start)
            }
            nodes[parentPath]!.children.append(path.name)
        }
        nodes[path] = node
        // those that every tree has count with their data only
        bytes += Self.isReserved(path) ? node.data?.count ?? 0 : Self.cost(path.string.utf8.count, node.data)
        guard node.ephemeralOwner != 0 else { return }
        guard sessions[node.ephemeralOwner] != nil else {
            throw .malformed("an ephemeral node of a session that is not there", at: start)
        }
        sessions[node.ephemeralOwner]!.ephemerals.insert(path)
    }

    /// A short name for this very state.
    package var digest: UInt32 {
        var buffer = ByteBuffer(capacity: 4096)
        encode(into: &buffer)
        return crc32c(buffer.bytes)
    }
}
