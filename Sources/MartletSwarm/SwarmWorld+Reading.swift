import MartletBasics
import MartletChecker
import MartletModel
import MartletReactor
import MartletSimulation

/// What is read when nobody writes any more.
extension SwarmWorld {
    /// How often the last reader tries to read a topic to its end.
    private static let readAttemptsLimit = 40

    /// A client that was not there before reads all topics from their beginning, and all that is committed. Where there were
    /// transactions another reads what readers of what is committed are given.
    func readEverything(_ name: String) {
        read(name, isCommitted: false)
        if plan.workload.contains(.transactions) { read(name + "-committed", isCommitted: true) }
    }

    private func read(_ name: String, isCommitted: Bool) {
        let client = stage.client(name, on: clients[1])
        let random = simulated.makeRandom(name)
        let look: @Sendable () async throws -> Void = { [self] in
            defer { client.close() }
            try await client.connect(to: stage.broker)
            if isCommitted {
                try await readTopics(client, isCommitted: true, random)
                for id in transactors.ids { try await readCommit(of: id, client) }
            } else {
                try await lookAtTopics(client)
                try await readTopics(client, isCommitted: false, random)
                for group in groups { try await members.readAll(of: group, by: client) }
            }
        }
        do {
            let hasEnded = try clients[1].run(atMost: Self.patience, look)
            if !hasEnded { record.broken("\(name) waits for answers that never come") }
        } catch {
            record.broken("\(name): \(error)")
        }
    }

    private func lookAtTopics(_ client: SimulatedClient) async throws(ClientFault) {
        let asked = record.now
        let found = try await client.metadata()
        var counts: [String: Int] = [:]
        for topic in found.topics { counts[topic.name ?? ""] = topic.partitions.count }
        record.note(.topics(asked: asked, counts))
    }

    private func readTopics(
        _ client: SimulatedClient, isCommitted: Bool, _ random: SeededRandom
    ) async throws(ClientFault) {
        for index in stage.topics.indices {
            var manner = SwarmConsumer.Manner()
            manner.isCommitted = isCommitted
            let last = SwarmConsumer(stage, client, topic: index, manner: manner, random: random)
            var attempts = 0
            while try await !last.readToTheEnd() {
                attempts += 1
                guard attempts < Self.readAttemptsLimit else {
                    return record.broken("\(client.name): \(stage.topics[index].name) cannot be read")
                }
                await client.loop.sleep(for: .milliseconds(500))
            }
        }
    }

    /// What the transactions of one producer have committed.
    private func readCommit(of id: SwarmTransactors.ID, _ client: SimulatedClient) async throws(ClientFault) {
        let place = transactors.place
        for _ in 0..<Self.readAttemptsLimit {
            let asked = record.now
            if let found = try await client.stableOffset(id.group, place.topic, Int32(place.partition)) {
                let offset = found < 0 ? nil : found
                return record.note(.committed(group: id.group, place: place, asked: asked, offset: offset))
            }
            await client.loop.sleep(for: .milliseconds(200))
        }
        record.broken("\(client.name): the offset of \(id.group) may still be changed by an open transaction")
    }
}
