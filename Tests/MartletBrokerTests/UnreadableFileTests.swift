import MartletBroker
import MartletModel
import MartletSimulation
import MartletWire
import Testing

/// What goes from a file to a socket is read by neither the log nor its partition: the connection alone sees it fail.
@Suite struct AFileThatCannotBeSent {
    private func world(_ values: [String]) throws -> BrokerWorld {
        let world = try BrokerWorld(seed: 3)
        try world.createTopic("t")
        let producer = try world.connect()
        producer.send(produce("t", batch(values), acks: -1, id: 1))
        #expect(world.until { producer.frames.count == 1 })
        return world
    }

    @Test(arguments: [10, 200_000])
    func takesItsDirectoryOffline(size: Int) throws {
        let world = try world([String(repeating: "x", count: size)])
        world.host.files.fail(.read, of: "/data/t-0", with: .inputOutput, times: 1_000)
        let consumer = try world.connect()
        consumer.send(fetch("t", maxWaitMs: 0, id: 1))
        #expect(world.until(atMost: .seconds(5)) { world.sink.says("log directory offline") })
        #expect(world.until(atMost: .seconds(5)) { world.partition("t")?.hasFailed == true })
        #expect(world.until(atMost: .seconds(5)) { consumer.hasEnded || !consumer.frames.isEmpty })
    }

    /// A file that was cut meanwhile is no fault of the disk.
    @Test func takesNothingOfflineWhereItHasBeenTruncated() throws {
        let world = try world([String(repeating: "x", count: 200_000)])
        let consumer = try world.connect()
        let path = try #require(try world.host.disk.list("/data/t-0").first { $0.hasSuffix(".log") })
        // the first piece is on its way, and no more of it
        world.simulated.network.pipeBytesLimit = 16 << 10
        consumer.read(false)
        consumer.send(fetch("t", maxWaitMs: 0, id: 1))
        #expect(world.until { world.broker.outboxBytes > 0 })
        try world.host.disk.open("/data/t-0/" + path, .readWrite).truncate(to: 0)
        consumer.read(true)
        #expect(world.until { consumer.hasEnded })
        #expect(!world.sink.says("log directory offline") && world.partition("t")?.hasFailed == false)
    }
}
