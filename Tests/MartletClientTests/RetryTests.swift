import MartletBasics
import MartletClient
import MartletModel
import MartletReactor
import MartletWire
import Testing

@Suite struct WhatMayPassIsTriedAgain {
    private static func created(_ request: CreateTopicsRequest, _ code: ErrorCode) -> CreateTopicsResponse {
        var response = CreateTopicsResponse()
        response.topics = request.topics.map { asked in
            var topic = CreateTopicsResponse.CreatableTopicResult()
            topic.name = asked.name
            topic.errorCode = code
            return topic
        }
        return response
    }

    private static func offset(_ request: ListOffsetsRequest, _ code: ErrorCode, _ offset: Offset) -> ListOffsetsResponse {
        var response = ListOffsetsResponse()
        response.topics = request.topics.map { asked in
            var topic = ListOffsetsResponse.ListOffsetsTopicResponse()
            topic.name = asked.name
            topic.partitions = asked.partitions.map { part in
                var answer = ListOffsetsResponse.ListOffsetsPartitionResponse()
                answer.partitionIndex = part.partitionIndex
                answer.errorCode = code
                answer.offset = code == .none ? offset : -1
                return answer
            }
            return topic
        }
        return response
    }

    @Test func aControllerThatMovedIsFound() throws {
        let world = try ClientWorld(brokers: 2)
        world.controller = 1
        for broker in world.brokers {
            broker.on(CreateTopicsRequest.self) { [unowned world] request, _ in
                // who asks the old one learns of the new one from the next metadata
                if broker.id == 1 { world.controller = 2 }
                return .answer(Self.created(request, broker.id == 1 ? .notController : .none))
            }
        }
        #expect(try world.run { try await $0.createTopics([NewTopic("a")]) }.get() == [Outcome("a", nil)])
        #expect(world.brokers.map { $0.count(of: .createTopics) } == [1, 1])
    }

    @Test func aLeaderThatMovedIsFoundAndOthersAreNotAskedTwice() throws {
        let world = try ClientWorld(brokers: 3)
        world.leaders = [1, 2, 1]
        for broker in world.brokers {
            broker.on(ListOffsetsRequest.self) { [unowned world] request, _ in
                if broker.id == 2 {
                    world.leaders[1] = 3
                    return .answer(Self.offset(request, .notLeaderOrFollower, 0))
                }
                return .answer(Self.offset(request, .none, Int64(broker.id) * 10))
            }
        }
        let found = try world.run { try await $0.offsets(.latest, of: (0..<3).map { TopicPartition("orders", $0) }) }.get()
        #expect(found.map(\.offset) == [10, 30, 10])
        #expect(world.brokers.map { $0.count(of: .listOffsets) } == [1, 1, 1])
    }

    @Test func aLeaderWhoseMachineIsGoneIsNotWaitedForOnceThereIsAnother() throws {
        let world = try ClientWorld(brokers: 2) { $0.connectTimeLimit = .seconds(1) }
        world.leaders = [2]
        world.broker.on(ListOffsetsRequest.self) { request, _ in .answer(Self.offset(request, .none, 7)) }
        _ = try world.run { try await $0.refresh(topics: ["orders"]) }.get()
        world.brokers[1].host.kill()
        world.simulated.after(.seconds(2)) { world.leaders = [1] }
        let seconds = try world.seconds {
            let found = try world.run { try await $0.offsets(.latest, of: [TopicPartition("orders", 0)]) }.get()
            #expect(found.first?.offset == 7)
        }
        #expect((2...5).contains(seconds))
    }

    @Test func anErrorThatStaysIsToldWhenTheTimeIsOver() throws {
        let world = try ClientWorld { $0.operationTimeLimit = .seconds(5) }
        world.broker.on(ListOffsetsRequest.self) { request, _ in .answer(Self.offset(request, .notLeaderOrFollower, 0)) }
        var found: [FoundOffset] = []
        let seconds = try world.seconds {
            found = try world.run { try await $0.offsets(.latest, of: [TopicPartition("orders", 0)]) }.get()
        }
        #expect(found.first?.error?.code == .notLeaderOrFollower)
        #expect((4...6).contains(seconds))
        #expect((6...12).contains(world.broker.count(of: .listOffsets)), "the waits grow to a second")
    }

    @Test func anErrorThatIsFinalIsToldAtOnce() throws {
        let world = try ClientWorld()
        world.broker.on(CreateTopicsRequest.self) { request, _ in .answer(Self.created(request, .topicAlreadyExists)) }
        let outcome = try world.run { try await $0.createTopics([NewTopic("a")]) }.get().first
        #expect(outcome?.error?.code == .topicAlreadyExists)
        #expect(world.broker.count(of: .createTopics) == 1)
    }

    @Test func aTopicThatIsNotThereIsToldAtOnce() throws {
        let world = try ClientWorld()
        let seconds = try world.seconds {
            let topics = try world.run { try await $0.topics(named: ["orders", "none"]) }.get()
            #expect(topics.map(\.error) == [.none, .unknownTopicOrPartition])
        }
        #expect(seconds < 0.5)
    }

    // MARK: Connections

    @Test func aQuestionWhoseConnectionIsLostIsAskedAgain() throws {
        for seed: UInt64 in 1...20 {
            let world = try ClientWorld(seed: seed)
            var left = 3
            world.broker.on(ListOffsetsRequest.self) { request, _ in
                left -= 1
                return left >= 0 ? .hangUp : .answer(Self.offset(request, .none, 7))
            }
            let found = try world.run { try await $0.offsets(.latest, of: [TopicPartition("orders", 0)]) }.get()
            #expect(found.first?.offset == 7, "seed \(seed)")
            #expect(world.broker.connectionsCount == 4, "seed \(seed)")
        }
    }

    /// What creates must not be sent twice: the second answer would be that it is there already.
    @Test func whatChangesSomethingIsNotSentAgainWhenItsConnectionIsLost() throws {
        let world = try ClientWorld()
        world.broker.on(CreateTopicsRequest.self) { _, _ in .hangUp }
        let error = try #require(try world.run { try await $0.createTopics([NewTopic("a")]) }.error)
        #expect(world.broker.count(of: .createTopics) == 1)
        #expect(error.concernsConnection && !error.isSafe)
    }

    @Test func aBrokerThatDoesNotAnswerIsGivenUp() throws {
        let world = try ClientWorld {
            $0.requestTimeLimit = .seconds(2)
            $0.operationTimeLimit = .seconds(7)
        }
        world.broker.on(CreateTopicsRequest.self) { _, _ in .silence }
        var error: ClientError?
        let seconds = try world.seconds { error = try world.run { try await $0.createTopics([NewTopic("a")]) }.error }
        #expect(error == .timedOut(what: "CreateTopics", broker: "10.0.0.1:9092", afterMs: 2000))
        #expect((2...3).contains(seconds))
        // and nothing of it is left: the next question has a connection of its own
        #expect(try world.run { try await $0.refresh(topics: nil) }.get().clusterID == "cluster")
        #expect(world.broker.connectionsCount == 2)
    }

    @Test func whereNobodyListensThatIsToldAtOnce() throws {
        let world = try ClientWorld()
        world.broker.stopListening()
        var error: ClientError?
        let seconds = try world.seconds { error = try world.run { try await $0.refresh(topics: nil) }.error }
        #expect(error == .unreachable(["10.0.0.1:9092: Connection refused"]))
        #expect(seconds < 0.5)
    }

    @Test func aBrokerThatComesBackIsFoundAgain() throws {
        let world = try ClientWorld()
        _ = try world.run { try await $0.refresh(topics: nil) }.get()
        world.broker.stopListening()
        world.broker.cut()
        world.simulated.after(.seconds(4)) { #expect(throws: Never.self) { try world.broker.listen() } }
        let seconds = try world.seconds { _ = try world.run { try await $0.refresh(topics: nil) }.get() }
        #expect((4...6).contains(seconds))
    }

    @Test func amongSeveralAddressesOneThatAnswersIsEnough() throws {
        let world = try ClientWorld(brokers: 2) {
            $0.bootstrap = [
                BrokerEndpoint(host: "no-such-name", port: 9092), BrokerEndpoint(host: "10.0.0.1", port: 1),
                BrokerEndpoint(host: "broker-2", port: 9092),
            ]
        }
        #expect(try world.run { try await $0.refresh(topics: nil) }.get().brokers.count == 2)
        #expect(world.brokers[1].count(of: .metadata) == 1)
    }

    @Test func aMachineThatSwallowsEverythingIsGivenUpInTime() throws {
        let world = try ClientWorld {
            $0.connectTimeLimit = .seconds(3)
            $0.operationTimeLimit = .seconds(10)
        }
        world.simulated.network.partition(world.broker.host, world.machine)
        var error: ClientError?
        let seconds = try world.seconds { error = try world.run { try await $0.refresh(topics: nil) }.error }
        #expect(error == .unreachable(["10.0.0.1:9092: no answer within 3000 ms"]))
        #expect((3...4).contains(seconds))
    }

    @Test func tasksThatWantTheSameConnectionShareIt() throws {
        let world = try ClientWorld()
        _ = try world.run { client in
            await withTaskGroup(of: Bool.self) { group in
                for _ in 0..<10 { group.addTask { (try? await client.refresh(topics: nil)) != nil } }
                for await isAnswered in group { #expect(isAnswered) }
            }
        }.get()
        #expect(world.broker.connectionsCount == 1)
        #expect(world.broker.count(of: .metadata) == 10)
    }

    // MARK: Coordinators

    @Test func aGroupsCoordinatorIsFoundAgainWhenItMoved() throws {
        let world = try ClientWorld(brokers: 2)
        var coordinator: BrokerID = 1
        for broker in world.brokers {
            broker.on(FindCoordinatorRequest.self) { request, version in
                var response = FindCoordinatorResponse()
                var found = FindCoordinatorResponse.Coordinator()
                found.key = request.coordinatorKeys.first ?? ""
                found.nodeID = coordinator
                found.host = world.brokers[Int(coordinator) - 1].host.address
                found.port = 9092
                response.coordinators = [found]
                return .answer(response)
            }
            broker.on(DeleteGroupsRequest.self) { request, _ in
                var result = DeleteGroupsResponse.DeletableGroupResult()
                result.groupID = request.groupsNames[0]
                result.errorCode = broker.id == 2 ? .none : .notCoordinator
                coordinator = 2
                var response = DeleteGroupsResponse()
                response.results = [result]
                return .answer(response)
            }
        }
        #expect(try world.run { try await $0.deleteGroup("billing") }.error == nil)
        #expect(world.brokers.map { $0.count(of: .deleteGroups) } == [1, 1])
    }
}
