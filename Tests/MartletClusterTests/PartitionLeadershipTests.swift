import MartletBasics
import MartletCluster
import MartletModel
import Testing

/// What the controller decides, said shortly; broker 1 is the one that is told.
private func assignment(
    leader: BrokerID, epoch: LeaderEpoch, partitionEpoch: Int32 = 0, replicas: [BrokerID] = [1, 2, 3], inSync: [BrokerID]? = nil
) -> PartitionLeadership.Assignment {
    PartitionLeadership.Assignment(
        leader: leader, leaderEpoch: epoch, partitionEpoch: partitionEpoch, replicas: replicas,
        inSyncReplicas: inSync ?? replicas)
}

private let start = Instant(nanoseconds: 0)
private func at(_ milliseconds: Int64) -> Instant { start + .milliseconds(milliseconds) }

private func leader(inSync: [BrokerID] = [1, 2, 3], highWatermark: Offset = 0, logEnd: Offset = 0) -> PartitionLeadership {
    var state = PartitionLeadership(brokerID: 1, highWatermark: highWatermark)
    #expect(state.apply(assignment(leader: 1, epoch: 5, inSync: inSync), now: start) == .becameLeader)
    state.beginEpoch(at: logEnd)
    return state
}

extension PartitionLeadership {
    fileprivate mutating func fetched(
        _ id: BrokerID, _ logEnd: Offset, durable: Offset? = nil, leaderEnd: Offset = 100, _ durability: Durability = .fsync,
        at now: Instant = start
    ) -> Bool {
        followerFetched(id, logEnd: logEnd, durable: durable, leaderEnd: leaderEnd, durability: durability, now: now)
    }
    fileprivate mutating func advance(durable: Offset, end: Offset = 100, _ durability: Durability = .fsync) -> Offset {
        _ = advanceHighWatermark(localDurable: durable, localEnd: end, durability: durability)
        return highWatermark
    }
}

@Suite struct TheRoleOfAReplica {
    @Test func isNoneBeforeTheControllerHasSpoken() {
        let state = PartitionLeadership(brokerID: 1, highWatermark: 7)
        #expect(state.role == .offline && state.leaderEpoch == -1 && state.highWatermark == 7)
    }

    @Test func changesWithEachNewEpoch() {
        var state = PartitionLeadership(brokerID: 1, highWatermark: 0)
        #expect(state.apply(assignment(leader: 2, epoch: 0), now: start) == .becameFollower)
        #expect(state.role == .follower(leader: 2))
        #expect(state.apply(assignment(leader: 1, epoch: 1), now: start) == .becameLeader)
        #expect(state.followers.map(\.id) == [2, 3])
        #expect(
            state.apply(assignment(leader: 1, epoch: 2), now: start) == .becameLeader,
            "the same leader in another epoch begins it")
        #expect(state.apply(assignment(leader: -1, epoch: 3), now: start) == .becameFollower)
        #expect(state.role == .follower(leader: -1) && state.followers.isEmpty)
    }

    @Test func isNotChangedByDecisionsThatAreOver() {
        var state = leader()
        #expect(state.apply(assignment(leader: 2, epoch: 4, partitionEpoch: 9), now: start) == .stale)
        #expect(state.apply(assignment(leader: 1, epoch: 5, partitionEpoch: 0, inSync: [1]), now: start) == .stale)
        #expect(state.inSyncReplicas == [1, 2, 3])
        #expect(state.apply(assignment(leader: 1, epoch: 5, partitionEpoch: 2, inSync: [1]), now: start) == .updated)
        #expect(
            state.apply(assignment(leader: 1, epoch: 5, partitionEpoch: 1), now: start) == .stale,
            "an older in-sync set comes late")
        #expect(state.inSyncReplicas == [1])
        #expect(
            state.apply(assignment(leader: 1, epoch: 6, partitionEpoch: 0), now: start) == .becameLeader, "a recreated state")
    }

    @Test func isNotChangedByAControllerThatNamesTwoLeadersOfOneEpoch() {
        var state = leader()
        #expect(state.apply(assignment(leader: 2, epoch: 5, partitionEpoch: 1), now: start) == .contradiction)
        #expect(state.isLeader)
        var follower = PartitionLeadership(brokerID: 1, highWatermark: 0)
        _ = follower.apply(assignment(leader: 2, epoch: 5), now: start)
        #expect(follower.apply(assignment(leader: 3, epoch: 5, partitionEpoch: 1), now: start) == .contradiction)
        #expect(follower.apply(assignment(leader: 1, epoch: 5, partitionEpoch: 1), now: start) == .contradiction)
        #expect(follower.apply(assignment(leader: 2, epoch: 5, partitionEpoch: 1), now: start) == .updated)
    }

    @Test func comesBackFromOfflineInTheSameEpoch() {
        var state = leader()
        state.goOffline()
        #expect(state.role == .offline && state.followers.isEmpty)
        #expect(state.apply(assignment(leader: 1, epoch: 5), now: start) == .becameLeader)
    }
}

@Suite struct TheHighWatermark {
    @Test func isTheLeastDurableOffsetOfTheInSyncReplicas() {
        var state = leader()
        #expect(state.advance(durable: 50) == 0, "followers that have not fetched in this epoch have nothing")
        let known9481 = state.fetched(2, 60, durable: 40)
        #expect(known9481)
        let known5026 = state.fetched(3, 60, durable: 30)
        #expect(known5026)
        #expect(state.advance(durable: 50) == 30)
        let known5949 = state.fetched(3, 60, durable: 60)
        #expect(known5949)
        #expect(state.advance(durable: 50) == 40)
        #expect(state.advance(durable: 20) == 40, "it never goes back")
    }

    @Test func isTheLeastLogEndWhereThePageCacheIsEnough() {
        var state = leader()
        _ = state.fetched(2, 60, durable: 0, .pageCache)
        _ = state.fetched(3, 70, durable: 0, .pageCache)
        #expect(state.advance(durable: 0, end: 65, .pageCache) == 60)
    }

    @Test func countsTheLogEndOfABrokerThatCannotTellWhatIsDurable() {
        var state = leader()
        _ = state.fetched(2, 60, durable: nil)
        _ = state.fetched(3, 60, durable: 60)
        #expect(state.advance(durable: 90) == 60)
    }

    @Test func doesNotBelieveAFollowerMoreThanItHas() {
        var state = leader(inSync: [1, 2])
        _ = state.fetched(2, 10, durable: 1_000, leaderEnd: 20)
        #expect(state.advance(durable: 20, end: 20) == 10)
        _ = state.fetched(2, 1_000, durable: 1_000, leaderEnd: 20)
        #expect(state.advance(durable: 20, end: 20) == 20)
    }

    @Test func doesNotWaitForWhoIsNotInSync() {
        var state = leader(inSync: [1, 2])
        _ = state.fetched(2, 60, durable: 60)
        #expect(state.advance(durable: 90) == 60)
        #expect(state.apply(assignment(leader: 1, epoch: 5, partitionEpoch: 1, inSync: [1]), now: start) == .updated)
        #expect(state.advance(durable: 90) == 90)
    }

    @Test func waitsForEverybodyAgainInAnotherEpoch() {
        var state = leader(inSync: [1, 2])
        _ = state.fetched(2, 60, durable: 60)
        _ = state.apply(assignment(leader: 1, epoch: 6, inSync: [1, 2]), now: start)
        #expect(state.advance(durable: 90) == 0, "what was fetched in epoch 5 may be cut in epoch 6")
    }

    @Test func ofAFollowerIsWhatItsLeaderToldAsFarAsItsLogGoes() {
        var state = PartitionLeadership(brokerID: 1, highWatermark: 5)
        _ = state.apply(assignment(leader: 2, epoch: 1), now: start)
        state.follow(highWatermark: 50, localEnd: 20)
        #expect(state.highWatermark == 20)
        state.follow(highWatermark: 10, localEnd: 30)
        #expect(state.highWatermark == 20)
        state.clamp(logStart: 0, logEnd: 12)
        #expect(state.highWatermark == 12)
        state.clamp(logStart: 40, logEnd: 40)
        #expect(state.highWatermark == 40)
    }

    @Test func ofANewLeaderIsNotWhatWasCommittedBeforeItReachesTheEpochsStart() {
        var state = leader(inSync: [1, 2], highWatermark: 10, logEnd: 30)
        #expect(!state.knowsWhatWasCommitted)
        _ = state.fetched(2, 30, durable: 29)
        #expect(state.advance(durable: 30) == 29)
        #expect(!state.knowsWhatWasCommitted)
        _ = state.fetched(2, 30, durable: 30)
        #expect(state.advance(durable: 30) == 30)
        #expect(state.knowsWhatWasCommitted)
    }
}

@Suite struct TheInSyncSet {
    private let lag = Interval.milliseconds(100)

    @Test func isAskedForOnceAndBothSetsCountMeanwhile() {
        var state = leader(inSync: [1], highWatermark: 50, logEnd: 50)
        _ = state.fetched(2, 50, durable: 50, leaderEnd: 60)
        #expect(state.propose(now: at(1), lagLimit: lag, localEnd: 60, durability: .fsync) == [1, 2])
        #expect(state.propose(now: at(1), lagLimit: lag, localEnd: 60, durability: .fsync) == nil)
        #expect(state.advance(durable: 60, end: 60) == 50, "the controller may have let 2 in already, and elect it next")
        state.proposalRefused()
        #expect(state.advance(durable: 60, end: 60) == 60)
        #expect(state.inSyncReplicas == [1])
    }

    @Test func isNotJoinedBeforeAllThatWasCommittedIsOnDisk() {
        var state = leader(inSync: [1], highWatermark: 40, logEnd: 50)
        _ = state.fetched(2, 49, durable: 49)
        #expect(
            state.propose(now: at(1), lagLimit: lag, localEnd: 60, durability: .fsync) == nil,
            "an earlier leader committed up to 50")
        _ = state.fetched(2, 50, durable: 40)
        #expect(state.propose(now: at(1), lagLimit: lag, localEnd: 60, durability: .fsync) == nil, "it is not on its disk")
        _ = state.fetched(2, 50, durable: 50)
        #expect(state.propose(now: at(1), lagLimit: lag, localEnd: 60, durability: .fsync) == [1, 2])
        #expect(state.apply(assignment(leader: 1, epoch: 5, partitionEpoch: 1, inSync: [1, 2]), now: at(2)) == .updated)
        #expect(state.proposal == nil && state.inSyncReplicas == [1, 2])
    }

    @Test func losesWhoHasNotCaughtUpForTooLong() {
        var state = leader(inSync: [1, 2, 3])
        _ = state.fetched(2, 10, durable: 10, leaderEnd: 10, at: at(0))
        _ = state.fetched(3, 10, durable: 10, leaderEnd: 10, at: at(0))
        _ = state.fetched(2, 20, durable: 20, leaderEnd: 20, at: at(90))
        #expect(state.propose(now: at(100), lagLimit: lag, localEnd: 20, durability: .fsync) == nil)
        #expect(state.propose(now: at(101), lagLimit: lag, localEnd: 20, durability: .fsync) == [1, 2])
        #expect(state.advance(durable: 20, end: 20) == 10, "who is to leave counts until the controller has agreed")
    }

    @Test func keepsWhoFollowsAStreamAlthoughItNeverHasTheLatest() {
        var state = leader(inSync: [1, 2])
        for step in 1...50 as ClosedRange<Int64> {
            // each fetch brings what there was at the last; the sync behind it ends two fetches later
            _ = state.fetched(2, step * 10, durable: max(0, step * 10 - 20), leaderEnd: step * 10 + 10, at: at(step * 10))
            #expect(
                state.propose(now: at(step * 10), lagLimit: lag, localEnd: step * 10 + 10, durability: .fsync) == nil,
                "step \(step)")
        }
    }

    @Test func losesWhoseDiskStandsStill() {
        var state = leader(inSync: [1, 2])
        var left: Int64?
        for step in 1...50 as ClosedRange<Int64> where left == nil {
            _ = state.fetched(2, step * 10, durable: 10, leaderEnd: step * 10, at: at(step * 10))
            if state.propose(now: at(step * 10), lagLimit: lag, localEnd: step * 10, durability: .fsync) == [1] {
                left = step * 10
            }
        }
        #expect(left.map { (100...140).contains($0) } == true, "left at \(left ?? -1)")
    }

    @Test func keepsWhoHasEverythingHoweverLongNothingHappens() {
        var state = leader(inSync: [1, 2])
        _ = state.fetched(2, 10, durable: 10, leaderEnd: 10)
        #expect(state.propose(now: at(60_000), lagLimit: lag, localEnd: 10, durability: .fsync) == nil)
    }

    @Test func doesNotHearOfWhoIsNoReplica() {
        var state = leader()
        let known5781 = state.fetched(9, 10, durable: 10)
        #expect(!known5781)
        let known4323 = state.fetched(1, 10, durable: 10)
        #expect(!known4323)
    }
}
