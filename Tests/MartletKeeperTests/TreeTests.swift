import MartletBasics
import MartletKeeper
import Testing

/// A tree with one session, which counts zxids by itself.
private struct Tree {
    var tree = KeeperTree()
    var zxid = Zxid(epoch: 1, counter: 0)

    init() { _ = apply(.createSession(SessionRecord(id: 7, timeoutMilliseconds: 6000, password: [], boot: 1))) }

    mutating func apply(_ transaction: KeeperTransaction) -> Applied {
        zxid = zxid.next
        return tree.apply(transaction, zxid: zxid, time: 1000 + Int64(zxid.counter))
    }

    mutating func create(_ path: String, _ mode: CreateMode = .persistent, data: [UInt8]? = nil, session: Int64 = 7)
        -> Applied
    {
        apply(.operation(session: session, .create(path: path, data: data, acl: ACL.open, mode: mode)))
    }

    mutating func code(_ operation: KeeperOperation) -> KeeperErrorCode {
        apply(.operation(session: 7, operation)).code
    }
    func stat(_ path: String) -> Stat? { tree.stat(NodePath(path)) }
    func children(_ path: String) -> [String] { (try? tree.children(NodePath(path)).names) ?? [] }
}

private func create(_ path: String, _ data: [UInt8]? = nil, _ mode: CreateMode = .persistent) -> KeeperOperation {
    .create(path: path, data: data, acl: ACL.open, mode: mode)
}

@Suite struct TreeSemantics {
    @Test func aNewTreeIsAsANewZooKeeperShowsIt() {
        let tree = Tree()
        #expect(tree.children("/") == ["zookeeper"])
        #expect(tree.children("/zookeeper") == ["config", "quota"])
        #expect(tree.stat("/")?.cversion == -1)
        #expect(tree.stat("/zookeeper")?.cversion == -2)
    }

    @Test func aNodeTellsWhoMadeItAndWhen() {
        var tree = Tree()
        _ = tree.create("/a", data: [1, 2, 3])
        let made = tree.zxid
        #expect(
            tree.stat("/a")
                == Stat(
                    czxid: made, mzxid: made, pzxid: made, ctime: 1002, mtime: 1002, version: 0, cversion: 0,
                    aversion: 0,
                    ephemeralOwner: 0, dataLength: 3, numChildren: 0))
        #expect(tree.code(.setData(path: "/a", data: nil, version: 0)) == .ok)
        #expect(tree.stat("/a")?.mzxid == tree.zxid)
        #expect(tree.stat("/a")?.mtime == 1003)
        #expect(tree.stat("/a")?.version == 1)
        #expect(tree.stat("/a")?.czxid == made)
        #expect(tree.stat("/a")?.dataLength == 0)
    }

    @Test func nullAndEmptyDataAreNotTheSame() throws {
        var tree = Tree()
        _ = tree.create("/null", data: nil)
        _ = tree.create("/empty", data: [])
        #expect(try tree.tree.data(NodePath("/null")).data == nil)
        #expect(try tree.tree.data(NodePath("/empty")).data == [])
    }

    @Test func sequentialNumbersCountCreationsNotChildren() {
        var tree = Tree()
        _ = tree.create("/q")
        #expect(
            tree.create("/q/n-", .persistentSequential).results == [
                .created(path: "/q/n-0000000000", stat: tree.stat("/q/n-0000000000")!)
            ])
        _ = tree.create("/q/plain")
        _ = tree.create("/q/", .persistentSequential)
        #expect(tree.children("/q") == ["0000000002", "n-0000000000", "plain"])
        _ = tree.code(.delete(path: "/q/0000000002", version: -1))
        _ = tree.create("/q/m-", .ephemeralSequential)
        #expect(tree.children("/q").contains("m-0000000003"), "a deleted child's number is never given again")
        // four creations and one deletion
        #expect(tree.stat("/q")?.cversion == 5)
        #expect(tree.stat("/q")?.numChildren == 3)
    }

    @Test func aRefusedCreationTakesNoNumber() {
        var tree = Tree()
        _ = tree.create("/q")
        let refused = tree.apply(
            .multi(session: 7, [create("/q/a-", nil, .persistentSequential), .check(path: "/none", version: -1)]))
        #expect(refused.code == .noNode)
        _ = tree.create("/q/a-", .persistentSequential)
        #expect(tree.children("/q") == ["a-0000000000"])
    }

    @Test func whatCannotBeCreatedSaysWhy() {
        var tree = Tree()
        _ = tree.create("/a")
        _ = tree.create("/e", .ephemeral)
        #expect(tree.create("/a").code == .nodeExists)
        #expect(tree.create("/").code == .nodeExists)
        #expect(tree.create("/x/y").code == .noNode)
        #expect(tree.create("/e/child").code == .noChildrenForEphemerals)
        #expect(tree.create("/b", session: 8).code == .sessionExpired)
        #expect(tree.code(.create(path: "/b", data: nil, acl: [], mode: .persistent)) == .invalidACL)
        for path in [
            "", "a", "/a/", "/a//b", "/a/./b", "/a/..", "/.", "/a\u{0}", "/a\u{1}b", "/\u{80}", "/\u{E000}",
            "/\u{FFF5}", "/😀",
        ] {
            #expect(tree.create(path).code == .badArguments, "\(path)")
        }
        for path in ["/...", "/.a", "/a.", "/..a", "/é", "/<default>", "/\u{1F}", "/\u{9F}"] {
            #expect(tree.create(path).code == .ok, "\(path)")
        }
    }

    @Test func namesThatLookAlikeAreDifferentNodes() {
        var tree = Tree()
        #expect(tree.create("/\u{E9}").code == .ok)
        #expect(tree.create("/e\u{301}").code == .ok, "one é of two code points, one of one")
    }

    @Test func aNodeWithChildrenOrAnotherVersionStays() {
        var tree = Tree()
        _ = tree.create("/a")
        _ = tree.create("/a/b")
        #expect(tree.code(.delete(path: "/a", version: -1)) == .notEmpty)
        #expect(tree.code(.delete(path: "/a/b", version: 3)) == .badVersion)
        #expect(tree.code(.setData(path: "/a", data: [1], version: 3)) == .badVersion)
        #expect(tree.code(.check(path: "/a", version: 1)) == .badVersion)
        #expect(tree.code(.check(path: "/a", version: 0)) == .ok)
        #expect(tree.code(.delete(path: "/none", version: -1)) == .noNode)
        #expect(tree.code(.delete(path: "/", version: -1)) == .badArguments)
        #expect(tree.code(.delete(path: "/zookeeper/quota", version: -1)) == .badArguments)
        #expect(tree.code(.delete(path: "/a/b", version: 0)) == .ok)
        #expect(tree.stat("/a")?.pzxid == tree.zxid, "a parent remembers the last change of its children")
        #expect(tree.code(.delete(path: "/a", version: 0)) == .ok, "children do not change a node's data version")
    }

    @Test func accessListsHaveAVersionOfTheirOwn() throws {
        var tree = Tree()
        _ = tree.create("/a")
        #expect(tree.code(.setACL(path: "/a", acl: ACL.readOnly, version: 0)) == .ok)
        #expect(tree.code(.setACL(path: "/a", acl: ACL.open, version: 0)) == .badVersion)
        #expect(try tree.tree.acl(NodePath("/a")).acl == ACL.readOnly)
        #expect(tree.stat("/a")?.aversion == 1)
        #expect(tree.stat("/a")?.version == 0)
    }

    @Test func ephemeralNodesEndWithTheirSessionInTheOrderOfTheirCreation() {
        var tree = Tree()
        _ = tree.create("/p")
        _ = tree.create("/p/z", .ephemeral)
        _ = tree.create("/p/a", .ephemeral)
        _ = tree.create("/p/stays")
        let closed = tree.apply(.closeSession(id: 7, expired: true))
        #expect(closed.changes == [NodeChange(.deleted, NodePath("/p/z")), NodeChange(.deleted, NodePath("/p/a"))])
        #expect(closed.closedSessions == [7])
        #expect(tree.children("/p") == ["stays"])
        #expect(tree.create("/late").code == .sessionExpired)
        #expect(tree.apply(.closeSession(id: 7, expired: false)).code == .sessionExpired)
    }

    @Test func aNewProcessEndsTheSessionsInsideTheFormerOneAndNoOthers() {
        var tree = Tree()
        _ = tree.apply(.createSession(SessionRecord(id: 8, timeoutMilliseconds: 6000, password: [1], boot: 0)))
        _ = tree.create("/broker", .ephemeral)
        _ = tree.create("/remote", .ephemeral, session: 8)
        #expect(tree.apply(.boot(id: 2, after: tree.zxid)).closedSessions == [7])
        #expect(tree.children("/") == ["remote", "zookeeper"])
    }
}

@Suite struct Multi {
    @Test func allOfItHappensUnderOneZxid() {
        var tree = Tree()
        let applied = tree.apply(
            .multi(
                session: 7,
                [
                    create("/ids"), create("/ids/1", nil, .ephemeral), .setData(path: "/ids/1", data: [9], version: 0),
                    .check(path: "/ids/1", version: 1),
                ]))
        #expect(applied.code == .ok)
        #expect(tree.stat("/ids/1")?.version == 1)
        #expect(tree.stat("/ids/1")?.czxid == tree.stat("/ids")?.czxid)
        #expect(applied.changes.map(\.kind) == [.created, .created, .dataChanged])
    }

    @Test func aFailureLeavesEverythingAsItWasAndTellsEachOperationsCode() {
        var tree = Tree()
        _ = tree.create("/a", data: [1])
        _ = tree.create("/a/child", .ephemeral)
        let before = tree.tree
        let applied = tree.apply(
            .multi(
                session: 7,
                [
                    create("/b"), create("/b/c", nil, .ephemeralSequential),
                    .setData(path: "/a", data: [2], version: 0),
                    .setACL(path: "/a", acl: ACL.readOnly, version: -1), .delete(path: "/a/child", version: -1),
                    .delete(path: "/a", version: 1), create("/a", [3]), .setData(path: "/a", data: [4], version: 5),
                    create("/d"),
                ]))
        #expect(applied.code == .badVersion)
        #expect(
            applied.results
                == [
                    .failed(.ok), .failed(.ok), .failed(.ok), .failed(.ok), .failed(.ok), .failed(.ok), .failed(.ok),
                    .failed(.badVersion), .failed(.runtimeInconsistency),
                ])
        #expect(applied.changes.isEmpty)
        var undone = before
        _ = undone.apply(.closeSession(id: 99, expired: false), zxid: tree.zxid, time: 0)
        #expect(tree.tree.digest == undone.digest, "only the last zxid has moved")
        #expect(tree.tree.ephemerals(of: 7) == [NodePath("/a/child")])
    }
}

@Suite struct Bytes {
    @Test func aTransactionIsReadBackAsItWasWritten() throws {
        let transactions: [KeeperTransaction] = [
            .boot(id: .max, after: Zxid(epoch: 3, counter: 9)),
            .createSession(SessionRecord(id: -5, timeoutMilliseconds: 6000, password: [1, 2], boot: 3)),
            .closeSession(id: 4, expired: true),
            .operation(session: 1, create("/é", nil, .ephemeralSequential)),
            .multi(
                session: 1,
                [
                    create("/a", []), .delete(path: "/b", version: 3), .setData(path: "/c", data: [0], version: -1),
                    .setACL(path: "/d", acl: [ACL(permissions: 1, scheme: "digest", id: "u:p")], version: 2),
                    .check(path: "/e", version: 0),
                ]),
        ]
        for transaction in transactions {
            var buffer = ByteBuffer()
            transaction.encode(into: &buffer)
            var reader = ByteReader(buffer.bytes)
            #expect(try KeeperTransaction(from: &reader) == transaction)
            #expect(reader.isAtEnd)
            for size in 0..<buffer.count {
                var short = ByteReader(UnsafeRawBufferPointer(rebasing: buffer.bytes[..<size]))
                #expect(throws: DecodingFault.self) { try KeeperTransaction(from: &short) }
            }
        }
    }

    @Test(arguments: 0..<20 as Range<UInt64>) func theSameTransactionsGiveTheSameTreeAlsoThroughASnapshot(seed: UInt64)
        throws
    {
        var workload = Workload(seed: seed)
        var one = KeeperTree()
        var other = KeeperTree()
        var zxid = Zxid(epoch: 1, counter: 0)
        for session: Int64 in 1...3 {
            zxid = zxid.next
            let made = KeeperTransaction.createSession(
                SessionRecord(id: session, timeoutMilliseconds: 1, password: [], boot: 0))
            _ = one.apply(made, zxid: zxid, time: 0)
            _ = other.apply(made, zxid: zxid, time: 0)
        }
        for number in 0..<200 {
            zxid = zxid.next
            let operations = workload.operations()
            let transaction: KeeperTransaction =
                operations.count == 1
                ? .operation(session: Int64(number % 3) + 1, operations[0])
                : .multi(session: Int64(number % 3) + 1, operations)
            #expect(one.apply(transaction, zxid: zxid, time: 5) == other.apply(transaction, zxid: zxid, time: 5))
            if number % 50 == 0 {
                var buffer = ByteBuffer()
                other.encode(into: &buffer)
                var reader = ByteReader(buffer.bytes)
                other = try KeeperTree(from: &reader)
            }
        }
        #expect(one.digest == other.digest)
        #expect(one.bytes == other.bytes)
        #expect(one.nodeCount > 4)
    }
}
