import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

private let orders = TopicPartition("orders", 0)

@Suite struct LogDirectories {
    private let world = SimulatedWorld(seed: 11)

    private func open(_ host: SimulatedHost, owner: DirectoryOwner = DirectoryOwner()) throws(LogError) -> LogDirectory
    {
        try LogDirectory.open("/d", on: host.disk, owner: owner)
    }

    @Test func aSecondProcessIsToldWhoIsInTheWay() throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        let other = world.makeProcess("other", beside: host)
        let directory = try open(host)
        do {
            _ = try open(other)
            Issue.record("two processes in one directory")
        } catch {
            #expect(error == .directoryLocked(path: "/d"))
            #expect(error.description.hasPrefix("/d is in use by another process"))
        }
        directory.close()
        try open(other).close()
    }

    @Test func aRefusedDirectoryIsLeftAsItWas() throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        let first = try open(host)
        try first.claim(brokerID: 1, clusterID: "c", wallMilliseconds: 0)
        try first.closeCleanly(brokerEpoch: 7)
        do {
            _ = try open(host, owner: DirectoryOwner(brokerID: 2))
            Issue.record("another broker's directory was opened")
        } catch { #expect(error == .wrongIdentity(path: "/d", what: "broker.id", found: "1", expected: "2")) }
        #expect(throws: LogError.wrongIdentity(path: "/d", what: "cluster.id", found: "c", expected: "x")) {
            try open(host, owner: DirectoryOwner(clusterID: "x"))
        }
        let again = try open(host, owner: DirectoryOwner(brokerID: 1, clusterID: "c"))
        #expect(
            again.found.cleanStop == LogDirectory.CleanStop(brokerEpoch: 7),
            "the marker is still there, and so is not the lock")
        #expect(throws: LogError.self) { try again.claim(brokerID: 3, clusterID: "c", wallMilliseconds: 0) }
    }

    @Test func theCleanMarkerIsGoneForGoodOnceTheDirectoryIsOpen() throws {
        defer { world.end() }
        var host = world.makeHost("broker")
        try open(host).closeCleanly(brokerEpoch: -1)
        #expect(try open(host).found.cleanStop != nil)
        host.powerCut()
        host = host.restart()
        #expect(try open(host).found.cleanStop == nil, "a stop by power cut is not a clean one")
    }

    @Test func aCleanStopSurvivesAPowerCutThatFollows() throws {
        defer { world.end() }
        var host = world.makeHost("broker")
        let directory = try open(host)
        try directory.claim(brokerID: 1, clusterID: "c", wallMilliseconds: 0)
        try directory.write(.recoveryPoint, OffsetCheckpoint([orders: 5]))
        // the directory itself is synced by who made it: its parent
        try host.disk.syncDirectory("/")
        try directory.closeCleanly(brokerEpoch: 3)
        host.powerCut()
        host = host.restart()
        let again = try open(host)
        #expect(again.found.cleanStop?.brokerEpoch == 3)
        #expect(again.found.offset(.recoveryPoint, orders) == 5)
        #expect(again.found.metaProperties?.clusterID == "c")
    }

    @Test(arguments: LogDirectory.Checkpoint.allCases) func aDamagedCheckpointIsPutAsideAndCountsAsMissing(
        checkpoint: LogDirectory.Checkpoint
    ) throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        try open(host).closeCleanly(brokerEpoch: -1)
        let damaged = Array("0\n1\norders 0 1".utf8)
        try host.disk.replace("/d/\(checkpoint.rawValue)", with: damaged)
        let directory = try open(host)
        #expect(directory.found.damaged.map(\.file) == [checkpoint.rawValue])
        #expect("\(directory.found.damaged[0].reason)".contains("line 3"))
        #expect(directory.found.offset(checkpoint, orders) == nil)
        #expect(directory.found.cleanStop != nil, "the stop was a clean one all the same")
        #expect(directory.found.wasCleaned(orders) == (checkpoint == .cleaner), "nothing says which logs have gaps")
        #expect(try host.disk.contents("/d/\(checkpoint.rawValue).damaged") == damaged)
        try directory.write(checkpoint, OffsetCheckpoint([orders: 7]))
        directory.close()
        let again = try open(host)
        #expect(again.found.damaged.isEmpty && again.found.offset(checkpoint, orders) == 7)
    }

    @Test func boundsThatCannotBeReadAreNotTakenForBoundsOfNothing() throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        try host.disk.makeDirectory("/d/orders-0")
        try open(host).close()
        try host.disk.replace("/d/" + DurableOffsets.fileName, with: Array("0\n2\norders 0 1\n".utf8))
        let directory = try open(host)
        #expect(directory.found.areBoundsLost)
        #expect(directory.durableOffsets.bound(of: orders) == nil)
        #expect(directory.found.damaged.map(\.file) == [DurableOffsets.fileName])
    }

    @Test func anIdentityThatCannotBeReadRefusesTheDirectoryAsItWas() throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        let directory = try open(host)
        try directory.claim(brokerID: 1, clusterID: "c", wallMilliseconds: 0)
        try directory.closeCleanly(brokerEpoch: -1)
        try host.disk.replace("/d/meta.properties", with: Array("version=1".utf8))
        let error = #expect(throws: LogError.self) { try open(host) }
        #expect(error?.takesDirectoryOffline == true && "\(error!)".contains("meta.properties"))
        #expect(try host.disk.status("/d/.kafka_cleanshutdown") != nil, "once it is restored the stop is still a clean one")
    }

    @Test func foldersAreListedAndUnknownOnesLeftAlone() throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        for name in ["b-0", "a-1", "a-0", "lost+found", "keeper"] { try host.disk.makeDirectory("/d/" + name) }
        try host.disk.open("/d/file-0", .create).close()
        let found = try open(host).found
        #expect(found.partitions.map(\.name) == ["a-0", "a-1", "b-0"])
        #expect(found.unknownFolders == ["keeper", "lost+found"])
    }

    @Test func aFailedWriteTakesTheDirectoryOffline() throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        let directory = try open(host)
        host.files.fail(.sync, of: "replication", with: .inputOutput)
        #expect(throws: LogError.self) { try directory.write(.highWatermark, OffsetCheckpoint([orders: 5])) }
        #expect(directory.isOffline)
        #expect(throws: LogError.self) { try directory.write(.logStart, OffsetCheckpoint()) }
        try directory.closeCleanly(brokerEpoch: -1)
        #expect(try host.disk.status("/d/.kafka_cleanshutdown") == nil, "an offline directory is not said to be clean")
        #expect(!directory.takeOffline(.closed("x")), "the first reason stays")
    }

    @Test func aFullDiskIsWaitedOutAndTheCheckpointBeforeStays() throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        let directory = try open(host)
        try directory.write(.highWatermark, OffsetCheckpoint([orders: 5]))
        host.files.fail(.write, of: "replication", with: .noSpace)
        #expect(throws: LogError.self) { try directory.write(.highWatermark, OffsetCheckpoint([orders: 9])) }
        #expect(!directory.isOffline)
        let path = "/d/" + LogDirectory.Checkpoint.highWatermark.rawValue
        #expect(try OffsetCheckpoint.read(host.disk, path) == OffsetCheckpoint([orders: 5]))
        try directory.write(.highWatermark, OffsetCheckpoint([orders: 9]))
        #expect(try OffsetCheckpoint.read(host.disk, path) == OffsetCheckpoint([orders: 9]))
    }
}

@Suite struct BoundsOfDurableOffsets {
    private let world = SimulatedWorld(seed: 5)

    @Test func theBoundFollowsWithinATenthOfASecondAndSurvivesAPowerCut() throws {
        defer { world.end() }
        var host = world.makeHost("broker")
        host.files.syncLatency = Latency(.microseconds(200), .microseconds(400))
        let directory = try LogDirectory.open("/d", on: host.disk)
        try host.disk.syncDirectory("/")
        let mark = directory.durableOffsets.register(orders, durable: 0)
        let (loop, lane) = (host.loops[0], host.makeLane("sync", threads: 1, limit: 4))
        for step in 1...100 {
            world.after(.milliseconds(Int64(step * 10))) {
                loop.execute {
                    mark.raise(to: Int64(step))
                    directory.durableOffsets.raised(lane: lane, loop: loop) { Issue.record("\($0)") }
                }
            }
        }
        world.run(for: .milliseconds(1300))
        #expect(directory.durableOffsets.writeCount >= 8 && directory.durableOffsets.writeCount <= 11)
        let name = "/d/" + DurableOffsets.fileName
        #expect(try OffsetCheckpoint.read(host.disk, name)[orders] == 100)
        // what the rename has not made durable leaves an older file, or none: never a torn one
        host.powerCut()
        host = host.restart()
        let bound = try LogDirectory.open("/d", on: host.disk).durableOffsets.bound(of: orders)
        #expect(bound ?? 0 <= 100)
    }

    @Test func nothingChangedIsNotWritten() throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        let durable = try LogDirectory.open("/d", on: host.disk).durableOffsets
        let mark = durable.register(orders, durable: 3)
        for _ in 0..<3 { try durable.write() }
        #expect(durable.writeCount == 1)
        mark.raise(to: 4)
        try durable.write()
        #expect(durable.writeCount == 2)
    }

    @Test func aTruncationIsToldToTheDiskFirst() throws {
        defer { world.end() }
        var host = world.makeHost("broker")
        let durable = try LogDirectory.open("/d", on: host.disk).durableOffsets
        try host.disk.syncDirectory("/")
        _ = durable.register(orders, durable: 100)
        try durable.write()
        try host.disk.syncDirectory("/d")
        try durable.lower([orders], to: 40)
        host.powerCut()
        host = host.restart()
        #expect(try LogDirectory.open("/d", on: host.disk).durableOffsets.bound(of: orders) == 40)
    }

    @Test func loweringWhatIsNotAboveCostsNothing() throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        let durable = try LogDirectory.open("/d", on: host.disk).durableOffsets
        _ = durable.register(orders, durable: 10)
        try durable.lower([orders], to: 5)
        try durable.lower([TopicPartition("new", 0)], to: nil)
        #expect(durable.writeCount == 0)
    }

    /// Making a thousand partitions beside ten thousand others took ten thousand steps for each.
    @Test func loweringWhatIsNotAboveLooksAtNothingElse() throws {
        defer { world.end() }
        let durable = try LogDirectory.open("/d", on: world.makeHost("broker").disk).durableOffsets
        for index in 0..<20_000 { _ = durable.register(TopicPartition("t", Int32(index)), durable: 1) }
        let took = try ContinuousClock().measure {
            for index in 0..<2_000 { try durable.lower([TopicPartition("new", Int32(index))], to: nil) }
        }
        #expect(took < .seconds(1), "\(took)")
    }

    @Test func severalAreLoweredByOneWriteThatCountsAfterAPowerCut() throws {
        defer { world.end() }
        var host = world.makeHost("broker")
        let durable = try LogDirectory.open("/d", on: host.disk).durableOffsets
        try host.disk.syncDirectory("/")
        let all = (0..<5).map { TopicPartition("t", $0) }
        for (index, partition) in all.enumerated() { _ = durable.register(partition, durable: Offset(index * 10)) }
        try durable.write()
        try host.disk.syncDirectory("/d")
        try durable.lower(Array(all[0...3]), to: 20)
        #expect(durable.writeCount == 2)
        try durable.lower(Array(all[1...2]), to: nil)
        #expect(durable.writeCount == 3)
        host.powerCut()
        host = host.restart()
        let found = try LogDirectory.open("/d", on: host.disk).durableOffsets
        #expect(all.map { found.bound(of: $0) } == [0, 0, 0, 20, 40], "0: nothing is known")
    }

    @Test func aDeletedPartitionsBoundDoesNotAwaitItsNamesake() throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        let durable = try LogDirectory.open("/d", on: host.disk).durableOffsets
        _ = durable.register(orders, durable: 10)
        try durable.write()
        try durable.lower([orders], to: nil)
        #expect(try OffsetCheckpoint.read(host.disk, "/d/" + DurableOffsets.fileName).count == 0)
    }

    @Test func boundsOfPartitionsNotYetOpenStayInTheFile() throws {
        defer { world.end() }
        var host = world.makeHost("broker")
        let first = try LogDirectory.open("/d", on: host.disk).durableOffsets
        _ = (first.register(orders, durable: 10), first.register(TopicPartition("other", 0), durable: 20))
        try first.write()
        host = host.restart()
        let second = try LogDirectory.open("/d", on: host.disk).durableOffsets
        #expect(second.bound(of: orders) == 10)
        _ = second.register(orders, durable: 12)
        try second.write()
        host = host.restart()
        let third = try LogDirectory.open("/d", on: host.disk).durableOffsets
        #expect(third.bound(of: orders) == 12)
        #expect(third.bound(of: TopicPartition("other", 0)) == 20)
    }

    @Test func aCleanStopLeavesNoBoundBehind() throws {
        defer { world.end() }
        let host = world.makeHost("broker")
        let directory = try LogDirectory.open("/d", on: host.disk)
        _ = directory.durableOffsets.register(orders, durable: 10)
        try directory.durableOffsets.write()
        try directory.closeCleanly(brokerEpoch: -1)
        #expect(try host.disk.status("/d/" + DurableOffsets.fileName) == nil)
    }

    /// The power goes at each disk call of a run of raises and one truncation in turn.
    @Test(arguments: 0..<40) func theBoundNeverClaimsMoreThanIsDurable(operations: Int) throws {
        let world = SimulatedWorld(seed: UInt64(operations))
        defer { world.end() }
        var host = world.makeHost("broker")
        let durable = try LogDirectory.open("/d", on: host.disk).durableOffsets
        try host.disk.syncDirectory("/")
        let mark = durable.register(orders, durable: 0)
        host.powerCut(afterDiskOperations: operations)
        var actual: Offset = 0
        do {
            for offset: Offset in [10, 20, 30] {
                (actual, _) = (offset, mark.raise(to: offset))
                try durable.write()
            }
            try durable.lower([orders], to: 5)
            actual = 5
            try durable.write()
            actual = 8
            mark.raise(to: 8)
            try durable.write()
        } catch {}
        if host.isAlive { host.powerCut() }
        host = host.restart()
        #expect(
            try LogDirectory.open("/d", on: host.disk).durableOffsets.bound(of: orders) ?? 0 <= actual,
            "power cut after \(operations) calls")
    }
}
