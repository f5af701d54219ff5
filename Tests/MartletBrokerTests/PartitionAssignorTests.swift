import MartletBasics
import MartletBroker
import MartletModel
import Testing

@Suite struct PartitionAssignorTests {
    private func topic(_ number: Int) -> UUID { UUID(high: 7, low: UInt64(number)) }

    private func members(_ count: Int, _ topics: [UUID], racks: Int = 0) -> [AssignedMember] {
        (0..<count).map { AssignedMember(id: "m\($0)", rack: racks > 0 ? "r\($0 % racks)" : nil, topics: topics) }
    }

    /// Everything is given, once, and to somebody who reads it.
    private func check(_ assignment: [PartitionSet], _ members: [AssignedMember], _ topics: [UUID: AssignedTopic]) {
        var given: [UUID: Set<Int32>] = [:]
        for (member, partitions) in zip(members, assignment) {
            for (topic, numbers) in partitions {
                #expect(member.topics.contains(topic), "\(member.id) is given what it does not read")
                #expect(numbers == numbers.sorted() && !numbers.isEmpty)
                for number in numbers {
                    #expect(number >= 0 && number < topics[topic]?.partitionCount ?? 0)
                    #expect(given[topic, default: []].insert(number).inserted, "a partition is given twice")
                }
            }
        }
        let read = Set(members.flatMap(\.topics))
        for (id, topic) in topics where read.contains(id) {
            #expect(given[id]?.count ?? 0 == Int(topic.partitionCount), "partitions are left over")
        }
    }

    private func loads(_ assignment: [PartitionSet]) -> [Int] { assignment.map { $0.values.reduce(0) { $0 + $1.count } } }

    private func after(_ members: [AssignedMember], _ assignment: [PartitionSet]) -> [AssignedMember] {
        zip(members, assignment).map { member, partitions in
            var member = member
            member.before = partitions
            return member
        }
    }

    private func moved(_ before: [AssignedMember], _ assignment: [PartitionSet]) -> Int {
        var count = 0
        for (member, now) in zip(before, assignment) {
            for (topic, partitions) in member.before {
                count += partitions.filter { now[topic]?.contains($0) != true }.count
            }
        }
        return count
    }

    @Test("uniform: nobody has two more than another, and who joins or leaves moves no more than his share")
    func uniformIsEvenAndSticky() {
        var random = SeededRandom(seed: 1)
        for _ in 0..<200 {
            let topics = Dictionary(
                uniqueKeysWithValues: (0..<1 + random.below(4)).map {
                    (topic($0), AssignedTopic(partitionCount: Int32(1 + random.below(20))))
                })
            let ids = topics.keys.sorted { $0.low < $1.low }
            var group = members(1 + random.below(12), ids)
            for step in 0..<6 {
                let assignment = PartitionAssignor.uniform.assign(group, topics)
                check(assignment, group, topics)
                let sizes = loads(assignment)
                #expect(sizes.max()! - sizes.min()! <= 1)
                #expect(assignment == PartitionAssignor.uniform.assign(group, topics), "the same twice")
                let total = topics.values.reduce(0) { $0 + Int($1.partitionCount) }
                if step > 0 {
                    #expect(moved(group, assignment) <= (total + group.count - 1) / group.count, "more moved than had to")
                }
                group = after(group, assignment)
                #expect(PartitionAssignor.uniform.assign(group, topics) == assignment, "nothing changed, and nothing moves")
                if random.chance(1, in: 2), group.count > 1 {
                    group.remove(at: random.below(group.count))
                } else {
                    group.append(AssignedMember(id: "n\(step)", topics: ids))
                }
            }
        }
    }

    @Test("uniform: where not all read the same, no single partition could go to somebody with two fewer")
    func uniformAmongDifferentReaders() {
        var random = SeededRandom(seed: 2)
        for _ in 0..<200 {
            let topics = Dictionary(
                uniqueKeysWithValues: (0..<2 + random.below(4)).map {
                    (topic($0), AssignedTopic(partitionCount: Int32(1 + random.below(9))))
                })
            let ids = topics.keys.sorted { $0.low < $1.low }
            var group = (0..<2 + random.below(6)).map { index in
                AssignedMember(id: "m\(index)", topics: ids.filter { _ in random.chance(2, in: 3) })
            }
            for _ in 0..<3 {
                let assignment = PartitionAssignor.uniform.assign(group, topics)
                check(assignment, group, topics)
                let sizes = loads(assignment)
                for (heavy, partitions) in assignment.enumerated() {
                    for topic in partitions.keys {
                        for (light, member) in group.enumerated() where member.topics.contains(topic) {
                            #expect(sizes[heavy] - sizes[light] <= 1, "\(group[heavy].id) could give one to \(member.id)")
                        }
                    }
                }
                group = after(group, assignment)
                #expect(moved(group, PartitionAssignor.uniform.assign(group, topics)) == 0)
                group[random.below(group.count)].topics = ids
            }
        }
    }

    @Test("uniform: a partition goes to a member in the rack of one of its replicas, where that costs no balance")
    func uniformKnowsRacks() {
        let topics = [topic(1): AssignedTopic(partitionCount: 12, racks: (0..<12).map { ["r\($0 % 3)"] })]
        let group = members(6, [topic(1)], racks: 3)
        let assignment = PartitionAssignor.uniform.assign(group, topics)
        check(assignment, group, topics)
        #expect(loads(assignment) == [2, 2, 2, 2, 2, 2])
        for (index, partitions) in assignment.enumerated() {
            #expect(partitions[topic(1)]!.allSatisfy { Int($0) % 3 == index % 3 }, "m\(index) reads from its own rack")
        }
        // balance comes first, and racks that nobody is in are no obstacle
        let alone = PartitionAssignor.uniform.assign(members(2, [topic(1)], racks: 1), topics)
        #expect(loads(alone) == [6, 6])
    }

    @Test("range: neighbours of each topic, the same numbers of like topics, and members keep their order")
    func rangeIsNeighbourly() {
        let topics = [topic(1): AssignedTopic(partitionCount: 5), topic(2): AssignedTopic(partitionCount: 5)]
        var group = members(2, [topic(1), topic(2)])
        var assignment = PartitionAssignor.range.assign(group, topics)
        check(assignment, group, topics)
        #expect(assignment[0] == [topic(1): [0, 1, 2], topic(2): [0, 1, 2]] && assignment[1][topic(1)] == [3, 4])
        group =
            after(group, assignment) + [AssignedMember(id: "a newcomer whose name comes first", topics: [topic(1), topic(2)])]
        assignment = PartitionAssignor.range.assign(group, topics)
        check(assignment, group, topics)
        #expect(assignment.map { $0[topic(1)] } == [[0, 1], [2, 3], [4]], "who was there keeps its place")
        let many = members(7, [topic(1)])
        #expect(loads(PartitionAssignor.range.assign(many, topics)) == [1, 1, 1, 1, 1, 0, 0])
    }

    private func near(_ members: [AssignedMember], _ topics: [UUID: AssignedTopic], _ assignment: [PartitionSet]) -> Int {
        var count = 0
        for (member, partitions) in zip(members, assignment) {
            for (topic, numbers) in partitions {
                count += numbers.count { topics[topic]!.racks[Int($0)].contains(member.rack ?? "nowhere") }
            }
        }
        return count
    }

    @Test("range: a partition goes to a member in a rack of its replicas, and everybody has as many as without racks")
    func rangeKnowsRacks() {
        for racks in [2, 3] {
            let topics = [
                topic(1): AssignedTopic(partitionCount: 12, racks: (0..<12).map { ["r\($0 % racks)"] }),
                topic(2): AssignedTopic(partitionCount: 12, racks: (0..<12).map { ["r\($0 % racks)"] }),
            ]
            let group = members(6, [topic(1), topic(2)], racks: racks)
            let assignment = PartitionAssignor.range.assign(group, topics)
            check(assignment, group, topics)
            #expect(loads(assignment) == [4, 4, 4, 4, 4, 4])
            #expect(near(group, topics, assignment) == 24, "all is read in its own rack")
            #expect(assignment.allSatisfy { $0[topic(1)] == $0[topic(2)] }, "the same numbers of like topics")
            let without = members(6, [topic(1), topic(2)])
            #expect(near(group, topics, PartitionAssignor.range.assign(without, topics)) < 24, "which runs alone would not do")
        }
    }

    @Test("range: where racks tell nothing apart it is as without them, and members keep their order")
    func rangeWithoutADifference() {
        let everywhere = (0..<5).map { _ in ["r0", "r1"] }
        let oneRack = (0..<5).map { _ in ["r0"] }
        let elsewhere = (0..<5).map { ["q\($0)"] }
        for racks in [everywhere, oneRack, elsewhere, []] {
            let topics = [topic(1): AssignedTopic(partitionCount: 5, racks: racks)]
            let assignment = PartitionAssignor.range.assign(members(2, [topic(1)], racks: 2), topics)
            #expect(assignment == [[topic(1): [0, 1, 2]], [topic(1): [3, 4]]], "\(racks)")
        }
        let topics = [topic(1): AssignedTopic(partitionCount: 4, racks: [["r0"], ["r1"], ["r0"], ["r1"]])]
        let assignment = PartitionAssignor.range.assign(members(2, [topic(1)]), topics)
        #expect(assignment == [[topic(1): [0, 1]], [topic(1): [2, 3]]], "nobody says where he is")
    }

    @Test("range: across racks all is given evenly, near where it can be, and stays while nobody comes or goes")
    func rangeAcrossRacks() {
        var random = SeededRandom(seed: 3)
        for _ in 0..<300 {
            let (racks, replicas) = (2 + random.below(2), 1 + random.below(2))
            let topics = Dictionary(
                uniqueKeysWithValues: (0..<1 + random.below(3)).map { number in
                    let (count, shift) = (1 + random.below(16), random.below(racks))
                    let placed = (0..<count).map { partition in
                        (0..<replicas).map { "r\((partition + shift + $0) % racks)" }.sorted()
                    }
                    return (topic(number), AssignedTopic(partitionCount: Int32(count), racks: placed))
                })
            let ids = topics.keys.sorted { $0.low < $1.low }
            var group = (0..<1 + random.below(7)).map { index in
                AssignedMember(id: "m\(index)", rack: random.chance(1, in: 8) ? nil : "r\(random.below(racks))", topics: ids)
            }
            for step in 0..<4 {
                let assignment = PartitionAssignor.range.assign(group, topics)
                check(assignment, group, topics)
                var alone = group
                for index in alone.indices { (alone[index].rack, alone[index].before) = (nil, [:]) }
                let runs = PartitionAssignor.range.assign(alone, topics)
                for id in ids {
                    let sizes = { (one: [PartitionSet]) in one.map { $0[id]?.count ?? 0 }.sorted() }
                    #expect(sizes(assignment) == sizes(runs), "of each topic as many as without racks")
                    for other in ids where topics[other]!.partitionCount == topics[id]!.partitionCount {
                        #expect(assignment.allSatisfy { $0[id] == $0[other] }, "like topics are read together")
                    }
                }
                if ids.count == 1 { expectNearness(group, ids[0], topics, assignment) }
                group = after(group, assignment)
                #expect(PartitionAssignor.range.assign(group, topics) == assignment, "nothing changed, and nothing moves")
                if random.chance(1, in: 2), group.count > 1 {
                    group.remove(at: random.below(group.count))
                } else {
                    group.append(AssignedMember(id: "n\(step)", rack: "r\(random.below(racks))", topics: ids))
                }
            }
        }
    }

    /// Nobody far has what somebody near would have taken, who has less than the most that anybody may have.
    private func expectNearness(
        _ group: [AssignedMember], _ id: UUID, _ topics: [UUID: AssignedTopic], _ assignment: [PartitionSet]
    ) {
        func isNear(_ member: AssignedMember, _ number: Int32) -> Bool { near([member], topics, [[id: [number]]]) == 1 }
        let most = loads(assignment).max()!
        for (member, partitions) in zip(group, assignment) {
            for number in partitions[id] ?? [] where !isNear(member, number) {
                for (other, theirs) in zip(group, assignment) where isNear(other, number) {
                    #expect(theirs[id]?.count ?? 0 >= most - 1, "\(number) should be \(other.id)'s and is \(member.id)'s")
                }
            }
        }
    }

    @Test("range: who joins takes what is near to him from nobody who would be left with less than his share")
    func rangeStaysWithItsRacks() {
        let topics = [topic(1): AssignedTopic(partitionCount: 12, racks: (0..<12).map { ["r\($0 % 3)"] })]
        var group = members(3, [topic(1)], racks: 3)
        let first = PartitionAssignor.range.assign(group, topics)
        #expect(near(group, topics, first) == 12)
        group = after(group, first) + [AssignedMember(id: "n", rack: "r1", topics: [topic(1)])]
        let second = PartitionAssignor.range.assign(group, topics)
        check(second, group, topics)
        #expect(loads(second) == [3, 3, 3, 3])
        #expect(moved(group, second) == 3, "what moves is the newcomer's share")
        #expect(second[3][topic(1)]!.contains { $0 % 3 == 1 }, "and what of it can be near is")
        group = Array(after(group, second).dropLast())
        let third = PartitionAssignor.range.assign(group, topics)
        #expect(moved(group, third) == 0 && near(group, topics, third) == 12, "when he leaves all is as it was")
    }

    @Test("a thousand members and ten thousand partitions are assigned, and assigned again when one leaves, in no time")
    func large() {
        let topics = Dictionary(uniqueKeysWithValues: (0..<10).map { (topic($0), AssignedTopic(partitionCount: 1_000)) })
        let ids = topics.keys.sorted { $0.low < $1.low }
        var group = members(1_000, ids)
        let spent = ContinuousClock().measure {
            let assignment = PartitionAssignor.uniform.assign(group, topics)
            #expect(Set(loads(assignment)) == [10])
            group = Array(after(group, assignment).dropLast())
            let next = PartitionAssignor.uniform.assign(group, topics)
            #expect(moved(group, next) == 0)
        }
        #expect(spent < .seconds(10), "\(spent)")
    }

    @Test("a thousand members in three racks share ten topics by range in no time, too")
    func largeInRacks() {
        let racked = (0..<1_000).map { ["r\($0 % 3)", "r\(($0 + 1) % 3)"] }
        let topics = Dictionary(
            uniqueKeysWithValues: (0..<10).map { (topic($0), AssignedTopic(partitionCount: 1_000, racks: racked)) })
        let group = members(1_000, topics.keys.sorted { $0.low < $1.low }, racks: 3)
        let spent = ContinuousClock().measure {
            let assignment = PartitionAssignor.range.assign(group, topics)
            #expect(Set(loads(assignment)) == [10])
            #expect(near(group, topics, assignment) > 9_900)
        }
        #expect(spent < .seconds(10), "\(spent)")
    }
}
