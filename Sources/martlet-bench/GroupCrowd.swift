import MartletBasics
import MartletModel
import MartletReactor
import MartletWire

/// The members of one classic group, a connection each.
final class GroupCrowd {
    private static let patience = Interval.seconds(60)
    /// About what a consumer says of its subscription, and is assigned.
    private static let metadataBytes = 60
    private static let assignmentBytes = 40

    private let group: String
    private let swarm: Swarm
    private var ids: [String]
    private var generation: Int32 = -1
    private var leader = 0
    /// Raised for each rebalance, and part of what members say of themselves: else those that do not lead would be told
    /// that nothing has changed.
    private var round: UInt8 = 0

    init(group: String, swarm: Swarm) {
        self.group = group
        self.swarm = swarm
        ids = Array(repeating: "", count: swarm.count)
    }

    /// Every member gets its id.
    func enter() async throws(BenchFault) {
        try await swarm.run(within: Self.patience) { (index) throws(BenchFault) in try join(index) } answered: {
            [self] (index, answer) throws(BenchFault) in
            let response = try decoded(JoinGroupResponse.self, answer, version: SpokenVersion.joinGroup)
            guard response.errorCode == .memberIDRequired else {
                throw BenchFault("JoinGroup without an id was answered with \(response.errorCode)")
            }
            ids[index] = response.memberID
            return nil
        }
    }

    /// Every member joins anew, and then gets its assignment from the one that leads.
    func rebalance() async throws(BenchFault) {
        round &+= 1
        var generations: Set<Int32> = []
        var told: [String] = []
        try await swarm.run(within: Self.patience) { (index) throws(BenchFault) in try join(index) } answered: {
            [self] (index, answer) throws(BenchFault) in
            let response = try decoded(JoinGroupResponse.self, answer, version: SpokenVersion.joinGroup)
            guard response.errorCode == .none else { throw BenchFault("JoinGroup was answered with \(response.errorCode)") }
            generations.insert(response.generationID)
            if response.leader == response.memberID {
                leader = index
                told = response.members.map(\.memberID)
            }
            return nil
        }
        guard generations.count == 1, told.count == swarm.count else {
            throw BenchFault(
                "one rebalance came to \(generations.count) generations, and told its leader of \(told.count) members")
        }
        generation = generations.min()!
        try await swarm.run(within: Self.patience) { (index) throws(BenchFault) in
            try sync(index, index == leader ? told : [])
        } answered: { (_, answer) throws(BenchFault) in
            let response = try decoded(SyncGroupResponse.self, answer, version: SpokenVersion.syncGroup)
            guard response.errorCode == .none, response.assignment.count == Self.assignmentBytes else {
                throw BenchFault("SyncGroup was answered with \(response.errorCode), \(response.assignment.count) bytes")
            }
            return nil
        }
    }

    private func join(_ index: Int) throws(BenchFault) -> Frame {
        var offered = JoinGroupRequest.JoinGroupRequestProtocol()
        offered.name = "range"
        offered.metadata = .owned([UInt8](repeating: round, count: Self.metadataBytes))
        var request = JoinGroupRequest()
        request.groupID = group
        request.sessionTimeoutMs = 60_000
        request.rebalanceTimeoutMs = 60_000
        request.memberID = ids[index]
        request.protocolType = "consumer"
        request.protocols = [offered]
        return try Frame(request, version: SpokenVersion.joinGroup, correlationID: 0)
    }

    private func sync(_ index: Int, _ members: [String]) throws(BenchFault) -> Frame {
        var request = SyncGroupRequest()
        request.groupID = group
        request.generationID = generation
        request.memberID = ids[index]
        request.assignments = members.map { id in
            var assignment = SyncGroupRequest.SyncGroupRequestAssignment()
            assignment.memberID = id
            assignment.assignment = .owned([UInt8](repeating: 7, count: Self.assignmentBytes))
            return assignment
        }
        return try Frame(request, version: SpokenVersion.syncGroup, correlationID: 0)
    }
}
