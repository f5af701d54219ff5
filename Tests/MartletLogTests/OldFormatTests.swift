import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import Testing

/// Segments in formats that Kafka wrote before 0.11. To take them for damage would cut them off.
@Suite struct MessagesOfOldFormats {
    private static func crc32(_ bytes: [UInt8]) -> UInt32 {
        var state = UInt32.max
        for byte in bytes {
            state ^= UInt32(byte)
            for _ in 0..<8 { state = state >> 1 ^ (state & 1 == 0 ? 0 : 0xEDB8_8320) }
        }
        return ~state
    }

    private func message(_ value: String, magic: Int8, offset: Offset = 0) -> [UInt8] {
        var body = ByteBuffer()
        body.int8(magic)
        body.int8(0)
        if magic == 1 { body.int64(1_500_000_000_000) }
        body.int32(-1)
        body.int32(Int32(value.utf8.count))
        body.append(Array(value.utf8))
        var out = ByteBuffer()
        out.int64(offset)
        out.int32(Int32(body.count + 4))
        out.uint32(Self.crc32(body.array))
        out.append(body.array)
        return out.array
    }

    private func expectRefused(
        _ world: LogWorld, _ path: String, at position: Int64, clean: Bool, recoveryPoint: Offset = 0
    ) throws {
        let before = try world.disk.list(world.folder).map { try world.disk.contents("\(world.folder)/\($0)") ?? [] }
        do {
            _ = try world.open(clean: clean, recoveryPoint: recoveryPoint)
            Issue.record("a log with messages of an old format was opened")
        } catch let error as LogError {
            guard case .oldFormat(path, position, _) = error else {
                Issue.record(error)
                return
            }
            #expect("\(error)".contains(path) && "\(error)".contains("stays offline"))
            #expect(!error.takesDirectoryOffline && error.code == .kafkaStorageError)
        }
        #expect(try world.disk.list(world.folder).map { try world.disk.contents("\(world.folder)/\($0)") ?? [] } == before)
    }

    @Test func areNamedAndNothingOfThemIsCutWhetherTheStopWasCleanOrNot() throws {
        for magic in [0, 1] as [Int8] {
            for clean in [true, false] {
                let world = LogWorld(seed: 1)
                let log = try world.create()
                try log.append(batch(["a"]))
                try log.close(clean: true)
                let old = (0..<3).flatMap { message("v\($0)", magic: magic, offset: Int64($0)) }
                try world.disk.replace(world.path(.log), with: old)
                try expectRefused(world, world.path(.log), at: 0, clean: clean, recoveryPoint: 1)
            }
        }
    }

    /// The format was raised in the midst of a segment, and a recovery comes to what was written before.
    @Test func areNotCutWhereTheyFollowWhatIsServed() throws {
        let world = LogWorld(seed: 2)
        let log = try world.create()
        try log.append(batch(["a"]))
        try log.close(clean: true)
        let size = try world.sizeOf(world.path(.log))
        let bytes = try #require(try world.disk.contents(world.path(.log)))
        try world.disk.replace(world.path(.log), with: bytes + message("b", magic: 1, offset: 1))
        try expectRefused(world, world.path(.log), at: size, clean: false)
    }

    /// What only looks like one is what a crash leaves: a hole, a wrong checksum.
    @Test func areNotSeenInAHoleOrInNoise() throws {
        for tail in [[UInt8](repeating: 0, count: 300), Array(message("b", magic: 1).dropLast()) + [0xFF]] {
            let world = LogWorld(seed: 3)
            let log = try world.create()
            try log.append(batch(["a"]))
            try log.close(clean: true)
            let bytes = try #require(try world.disk.contents(world.path(.log)))
            try world.disk.replace(world.path(.log), with: bytes + tail)
            let again = try world.open()
            #expect(again.logEndOffset == 1)
        }
    }

    @Test func areToldByTheVerifierWithFileAndPlace() throws {
        let directory = try StoppedDirectory(seed: 1)
        try directory.disk.replace(directory.world.path(.log), with: message("old", magic: 1))
        let findings = try directory.verified().findings
        #expect(findings.contains { $0.path == directory.world.path(.log) && $0.message.contains("format 1") })
    }
}

@Suite struct APartitionsSurvey {
    @Test func tellsTheLastLeaderEpochAndTheHighestProducerOfACleanFolderFromItsSmallFiles() throws {
        let directory = try StoppedDirectory(seed: 1)
        let survey = PartitionSurvey.read(
            directory.world.folder, of: directory.world.partition, on: directory.disk, isClean: true)
        #expect(survey.leaderEpoch == 4 && survey.producerID == 3)
    }

    /// The broker was killed: what it wrote last is in the batches alone.
    @Test func readsTheBatchesOfAFolderThatWasNotStopped() throws {
        let directory = try StoppedDirectory(seed: 2)
        let world = directory.world
        let last = try #require(try directory.files().last { $0.path.hasSuffix(".log") })
        let identity = BatchIdentity(producerID: 4711, epoch: 0, baseSequence: 0)
        let more = batch(["x"], offset: directory.end, epoch: 9, identity: identity)
        try directory.disk.replace(last.path, with: last.bytes + more.array + [1, 2, 3])
        let survey = PartitionSurvey.read(world.folder, of: world.partition, on: directory.disk, isClean: false)
        #expect(survey.leaderEpoch == 9 && survey.producerID == 4711)
        // all snapshots and the checkpoint gone: the batches say it too
        for (path, _) in try directory.files() where path.hasSuffix(".snapshot") || path.hasSuffix("epoch-checkpoint") {
            try directory.disk.remove(path)
        }
        let bare = PartitionSurvey.read(world.folder, of: world.partition, on: directory.disk, isClean: false)
        #expect(bare == survey)
    }

    @Test func findsProducersThatOnlyTheTransactionCoordinatorKnows() throws {
        let world = LogWorld(seed: 3)
        let log = try world.create()
        var value = TransactionLogValue()
        (value.producerID, value.nextProducerID) = (900, 1234)
        var key = TransactionLogKey()
        key.transactionalID = "tx"
        var builder = BatchBuilder()
        builder.append(timestamp: 1, key: try key.prefixedBytes(version: 0), value: try value.prefixedBytes(version: 1))
        var output = ByteBuffer()
        builder.finish(into: &output, codec: .none, contexts: CodecContexts())
        try log.append(BatchBytes(output.bytes))
        try log.close(clean: true)
        let survey = PartitionSurvey.read(
            world.folder, of: TopicPartition("__transaction_state", 0), on: world.disk, isClean: true)
        #expect(survey.producerID == 1234)
    }

    @Test func saysNothingOfAFolderThatCannotBeRead() throws {
        let world = LogWorld(seed: 4)
        let survey = PartitionSurvey.read("data/log/nowhere-0", of: world.partition, on: world.disk, isClean: false)
        #expect(survey == PartitionSurvey())
    }
}
