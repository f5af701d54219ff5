import MartletBasics
import MartletBroker
import MartletModel
import Testing

/// Members that come, leave, fall silent, cling and come back, a log that refuses, kills, and topics that change, in any
/// order that a seed says. The verdict is that of the members: what each was told, and nothing else.
@Suite struct ConsumerGroupsScripts {
    private struct Script {
        var world: GroupWorld
        var random: SeededRandom
        var members: [TestMember] = []
        /// Not heard of any more. Whoever is not heard for a session owns nothing, whatever it believes.
        var silent: [TestMember] = []
        var count = 0

        init(seed: UInt64) {
            random = SeededRandom(seed: seed)
            let interval = Int32(random.chance(1, in: 2) ? 0 : 500)
            world = GroupWorld(seed: seed) { $0.consumer.assignmentIntervalMs = interval }
            world.setTopics(["t": 6, "u": 3])
        }

        mutating func step() {
            switch random.below(20) {
            case 0...1 where members.count < 6:
                count += 1
                let member = TestMember("m\(count)", topics: random.chance(1, in: 3) ? ["t"] : ["t", "u"])
                if random.chance(1, in: 4) { member.instance = "i\(count)" }
                if random.chance(1, in: 4) { (member.topics, member.pattern) = (nil, "[tu]") }
                if random.chance(1, in: 3) { member.assignor = random.chance(1, in: 2) ? "range" : "uniform" }
                members.append(member)
            case 2 where !members.isEmpty: world.leave(members.remove(at: random.below(members.count)))
            case 3 where !members.isEmpty: silent.append(members.remove(at: random.below(members.count)))
            case 4 where !members.isEmpty:
                let index = random.below(members.count)
                let old = members[index]
                guard old.instance != nil, old.epoch > 0 else { return }
                world.leave(old, epoch: -2)
                guard old.error == .none else { return }
                count += 1
                let successor = TestMember("m\(count)", topics: old.topics)
                (successor.instance, successor.pattern) = (old.instance, old.pattern)
                members[index] = successor
            case 5: world.readAnew()
            case 6: world.setTopics(["t": Int32(1 + random.below(8)), "u": Int32(random.below(4) + 1)])
            case 7: world.pass(Int64(random.below(2_000)))
            case 8 where !members.isEmpty:
                // the log refuses what this one asks
                world.syncsAtOnce = false
                let member = members[random.below(members.count)]
                let ticket = world.ask { .consumerHeartbeat(member.event(), $0) }
                world.sync(failing: .notEnoughReplicas)
                world.syncsAtOnce = true
                if let reply = world.replies[ticket] { member.take(reply) }
            case 9 where !members.isEmpty:
                // the answer is lost
                let member = members[random.below(members.count)]
                _ = world.ask { .consumerHeartbeat(member.event(), $0) }
            case 10 where !members.isEmpty: members[random.below(members.count)].epoch = 0
            default:
                guard !members.isEmpty else { return }
                let member = members[random.below(members.count)]
                if member.epoch == 0 { member.owned = [:] }
                world.beat(member)
            }
        }

        /// No partition has two owners by what they were told.
        func check(_ seed: UInt64) {
            var owners: [String: String] = [:]
            for member in members + silent where member.epoch > 0 && world.now - member.heardAt < 45_000 {
                for (topic, partitions) in member.owned {
                    for partition in partitions {
                        let other = owners.updateValue(member.id, forKey: "\(topic)-\(partition)")
                        #expect(other == nil, "seed \(seed): \(member.id) and \(other ?? "") both have \(topic)-\(partition)")
                    }
                }
            }
        }
    }

    @Test("whatever happens, nobody is given what another has, and once nothing happens everything is given", arguments: 0..<12)
    func scripts(_ start: UInt64) {
        for seed in start * 25..<(start + 1) * 25 {
            var script = Script(seed: seed)
            for _ in 0..<150 {
                script.step()
                script.check(seed)
            }
            script.world.pass(20_000)
            for _ in 0..<12 {
                script.world.pass(5_000)
                script.world.settle(script.members, rounds: 2)
            }
            script.check(seed)
            guard !script.members.isEmpty else { continue }
            let world = script.world
            #expect(script.members.allSatisfy { $0.error == .none }, "seed \(seed)")
            #expect(world.stateName() == "Stable", "seed \(seed)")
            let read = Set(script.members.flatMap { $0.pattern == nil ? $0.topics ?? [] : ["t", "u"] })
            for topic in read {
                let given = script.members.flatMap { $0.owned[topicID(topic)] ?? [] }
                let all = world.surroundings.image.topic(topic)!.partitions.map(\.index)
                #expect(given.sorted() == all, "seed \(seed): \(topic)")
            }
            // what the log says is what is
            var again = world
            again.readAnew()
            #expect(again.consumer()?.members == world.consumer()?.members, "seed \(seed)")
            #expect(
                again.consumer()?.targets == world.consumer()?.targets && again.consumer()?.epoch == world.consumer()?.epoch)
        }
    }
}
