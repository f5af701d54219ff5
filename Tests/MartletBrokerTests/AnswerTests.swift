import MartletBasics
import MartletBroker
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire
import Testing

/// A file that is only bytes: what a fetch answer refers to.
final class BytesFile: DiskFile, @unchecked Sendable {
    let path = "bytes"
    let content: [UInt8]
    init(_ content: [UInt8]) { self.content = content }

    func readSome(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        let count = max(0, min(buffer.count, content.count - Int(offset)))
        buffer.copyBytes(from: content[Int(offset)..<(Int(offset) + count)])
        return count
    }
    func readSomeCached(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int? {
        try readSome(into: buffer, at: offset)
    }
    func writeSome(_: ArraySlice<UnsafeRawBufferPointer>, at _: Int64) throws(SystemError) -> Int { 0 }
    func sync() throws(SystemError) {}
    func truncate(to _: Int64) throws(SystemError) {}
    func allocate(_: Int64) throws(SystemError) {}
    func size() throws(SystemError) -> Int64 { Int64(content.count) }
    func close() {}
}

/// A socket that takes what a seed says.
final class CappedSocket: StreamSocket, @unchecked Sendable {
    let local = SocketAddress(host: "127.0.0.1", port: 1)
    let peer = SocketAddress(host: "127.0.0.1", port: 2)
    private(set) var sent: [UInt8] = []
    private var random: SeededRandom
    /// So many bytes more, and it blocks.
    var room = Int.max

    init(seed: UInt64) { random = SeededRandom(seed: seed) }
    func attach(to _: any EventLoop, ready _: @escaping (Readiness) -> Void) {}
    func watch(_: Readiness) {}
    func receive(into _: UnsafeMutableRawBufferPointer, _: UnsafeMutableRawBufferPointer) -> Transfer { .wouldBlock }
    private func admit(_ count: Int) -> Int? {
        guard room > 0 else { return nil }
        let taken = min(room, 1 + random.below(count))
        room -= taken
        return taken
    }
    func send(_ bytes: UnsafeRawBufferPointer, more _: Bool) -> Transfer {
        guard let count = admit(bytes.count) else { return .wouldBlock }
        sent += bytes[..<count]
        return .moved(count)
    }
    func send(_ file: any DiskFile, at offset: Int64, count: Int, more _: Bool) throws(SystemError) -> Transfer {
        guard let count = admit(count) else { return .wouldBlock }
        var piece = [UInt8](repeating: 0, count: count)
        var failure: SystemError?
        piece.withUnsafeMutableBytes { space in
            do throws(SystemError) { _ = try file.read(into: space, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
        sent += piece
        return .moved(count)
    }
    func close() {}
}

extension Outbox {
    /// Whether something is left after about so many bytes.
    fileprivate mutating func pieceIsSent(to socket: CappedSocket, _ limit: Int) throws -> Bool {
        var budget = limit
        if case .all = try flush(to: socket, budget: &budget) { return false }
        return true
    }
}

private func framed<R: WireResponse>(_ response: R, version: Int16, id: Int32) throws -> [UInt8] {
    var buffer = ByteBuffer()
    buffer.int32(0)
    buffer.int32(id)
    if ApiKey(rawValue: R.apiKey)!.responseHeaderVersion(version) >= 1 { buffer.uvarint(0) }
    try response.encode(into: &buffer, version: version)
    buffer.patch(Int32(buffer.count - 4), at: 0)
    return buffer.array
}

private let errors: [ErrorCode] = [
    .none, .none, .none, .offsetOutOfRange, .notLeaderOrFollower, .fencedLeaderEpoch, .unknownTopicOrPartition,
]

@Suite struct AnswersWrittenByHand {
    @Test func aFetchAnswerIsThatOfTheGeneratedEncoderAtEveryVersion() throws {
        var random = SeededRandom(seed: 77)
        for version in FetchResponse.versions {
            for _ in 0..<40 {
                let readCommitted = random.chance(1, in: 2)
                let (targets, partitions) = Self.fetched(&random, version: version)
                let session = version >= 7 ? Int32(random.below(1 << 30)) : 0
                let encoder = FetchAnswerEncoder(
                    header: FrameHeader(apiKey: 1, apiVersion: version, correlationID: 9), version: version, sessionID: session)
                var outbox = Outbox()
                try encoder.encode(partitions, targets, readCommitted: readCommitted, to: &outbox)
                let socket = CappedSocket(seed: random.next())
                let size = outbox.pending
                while try outbox.pieceIsSent(to: socket, 10_000) {}
                #expect(socket.sent.count == size)
                let expected = try framed(
                    Self.response(targets, partitions, readCommitted, version: version, session: session), version: version,
                    id: 9)
                #expect(socket.sent == expected, "version \(version)")
            }
        }
    }

    /// The disk fails while an answer is put together: what was written of it must not follow the answers before it, for
    /// its first four bytes would be taken for a frame of none.
    @Test func ofAnAnswerWhoseRecordsCannotBeReadNothingIsSent() throws {
        var outbox = Outbox()
        outbox.bytes.append([1, 2, 3])
        outbox.append(BytesFile([4, 5, 6]), at: 0, count: 3)
        outbox.bytes.append([7])
        let (targets, partitions) = Self.unreadable()
        let encoder = FetchAnswerEncoder(
            header: FrameHeader(apiKey: 1, apiVersion: 12, correlationID: 9), version: 12, sessionID: 0)
        #expect(throws: (any Error).self) {
            try encoder.encode(partitions, targets, readCommitted: false, to: &outbox)
        }
        let socket = CappedSocket(seed: 1)
        while try outbox.pieceIsSent(to: socket, 10_000) {}
        #expect(socket.sent == [1, 2, 3, 4, 5, 6, 7] && outbox.isEmpty)
    }

    /// A large range that is there, and behind it a small one that its file does not have.
    private static func unreadable() -> ([FetchTarget], [MartletBroker.FetchedPartition]) {
        let slices = [(content: 60_000, count: 60_000), (content: 100, count: 5000)]
        let targets = slices.indices.map { index in
            FetchTarget(
                topicName: "topic", topicID: .zero, partition: Int32(index), fetchOffset: 0, maxBytes: 1,
                currentLeaderEpoch: -1,
                lastFetchedEpoch: -1, logStartOffset: -1)
        }
        let partitions = slices.enumerated().map { index, slice in
            var found = PartitionFetch(error: .none)
            found.slice = LogSlice(
                file: BytesFile([UInt8](repeating: 9, count: slice.content)), position: 0, count: slice.count,
                firstBatchBaseOffset: 0, firstBatchSize: slice.count)
            return MartletBroker.FetchedPartition(target: index, found: found)
        }
        return (targets, partitions)
    }

    private static func fetched(
        _ random: inout SeededRandom, version: Int16
    ) -> ([FetchTarget], [MartletBroker.FetchedPartition]) {
        var targets: [FetchTarget] = []
        var partitions: [MartletBroker.FetchedPartition] = []
        for topic in 0..<random.below(4) {
            let id = UUID(high: random.next(), low: random.next())
            for index in 0..<(1 + random.below(3)) {
                targets.append(
                    FetchTarget(
                        topicName: "topic-\(topic)", topicID: version >= 13 ? id : .zero, partition: Int32(index),
                        fetchOffset: 0, maxBytes: 1,
                        currentLeaderEpoch: -1, lastFetchedEpoch: -1, logStartOffset: -1))
                guard !random.chance(1, in: 5) else { continue }
                var found = PartitionFetch(error: errors[random.below(errors.count)])
                found.highWatermark = Int64(random.below(1 << 40))
                found.lastStableOffset = Int64(random.below(1 << 40))
                found.logStartOffset = Int64(random.below(1 << 40))
                if version >= 12, random.chance(1, in: 4) {
                    found.divergingEpoch = EpochEnd(epoch: Int32(random.below(9)), endOffset: Int64(random.below(99)))
                }
                if version >= 12, random.chance(1, in: 4) {
                    found.currentLeader = LeaderHint(leader: 3, epoch: Int32(random.below(9)))
                }
                for _ in 0..<random.below(3) {
                    found.abortedTransactions.append(
                        AbortedTransaction(
                            producerID: Int64(random.below(99)), firstOffset: Int64(random.below(99)), lastOffset: 5,
                            lastStableOffset: 6))
                }
                if found.error == .none { found.slice = slice(&random) }
                partitions.append(MartletBroker.FetchedPartition(target: targets.count - 1, found: found))
            }
        }
        return (targets, partitions)
    }

    private static func slice(_ random: inout SeededRandom) -> LogSlice? {
        let count = [0, 1, 61, 5000, FetchAnswerEncoder.copyLimit, FetchAnswerEncoder.copyLimit + 1, 60_000][random.below(7)]
        guard count > 0 else { return nil }
        let start = random.below(100)
        let seed = random.next()
        let content = (0..<(start + count + 7)).map { UInt8(truncatingIfNeeded: UInt64($0) &* 31 &+ seed) }
        return LogSlice(
            file: BytesFile(content), position: Int64(start), count: count, firstBatchBaseOffset: 0, firstBatchSize: count)
    }

    private static func response(
        _ targets: [FetchTarget], _ partitions: [MartletBroker.FetchedPartition], _ readCommitted: Bool, version: Int16,
        session: Int32
    ) -> FetchResponse {
        var response = FetchResponse()
        response.sessionID = session
        for one in partitions {
            let target = targets[one.target], found = one.found
            if response.responses.last?.topic != (version >= 13 ? "" : target.topicName)
                || response.responses.last?.topicID != (version >= 13 ? target.topicID : .zero)
            {
                var topic = FetchResponse.FetchableTopicResponse()
                if version >= 13 { topic.topicID = target.topicID } else { topic.topic = target.topicName }
                response.responses.append(topic)
            }
            var data = FetchResponse.PartitionData()
            data.partitionIndex = target.partition
            data.errorCode = found.error
            data.highWatermark = found.highWatermark
            data.lastStableOffset = found.lastStableOffset
            if version >= 5 { data.logStartOffset = found.logStartOffset }
            data.abortedTransactions =
                !readCommitted || found.error != .none
                ? nil
                : found.abortedTransactions.map {
                    var aborted = FetchResponse.AbortedTransaction()
                    aborted.producerID = $0.producerID
                    aborted.firstOffset = $0.firstOffset
                    return aborted
                }
            if let diverging = found.divergingEpoch {
                data.divergingEpoch.epoch = diverging.epoch
                data.divergingEpoch.endOffset = diverging.endOffset
            }
            if let leader = found.currentLeader {
                data.currentLeader.leaderID = leader.leader
                data.currentLeader.leaderEpoch = leader.epoch
            }
            if let slice = found.slice, let file = slice.file as? BytesFile {
                data.records = .owned(Array(file.content[Int(slice.position)..<(Int(slice.position) + slice.count)]))
            }
            response.responses[response.responses.count - 1].partitions.append(data)
        }
        return response
    }

    @Test func aProduceAnswerIsThatOfTheGeneratedEncoderAtEveryVersion() throws {
        var random = SeededRandom(seed: 78)
        for version in ProduceResponse.versions {
            for _ in 0..<60 {
                var answer = ProduceAnswer(correlationID: 5, version: version, acks: 1)
                var expected = ProduceResponse()
                for topic in 0..<random.below(4) {
                    var told = ProduceResponse.TopicProduceResponse()
                    let id = UUID(high: random.next(), low: random.next())
                    if version >= 13 { told.topicID = id } else { told.name = "topic-\(topic)" }
                    for index in 0..<(1 + random.below(3)) {
                        let (result, data) = Self.produced(&random, topic: topic, id: id, index: index, version: version)
                        _ = answer.add(result)
                        told.partitionResponses.append(data)
                    }
                    expected.responses.append(told)
                }
                var buffer = ByteBuffer()
                try answer.encode(into: &buffer)
                #expect(buffer.array == (try framed(expected, version: version, id: 5)), "version \(version)")
            }
        }
    }

    private static func produced(
        _ random: inout SeededRandom, topic: Int, id: UUID, index: Int, version: Int16
    ) -> (ProduceResult, ProduceResponse.PartitionProduceResponse) {
        var result = ProduceResult(
            topicName: "topic-\(topic)", topicID: version >= 13 ? id : .zero, beginsTopic: index == 0, index: Int32(index))
        var data = ProduceResponse.PartitionProduceResponse()
        data.index = result.index
        result.error = errors[random.below(errors.count)]
        result.baseOffset = Int64(random.below(1 << 40))
        result.logAppendTime = Int64(random.below(1 << 40)) - 1
        result.logStartOffset = Int64(random.below(1 << 40))
        data.errorCode = result.error
        data.baseOffset = result.baseOffset
        data.logAppendTimeMs = result.logAppendTime
        if version >= 5 { data.logStartOffset = result.logStartOffset }
        if random.chance(1, in: 3) {
            result.message = "why \(random.below(9))"
            if version >= 8 { data.errorMessage = result.message }
        }
        for place in 0..<random.below(3) {
            result.recordErrors.append(RecordError(batchIndex: Int32(place), message: "record \(place)"))
            guard version >= 8 else { continue }
            var fault = ProduceResponse.BatchIndexAndErrorMessage()
            fault.batchIndex = Int32(place)
            fault.batchIndexErrorMessage = "record \(place)"
            data.recordErrors.append(fault)
        }
        if random.chance(1, in: 3) {
            result.currentLeader = LeaderHint(leader: 2, epoch: 4)
            if version >= 10 {
                data.currentLeader.leaderID = 2
                data.currentLeader.leaderEpoch = 4
            }
        }
        return (result, data)
    }
}

@Suite struct Outboxes {
    @Test func bytesAndFilesLeaveInTheirOrderHoweverLittleTheSocketTakes() throws {
        for seed: UInt64 in 1...40 {
            var random = SeededRandom(seed: seed)
            var outbox = Outbox()
            let socket = CappedSocket(seed: seed)
            var expected: [UInt8] = []
            var kept = 0
            for _ in 0..<200 {
                if random.chance(2, in: 3) {
                    let bytes = (0..<random.below(3000)).map { UInt8(truncatingIfNeeded: $0 + random.below(3)) }
                    outbox.bytes.append(bytes)
                    expected += bytes
                } else {
                    let file = BytesFile((0..<9000).map { UInt8(truncatingIfNeeded: $0 * 7) })
                    let (at, count) = (random.below(1000), random.below(8000))
                    outbox.append(file, at: Int64(at), count: count)
                    expected += file.content[at..<(at + count)]
                }
                socket.room = random.below(4000)
                _ = try outbox.flush(to: socket)
                kept = max(kept, outbox.pending)
                #expect(outbox.pending == expected.count - socket.sent.count)
            }
            socket.room = .max
            while try outbox.pieceIsSent(to: socket, 1 + random.below(5000)) {}
            #expect(outbox.isEmpty && socket.sent == expected, "seed \(seed)")
        }
    }

    @Test func aClientThatAlwaysLeavesALittleUnreadDoesNotMakeItGrow() throws {
        var outbox = Outbox()
        let socket = CappedSocket(seed: 1)
        outbox.bytes.append([UInt8](repeating: 1, count: 1000))
        for _ in 0..<20_000 {
            outbox.bytes.append([UInt8](repeating: 2, count: 1000))
            socket.room = 1000
            _ = try outbox.flush(to: socket)
        }
        #expect(outbox.pending == 1000)
        #expect(outbox.bytes.capacity < 1 << 19, "\(outbox.bytes.capacity) bytes for a thousand")
    }
}

@Suite struct RequestMemories {
    final class Waiter: MemoryWaiter, @unchecked Sendable {
        let loop: any EventLoop
        var granted: [Int] = []
        init(_ loop: any EventLoop) { self.loop = loop }
        func memoryGranted(_ count: Int) { granted.append(count) }
    }

    private func waiters(_ count: Int) -> (world: SimulatedWorld, all: [Waiter]) {
        let world = SimulatedWorld(seed: 1)
        let loop = world.makeHost("a").loops[0]
        return (world, (0..<count).map { _ in Waiter(loop) })
    }

    @Test func aLargeFrameIsNotOvertakenForEverBySmallOnes() {
        let (world, all) = waiters(2)
        defer { world.end() }
        let memory = RequestMemory(limit: 100)
        let (small, large) = (all[0], all[1])
        for _ in 0..<8 { #expect(memory.reserve(10, for: small)) }
        #expect(!memory.reserve(80, for: large))
        #expect(!memory.reserve(10, for: small), "small ones keep to what the large one leaves")
        for _ in 0..<6 { memory.release(10) }
        world.run(for: .seconds(1))
        #expect(large.granted == [80] && memory.inUse == 100)
        memory.release(10)
        world.run(for: .seconds(1))
        #expect(small.granted == [10] && memory.inUse == 100)
    }

    @Test func thoseWhoSendLargeFramesSlowlyHoldUpNobodyWithSmallOnes() {
        let (world, all) = waiters(3)
        defer { world.end() }
        let memory = RequestMemory(limit: 100)
        #expect(memory.reserve(40, for: all[0]) && memory.reserve(35, for: all[0]))
        #expect(!memory.reserve(20, for: all[1]), "large frames have three quarters")
        #expect(memory.isShort && memory.isShort(for: 40) && !memory.isShort(for: 12))
        for _ in 0..<2 { #expect(memory.reserve(12, for: all[2])) }
        #expect(!memory.reserve(12, for: all[2]), "all is taken")
        memory.withdraw(all[1])
        memory.withdraw(all[2])
        #expect(memory.waitingCount == 0 && !memory.isShort)
        memory.release(40)
        memory.release(35)
        memory.release(12)
        memory.release(12)
        #expect(memory.inUse == 0)
    }

    @Test func aFrameLargerThanAllThereIsGetsItsTurn() {
        let (world, all) = waiters(3)
        defer { world.end() }
        let memory = RequestMemory(limit: 100)
        let (huge, small, other) = (all[0], all[1], all[2])
        for _ in 0..<2 { #expect(memory.reserve(10, for: small)) }
        #expect(!memory.reserve(1000, for: huge))
        memory.release(10)
        world.run(for: .seconds(1))
        #expect(huge.granted == [1000] && memory.inUse == 1010)
        #expect(!memory.reserve(50, for: other), "no other large one beside it")
        memory.release(1000)
        world.run(for: .seconds(1))
        #expect(other.granted == [50] && memory.inUse == 60)
    }

    /// What small ones are given beside a huge one is counted in the limit that is told.
    @Test func whateverComesTheBoundHolds() {
        let (world, all) = waiters(4)
        defer { world.end() }
        var random = SeededRandom(seed: 5)
        let memory = RequestMemory(limit: 1000)
        var held: [Int] = []
        for _ in 0..<5000 {
            let waiter = all[random.below(4)]
            if random.chance(1, in: 2) {
                let count = random.chance(1, in: 3) ? 126 + random.below(800) : 1 + random.below(125)
                if memory.reserve(count, for: waiter) { held.append(count) }
            } else if !held.isEmpty {
                memory.release(held.remove(at: random.below(held.count)))
            }
            world.run(for: .milliseconds(1))
            for waiter in all {
                held += waiter.granted
                waiter.granted = []
            }
            #expect(memory.inUse == held.reduce(0, +) && memory.inUse <= 1125)
        }
        for count in held { memory.release(count) }
        for _ in 0..<10_000 where memory.inUse > 0 {
            world.run(for: .milliseconds(1))
            for waiter in all {
                for count in waiter.granted { memory.release(count) }
                waiter.granted = []
            }
        }
        #expect(memory.inUse == 0 && memory.waitingCount == 0)
    }
}

@Suite struct FramePools {
    @Test func aPoolKeepsFewBuffersAndNoneThatIsLarge() {
        var pool = FrameBufferPool()
        pool.give(FrameBuffer(size: FrameBufferPool.keptSizeLimit + 1))
        #expect(pool.count == 0)
        for _ in 0..<100 { pool.give(FrameBuffer(size: 1000)) }
        #expect(pool.count == FrameBufferPool.keptLimit)
        let reused = pool.take(size: 900)
        #expect(reused.size == 900 && reused.filled == 0 && reused.users == 1 && pool.count == FrameBufferPool.keptLimit - 1)
        let larger = pool.take(size: 100_000)
        #expect(larger.size == 100_000 && larger.bytes.count == 100_000)
    }
}

@Suite struct FetchSessions {
    private func target(_ name: String, _ partition: Int32, offset: Int64 = 0) -> FetchTarget {
        FetchTarget(
            topicName: name, topicID: .zero, partition: partition, fetchOffset: offset, maxBytes: 1, currentLeaderEpoch: -1,
            lastFetchedEpoch: -1,
            logStartOffset: -1)
    }

    private func refusal(_ found: FetchSessionCache.Found) -> ErrorCode? {
        if case .refused(let error) = found { error } else { nil }
    }

    @Test func aSessionIsUsedByOneRequestAtATimeInTheOrderOfItsEpochs() throws {
        let cache = FetchSessionCache(slots: 10, memory: FetchMemory(limit: 1 << 20), seed: 1)
        let now = Instant(nanoseconds: 0)
        let session = try #require(cache.create([target("t", 0)], usesTopicIDs: false, now: now))
        #expect(refusal(cache.use(session.id, epoch: 1, usesTopicIDs: false, now: now)) == .invalidFetchSessionEpoch, "in use")
        cache.release(session)
        #expect(refusal(cache.use(session.id, epoch: 2, usesTopicIDs: false, now: now)) == .invalidFetchSessionEpoch)
        #expect(refusal(cache.use(session.id, epoch: 1, usesTopicIDs: true, now: now)) == .fetchSessionTopicIDError)
        #expect(refusal(cache.use(session.id &+ 1, epoch: 1, usesTopicIDs: false, now: now)) == .fetchSessionIDNotFound)
        #expect(refusal(cache.use(session.id, epoch: 1, usesTopicIDs: false, now: now)) == nil)
        cache.release(session)
        #expect(refusal(cache.use(session.id, epoch: 1, usesTopicIDs: false, now: now)) == .invalidFetchSessionEpoch, "twice")
        #expect(refusal(cache.use(session.id, epoch: 2, usesTopicIDs: false, now: now)) == nil)
        cache.remove(session.id)
        #expect(refusal(cache.use(session.id, epoch: 3, usesTopicIDs: false, now: now)) == .fetchSessionIDNotFound)
        #expect(cache.count == 0)
    }

    @Test func aFullCacheGivesUpTheLongestUnusedAndNoneInUse() throws {
        let cache = FetchSessionCache(slots: 2, memory: FetchMemory(limit: 1 << 20), seed: 1)
        let start = Instant(nanoseconds: 0)
        let busy = try #require(cache.create([], usesTopicIDs: false, now: start))
        let old = try #require(cache.create([], usesTopicIDs: false, now: start))
        cache.release(old)
        #expect(cache.create([], usesTopicIDs: false, now: start + FetchSessionCache.evictionAge) == nil)
        let late = start + FetchSessionCache.evictionAge + .seconds(1)
        #expect(cache.create([], usesTopicIDs: false, now: late) != nil)
        #expect(refusal(cache.use(old.id, epoch: 1, usesTopicIDs: false, now: late)) == .fetchSessionIDNotFound)
        #expect(cache.create([], usesTopicIDs: false, now: late) == nil)
        cache.release(busy)
        #expect(refusal(cache.use(busy.id, epoch: 1, usesTopicIDs: false, now: late)) == nil)
        #expect(cache.count == 2)
        let none = FetchSessionCache(slots: 0, memory: FetchMemory(limit: 1 << 20), seed: 1)
        #expect(none.create([], usesTopicIDs: false, now: start) == nil)
    }

    @Test func aRequestOfChangesMovesAddsAndForgetsAndKeepsWhatWasTold() throws {
        let cache = FetchSessionCache(slots: 2, memory: FetchMemory(limit: 1 << 20), seed: 1)
        let session = try #require(
            cache.create((0..<5).map { target("t", $0) }, usesTopicIDs: false, now: Instant(nanoseconds: 0)))
        session.targets[1].toldHighWatermark = 7
        session.update(
            [target("t", 1, offset: 9), target("u", 0), target("u", 0, offset: 3)],
            forgotten: [target("t", 0), target("nowhere", 0)])
        #expect(session.targets.map(\.topicName) == ["t", "t", "t", "t", "u"])
        #expect(session.targets[0].fetchOffset == 9 && session.targets[0].toldHighWatermark == 7)
        #expect(session.targets[4].fetchOffset == 3)
        session.rotate([0, 2])
        #expect(session.targets.map(\.partition) == [2, 4, 0, 1, 3])
    }
}
