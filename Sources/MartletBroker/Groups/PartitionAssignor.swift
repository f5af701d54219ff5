package import MartletModel

/// Partitions by topic, the numbers of each rising.
package typealias PartitionSet = [UUID: [Int32]]

/// A member of a consumer group, as an assignor sees it.
package struct AssignedMember: Sendable {
    package var id: String
    package var instanceID: String?
    package var rack: String?
    /// That are there, in the order of their ids.
    package var topics: [UUID]
    /// What it was to have before.
    package var before: PartitionSet

    package init(id: String, instanceID: String? = nil, rack: String? = nil, topics: [UUID], before: PartitionSet = [:]) {
        self.id = id
        self.instanceID = instanceID
        self.rack = rack
        self.topics = topics
        self.before = before
    }
}

package struct AssignedTopic: Sendable {
    package var partitionCount: Int32
    /// Where the replicas of each partition are; empty where brokers do not say.
    package var racks: [[String]]

    package init(partitionCount: Int32, racks: [[String]] = []) {
        self.partitionCount = partitionCount
        self.racks = racks
    }
}

/// The ways in which a coordinator assigns partitions to the members of a consumer group. All are functions of what is
/// there and of what was assigned before; the same input gives the same assignment.
///
/// - `uniform`: nobody has two partitions more than somebody else who could have one of them. What was assigned
///   stays where that allows it; what moves goes to a member in the rack of a replica where there is one.
/// - `range`: of each topic everybody has a run of neighbouring partitions, and of topics with as many partitions and the
///   same members everybody has the same numbers. Members keep their order, newcomers are last. Where racks tell partitions
///   apart, everybody has as many as without racks, and of like topics the same numbers, but those that are near to him.
package enum PartitionAssignor: String, Sendable, CaseIterable {
    case uniform, range

    /// For each member, in their order.
    package func assign(_ members: [AssignedMember], _ topics: [UUID: AssignedTopic]) -> [PartitionSet] {
        guard !members.isEmpty else { return [] }
        switch self {
        case .range: return RangeAssignment(members, topics).make()
        case .uniform:
            var assignment = UniformAssignment(members, topics)
            return assignment.make()
        }
    }
}

/// See `PartitionAssignor.uniform`. First everybody keeps what he had, then what is too much is taken, and then what
/// nobody has is given.
struct UniformAssignment {
    private let members: [AssignedMember]
    private let described: [UUID: AssignedTopic]
    private var held: [[UUID: Set<Int32>]]
    private var loads: [Int]
    /// Of whom a topic can be taken, by topic: places in `members`.
    private var readers: [UUID: [Int]] = [:]
    /// What nobody has, in an order that depends on nothing but names.
    private var free: [(topic: UUID, partition: Int32)] = []
    private let knowsRacks: Bool

    init(_ members: [AssignedMember], _ topics: [UUID: AssignedTopic]) {
        self.members = members
        described = topics
        held = [[UUID: Set<Int32>]](repeating: [:], count: members.count)
        loads = [Int](repeating: 0, count: members.count)
        knowsRacks = members.contains { $0.rack != nil } && topics.values.contains { !$0.racks.isEmpty }
    }

    mutating func make() -> [PartitionSet] {
        for (index, member) in members.enumerated() {
            for topic in member.topics where described[topic] != nil { readers[topic, default: []].append(index) }
        }
        keepWhatWas()
        let isEven = members.allSatisfy { $0.topics == members[0].topics }
        if isEven { shareEvenly() } else { shareAmongReaders() }
        return held.map { topics in topics.compactMapValues { $0.isEmpty ? nil : $0.sorted() } }
    }

    private mutating func keepWhatWas() {
        var taken: [UUID: Set<Int32>] = [:]
        for (index, member) in members.enumerated() {
            for topic in member.topics {
                guard let count = described[topic]?.partitionCount, let before = member.before[topic] else { continue }
                for partition in before where partition >= 0 && partition < count {
                    if taken[topic, default: []].insert(partition).inserted { give(topic, partition, to: index) }
                }
            }
        }
        // what few can have is given first
        let order = readers.keys.sorted { (readers[$0]!.count, $0.high, $0.low) < (readers[$1]!.count, $1.high, $1.low) }
        for topic in order {
            for partition in 0..<described[topic]!.partitionCount where taken[topic]?.contains(partition) != true {
                free.append((topic, partition))
            }
        }
    }

    private mutating func give(_ topic: UUID, _ partition: Int32, to index: Int) {
        held[index][topic, default: []].insert(partition)
        loads[index] += 1
    }

    private mutating func take(_ topic: UUID, _ partition: Int32, from index: Int) {
        held[index][topic]!.remove(partition)
        loads[index] -= 1
    }

    private func isNear(_ topic: UUID, _ partition: Int32, _ index: Int) -> Bool {
        guard knowsRacks, let rack = members[index].rack, let racks = described[topic]?.racks, Int(partition) < racks.count
        else {
            return false
        }
        return racks[Int(partition)].contains(rack)
    }

    // MARK: Everybody reads the same

    /// Everybody has as much as the others or one more; that one have those who had most.
    private mutating func shareEvenly() {
        let count = loads.reduce(free.count, +)
        let (each, more) = (count / members.count, count % members.count)
        var quotas = [Int](repeating: each, count: members.count)
        for index in members.indices.sorted(by: { (-loads[$0], members[$0].id) < (-loads[$1], members[$1].id) }).prefix(more) {
            quotas[index] += 1
        }
        for index in members.indices where loads[index] > quotas[index] { release(loads[index] - quotas[index], of: index) }
        if knowsRacks { giveNearby(quotas) }
        var open = members.indices.filter { loads[$0] < quotas[$0] }[...]
        // one each in turn, so that a topic is spread
        while let (topic, partition) = free.popLast() {
            guard let index = open.popFirst() else { preconditionFailure("quotas come to all partitions") }
            give(topic, partition, to: index)
            if loads[index] < quotas[index] { open.append(index) }
        }
    }

    /// Those that are far from the member go first, and of a topic the last ones.
    private mutating func release(_ count: Int, of index: Int) {
        var all: [(topic: UUID, partition: Int32)] = []
        for topic in members[index].topics { all += (held[index][topic] ?? []).sorted().map { (topic, $0) } }
        var leaving: [(topic: UUID, partition: Int32)] = []
        if knowsRacks { leaving = Array(all.reversed().filter { !isNear($0.topic, $0.partition, index) }.prefix(count)) }
        if leaving.count < count {
            let near = all.reversed().filter { one in !leaving.contains { $0 == one } }
            leaving += near.prefix(count - leaving.count)
        }
        for (topic, partition) in leaving { take(topic, partition, from: index) }
        free += leaving
    }

    private mutating func giveNearby(_ quotas: [Int]) {
        var openByRack: [String: [Int]] = [:]
        for index in members.indices.reversed() where loads[index] < quotas[index] {
            if let rack = members[index].rack { openByRack[rack, default: []].append(index) }
        }
        var left: [(topic: UUID, partition: Int32)] = []
        for (topic, partition) in free {
            let racks = described[topic]!.racks
            let near = Int(partition) < racks.count ? racks[Int(partition)] : []
            guard let rack = near.first(where: { openByRack[$0]?.isEmpty == false }) else {
                left.append((topic, partition))
                continue
            }
            let index = openByRack[rack]!.last!
            give(topic, partition, to: index)
            if loads[index] == quotas[index] { openByRack[rack]!.removeLast() }
        }
        free = left
    }

    // MARK: Not everybody reads the same

    /// Each goes to whoever of its readers has least; then single partitions move for as long as that evens out.
    private mutating func shareAmongReaders() {
        for (topic, partition) in free {
            guard let index = least(readers[topic]!, topic, partition) else { continue }
            give(topic, partition, to: index)
        }
        free = []
        var moves = held.reduce(0) { $0 + $1.values.reduce(0) { $0 + $1.count } } * 2
        var isMoving = true
        while isMoving, moves > 0 {
            isMoving = false
            for index in members.indices.sorted(by: { (-loads[$0], members[$0].id) < (-loads[$1], members[$1].id) }) {
                while moves > 0, moveOne(from: index) { (isMoving, moves) = (true, moves - 1) }
            }
        }
    }

    private func least(_ indexes: [Int], _ topic: UUID, _ partition: Int32) -> Int? {
        indexes.min {
            (loads[$0], isNear(topic, partition, $0) ? 0 : 1, members[$0].id) < (
                loads[$1], isNear(topic, partition, $1) ? 0 : 1, members[$1].id
            )
        }
    }

    /// Moves a partition from a member to the one that has least of all who could have one of his; false where that
    /// would even out nothing.
    private mutating func moveOne(from index: Int) -> Bool {
        var best: (topic: UUID, to: Int)?
        for topic in members[index].topics where held[index][topic]?.isEmpty == false {
            guard let to = readers[topic]!.min(by: { (loads[$0], members[$0].id) < (loads[$1], members[$1].id) }),
                loads[to] + 1 < loads[index], best.map({ loads[to] < loads[$0.to] }) ?? true
            else { continue }
            best = (topic, to)
        }
        guard let (topic, to) = best else { return false }
        let partitions = held[index][topic]!.sorted()
        let partition = partitions.last { isNear(topic, $0, to) && !isNear(topic, $0, index) } ?? partitions.last!
        take(topic, partition, from: index)
        give(topic, partition, to: to)
        return true
    }
}
