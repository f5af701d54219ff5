import MartletBasics
import MartletBroker
import MartletModel
import Testing

/// What must stay cheap however many there are. The bounds are several times what a debug build needs on a busy machine:
/// they find a cost that grows with the square, not a slow day.
@Suite struct GroupsScaleTests {
    private func seconds(_ body: () -> Void) -> Double {
        let span = ContinuousClock().measure(body)
        return Double(span.components.seconds) + Double(span.components.attoseconds) / 1e18
    }

    @Test("a thousand members rebalance in the time of a thousand requests")
    func aThousandMembers() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 1_000)
        let spent = seconds {
            _ = world.join(id: ids[0])
            for id in ids.dropFirst() { _ = world.join(id: id) }
            for id in ids.dropFirst() { _ = world.sync(id: id, generation: generation + 1) }
            _ = world.sync(id: ids[0], generation: generation + 1, Dictionary(uniqueKeysWithValues: ids.map { ($0, $0) }))
        }
        #expect(world.state() == .stable)
        #expect(spent < 3, "\(spent) s")
    }

    @Test("ten thousand groups cost a heartbeat no more than one does")
    func tenThousandGroups() {
        var world = GroupWorld()
        var members: [(group: String, id: String)] = []
        for index in 0..<10_000 {
            let group = "g\(index)"
            let joined = world.joined(world.join(group) { $0.requiresKnownMember = false })
            _ = world.sync(group, id: joined.memberID, generation: 1)
            members.append((group, joined.memberID))
        }
        let spent = seconds {
            for _ in 0..<2 {
                world.pass(4_000)
                for member in members { #expect(world.heartbeat(member.group, id: member.id, generation: 1) == .none) }
            }
        }
        #expect(world.machine.listings.count == 10_000)
        #expect(spent < 20, "\(spent) s")
    }

    @Test("a hundred thousand commits are taken one by one, not each with all before it")
    func aHundredThousandCommits() {
        var world = GroupWorld()
        let spent = seconds {
            for index in 0..<100_000 { _ = world.commit("g\(index % 100)", [("t", Int32(index % 1_000), Int64(index))]) }
        }
        #expect(world.committed("g99", "t", 999) == 99_999)
        #expect(spent < 20, "\(spent) s")
    }

    @Test("deadlines that are put off again and again leave nothing behind")
    func deadlinesThatAreMoved() {
        var world = GroupWorld()
        let (ids, generation) = world.settle(count: 3)
        for _ in 0..<2_000 {
            world.pass(100)
            for id in ids { _ = world.heartbeat(id: id, generation: generation) }
        }
        #expect(world.machine.deadlineCount < 100)
        // phases that come and go, each with an earlier end than the last
        for turn in 0..<500 {
            _ = world.join("h", instance: "i", rebalance: Int32(60_000 - turn * 100)) { $0.requiresKnownMember = false }
        }
        #expect(world.machine.deadlineCount < 1_000)
    }
}
