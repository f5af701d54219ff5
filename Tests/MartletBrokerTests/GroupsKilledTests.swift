import MartletBasics
import MartletBroker
import MartletModel
import MartletSimulation
import MartletWire
import Testing

/// Two members of one group, from their first joins to a commit, with a broker that may be killed at any moment.
private struct Scene {
    enum Stage: Int, Comparable {
        case joining, syncing, committing, done
        static func < (a: Stage, b: Stage) -> Bool { a.rawValue < b.rawValue }
    }

    static let settings = [
        (name: "group.initial.rebalance.delay.ms", value: "0"), (name: "offsets.topic.num.partitions", value: "1"),
    ]
    let world: BrokerWorld
    var members: [(client: GroupClient, id: String)] = []
    var stage = Stage.joining
    var generation: Int32 = 0
    /// Members that were told their assignments in that generation.
    var assigned: Set<String> = []
    var isCommitted = false

    init(_ world: BrokerWorld) throws {
        self.world = world
        for _ in 0..<2 { members.append((try GroupClient(world), "")) }
    }

    /// Nil where the broker was killed before it answered.
    func answer<A: WireResponse>(_: A.Type, of client: GroupClient, version: Int16) throws -> A? {
        try #require(world.until { client.isAnswered || client.hasEnded || !world.host.isAlive }, "nothing happens")
        return client.isAnswered ? try client.answer(A.self, version: version) : nil
    }

    func sync(_ client: GroupClient, _ id: String, _ assignments: [String]) {
        var request = SyncGroupRequest()
        (request.groupID, request.memberID, request.generationID) = ("g", id, generation)
        (request.protocolType, request.protocolName) = ("consumer", "range")
        request.assignments = assignments.map { member in
            var assignment = SyncGroupRequest.SyncGroupRequestAssignment()
            (assignment.memberID, assignment.assignment) = (member, .owned(Array(member.utf8)))
            return assignment
        }
        client.send(request, version: 5)
    }

    mutating func play() throws {
        for index in members.indices {
            let client = members[index].client
            client.send(client.joinRequest("g"), version: 7)
            guard let told = try answer(JoinGroupResponse.self, of: client, version: 7) else { return }
            #expect(told.errorCode == .memberIDRequired)
            members[index].id = told.memberID
        }
        // a join that completes alone is asked again, for the other's begins a rebalance
        var leader = ""
        while generation == 0 {
            for (client, id) in members where client.isAnswered { client.send(client.joinRequest("g", id: id), version: 7) }
            _ = world.until(atMost: .milliseconds(200)) {
                !world.host.isAlive || members.allSatisfy { $0.client.isAnswered || $0.client.hasEnded }
            }
            guard world.host.isAlive else { return }
            var generations: [Int32] = []
            for (client, _) in members where client.isAnswered {
                let joined = try client.answer(JoinGroupResponse.self, version: 7)
                #expect(joined.errorCode == .none)
                generations.append(joined.generationID)
                leader = joined.leader
            }
            if generations.count == 2, generations[0] == generations[1] { generation = generations[0] }
        }
        stage = .syncing
        for (client, id) in members { sync(client, id, id == leader ? members.map { $0.id } : []) }
        for (client, id) in members {
            guard let synced = try answer(SyncGroupResponse.self, of: client, version: 5) else { return }
            #expect(synced.errorCode == .none)
            assigned.insert(id)
        }
        stage = .committing
        let (client, id) = members[0]
        var commit = client.commitRequest("g", "t", 5)
        (commit.memberID, commit.generationIDOrMemberEpoch) = (id, generation)
        client.send(commit, version: 8)
        guard let committed = try answer(OffsetCommitResponse.self, of: client, version: 8) else { return }
        #expect(committed.topics[0].partitions[0].errorCode == .none)
        isCommitted = true
        stage = .done
    }
}

@Suite struct AGroupWhoseBrokerIsKilled {
    @Test func goesOnWhereItWasOrJoinsAgainWhereverTheKillFalls() throws {
        var kills: [Scene.Stage: Int] = [:]
        var wentOn = 0
        var calls = 0
        while kills[.done] == nil {
            calls += 4
            try #require(calls < 6_000, "a group forms in fewer steps")
            let world = try BrokerWorld(seed: UInt64(calls), Scene.settings)
            try world.createTopic("t")
            try GroupClient(world).find("g")
            var scene = try Scene(world)
            world.host.kill(afterSeamCalls: calls)
            try scene.play()
            kills[scene.stage, default: 0] += 1
            if try goesOn(scene, "killed after \(calls) calls, \(scene.stage)") { wentOn += 1 }
        }
        #expect(kills.keys.count == 4 && kills.values.allSatisfy { $0 > 0 }, "\(kills)")
        #expect(wentOn >= kills[.committing, default: 0], "no group went on as it was")
    }

    /// Whether it went on without a rebalance.
    private func goesOn(_ scene: Scene, _ moment: Comment) throws -> Bool {
        let world = scene.world
        try world.startAfterKill()
        let client = try GroupClient(world)
        try client.find("g")
        let offset = try client.offset("g", "t", 0)
        #expect(scene.isCommitted ? offset == 5 : offset == -1 || scene.stage == .committing && offset == 5, moment)
        let ids = scene.members.map { $0.id }.filter { !$0.isEmpty }
        var isStable = !ids.isEmpty
        for id in ids {
            let beat = try client.heartbeat("g", id, scene.generation)
            // who was told its share has it still
            if scene.assigned.contains(id) { #expect(beat == .none, moment) }
            if beat != .none { isStable = false }
        }
        if isStable, scene.generation > 0 {
            // the share is what the leader said, also for whoever had not heard of it yet
            for id in ids {
                scene.sync(client, id, [])
                let synced = try client.answer(SyncGroupResponse.self, version: 5)
                #expect(synced.errorCode == .none && synced.assignment == .owned(Array(id.utf8)), moment)
            }
            return true
        }
        // the others' clients are gone with their connections: one joins again, as a client does that is told to
        var id = ids.first ?? ""
        var joined = try client.join("g", id: id, session: 10_000)
        if joined.errorCode == .unknownMemberID { joined = try client.join("g") }
        if joined.errorCode == .memberIDRequired {
            id = joined.memberID
            client.send(client.joinRequest("g", id: id), version: 7)
            joined = try client.answer(JoinGroupResponse.self, version: 7, atMost: .seconds(60))
        }
        #expect(joined.errorCode == .none && joined.generationID >= scene.generation, moment)
        return false
    }
}
