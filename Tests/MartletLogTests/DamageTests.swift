import MartletBasics
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// What lies on the disk is not what was written there, and somebody reads it.
@Suite struct DamageThatIsMetWhileServing {
    /// A log of many segments that was closed cleanly, and its batches.
    private func stopped(seed: UInt64, records: Int = 60, segmentBytes: Int32 = 700) throws -> (LogWorld, [[UInt8]]) {
        let world = LogWorld(seed: seed)
        world.config.segmentBytes = segmentBytes
        let log = try world.create()
        for index in 0..<records {
            let value = "v\(index)" + String(repeating: "x", count: index % 40)
            try log.append(batch([value], at: Int64(1000 + index)), epoch: LeaderEpoch(index / 20))
        }
        let batches = try log.batches()
        try log.close(clean: true)
        return (world, batches)
    }

    private func segments(_ world: LogWorld) throws -> [Offset] {
        try world.disk.list(world.folder).compactMap { SegmentFile.parse($0) }.filter { $0.kind == .log && $0.suffix.isEmpty }
            .map(\.baseOffset).sorted()
    }

    /// Reads as a fetch does: what was not checked is checked first, and read again.
    private func fetch(_ log: PartitionLog, from offset: Offset, maxBytes: Int = 1 << 20) throws -> LogSlice {
        for _ in 0..<3 {
            let slice = try log.read(from: offset, maxBytes: maxBytes, limit: log.logEndOffset, firstBatchWhole: true)
            guard slice.needsCheck else { return slice }
            try log.noteChecked(try #require(slice.check()))
        }
        Issue.record("what was checked is not remembered")
        return try log.read(from: offset, maxBytes: maxBytes, limit: log.logEndOffset, firstBatchWhole: true)
    }

    @Test func aBatchThatRottedSinceACleanStopIsFoundBeforeItIsServed() throws {
        for seed in UInt64(1)...40 {
            let (world, batches) = try stopped(seed: seed)
            var random = SeededRandom(seed: seed)
            let end = batches.last!.withUnsafeBytes { BatchHeader($0).nextOffset }
            let bases = try segments(world)
            // the last segment is read at the start, so that damage there is met by another
            let base = bases[random.below(bases.count - 1)]
            let path = world.path(.log, base)
            let byte = Int64(random.below(Int(try world.sizeOf(path))))
            world.host!.files.flipBits(path, in: byte..<byte + 1)
            let log = try world.open(clean: true, recoveryPoint: end, bound: end)
            var offset: Offset = 0
            var found: LogError?
            var served: [[UInt8]] = []
            while offset < end {
                let slice: LogSlice
                do throws(LogError) {
                    slice = try log.read(from: offset, maxBytes: 300, limit: end, firstBatchWhole: true)
                    if slice.needsCheck, let verdict = slice.check() { try log.noteChecked(verdict) }
                } catch {
                    found = error
                    break
                }
                let bytes = try log.bytes(slice)
                var position = 0
                while bytes.count - position >= BatchHeader.size {
                    let header = bytes[position...].withUnsafeBytes { BatchHeader($0) }
                    guard header.totalSize <= bytes.count - position else { break }
                    served.append(Array(bytes[position..<position + header.totalSize]))
                    position += header.totalSize
                    offset = header.nextOffset
                }
            }
            if let found {
                guard case .damagedBelowDurable(path, let offset, _, _) = found else {
                    Issue.record("seed \(seed): \(found)")
                    continue
                }
                #expect(served == Array(batches[..<served.count]), "seed \(seed): nothing damaged was served")
                #expect(offset >= base && offset <= Offset(served.count) + 8, "seed \(seed): \(offset)")
                #expect("\(found)".contains("martlet log verify --repair \(world.folder)"))
            } else {
                // a leader epoch is covered by nothing
                let changed = zip(served, batches).filter { $0 != $1 }
                #expect(served.count == batches.count && changed.count == 1, "seed \(seed)")
                #expect(changed.allSatisfy { $0[..<12] == $1[..<12] && $0[16...] == $1[16...] }, "seed \(seed)")
            }
        }
    }

    @Test func whatWasWrittenOrRecoveredInThisLifeIsNotReadTwice() throws {
        let world = LogWorld(seed: 3)
        world.config.segmentBytes = 700
        let log = try world.create()
        for index in 0..<30 { try log.append(batch(["v\(index)"])) }
        #expect(try log.read(from: 0, maxBytes: 1000, limit: 30, firstBatchWhole: true).needsCheck == false)
        world.crash(powerCut: false)
        let recovered = try world.open()
        #expect(try recovered.read(from: 0, maxBytes: 1000, limit: 30, firstBatchWhole: true).needsCheck == false)
        try recovered.close(clean: true)
        let reopened = try world.open(clean: true, recoveryPoint: 30)
        #expect(try reopened.read(from: 0, maxBytes: 1000, limit: 30, firstBatchWhole: true).needsCheck)
        _ = try fetch(reopened, from: 0)
        #expect(try reopened.read(from: 0, maxBytes: 1000, limit: 30, firstBatchWhole: true).needsCheck == false)
        // what is appended behind what was there is this life's own
        try reopened.append(batch(["new"]))
        #expect(try reopened.read(from: 30, maxBytes: 1000, limit: 31, firstBatchWhole: true).needsCheck == false)
    }

    @Test func aVerdictOnWhatHasBeenTruncatedMeanwhileSaysNothing() throws {
        let (world, batches) = try stopped(seed: 5, segmentBytes: 1 << 20)
        let end = batches.last!.withUnsafeBytes { BatchHeader($0).nextOffset }
        let log = try world.open(clean: true, recoveryPoint: end)
        let slice = try log.read(from: 0, maxBytes: 1 << 20, limit: end, firstBatchWhole: true)
        try log.truncate(to: 20)
        for index in 20..<40 { try log.append(batch(["other \(index)"]), epoch: 9) }
        // the bytes under the slice have changed, and its verdict would be that offsets or checksums are wrong
        if let verdict = slice.check() { try log.noteChecked(verdict) }
        #expect(try fetch(log, from: 0).isEmpty == false)
        #expect(try log.records().last == "39:other 39")
    }

    @Test func anIndexThatLiesIsMadeAnewWhenItMisleads() throws {
        for seed in UInt64(1)...40 {
            let (world, batches) = try stopped(seed: seed, segmentBytes: 1800)
            var random = SeededRandom(seed: seed)
            let end = batches.last!.withUnsafeBytes { BatchHeader($0).nextOffset }
            // a place in the middle of an index: its first and last entries, which an open looks at, stay as they are
            var spoiled = 0
            for base in try segments(world) {
                let path = world.path(.offsetIndex, base)
                let entries = Int(try world.sizeOf(path)) / 8
                guard entries >= 3 else { continue }
                let entry = 1 + random.below(entries - 2)
                let position = UInt32(random.below(Int(try world.sizeOf(world.path(.log, base)))))
                try world.overwrite(path, at: Int64(entry * 8 + 4), withUnsafeBytes(of: position.bigEndian) { Array($0) })
                spoiled += 1
            }
            #expect(spoiled > 0)
            let log = try world.open(clean: true, recoveryPoint: end, bound: end)
            for batch in batches.shuffled(using: &random) {
                let header = batch.withUnsafeBytes { BatchHeader($0) }
                let slice = try log.read(from: header.lastOffset, maxBytes: 1, limit: end, firstBatchWhole: true)
                #expect(try log.bytes(slice) == batch, "seed \(seed), offset \(header.lastOffset)")
            }
            try log.close(clean: true)
            let again = try world.open(clean: true, recoveryPoint: end, bound: end)
            #expect(try again.batches() == batches)
        }
    }

    @Test func aTimeIndexThatLiesHidesNoRecordAndDeletesNone() throws {
        var said = 0
        for seed in UInt64(1)...30 {
            let (world, batches) = try stopped(seed: seed, segmentBytes: 1800)
            var random = SeededRandom(seed: seed)
            let end = batches.last!.withUnsafeBytes { BatchHeader($0).nextOffset }
            for base in try segments(world) {
                let path = world.path(.timeIndex, base)
                let entries = Int(try world.sizeOf(path)) / 12
                guard entries >= 1 else { continue }
                // the last entry too, by which retention decides
                let entry = random.below(entries)
                let time = UInt64(entry + 1)
                try world.overwrite(path, at: Int64(entry * 12), withUnsafeBytes(of: time.bigEndian) { Array($0) })
            }
            world.config.retentionMs = 10_000
            let log = try world.open(clean: true, recoveryPoint: end, bound: end)
            #expect(try log.applyRetention(now: 9_000, highWatermark: end).isEmpty, "seed \(seed): nothing is older than 9 s")
            var search = TimeSearch(contexts: CodecContexts())
            for offset in [0, 7, 21, 40, 59] as [Int64] {
                let found = try log.firstOffset(atOrAfter: 1000 + offset, limit: end, &search)
                #expect(found?.offset == offset, "seed \(seed)")
            }
            said += world.lines.says("made anew") ? 1 : 0
        }
        #expect(said > 20, "of 30")
    }

    @Test func aMissingOrDamagedFileOfLeaderEpochsIsMadeAnewFromTheBatches() throws {
        for content in [nil, "", "0\n2\n0 0\n", "0\n2\n5 9\n3 2\n", "nonsense"] {
            let (world, _) = try stopped(seed: 6)
            let path = world.folder + "/" + LeaderEpochHistory.fileName
            let before = try LeaderEpochHistory.decode(try #require(try world.disk.contents(path)), path: path)
            #expect(before.entries.count == 3)
            if let content { try world.disk.replace(path, with: Array(content.utf8)) } else { try world.disk.remove(path) }
            let log = try world.open(clean: true, recoveryPoint: 60)
            if content == "" {
                #expect(log.epochs.isEmpty, "a file without rows is one of Kafka's")
                continue
            }
            #expect(log.epochs == before, "\(content ?? "no file")")
            #expect(world.lines.says("the leader epochs were missing or damaged, and are made anew"))
            try log.close(clean: true)
            #expect(try LeaderEpochHistory.decode(try #require(try world.disk.contents(path)), path: path) == before)
        }
    }

    @Test func aDamagedTopicIDIsMadeAnewFromWhatTheTreeSays() throws {
        let (world, batches) = try stopped(seed: 7)
        let path = world.folder + "/" + PartitionMetadata.fileName
        try world.disk.replace(path, with: Array("version: 0\ntopic_id: ???".utf8))
        let log = try world.open(clean: true, recoveryPoint: 60)
        #expect(try log.batches() == batches && log.topicID == nil)
        try log.assign(topicID: UUID(high: 7, low: 9))
        let written = try #require(try world.disk.contents(path))
        #expect(try PartitionMetadata.decode(written, path: path).topicID == UUID(high: 7, low: 9))
        #expect(world.lines.says("a small file is damaged"))
    }

    @Test func aDamagedTransactionIndexHidesWhatWasAbortedAllTheSame() throws {
        for seed in UInt64(1)...20 {
            let world = LogWorld(seed: seed)
            world.config.segmentBytes = 500
            let log = try world.create()
            for turn in 0..<12 {
                for index in 0..<2 {
                    let identity = BatchIdentity(
                        producerID: 5, epoch: 0, baseSequence: Int32(turn * 2 + index), isTransactional: true)
                    try log.append(batch(["t\(turn).\(index)"], identity: identity))
                }
                try log.append(marker(turn % 3 == 0 ? .commit : .abort, producer: 5), origin: .coordinator)
            }
            log.noteHighWatermark(log.logEndOffset)
            let end = log.logEndOffset
            let aborted = try log.abortedTransactions(from: 0, upTo: end)
            #expect(aborted.count == 8)
            try log.close(clean: true)
            var random = SeededRandom(seed: seed)
            var spoiled = 0
            for name in try world.disk.list(world.folder) where name.hasSuffix(".txnindex") {
                let path = world.folder + "/" + name
                if random.chance(1, in: 2) {
                    try world.cutFile(path, to: try world.sizeOf(path) - 5)
                } else {
                    try world.overwrite(path, at: 2 + Int64(random.below(4)) * 8, [UInt8](repeating: 0xEE, count: 8))
                }
                spoiled += 1
            }
            #expect(spoiled > 1)
            let again = try world.open(clean: true, recoveryPoint: end, bound: end)
            again.noteHighWatermark(end)
            #expect(try again.abortedTransactions(from: 0, upTo: end) == aborted, "seed \(seed)")
        }
    }

    @Test func aSegmentBelowTheRecoveryPointThatLostItsEndIsDamageAndNoSmallerLog() throws {
        let (world, _) = try stopped(seed: 8)
        let bases = try segments(world)
        let bytes = try #require(try world.disk.contents(world.path(.log, bases[1])))
        var (last, position) = (0, 0)
        while position < bytes.count {
            last = position
            position += bytes[position...].withUnsafeBytes { BatchHeader($0).totalSize }
        }
        try world.cutFile(world.path(.log, bases[1]), to: Int64(last))
        try world.disk.remove(world.path(.offsetIndex, bases[1]))
        let error = #expect(throws: LogError.self) { try world.open(clean: true, recoveryPoint: 60, bound: 60) }
        #expect(error?.isDamage == true && "\(error!)".contains("\(bases[2])"))
        #expect(try segments(world) == bases, "nothing was cut")
    }
}

@Suite struct DamageThatRecoveryMeets {
    private func crashed(seed: UInt64) throws -> (LogWorld, [[UInt8]]) {
        let world = LogWorld(seed: seed)
        let log = try world.create()
        for index in 0..<20 { try log.append(batch(["v\(index)" + String(repeating: "x", count: index)])) }
        let batches = try log.batches()
        world.crash(powerCut: false)
        return (world, batches)
    }

    private func spoil(_ world: LogWorld, _ batches: [[UInt8]], _ index: Int) throws {
        let position = batches[..<index].reduce(0) { $0 + $1.count }
        try world.overwrite(world.path(.log), at: Int64(position + 62), [0xFF, 0xFE, 0xFD])
    }

    @Test func aBadBatchBelowTheRecoveryPointOfKafkasDirectoryIsNotCut() throws {
        let (world, batches) = try crashed(seed: 1)
        try spoil(world, batches, 4)
        let error = #expect(throws: LogError.self) { try world.open(recoveryPoint: 10) }
        guard case .damagedBelowDurable(world.path(.log), 4, 10, let reason) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(reason.contains("15 sound batches follow in the file, from offset 5 to 19"))
        // above it nothing says that it was ever on the disk: it is cut as Kafka cuts it, put aside, and told
        #expect(try world.open(recoveryPoint: 3).logEndOffset == 4)
        #expect(world.lines.says("offset=4 file=\(world.path(.log))"))
    }

    @Test func withoutItsBoundsABadBatchIsCutOnlyWhereNothingSoundFollows() throws {
        func open(_ world: LogWorld) throws -> PartitionLog {
            var parameters = world.parameters
            parameters.isBoundLost = true
            return try PartitionLog.open(parameters)
        }
        let (holed, batches) = try crashed(seed: 2)
        try spoil(holed, batches, 4)
        let before = try holed.disk.contents(holed.path(.log))
        #expect(throws: LogError.self) { try open(holed) }
        #expect(try holed.disk.contents(holed.path(.log)) == before)
        let (torn, _) = try crashed(seed: 2)
        try spoil(torn, batches, 19)
        #expect(try open(torn).logEndOffset == 19)
    }
}

@Suite struct WhatIsKnownToBeSound {
    @Test func rangesJoinAndTheTailSwallowsThem() {
        var checked = CheckedRanges(tail: 1000)
        #expect(checked.contains(1000..<5000) && !checked.contains(0..<10))
        checked.insert(100..<200)
        checked.insert(300..<400)
        #expect(checked.contains(120..<200) && !checked.contains(120..<201) && !checked.contains(150..<350))
        checked.insert(200..<300)
        #expect(checked.ranges == [100..<400])
        checked.insert(350..<1200)
        #expect(checked.tail == 100 && checked.ranges.isEmpty && checked.contains(100..<9999))
        checked.insert(0..<100)
        #expect(checked.tail == 0)
    }

    @Test func whatIsCutOffIsNotRemembered() {
        var checked = CheckedRanges(tail: 1000)
        checked.insert(100..<400)
        checked.cut(to: 300)
        #expect(checked.tail == 100, "what is appended at 300 is this process's own, and 100 to 300 was read")
        checked.cut(to: 50)
        #expect(checked.tail == 50 && checked.ranges.isEmpty)
    }

    @Test func readersThatJumpAboutAreBounded() {
        var random = SeededRandom(seed: 1)
        var checked = CheckedRanges(tail: 1 << 30)
        for _ in 0..<5000 {
            let start = random.below(1 << 29)
            checked.insert(start..<start + 1 + random.below(4096))
            #expect(checked.ranges.count <= CheckedRanges.limit)
        }
        #expect(zip(checked.ranges, checked.ranges.dropFirst()).allSatisfy { $0.upperBound < $1.lowerBound })
    }
}
