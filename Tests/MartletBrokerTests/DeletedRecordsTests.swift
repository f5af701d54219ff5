import MartletBasics
import MartletBroker
import MartletCluster
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire
import Testing

/// DeleteRecords: what was said to be deleted is deleted.
@Suite struct RecordsThatAreDeleted {
    private func asked(_ partitions: [(topic: String, partition: Int32, before: Int64)]) -> DeleteRecordsRequest {
        var request = DeleteRecordsRequest()
        for (topic, partition, before) in partitions {
            var named = DeleteRecordsRequest.DeleteRecordsTopic()
            named.name = topic
            var wanted = DeleteRecordsRequest.DeleteRecordsPartition()
            (wanted.partitionIndex, wanted.offset) = (partition, before)
            named.partitions = [wanted]
            request.topics.append(named)
        }
        return request
    }

    private func delete(
        _ world: BrokerWorld, _ partitions: (topic: String, partition: Int32, before: Int64)...
    ) throws -> [DeleteRecordsResponse.DeleteRecordsPartitionResult] {
        try world.ask(asked(partitions), version: 2).topics.map { $0.partitions[0] }
    }

    /// Two partitions, each in a directory of its own, with five records.
    private func world() throws -> BrokerWorld {
        let world = try BrokerWorld([("log.dirs", "/a,/b")])
        try world.createTopic("t", partitions: 2)
        let client = try world.connect()
        for index in 0..<10 as Range<Int32> {
            client.send(produce("t", batch(["x"]), acks: -1, partition: index % 2, id: index))
        }
        try #require(world.until { client.frames.count == 10 })
        #expect(world.partition("t", 0)!.directory !== world.partition("t", 1)!.directory)
        return world
    }

    @Test func areNotThereAfterAPowerCutThatFollowsTheAnswer() throws {
        let world = try world()
        let answers = try delete(world, ("t", 0, 3), ("t", 1, -1), ("t", 7, 1), ("t", 0, 9))
        #expect(answers.map(\.errorCode) == [.none, .none, .unknownTopicOrPartition, .offsetOutOfRange])
        #expect(answers.map(\.lowWatermark) == [3, 5, -1, -1])
        world.host.powerCut()
        try world.startAfterKill()
        #expect(world.until { world.partition("t", 0)?.logStartOffset == 3 && world.partition("t", 1)?.logStartOffset == 5 })
    }

    @Test func areDeletedOnceThereIsRoomToSaySo() throws {
        let world = try world()
        let full = world.partition("t", 0)!.directory.path
        world.host.files.fail(.write, of: full + "/log-start-offset-checkpoint", with: .noSpace, times: .max)
        let refused = try delete(world, ("t", 0, 3), ("t", 1, 2))
        #expect(refused.map(\.errorCode) == [.kafkaStorageError, .none])
        #expect(refused.map(\.lowWatermark) == [-1, 2])
        world.host.files.heal()
        #expect(try delete(world, ("t", 0, 3)).map(\.errorCode) == [.none])
        world.host.powerCut()
        try world.startAfterKill()
        #expect(world.until { world.partition("t", 0)?.logStartOffset == 3 && world.partition("t", 1)?.logStartOffset == 2 })
    }

    @Test func onADiskThatFailsTakesTheDirectoryOffline() throws {
        let world = try world()
        let failing = world.partition("t", 0)!.directory.path
        world.host.files.fail(.write, of: failing + "/log-start-offset-checkpoint", with: .inputOutput, times: .max)
        #expect(try delete(world, ("t", 0, 3), ("t", 1, 2)).map(\.errorCode) == [.kafkaStorageError, .none])
        #expect(world.sink.says("log directory offline"))
        #expect(world.until { world.partition("t", 0)?.isOffline == true })
    }

    /// A hundred at a time, and each is answered for.
    @Test func ofManyAtATimeAreWrittenTogether() throws {
        let world = try world()
        let client = try world.connect()
        for index in 0..<100 as Range<Int32> {
            client.send(frame(asked([("t", index % 2, Int64(index) / 20)]), version: 2, id: index))
        }
        try #require(world.until { client.frames.count == 100 })
        for index in 0..<100 {
            let answer = try client.answer(DeleteRecordsResponse.self, index, version: 2).topics[0].partitions[0]
            #expect(answer.errorCode == .none && answer.lowWatermark == Int64(index) / 20)
        }
        world.host.powerCut()
        try world.startAfterKill()
        #expect(world.until { world.partition("t", 0)?.logStartOffset == 4 && world.partition("t", 1)?.logStartOffset == 4 })
    }
}
