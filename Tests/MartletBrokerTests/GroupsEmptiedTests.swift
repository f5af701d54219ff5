import MartletBroker
import MartletModel
import Testing

@Suite struct GroupsEmptiedTests {
    @Test("who comes while a rebalance gathers members is let in, also when all others have gone again")
    func theOnlyMemberGoesWhileAnotherIsOnItsWay() {
        var world = GroupWorld { $0.initialDelay = .milliseconds(3_000) }
        let a = world.enter()
        _ = world.join(id: a)
        let b = world.enter()
        #expect(world.leave("g", .init(id: a)) == [.none])
        let join = world.join(id: b)
        #expect(world.isWaiting(join), "it offers what nobody else does not")
        world.pass(10_000)
        #expect(world.joined(join).error == .none && world.joined(join).leader == b)
    }
}
