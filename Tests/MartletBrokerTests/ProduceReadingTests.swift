import MartletBasics
import MartletBroker
import MartletModel
import MartletWire
import Testing

@Suite struct ProduceRequestsReadByHand {
    /// A request as both readers see it.
    private struct Seen: Equatable {
        struct Part: Equatable {
            var name: [UInt8]
            var id: UUID
            var index: Int32
            var records: [UInt8]?
        }
        var acks: Int16
        var timeoutMs: Int32
        var parts: [Part] = []
        var left: Int
    }

    private static func byHand(_ bytes: [UInt8], _ version: Int16) -> Seen? {
        bytes.withUnsafeBytes { frame in
            var reader = ByteReader(frame)
            var parts: ContiguousArray<ProducePart> = []
            guard let head = try? ProduceHead(&reader, version: version, into: &parts) else { return nil }
            let seen = parts.map { part in
                Seen.Part(
                    name: Array(frame[part.topicName.offset..<part.topicName.end]), id: part.topicID, index: part.index,
                    records: part.records.map { Array(frame[$0.offset..<$0.end]) })
            }
            return Seen(acks: head.acks, timeoutMs: head.timeoutMs, parts: seen, left: reader.remaining)
        }
    }

    private static func byGenerated(_ bytes: [UInt8], _ version: Int16) -> Seen? {
        bytes.withUnsafeBytes { frame in
            var reader = ByteReader(frame)
            guard let request = try? ProduceRequest.decode(from: &reader, version: version) else { return nil }
            var seen = Seen(acks: request.acks, timeoutMs: request.timeoutMs, left: reader.remaining)
            for topic in request.topicData {
                for part in topic.partitionData {
                    seen.parts.append(
                        Seen.Part(
                            name: Array(topic.name.utf8), id: topic.topicID, index: part.index, records: part.records?.array(in: frame)))
                }
            }
            return seen
        }
    }

    private static func request(_ random: inout SeededRandom, _ version: Int16) -> [UInt8] {
        var request = ProduceRequest()
        if random.chance(1, in: 3) { request.transactionalID = "tx" }
        request.acks = Int16(random.below(3)) - 1
        request.timeoutMs = Int32(random.below(1 << 20))
        for topic in 0..<random.below(4) {
            var data = ProduceRequest.TopicProduceData()
            if version >= 13 { data.topicID = UUID(high: random.next(), low: random.next()) } else { data.name = "topic-\(topic)" }
            for index in 0..<random.below(4) {
                var part = ProduceRequest.PartitionProduceData()
                part.index = Int32(index)
                part.records = random.chance(1, in: 5) ? nil : .owned((0..<random.below(200)).map { UInt8(truncatingIfNeeded: $0) })
                data.partitionData.append(part)
            }
            request.topicData.append(data)
        }
        var buffer = ByteBuffer()
        try! request.encode(into: &buffer, version: version)
        return buffer.array
    }

    @Test func bothReadersSeeTheSameAtEveryVersion() {
        var random = SeededRandom(seed: 5)
        for version in ProduceRequest.versions {
            for _ in 0..<200 {
                let bytes = Self.request(&random, version)
                let seen = Self.byHand(bytes, version)
                #expect(seen != nil && seen?.left == 0)
                #expect(seen == Self.byGenerated(bytes, version), "version \(version)")
            }
        }
    }

    @Test func bothRefuseWhatIsCutAndAgreeOnWhatWasChanged() {
        var random = SeededRandom(seed: 6)
        var refused = 0
        for version in ProduceRequest.versions {
            for _ in 0..<60 {
                let bytes = Self.request(&random, version)
                for end in stride(from: 0, to: bytes.count, by: 1 + bytes.count / 40) {
                    let cut = Array(bytes[..<end])
                    #expect(Self.byHand(cut, version) == nil && Self.byGenerated(cut, version) == nil)
                }
                for _ in 0..<60 {
                    var changed = bytes
                    for _ in 0...random.below(3) { changed[random.below(changed.count)] = UInt8(random.below(256)) }
                    let (hand, generated) = (Self.byHand(changed, version), Self.byGenerated(changed, version))
                    if hand == nil { refused += 1 }
                    #expect((hand == nil) == (generated == nil), "version \(version) of \(changed)")
                    // a name that is no UTF-8 is repaired by one of them
                    if let hand, let generated, hand.parts.allSatisfy({ part in part.name.allSatisfy { $0 < 0x80 } }) { #expect(hand == generated) }
                }
            }
        }
        #expect(refused > 1000)
    }
}
