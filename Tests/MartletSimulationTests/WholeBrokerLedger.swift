import MartletBasics
import MartletModel

/// One record, by who sent it and its place in what that one sent. No record is like another.
struct RecordName: Hashable, CustomStringConvertible {
    var producer: Int32
    var number: Int32

    var description: String { "record \(number) of producer \(producer)" }

    /// The name, and bytes that follow from it, so that what comes back can be compared to the last byte.
    var value: [UInt8] {
        var value = ByteBuffer(capacity: 256)
        value.int32(producer)
        value.int32(number)
        var random = SeededRandom(seed: UInt64(producer) << 32 | UInt64(number))
        let words = random.below(12)
        for _ in 0..<words { value.int64(Int64(random.below(1 << 20))) }
        return value.array
    }

    /// Nil for a value that no producer has sent.
    init?(_ value: UnsafeRawBufferPointer) {
        guard value.count >= 8 else { return nil }
        producer = Int32(bigEndian: value.loadUnaligned(as: Int32.self))
        number = Int32(bigEndian: value.loadUnaligned(fromByteOffset: 4, as: Int32.self))
        guard producer >= 0, number >= 0, self.value.elementsEqual(value) else { return nil }
    }

    init(producer: Int32, number: Int32) {
        self.producer = producer
        self.number = number
    }
}

/// What clients were told, and what they saw; and whether a broker may have said and shown that.
///
/// The promises: a record acknowledged with acks=all is there, once, at the offset told. One acknowledged with acks=1
/// is, unless the power was cut before a clean stop. None is there twice. What a consumer saw stays where it was. A
/// topic that was made is there with its id, one that was deleted is not.
final class Ledger {
    enum End { case stop, kill, powerCut }

    private struct Sent {
        var place: TopicPartition
        var acks: Int16
        /// The broker's life in which it was acknowledged.
        var acknowledgedIn: Int?
        var told: Offset?
    }

    struct MadeTopic {
        var id: UUID
        var partitions: Int32
    }

    private static let violationsLimit = 20

    private(set) var violations: [String] = []
    /// By producer and number.
    private var sent: [[Sent]] = []
    private var seen: [TopicPartition: [RecordName?]] = [:]
    private var places: [RecordName: (TopicPartition, Offset)] = [:]
    private var highWatermarks: [TopicPartition: Offset] = [:]
    private(set) var made: [(name: String, topic: MadeTopic)] = []
    private(set) var deleted: [String] = []
    /// How each life of the broker ended.
    private var ends: [End] = []
    /// The broker's life that runs.
    var life: Int { ends.count }
    /// Everything that was told, in its order.
    private(set) var digest: UInt64 = 0
    private(set) var acknowledgedCount = 0
    /// How often a replica was seen in another log directory than before.
    var movesCount = 0
    private(set) var seenCount = 0

    func violated(_ sentence: String) {
        if violations.count < Self.violationsLimit { violations.append(sentence) }
    }

    private func fold(_ value: Int64) {
        digest = (digest ^ UInt64(bitPattern: value)) &* 0x9E37_79B9_7F4A_7C15
        digest ^= digest >> 29
    }

    func lifeEnded(_ end: End) { ends.append(end) }

    // MARK: Producers

    func addProducer() -> Int32 {
        sent.append([])
        return Int32(sent.count - 1)
    }

    /// The next record of a producer.
    func send(_ producer: Int32, to place: TopicPartition, acks: Int16) -> RecordName {
        sent[Int(producer)].append(Sent(place: place, acks: acks))
        return RecordName(producer: producer, number: Int32(sent[Int(producer)].count - 1))
    }

    /// `offset` is nil where the broker only said that it has the record.
    func acknowledged(_ first: RecordName, count: Int, at offset: Offset?, life: Int) {
        fold(Int64(first.producer) << 40 | Int64(first.number))
        fold(offset ?? -1)
        if let offset, offset < 0 { violated("\(first) was acknowledged at offset \(offset)") }
        for index in 0..<count {
            let number = Int(first.number) + index
            sent[Int(first.producer)][number].acknowledgedIn = life
            sent[Int(first.producer)][number].told = offset.map { $0 + Int64(index) }
            acknowledgedCount += 1
        }
    }

    // MARK: Consumers

    func sawHighWatermark(_ offset: Offset, of place: TopicPartition) {
        highWatermarks[place] = max(highWatermarks[place] ?? 0, offset)
    }

    /// A batch that a consumer was given.
    func saw(_ header: BatchHeader, _ records: [RecordName?], at place: TopicPartition) {
        fold(header.baseOffset)
        for (index, name) in records.enumerated() { saw(name, at: place, header.baseOffset + Int64(index)) }
    }

    private func saw(_ name: RecordName?, at place: TopicPartition, _ offset: Offset) {
        guard let name, Int(name.producer) < sent.count, Int(name.number) < sent[Int(name.producer)].count else {
            return violated("\(place) has at offset \(offset) what nobody sent")
        }
        var known = seen[place] ?? []
        seen[place] = nil
        defer { seen[place] = known }
        while known.count <= offset { known.append(nil) }
        if let before = known[Int(offset)] {
            if before != name { violated("\(place) had \(before) at offset \(offset), and now has \(name)") }
            return
        }
        known[Int(offset)] = name
        seenCount += 1
        if let (other, at) = places[name] {
            return violated("\(name) is at offset \(at) of \(other), and again at offset \(offset) of \(place)")
        }
        places[name] = (place, offset)
        let sent = sent[Int(name.producer)][Int(name.number)]
        if sent.place != place { violated("\(name) was sent to \(sent.place) and is in \(place)") }
    }

    // MARK: Topics

    func topicMade(_ name: String, id: UUID, partitions: Int32) {
        fold(Int64(bitPattern: id.low))
        made.append((name, MadeTopic(id: id, partitions: partitions)))
    }

    func topicDeleted(_ name: String) {
        made.removeAll { $0.name == name }
        deleted.append(name)
    }

    func sawTopics(_ found: [(name: String, id: UUID, partitions: Int)]) {
        for (name, topic) in made {
            guard let one = found.first(where: { $0.name == name }) else {
                violated("topic \(name) was made, and is gone")
                continue
            }
            if one.id != topic.id { violated("topic \(name) was made with id \(topic.id), and now has \(one.id)") }
            if one.partitions != Int(topic.partitions) {
                violated("topic \(name) was made with \(topic.partitions) partitions, and has \(one.partitions)")
            }
        }
        for name in deleted where found.contains(where: { $0.name == name }) {
            violated("topic \(name) was deleted, and is there")
        }
    }

    // MARK: The end

    /// What a reader from the beginning found in a partition must be all that was promised of it.
    func close(_ place: TopicPartition, start: Offset, end: Offset) {
        if start != 0 { violated("\(place) begins at offset \(start), and nothing was ever removed from it") }
        if let told = highWatermarks[place], told > end {
            violated("\(place) ends at offset \(end), and had a high watermark of \(told)")
        }
        let known = seen[place] ?? []
        if known.count > end { violated("\(place) ends at offset \(end), and record \(known.count - 1) was seen in it") }
        for offset in 0..<min(Int(end), known.count) where known[offset] == nil {
            violated("\(place) has no record at offset \(offset), and does not end there")
        }
        var last: [Int32: Int32] = [:]
        for name in known.compactMap({ $0 }) {
            if let before = last[name.producer], before > name.number {
                violated("\(place) has \(name) after record \(before) of the same producer")
            }
            last[name.producer] = name.number
        }
    }

    /// Every record that was acknowledged, when all partitions have been read.
    func closeRecords() {
        for producer in sent.indices {
            for number in sent[producer].indices {
                let one = sent[producer][number]
                guard let life = one.acknowledgedIn else { continue }
                let name = RecordName(producer: Int32(producer), number: Int32(number))
                guard let (_, offset) = places[name] else {
                    if isPromised(acks: one.acks, since: life) {
                        violated(
                            "\(name) was acknowledged (acks=\(one.acks), life \(life)) at offset \(one.told ?? -1) of \(one.place), and is lost")
                    }
                    continue
                }
                if let told = one.told, told != offset {
                    violated("\(name) was acknowledged at offset \(told) of \(one.place), and is at \(offset)")
                }
            }
        }
    }

    private func isPromised(acks: Int16, since life: Int) -> Bool {
        guard acks != -1 else { return true }
        // the first stop or power cut decides; a kill leaves the page cache
        return ends[min(life, ends.count)...].first { $0 != .kill } != .powerCut
    }
}
