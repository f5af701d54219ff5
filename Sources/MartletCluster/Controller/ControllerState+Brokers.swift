import MartletModel
import MartletWire

/// Elections, and brokers that come and go.
extension ControllerState {
    /// Kafka first tells everybody how everything was and then what changes; here the changes are decided first, and
    /// told at once. A partition whose leader died with the old controller rises by two epochs all the same: one for
    /// losing its leader, one for the new one.
    mutating func restoreAll(raisesOwnEpochs: Bool, _ plan: inout ControllerPlan) {
        plan.informsAll = true
        for id in servedPartitions { restore(id, raisesOwnEpochs: raisesOwnEpochs, &plan) }
    }

    private mutating func restore(_ id: TopicPartition, raisesOwnEpochs: Bool, _ plan: inout ControllerPlan) {
        guard let facts = facts(id), let was = facts.state else { return begin(id, &plan) }
        plan.tell(id, facts.replicas.filter { isOnline($0, id) }, isNew: false)
        var absent = was.inSyncReplicas.filter { !isOnline($0, id) }
        if was.leader >= 0, !isOnline(was.leader, id), !absent.contains(was.leader) { absent.append(was.leader) }
        for broker in absent { takeOffline(id, broker, &plan) }
        elect(id, &plan)
        // What it acknowledged before it was in its own disk's hands may be gone, and its offsets will be given again:
        // a later epoch tells clients and followers that the log forked. Where other brokers live they have elected,
        // and so raised it, meanwhile.
        guard raisesOwnEpochs, let now = self.facts(id)?.state, now.leader == brokerID, now.leaderEpoch == was.leaderEpoch,
            brokers.map(\.id) == [brokerID]
        else { return }
        var state = now
        state.leaderEpoch += 1
        state.controllerEpoch = epoch
        change(id, &plan, to: state)
    }

    mutating func brokersAre(_ live: [LiveBroker], _ plan: inout ControllerPlan) {
        let next = live.sorted { $0.id < $1.id }
        let died = brokers.filter { old in !next.contains { $0.id == old.id && $0.epoch == old.epoch } }.map(\.id)
        let came = next.filter { new in !brokers.contains { $0.id == new.id && $0.epoch == new.epoch } }.map(\.id)
        let arePlaced = brokers != next
        // those that died, and perhaps came back since, are first seen as gone
        brokers = next.filter { !came.contains($0.id) }
        for id in died { offlineReplicas[id] = nil }
        if !died.isEmpty { lost(died, &plan) }
        brokers = next
        if !came.isEmpty { gained(came, &plan) }
        if arePlaced { plan.informsAll = true }
    }

    private mutating func lost(_ died: [BrokerID], _ plan: inout ControllerPlan) {
        let served = servedPartitions
        for id in served { if let leader = facts(id)?.state?.leader, died.contains(leader) { elect(id, &plan) } }
        for id in served {
            guard let replicas = facts(id)?.replicas else { continue }
            for broker in died where replicas.contains(broker) { takeOffline(id, broker, &plan) }
        }
        for name in deletions.keys.sorted() {
            setPhases(of: name, { died.contains($0.broker) && $0.phase != .deleted }, to: .waiting)
        }
    }

    private mutating func gained(_ came: [BrokerID], _ plan: inout ControllerPlan) {
        for id in servedPartitions { elect(id, &plan) }
        for id in came { tellEverything(id, &plan) }
    }

    /// All that a broker has to know: who is there, who leads what, which replicas it has, which it is to delete. Also of
    /// replicas that are offline: its answer says whether they still are.
    mutating func tellEverything(_ id: BrokerID, _ plan: inout ControllerPlan) {
        plan.informsCompletely.insert(id)
        for partition in servedPartitions {
            guard let facts = facts(partition), facts.state != nil, facts.replicas.contains(id) else { continue }
            plan.tell(partition, [id], isNew: false)
        }
        for name in deletions.keys.sorted() { stop(name, on: id, &plan) }
    }

    // MARK: Answers

    mutating func answered(
        _ broker: BrokerID, _ request: ControllerRequest, _ response: ControllerResponse, _ plan: inout ControllerPlan
    ) {
        // an answer of a broker that has gone, or registered anew, meanwhile
        guard self.broker(broker)?.epoch == request.brokerEpoch else { return }
        switch response.error {
        case .none, .kafkaStorageError: break
        case .staleControllerEpoch:
            plan.resignation = "broker \(broker) knows a controller of a later epoch"
            return
        // it registered anew, and the news of that is on its way
        case .staleBrokerEpoch: return
        default:
            plan.warnings.append("broker \(broker) refused a request of the controller: \(response.error)")
            return
        }
        switch (request, response) {
        case (.leaderAndIsr(let request), .leaderAndIsr(let response)): took(broker, request, response, &plan)
        case (.stopReplica(let request), .stopReplica(let response)): stopped(broker, request, response, &plan)
        case (.updateMetadata, .updateMetadata): break
        default: preconditionFailure("a channel answers a request with a response of its kind")
        }
    }

    private mutating func took(
        _ broker: BrokerID, _ request: LeaderAndIsrRequest, _ response: LeaderAndIsrResponse, _ plan: inout ControllerPlan
    ) {
        var failed: [TopicPartition] = [], back: [TopicPartition] = []
        for topic in response.topics {
            guard let name = request.topicStates.first(where: { $0.topicID == topic.topicID })?.topicName else { continue }
            for partition in topic.partitionErrors {
                let id = TopicPartition(name, partition.partitionIndex)
                switch partition.errorCode {
                // it has that epoch already: the same request, sent again
                case .none, .staleControllerEpoch: if offlineReplicas[broker]?.remove(id) != nil { back.append(id) }
                case .kafkaStorageError, .inconsistentTopicID: failed.append(id)
                default: plan.warnings.append("broker \(broker) did not take \(id): \(partition.errorCode)")
                }
            }
        }
        for id in back.sorted() where !isBeingDeleted(id.topic) && facts(id) != nil {
            plan.metadata.insert(id)
            elect(id, &plan)
        }
        let known = offlineReplicas[broker, default: []]
        let news = failed.filter { !known.contains($0) && !isBeingDeleted($0.topic) && facts($0) != nil }.sorted()
        guard !news.isEmpty else { return }
        offlineReplicas[broker, default: []].formUnion(news)
        for id in news {
            plan.warnings.append("the replica of \(id) on broker \(broker) is offline")
            elect(id, &plan)
            takeOffline(id, broker, &plan)
            plan.stop(id, broker, delete: false, epoch: facts(id)?.state?.leaderEpoch ?? -1)
        }
    }
}
