import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

@Suite struct LogHousekeepingTests {
    @Test func segmentsRollBySizeAgeAndFullIndexes() throws {
        let world = LogWorld(seed: 1)
        world.config.segmentBytes = 1000
        world.config.segmentMs = 10_000
        let log = try world.create()
        // by size: no segment is larger than it may be
        for _ in 0..<40 { try log.append(batch([String(repeating: "x", count: 100)], at: 1_000)) }
        #expect(log.segmentCount == 8)
        // by the records' time, as in a replay
        var count = log.segmentCount
        try log.append(batch(["young"], at: 11_000))
        #expect(log.segmentCount == count)
        try log.append(batch(["old"], at: 11_001))
        count += 1
        #expect(log.segmentCount == count)
        // by full indexes: 4096 bytes are 512 offsets and 341 times
        world.config.segmentBytes = 1 << 30
        world.config.indexIntervalBytes = 0
        let other = LogWorld(seed: 2)
        other.config.indexIntervalBytes = 0
        let many = try other.create()
        for index in 0..<700 { try many.append(batch(["x"], at: Int64(index))) }
        #expect(many.segmentCount == 3)
        #expect(try many.records().count == 700)
        #expect(throws: LogError.self) { try log.append(batch([String(repeating: "y", count: 2000)])) }
    }

    @Test func retentionByTimeTakesWholeSegmentsWhoseYoungestRecordIsTooOld() throws {
        let world = LogWorld(seed: 3)
        world.config.segmentBytes = 200
        world.config.retentionMs = 1_000
        let log = try world.create()
        for index in 0..<20 { try log.append(batch(["v\(index)"], at: Int64(index) * 100)) }
        let total = log.segmentCount
        #expect(try log.applyRetention(now: 1_000, highWatermark: 20).isEmpty)
        // nothing above the high watermark goes
        let some = try log.applyRetention(now: 2_000, highWatermark: 5)
        #expect(log.logStartOffset > 0 && log.logStartOffset <= 5)
        let removed = try log.applyRetention(now: 2_000, highWatermark: 20)
        #expect(some.count == 1 && removed.count == 1 && removed[0].reason == .time)
        #expect(log.segmentCount == total - some[0].baseOffsets.count - removed[0].baseOffsets.count)
        #expect(try log.records().first == "\(log.logStartOffset):v\(log.logStartOffset)")
        #expect(throws: LogError.self) { try log.read(from: 0, maxBytes: 1, limit: 20, firstBatchWhole: true) }
        for path in some[0].paths + removed[0].paths {
            #expect(path.hasSuffix(".deleted"))
            #expect(try world.disk.status(path) != nil)
            try world.disk.remove(path)
        }
        // when all are too old, the log goes on with an empty segment
        _ = try log.applyRetention(now: 1_000_000, highWatermark: 20)
        #expect(log.segmentCount == 1 && log.logStartOffset == 20 && log.logEndOffset == 20)
        try log.append(batch(["new"], at: 1_000_000))
        #expect(try log.records() == ["20:new"])
        world.crash(powerCut: false)
        #expect(try world.open().records() == ["20:new"])
    }

    @Test func retentionBySizeKeepsAtLeastTheBytesAskedFor() throws {
        let world = LogWorld(seed: 4)
        world.config.segmentBytes = 300
        world.config.retentionMs = -1
        world.config.retentionBytes = 1_000
        let log = try world.create()
        for index in 0..<40 { try log.append(batch(["value-\(index)"])) }
        let removed = try log.applyRetention(now: 0, highWatermark: 40)
        #expect(removed.map(\.reason) == [.size])
        #expect(log.size >= 1_000 && log.size < 1_300)
        #expect(try log.records().last == "39:value-39")
        world.config.cleanupPolicy = .compact
        log.config.cleanupPolicy = .compact
        log.config.retentionBytes = 0
        #expect(try log.applyRetention(now: 0, highWatermark: 40).isEmpty)
    }

    @Test func deletedRecordsAreGoneAtOnceAndTheirSegmentsWithTheNextRetention() throws {
        let world = LogWorld(seed: 5)
        world.config.segmentBytes = 300
        let log = try world.create()
        for index in 0..<30 { try log.append(batch(["a\(index)", "b\(index)"], at: 1_000)) }
        #expect(try log.advanceLogStart(to: 31))
        #expect(try !log.advanceLogStart(to: 30))
        #expect(throws: LogError.self) { try log.advanceLogStart(to: 61) }
        // the batch that holds the start is given whole: consumers drop its head
        #expect(try log.records().first == "30:a15")
        #expect(throws: LogError.self) { try log.read(from: 30, maxBytes: 1, limit: 60, firstBatchWhole: true) }
        let removed = try log.applyRetention(now: 1_000, highWatermark: 60)
        #expect(removed.map(\.reason) == [.logStart] && log.logStartOffset == 31)
        world.crash(powerCut: false)
        let again = try world.open(logStart: 31)
        #expect(again.logStartOffset == 31 && again.logEndOffset == 60)
        #expect(try again.records().first == "30:a15")
    }

    @Test func aTruncatedLogIsAsIfTheRestHadNeverBeen() throws {
        for seed in UInt64(1)...40 {
            let world = LogWorld(seed: seed)
            world.config.segmentBytes = 500
            let twin = LogWorld(seed: seed)
            twin.config.segmentBytes = 500
            let log = try world.create()
            var random = SeededRandom(seed: seed)
            var parts: [(values: [String], time: Int64, epoch: LeaderEpoch, sequence: Int32)] = []
            var sequence: Int32 = 0
            for index in 0..<40 {
                let values = (0...random.below(3)).map { "v\(index).\($0)" }
                parts.append((values, Int64(random.below(1000)), LeaderEpoch(index / 10), sequence))
                sequence += Int32(values.count)
            }
            func append(
                _ log: PartitionLog, _ part: (values: [String], time: Int64, epoch: LeaderEpoch, sequence: Int32)
            ) throws {
                let identity = BatchIdentity(producerID: 1, epoch: 0, baseSequence: part.sequence)
                try log.append(batch(part.values, at: part.time, identity: identity), epoch: part.epoch)
            }
            for part in parts { try append(log, part) }
            let offset = Offset(random.below(Int(log.logEndOffset)))
            let end = try log.truncate(to: offset)
            let kept = parts.prefix { Int64($0.sequence) + Int64($0.values.count) <= offset }
            #expect(end == kept.reduce(0) { $0 + Int64($1.values.count) } && end <= offset, "seed \(seed)")
            let reference = try twin.create()
            for part in kept { try append(reference, part) }
            // both go on in the same way
            for part in parts[kept.count...].prefix(5) {
                try append(log, part)
                try append(reference, part)
            }
            #expect(try log.batches() == reference.batches(), "seed \(seed)")
            #expect(log.epochs == reference.epochs, "seed \(seed)")
            #expect(log.producers.producers == reference.producers.producers, "seed \(seed)")
            var search = TimeSearch(contexts: CodecContexts())
            for time in stride(from: Int64(0), to: 1000, by: 90) {
                #expect(
                    try log.firstOffset(atOrAfter: time, limit: log.logEndOffset, &search)
                        == reference.firstOffset(atOrAfter: time, limit: log.logEndOffset, &search),
                    "seed \(seed), time \(time)")
            }
            let records = try log.records()
            try log.close(clean: true)
            #expect(
                try world.open(clean: true, recoveryPoint: Offset(records.count)).records() == records, "seed \(seed)")
        }
    }

    @Test func aTruncationAfterAGapEndsWhereTheFilesDo() throws {
        for seed in UInt64(1)...40 {
            // a follower takes a compacted log with the gaps that it has
            let world = LogWorld(seed: seed)
            world.config.cleanupPolicy = .compact
            let log = try world.create()
            var random = SeededRandom(seed: seed)
            var ends: [Offset] = [0]
            for index in 0..<40 {
                let values = (0...random.below(3)).map { "v\(index).\($0)" }
                let offset = log.logEndOffset + Offset(random.below(4))
                let fetched = batch(values, offset: offset, epoch: 3)
                #expect(try log.reserveAsFollower(UnsafeRawBufferPointer(fetched.all)) != nil)
                try log.writeReserved()
                ends.append(log.logEndOffset)
            }
            try log.sync(world.disk)
            let offset = Offset(random.below(Int(log.logEndOffset)))
            let kept = ends.last { $0 <= offset }!
            #expect(try log.endAfterTruncating(to: offset) == kept && log.truncate(to: offset) == kept, "seed \(seed)")
            let records = try log.records()
            try log.sync(world.disk)
            #expect(log.offsets.durable == kept, "seed \(seed)")
            world.crash(powerCut: true)
            let again = try world.open(bound: kept)
            #expect(try again.logEndOffset == kept && again.records() == records, "seed \(seed)")
        }
    }

    @Test func aLogThatBeginsAgainIsEmptyAtItsNewStart() throws {
        let world = LogWorld(seed: 6)
        world.config.segmentBytes = 300
        let log = try world.create()
        for index in 0..<30 { try log.append(batch(["v\(index)"]), epoch: 2) }
        try log.truncateFully(startingAt: 1_000)
        #expect(
            log.logStartOffset == 1_000 && log.logEndOffset == 1_000 && log.latestEpoch == nil && log.segmentCount == 1)
        try log.append(batch(["new"]), epoch: 5)
        #expect(try log.records() == ["1000:new"])
        world.crash(powerCut: false)
        let again = try world.open()
        #expect(try again.records() == ["1000:new"])
        #expect(again.logStartOffset == 1_000 && again.latestEpoch == 5)
        // below the start: the same
        try again.truncate(to: 7)
        #expect(again.logStartOffset == 7 && again.logEndOffset == 7)
    }

    @Test func recordsAreFoundByTheirTime() throws {
        for seed in UInt64(1)...20 {
            let world = LogWorld(seed: seed)
            world.config.segmentBytes = 800
            world.config.segmentMs = .max
            let log = try world.create()
            var random = SeededRandom(seed: seed)
            var times: [Int64] = []
            for _ in 0..<60 {
                let time = Int64(random.below(500))
                let count = 1 + random.below(4)
                let codec = CompressionCodec.allCases[random.below(5)]
                let values = (0..<count).map { "x\($0)" }
                try log.append(batch(values, at: time, step: 7, codec: codec), epoch: 1)
                times += (0..<count).map { time + Int64($0) * 7 }
            }
            var search = TimeSearch(contexts: CodecContexts())
            func check(_ log: PartitionLog) throws {
                for wanted in stride(from: Int64(0), through: 540, by: 13) {
                    let expected = times.firstIndex { $0 >= wanted }.map {
                        TimestampedOffset(timestamp: times[$0], offset: Offset($0), leaderEpoch: 1)
                    }
                    #expect(
                        try log.firstOffset(atOrAfter: wanted, limit: log.logEndOffset, &search) == expected,
                        "seed \(seed), time \(wanted)")
                }
                let most = times.max()!
                #expect(try log.offsetOfMaxTimestamp(&search)?.timestamp == most, "seed \(seed)")
                #expect(
                    try log.offsetOfMaxTimestamp(&search)?.offset == times.firstIndex(of: most).map { Offset($0) },
                    "seed \(seed)")
                #expect(try log.firstOffset(atOrAfter: 0, limit: 0, &search) == nil)
            }
            try check(log)
            try log.close(clean: true)
            try check(try world.open(clean: true, recoveryPoint: Offset(times.count)))
        }
    }

    @Test func aReadNeverPassesItsLimitAndEndsWhereItWasAsked() throws {
        for seed in UInt64(1)...10 {
            let world = LogWorld(seed: seed)
            world.config.segmentBytes = 900
            let log = try world.create()
            var random = SeededRandom(seed: seed)
            while log.logEndOffset < 150 {
                try log.append(
                    batch(
                        (0...random.below(5)).map {
                            "\(log.logEndOffset)-\($0)" + String(repeating: "z", count: random.below(60))
                        }))
            }
            let end = log.logEndOffset
            let headers = try log.batches().map { $0.withUnsafeBytes { BatchHeader($0) } }
            for _ in 0..<300 {
                let offset = Offset(random.below(Int(end)))
                let limit = Offset(random.below(Int(end) + 1))
                let maxBytes = random.below(1500)
                let whole = random.chance(1, in: 2)
                let slice = try log.read(from: offset, maxBytes: maxBytes, limit: limit, firstBatchWhole: whole)
                let first = headers.first { $0.lastOffset >= offset }!
                guard first.lastOffset < limit, offset < limit, whole || maxBytes > 0 else {
                    #expect(slice.isEmpty, "seed \(seed)")
                    continue
                }
                #expect(
                    slice.firstBatchBaseOffset == first.baseOffset && slice.firstBatchSize == first.totalSize,
                    "seed \(seed)")
                #expect(slice.count <= max(maxBytes, whole ? first.totalSize : 0), "seed \(seed)")
                let bytes = try log.bytes(slice)
                // all that is whole lies below the limit; what is cut was cut by the size alone
                var position = 0
                while bytes.count - position >= BatchHeader.size {
                    let header = bytes[position...].withUnsafeBytes { BatchHeader($0) }
                    #expect(header.lastOffset < limit, "seed \(seed)")
                    position += header.totalSize
                }
                if position < bytes.count || position > bytes.count {
                    #expect(bytes.count == max(maxBytes, whole ? first.totalSize : 0), "seed \(seed)")
                }
                let upTo = try log.byteCount(from: offset, to: limit)
                #expect(upTo >= Int64(min(slice.count, Int(upTo))) && upTo > 0, "seed \(seed)")
            }
            #expect(throws: LogError.self) {
                try log.read(from: end + 1, maxBytes: 1, limit: end, firstBatchWhole: true)
            }
            #expect(try log.read(from: end, maxBytes: 1, limit: end, firstBatchWhole: true).isEmpty)
        }
    }

    @Test func tenThousandSmallAppendsAreSoonDoneAndSoundForKafka() throws {
        let disk = RealDisk()
        let top = try KafkaData.temporaryFolder()
        defer { try? disk.removeTree(top) }
        let world = LogWorld(
            disk: disk, folder: top + "/log/speed-0", partition: TopicPartition("speed", 0), cutDirectory: top + "/cut")
        world.config.segmentBytes = 300_000
        world.config.segmentIndexBytes = 65_536
        let log = try PartitionLog.create(world.parameters, topicID: UUID(high: 1, low: 2))
        let clock = ContinuousClock()
        let part = batch([String(repeating: "v", count: 40)], at: 1_000)
        let taken = try clock.measure {
            for _ in 0..<10_000 { try log.append(part) }
        }
        #expect(taken < .seconds(10), "\(taken)")
        #expect(try log.records().count == 10_000)
        for round in 0..<20 {
            let sequence = Int32(round * 2)
            let identity = BatchIdentity(producerID: 3, epoch: 0, baseSequence: sequence, isTransactional: true)
            try log.append(batch(["t", "u"], at: 2_000, codec: .zstd, identity: identity))
            try log.append(marker(round % 2 == 0 ? .abort : .commit, producer: 3, at: 2_000), origin: .coordinator)
        }
        try log.close(clean: true)
        guard KafkaData.isThere else { return }
        let directory = top + "/log"
        var ends = OffsetCheckpoint()
        ends[world.partition] = log.logEndOffset
        try disk.replace(directory + "/recovery-point-offset-checkpoint", with: ends.encode())
        try disk.replace(directory + "/replication-offset-checkpoint", with: ends.encode())
        for name in ["log-start-offset-checkpoint", "cleaner-offset-checkpoint"] {
            try disk.replace("\(directory)/\(name)", with: Array("0\n0\n".utf8))
        }
        try disk.replace(
            directory + "/meta.properties",
            with: Array(
                "#\n#Sat Nov 21 11:28:26 UTC 2026\nversion=0\nbroker.id=1\ncluster.id=AAAAAAAAAAAAAAAAAAAAAA\n".utf8))
        try disk.replace(
            directory + "/" + CleanShutdownMarker.fileName, with: CleanShutdownMarker.encode(brokerEpoch: -1))
        try KafkaData.expectSound([directory])
    }
}
