import MartletBasics
import MartletModel
import MartletReactor
import MartletWire

/// The members of one consumer group (KIP-848), a connection each.
final class ConsumerCrowd {
    private static let patience = Interval.seconds(60)
    private static let roundsLimit = 100
    /// Assignments are not made more often than this, unless a broker is told otherwise.
    private static let betweenRounds = Interval.milliseconds(200)

    private struct Member {
        var epoch: Int32 = 0
        var owned: [ConsumerGroupHeartbeatRequest.TopicPartitions] = []
        /// The coordinator is to hear what it has.
        var saysOwned = false
    }

    private let group: String
    private let topic: String
    private let swarm: Swarm
    private let loop: any EventLoop
    private var members: [Member]

    init(group: String, topic: String, swarm: Swarm, loop: any EventLoop) {
        self.group = group
        self.topic = topic
        self.swarm = swarm
        self.loop = loop
        members = Array(repeating: Member(), count: swarm.count)
    }

    /// Every member joins, and all go on until each has what it is to have.
    func settle() async throws(BenchFault) {
        var quiet = 0
        for _ in 0..<Self.roundsLimit {
            var isSettled = true
            try await swarm.run(within: Self.patience) { (index) throws(BenchFault) in
                try heartbeat(index)
            } answered: {
                [self] (index, answer) throws(BenchFault) in
                isSettled = try !take(answer, index) && isSettled
                return nil
            }
            quiet = isSettled && Set(members.map(\.epoch)).count == 1 ? quiet + 1 : 0
            // longer than assignments wait for each other
            if quiet == 8 { return }
            await loop.sleep(for: Self.betweenRounds)
        }
        throw BenchFault("a group of \(swarm.count) does not settle in \(Self.roundsLimit) rounds")
    }

    /// So many heartbeats of each, that have nothing to say.
    func beat(times: Int) async throws(BenchFault) {
        var left = Array(repeating: times, count: swarm.count)
        try await swarm.run(within: Self.patience) { (index) throws(BenchFault) in
            try heartbeat(index)
        } answered: {
            [self] (index, answer) throws(BenchFault) in
            guard try !take(answer, index) else { throw BenchFault("a settled group was told of something new") }
            left[index] -= 1
            return left[index] > 0 ? try heartbeat(index) : nil
        }
    }

    private func heartbeat(_ index: Int) throws(BenchFault) -> Frame {
        let member = members[index]
        var request = ConsumerGroupHeartbeatRequest()
        request.groupID = group
        request.memberID = "member-\(index)"
        request.memberEpoch = member.epoch
        if member.epoch == 0 {
            request.rebalanceTimeoutMs = 60_000
            request.subscribedTopicNames = [topic]
            request.topicPartitions = []
        } else if member.saysOwned {
            request.topicPartitions = member.owned
        }
        return try Frame(request, version: SpokenVersion.consumerGroupHeartbeat, correlationID: 0)
    }

    /// Whether it says anything new.
    private func take(_ answer: UnsafeRawBufferPointer, _ index: Int) throws(BenchFault) -> Bool {
        let response = try decoded(ConsumerGroupHeartbeatResponse.self, answer, version: SpokenVersion.consumerGroupHeartbeat)
        guard response.errorCode == .none else {
            throw BenchFault("ConsumerGroupHeartbeat was answered with \(response.errorCode)")
        }
        let isNew = response.memberEpoch != members[index].epoch || response.assignment != nil
        members[index].epoch = response.memberEpoch
        members[index].saysOwned = response.assignment != nil
        guard let assignment = response.assignment else { return isNew }
        members[index].owned = assignment.topicPartitions.map { given in
            var owned = ConsumerGroupHeartbeatRequest.TopicPartitions()
            owned.topicID = given.topicID
            owned.partitions = given.partitions
            return owned
        }
        return isNew
    }
}
