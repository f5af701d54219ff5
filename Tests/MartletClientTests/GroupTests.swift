import MartletBasics
import MartletClient
import MartletModel
import MartletWire
import Testing

@Suite struct PartitionsAreSharedOut {
    @Test func inStretchesAndTheFirstGetOneMore() {
        let members = ["c", "a", "b"].map { RangeAssignor.Member(id: $0, topics: ["t"]) }
        let assigned = RangeAssignor.assign([("t", 8)], to: members)
        #expect(assigned["a"]?.map(\.partition) == [0, 1, 2])
        #expect(assigned["b"]?.map(\.partition) == [3, 4, 5])
        #expect(assigned["c"]?.map(\.partition) == [6, 7])
    }

    @Test func onlyToThoseWhoWantTheTopicAndEachOnce() {
        let members = [
            RangeAssignor.Member(id: "a", topics: ["t", "u"]), RangeAssignor.Member(id: "b", topics: ["u"]),
            RangeAssignor.Member(id: "idle", topics: []),
        ]
        let assigned = RangeAssignor.assign([("t", 2), ("u", 1), ("unwanted", 4)], to: members)
        #expect(assigned["a"] == [TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("u", 0)])
        #expect(assigned["b"] == [])
        #expect(assigned["idle"] == [])
    }

    @Test func theBytesOfAnAssignmentComeBack() throws {
        let partitions = [TopicPartition("a", 0), TopicPartition("a", 7), TopicPartition("b", 1)]
        #expect(ConsumerAssignment.partitions(try ConsumerAssignment.bytes(partitions.reversed())) == partitions)
    }

    @Test(arguments: [
        [], [0], [0, 1, 0, 0, 0, 9], [0, 1, 0x7F, 0xFF, 0xFF, 0xFF], [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
    ] as [[UInt8]])
    func bytesThatAreNoAssignmentAreNoPartitions(_ bytes: [UInt8]) {
        #expect(ConsumerAssignment.partitions(bytes) == [])
    }
}

/// A coordinator that plays its part by a script.
private func makeCoordinator(_ world: ClientWorld) {
    world.broker.on(FindCoordinatorRequest.self) { [unowned world] request, _ in
        var found = FindCoordinatorResponse.Coordinator()
        found.key = request.coordinatorKeys.first ?? ""
        found.nodeID = 1
        found.host = world.broker.host.address
        found.port = 9092
        var response = FindCoordinatorResponse()
        response.coordinators = [found]
        return .answer(response)
    }
    world.broker.on(JoinGroupRequest.self) { request, _ in
        var response = JoinGroupResponse()
        guard request.memberID != "" else {
            response.errorCode = .memberIDRequired
            response.memberID = "me"
            return .answer(response)
        }
        response.memberID = request.memberID
        response.leader = request.memberID
        response.generationID = 1
        response.protocolName = "range"
        var member = JoinGroupResponse.JoinGroupResponseMember()
        member.memberID = request.memberID
        member.metadata = request.protocols[0].metadata
        response.members = [member]
        return .answer(response)
    }
    world.broker.on(SyncGroupRequest.self) { request, _ in
        var response = SyncGroupResponse()
        response.assignment = request.assignments[0].assignment
        return .answer(response)
    }
    world.broker.on(HeartbeatRequest.self) { _, _ in .answer(HeartbeatResponse()) }
    world.broker.on(LeaveGroupRequest.self) { _, _ in .answer(LeaveGroupResponse()) }
}

@Suite struct AMemberOfAGroup {
    @Test func joinsIsHeardOfAndLeaves() throws {
        let world = try ClientWorld()
        world.leaders = [1, 1, 1]
        makeCoordinator(world)
        let loop = world.machine.loops[0]
        let partitions = try world.run { client in
            let membership = GroupMembership(client, group: "billing", topics: ["orders"])
            let partitions = try await membership.join()
            await loop.sleep(for: .seconds(31))
            try membership.check()
            #expect(!membership.mustRejoin)
            await membership.leave()
            await loop.sleep(for: .seconds(31))
            return partitions
        }.get()
        #expect(partitions.map(\.partition) == [0, 1, 2])
        #expect(world.broker.count(of: .joinGroup) == 2, "once for an id, once with it")
        #expect(world.broker.count(of: .heartbeat) == 10, "none after it has left")
        #expect(world.broker.count(of: .leaveGroup) == 1)
    }

    @Test func joinsAgainWhenAHeartbeatSaysThatTheGroupChanges() throws {
        let world = try ClientWorld()
        makeCoordinator(world)
        for code: ErrorCode in [.rebalanceInProgress, .illegalGeneration, .unknownMemberID] {
            var left = 1
            world.broker.on(HeartbeatRequest.self) { _, _ in
                var response = HeartbeatResponse()
                left -= 1
                if left == 0 { response.errorCode = code }
                return .answer(response)
            }
            let loop = world.machine.loops[0]
            _ = try world.run { client in
                let membership = GroupMembership(client, group: "billing", topics: ["orders"])
                _ = try await membership.join()
                await loop.sleep(for: .seconds(4))
                #expect(membership.mustRejoin, "\(code)")
                try membership.check()
                #expect(try await membership.join().count == 1)
                #expect(!membership.mustRejoin)
                await membership.leave()
            }.get()
        }
    }

    @Test func isToldWhenItMayNotStay() throws {
        let world = try ClientWorld()
        makeCoordinator(world)
        world.broker.on(HeartbeatRequest.self) { _, _ in
            var response = HeartbeatResponse()
            response.errorCode = .groupAuthorizationFailed
            return .answer(response)
        }
        let loop = world.machine.loops[0]
        let result = try world.run { client in
            let membership = GroupMembership(client, group: "billing", topics: ["orders"])
            _ = try await membership.join()
            await loop.sleep(for: .seconds(4))
            try membership.check()
        }
        #expect(result.error?.code == .groupAuthorizationFailed)
    }

    @Test func waitsForTheOthersLongerThanForAnyOtherAnswer() throws {
        let world = try ClientWorld { $0.requestTimeLimit = .seconds(2) }
        makeCoordinator(world)
        var isAsked = false
        world.broker.on(JoinGroupRequest.self) { _, _ in
            isAsked = true
            return .silence
        }
        var error: ClientError?
        let seconds = try world.seconds {
            error = try world.run { client in
                _ = try await GroupMembership(client, group: "billing", topics: ["orders"]).join()
            }.error
        }
        #expect(isAsked)
        #expect(error?.concernsConnection == true)
        #expect((60...140).contains(seconds))
    }
}

@Suite struct AGroupIsDescribed {
    @Test func inEitherProtocol() throws {
        let world = try ClientWorld()
        makeCoordinator(world)
        world.broker.on(DescribeGroupsRequest.self) { request, _ in
            var group = DescribeGroupsResponse.DescribedGroup()
            group.groupID = request.groups[0]
            group.errorCode = .groupIDNotFound
            var response = DescribeGroupsResponse()
            response.groups = [group]
            return .answer(response)
        }
        world.broker.on(ConsumerGroupDescribeRequest.self) { request, _ in
            var part = ConsumerGroupDescribeResponse.TopicPartitions()
            part.topicName = "orders"
            part.partitions = [2, 0]
            var member = ConsumerGroupDescribeResponse.Member()
            member.memberID = "m"
            member.assignment.topicPartitions = [part]
            var group = ConsumerGroupDescribeResponse.DescribedGroup()
            group.groupID = request.groupIDs[0]
            group.groupState = "Stable"
            group.errorCode = request.groupIDs[0] == "new" ? .none : .groupIDNotFound
            group.members = [member]
            var response = ConsumerGroupDescribeResponse()
            response.groups = [group]
            return .answer(response)
        }
        let group = try world.run { try await $0.group("new") }.get()
        #expect(group.members.map(\.assigned) == [[TopicPartition("orders", 0), TopicPartition("orders", 2)]])
        #expect(group.isActive)
        #expect(try world.run { try await $0.group("none") }.error?.code == .groupIDNotFound)
        world.broker.offered[.consumerGroupDescribe] = nil
        world.broker.cut()
        #expect(try world.run { try await $0.group("new") }.error?.code == .groupIDNotFound)
    }
}
