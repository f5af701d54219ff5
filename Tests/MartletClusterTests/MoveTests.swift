import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

private let directories = ["data/a", "data/b"]
private let long = String(repeating: "x", count: 1500)

extension Broker {
    fileprivate static func withTwoDirectories(_ seed: UInt64) throws -> Broker {
        let broker = try Broker(SimulatedWorld(seed: seed), directories: directories).start()
        try broker.apply()
        return broker
    }

    /// Where replicas of the partition lie, by name without what is unique.
    fileprivate var folders: [String] {
        directories.flatMap { directory in
            files(directory).filter { $0.hasPrefix(topicName) }.map { name in
                let kind = PartitionFolder(parsing: name)?.kind ?? .stray
                return "\(directory) \(kind == .live ? "live" : kind.rawValue)"
            }
        }
    }

    fileprivate func otherDirectory() -> String {
        partition().directory.path == directories[0] ? directories[1] : directories[0]
    }

    fileprivate func move(to path: String) throws -> ErrorCode {
        final class Said: @unchecked Sendable { var error = ErrorCode.none }
        let said = Said()
        try run { said.error = await $0.move(first, to: path) }
        return said.error
    }

    /// Batches of a producer, which are acknowledged in the end.
    @discardableResult
    fileprivate func fill(_ sequences: Range<Int32>, as id: ProducerID = 9) throws -> Producer {
        let producer = Producer(host.loops[0])
        for sequence in sequences {
            let bytes = batch(["\(sequence)" + long], identity: BatchIdentity(producerID: id, epoch: 0, baseSequence: sequence))
            producer.kept.append(bytes)
            let (partition, now) = (partition(), world.now)
            // the machine may be without power before the loop comes to it
            onLoop {
                let request = AppendRequest(
                    .committed, owner: producer, token: AppendToken(answer: 0, index: Int(sequence)),
                    deadline: now + .seconds(30))
                if case .refused(let error, _) = partition.append(bytes.all, request) {
                    producer.refused[Int(sequence)] = error
                }
                var effects = PartitionEffects()
                partition.writeReserved(&effects)
                effects.deliver()
            }
        }
        world.run(for: .milliseconds(200))
        return producer
    }
}

@Suite struct AReplicaThatMoves {
    @Test func takesItsRecordsItsStartItsProducersAndItsEpochsAlong() throws {
        let broker = try Broker.withTwoDirectories(1)
        defer { broker.world.end() }
        try broker.fill(0..<12)
        try broker.deleteRecords(before: 4)
        let before = try broker.read(from: 4), old = broker.partition(), target = broker.otherDirectory()
        #expect(try broker.move(to: target) == .none)
        broker.world.run(for: .seconds(1))
        let moved = broker.partition()
        #expect(moved !== old && moved.directory.path == target && moved.logStartOffset == 4 && moved.highWatermark == 12)
        #expect(try broker.read(from: 4) == before)
        #expect(moved.leaderEpoch == 0 && moved.isLeader && !moved.isOffline)
        let again = batch(["11" + long], identity: BatchIdentity(producerID: 9, epoch: 0, baseSequence: 11))
        guard case .duplicate(baseOffset: 11, _, _) = broker.append(again, .committed, Producer(broker.host.loops[0]), 0) else {
            Issue.record("the producer is forgotten")
            return
        }
        try broker.fill(12..<14)
        broker.world.run(for: .seconds(120))
        #expect(broker.folders == ["\(target) live"], "what was left behind goes after its delay")
        try broker.restartCleanly()
        try broker.apply()
        #expect(broker.partition().logEndOffset == 14 && broker.partition().logStartOffset == 4)
        #expect(!broker.lines.says("recovering"), "a clean stop is one of both directories")
    }

    @Test func isThereOnceAndWholeWhereverThePowerGoes() throws {
        var stages: Set<String> = []
        var cut = 0
        while !stages.contains("moved before the cut") {
            cut += 1
            try #require(cut < 400, "a move takes fewer steps")
            stages.insert(try moveAndCut(after: cut))
        }
        #expect(stages.isSuperset(of: ["copying", "between the renames", "moved"]), "\(stages)")
    }

    /// What the cut found on the disk.
    private func moveAndCut(after operations: Int) throws -> String {
        let broker = try Broker.withTwoDirectories(UInt64(operations))
        defer { broker.world.end() }
        try broker.fill(0..<9)
        try broker.deleteRecords(before: 4)
        broker.world.run(for: .seconds(1))
        let target = broker.otherDirectory(), source = broker.partition().directory.path
        broker.host.powerCut(afterDiskOperations: operations)
        _ = try? broker.move(to: target)
        var acknowledged: Int32 = 9
        var sequence: Int32 = 9
        while broker.host.isAlive, sequence < 15 {
            let producer = try broker.fill(sequence..<sequence + 1)
            if producer.error(Int(sequence)) == ErrorCode.none { acknowledged = sequence + 1 }
            // who is told to look again does
            if producer.refused.isEmpty { sequence += 1 }
        }
        broker.world.run(for: .milliseconds(300))
        let wasAlive = broker.host.isAlive
        broker.crash(powerCut: true)
        let left = broker.folders
        try broker.start()
        try broker.apply(epoch: 1)
        broker.world.run(for: .seconds(200))
        let partition = broker.partition()
        #expect(!partition.isOffline && partition.logStartOffset == 4, "cut after \(operations): \(left)")
        #expect(partition.highWatermark >= Int64(acknowledged), "cut after \(operations): \(left)")
        let found = try broker.read(from: 4).map { $0.filter { $0 != "x" } }
        #expect(found == (4..<partition.highWatermark).map { "\($0):\($0)" }, "cut after \(operations): \(left)")
        #expect(
            broker.folders.filter { $0.hasSuffix("live") }.count == 1,
            "cut after \(operations): \(left) became \(broker.folders)")
        #expect(
            !broker.folders.contains { $0.hasSuffix("future") }, "cut after \(operations): \(left) became \(broker.folders)")
        if wasAlive, left.contains("\(target) live") { return "moved before the cut" }
        if left.contains("\(target) live") { return "moved" }
        if !left.contains("\(source) live") { return "between the renames" }
        return left.contains("\(target) future") ? "copying" : "not begun"
    }

    @Test func staysWhereItIsWhileADirectoryThatMayHaveItIsMissing() throws {
        let broker = try Broker.withTwoDirectories(3)
        defer { broker.world.end() }
        try broker.fill(0..<3)
        let source = broker.partition().directory.path, target = broker.otherDirectory()
        try broker.run { await $0.close() }
        broker.crash(powerCut: false)
        // as a crash between the two renames leaves it
        let unique = String(repeating: "a", count: 32)
        let disk = broker.host.disk
        try disk.rename("\(source)/\(topicName)-0", to: "\(source)/\(topicName)-0.\(unique)-delete")
        try disk.makeDirectory("\(target)/\(topicName)-0.\(unique)-future")
        for name in try disk.list("\(source)/\(topicName)-0.\(unique)-delete") {
            let bytes = try #require(try disk.contents("\(source)/\(topicName)-0.\(unique)-delete/\(name)"))
            try disk.replace("\(target)/\(topicName)-0.\(unique)-future/\(name)", with: bytes)
        }
        let whole = broker.config
        broker.config.logDirs = [source, "data/missing"]
        try disk.replace("data/missing", with: [0])
        try broker.start()
        broker.world.run(for: .seconds(200))
        #expect(
            broker.folders == ["\(source) delete", "\(target) future"].sorted(), "nothing goes while a directory is missing")
        try broker.run { await $0.close() }
        broker.crash(powerCut: false)
        broker.config = whole
        try broker.start()
        try broker.apply()
        #expect(broker.partition().directory.path == target)
        #expect(try broker.read().count == 3)
    }

    @Test func goesOnItsWayAfterAnOrderlyStop() throws {
        let broker = try Broker(
            SimulatedWorld(seed: 6), directories: directories, [("replica.alter.log.dirs.io.max.bytes.per.second", "2000")]
        ).start()
        defer { broker.world.end() }
        try broker.apply()
        try broker.fill(0..<12)
        try broker.deleteRecords(before: 4)
        let (source, target) = (broker.partition().directory.path, broker.otherDirectory())
        #expect(try broker.move(to: target) == .none)
        broker.world.run(for: .seconds(3))
        try broker.run { await $0.close() }
        broker.crash(powerCut: true)
        let future = try #require(broker.files(target).first { $0.hasSuffix("-future") })
        #expect(
            Set(broker.files("\(target)/\(future)")) == [
                "00000000000000000004.log", "00000000000000000004.index", "00000000000000000004.timeindex",
                "00000000000000000004.snapshot", "leader-epoch-checkpoint", "partition.metadata",
            ], "a log without records, and nothing that is half of something")
        #expect(broker.folders.contains("\(source) live"))
        try broker.start()
        try broker.apply(epoch: 1)
        broker.world.run(for: .seconds(200))
        #expect(broker.partition().directory.path == target)
        #expect(try broker.read(from: 4).count == 8)
    }

    @Test func isDeletedWithItsCopy() throws {
        let broker = try Broker.withTwoDirectories(4)
        defer { broker.world.end() }
        try broker.fill(0..<12)
        let target = broker.otherDirectory()
        try broker.run { replicas in
            #expect(await replicas.move(first, to: target) == .none)
            try await replicas.stop(topic: topicName, partition: 0, delete: true)
        }
        broker.world.run(for: .seconds(200))
        #expect(broker.folders == [])
        #expect(try broker.move(to: target) == .unknownTopicOrPartition)
    }

    @Test func goesWhereItIsWantedLast() throws {
        let broker = try Broker.withTwoDirectories(5)
        defer { broker.world.end() }
        try broker.fill(0..<12)
        let (here, there) = (broker.partition().directory.path, broker.otherDirectory())
        for path in [there, here, there, "/\(there)", "", there] {
            let wanted: ErrorCode = path == here || path == there ? .none : .logDirNotFound
            #expect(try broker.move(to: path) == wanted)
        }
        broker.world.run(for: .seconds(1))
        #expect(broker.partition().directory.path == there)
        #expect(try broker.move(to: here) == .none)
        broker.world.run(for: .seconds(100))
        #expect(broker.folders == ["\(here) live"])
        #expect(try broker.read().count == 12)
    }
}
