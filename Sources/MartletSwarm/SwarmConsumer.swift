import MartletBasics
import MartletChecker
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire

/// Reads a topic, and records what it saw.
final class SwarmConsumer: @unchecked Sendable {
    private static let fetchVersion: Int16 = 12
    private static let listVersion: Int16 = 6
    private static let epochVersion: Int16 = 4
    private static let bytesLimit: Int32 = 1 << 20

    struct Manner {
        var keepsSessions = false
        var waitsLong = false
        var isCommitted = false
    }

    private let stage: Stage
    private let client: SimulatedClient
    private let topicIndex: Int
    private let manner: Manner
    private let contexts = CodecContexts()
    private var positions: [Int64] = []
    private var random: SeededRandom
    private var session: (id: Int32, epoch: Int32) = (0, 0)
    /// What the session was told, by partition.
    private var sessionPositions: [Int64?] = []

    private var record: Recorder { stage.record }
    private var topic: StageTopic { stage.topics[topicIndex] }
    private var name: String { client.name }

    init(_ stage: Stage, _ client: SimulatedClient, topic: Int, manner: Manner, random: SeededRandom) {
        self.stage = stage
        self.client = client
        topicIndex = topic
        self.manner = manner
        self.random = random
    }

    func run() async {
        while !stage.isOver {
            do throws(ClientFault) {
                if !client.isConnected {
                    try await client.connect(to: stage.broker)
                    forgetSession()
                }
                while positions.count < Int(topic.partitions) { positions.append(0) }
                // one that has read all now and then begins again: what it saw must still be there
                if random.chance(1, in: 24) {
                    positions = positions.map { _ in 0 }
                    for partition in positions.indices { positions[partition] = try await start(of: partition) ?? 0 }
                }
                if random.chance(1, in: 6) { try await list(random.below(positions.count)) }
                if random.chance(1, in: 8) { try await askEpoch(random.below(positions.count)) }
                let wait = manner.waitsLong && random.chance(1, in: 3) ? 500 + random.below(9_000) : random.below(40)
                _ = try await read(Array(positions.indices), waitMilliseconds: Int32(wait))
            } catch {
                stage.note(error, of: name)
            }
            await stage.rest(client.loop, &random)
        }
        client.close()
    }

    private func forgetSession() {
        session = (0, 0)
        sessionPositions = []
    }

    // MARK: Fetching

    private func request(_ partitions: [Int], waitMilliseconds: Int32) -> FetchRequest {
        var asked = FetchRequest.FetchTopic()
        asked.topic = topic.name
        var told = partitions
        if manner.keepsSessions {
            while sessionPositions.count < positions.count { sessionPositions.append(nil) }
            if session.id != 0 { told = partitions.filter { sessionPositions[$0] != positions[$0] } }
        }
        asked.partitions = told.map { index in
            var part = FetchRequest.FetchPartition()
            part.partition = Int32(index)
            part.fetchOffset = positions[index]
            part.partitionMaxBytes = Self.bytesLimit
            return part
        }
        var request = FetchRequest()
        request.maxWaitMs = waitMilliseconds
        request.minBytes = 1
        request.maxBytes = Self.bytesLimit
        request.isolationLevel = manner.isCommitted ? 1 : 0
        request.topics = asked.partitions.isEmpty ? [] : [asked]
        if manner.keepsSessions {
            request.sessionID = session.id
            request.sessionEpoch = session.epoch
            for index in told { sessionPositions[index] = positions[index] }
        }
        return request
    }

    /// False where some partition could not be read.
    private func read(_ partitions: [Int], waitMilliseconds: Int32) async throws(ClientFault) -> Bool {
        let asked = record.now
        let from = positions
        let response = try await client.ask(request(partitions, waitMilliseconds: waitMilliseconds), version: Self.fetchVersion)
        guard response.errorCode == .none else {
            let passing: [ErrorCode] = [.fetchSessionIDNotFound, .invalidFetchSessionEpoch]
            guard manner.keepsSessions, passing.contains(response.errorCode) else {
                throw .malformed("a fetch was answered with \(response.errorCode)")
            }
            forgetSession()
            return false
        }
        if manner.keepsSessions {
            session = response.sessionID == 0 ? (0, 0) : (response.sessionID, session.epoch + 1)
            if response.sessionID == 0 { sessionPositions = [] }
        }
        var isWhole = true
        for part in response.responses.flatMap(\.partitions) {
            let index = Int(part.partitionIndex)
            guard positions.indices.contains(index) else { throw .malformed("partition \(part.partitionIndex)") }
            switch part.errorCode {
            case .none: isWhole = try take(part, from: from[index], asked: asked) && isWhole
            case .offsetOutOfRange:
                isWhole = false
                record.note(.outOfRange(consumer: name, place: Place(topic.name, index), asked: asked, from: from[index]))
                positions[index] = try await start(of: index) ?? positions[index]
            case let error:
                isWhole = false
                refused(error, Place(topic.name, index))
            }
        }
        return isWhole
    }

    private func refused(_ error: ErrorCode, _ place: Place) {
        if error == .kafkaStorageError, record.damaged.contains(place) {
            record.damageDetectedCount += 1
        } else if !Self.passing.contains(error), !(error == .kafkaStorageError && stage.mayStorageFail(place)) {
            record.broken("\(name): a fetch of \(place) was answered with \(error)")
        }
    }

    /// What is told of a partition that is not made yet, or not led yet.
    private static let passing: Set<ErrorCode> = [.unknownTopicOrPartition, .leaderNotAvailable, .notLeaderOrFollower]

    /// False where the bytes are damaged.
    private func take(
        _ part: FetchResponse.PartitionData, from: Int64, asked: Int64
    ) throws(ClientFault) -> Bool {
        let place = Place(topic.name, Int(part.partitionIndex))
        var bytes: [UInt8] = []
        if case .owned(let owned) = part.records { bytes = owned }
        var aborted = try AbortedTransactions(part.abortedTransactions)
        var seen: [SeenRecord] = []
        var isSound = true
        var position = from
        bytes.withUnsafeBytes { bytes in
            var walker = BatchWalker(bytes, checkingChecksums: true)
            walk: while true {
                switch walker.next() {
                case .batch(let at, let header):
                    guard header.nextOffset > position else { continue }
                    judge(header, after: position, in: part)
                    let whole = UnsafeRawBufferPointer(rebasing: bytes[at..<at + header.totalSize])
                    if !isHidden(header, whole, &aborted) {
                        seen += records(in: whole, header, place).filter { $0.offset >= from }
                    }
                    position = header.nextOffset
                case .end, .partial: break walk
                case .corrupt(let fault):
                    // also where they were damaged on the disk: what is sent was checked before
                    isSound = false
                    record.broken("\(place) was read from \(position), and its bytes are damaged: \(fault)")
                    break walk
                }
            }
        }
        positions[Int(part.partitionIndex)] = position
        record.note(
            .saw(
                SeenPart(
                    consumer: name, place: place, asked: asked, from: from, records: seen, highWatermark: part.highWatermark,
                    logStart: part.logStartOffset, lastStable: manner.isCommitted ? part.lastStableOffset : nil,
                    isCommitted: manner.isCommitted)))
        return isSound
    }

    /// Whether a batch may stand here, and be given.
    private func judge(_ header: BatchHeader, after position: Int64, in part: FetchResponse.PartitionData) {
        let place = Place(topic.name, Int(part.partitionIndex))
        if topic.isCompacted {
            if header.baseOffset > position || header.nextOffset - header.baseOffset > Int64(header.recordCount) {
                record.gapsCount += 1
            }
        } else if header.baseOffset > position, !record.damaged.contains(place) {
            record.broken("\(place) was read from \(position), and the next batch begins at \(header.baseOffset)")
        }
        if header.nextOffset > part.highWatermark {
            record.broken("\(place) gave offset \(header.lastOffset), with a high watermark of \(part.highWatermark)")
        }
        if manner.isCommitted, header.nextOffset > part.lastStableOffset {
            record.broken(
                "\(place) gave offset \(header.lastOffset), with a last stable offset of \(part.lastStableOffset)")
        }
    }

    /// Whether its records are none that the reader is to see.
    private func isHidden(
        _ header: BatchHeader, _ batch: UnsafeRawBufferPointer, _ aborted: inout AbortedTransactions
    ) -> Bool {
        guard manner.isCommitted else { return header.isControl }
        do {
            return try aborted.hides(header, UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...]))
        } catch {
            record.broken("a control batch at offset \(header.baseOffset) of \(topic.name) cannot be read: \(error)")
            return true
        }
    }

    private func records(in batch: UnsafeRawBufferPointer, _ header: BatchHeader, _ place: Place) -> [SeenRecord] {
        var output = ByteBuffer()
        var seen: [SeenRecord] = []
        do {
            guard let codec = header.codec else { return [SeenRecord(header.baseOffset, "of no codec")] }
            try contexts.decompress(
                UnsafeRawBufferPointer(rebasing: batch[BatchHeader.size...]), codec: codec, into: &output, limit: 1 << 20)
            var cursor = RecordCursor(output.bytes, count: header.recordCount)
            while let one = try cursor.next() {
                var name = cursor.bytes(in: one.value).flatMap { RecordName($0) }
                if !one.hasValue {
                    // a tombstone has its name beside it
                    for given in cursor.headers(of: one) { name = cursor.bytes(in: given.value).flatMap { RecordName($0) } }
                }
                seen.append(SeenRecord(header.baseOffset + Int64(one.offsetDelta), name?.text ?? "unreadable"))
            }
        } catch {
            record.broken("a batch at offset \(header.baseOffset) of \(place) cannot be read: \(error)")
        }
        return seen
    }

    // MARK: Asking for offsets

    private func offset(of partition: Int, at timestamp: Int64) async throws(ClientFault) -> Int64? {
        let (error, offset) = try await client.offset(of: topic.name, Int32(partition), at: timestamp)
        return error == .none ? offset : nil
    }

    private func start(of partition: Int) async throws(ClientFault) -> Int64? {
        let asked = record.now
        guard let start = try await offset(of: partition, at: -2) else { return nil }
        record.note(.listed(consumer: name, place: Place(topic.name, partition), asked: asked, start: start, end: nil))
        return start
    }

    private func list(_ partition: Int) async throws(ClientFault) {
        if random.chance(1, in: 3) {
            _ = try await start(of: partition)
        } else {
            let asked = record.now
            guard let end = try await offset(of: partition, at: -1) else { return }
            record.note(.listed(consumer: name, place: Place(topic.name, partition), asked: asked, start: nil, end: end))
        }
    }

    /// Where an epoch ends: never before what was acknowledged in it, and never before its start.
    private func askEpoch(_ partition: Int) async throws(ClientFault) {
        var part = OffsetForLeaderEpochRequest.OffsetForLeaderPartition()
        part.partition = Int32(partition)
        part.leaderEpoch = Int32(random.below(6))
        var asked = OffsetForLeaderEpochRequest.OffsetForLeaderTopic()
        asked.topic = topic.name
        asked.partitions = [part]
        var request = OffsetForLeaderEpochRequest()
        request.topics = [asked]
        let response = try await client.ask(request, version: Self.epochVersion)
        guard let answer = response.topics.first?.partitions.first else { throw .malformed("no answer for the partition") }
        guard answer.errorCode == .none, answer.endOffset >= 0 else { return }
        if answer.leaderEpoch > part.leaderEpoch {
            record.broken(
                "asked where epoch \(part.leaderEpoch) of \(topic.name)-\(partition) ends, and was told of "
                    + "\(answer.leaderEpoch)")
        }
    }

    // MARK: The end

    /// Reads all that there is, when nobody writes any more; false while the broker does not serve it all, or an open
    /// transaction holds back who reads what is committed.
    func readToTheEnd() async throws(ClientFault) -> Bool {
        precondition(!manner.keepsSessions, "the last reader asks for all")
        while positions.count < Int(topic.partitions) { positions.append(0) }
        for partition in positions.indices {
            let place = Place(topic.name, partition)
            guard let end = try await offset(of: partition, at: -1), let start = try await start(of: partition) else {
                if record.damaged.contains(place) { continue }
                return false
            }
            positions[partition] = start
            var isReadable = true
            while isReadable, positions[partition] < end {
                let before = positions[partition]
                let isWhole = try await read([partition], waitMilliseconds: 0)
                if record.damaged.contains(place) {
                    isReadable = isWhole && positions[partition] > before
                    continue
                }
                guard isWhole else { return false }
                if positions[partition] == before {
                    guard !manner.isCommitted else { return false }
                    record.broken("\(place) ends at offset \(end), and a fetch from \(before) gives nothing")
                    isReadable = false
                }
            }
            if isReadable { record.note(.whole(consumer: name, place: place, start: start, end: end)) }
        }
        return true
    }
}
