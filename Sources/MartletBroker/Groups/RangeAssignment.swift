import MartletModel

/// See `PartitionAssignor.range`. Topics with as many partitions and the same readers are alike, and shared as one: whoever
/// has a number has it of all of them, so that what belongs together in them is read by one member.
///
/// Where racks make no difference, every reader has a run of numbers, in the order of the readers. Where they do
/// (`RackedRange`), everybody still has as many, and of those that are near as many as can be had without taking them
/// from somebody who has them.
struct RangeAssignment {
    private let members: [AssignedMember]
    private let topics: [UUID: AssignedTopic]
    private let knowsRacks: Bool

    /// What makes topics alike.
    private struct Likeness: Hashable {
        var count: Int
        /// Places in `members`.
        var readers: [Int]
    }

    /// In how many of like topics each number is near to each rack; `racks` says which is which.
    private struct Nearness {
        var racks: [String]
        var counts: [[Int]]
    }

    init(_ members: [AssignedMember], _ topics: [UUID: AssignedTopic]) {
        self.members = members
        self.topics = topics
        knowsRacks = members.contains { $0.rack != nil } && topics.values.contains { !$0.racks.isEmpty }
    }

    func make() -> [PartitionSet] {
        let alike = alikeTopics.map { likeness, ids in (likeness: likeness, ids: ids, nearness: nearness(likeness, ids)) }
        let order = order(by: Set(alike.filter { $0.nearness == nil }.flatMap(\.ids)))
        var assignment = [PartitionSet](repeating: [:], count: members.count)
        for (likeness, ids, nearness) in alike {
            let readers = likeness.readers.sorted { order[$0] < order[$1] }
            let shares = nearness.map { racked($0, readers, ids, likeness.count) } ?? Self.runs(likeness)
            for (share, index) in zip(shares, readers) where !share.isEmpty {
                for id in ids { assignment[index][id] = share }
            }
        }
        return assignment
    }

    /// Topics that are read, with those that are like them; each list in order.
    private var alikeTopics: [(Likeness, [UUID])] {
        var readersOf: [UUID: [Int]] = [:]
        for index in members.indices { for topic in members[index].topics { readersOf[topic, default: []].append(index) } }
        var found: [Likeness: [UUID]] = [:]
        for topic in readersOf.keys.sorted() {
            guard let count = topics[topic]?.partitionCount, count > 0 else { continue }
            found[Likeness(count: Int(count), readers: readersOf[topic]!), default: []].append(topic)
        }
        return found.map { ($0.key, $0.value) }.sorted { $0.1[0] < $1.1[0] }
    }

    /// By member, his place among them. Who had something of these topics comes where he was, and the others by their names
    /// after them. Topics that are shared by racks do not count: what is near to somebody says nothing of his order.
    private func order(by plain: Set<UUID>) -> [Int] {
        let places = members.map { member in
            member.topics.compactMap { plain.contains($0) ? member.before[$0]?.first : nil }.min() ?? .max
        }
        let sorted = members.indices.sorted { one, other in
            let (a, b) = (members[one], members[other])
            return (places[one], a.instanceID ?? a.id, a.id) < (places[other], b.instanceID ?? b.id, b.id)
        }
        var order = [Int](repeating: 0, count: members.count)
        for (place, index) in sorted.enumerated() { order[index] = place }
        return order
    }

    /// By reader.
    private static func runs(_ likeness: Likeness) -> [[Int32]] {
        let (each, more) = likeness.count.quotientAndRemainder(dividingBy: likeness.readers.count)
        var first = 0
        return likeness.readers.indices.map { position in
            let size = each + (position < more ? 1 : 0)
            defer { first += size }
            return (first..<first + size).map(Int32.init)
        }
    }

    private func racks(of readers: [Int]) -> [String] { Set(readers.compactMap { members[$0].rack }).sorted() }

    /// Nil where racks make no difference: nobody says his, or to each the partitions are all as near as the others.
    private func nearness(_ likeness: Likeness, _ ids: [UUID]) -> Nearness? {
        guard knowsRacks else { return nil }
        let racks = racks(of: likeness.readers)
        let counts = racks.map { rack in
            (0..<likeness.count).map { number in
                ids.count { id in
                    guard let known = topics[id]?.racks, number < known.count else { return false }
                    return known[number].contains(rack)
                }
            }
        }
        return counts.contains { Set($0).count > 1 } ? Nearness(racks: racks, counts: counts) : nil
    }

    private func racked(_ nearness: Nearness, _ readers: [Int], _ ids: [UUID], _ count: Int) -> [[Int32]] {
        var owners = [Int?](repeating: nil, count: count)
        for id in ids {
            for (position, index) in readers.enumerated() {
                for number in members[index].before[id] ?? [] where owners.indices.contains(Int(number)) {
                    if owners[Int(number)] == nil { owners[Int(number)] = position }
                }
            }
        }
        let places = readers.map { index in members[index].rack.flatMap { nearness.racks.firstIndex(of: $0) } }
        return RackedRange(readerRacks: places, nearness: nearness.counts, owners: owners).make()
    }
}

/// Shares the numbers of like topics where it matters which member has which.
///
/// What is nearest is given first: to who had it, and then to the first reader in a nearest rack who may still have more. What
/// is near to nobody who may have more stays where it was, and the rest fills up in order. With what was assigned before
/// as its input it comes to the same again: whom a number was not given to was full then, and is full at that point
/// again.
private struct RackedRange {
    /// By reader: a place in `nearness`.
    let readerRacks: [Int?]
    /// By rack and number: in how many of the topics a replica is there.
    let nearness: [[Int]]
    /// By number: the reader who has had it.
    let owners: [Int?]

    private var shares: [[Int32]] = []
    private var isGiven: [Bool] = []
    /// How many each has at least, and how many may have one more.
    private var each = 0, more = 0
    /// By rack, its readers, and how many of them are known to be full.
    private var queues: [[Int]] = []
    private var full: [Int] = []

    init(readerRacks: [Int?], nearness: [[Int]], owners: [Int?]) {
        (self.readerRacks, self.nearness, self.owners) = (readerRacks, nearness, owners)
        (each, more) = owners.count.quotientAndRemainder(dividingBy: readerRacks.count)
        shares = [[Int32]](repeating: [], count: readerRacks.count)
        isGiven = [Bool](repeating: false, count: owners.count)
        queues = nearness.indices.map { rack in readerRacks.indices.filter { readerRacks[$0] == rack } }
        full = [Int](repeating: 0, count: nearness.count)
    }

    func make() -> [[Int32]] {
        var copy = self
        return copy.share()
    }

    private mutating func share() -> [[Int32]] {
        // what few can have near is given first
        let choice = owners.indices.map { number in nearness.count { $0[number] > 0 } }
        let order = owners.indices.sorted { a, b in (choice[a], a) < (choice[b], b) }
        for level in levels {
            keep(order, asNearAs: level)
            for number in order where !isGiven[number] {
                let near = nearness.indices.filter { nearness[$0][number] == level }
                if let reader = near.compactMap({ firstOpen($0) }).min() { give(number, to: reader) }
            }
        }
        keep(order, asNearAs: nil)
        var rest = owners.indices.filter { !isGiven[$0] }[...]
        for reader in shares.indices { while isOpen(reader), let number = rest.popFirst() { give(number, to: reader) } }
        precondition(rest.isEmpty, "shares come to all partitions")
        return shares.map { $0.sorted() }
    }

    /// In how many topics a number can be near, the most first.
    private var levels: [Int] { Set(nearness.joined()).subtracting([0]).sorted(by: >) }

    private mutating func keep(_ order: [Int], asNearAs level: Int?) {
        for number in order where !isGiven[number] {
            guard let owner = owners[number], isOpen(owner) else { continue }
            if level == nil || level == readerRacks[owner].map({ nearness[$0][number] }) { give(number, to: owner) }
        }
    }

    private func isOpen(_ reader: Int) -> Bool { shares[reader].count < each || shares[reader].count == each && more > 0 }

    /// Who is full stays so.
    private mutating func firstOpen(_ rack: Int) -> Int? {
        while full[rack] < queues[rack].count {
            let reader = queues[rack][full[rack]]
            if isOpen(reader) { return reader }
            full[rack] += 1
        }
        return nil
    }

    private mutating func give(_ number: Int, to reader: Int) {
        if shares[reader].count == each { more -= 1 }
        shares[reader].append(Int32(number))
        isGiven[number] = true
    }
}
