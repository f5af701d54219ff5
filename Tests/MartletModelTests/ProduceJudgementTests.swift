import MartletBasics
import MartletModel
import Testing

/// Which fault of a client's batch is answered with which error: as a Kafka broker was seen to do.
@Suite struct ProduceJudgement {
    static let two = [Rec(nil, "a"), Rec(nil, "b")]

    @Test func aSoundBatchIsTakenAsItIs() throws {
        let bytes = batch([Rec("k", "v", [RecordHeader(Array("h".utf8), nil)]), Rec(nil, nil, at: 5), Rec("", "")])
        let judged = try judge(bytes)
        #expect(judged.stored == bytes)
        #expect(!judged.validated.isRewritten)
        #expect(judged.validated.header == header(bytes))
        #expect(judged.validated.maxTimestampOffsetDelta == 1)
        #expect(judged.validated.appendTime == -1)
    }

    @Test func aBatchLengthThatLies() {
        let good = batch([Rec("k", "value")])
        let right = Int32(good.count - 12)
        func lying(_ length: Int32) -> ErrorCode { verdict(edited(good, sealed: false) { $0.batchLength = length }) }
        for length in [Int32.max, right + 1, right + 1000] { #expect(lying(length) == .invalidRecord) }
        for length in [right - 1, 49, 48, 14, 13, 1, 0, -1, .min] {
            #expect(lying(length) == .corruptMessage, "length \(length)")
        }
    }

    @Test func recordSetsWithoutOneWholeBatch() throws {
        let good = batch([Rec(nil, "abcdef")])
        #expect(verdict([]) == .invalidRecord)
        #expect(verdict([0, 0, 0, 0, 0, 0, 0]) == .invalidRecord)
        #expect(verdict(Array(good[..<40])) == .invalidRecord)
        #expect(verdict(Array(good.dropLast(3))) == .invalidRecord)
        #expect(try judge(good + [0, 0, 0]).stored == good)
        #expect(try judge(good + good.dropLast(3)).stored == good)
        #expect(verdict(good + good) == .invalidRecord)
        #expect(verdict(good + edited(good) { $0.batchLength = 3 }) == .corruptMessage)
    }

    @Test func otherFormats() {
        let good = batch([Rec(nil, "a")])
        for magic: Int8 in [0, 1] { #expect(verdict(edited(good) { $0.magic = magic }) == .invalidRecord) }
        for magic: Int8 in [3, -1, 127] { #expect(verdict(edited(good) { $0.magic = magic }) == .corruptMessage) }
    }

    @Test func aWrongChecksum() {
        var flipped = batch([Rec(nil, "abc")])
        #expect(verdict(edited(flipped, sealed: false) { $0.crc = 0x1234_5678 }) == .corruptMessage)
        flipped[flipped.count - 2] ^= 1
        #expect(verdict(flipped) == .corruptMessage)
    }

    @Test func countsThatDisagree() {
        let good = batch(Self.two)
        let shapes: [(count: Int32, lastDelta: Int32)] = [
            (3, 1), (1, 1), (3, 2), (1, 0), (2, 5), (2, 0), (-1, 1), (0, 1), (2, -1), (0, -1), (0, 0), (.min, .max),
        ]
        for shape in shapes {
            let bytes = edited(good) {
                $0.recordCount = shape.count
                $0.lastOffsetDelta = shape.lastDelta
            }
            #expect(verdict(bytes) == .invalidRecord, "\(shape)")
        }
        #expect(verdict(batch(around: [], count: 1)) == .invalidRecord)
    }

    @Test func recordsThatDoNotParse() {
        let good = Array(batch([Rec("k", "v")])[BatchHeader.size...])
        func sized(_ size: Int32) -> [UInt8] { encoded { $0.varint(size) } + good[1...] }
        let bodies: [(String, [UInt8])] = [
            ("endless varint", Array(repeating: 0xFF, count: 12)),
            ("size beyond the batch", sized(100)),
            ("size too small", sized(2)),
            ("size zero", sized(0)),
            ("negative size", sized(-1)),
            ("bytes after the last record", good + [0, 0, 0]),
            ("key beyond the record", [0x0E, 0, 0, 0] + encoded { $0.varint(50) } + Array("abc".utf8)),
            ("negative header count", encoded { $0.varint(7) } + [0, 0, 0, 2, 0x6B, 1, 1]),
            ("more headers than bytes", encoded { $0.varint(7) } + [0, 0, 0, 2, 0x6B, 1, 20]),
            ("null header name", encoded { $0.varint(8) } + [0, 0, 0, 2, 0x6B, 1, 2, 1]),
            ("header value beyond the record", encoded { $0.varint(9) } + [0, 0, 0, 2, 0x6B, 1, 2, 0, 20]),
            ("truncated", good.dropLast(2)),
        ]
        for (label, body) in bodies {
            #expect(verdict(batch(around: body)) == .invalidRecord, "\(label)")
            for codec in [CompressionCodec.gzip, .snappy, .lz4, .zstd] {
                let packed = compressed(body, codec)
                #expect(verdict(batch(around: packed, codec: codec.rawValue)) == .invalidRecord, "\(label) in \(codec)")
            }
        }
    }

    @Test func compressionThatCannotBeRead() {
        let good = Array(batch([Rec("k", String(repeating: "v", count: 100))])[BatchHeader.size...])
        for codec in CompressionCodec.allCases where codec != .none {
            let garbage = [1, 2, 3] + Array("not compressed at all".utf8)
            #expect(verdict(batch(around: garbage, codec: codec.rawValue)) == .unknownServerError)
            let short = Array(compressed(good, codec).dropLast(12))
            #expect(verdict(batch(around: short, codec: codec.rawValue)) == .unknownServerError)
            #expect(verdict(batch(around: [], codec: codec.rawValue)) != .none)
        }
        for number: UInt8 in [5, 6, 7] { #expect(verdict(batch(around: good, codec: number)) == .unknownServerError) }
    }

    @Test func zstdNeedsProduceSeven() throws {
        let bytes = batch([Rec(nil, "a")], codec: .zstd)
        #expect(verdict(bytes, version: 3) == .unsupportedCompressionType)
        #expect(verdict(bytes, version: 6) == .unsupportedCompressionType)
        #expect(verdict(bytes, version: 7) == .none)
        var zstd = TopicConfig()
        zstd.compression = .codec(.zstd)
        #expect(try judge(batch([Rec(nil, "a")]), zstd, version: 3).validated.header.codec == .zstd)
    }

    @Test func aBatchAsLargeAsAllowedIsTakenAndOneByteMoreIsNot() {
        var config = TopicConfig()
        config.maxMessageBytes = 1000
        let fill = 1000 - batch([Rec(nil, String(repeating: "x", count: 800))]).count
        func sized(_ size: Int) -> [UInt8] { batch([Rec(nil, String(repeating: "x", count: size))]) }
        #expect(sized(800 + fill).count == 1000)
        #expect(verdict(sized(800 + fill), config) == .none)
        #expect(verdict(sized(801 + fill), config) == .messageTooLarge)
        let packed = batch([Rec(nil, String(repeating: "x", count: 5000))], codec: .gzip)
        #expect(verdict(packed, config) == .none)
        config.compression = .codec(.none)
        #expect(verdict(packed, config) == .messageTooLarge)
        var small = TopicConfig()
        small.segmentBytes = 500
        #expect(verdict(sized(600), small) == .recordListTooLarge)
    }

    @Test func clientsWriteNoControlRecordsAndNoSequencesBelowZero() {
        let good = batch([Rec("k", "v")])
        #expect(verdict(edited(good) { $0.attributes = 0x20 }) == .invalidRecord)
        #expect(verdict(edited(good) { $0.producerID = 7 }) == .invalidRecord)
        #expect(verdict(batch([Rec("k", "v")], BatchIdentity(producerID: 7, epoch: 0, baseSequence: -7))) == .invalidRecord)
        #expect(verdict(batch([Rec("k", "v")], BatchIdentity(producerID: 7, epoch: 0, baseSequence: 0))) == .none)
        #expect(verdict(edited(good) { $0.baseOffset = 77 }) == .invalidRecord)
    }

    @Test func timesOutOfBoundsAreNamed() throws {
        var config = TopicConfig()
        config.messageTimestampBeforeMaxMs = 3_600_000
        config.messageTimestampAfterMaxMs = 3_600_000
        let hour: Int64 = 3_600_000
        let mixed = batch([Rec(nil, "a"), Rec(nil, "b", at: -2 * hour), Rec(nil, "c"), Rec(nil, "d", at: 2 * hour)])
        let refused = #expect(throws: BatchRejection.self) { try judge(mixed, config) }
        #expect(refused?.code == .invalidTimestamp)
        #expect(refused?.recordErrors.map(\.batchIndex) == [1, 3])
        #expect(refused?.answerMessage != nil)
        #expect(verdict(batch([Rec(nil, Array("a".utf8), timestamp: -1)]), config) == .none)
        #expect(verdict(batch([Rec(nil, "a", at: 1000 + hour)]), config) == .none)
        #expect(verdict(batch([Rec(nil, "a", at: 1001 + hour)]), config) == .invalidTimestamp)
        #expect(verdict(batch([Rec(nil, "a", at: 1000 - hour)]), config) == .none)
        #expect(verdict(batch([Rec(nil, "a", at: 999 - hour)]), config) == .invalidTimestamp)
        // by default an hour ahead is too far, and nothing is too old
        #expect(verdict(batch([Rec(nil, "a", at: 2 * hour)])) == .invalidTimestamp)
        #expect(verdict(batch([Rec(nil, [], timestamp: 0)])) == .none)
    }

    @Test func recordsWithoutKeysOnACompactedTopicAreNamed() throws {
        var config = TopicConfig()
        config.cleanupPolicy = .compact
        let refused = #expect(throws: BatchRejection.self) {
            try judge(batch([Rec("k", "v"), Rec(nil, "x"), Rec("l", "v"), Rec(nil, "y")]), config)
        }
        #expect(refused?.code == .invalidRecord)
        #expect(refused?.recordErrors.map(\.batchIndex) == [1, 3])
        #expect(verdict(batch([Rec(nil, "x"), Rec("k", "v")], codec: .gzip), config) == .invalidRecord)
        #expect(verdict(batch([Rec("", "v"), Rec("k", nil)]), config) == .none)
    }

    @Test func noMoreThanTheLimitOfRecordsIsNamed() throws {
        var config = TopicConfig()
        config.cleanupPolicy = .compact
        let many = batch(Array(repeating: Rec(nil, "x"), count: BatchRejection.recordErrorsLimit + 5))
        let refused = #expect(throws: BatchRejection.self) { try judge(many, config) }
        #expect(refused?.recordErrors.count == BatchRejection.recordErrorsLimit)
        #expect(refused?.reason.contains("1005") == true)
    }

    @Test func theMaxTimestampIsPutRight() throws {
        for codec in CompressionCodec.allCases {
            let good = batch([Rec(nil, "a"), Rec(nil, "b", at: 500), Rec(nil, "c", at: 500)], codec: codec)
            for wrong in [Rec.time, Rec.time + 9999] {
                let judged = try judge(edited(good) { $0.maxTimestamp = wrong })
                #expect(judged.stored == good)
                #expect(judged.validated.maxTimestampOffsetDelta == 1)
                #expect(!judged.validated.isRewritten)
            }
        }
    }

    @Test func theTimeOfTheAppendIsKeptInTheHeader() throws {
        var config = TopicConfig()
        config.messageTimestampType = .logAppendTime
        for codec in [CompressionCodec.none, .gzip] {
            let sent = batch([Rec("a", "1"), Rec("b", "2", at: 5)], codec: codec)
            let judged = try judge(sent, config)
            let stored = header(judged.stored)
            #expect(stored.attributes == Int16(codec.rawValue) | 8)
            #expect(stored.maxTimestamp == Rec.now)
            #expect(stored.baseTimestamp == Rec.time)
            #expect(checksumHolds(judged.stored))
            #expect(judged.validated.appendTime == Rec.now)
            #expect(judged.validated.header == stored)
            #expect(judged.validated.maxTimestampOffsetDelta == 1)
            #expect(try read(judged.stored).records.map(\.timestamp) == [Rec.now, Rec.now])
            // a client that claims to know it
            #expect(verdict(edited(sent) { $0.attributes |= 8 }, config) == .invalidTimestamp)
            // where the topic keeps the time of creation, the bit goes
            let claimed = try judge(edited(sent) { $0.attributes |= 8 })
            #expect(claimed.stored == sent)
        }
        #expect(verdict(edited(batch([Rec(nil, [], timestamp: -1)])) { $0.attributes |= 8 }) == .invalidTimestamp)
    }

    @Test(arguments: CompressionCodec.allCases, CompressionCodec.allCases)
    func aTopicsCodecWins(sent: CompressionCodec, wanted: CompressionCodec) throws {
        var config = TopicConfig()
        config.compression = .codec(wanted)
        var identity = BatchIdentity(producerID: 9, epoch: 3, baseSequence: 40, isTransactional: true)
        identity.leaderEpoch = 7
        let records = (0..<40).map { Rec("k\($0)", String(repeating: "value ", count: 10), at: Int64($0 % 7)) }
        let judged = try judge(batch(records, identity, codec: sent), config)
        let stored = header(judged.stored)
        #expect(judged.validated.isRewritten == (sent != wanted))
        #expect(stored.codec == wanted)
        #expect(stored.isTransactional && stored.producerID == 9 && stored.producerEpoch == 3 && stored.baseSequence == 40)
        #expect(stored.maxTimestamp == Rec.time + 6)
        #expect(judged.validated.maxTimestampOffsetDelta == 6)
        #expect(checksumHolds(judged.stored))
        #expect(stored.totalSize == judged.stored.count)
        #expect(try read(judged.stored).records == records)
    }

    @Test func offsetsThatDoNotCountUpAreNumberedAnew() throws {
        for codec in CompressionCodec.allCases {
            let records = [Rec("a", "1", at: 3), Rec("b", "2"), Rec("c", "3")]
            var area: [UInt8] = []
            for (record, delta) in zip(records, [0, 0, 7] as [UInt8]) {
                area += [16, 0, UInt8(record.timestamp - Rec.time) * 2, delta * 2, 2] + record.key! + [2] + record.value! + [0]
            }
            let sent = edited(batch(around: compressed(area, codec), count: 3, codec: codec.rawValue)) {
                $0.maxTimestamp = Rec.time + 3
            }
            #expect(try read(sent).deltas == [0, 0, 7])
            let judged = try judge(sent)
            #expect(judged.validated.isRewritten)
            let stored = try read(judged.stored)
            #expect(stored.deltas == [0, 1, 2])
            #expect(stored.records == records)
            #expect(header(judged.stored).codec == codec)
        }
    }
}

func compressed(_ bytes: [UInt8], _ codec: CompressionCodec) -> [UInt8] {
    var output = ByteBuffer()
    let contexts = CodecContexts()
    bytes.withUnsafeBytes { contexts.compress($0, codec: codec, level: codec.defaultLevel, into: &output) }
    return output.array
}
