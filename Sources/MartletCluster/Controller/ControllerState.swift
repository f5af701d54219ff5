package import MartletModel
package import MartletWire

/// A broker that is there, as its node in the tree says.
package struct LiveBroker: Sendable, Equatable {
    package var id: BrokerID
    /// The transaction that registered it: a broker that comes back has a higher one.
    package var epoch: Int64
    package var endpoints: [BrokerNode.Endpoint]
    package var rack: String?

    package init(id: BrokerID, epoch: Int64, endpoints: [BrokerNode.Endpoint], rack: String?) {
        self.id = id
        self.epoch = epoch
        self.endpoints = endpoints
        self.rack = rack
    }
}

/// A partition as the tree has it.
package struct PartitionFacts: Sendable, Equatable {
    package var index: Int32
    package var replicas: [BrokerID]
    package var adding: [BrokerID] = []
    package var removing: [BrokerID] = []
    /// Nil: it has never had a leader.
    package var state: PartitionStateNode?
    /// Of the state's node: the partition epoch.
    package var version: Int32 = 0

    package init(index: Int32, replicas: [BrokerID], state: PartitionStateNode? = nil, version: Int32 = 0) {
        self.index = index
        self.replicas = replicas
        self.state = state
        self.version = version
    }
}

/// A topic as the tree has it.
package struct TopicFacts: Sendable, Equatable {
    package var name: String
    package var id: UUID
    /// By rising index.
    package var partitions: [PartitionFacts]
    /// Where no in-sync replica is left, any other may lead, and what it lacks is lost.
    package var allowsUncleanElection: Bool

    package init(name: String, id: UUID, partitions: [PartitionFacts], allowsUncleanElection: Bool = false) {
        self.name = name
        self.id = id
        self.partitions = partitions
        self.allowsUncleanElection = allowsUncleanElection
    }

    func place(of index: Int32) -> Int? {
        let guess = Int(index)
        if guess >= 0, guess < partitions.count, partitions[guess].index == index { return guess }
        return partitions.firstIndex { $0.index == index }
    }
}

package enum ControllerRequest: Sendable, Equatable {
    case leaderAndIsr(LeaderAndIsrRequest)
    case updateMetadata(UpdateMetadataRequest)
    case stopReplica(StopReplicaRequest)

    /// The registration of the broker that it is meant for.
    package var brokerEpoch: Int64 {
        switch self {
        case .leaderAndIsr(let request): request.brokerEpoch
        case .updateMetadata(let request): request.brokerEpoch
        case .stopReplica(let request): request.brokerEpoch
        }
    }
}

package enum ControllerResponse: Sendable, Equatable {
    case leaderAndIsr(LeaderAndIsrResponse)
    case updateMetadata(UpdateMetadataResponse)
    case stopReplica(StopReplicaResponse)

    package var error: ErrorCode {
        switch self {
        case .leaderAndIsr(let response): response.errorCode
        case .updateMetadata(let response): response.errorCode
        case .stopReplica(let response): response.errorCode
        }
    }
}

/// What a controller hears of.
package enum ControllerEvent: Sendable {
    /// It won the election, and this is what the tree says. `raisesOwnEpochs`: its own broker, the only one, was not
    /// stopped cleanly. `deletions`: the topics that somebody wants deleted.
    case elected(brokers: [LiveBroker], topics: [TopicFacts], deletions: [String], areAllowed: Bool, raisesOwnEpochs: Bool)
    /// The brokers that are registered now.
    case brokers([LiveBroker])
    /// The names of all topics that there are now, and what was read anew of some.
    case topics(names: [String], read: [TopicFacts])
    /// The topics that somebody wants deleted.
    case deletions([String], areAllowed: Bool)
    case answered(by: BrokerID, ControllerRequest, ControllerResponse)
    /// More requests waited for a broker than may, and were dropped: it is to be told everything.
    case fellBehind(BrokerID)
    /// The broker says that replicas of it went offline, or may be back: its answers tell which.
    case replicasFailed(BrokerID)
}

/// What is to be done about it, in this order. When a write fails, another controller has been elected, or the tree is
/// not as it was read:
/// nothing that follows is done, and the controller resigns.
package enum ControllerAction: Sendable, Equatable {
    package struct StateWrite: Sendable, Equatable {
        package var partition: TopicPartition
        package var state: PartitionStateNode
        /// Nil: the node is to be made.
        package var expectedVersion: Int32?
    }

    case write([StateWrite])
    case send(ControllerRequest, to: BrokerID)
    /// Removes all of its nodes, the wish to delete it last.
    case removeTopic(String, partitions: [Int32])
    /// The wish to delete it is removed: there is no such topic, or deletion is switched off.
    case forgetDeletion(String)
    case resign(reason: String)
    case warn(String)
}

/// The decisions of the cluster's controller. Pure: told what happened, it says what to write and whom to tell.
///
/// It decides as if its writes succeeded: a write carries the version that the node had, the node's next version is one
/// more, and a write that fails ends this controller. So it needs no answer of a write.
///
/// A partition: no state yet (`state` nil). Can become led when a replica is alive.
/// Led by an in-sync replica. Can become led by another when that one dies, without a leader when no in-sync one is alive.
/// Without a leader (leader -1). Can become led when an in-sync replica comes back, or any where the topic allows it.
package struct ControllerState: Sendable {
    enum DeletionPhase: Sendable, Equatable {
        /// Its broker is not there, or could not delete it. Can become stopping when that broker registers.
        case waiting
        /// Told to serve it no more. Can become deleting, waiting.
        case stopping
        /// Told to delete its files. Can become deleted, waiting.
        case deleting
        case deleted
    }

    struct DoomedReplica: Sendable {
        var partition: Int32
        var broker: BrokerID
        var phase: DeletionPhase
    }

    package let brokerID: BrokerID
    package let epoch: Int32
    /// By rising id.
    package internal(set) var brokers: [LiveBroker] = []
    package internal(set) var topics: [String: TopicFacts] = [:]
    /// Topics that are being deleted, with all of their replicas.
    var deletions: [String: [DoomedReplica]] = [:]
    /// Replicas that could not be served, by broker: their log directory failed, or had no room; until that broker serves them
    /// after all, or registers anew.
    var offlineReplicas: [BrokerID: Set<TopicPartition>] = [:]

    package init(brokerID: BrokerID, epoch: Int32) {
        self.brokerID = brokerID
        self.epoch = epoch
    }

    package mutating func handle(_ event: ControllerEvent) -> [ControllerAction] {
        var plan = ControllerPlan()
        switch event {
        case .elected(let live, let found, let doomed, let areAllowed, let raisesOwnEpochs):
            precondition(brokers.isEmpty && topics.isEmpty, "a controller is elected once in its epoch")
            brokers = live.sorted { $0.id < $1.id }
            for topic in found { topics[topic.name] = topic }
            // first, so that no log is opened only to be deleted
            delete(doomed, areAllowed: areAllowed, &plan)
            restoreAll(raisesOwnEpochs: raisesOwnEpochs, &plan)
        case .brokers(let live): brokersAre(live, &plan)
        case .topics(let names, let read): topicsAre(names, read, &plan)
        case .deletions(let names, let areAllowed): delete(names, areAllowed: areAllowed, &plan)
        case .answered(let broker, let request, let response): answered(broker, request, response, &plan)
        case .fellBehind(let id), .replicasFailed(let id): if isAlive(id) { tellEverything(id, &plan) }
        }
        return actions(of: plan)
    }

    // MARK: What is

    package func isAlive(_ id: BrokerID) -> Bool { broker(id) != nil }

    func broker(_ id: BrokerID) -> LiveBroker? { brokers.first { $0.id == id } }

    /// Whether the replica can serve: its broker is there and its log directory works.
    package func isOnline(_ broker: BrokerID, _ partition: TopicPartition) -> Bool {
        isAlive(broker) && offlineReplicas[broker]?.contains(partition) != true
    }

    func isBeingDeleted(_ topic: String) -> Bool { deletions[topic] != nil }

    var sortedNames: [String] { topics.keys.sorted() }

    package func facts(_ partition: TopicPartition) -> PartitionFacts? {
        guard let topic = topics[partition.topic], let place = topic.place(of: partition.partition) else { return nil }
        return topic.partitions[place]
    }

    /// Every partition of a topic that is not being deleted, by name and index.
    var servedPartitions: [TopicPartition] {
        sortedNames.flatMap { name in
            isBeingDeleted(name) ? [] : topics[name, default: TopicFacts(name: name, id: .zero, partitions: [])].partitions
                .map { TopicPartition(name, $0.index) }
        }
    }

    // MARK: Transitions of one partition

    mutating func change(_ id: TopicPartition, _ plan: inout ControllerPlan, to state: PartitionStateNode) {
        guard let place = topics[id.topic]?.place(of: id.partition) else {
            preconditionFailure("only a partition that there is changes")
        }
        plan.note(id, version: topics[id.topic]!.partitions[place].state == nil ? nil : topics[id.topic]!.partitions[place].version)
        topics[id.topic]!.partitions[place].state = state
    }

    /// Gives a partition its first leader: the first of its replicas that is alive; those alive are in sync.
    mutating func begin(_ id: TopicPartition, _ plan: inout ControllerPlan) {
        guard let facts = facts(id), facts.state == nil else { return }
        let online = facts.replicas.filter { isOnline($0, id) }
        guard let leader = online.first else {
            plan.warnings.append("partition \(id) has no leader yet: none of its brokers \(facts.replicas) is registered")
            return
        }
        let state = PartitionStateNode(controllerEpoch: epoch, leader: leader, leaderEpoch: 0, inSyncReplicas: online)
        change(id, &plan, to: state)
        plan.tell(id, online, isNew: true)
    }

    /// Elects a leader for one that has none that serves: the first of the replicas that is in sync and alive.
    mutating func elect(_ id: TopicPartition, _ plan: inout ControllerPlan) {
        guard let facts = facts(id), var state = facts.state else { return begin(id, &plan) }
        guard !isOnline(state.leader, id) else { return }
        let online = facts.replicas.filter { isOnline($0, id) }
        if let leader = online.first(where: state.inSyncReplicas.contains) {
            state.leader = leader
            state.inSyncReplicas = state.inSyncReplicas.filter { isOnline($0, id) }
        } else if topics[id.topic]?.allowsUncleanElection == true, let leader = online.first {
            plan.warnings.append(
                "unclean election: broker \(leader) leads \(id) without having been in sync; records it lacks are lost")
            state.leader = leader
            state.inSyncReplicas = [leader]
        } else {
            return
        }
        state.leaderEpoch += 1
        state.controllerEpoch = epoch
        change(id, &plan, to: state)
        plan.tell(id, online, isNew: false)
    }

    /// Takes a replica that cannot serve out of the in-sync set; the last one stays in it, for it has what was acknowledged.
    mutating func takeOffline(_ id: TopicPartition, _ broker: BrokerID, _ plan: inout ControllerPlan) {
        guard let facts = facts(id), var state = facts.state else { return }
        guard state.leader == broker || state.inSyncReplicas.contains(broker) else {
            plan.metadata.insert(id)
            return
        }
        if state.leader == broker { state.leader = -1 }
        let rest = state.inSyncReplicas.filter { $0 != broker }
        // nothing is written where nothing changes: its leader had gone before it
        guard state.leader != facts.state?.leader || !rest.isEmpty else {
            plan.metadata.insert(id)
            return
        }
        if !rest.isEmpty { state.inSyncReplicas = rest }
        state.leaderEpoch += 1
        state.controllerEpoch = epoch
        change(id, &plan, to: state)
        plan.tell(id, facts.replicas.filter { isOnline($0, id) }, isNew: false)
    }
}
