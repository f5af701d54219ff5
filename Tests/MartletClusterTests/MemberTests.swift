import MartletBasics
import MartletCluster
import MartletKeeper
import MartletModel
import MartletReactor
import Testing

@Suite struct ClusterMembers {
    @Test func aNewBrokerMakesTheTreeThatKafkaMakesAndIsItsController() {
        let world = MemberWorld()
        world.start()
        #expect(world.image.controllerID == 1)
        #expect(world.image.clusterID.utf8.count == 22)
        #expect(world.image.brokers == [BrokerInfo(id: 1, endpoints: [.init(listener: "PLAINTEXT", host: "10.0.0.1", port: 9092)], rack: nil)])
        let tree = world.tree().filter { !$0.hasPrefix("/zookeeper") }
        for path in ClusterPath.fixed { #expect(tree.contains(path) || tree.contains { $0.hasPrefix(path + " ") }) }
        #expect(tree.contains(#"/cluster/id {"version":"1","id":"\#(world.image.clusterID)"}"#))
        #expect(tree.contains("/controller_epoch 1"))
        #expect(tree.contains(#"/feature {"features":{},"version":2,"status":1}"#))
        #expect(
            tree.contains {
                $0.hasPrefix(
                    #"/brokers/ids/1 {"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"},"endpoints":["PLAINTEXT://10.0.0.1:9092"],"jmx_port":-1,"port":9092,"host":"10.0.0.1","version":5,"#)
            })
        #expect(world.disk.clusterID == world.image.clusterID)
        #expect(world.disk.brokerID == 1)
    }

    @Test func aClientThatWasToldOfATopicCanProduceToIt() {
        let world = MemberWorld(loops: 2)
        world.start()
        world.run(on: 1) { world in
            let wanted = NewTopic(
                name: "events", partitionCount: 3, replicationFactor: 1, configs: [.init(name: "retention.ms", value: "1000")])
            let created = try await world.member.createTopic(wanted, validateOnly: false).get()
            #expect(created.partitionCount == 3)
            #expect(created.settings.map(\.value) == ["1000"])
            #expect(world.told == ["events-0 1/0", "events-1 1/0", "events-2 1/0"])
            #expect(world.image.topic("events")?.id == created.id)
            #expect(world.replicas.roles.count == 3, "served before it is told")
            #expect(world.replicas.configs["events"]?.retentionMs == 1000)
        }
        let tree = world.tree()
        let id = world.image.topic("events")?.id.description ?? ""
        #expect(tree.contains(#"/config/topics/events {"version":1,"config":{"retention.ms":"1000"}}"#))
        #expect(
            tree.contains(
                #"/brokers/topics/events {"partitions":{"0":[1],"1":[1],"2":[1]},"topic_id":"\#(id)","adding_replicas":{},"removing_replicas":{},"version":3}"#))
        #expect(
            tree.contains(
                #"/brokers/topics/events/partitions/2/state {"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1]}"#))
    }

    @Test func clientsNeverSeeATopicThatIsNotServedYet() {
        let world = MemberWorld()
        world.start()
        var seen = 0
        world.run { world in
            world.member.createAutomatically("a")
            world.member.createAutomatically("b")
        }
        _ = world.simulated.run(atMost: .seconds(10)) {
            for topic in world.image.topics {
                seen += 1
                #expect(topic.partitions.allSatisfy { world.replicas.roles[TopicPartition(topic.name, $0.index)] != nil })
            }
            return world.image.topics.count == 2
        }
        #expect(seen > 0)
        #expect(world.told == ["a-0 1/0", "b-0 1/0"])
    }

    @Test func aTopicIsMadeOnceHoweverManyAskForIt() {
        let world = MemberWorld(loops: 2)
        world.start()
        world.run(on: 1) { world in for _ in 0..<50 { world.member.createAutomatically("t") } }
        world.run { world in
            async let first = world.member.createTopic(NewTopic(name: "u", partitionCount: 1, replicationFactor: 1), validateOnly: false)
            async let second = world.member.createTopic(NewTopic(name: "u", partitionCount: 2, replicationFactor: 1), validateOnly: false)
            let results = await [first, second]
            #expect(results.count { if case .success = $0 { true } else { false } } == 1)
            #expect(results.contains { if case .failure(let fault) = $0 { fault.error == .topicAlreadyExists } else { false } })
        }
        world.simulated.run(for: .seconds(1))
        #expect(world.image.topics.map(\.name) == ["t", "u"])
        #expect(world.replicas.orders.filter { $0.hasPrefix("t-0") }.count == 1)
    }

    @Test func validatingCreatesNothing() {
        let world = MemberWorld()
        world.start()
        world.run { world in
            let wanted = NewTopic(name: "t", partitionCount: 3, replicationFactor: -1)
            let created = try await world.member.createTopic(wanted, validateOnly: true).get()
            #expect(created.partitionCount == 3)
            #expect(created.replicationFactor == 1)
        }
        #expect(world.tree().contains { $0.hasPrefix("/brokers/topics/t") } == false)
    }

    @Test func aDeletedTopicIsGoneEverywhereWhenThatIsAnsweredAndItsNameIsFree() {
        let world = MemberWorld(loops: 2)
        world.start()
        world.create("t", partitions: 2)
        world.create("kept")
        let old = world.image.topic("t")?.id ?? .zero
        world.run(on: 1) { world in
            #expect(await world.member.deleteTopic("t", id: UUID(high: 1, low: 1))?.error == .unknownTopicID)
            #expect(await world.member.deleteTopic("t", id: old) == nil)
            #expect(world.image.topic("t") == nil)
            #expect(world.disk.folders.keys.sorted() == ["kept"])
            #expect(await world.member.deleteTopic("t", id: old)?.error == .unknownTopicOrPartition)
        }
        #expect(!world.tree().contains { $0.contains("/t") && !$0.contains("token") && $0.hasPrefix("/brokers/topics/t") })
        #expect(!world.tree().contains { $0.hasPrefix("/config/topics/t") || $0.hasPrefix("/admin/delete_topics/t") })
        world.create("t")
        #expect(world.told == ["kept-0 1/0", "t-0 1/0"])
        #expect(world.image.topic("t")?.id != old)
    }

    @Test func whereDeletionIsSwitchedOffTopicsStay() {
        let world = MemberWorld([("delete.topic.enable", "false")])
        world.start()
        world.create("t")
        world.run { world in
            let id = world.image.topic("t")?.id ?? .zero
            #expect(await world.member.deleteTopic("t", id: id)?.error == .topicDeletionDisabled)
        }
        #expect(world.told == ["t-0 1/0"])
    }

    // MARK: Restarts

    @Test func aRestartedBrokerServesWhatItServedInTheSameEpochs() {
        let world = MemberWorld()
        world.start()
        world.create("a", partitions: 2)
        world.create("b")
        let before = (world.told, world.image.clusterID, world.image.topics.map(\.id))
        world.stop()
        world.start()
        #expect(world.told == before.0)
        #expect(world.image.clusterID == before.1)
        #expect(world.image.topics.map(\.id) == before.2)
        #expect(world.replicas.roles.count == 3, "all is served when the start is over")
        #expect(world.replicas.orders.allSatisfy { !$0.hasSuffix("new") })
        #expect(world.tree().contains("/controller_epoch 2"))
    }

    @Test func replicasWhoseFoldersAreGoneAreMadeAnewAndThatIsSaid() {
        let world = MemberWorld()
        world.start()
        world.create("a", partitions: 2)
        world.create("b")
        world.stop()
        world.disk.folders["a"]?.partitions.remove(1)
        world.start()
        #expect(world.told == ["a-0 1/0", "a-1 1/0", "b-0 1/0"])
        #expect(world.sink.all.filter { $0.contains("made anew") && $0.hasSuffix("partitions=1 first=a-1") }.count == 1)
    }

    @Test func aReplicaOnABrokenDiskLeavesItsPartitionWithoutALeaderAndTheOthersServed() {
        let world = MemberWorld()
        world.start()
        world.create("a", partitions: 2)
        world.stop()
        world.prepare = { $0.broken = [TopicPartition("a", 1)] }
        world.start()
        world.simulated.run(for: .seconds(1))
        #expect(world.told == ["a-0 1/0", "a-1 -1/1"])
    }

    @Test func afterAPowerCutALoneBrokerLeadsInLaterEpochs() {
        let world = MemberWorld()
        world.start()
        world.create("a")
        world.powerCut()
        world.start()
        #expect(world.told == ["a-0 1/1"])
    }

    @Test(arguments: 1...12) func aPowerCutAmidCreationsAndDeletionsLeavesNothingHalf(_ seed: Int) {
        let world = MemberWorld(seed: UInt64(seed))
        world.start()
        world.create("old", partitions: 2)
        let old = world.image.topic("old")?.id ?? .zero
        final class Answers: @unchecked Sendable { var created: [String] = []; var isDeleted = false }
        let answers = Answers()
        world.host.powerCut(afterDiskOperations: 3 + seed * 5)
        world.loop.spawn {
            for name in ["x", "y", "z"] {
                let wanted = NewTopic(name: name, partitionCount: 2, replicationFactor: 1)
                if case .success = await world.member.createTopic(wanted, validateOnly: false) { answers.created.append(name) }
                if name == "x" { answers.isDeleted = await world.member.deleteTopic("old", id: old) == nil }
            }
        }
        world.simulated.run(for: .seconds(5))
        world.powerCut()
        world.start()
        world.simulated.run(for: .seconds(5))
        for name in answers.created { #expect(world.image.topic(name)?.partitions.count == 2) }
        if answers.isDeleted { #expect(world.image.topic("old") == nil) }
        for topic in world.image.topics {
            #expect(topic.partitions.count == 2)
            for partition in topic.partitions {
                #expect(partition.leader == 1)
                #expect(world.replicas.roles[TopicPartition(topic.name, partition.index)]?.leaderEpoch == partition.leaderEpoch)
            }
        }
        #expect(!world.tree().contains { $0.hasPrefix("/admin/delete_topics/") })
    }

    @Test func aBrokerWhoseSessionRanOutRegistersAnewAndGoesOn() {
        let world = MemberWorld()
        world.nextSessionIsShort = true
        world.start()
        world.create("a")
        world.simulated.run(for: .seconds(120))
        #expect(world.sessions.map(\.state) == [.expired, .connected])
        #expect(world.tree().contains("/controller_epoch 2"))
        #expect(world.tree().contains { $0.hasPrefix("/brokers/ids/1 ") })
        world.create("b")
        #expect(world.told == ["a-0 1/0", "b-0 1/0"])
    }

    @Test func aControllerThatWasReplacedWritesNothingMoreAndIsElectedAnew() {
        let world = MemberWorld()
        world.start()
        world.run { world in
            // what another broker does when it takes over
            let session = try await world.keeper.openSession(timeout: .seconds(10), on: world.loop)
            _ = try await session.set(ClusterPath.controllerEpoch, ControllerEpochNode.bytes(2))
            await session.close()
            let refused = await world.member.createTopic(
                NewTopic(name: "a", partitionCount: 1, replicationFactor: 1), validateOnly: false)
            guard case .failure(let fault) = refused else {
                Issue.record("a stale controller made a topic")
                return
            }
            #expect(fault.error == .notController)
        }
        // nothing tells it yet: the next of its own writes does
        world.run { world in world.member.createAutomatically("b") }
        world.run { world in
            let session = try await world.keeper.openSession(timeout: .seconds(10), on: world.loop)
            _ = try await session.create(ClusterPath.deletion("nobody"), nil)
            await session.close()
        }
        world.simulated.run(for: .seconds(5))
        world.create("c")
        #expect(world.told == ["c-0 1/0"])
        #expect(world.tree().contains("/controller_epoch 3"))
    }

    // MARK: Who it is

    @Test func logDirectoriesOfAnotherClusterStopTheStart() {
        let world = MemberWorld()
        world.start()
        world.stop()
        world.disk.clusterID = "AAAAAAAAAAAAAAAAAAAAAA"
        world.run { world in
            do {
                try await world.startMember()
                Issue.record("it started")
            } catch let error as ClusterError {
                if case .wrongCluster = error { return }
                Issue.record(error)
            }
        }
    }

    @Test func aDirectoryThatKafkaFilledIsAdoptedByANewTree() throws {
        let world = MemberWorld()
        let id = UUID(high: 3, low: 4)
        (world.disk.clusterID, world.disk.brokerID) = ("Nphc91hsQFaOu3viOGbofA", 7)
        world.disk.folders = ["events": (id, [0, 2]), "nameless": (nil, [0])]
        world.disk.lastEpochs = [TopicPartition("events", 2): 5]
        world.start()
        #expect(world.member.brokerID == 7)
        #expect(world.image.clusterID == "Nphc91hsQFaOu3viOGbofA")
        #expect(world.told == ["events-0 7/1", "events-2 7/6", "nameless-0 7/1"])
        #expect(world.image.topic("events")?.id == id)
        #expect(world.image.topic("nameless")?.id != .zero)
        #expect(world.sink.all.contains { $0.contains("topics=2") })
        world.stop()
        world.disk.folders["stranger"] = (UUID(high: 9, low: 9), [0])
        world.start()
        #expect(world.image.topic("stranger") == nil, "only a new tree adopts")
        world.run { world in
            let wanted = NewTopic(name: "stranger", partitionCount: 1, replicationFactor: 1)
            guard case .failure(let fault) = await world.member.createTopic(wanted, validateOnly: false) else {
                Issue.record("a topic was made over folders of another one")
                return
            }
            #expect(fault.error == .topicAlreadyExists)
        }
    }

    // MARK: Producer ids and settings

    @Test func producerIDsAreGivenOnceAlsoAcrossRestartsAndAtOnce() {
        let world = MemberWorld(loops: 2)
        world.start()
        final class Given: @unchecked Sendable { var ids: [ProducerID] = [] }
        let given = Given()
        for _ in 0..<2 {
            world.run(on: 1) { world in
                await withTaskGroup(of: ProducerID?.self) { group in
                    for _ in 0..<1200 { group.addTask { await world.member.allocateProducerID() } }
                    for await id in group { given.ids.append(id ?? -1) }
                }
            }
            world.stop()
            world.start()
        }
        #expect(Set(given.ids).count == 2400)
        #expect(given.ids.min() == 0)
        #expect(world.tree().contains(#"/latest_producer_id_block {"version":1,"broker":1,"block_start":"3000","block_end":"3999"}"#))
    }

    @Test func settingsThatAnotherToolWritesAreTakenOver() {
        let world = MemberWorld()
        world.start()
        world.create("t")
        world.run { world in
            let session = try await world.keeper.openSession(timeout: .seconds(10), on: world.loop)
            _ = try await session.set(ClusterPath.topicConfig("t"), ConfigNode([("retention.ms", "77")]).bytes)
            _ = try await session.create(
                "/config/changes/config_change_", ConfigChangeNode(entityPath: "topics/t").bytes, .persistentSequential)
            await session.close()
        }
        world.simulated.run(for: .seconds(1))
        #expect(world.replicas.configs["t"]?.retentionMs == 77)
        world.run { world in #expect(await world.member.topicOverrides("t")?.map(\.value) == ["77"]) }
    }

    // MARK: The same again

    @Test func aSeedGivesTheSameHistoryEveryTime() {
        func history() -> UInt64 {
            let world = MemberWorld(seed: 42, loops: 2)
            world.start()
            for name in ["c", "a", "b"] { world.create(name, partitions: 5) }
            world.run { world in
                _ = await world.member.deleteTopic("a", id: world.image.topic("a")?.id ?? .zero)
                _ = await world.member.allocateProducerID()
            }
            world.powerCut()
            world.start()
            return world.simulated.history
        }
        #expect(history() == history())
    }
}
