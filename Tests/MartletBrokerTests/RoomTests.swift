import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire
import Testing

/// A partition for which there was no room when it was to be made, or opened.
@Suite struct APartitionWithoutRoom {
    private func answer(_ client: RawClient, in world: BrokerWorld) throws -> ErrorCode {
        let index = client.frames.count
        client.send(produce("t", batch(["a"]), acks: -1, id: Int32(index)))
        try #require(world.until { client.frames.count > index })
        return try client.answer(ProduceResponse.self, index, version: 9).responses[0].partitionResponses[0].errorCode
    }

    private func metadata(_ world: BrokerWorld) -> PartitionInfo? {
        world.broker.cluster.metadata.current.topic("t")?.partitions.first
    }

    private func isLed(_ world: BrokerWorld) -> Bool {
        metadata(world).map { $0.leader >= 0 && $0.offlineReplicas.isEmpty } ?? false
    }

    private func full(_ world: BrokerWorld, _ operation: DiskOperation, of part: String) {
        world.host.files.fail(operation, of: part, with: .noSpace, times: .max)
    }

    /// What the making of a partition asks of the disk.
    @Test(arguments: [(DiskOperation.makeDirectory, "/t-0"), (.open, "/t-0/"), (.write, "/t-0/"), (.allocate, "/t-0/")])
    func isMadeWhenThereIsSomeAgain(operation: DiskOperation, part: String) throws {
        let world = try BrokerWorld([("log.dirs", "/a,/b")])
        full(world, operation, of: part)
        try? world.createTopic("t")
        let client = try world.connect()
        guard world.partition("t") == nil else {
            #expect(operation == .allocate, "room is reserved ahead, and can be done without")
            return
        }
        #expect(try answer(client, in: world) == .kafkaStorageError)
        #expect(world.until { self.metadata(world)?.leader == -1 && self.metadata(world)?.offlineReplicas.count == 1 })
        // it is tried again and again, which is said once
        world.simulated.run(for: .seconds(60))
        #expect(try answer(client, in: world) == .kafkaStorageError)
        #expect(world.sink.all.filter { $0.contains("a replica cannot be served") }.count == 1)
        world.host.files.heal()
        #expect(world.until(atMost: .seconds(10)) { self.isLed(world) })
        #expect(world.sink.says("a replica that waited for room is served"))
        #expect(try answer(client, in: world) == .none)
        let folders = try world.host.disk.list("/a") + world.host.disk.list("/b")
        #expect(folders.filter { $0.hasPrefix("t-0") } == ["t-0"])
        // what it took then is there after a crash
        world.simulated.run(for: .seconds(1))
        world.host.powerCut()
        try world.startAfterKill()
        #expect(world.until { world.partition("t")?.highWatermark == 1 })
    }

    @Test func isMadeElsewhereWhenItsDirectoryIsLostMeanwhile() throws {
        let world = try BrokerWorld([("log.dirs", "/a,/b")])
        full(world, .open, of: "/t-0/")
        try? world.createTopic("t")
        #expect(world.until { self.metadata(world)?.leader == -1 })
        // the first of two that are empty would have had it
        for operation in [DiskOperation.sync, .write] {
            world.host.files.fail(operation, of: "/a", with: .inputOutput, times: .max)
        }
        try? world.createTopic("other", partitions: 2)
        let client = try world.connect()
        for partition in [0, 1] as [Int32] {
            client.send(produce("other", batch(["x"]), acks: -1, partition: partition, id: partition))
        }
        world.simulated.run(for: .seconds(20))
        #expect(world.sink.says("log directory offline"))
        world.host.files.heal()
        #expect(world.until(atMost: .seconds(10)) { self.isLed(world) })
        #expect(world.partition("t")?.directory.path == "/b")
    }

    @Test func canBeDeleted() throws {
        let world = try BrokerWorld()
        full(world, .makeDirectory, of: "/t-0")
        try? world.createTopic("t")
        let cluster = world.broker.cluster
        let id = try #require(cluster.metadata.current.topic("t")?.id)
        try world.run {
            let fault = await cluster.deleteTopic("t", id: id)
            #expect(fault == nil)
        }
        #expect(cluster.metadata.current.topic("t") == nil && cluster.topics.table.topic("t") == nil)
        world.host.files.heal()
        try world.createTopic("t")
        #expect(try answer(try world.connect(), in: world) == .none)
        world.simulated.run(for: .seconds(20))
        #expect(world.partition("t")?.highWatermark == 1)
    }

    /// A start on a full disk: what was there stays there, and is served when it can be opened.
    @Test func isOpenedWithAllThatIsInIt() throws {
        let world = try BrokerWorld([("log.dirs", "/a,/b")])
        try world.createTopic("t")
        let client = try world.connect()
        for _ in 0..<5 { #expect(try answer(client, in: world) == .none) }
        let path = world.partition("t")!.directory.path
        try world.restart { $0.fail(.open, of: "/t-0/", with: .tooManyFiles, times: .max) }
        #expect(world.partition("t") == nil)
        #expect(try answer(try world.connect(), in: world) == .kafkaStorageError)
        world.host.files.heal()
        #expect(world.until(atMost: .seconds(10)) { world.partition("t")?.highWatermark == 5 })
        #expect(world.partition("t")?.directory.path == path)
        #expect(world.until { self.isLed(world) })
        #expect(try answer(try world.connect(), in: world) == .none)
    }
}
