import MartletModel

/// What transactional producers were told, what readers saw, and whether the two may stand beside each other.
///
/// Each producer takes step after step: step n writes one record to some partitions and commits n + 1 as its offset, in one
/// transaction. Where the offset stands says which step comes next. A step may be tried several times; each try has a number
/// of its own, which its records carry. So at the end each producer's steps must be there up to its offset, each by one try,
/// whole, once, in order; and nothing else.
final class TransactionLedger {
    struct Try: Hashable, Sendable {
        var producer: Int
        var step: Offset
        var number: Int
    }

    enum Fate: Sendable { case open, committed, aborted }

    private var fates: [Try: Fate] = [:]
    private var seen: [Int32: [Offset: Try]] = [:]
    private var tries = 0
    private(set) var violations: [String] = []
    private(set) var committedCount = 0
    private(set) var abortedCount = 0
    private(set) var seenCount = 0
    private(set) var digest: UInt64 = 0

    func violated(_ sentence: String) { violations.append(sentence) }

    private func note(_ value: Int64) {
        digest = (digest ^ UInt64(bitPattern: value)) &* 0x9E37_79B9_7F4A_7C15
        digest ^= digest >> 29
    }

    // MARK: What producers were told

    func begin(_ producer: Int, _ step: Offset) -> Try {
        tries += 1
        let new = Try(producer: producer, step: step, number: tries)
        fates[new] = .open
        note(step &+ Int64(producer) << 40)
        return new
    }

    func ended(_ tried: Try, commits: Bool) {
        fates[tried] = commits ? .committed : .aborted
        if commits { committedCount += 1 } else { abortedCount += 1 }
        note(commits ? 1 : 2)
    }

    // MARK: What records carry

    static func value(of tried: Try) -> [UInt8] { Array("\(tried.producer):\(tried.step):\(tried.number)".utf8) }

    private static func tried(_ value: [UInt8]) -> Try? {
        let parts = String(decoding: value, as: UTF8.self).split(separator: ":")
        guard parts.count == 3, let producer = Int(parts[0]), let step = Offset(parts[1]), let number = Int(parts[2]) else {
            return nil
        }
        return Try(producer: producer, step: step, number: number)
    }

    /// The partitions that a step writes to.
    static func partitions(of step: Offset, _ producer: Int, count: Int32) -> [Int32] {
        (0..<count).filter { (step + Int64(producer) + Int64($0)) % 3 != 0 || $0 == 0 }
    }

    // MARK: What readers saw

    /// A reader of committed records saw this; whatever it was, it is there for ever.
    func saw(_ value: [UInt8], at offset: Offset, _ partition: Int32) {
        seenCount += 1
        note(offset)
        guard let tried = Self.tried(value), let fate = fates[tried] else {
            return violated("a record that nobody wrote at \(partition)/\(offset)")
        }
        if fate == .aborted {
            violated("a record of an aborted transaction was read as committed: \(tried) at \(partition)/\(offset)")
        }
        if let before = seen[partition]?[offset], before != tried {
            violated("\(partition)/\(offset) was \(before) and is \(tried)")
        }
        seen[partition, default: [:]][offset] = tried
    }

    /// All that is committed, in the order of each partition's offsets, and each producer's offset.
    func finished(_ records: [[(offset: Offset, value: [UInt8])]], offsets: [Offset]) {
        var found: [[Offset: Set<Int>]] = Array(repeating: [:], count: offsets.count)
        for (partition, records) in records.enumerated() {
            var last = [Offset](repeating: -1, count: offsets.count)
            let final = Dictionary(uniqueKeysWithValues: records.map { ($0.offset, $0.value) })
            for (offset, tried) in (seen[Int32(partition)] ?? [:]).sorted(by: { $0.key < $1.key })
            where final[offset] != Self.value(of: tried) {
                violated("\(tried) was read as committed at \(partition)/\(offset), and is not there at the end")
            }
            for record in records {
                saw(record.value, at: record.offset, Int32(partition))
                guard let tried = Self.tried(record.value) else { continue }
                if tried.step <= last[tried.producer] {
                    violated("\(tried) comes after step \(last[tried.producer]) in \(partition)")
                }
                last[tried.producer] = tried.step
                found[tried.producer][tried.step, default: []].insert(tried.number)
            }
            for (producer, end) in offsets.enumerated() {
                let wanted = (0..<end).filter {
                    Self.partitions(of: $0, producer, count: Int32(self.partitionCount)).contains(Int32(partition))
                }
                let there = records.compactMap { Self.tried($0.value) }.filter { $0.producer == producer }.map(\.step)
                if there != wanted {
                    violated(
                        "producer \(producer) has committed offset \(end), and \(partition) has steps \(there), not \(wanted)"
                    )
                }
            }
        }
        for (producer, steps) in found.enumerated() {
            for (step, numbers) in steps.sorted(by: { $0.key < $1.key }) where numbers.count > 1 {
                violated("step \(step) of producer \(producer) is there of tries \(numbers.sorted()): half of each")
            }
        }
        for (tried, fate) in fates.sorted(by: { $0.key.number < $1.key.number }) where fate == .committed {
            if tried.step >= offsets[tried.producer] || found[tried.producer][tried.step] != [tried.number] {
                violated("\(tried) was committed, and is not there")
            }
        }
    }

    var partitionCount = 1
}
