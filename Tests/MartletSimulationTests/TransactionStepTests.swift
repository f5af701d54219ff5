import MartletBasics
import MartletModel
import MartletReactor
import MartletSimulation
import MartletSwarm
import MartletWire
import Testing

/// One transaction (an id, two partitions, an offset of a group, an end, its markers), and a broker that is ended at every
/// single step of it in turn: before each call that changes its disk, or at each call of any seam.
private final class InterruptedTransaction: @unchecked Sendable {
    enum Crash: String, CaseIterable { case powerCut, kill }

    struct Found: Equatable {
        var values: [[String]]
        var offset: Offset
    }

    private static let port: UInt16 = 9092
    private static let topic = "out"
    private static let group = "g"
    private static let id = "x"
    private static let patience = Interval.seconds(60)
    private static let pause = Interval.milliseconds(10)
    static let whole = Found(values: [["a-0"], ["a-1"]], offset: 7)
    static let nothing = Found(values: [[], []], offset: 0)

    private let simulated: SimulatedWorld
    private var host: SimulatedHost
    private let clients: SimulatedHost
    private let config: BrokerConfig
    private var life: BrokerLife!
    private let versions: TransactionVersions
    private let commits: Bool
    private var hasAskedForEnd = false
    private var isEnded = false

    init(seed: UInt64, _ versions: TransactionVersions, commits: Bool) throws {
        self.versions = versions
        self.commits = commits
        simulated = SimulatedWorld(seed: seed)
        host = simulated.makeHost("broker")
        clients = simulated.makeHost("clients")
        simulated.network.powerCutSilence = .milliseconds(50)
        config = try BrokerConfig.resolve(overrides: [
            ("listeners", "PLAINTEXT://\(host.address):\(Self.port)"), ("log.dirs", "/data/log"),
            ("martlet.keeper.dir", "/data/keeper"), ("offsets.topic.num.partitions", "1"),
            ("offsets.topic.replication.factor", "1"), ("transaction.state.log.num.partitions", "1"),
        ])
    }

    deinit { simulated.end() }

    struct Outcome {
        /// By who takes the id over.
        var found: Found
        /// False where the transaction came to its end before the step.
        var hasCrashed: Bool
        var wasAskedForEnd: Bool
        var wasToldOfEnd: Bool
    }

    /// What is found afterwards; and whether it is found again after another transaction and another power cut.
    func run(_ crash: Crash, after step: Int) throws -> Outcome {
        try start()
        try tell { client in try await self.prepare(client) }
        switch crash {
        case .powerCut: host.powerCut(afterDiskOperations: step)
        case .kill: host.kill(afterSeamCalls: step)
        }
        try tell(mayDie: true) { client in try await self.transact(client, "a", offset: 7) }
        host.forgetCountdowns()
        var outcome = Outcome(
            found: Self.nothing, hasCrashed: !host.isAlive, wasAskedForEnd: hasAskedForEnd, wasToldOfEnd: isEnded)
        if outcome.hasCrashed { try restart() }
        let found = Box(Self.nothing)
        try tell { client in
            found.value = try await self.read(client, takesOver: true)
            // nothing is in the way of the next one
            try await self.transact(client, "b", offset: found.value.offset + 1)
        }
        host.powerCut()
        try restart()
        let again = Box(Self.nothing)
        try tell { client in again.value = try await self.read(client, takesOver: false) }
        var expected = found.value
        if commits {
            for partition in expected.values.indices { expected.values[partition].append("b-\(partition)") }
            expected.offset += 1
        }
        #expect(again.value == expected)
        outcome.found = found.value
        return outcome
    }

    // MARK: The broker

    private func start() throws {
        life = BrokerLife(simulated, host, config)
        guard case .serves = life.start() else { throw Refused("the broker did not start: \(life.lastWords ?? "")") }
    }

    private func restart() throws {
        host = host.restart()
        try start()
    }

    private struct Refused: Error, CustomStringConvertible {
        let description: String
        init(_ description: String) { self.description = description }
    }

    // MARK: Clients

    /// Has a client of its own do something, to its end or the broker's.
    private func tell(mayDie: Bool = false, _ body: @escaping (SimulatedClient) async throws -> Void) throws {
        let outcome = Box<(any Error)??>(nil)
        let client = SimulatedClient("client", on: clients)
        let address = SocketAddress(host: host.address, port: Self.port)
        nonisolated(unsafe) let body = body
        clients.loops[0].spawn {
            do {
                try await client.connect(to: address)
                try await body(client)
                outcome.value = .some(nil)
            } catch {
                outcome.value = .some(error)
            }
            client.close()
        }
        guard simulated.run(atMost: Self.patience, until: { outcome.value != nil }) else {
            throw Refused("a client waits for something that never comes")
        }
        if let error = outcome.value!, !mayDie || host.isAlive { throw error }
    }

    /// Asks until it is done; a transaction, its partitions and its group may have to be waited for.
    private func patiently(_ client: SimulatedClient, _ ask: () async throws(ClientFault) -> ErrorCode) async throws {
        for _ in 0..<1_000 {
            let error = try await ask()
            switch error {
            case .none, .topicAlreadyExists: return
            case .concurrentTransactions, .coordinatorLoadInProgress, .coordinatorNotAvailable, .notCoordinator,
                .notEnoughReplicas, .unknownTopicOrPartition, .notLeaderOrFollower:
                await client.loop.sleep(for: Self.pause)
            default: throw Refused("\(error)")
            }
        }
        throw Refused("asked too often")
    }

    private func prepare(_ client: SimulatedClient) async throws {
        try await patiently(client) { () async throws(ClientFault) in
            try await client.createTopic(Self.topic, partitions: 2).errorCode
        }
        try await findCoordinators(client)
        try await patiently(client) { () async throws(ClientFault) in
            try await client.initialize("another", timeoutMs: 60_000, self.versions).error
        }
    }

    private func findCoordinators(_ client: SimulatedClient) async throws {
        for (key, kind) in [(Self.id, 1), (Self.group, 0)] as [(String, Int8)] {
            try await patiently(client) { () async throws(ClientFault) in
                try await client.findCoordinator(of: key, kind: kind)
            }
        }
    }

    private func initialize(_ client: SimulatedClient) async throws -> (id: ProducerID, epoch: ProducerEpoch) {
        var producer: (id: ProducerID, epoch: ProducerEpoch) = (-1, -1)
        try await patiently(client) { () async throws(ClientFault) in
            let answer = try await client.initialize(Self.id, timeoutMs: 60_000, self.versions)
            producer = (answer.id, answer.epoch)
            return answer.error
        }
        return producer
    }

    private func transact(_ client: SimulatedClient, _ name: String, offset: Offset) async throws {
        let producer = try await initialize(client)
        if versions.addsPartitions {
            try await patiently(client) { () async throws(ClientFault) in
                try await client.add([0, 1], of: Self.topic, to: Self.id, producer)
            }
        }
        for partition in [0, 1] as [Int32] {
            let batch = Self.batch("\(name)-\(partition)", producer)
            try await patiently(client) { () async throws(ClientFault) in
                try await client.produce(batch, to: Self.topic, partition, in: Self.id, self.versions).error
            }
        }
        if versions.addsPartitions {
            try await patiently(client) { () async throws(ClientFault) in
                try await client.addOffsets(of: Self.group, to: Self.id, producer)
            }
        }
        try await patiently(client) { () async throws(ClientFault) in
            try await client.commit(offset, of: Self.topic, 0, in: Self.group, Self.id, producer, self.versions)
        }
        hasAskedForEnd = true
        try await patiently(client) { () async throws(ClientFault) in
            try await client.end(Self.id, producer, commits: self.commits, self.versions).error
        }
        isEnded = true
        // the markers are steps, too
        _ = try await read(client, takesOver: false)
    }

    private static func batch(_ value: String, _ producer: (id: ProducerID, epoch: ProducerEpoch)) -> [UInt8] {
        var builder = BatchBuilder(
            BatchIdentity(producerID: producer.id, epoch: producer.epoch, baseSequence: 0, isTransactional: true))
        builder.append(timestamp: 1_700_000_000_000, key: nil, value: Array(value.utf8))
        var bytes = ByteBuffer()
        builder.finish(into: &bytes, contexts: CodecContexts())
        return bytes.array
    }

    /// All that is committed, once nothing is open any more.
    private func read(_ client: SimulatedClient, takesOver: Bool) async throws -> Found {
        try await findCoordinators(client)
        if takesOver { _ = try await initialize(client) }
        var found = Self.nothing
        for partition in found.values.indices {
            var offset: Offset = 0
            while true {
                let fetched = try await client.fetchCommitted(Self.topic, Int32(partition), from: offset)
                for batch in fetched.batches {
                    found.values[partition] += batch.values.map { String(decoding: $0, as: UTF8.self) }
                }
                if fetched.error == .none {
                    offset = fetched.nextOffset
                    if offset >= fetched.highWatermark, fetched.lastStableOffset == fetched.highWatermark { break }
                }
                await client.loop.sleep(for: Self.pause)
            }
        }
        while true {
            if let offset = try await client.stableOffset(Self.group, Self.topic, 0) {
                found.offset = max(offset, 0)
                return found
            }
            await client.loop.sleep(for: Self.pause)
        }
    }
}

@Suite struct ATransactionThatACrashInterrupts {
    /// Both protocols, both ends, both kinds of crash.
    @Test(arguments: 0..<8) func isWholeOrNotThereWhicheverStepItWas(variant: Int) throws {
        let versions = TransactionVersions.all[variant & 1]
        let commits = variant & 2 == 0
        let crash: InterruptedTransaction.Crash = variant & 4 == 0 ? .powerCut : .kill
        var step = 0
        var interrupted = 0
        var wholeCount = 0
        while true {
            let world = try InterruptedTransaction(seed: UInt64(1 + step), versions, commits: commits)
            let outcome = try world.run(crash, after: step)
            let isWhole = outcome.found == InterruptedTransaction.whole
            let isNothing = outcome.found == InterruptedTransaction.nothing
            #expect(isWhole || isNothing, "\(crash.rawValue) at \(step): \(outcome.found)")
            if !commits || !outcome.wasAskedForEnd { #expect(!isWhole, "\(crash.rawValue) at \(step)") }
            if commits, outcome.wasToldOfEnd { #expect(isWhole, "\(crash.rawValue) at \(step): its end was told") }
            guard outcome.hasCrashed else { break }
            interrupted += 1
            wholeCount += isWhole ? 1 : 0
            step += 1
        }
        #expect(interrupted > 15, "the steps of a transaction are more than \(interrupted)")
        if commits { #expect(wholeCount > 0 && wholeCount < interrupted) }
    }
}
