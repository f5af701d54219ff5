package import MartletBasics

/// One change that a session asks for.
package enum KeeperOperation: Equatable, Sendable {
    case create(path: String, data: [UInt8]?, acl: [ACL], mode: CreateMode)
    /// Version -1 takes any.
    case delete(path: String, version: Int32)
    case setData(path: String, data: [UInt8]?, version: Int32)
    case setACL(path: String, acl: [ACL], version: Int32)
    case check(path: String, version: Int32)

    package var path: String {
        switch self {
        case .create(let path, _, _, _), .delete(let path, _), .setData(let path, _, _), .setACL(let path, _, _),
            .check(let path, _):
            path
        }
    }
}

/// What became of one operation.
package enum OperationResult: Equatable, Sendable {
    case created(path: String, stat: Stat)
    case deleted
    case set(stat: Stat)
    case checked
    /// In a `multi` of which one operation failed; see `KeeperError.operations`.
    case failed(KeeperErrorCode)
}

/// A session as the tree knows it.
package struct SessionRecord: Equatable, Sendable {
    package var id: Int64
    package var timeoutMilliseconds: Int32
    /// What a client shows to take its session to another connection; empty for a session inside the process.
    package var password: [UInt8]
    /// The process that the session lives in; 0 for one of a client over the network, which may outlive us.
    package var boot: UInt64

    package init(id: Int64, timeoutMilliseconds: Int32, password: [UInt8], boot: UInt64) {
        self.id = id
        self.timeoutMilliseconds = timeoutMilliseconds
        self.password = password
        self.boot = boot
    }
}

/// What is proposed, written to the log, and applied to the tree, in one order everywhere. It holds what was asked,
/// not what came of it: what comes of it is decided when it is applied, from the tree before it alone, so every
/// replica decides the same.
package enum KeeperTransaction: Equatable, Sendable {
    /// A process has opened the tree, which stood at `after`: sessions that lived inside another process end.
    case boot(id: UInt64, after: Zxid)
    case createSession(SessionRecord)
    case closeSession(id: Int64, expired: Bool)
    case operation(session: Int64, KeeperOperation)
    case multi(session: Int64, [KeeperOperation])
}

// MARK: The bytes of a transaction
//
//   kind i8, then
//     1 boot           id u64, after i64
//     2 createSession  id i64, timeout i32, boot u64, password bytes
//     3 closeSession   id i64, expired i8
//     4 operation      session i64, operation
//     5 multi          session i64, count uvarint, operations
//   operation: kind i8, path string, then
//     1 create   mode i8, acl, data     2 delete   version i32           3 setData  version i32, data
//     4 setACL   version i32, acl       5 check    version i32
//   string: size uvarint, UTF-8      bytes: size uvarint, bytes      data: size + 1 as uvarint (0: null), bytes
//   acl: count uvarint, each: permissions i32, scheme string, id string

extension KeeperTransaction {
    package func encode(into buffer: inout ByteBuffer) {
        switch self {
        case .boot(let id, let after):
            buffer.integer(UInt8(1))
            buffer.integer(id)
            buffer.integer(after.rawValue)
        case .createSession(let session):
            buffer.integer(UInt8(2))
            session.encode(into: &buffer)
        case .closeSession(let id, let expired):
            buffer.integer(UInt8(3))
            buffer.integer(id)
            buffer.bool(expired)
        case .operation(let session, let operation):
            buffer.integer(UInt8(4))
            buffer.integer(session)
            operation.encode(into: &buffer)
        case .multi(let session, let operations):
            buffer.integer(UInt8(5))
            buffer.integer(session)
            buffer.uvarint(UInt32(operations.count))
            for operation in operations { operation.encode(into: &buffer) }
        }
    }

    package init(from reader: inout ByteReader) throws(DecodingFault) {
        let start = reader.position
        switch try reader.int8() {
        case 1: self = .boot(id: try reader.integer(), after: Zxid(rawValue: try reader.int64()))
        case 2: self = .createSession(try SessionRecord(from: &reader))
        case 3: self = .closeSession(id: try reader.int64(), expired: try reader.bool())
        case 4:
            let session = try reader.int64()
            self = .operation(session: session, try KeeperOperation(from: &reader))
        case 5:
            let session = try reader.int64()
            let count = try reader.count()
            var operations: [KeeperOperation] = []
            operations.reserveCapacity(count)
            for _ in 0..<count { operations.append(try KeeperOperation(from: &reader)) }
            self = .multi(session: session, operations)
        default: throw .malformed("a kind of transaction that is not known", at: start)
        }
    }
}

extension KeeperOperation {
    func encode(into buffer: inout ByteBuffer) {
        switch self {
        case .create(let path, let data, let acl, let mode):
            buffer.kind(1, path)
            buffer.integer(mode.rawValue)
            buffer.accessList(acl)
            buffer.data(data)
        case .delete(let path, let version):
            buffer.kind(2, path)
            buffer.integer(version)
        case .setData(let path, let data, let version):
            buffer.kind(3, path)
            buffer.integer(version)
            buffer.data(data)
        case .setACL(let path, let acl, let version):
            buffer.kind(4, path)
            buffer.integer(version)
            buffer.accessList(acl)
        case .check(let path, let version):
            buffer.kind(5, path)
            buffer.integer(version)
        }
    }

    init(from reader: inout ByteReader) throws(DecodingFault) {
        let start = reader.position
        let kind = try reader.int8()
        let path = try reader.text()
        switch kind {
        case 1:
            guard let mode = CreateMode(rawValue: try reader.integer()) else {
                throw .malformed("a mode of creation that is not known", at: start)
            }
            let acl = try reader.accessList()
            self = .create(path: path, data: try reader.data(), acl: acl, mode: mode)
        case 2: self = .delete(path: path, version: try reader.int32())
        case 3:
            let version = try reader.int32()
            self = .setData(path: path, data: try reader.data(), version: version)
        case 4:
            let version = try reader.int32()
            self = .setACL(path: path, acl: try reader.accessList(), version: version)
        case 5: self = .check(path: path, version: try reader.int32())
        default: throw .malformed("a kind of operation that is not known", at: start)
        }
    }
}

extension SessionRecord {
    func encode(into buffer: inout ByteBuffer) {
        buffer.integer(id)
        buffer.integer(timeoutMilliseconds)
        buffer.integer(boot)
        buffer.uvarint(UInt32(password.count))
        buffer.append(password)
    }

    init(from reader: inout ByteReader) throws(DecodingFault) {
        id = try reader.int64()
        timeoutMilliseconds = try reader.int32()
        boot = try reader.integer()
        let range = try reader.range(Int(try reader.uvarint()))
        password = [UInt8](reader.bytes(in: range))
    }
}

extension ByteBuffer {
    fileprivate mutating func kind(_ kind: UInt8, _ path: String) {
        integer(kind)
        text(path)
    }

    mutating func text(_ string: String) {
        uvarint(UInt32(string.utf8.count))
        append(utf8: string)
    }

    mutating func data(_ data: [UInt8]?) {
        guard let data else { return uvarint(0) }
        uvarint(UInt32(data.count + 1))
        append(data)
    }

    mutating func accessList(_ list: [ACL]) {
        uvarint(UInt32(list.count))
        for entry in list {
            integer(entry.permissions)
            text(entry.scheme)
            text(entry.id)
        }
    }
}

extension ByteReader {
    /// The count of things that each take at least one byte.
    mutating func count() throws(DecodingFault) -> Int {
        let start = position
        let count = Int(try uvarint())
        guard count <= remaining else { throw .impossibleLength(at: start) }
        return count
    }

    mutating func text() throws(DecodingFault) -> String {
        let start = position
        let range = try self.range(Int(try uvarint()))
        guard let string = String(validating: bytes(in: range), as: UTF8.self) else {
            throw .malformedString(at: start)
        }
        return string
    }

    mutating func data() throws(DecodingFault) -> [UInt8]? {
        let size = Int(try uvarint())
        guard size > 0 else { return nil }
        let range = try self.range(size - 1)
        return [UInt8](bytes(in: range))
    }

    mutating func accessList() throws(DecodingFault) -> [ACL] {
        let count = try self.count()
        var list: [ACL] = []
        list.reserveCapacity(count)
        for _ in 0..<count {
            let permissions = try int32()
            let scheme = try text()
            list.append(ACL(permissions: permissions, scheme: scheme, id: try text()))
        }
        // nearly every node has this list: they share one array
        return list == ACL.open ? ACL.open : list
    }
}
