import MartletBasics
import MartletModel
import Testing

@Suite struct Batches {
    static func randomRecords(_ random: inout SeededRandom) -> [Rec] {
        func field(_ random: inout SeededRandom) -> [UInt8]? {
            switch random.below(6) {
            case 0: nil
            case 1: []
            case 2: (0..<random.below(2000)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            default: Array("text \(random.below(100))".utf8)
            }
        }
        return (0..<1 + random.below(30)).map { _ in
            let headers = (0..<(random.chance(1, in: 3) ? random.below(5) : 0)).map { _ in
                RecordHeader(field(&random) ?? [], field(&random))
            }
            let timestamp = random.chance(1, in: 20) ? -1 : Rec.time + Int64(random.below(100_000)) - 50_000
            return Rec(field(&random), field(&random), headers, timestamp: timestamp)
        }
    }

    @Test(arguments: 0..<60 as Range<UInt64>)
    func whatIsBuiltIsTakenAndReadBack(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        let records = Self.randomRecords(&random)
        var identity = BatchIdentity()
        if random.chance(1, in: 2) {
            identity = BatchIdentity(producerID: 5, epoch: 1, baseSequence: Int32.max - 3, isTransactional: true)
        }
        let codec = CompressionCodec.allCases[random.below(5)]
        let bytes = batch(records, identity, codec: codec)
        var config = TopicConfig()
        let stays = random.chance(1, in: 2)
        config.compression = stays ? .producer : .codec(CompressionCodec.allCases[random.below(5)])
        config.messageTimestampAfterMaxMs = .max
        let judged = try judge(bytes, config)
        #expect(!stays || judged.stored == bytes)
        #expect(try read(judged.stored).records == records)
        #expect(try read(judged.stored).deltas == (0..<Int32(records.count)).map { $0 })
        let highest = records.map(\.timestamp).max()!
        #expect(judged.validated.header.maxTimestamp == highest)
        let index = Int(judged.validated.maxTimestampOffsetDelta)
        #expect(highest == -1 || index == records.firstIndex { $0.timestamp == highest })
        judged.stored.withUnsafeBytes {
            var walker = BatchWalker($0, checkingChecksums: true)
            #expect(walker.next() == .batch(position: 0, header: judged.validated.header))
            #expect(walker.next() == .end)
        }
    }

    @Test(arguments: CompressionCodec.allCases)
    func aBatchWhoseCoveredBytesChangedIsNeverTaken(codec: CompressionCodec) {
        var random = SeededRandom(seed: 99)
        let good = batch(Self.randomRecords(&random), codec: codec)
        for round in 0..<1500 {
            var damaged = good
            let at = BatchHeader.At.attributes + random.below(good.count - BatchHeader.At.attributes)
            if round % 2 == 0 {
                damaged[at] ^= UInt8(1 << random.below(8))
            } else {
                let count = min(1 + random.below(9), good.count - at)
                for i in at..<at + count { damaged[i] = UInt8(truncatingIfNeeded: random.next()) }
                if damaged == good { continue }
            }
            #expect(verdict(damaged) == .corruptMessage, "byte \(at), round \(round)")
        }
    }

    @Test(arguments: CompressionCodec.allCases)
    func aBatchDamagedBeforeItWasSealedIsRefusedOrSound(codec: CompressionCodec) throws {
        var random = SeededRandom(seed: 1234)
        let base = batch([Rec("k", "value", [RecordHeader([1], [2, 3])]), Rec(nil, nil), Rec("x", "", at: 9)], codec: codec)
        var taken = 0
        for _ in 0..<4000 {
            var damaged = base
            for _ in 0...random.below(3) {
                let at = random.chance(1, in: 3) ? random.below(damaged.count) : 61 + random.below(damaged.count - 61)
                damaged[at] = random.chance(1, in: 2) ? damaged[at] ^ UInt8(1 << random.below(8)) : UInt8(truncatingIfNeeded: random.next())
            }
            damaged = edited(damaged) { _ in }
            guard let judged = try? judge(damaged, limit: 1 << 20) else { continue }
            taken += 1
            // whatever is taken can be read by everyone after us
            let stored = header(judged.stored)
            #expect(stored == judged.validated.header)
            #expect(stored.totalSize == judged.stored.count)
            #expect(checksumHolds(judged.stored))
            let (records, deltas) = try read(judged.stored)
            #expect(deltas == (0..<Int32(records.count)).map { $0 })
            #expect(records.count == Int(stored.recordCount))
        }
        #expect(taken > 0)
    }

    @Test func bytesOfAnyKindNeverCrashTheValidatorOrTheWalker() {
        var random = SeededRandom(seed: 77)
        for _ in 0..<5000 {
            var bytes = (0..<random.below(200)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            // make some of them look like batches
            if bytes.count > 61, random.chance(3, in: 4) {
                bytes = edited(bytes) {
                    $0.magic = 2
                    $0.baseOffset = 0
                    $0.batchLength = Int32(bytes.count - 12)
                    if random.chance(1, in: 2) {
                        $0.recordCount = 2
                        $0.lastOffsetDelta = 1
                        $0.attributes &= 7
                    }
                }
            }
            #expect(verdict(bytes) != .none)
            bytes.withUnsafeBytes {
                var walker = BatchWalker($0, checkingChecksums: random.chance(1, in: 2))
                for _ in 0..<10 {
                    guard case .batch = walker.next() else { break }
                }
            }
        }
    }

    @Test func aWalkerGivesEachBatchAndStopsAtOneCutOff() {
        let batches = (0..<3).map { i in
            edited(batch([Rec("k", "\(i)")])) { $0.baseOffset = Int64(10 * i) }
        }
        let size = batches[0].count
        let all = batches.flatMap { $0 }
        all.withUnsafeBytes {
            var walker = BatchWalker($0)
            for i in 0..<3 {
                #expect(walker.next() == .batch(position: i * size, header: header(batches[i])))
                #expect([UInt8](walker.batch(at: i * size, header(batches[i]))) == batches[i])
            }
            #expect(walker.next() == .end)
            #expect(walker.next() == .end)
        }
        for cut in 1..<size {
            all.withUnsafeBytes {
                var walker = BatchWalker(UnsafeRawBufferPointer(rebasing: $0[..<(size + cut)]), checkingChecksums: true)
                #expect(walker.next() == .batch(position: 0, header: header(batches[0])))
                let partial = BatchWalker.Step.partial(remaining: cut, needed: cut > 16 ? size : nil)
                #expect(walker.next() == partial)
                #expect(walker.next() == partial)
                #expect(walker.position == size)
            }
        }
    }

    @Test func aWalkerTellsWhyBytesAreNoBatch() {
        let good = batch([Rec("k", "v")])
        func step(_ bytes: [UInt8], checking: Bool = false, sizeLimit: Int = 1 << 20) -> BatchWalker.Step {
            bytes.withUnsafeBytes {
                var walker = BatchWalker($0, checkingChecksums: checking, sizeLimit: sizeLimit)
                return walker.next()
            }
        }
        #expect(step([UInt8](repeating: 0, count: 100)) == .corrupt(.length(0)))
        #expect(step(edited(good) { $0.batchLength = -5 }) == .corrupt(.length(-5)))
        #expect(step(edited(good) { $0.batchLength = .max }) == .corrupt(.length(.max)))
        #expect(step(good, sizeLimit: good.count) == .batch(position: 0, header: header(good)))
        #expect(step(good, sizeLimit: good.count - 1) == .corrupt(.length(header(good).batchLength)))
        #expect(step(edited(good) { $0.magic = 1 }) == .corrupt(.magic(1)))
        #expect(step(edited(good) { $0.baseOffset = -1 }) == .corrupt(.offsets(base: -1, lastDelta: 0)))
        #expect(step(edited(good) { $0.baseOffset = .max }) == .corrupt(.offsets(base: .max, lastDelta: 0)))
        #expect(step(edited(good) { $0.lastOffsetDelta = -1 }) == .corrupt(.offsets(base: 0, lastDelta: -1)))
        #expect(step(edited(good) { $0.recordCount = 2 }) == .corrupt(.recordCount(2)))
        #expect(step(edited(good) { $0.recordCount = -1 }) == .corrupt(.recordCount(-1)))
        #expect(step(edited(good) { $0.attributes = 6 }) == .corrupt(.codec(6)))
        var flipped = good
        flipped[good.count - 1] ^= 4
        #expect(step(flipped) == .batch(position: 0, header: header(flipped)))
        guard case .corrupt(.checksum) = step(flipped, checking: true) else {
            Issue.record("a flipped bit went unnoticed")
            return
        }
    }

    @Test func aCleanedBatchKeepsItsOffsetsAndItsHorizon() throws {
        let before = header(batch([Rec("a", "1"), Rec("b", nil), Rec("c", "3"), Rec("d", "4")]))
        var identity = BatchIdentity(before)
        identity.baseOffset = 500
        identity.deleteHorizon = Rec.time + 86_400_000
        var builder = BatchBuilder(identity)
        builder.append(timestamp: Rec.time, key: [98], value: nil, offsetDelta: 1)
        var output = ByteBuffer()
        builder.finish(into: &output, codec: .lz4, contexts: CodecContexts(), lastOffsetDelta: before.lastOffsetDelta)
        let cleaned = header(output.array)
        #expect(cleaned.baseOffset == 500 && cleaned.lastOffset == 503 && cleaned.recordCount == 1)
        #expect(cleaned.hasDeleteHorizon && cleaned.baseTimestamp == Rec.time + 86_400_000)
        #expect(cleaned.maxTimestamp == Rec.time)
        let (records, deltas) = try read(output.array)
        #expect(deltas == [1])
        #expect(records == [Rec([98], nil, timestamp: Rec.time)])
        // nothing left of it
        let start = output.count
        builder.finish(into: &output, codec: .lz4, contexts: CodecContexts(), lastOffsetDelta: 3)
        let empty = Array(output.array[start...])
        #expect(empty.count == BatchHeader.size && header(empty).recordCount == 0 && header(empty).codec == CompressionCodec.none)
        empty.withUnsafeBytes {
            var walker = BatchWalker($0, checkingChecksums: true)
            #expect(walker.next() == .batch(position: 0, header: header(empty)))
        }
    }

    @Test func aMarkerEndsATransaction() throws {
        var output = ByteBuffer()
        let contexts = CodecContexts()
        let marker = EndTransactionMarker(.commit, coordinatorEpoch: 12)
        BatchBuilder.write(
            marker, producerID: 4000, epoch: 7, timestamp: Rec.time, baseOffset: 33, leaderEpoch: 2, into: &output,
            contexts: contexts)
        let bytes = output.array
        let header = header(bytes)
        #expect(header.isControl && header.isTransactional && header.producerID == 4000 && header.producerEpoch == 7)
        #expect(header.baseSequence == -1 && header.baseOffset == 33 && header.leaderEpoch == 2)
        let record = try read(bytes).records[0]
        #expect(record.key == [0, 0, 0, 1])
        #expect(record.value == [0, 0, 0, 0, 0, 12])
        record.key!.withUnsafeBytes { key in
            record.value!.withUnsafeBytes { value in
                #expect(EndTransactionMarker(key: key, value: value) == marker)
                #expect(EndTransactionMarker(key: value, value: key) == nil)
            }
        }
        #expect(verdict(bytes) == .invalidRecord)
    }

    @Test func aBuilderBeginsAnewAfterEachBatch() throws {
        var builder = BatchBuilder()
        var output = ByteBuffer()
        let contexts = CodecContexts()
        for i in 0..<3 {
            #expect(builder.isEmpty && builder.uncompressedSize == BatchHeader.size)
            builder.append(timestamp: Rec.time - Int64(i), key: nil, value: [UInt8(i)])
            let size = builder.uncompressedSize
            let before = output.count
            let header = builder.finish(into: &output, contexts: contexts)
            #expect(output.count - before == size && header.totalSize == size)
            #expect(header.baseTimestamp == Rec.time - Int64(i) && header.maxTimestamp == header.baseTimestamp)
        }
    }

    @Test func extremeTimesAndDeltasSurvive() throws {
        let records = [Int64.min, .max, 0, -1, 1].map { Rec(nil, [], timestamp: $0) }
        #expect(try read(batch(records)).records == records)
        var config = TopicConfig()
        config.messageTimestampAfterMaxMs = .max
        #expect(try read(judge(batch(records), config).stored).records == records)
        // the span from now on back to the beginning of time is more than any bound can allow for
        config.messageTimestampBeforeMaxMs = 0
        #expect(verdict(batch([records[0]]), config) == .invalidTimestamp)
    }
}
