import MartletModel
import MartletWire

/// Topics that come, grow and go.
extension ControllerState {
    mutating func topicsAre(_ names: [String], _ read: [TopicFacts], _ plan: inout ControllerPlan) {
        let present = Set(names)
        for name in sortedNames where !present.contains(name) { forget(name, &plan) }
        for topic in read.sorted(by: { $0.name < $1.name }) where present.contains(topic.name) {
            // deleted and made again between two looks
            if let known = topics[topic.name], known.id != topic.id { forget(topic.name, &plan) }
            guard !isBeingDeleted(topic.name) else { continue }
            guard var known = topics[topic.name] else {
                topics[topic.name] = topic
                for partition in topic.partitions { elect(TopicPartition(topic.name, partition.index), &plan) }
                continue
            }
            known.allowsUncleanElection = topic.allowsUncleanElection
            let added = topic.partitions.filter { known.place(of: $0.index) == nil }
            known.partitions = (known.partitions + added).sorted { $0.index < $1.index }
            topics[topic.name] = known
            for partition in added { begin(TopicPartition(topic.name, partition.index), &plan) }
        }
    }

    /// Its node was removed by somebody else: whoever asks is told that it is gone. Its logs stay.
    private mutating func forget(_ name: String, _ plan: inout ControllerPlan) {
        guard let topic = topics.removeValue(forKey: name) else { return }
        if deletions.removeValue(forKey: name) == nil { plan.gone.append(topic) }
    }

    // MARK: Deletion

    mutating func delete(_ names: [String], areAllowed: Bool, _ plan: inout ControllerPlan) {
        for name in names.sorted() where !isBeingDeleted(name) {
            guard areAllowed, let topic = topics[name] else {
                plan.forgottenDeletions.append(name)
                continue
            }
            plan.gone.append(topic)
            var doomed: [DoomedReplica] = []
            for partition in topic.partitions {
                let id = TopicPartition(name, partition.index)
                if var state = partition.state {
                    state.leader = -1
                    state.leaderEpoch += 1
                    state.controllerEpoch = epoch
                    change(id, &plan, to: state)
                }
                for broker in partition.replicas {
                    doomed.append(DoomedReplica(partition: partition.index, broker: broker, phase: .waiting))
                }
            }
            deletions[name] = doomed
            for broker in brokers { stop(name, on: broker.id, &plan) }
            finishDeletion(name, &plan)
        }
    }

    /// Tells a broker to stop the doomed replicas that it has.
    mutating func stop(_ name: String, on broker: BrokerID, _ plan: inout ControllerPlan) {
        setPhases(of: name, { $0.broker == broker && $0.phase != .deleted }, to: .stopping) { replica in
            plan.stop(TopicPartition(name, replica.partition), broker, delete: false, epoch: ControllerPlan.epochOfDeletion)
        }
    }

    mutating func stopped(
        _ broker: BrokerID, _ request: StopReplicaRequest, _ response: StopReplicaResponse, _ plan: inout ControllerPlan
    ) {
        var errors: [TopicPartition: ErrorCode] = [:]
        for partition in response.partitionErrors {
            errors[TopicPartition(partition.topicName, partition.partitionIndex)] = partition.errorCode
        }
        for topic in request.topicStates where isBeingDeleted(topic.topicName) {
            for partition in topic.partitionStates {
                let id = TopicPartition(topic.topicName, partition.partitionIndex)
                let error = response.errorCode == .none ? errors[id] ?? .none : response.errorCode
                advance(id, on: broker, wasDeletion: partition.deletePartition, error, &plan)
            }
            finishDeletion(topic.topicName, &plan)
        }
    }

    private mutating func advance(
        _ id: TopicPartition, on broker: BrokerID, wasDeletion: Bool, _ error: ErrorCode, _ plan: inout ControllerPlan
    ) {
        let isMeant = { (replica: DoomedReplica) in
            replica.partition == id.partition && replica.broker == broker
                && replica.phase == (wasDeletion ? .deleting : .stopping)
        }
        guard error == .none else {
            plan.warnings.append("broker \(broker) could not delete its replica of \(id) (\(error)): tried again when it registers anew")
            return setPhases(of: id.topic, isMeant, to: .waiting)
        }
        setPhases(of: id.topic, isMeant, to: wasDeletion ? .deleted : .deleting) { _ in
            if !wasDeletion { plan.stop(id, broker, delete: true, epoch: ControllerPlan.epochOfDeletion) }
        }
    }

    mutating func setPhases(
        of name: String, _ isMeant: (DoomedReplica) -> Bool, to phase: DeletionPhase, then: (DoomedReplica) -> Void = { _ in }
    ) {
        guard var doomed = deletions[name] else { return }
        for index in doomed.indices where isMeant(doomed[index]) {
            doomed[index].phase = phase
            then(doomed[index])
        }
        deletions[name] = doomed
    }

    private mutating func finishDeletion(_ name: String, _ plan: inout ControllerPlan) {
        guard let doomed = deletions[name], doomed.allSatisfy({ $0.phase == .deleted }) else { return }
        deletions[name] = nil
        guard let topic = topics.removeValue(forKey: name) else { return }
        for broker in brokers {
            for partition in topic.partitions {
                offlineReplicas[broker.id]?.remove(TopicPartition(name, partition.index))
            }
        }
        plan.removed.append(topic)
    }
}
