import MartletCluster
import MartletModel
import MartletWire
import Testing

@Suite struct ControllerDecisions {
    typealias Cluster = ControlledCluster

    @Test func aNewTopicIsLedByItsFirstReplicasAndEverybodyIsToldAfterThoseWhoServeIt() {
        var cluster = Cluster.ofThree()
        cluster.answerAll()
        cluster.create(Cluster.topic("t", [[1, 2], [3, 1]]))
        #expect(cluster.told("t", 0) == "1/0/[1, 2]")
        #expect(cluster.told("t", 1) == "3/0/[3, 1]")
        #expect(cluster.waiting(for: 1) == ["lead t-0=1/0 new t-1=3/0 new", "know [1, 2, 3] t-0=1/0 t-1=3/0"])
        #expect(cluster.waiting(for: 2) == ["lead t-0=1/0 new", "know [1, 2, 3] t-0=1/0 t-1=3/0"])
        #expect(cluster.waiting(for: 3) == ["lead t-1=3/0 new", "know [1, 2, 3] t-0=1/0 t-1=3/0"])
    }

    @Test func aTopicWhoseFirstReplicaIsDeadIsLedByTheNext() {
        var cluster = Cluster()
        cluster.elect([2, 3])
        cluster.create(Cluster.topic("t", [[1, 2, 3]]))
        #expect(cluster.told("t") == "2/0/[2, 3]")
    }

    @Test func aTopicOfDeadBrokersGetsALeaderWhenOneOfThemRegisters() {
        var cluster = Cluster()
        cluster.elect([1, 2])
        cluster.create(Cluster.topic("t", [[3]]))
        #expect(cluster.told("t") == "none")
        #expect(cluster.warnings.count == 1)
        cluster.answerAll()
        cluster.brokersAre(1, 2, 3)
        #expect(cluster.told("t") == "3/0/[3]")
        #expect(cluster.waiting(for: 3).first == "lead t-0=3/0 new")
    }

    @Test func whenABrokerDiesTheNextInSyncReplicaLeadsAndOnlyOneEpochPasses() {
        var cluster = Cluster.ofThree([Cluster.topic("t", [[2, 1, 3], [1, 2], [1, 3]])])
        cluster.answerAll()
        cluster.brokersAre(1, 3)
        #expect(cluster.told("t", 0) == "1/1/[1, 3]")
        #expect(cluster.told("t", 1) == "1/1/[1]")
        #expect(cluster.told("t", 2) == "1/0/[1, 3]", "it has no replica there")
        #expect(cluster.waiting(for: 2) == [])
        #expect(cluster.waiting(for: 3) == ["lead t-0=1/1", "know [1, 3] t-0=1/1 t-1=1/1"])
    }

    @Test func theLastInSyncReplicaStaysSoWhenItDiesAndLeadsAgainWhenItReturns() {
        var cluster = Cluster.ofThree([Cluster.topic("t", [[2]])])
        cluster.answerAll()
        cluster.brokersAre(1, 3)
        #expect(cluster.told("t") == "-1/1/[2]")
        cluster.answerAll()
        cluster.brokersAre([Cluster.broker(1), Cluster.broker(2, epoch: 900), Cluster.broker(3)])
        #expect(cluster.told("t") == "2/2/[2]")
        #expect(cluster.waiting(for: 2) == ["lead t-0=2/2", "know [1, 2, 3] t-0=2/2"])
    }

    @Test func aReplicaOutOfSyncDoesNotLeadUnlessTheTopicAllowsIt() {
        var careless = Cluster.topic("careless", [[1, 2]])
        careless.allowsUncleanElection = true
        var cluster = Cluster.ofThree([Cluster.topic("careful", [[1, 2]]), careless])
        cluster.answerAll()
        cluster.brokersAre(1, 3)
        cluster.answerAll()
        cluster.brokersAre([Cluster.broker(1), Cluster.broker(2, epoch: 900), Cluster.broker(3)])
        cluster.answerAll()
        #expect(cluster.told("careful") == "1/1/[1]", "nobody has asked for it to be in sync again")
        cluster.brokersAre([Cluster.broker(2, epoch: 900), Cluster.broker(3)])
        #expect(cluster.told("careful") == "-1/2/[1]")
        #expect(cluster.told("careless") == "2/2/[2]")
        #expect(cluster.warnings.contains { $0.hasPrefix("unclean election") })
    }

    @Test func aBrokerThatDiedAndReturnedBetweenTwoLooksIsSeenAsBoth() {
        var cluster = Cluster.ofThree([Cluster.topic("t", [[2, 1]])])
        cluster.answerAll()
        cluster.brokersAre([Cluster.broker(1), Cluster.broker(2, epoch: 900), Cluster.broker(3)])
        #expect(cluster.told("t") == "1/1/[1]")
        #expect(cluster.waiting(for: 2) == ["lead t-0=1/1", "know [1, 2, 3] t-0=1/1"])
        #expect(cluster.sent.allSatisfy { $0.broker != 2 || $0.request.brokerEpoch == 900 })
    }

    @Test func aReturningBrokerIsToldOfEverythingAndNothingElseChanges() {
        var cluster = Cluster.ofThree([Cluster.topic("a", [[1, 3]]), Cluster.topic("b", [[1, 2]])])
        cluster.answerAll()
        cluster.brokersAre(1, 2)
        cluster.answerAll()
        let before = (cluster.told("a"), cluster.told("b"))
        cluster.brokersAre([Cluster.broker(1), Cluster.broker(2), Cluster.broker(3, epoch: 900)])
        #expect((cluster.told("a"), cluster.told("b")) == before)
        #expect(cluster.waiting(for: 3) == ["lead a-0=1/1", "know [1, 2, 3] a-0=1/1 b-0=1/0"])
        #expect(cluster.waiting(for: 1).last?.hasPrefix("know [1, 2, 3]") == true)
    }

    @Test func afterAFailoverTheDeadControllersPartitionsRiseByTwoEpochsAndOthersByOneOrNone() {
        var topic = Cluster.topic("t", [[1, 2, 3], [2, 1, 3], [2, 3]])
        for (index, leader) in [BrokerID(1), 2, 2].enumerated() {
            topic.partitions[index].state = PartitionStateNode(
                controllerEpoch: 1, leader: leader, leaderEpoch: 4, inSyncReplicas: topic.partitions[index].replicas)
            topic.partitions[index].version = 9
        }
        var cluster = Cluster(controller: 2, epoch: 2)
        cluster.elect([2, 3], [topic])
        #expect(cluster.told("t", 0) == "2/6/[2, 3]")
        #expect(cluster.told("t", 1) == "2/5/[2, 3]")
        #expect(cluster.told("t", 2) == "2/4/[2, 3]")
        #expect(cluster.tree[TopicPartition("t", 0)]?.version == 10, "one write, whatever it changes")
        #expect(cluster.tree[TopicPartition("t", 2)]?.version == 9)
        #expect(cluster.waiting(for: 3) == ["lead t-0=2/6 t-1=2/5 t-2=2/4", "know [2, 3] t-0=2/6 t-1=2/5 t-2=2/4"])
    }

    @Test func aTopicWithoutStatesLeftByADeadControllerIsFinishedByTheNext() {
        var topic = Cluster.topic("t", [[1, 2], [2, 3]])
        topic.partitions[0].state = PartitionStateNode(controllerEpoch: 1, leader: 2, leaderEpoch: 1, inSyncReplicas: [2])
        var cluster = Cluster(controller: 2, epoch: 2)
        cluster.elect([2, 3], [topic])
        #expect(cluster.told("t", 0) == "2/1/[2]")
        #expect(cluster.told("t", 1) == "2/0/[2, 3]")
    }

    @Test func aLoneBrokerRaisesItsEpochsAfterAnUncleanStopOnly() {
        var topic = Cluster.topic("t", [[1]])
        topic.partitions[0].state = PartitionStateNode(controllerEpoch: 1, leader: 1, leaderEpoch: 3, inSyncReplicas: [1])
        var clean = Cluster(epoch: 2)
        clean.elect([1], [topic])
        #expect(clean.told("t") == "1/3/[1]")
        var unclean = Cluster(epoch: 2)
        unclean.elect([1], [topic], raisesOwnEpochs: true)
        #expect(unclean.told("t") == "1/4/[1]")
        #expect(unclean.waiting(for: 1).first == "lead t-0=1/4")
        var among = Cluster(epoch: 2)
        among.elect([1, 2], [topic], raisesOwnEpochs: true)
        #expect(among.told("t") == "1/3/[1]", "with others alive, who lost the leadership is decided by its death")
    }

    @Test func partitionsThatAreAddedBeginWhileTheOldOnesGoOn() {
        var cluster = Cluster.ofThree([Cluster.topic("t", [[1, 2]])])
        cluster.answerAll()
        cluster.create(Cluster.topic("t", [[1, 2], [2, 3]]))
        #expect(cluster.told("t", 0) == "1/0/[1, 2]")
        #expect(cluster.told("t", 1) == "2/0/[2, 3]")
        #expect(cluster.waiting(for: 1) == ["know [1, 2, 3] t-1=2/0"])
    }

    // MARK: Log directories

    @Test func aReplicaWhoseDirectoryFailedHandsOverItsLeadership() {
        var cluster = Cluster.ofThree([Cluster.topic("t", [[1, 2], [1, 2]])])
        cluster.answerAll(broken: [(1, TopicPartition("t", 1))])
        #expect(cluster.told("t", 0) == "1/0/[1, 2]")
        #expect(cluster.told("t", 1) == "2/1/[2]")
        cluster.brokersAre([Cluster.broker(1, epoch: 900), Cluster.broker(2), Cluster.broker(3)])
        #expect(cluster.waiting(for: 1).first == "lead t-0=2/1 t-1=2/1", "it registered anew: perhaps the disk is whole again")
    }

    @Test func aReplicaThatIsServedAfterAllLeadsAgain() {
        let (one, two) = (TopicPartition("t", 0), TopicPartition("t", 1))
        var cluster = Cluster.ofThree([Cluster.topic("t", [[1], [2, 1]])])
        cluster.answerAll(broken: [(1, one), (1, two)])
        #expect([0, 1].map { cluster.told("t", $0) } == ["-1/1/[1]", "2/1/[2]"])
        cluster.handle(.replicasFailed(1))
        #expect(cluster.waiting(for: 1).first == "lead t-0=-1/1 t-1=2/1", "it is asked how it is with them")
        cluster.answerAll(broken: [(1, one), (1, two)])
        #expect([0, 1].map { cluster.told("t", $0) } == ["-1/1/[1]", "2/1/[2]"], "as before")
        cluster.handle(.replicasFailed(1))
        cluster.answerAll(broken: [(1, two)])
        #expect([0, 1].map { cluster.told("t", $0) } == ["1/2/[1]", "2/1/[2]"], "the only one that there is")
        #expect(cluster.state.isOnline(1, one) && !cluster.state.isOnline(1, two))
        cluster.handle(.replicasFailed(1))
        let (broker, request) = cluster.sent.removeFirst()
        cluster.sent = []
        cluster.handle(.answered(by: broker, request, Cluster.success(request)))
        #expect(cluster.told("t", 1) == "2/1/[2]", "who leads stays")
        let told = cluster.sent.compactMap { sent -> [BrokerID]? in
            guard case .updateMetadata(let news) = sent.request else { return nil }
            return news.topicStates.flatMap(\.partitionStates).first { $0.partitionIndex == 1 }?.offlineReplicas
        }
        #expect(told == [[], [], []], "everybody hears that it is back")
    }

    // MARK: Deletion

    @Test func aDeletedTopicGoesFromEverybodysSightThenFromTheirDisksThenFromTheTree() {
        var cluster = Cluster.ofThree([Cluster.topic("kept", [[1]]), Cluster.topic("t", [[1, 2]])])
        cluster.answerAll()
        cluster.handle(.deletions(["t"], areAllowed: true))
        #expect(cluster.waiting(for: 3) == ["know [1, 2, 3] t-0=-2/0"])
        #expect(cluster.waiting(for: 2) == ["know [1, 2, 3] t-0=-2/0", "stop t-0"])
        #expect(cluster.told("t") == "-1/1/[1, 2]")
        #expect(cluster.removed == [])
        cluster.answerAll()
        #expect(cluster.removed == ["t"])
        #expect(cluster.told("t") == "none")
        #expect(cluster.told("kept") == "1/0/[1]")
        cluster.create(Cluster.topic("t", [[3]]))
        #expect(cluster.told("t") == "3/0/[3]", "the name can be used again")
    }

    @Test func aTopicDeletedWhileAReplicaIsDeadIsDeletedThereWhenItReturns() {
        var cluster = Cluster.ofThree([Cluster.topic("t", [[1, 2]])])
        cluster.answerAll()
        cluster.brokersAre(1, 3)
        cluster.answerAll()
        cluster.handle(.deletions(["t"], areAllowed: true))
        cluster.answerAll()
        #expect(cluster.removed == [])
        #expect(cluster.told("t").hasPrefix("-1/"))
        cluster.brokersAre([Cluster.broker(1), Cluster.broker(2, epoch: 900), Cluster.broker(3)])
        #expect(cluster.waiting(for: 2) == ["know [1, 2, 3]", "stop t-0"], "it is told neither to lead it nor that it exists")
        cluster.answerAll()
        #expect(cluster.removed == ["t"])
    }

    @Test func aDeletionThatACrashEndedGoesOnWithoutTheTopicBeingServedAgain() {
        var topic = Cluster.topic("t", [[1]])
        topic.partitions[0].state = PartitionStateNode(controllerEpoch: 1, leader: -1, leaderEpoch: 3, inSyncReplicas: [1])
        var cluster = Cluster.ofThree([topic], deletions: ["t"])
        #expect(cluster.waiting(for: 1) == ["know [1, 2, 3] t-0=-2/0", "stop t-0"])
        cluster.answerAll()
        #expect(cluster.removed == ["t"])
    }

    @Test func deletionsThatCannotBeAreForgotten() {
        var cluster = Cluster.ofThree([Cluster.topic("t", [[1]])])
        cluster.answerAll()
        cluster.handle(.deletions(["nobody"], areAllowed: true))
        cluster.handle(.deletions(["t"], areAllowed: false))
        #expect(cluster.forgotten == ["nobody", "t"])
        #expect(cluster.told("t") == "1/0/[1]")
    }

    // MARK: Epochs

    @Test func aControllerWhoseBrokersKnowALaterOneResigns() {
        var cluster = Cluster.ofThree([Cluster.topic("t", [[1]])])
        let (broker, request) = cluster.sent[0]
        var response = LeaderAndIsrResponse()
        response.errorCode = .staleControllerEpoch
        cluster.handle(.answered(by: broker, request, .leaderAndIsr(response)))
        #expect(cluster.resigned != nil)
    }

    @Test func anAnswerOfAnEarlierRegistrationIsPassedOver() {
        var cluster = Cluster.ofThree([Cluster.topic("t", [[2]])])
        cluster.answerAll()
        cluster.handle(.deletions(["t"], areAllowed: true))
        let old = cluster.sent
        cluster.sent = []
        cluster.brokersAre([Cluster.broker(1), Cluster.broker(2, epoch: 900), Cluster.broker(3)])
        for (broker, request) in old { cluster.handle(.answered(by: broker, request, Cluster.success(request))) }
        #expect(cluster.waiting(for: 2).filter { $0.hasPrefix("stop") } == ["stop t-0"], "not yet told to delete")
        cluster.answerAll()
        #expect(cluster.removed == ["t"])
    }

    @Test func requestsOfAnOldControllerAndForAnOldRegistrationAreRefused() {
        var epochs = RequestEpochs()
        epochs.brokerEpoch = 50
        #expect(epochs.refusal(controllerEpoch: 2, brokerEpoch: 50) == nil)
        #expect(epochs.refusal(controllerEpoch: 1, brokerEpoch: 50) == .staleControllerEpoch)
        #expect(epochs.refusal(controllerEpoch: 3, brokerEpoch: 49) == .staleBrokerEpoch)
        #expect(epochs.controllerEpoch == 2, "a refused request teaches nothing")
        #expect(epochs.refusal(controllerEpoch: 3, brokerEpoch: -1) == nil)
    }
}
