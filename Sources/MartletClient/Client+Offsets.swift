import MartletBasics
package import MartletModel
import MartletWire

/// A place in a log that ListOffsets can find.
package enum OffsetSpec: Sendable, Equatable, Hashable {
    case earliest
    case latest
    /// The first record of this time or later, in milliseconds since 1970.
    case time(Int64)

    var timestamp: Int64 {
        switch self {
        case .earliest: -2
        case .latest: -1
        case .time(let milliseconds): max(0, milliseconds)
        }
    }
}

/// What ListOffsets found for a partition.
package struct FoundOffset: Sendable, Equatable {
    package var partition: TopicPartition
    /// Nil where no record is as late as the time that was asked for.
    package var offset: Offset?
    package var error: ClientError?
}

/// Offsets of partitions, each asked of its leader.
extension Client {
    /// Partitions whose leader another broker has become meanwhile are asked again. The results are in the order of
    /// what was wanted.
    package func offsets(
        _ spec: OffsetSpec, of partitions: [TopicPartition], isCommitted: Bool = false
    ) async throws(ClientError) -> [FoundOffset] {
        try await offsets(partitions.map { ($0, spec) }, isCommitted: isCommitted)
    }

    package func offsets(
        _ wanted: [(partition: TopicPartition, spec: OffsetSpec)], isCommitted: Bool = false
    ) async throws(ClientError) -> [FoundOffset] {
        var found = [FoundOffset?](repeating: nil, count: wanted.count)
        var patience = Patience(self)
        var areLeadersKnown = wanted.allSatisfy { cluster.leader(of: $0.partition) != nil }
        while true {
            if !areLeadersKnown { try await refresh(topics: wanted.map(\.partition).topicNames) }
            let open = wanted.indices.filter { found[$0] == nil }
            let groups = grouped(open) { wanted[$0].partition }
            for index in groups.leaderless { found[index] = missing(wanted[index].partition) }
            let answers = await concurrently(groups.byLeader) { [self] group in
                await offsets(group.indices.map { wanted[$0] }, from: group.leader, isCommitted: isCommitted)
            }
            for (group, answer) in zip(groups.byLeader, answers) {
                for (index, one) in zip(group.indices, answer) { found[index] = one }
            }
            for index in open where found[index]?.error.map(Self.callsForAnotherTry) == true && patience.isLeft {
                found[index] = nil
            }
            if found.allSatisfy({ $0 != nil }) { return found.compactMap { $0 } }
            areLeadersKnown = false
            await patience.wait()
        }
    }

    static func callsForAnotherTry(_ error: ClientError) -> Bool {
        error.code?.callsForAnotherTry ?? error.concernsConnection
    }

    private func missing(_ partition: TopicPartition) -> FoundOffset {
        FoundOffset(partition: partition, error: leaderFault(of: partition))
    }

    /// Why there is nobody to ask about a partition.
    func leaderFault(of partition: TopicPartition) -> ClientError {
        guard let topic = cluster.topic(partition.topic), topic.error == .none else {
            let code = cluster.topic(partition.topic)?.error ?? .unknownTopicOrPartition
            return .refused(what: "topic \(partition.topic)", code, message: nil)
        }
        guard let known = cluster.leader(of: partition) else {
            return .refused(what: "partition \(partition)", .unknownTopicOrPartition, message: nil)
        }
        let code = known.error == .none ? ErrorCode.leaderNotAvailable : known.error
        return .refused(what: "partition \(partition)", code, message: nil)
    }

    /// Things that one broker is to be asked for.
    struct LeaderGroup: Sendable {
        var leader: BrokerID
        var indices: [Int]
    }

    /// Which broker is to be asked for which of several things, by rising broker.
    func grouped(
        _ indices: [Int], by partition: (Int) -> TopicPartition
    ) -> (byLeader: [LeaderGroup], leaderless: [Int]) {
        var byLeader: [LeaderGroup] = []
        var leaderless: [Int] = []
        for index in indices {
            guard let known = cluster.leader(of: partition(index)), known.leader >= 0 else {
                leaderless.append(index)
                continue
            }
            if let place = byLeader.firstIndex(where: { $0.leader == known.leader }) {
                byLeader[place].indices.append(index)
            } else {
                byLeader.append(LeaderGroup(leader: known.leader, indices: [index]))
            }
        }
        return (byLeader.sorted { $0.leader < $1.leader }, leaderless)
    }

    /// One request to one leader; every partition has a result, in their order.
    private func offsets(
        _ wanted: [(partition: TopicPartition, spec: OffsetSpec)], from leader: BrokerID, isCommitted: Bool
    ) async -> [FoundOffset] {
        let names = wanted.map(\.partition).topicNames
        do throws(ClientError) {
            let answer = try await ask(.broker(leader), once: true) { (version) throws(ClientError) -> ListOffsetsRequest in
                var request = ListOffsetsRequest()
                request.replicaID = -1
                if version >= 2 { request.isolationLevel = isCommitted ? 1 : 0 }
                request.topics = names.map { name in
                    var topic = ListOffsetsRequest.ListOffsetsTopic()
                    topic.name = name
                    topic.partitions = wanted.filter { $0.partition.topic == name }.map { one in
                        var part = ListOffsetsRequest.ListOffsetsPartition()
                        part.partitionIndex = one.partition.partition
                        part.timestamp = one.spec.timestamp
                        return part
                    }
                    return topic
                }
                return request
            }
            return wanted.map { one in Self.found(one.partition, in: answer.message, answer.broker) }
        } catch {
            return wanted.map { FoundOffset(partition: $0.partition, error: error) }
        }
    }

    private static func found(
        _ partition: TopicPartition, in response: ListOffsetsResponse, _ broker: String
    ) -> FoundOffset {
        let topic = response.topics.first { $0.name == partition.topic }
        guard let part = topic?.partitions.first(where: { $0.partitionIndex == partition.partition }) else {
            let reason = "it says nothing of \(partition)"
            return FoundOffset(
                partition: partition, error: .malformedAnswer(what: "ListOffsets", broker: broker, reason: reason))
        }
        guard part.errorCode == .none else {
            return FoundOffset(
                partition: partition, error: .refused(what: "offsets of \(partition)", part.errorCode, message: nil))
        }
        return FoundOffset(partition: partition, offset: part.offset < 0 ? nil : part.offset)
    }
}

extension Sequence<TopicPartition> {
    /// The names of the topics, each once, sorted.
    var topicNames: [String] { Set(map(\.topic)).sorted() }
}
