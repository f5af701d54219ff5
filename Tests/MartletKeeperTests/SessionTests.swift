import MartletBasics
import MartletKeeper
import MartletReactor
import MartletSimulation
import Testing

private let timeout = Interval.seconds(6)

private func create(_ path: String, _ data: [UInt8]? = nil, _ mode: CreateMode = .persistent) -> KeeperOperation {
    .create(path: path, data: data, acl: ACL.open, mode: mode)
}

@Suite struct Sessions {
    @Test func aSessionCreatesReadsChangesAndDeletes() {
        World().run { world in
            let session: any KeeperSession = try await world.openKeeper().openSession(timeout: timeout, on: world.loop)
            let made = try await session.create("/a", [1])
            #expect(made.path == "/a")
            #expect(try await session.get("/a").stat == made.stat)
            let changed = try await session.set("/a", nil, version: 0)
            #expect(changed.version == 1, "\(changed)")
            #expect(try await session.get("/a").data == nil)
            _ = try await session.create("/a/é", [])
            _ = try await session.create("/a/b-", nil, .persistentSequential)
            #expect(try await session.children("/a").names == ["b-0000000001", "é"])
            #expect(try await session.exists("/none") == nil)
            #expect(await refusal { try await session.get("/none") } == .noNode)
            #expect(await refusal { try await session.get("none") } == .badArguments)
            #expect(await refusal { try await session.delete("/a") } == .notEmpty)
            try await session.delete("/a/é", version: 0)
            #expect(try await session.acl("/a").acl == ACL.open)
        }
    }

    @Test func aReadComesBehindItsOwnSessionsWritesThoughTheyAreNotDurableYet() {
        World().run { world in
            let session = try await world.openKeeper().openSession(timeout: timeout, on: world.loop)
            let seen = Record<String>()
            session.propose(create("/a", [1])) { _ in seen.add("created") }
            session.propose(.setData(path: "/a", data: [2], version: 0)) { _ in seen.add("set") }
            session.read(.data(path: "/a"), watch: nil) {
                if case .success(.data(let data, _)) = $0 { seen.add("read \(data!)") }
            }
            #expect(seen.all.isEmpty, "nothing is answered before it is durable")
            try await session.sync()
            #expect(seen.all == ["created", "set", "read [2]"])
        }
    }

    @Test func aReadBehindASyncComesBehindWhatOthersWroteBeforeIt() {
        World().run { world in
            let keeper = try await world.openKeeper()
            let session = try await keeper.openSession(timeout: timeout, on: world.loop)
            let other = try await keeper.openSession(timeout: timeout, on: world.loop)
            let seen = Record<String>()
            other.propose(create("/a")) { _ in seen.add("created") }
            session.sync("/a") { _ in seen.add("synced") }
            session.read(.exists(path: "/a"), watch: nil) {
                if case .success(.exists(let stat)) = $0 { seen.add(stat == nil ? "absent" : "there") }
            }
            try await session.sync()
            #expect(seen.all == ["created", "synced", "there"])
        }
    }

    @Test func theTreesBytesAreBoundedAndComeBackWithWhatIsDeleted() {
        World().run { world in
            let keeper = try await world.openKeeper { $0.limits.treeBytes = 10_000 }
            let session = try await keeper.openSession(timeout: timeout, on: world.loop)
            let empty = keeper.snapshot.bytes
            let data = [UInt8](repeating: 1, count: 4_000)
            _ = try await session.create("/a", data)
            _ = try await session.create("/b", data)
            #expect(await refusal { try await session.create("/c", data) } == .quotaExceeded)
            #expect(await refusal { try await session.set("/b", data) } == .quotaExceeded)
            #expect(
                await refusal {
                    try await session.multi([.delete(path: "/b", version: -1), create("/b"), create("/b")])
                } == .nodeExists)
            try await session.delete("/b")
            _ = try await session.create("/c", data)
            _ = try await session.set("/c", nil)
            try await session.delete("/c")
            try await session.delete("/a")
            #expect(keeper.snapshot.bytes == empty)
        }
    }

    @Test func whatIsProposedInOneTurnIsOneSync() {
        let world = World()
        world.run { world in
            let session = try await world.openKeeper().openSession(timeout: timeout, on: world.loop)
            world.files.fail(.sync, with: .inputOutput, skip: 1)
            for number in 0..<100 { session.propose(create("/\(number)")) { _ in } }
            try await session.sync()
            #expect(await refusal { try await session.create("/a", nil) } == .connectionLoss)
        }
    }

    @Test func anEphemeralNodeGoesWhenItsSessionIsClosed() {
        World().run { world in
            let keeper = try await world.openKeeper()
            let broker = try await keeper.openSession(timeout: timeout, on: world.loop)
            let other = try await keeper.openSession(timeout: timeout, on: world.loop)
            #expect(try await broker.create("/controller", nil, .ephemeral).stat.ephemeralOwner == broker.id)
            let told = Record<String>()
            _ = try await other.exists("/controller", watch: other.recorder(told))
            await broker.close()
            #expect(told.all == ["nodeDeleted /controller"])
            #expect(broker.state == .closed)
            #expect(try await other.exists("/controller") == nil)
            #expect(await refusal { try await broker.get("/") } == .sessionExpired)
            await broker.close()
        }
    }

    @Test func aSessionThatIsNotHeardOfExpires() {
        let world = World()
        world.run { world in
            let keeper = try await world.openKeeper()
            let silent = try await keeper.openSession(timeout: timeout, on: world.loop, heartbeats: false)
            let alive = try await keeper.openSession(timeout: timeout, on: world.loop)
            _ = try await silent.create("/silent", nil, .ephemeral)
            _ = try await alive.create("/alive", nil, .ephemeral)
            let states = Record<KeeperSessionState>()
            silent.onStateChange = { states.add($0) }
            for _ in 0..<5 {
                await world.sleep(.seconds(5))
                silent.touch()
            }
            #expect(states.all.isEmpty, "a touch within the timeout keeps it")
            await world.sleep(.seconds(5))
            #expect(states.all.isEmpty)
            await world.sleep(.seconds(2))
            #expect(states.all == [.expired])
            #expect(try await alive.children("/").names == ["alive", "zookeeper"])
            #expect(await refusal { try await silent.create("/x", nil) } == .sessionExpired)
        }
    }

    @Test func timeInWhichTheKeeperItselfStoodStillDoesNotCount() {
        var deadlines = SessionDeadlines(tick: .milliseconds(500))
        func at(_ milliseconds: Int64) -> Instant { Instant(nanoseconds: milliseconds * 1_000_000) }
        deadlines.track(1, timeout: .seconds(6), now: at(0))
        #expect(deadlines.due(now: at(500)).isEmpty)
        #expect(deadlines.due(now: at(60_000)).isEmpty, "the machine slept for a minute")
        #expect(deadlines.due(now: at(60_500)).isEmpty)
        for tick in 0..<8 { #expect(deadlines.due(now: at(61_000 + Int64(tick) * 500)).isEmpty) }
        #expect(deadlines.due(now: at(65_000)) == [1])
        #expect(deadlines.due(now: at(66_500)).isEmpty, "an expired session is told once")
    }

    @Test func aSessionOnAnotherLoopIsAnsweredThereAndInOrder() {
        let world = World(loops: 2)
        world.run { world in
            let keeper = try await world.openKeeper()
            let other = world.host.loops[1]
            let session = try await keeper.openSession(timeout: timeout, on: other)
            let seen = Record<String>()
            @Sendable func note(_ what: String) { seen.add(other.isCurrent ? what : "\(what) on the wrong loop") }
            let watcher = Watcher { note("told \($0.path)") }
            other.execute {
                session.read(.exists(path: "/a"), watch: watcher) { _ in note("exists") }
                session.propose(create("/a")) { _ in note("created") }
                session.read(.data(path: "/a"), watch: nil) { _ in note("read") }
            }
            await world.sleep(.seconds(60))
            #expect(seen.all == ["exists", "told /a", "created", "read"])
            #expect(session.state == .connected, "its loop turns, so it lives")
        }
    }

    @Test func aFailedMultiTellsEachOperationsCode() {
        World().run { world in
            let session = try await world.openKeeper().openSession(timeout: timeout, on: world.loop)
            do throws(KeeperError) {
                _ = try await session.multi([create("/a"), .check(path: "/epoch", version: 3), create("/b")])
                Issue.record("the check must fail")
            } catch {
                #expect(error.code == .noNode)
                #expect(error.operations == [.ok, .noNode, .runtimeInconsistency])
            }
            #expect(try await session.children("/").names == ["zookeeper"])
            #expect(try await session.multi([]).isEmpty)
        }
    }

    @Test func aBrokerRegistersAndIsElectedAsKafkaDoesIt() {
        World().run { world in
            let keeper = try await world.openKeeper()
            let session = try await keeper.openSession(timeout: timeout, on: world.loop)
            let rival = try await keeper.openSession(timeout: timeout, on: world.loop)
            for path in ["/brokers", "/brokers/ids"] { _ = try await session.create(path, nil) }
            _ = try await session.create("/controller_epoch", [UInt8]("0".utf8))
            let registered = try await session.multi([
                create("/brokers/ids/1", nil, .ephemeral),
                .setData(path: "/brokers/ids/1", data: [UInt8]("{}".utf8), version: 0),
            ])
            guard case .set(let stat) = registered[1] else { throw KeeperError(.systemError, "no stat") }
            #expect(stat.version == 1)
            #expect(try await session.exists("/brokers/ids/1")?.czxid == stat.czxid)
            func elect() -> [KeeperOperation] {
                [
                    create("/controller", nil, .ephemeral),
                    .setData(path: "/controller_epoch", data: [UInt8]("1".utf8), version: 0),
                ]
            }
            _ = try await session.multi(elect())
            #expect(await refusal { try await rival.multi(elect()) } == .nodeExists)
            #expect(
                await refusal {
                    try await rival.multi([.check(path: "/controller_epoch", version: 0), create("/x")])
                } == .badVersion)
        }
    }

    @Test func whatIsTooLargeOrTooMuchIsRefusedBeforeItIsWritten() {
        World().run { world in
            let keeper = try await world.openKeeper {
                $0.limits.nodes = 6
                $0.limits.sessions = 2
                $0.limits.watches = 1
                $0.limits.waitingTransactions = 4
            }
            let session = try await keeper.openSession(timeout: timeout, on: world.loop)
            _ = try await keeper.openSession(timeout: timeout, on: world.loop)
            #expect(await refusal { try await keeper.openSession(timeout: timeout, on: world.loop) } == .quotaExceeded)
            let zxid = keeper.lastZxid
            let large = [UInt8](repeating: 0, count: 0x10_0000)
            #expect(await refusal { try await session.create("/a", large) } == .badArguments)
            #expect(
                await refusal {
                    try await session.multi([
                        create("/a", Array(large.dropFirst())), create("/b", Array(large.dropFirst())),
                    ])
                } == .badArguments)
            #expect(
                await refusal {
                    try await session.multi([create("/a"), create("/b"), create("/c")])
                } == .quotaExceeded)
            let codes = Record<KeeperErrorCode>()
            for _ in 0..<6 {
                session.propose(.check(path: "/", version: -1)) {
                    if case .failure(let error) = $0 { codes.add(error.code) }
                }
            }
            #expect(codes.all == [.throttledOp, .throttledOp])
            try await session.sync()
            #expect(keeper.lastZxid == Zxid(rawValue: zxid.rawValue + 4))
            let watcher = Watcher { _ in }
            _ = try await session.exists("/a", watch: watcher)
            #expect(await refusal { try await session.exists("/b", watch: watcher) } == .quotaExceeded)
        }
    }

    @Test func afterAFailedSyncNothingIsAnsweredAsDone() {
        World().run { world in
            let keeper = try await world.openKeeper()
            let session = try await keeper.openSession(timeout: timeout, on: world.loop)
            let fatal = Record<KeeperErrorCode>()
            let states = Record<KeeperSessionState>()
            keeper.onFatal = { fatal.add($0.code) }
            session.onStateChange = { states.add($0) }
            world.files.fail(.sync, with: .inputOutput)
            let codes = Record<KeeperErrorCode?>()
            let zxid = keeper.lastZxid
            session.propose(create("/a")) {
                if case .failure(let error) = $0 { codes.add(error.code) } else { codes.add(nil) }
            }
            #expect(await refusal { try await session.get("/a") } == .connectionLoss)
            #expect(await refusal { try await session.create("/b", nil) } == .connectionLoss)
            #expect(codes.all == [.connectionLoss])
            #expect(fatal.all == [.systemError])
            #expect(states.all == [.suspended])
            #expect(keeper.lastZxid == zxid)
        }
    }
}

@Suite struct Watches {
    /// A keeper with two sessions: one that watches, one that changes things.
    private func withTwo(
        _ body:
            @escaping @Sendable (_ watching: EmbeddedSession, _ changing: EmbeddedSession, Record<String>) async throws
            -> Void
    ) {
        World().run { world in
            let keeper = try await world.openKeeper()
            let watching = try await keeper.openSession(timeout: timeout, on: world.loop)
            try await body(watching, try await keeper.openSession(timeout: timeout, on: world.loop), Record())
        }
    }

    @Test func aWatchSetByReadingIsToldOnce() {
        withTwo { watching, changing, told in
            _ = try await changing.create("/a", nil)
            _ = try await watching.get("/a", watch: watching.recorder(told))
            _ = try await changing.set("/a", [1])
            _ = try await changing.set("/a", [2])
            #expect(told.all == ["nodeDataChanged /a"])
        }
    }

    @Test func aWatchOnANodeThatIsNotThereHearsOfItsCreation() {
        withTwo { watching, changing, told in
            let watcher = watching.recorder(told)
            #expect(try await watching.exists("/a", watch: watcher) == nil)
            #expect(await refusal { try await watching.get("/b", watch: watcher) } == .noNode)
            _ = try await changing.create("/a", nil)
            _ = try await changing.create("/b", nil)
            #expect(told.all == ["nodeCreated /a"], "reading the data of nothing leaves no watch")
        }
    }

    @Test func aWatchOnChildrenDoesNotHearOfData() {
        withTwo { watching, changing, told in
            _ = try await changing.create("/a", nil)
            _ = try await watching.children("/a", watch: watching.recorder(told))
            _ = try await changing.set("/a", [1])
            #expect(told.all.isEmpty)
            _ = try await changing.create("/a/b", nil)
            _ = try await changing.delete("/a/b")
            #expect(told.all == ["nodeChildrenChanged /a"])
            _ = try await watching.children("/a", watch: watching.recorder(told))
            _ = try await changing.delete("/a")
            #expect(told.all == ["nodeChildrenChanged /a", "nodeDeleted /a"])
        }
    }

    @Test func oneWatcherOfDataAndChildrenHearsOfADeletionOnce() {
        withTwo { watching, changing, told in
            _ = try await changing.create("/a", nil)
            let watcher = watching.recorder(told)
            _ = try await watching.get("/a", watch: watcher)
            _ = try await watching.exists("/a", watch: watcher)
            _ = try await watching.children("/a", watch: watcher)
            _ = try await watching.children("/", watch: watcher)
            _ = try await changing.delete("/a")
            #expect(told.all == ["nodeDeleted /a", "nodeChildrenChanged /"])
        }
    }

    @Test func aPersistentWatchStays() {
        withTwo { watching, changing, told in
            try await watching.addWatch("/a", .persistent, watching.recorder(told))
            _ = try await changing.create("/a", nil)
            _ = try await changing.set("/a", [1])
            _ = try await changing.create("/a/b", nil)
            _ = try await changing.set("/a/b", [1])
            _ = try await changing.delete("/a/b")
            _ = try await changing.delete("/a")
            #expect(
                told.all == [
                    "nodeCreated /a", "nodeDataChanged /a", "nodeChildrenChanged /a", "nodeChildrenChanged /a",
                    "nodeDeleted /a",
                ])
        }
    }

    @Test func aRecursiveWatchHearsOfAllBelowAndNeverOfChildren() {
        withTwo { watching, changing, told in
            try await watching.addWatch("/a", .persistentRecursive, watching.recorder(told))
            _ = try await changing.create("/a", nil)
            _ = try await changing.create("/a/b", nil)
            _ = try await changing.create("/a/b/c", nil)
            _ = try await changing.create("/ab", nil)
            _ = try await changing.set("/a/b/c", [1])
            _ = try await changing.delete("/a/b/c")
            #expect(
                told.all == [
                    "nodeCreated /a", "nodeCreated /a/b", "nodeCreated /a/b/c", "nodeDataChanged /a/b/c",
                    "nodeDeleted /a/b/c",
                ])
        }
    }

    @Test func aWatchThatIsRemovedIsSilent() {
        withTwo { watching, changing, told in
            let one = watching.recorder(told)
            let other = watching.recorder(told)
            _ = try await watching.exists("/a", watch: one)
            _ = try await watching.exists("/a", watch: other)
            try await watching.removeWatch("/a", .data, one)
            #expect(await refusal { try await watching.removeWatch("/a", .data, one) } == .noWatcher)
            #expect(await refusal { try await watching.removeWatch("/a", .children, nil) } == .noWatcher)
            _ = try await changing.create("/a", nil)
            #expect(told.all == ["nodeCreated /a"], "the other one still watches")
            try await watching.addWatch("/a", .persistent, one)
            try await watching.removeWatch("/a", .any)
            _ = try await changing.set("/a", [1])
            #expect(told.all.count == 1)
        }
    }

    @Test func eventsOfAMultiComeInTheOrderOfItsOperationsAndBeforeItsAnswer() {
        withTwo { watching, changing, told in
            try await watching.addWatch("/", .persistentRecursive, watching.recorder(told))
            try await changing.addWatch("/", .persistentRecursive, changing.recorder(told))
            changing.propose(multi: [create("/b"), create("/a"), .delete(path: "/b", version: -1)]) { _ in
                told.add("answered")
            }
            try await changing.sync()
            let each = ["nodeCreated /b", "nodeCreated /a", "nodeDeleted /b"]
            #expect(told.all == each.flatMap { [$0, $0] } + ["answered"])
        }
    }

    @Test func aReadInsideAWatcherSeesTheChangeThatItWasToldOf() {
        withTwo { watching, changing, told in
            let watcher = Watcher { [unowned watching] event in
                watching.read(.data(path: event.path), watch: nil) {
                    if case .success(.data(let data, let stat)) = $0 {
                        told.add("\(data!) \(stat.mzxid == event.zxid)")
                    }
                }
            }
            try await watching.addWatch("/a", .persistent, watcher)
            _ = try await changing.create("/a", [0])
            changing.propose(.setData(path: "/a", data: [1], version: -1)) { _ in }
            changing.propose(.setData(path: "/a", data: [2], version: -1)) { _ in }
            try await changing.sync()
            #expect(
                told.all == ["[0] true", "[1] true", "[2] true"],
                "each event comes before the next transaction is shown")
        }
    }

    @Test func aFailedMultiTellsNobody() {
        withTwo { watching, changing, told in
            try await watching.addWatch("/", .persistentRecursive, watching.recorder(told))
            #expect(
                await refusal {
                    try await changing.multi([create("/a"), .delete(path: "/none", version: -1)])
                } == .noNode)
            #expect(told.all.isEmpty)
        }
    }

    @Test func theTableForgetsWhatASessionWatchedWhenItEnds() {
        var table = WatchTable()
        for path in ["/a", "/b"] {
            table.watchData(NodePath(path), 1)
            table.watchData(NodePath(path), 2)
            table.watchChildren(NodePath(path), 1)
            table.add(NodePath(path), .persistent, 1)
            table.add(NodePath(path), .persistentRecursive, 1)
        }
        #expect(table.count == 10)
        table.removeAll(of: 1)
        #expect(table.count == 2)
        #expect(table.trigger(NodeChange(.created, NodePath("/a")), Zxid(rawValue: 5)).map(\.session) == [2])
        #expect(table.count == 1)
    }
}
