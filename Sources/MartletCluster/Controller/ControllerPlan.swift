import MartletModel
import MartletWire

/// What one event leads to, gathered: a partition that changes twice is written and told once.
struct ControllerPlan {
    /// Leader epoch of a StopReplica for a topic that goes: no epoch is checked.
    static let epochOfDeletion: LeaderEpoch = -2
    /// Leader of a partition of a topic that goes, in UpdateMetadata.
    static let leaderOfDeletion: BrokerID = -2

    struct Stop {
        var partition: TopicPartition
        var broker: BrokerID
        var delete: Bool
        var epoch: LeaderEpoch
    }

    /// The version of each changed partition's node before; nil where it has none yet.
    private(set) var written: [TopicPartition: Int32?] = [:]
    /// Whom to send which partitions, and whether they are new there.
    private(set) var leaderAndIsr: [BrokerID: [TopicPartition: Bool]] = [:]
    private(set) var stops: [Stop] = []
    /// Partitions that everybody is told of.
    var metadata: Set<TopicPartition> = []
    /// Everybody is told who is there, even where no partition changed.
    var informsAll = false
    /// These are told of every partition.
    var informsCompletely: Set<BrokerID> = []
    /// Topics that everybody is to forget.
    var gone: [TopicFacts] = []
    /// Topics whose nodes are to be removed.
    var removed: [TopicFacts] = []
    var forgottenDeletions: [String] = []
    var warnings: [String] = []
    var resignation: String?

    mutating func note(_ id: TopicPartition, version: Int32?) {
        if written[id] == nil { written[id] = .some(version) }
        metadata.insert(id)
    }

    mutating func tell(_ id: TopicPartition, _ brokers: [BrokerID], isNew: Bool) {
        for broker in brokers { leaderAndIsr[broker, default: [:]][id, default: false] = isNew || leaderAndIsr[broker]?[id] == true }
        metadata.insert(id)
    }

    mutating func stop(_ id: TopicPartition, _ broker: BrokerID, delete: Bool, epoch: LeaderEpoch) {
        stops.append(Stop(partition: id, broker: broker, delete: delete, epoch: epoch))
    }
}

/// From what was gathered to orders: writes, then LeaderAndIsr, then UpdateMetadata, then StopReplica, then what is removed.
extension ControllerState {
    mutating func actions(of plan: ControllerPlan) -> [ControllerAction] {
        var actions: [ControllerAction] = plan.warnings.map { .warn($0) }
        if let reason = plan.resignation { return actions + [.resign(reason: reason)] }
        let writes = takeWrites(plan)
        if !writes.isEmpty { actions.append(.write(writes)) }
        for broker in brokers {
            guard let partitions = plan.leaderAndIsr[broker.id] else { continue }
            let request = leaderAndIsr(to: broker, partitions)
            if !request.topicStates.isEmpty { actions.append(.send(.leaderAndIsr(request), to: broker.id)) }
        }
        let isTold = plan.informsAll || !plan.metadata.isEmpty || !plan.gone.isEmpty
        // while a failover goes on everybody is told everything anyway
        let changed = updateMetadata(plan.metadata.sorted(), plan.gone)
        var everything: UpdateMetadataRequest?
        for broker in brokers {
            var request = changed
            if plan.informsCompletely.contains(broker.id) {
                if everything == nil { everything = updateMetadata(servedPartitions, plan.gone) }
                request = everything ?? changed
            } else if !isTold {
                continue
            }
            request.brokerEpoch = broker.epoch
            actions.append(.send(.updateMetadata(request), to: broker.id))
        }
        for broker in brokers {
            if let request = stopReplica(to: broker, plan.stops) { actions.append(.send(.stopReplica(request), to: broker.id)) }
        }
        actions += plan.removed.map { .removeTopic($0.name, partitions: $0.partitions.map(\.index)) }
        actions += plan.forgottenDeletions.map { .forgetDeletion($0) }
        return actions
    }

    private mutating func takeWrites(_ plan: ControllerPlan) -> [ControllerAction.StateWrite] {
        var writes: [ControllerAction.StateWrite] = []
        for id in plan.written.keys.sorted() {
            guard let version = plan.written[id], let place = topics[id.topic]?.place(of: id.partition),
                let state = topics[id.topic]?.partitions[place].state
            else { continue }
            writes.append(.init(partition: id, state: state, expectedVersion: version))
            topics[id.topic]?.partitions[place].version = version.map { $0 + 1 } ?? 0
        }
        return writes
    }

    private func leaderAndIsr(to broker: LiveBroker, _ partitions: [TopicPartition: Bool]) -> LeaderAndIsrRequest {
        var request = LeaderAndIsrRequest()
        request.controllerID = brokerID
        request.controllerEpoch = epoch
        request.brokerEpoch = broker.epoch
        var leaders: Set<BrokerID> = []
        for id in partitions.keys.sorted() {
            guard !isBeingDeleted(id.topic), let topic = topics[id.topic], let facts = facts(id), let state = facts.state
            else { continue }
            var told = LeaderAndIsrRequest.LeaderAndIsrPartitionState()
            told.partitionIndex = id.partition
            told.controllerEpoch = state.controllerEpoch
            told.leader = state.leader
            told.leaderEpoch = state.leaderEpoch
            told.isr = state.inSyncReplicas
            told.partitionEpoch = facts.version
            told.replicas = facts.replicas
            told.addingReplicas = facts.adding
            told.removingReplicas = facts.removing
            told.isNew = partitions[id] == true
            told.leaderRecoveryState = state.isRecovering ? 1 : 0
            if request.topicStates.last?.topicName != id.topic {
                var entry = LeaderAndIsrRequest.LeaderAndIsrTopicState()
                entry.topicName = id.topic
                entry.topicID = topic.id
                request.topicStates.append(entry)
            }
            request.topicStates[request.topicStates.count - 1].partitionStates.append(told)
            leaders.insert(state.leader)
        }
        request.liveLeaders = brokers.filter { leaders.contains($0.id) }.map { live in
            var leader = LeaderAndIsrRequest.LeaderAndIsrLiveLeader()
            leader.brokerID = live.id
            leader.hostName = live.endpoints.first?.host ?? ""
            leader.port = live.endpoints.first?.port ?? -1
            return leader
        }
        return request
    }

    private func updateMetadata(_ partitions: [TopicPartition], _ gone: [TopicFacts]) -> UpdateMetadataRequest {
        var request = UpdateMetadataRequest()
        request.controllerID = brokerID
        request.controllerEpoch = epoch
        for topic in gone {
            var entry = UpdateMetadataRequest.UpdateMetadataTopicState()
            entry.topicName = topic.name
            entry.topicID = topic.id
            entry.partitionStates = topic.partitions.map { facts in
                var told = UpdateMetadataRequest.UpdateMetadataPartitionState()
                told.partitionIndex = facts.index
                told.controllerEpoch = epoch
                told.leader = ControllerPlan.leaderOfDeletion
                told.replicas = facts.replicas
                return told
            }
            request.topicStates.append(entry)
        }
        let goneCount = request.topicStates.count
        for id in partitions where !isBeingDeleted(id.topic) {
            guard let topic = topics[id.topic], let facts = facts(id), let state = facts.state else { continue }
            var told = UpdateMetadataRequest.UpdateMetadataPartitionState()
            told.partitionIndex = id.partition
            told.controllerEpoch = state.controllerEpoch
            told.leader = state.leader
            told.leaderEpoch = state.leaderEpoch
            told.isr = state.inSyncReplicas
            told.zkVersion = facts.version
            told.replicas = facts.replicas
            told.offlineReplicas = facts.replicas.filter { !isOnline($0, id) }
            if request.topicStates.count == goneCount || request.topicStates.last?.topicName != id.topic {
                var entry = UpdateMetadataRequest.UpdateMetadataTopicState()
                entry.topicName = id.topic
                entry.topicID = topic.id
                request.topicStates.append(entry)
            }
            request.topicStates[request.topicStates.count - 1].partitionStates.append(told)
        }
        request.liveBrokers = brokers.map(described)
        return request
    }

    private func described(_ live: LiveBroker) -> UpdateMetadataRequest.UpdateMetadataBroker {
        var broker = UpdateMetadataRequest.UpdateMetadataBroker()
        broker.id = live.id
        broker.rack = live.rack
        broker.endpoints = live.endpoints.map { endpoint in
            var told = UpdateMetadataRequest.UpdateMetadataEndpoint()
            told.host = endpoint.host
            told.port = endpoint.port
            told.listener = endpoint.listener
            told.securityProtocol = endpoint.securityProtocol.wireValue
            return told
        }
        return broker
    }

    private func stopReplica(to broker: LiveBroker, _ stops: [ControllerPlan.Stop]) -> StopReplicaRequest? {
        var request = StopReplicaRequest()
        request.controllerID = brokerID
        request.controllerEpoch = epoch
        request.brokerEpoch = broker.epoch
        for stop in stops.sorted(by: { $0.partition < $1.partition }) where stop.broker == broker.id {
            if request.topicStates.last?.topicName != stop.partition.topic {
                var entry = StopReplicaRequest.StopReplicaTopicState()
                entry.topicName = stop.partition.topic
                request.topicStates.append(entry)
            }
            var told = StopReplicaRequest.StopReplicaPartitionState()
            told.partitionIndex = stop.partition.partition
            told.leaderEpoch = stop.epoch
            told.deletePartition = stop.delete
            request.topicStates[request.topicStates.count - 1].partitionStates.append(told)
        }
        return request.topicStates.isEmpty ? nil : request
    }
}

extension SecurityProtocol {
    var wireValue: Int16 {
        switch self {
        case .plaintext: 0
        case .ssl: 1
        case .saslPlaintext: 2
        case .saslSSL: 3
        }
    }
}
