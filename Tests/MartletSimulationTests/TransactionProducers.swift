import MartletBasics
import MartletModel
import MartletReactor
import MartletSimulation
import MartletSwarm
import MartletWire

/// The producers and readers of one run, and what they were told. All of it lives on the world's thread.
final class TransactionCast: @unchecked Sendable {
    static let output = "out"
    static let input = "in"
    static func group(of producer: Int) -> String { "g-\(producer)" }
    private static let processesLimit = 14

    let ledger = TransactionLedger()
    let stage: Stage
    let partitions: Int32
    private var startedCount = 0

    init(_ stage: Stage, partitions: Int32) {
        self.stage = stage
        self.partitions = partitions
        ledger.partitionCount = Int(partitions)
    }

    /// A process with this producer's transactional id; perhaps not the only one. False where there have been enough.
    @discardableResult
    func start(_ producer: Int, on host: SimulatedHost, _ versions: TransactionVersions) -> Bool {
        guard startedCount < Self.processesLimit else { return false }
        startedCount += 1
        let name = "producer-\(producer)-\(startedCount)"
        let process = TransactionalProcess(
            self, stage.client(name, on: host), host, producer, versions, stage.world.makeRandom(name))
        stage.start(name, on: host.loops[0]) { await process.run() }
        return true
    }

    func startReader(_ partition: Int32, on host: SimulatedHost) {
        let client = stage.client("reader-\(partition)", on: host)
        stage.start(client.name, on: host.loops[0]) { [self] in
            var offset: Offset = 0
            while !stage.isOver {
                do throws(ClientFault) {
                    if !client.isConnected { try await client.connect(to: stage.broker) }
                    let found = try await client.fetchCommitted(Self.output, partition, from: offset)
                    for batch in found.batches {
                        for (index, value) in batch.values.enumerated() {
                            ledger.saw(value, at: batch.baseOffset + Int64(index), partition)
                        }
                    }
                    if found.error == .none { offset = found.nextOffset }
                } catch {
                    if case .malformed(let reason) = error { ledger.violated("a reader: \(reason)") }
                    client.close()
                }
                await client.loop.sleep(for: .milliseconds(30))
            }
            client.close()
        }
    }
}

/// One process of a producer that consumes, transforms and produces: step by step, each in a transaction. Between any two
/// calls it may die and begin anew, sleep while another takes its place, or find that the broker is gone.
final class TransactionalProcess: @unchecked Sendable {
    /// Why a step came to no end.
    private enum Stop: Error {
        case lost
        /// Another has its id: it is not to come again.
        case fenced
        /// Whatever it was, it begins with its epoch anew.
        case restart
    }

    private static let pause = Interval.milliseconds(15)
    private static let retriesLimit = 400

    private let cast: TransactionCast
    private let client: SimulatedClient
    private let host: SimulatedHost
    private let producer: Int
    private let versions: TransactionVersions
    private var random: SeededRandom
    private var identity: (id: ProducerID, epoch: ProducerEpoch) = (-1, -1)
    private var sequences: [Int32: Int32] = [:]
    private var id: String { "txn-\(producer)" }
    private var stage: Stage { cast.stage }
    private var ledger: TransactionLedger { cast.ledger }
    private var group: String { TransactionCast.group(of: producer) }
    private let timeoutMs: Int32
    /// A sleeper does not begin anew when it finds itself fenced.
    private var hasSuccessor = false

    init(
        _ cast: TransactionCast, _ client: SimulatedClient, _ host: SimulatedHost, _ producer: Int,
        _ versions: TransactionVersions, _ random: SeededRandom
    ) {
        self.cast = cast
        self.client = client
        self.host = host
        self.producer = producer
        self.versions = versions
        self.random = random
        timeoutMs = [400, 1_500, 60_000][self.random.below(3)]
    }

    func run() async {
        while !stage.isOver {
            do {
                try await begin()
                while !stage.isOver { try await step() }
            } catch Stop.fenced where hasSuccessor {
                break
            } catch {
                client.close()
                await client.loop.sleep(for: Self.pause)
            }
        }
        // what it may have left open is aborted by who takes its id last
        if stage.isOver, !hasSuccessor { await leave() }
        client.close()
    }

    private func leave() async {
        for _ in 0..<Self.retriesLimit {
            do {
                try await begin()
                return
            } catch {
                client.close()
                await client.loop.sleep(for: Self.pause)
            }
        }
        ledger.violated("producer \(producer) cannot get its epoch: a transaction hangs")
    }

    private func begin() async throws {
        do throws(ClientFault) {
            if !client.isConnected { try await client.connect(to: stage.broker) }
            _ = try await client.findCoordinator(of: id, kind: 1)
            _ = try await client.findCoordinator(of: group, kind: 0)
        } catch {
            throw Stop.lost
        }
        for _ in 0..<Self.retriesLimit {
            let answer: (error: ErrorCode, id: ProducerID, epoch: ProducerEpoch)
            do throws(ClientFault) {
                answer = try await client.initialize(id, timeoutMs: timeoutMs, versions)
            } catch {
                throw Stop.lost
            }
            if answer.error == .none {
                identity = (answer.id, answer.epoch)
                sequences = [:]
                return
            }
            guard Self.isRetriable(answer.error) else {
                ledger.violated("producer \(producer) is refused: \(answer.error)")
                throw Stop.restart
            }
            await client.loop.sleep(for: Self.pause)
        }
        throw Stop.restart
    }

    private static func isRetriable(_ error: ErrorCode) -> Bool {
        [
            .concurrentTransactions, .coordinatorLoadInProgress, .coordinatorNotAvailable, .notCoordinator, .notEnoughReplicas,
            .requestTimedOut, .unknownTopicOrPartition, .notLeaderOrFollower, .notEnoughReplicasAfterAppend, .kafkaStorageError,
        ].contains(error)
    }

    /// Asks until the answer is no retriable error.
    private func patiently(_ ask: () async throws(ClientFault) -> ErrorCode) async throws {
        try await mishap()
        for _ in 0..<Self.retriesLimit {
            let error: ErrorCode
            do throws(ClientFault) { error = try await ask() } catch { throw Stop.lost }
            switch error {
            case .none: return
            case .producerFenced, .invalidProducerEpoch: throw Stop.fenced
            case _ where Self.isRetriable(error): await client.loop.sleep(for: Self.pause)
            // its transaction was aborted, or what it wrote before is not known to have been written
            default: throw Stop.restart
            }
        }
        throw Stop.restart
    }

    private func step() async throws {
        guard let step = try await nextStep() else { return await client.loop.sleep(for: Self.pause) }
        let tried = ledger.begin(producer, step)
        let partitions = TransactionLedger.partitions(of: step, producer, count: cast.partitions)
        let identity = identity
        if versions.addsPartitions {
            try await patiently { () async throws(ClientFault) in
                try await client.add(partitions, of: TransactionCast.output, to: id, identity)
            }
        }
        for partition in partitions {
            let batch = batch(tried, partition)
            try await patiently { () async throws(ClientFault) in
                try await client.produce(batch, to: TransactionCast.output, partition, in: id, versions).error
            }
            sequences[partition, default: 0] += 1
        }
        if versions.addsPartitions {
            try await patiently { () async throws(ClientFault) in
                try await client.addOffsets(of: group, to: id, identity)
            }
        }
        try await patiently { () async throws(ClientFault) in
            try await client.commit(
                step + 1, of: TransactionCast.input, 0, in: group, id, identity, versions)
        }
        let commits = !random.chance(1, in: 5)
        var next = identity
        try await patiently { () async throws(ClientFault) in
            let answer = try await client.end(id, identity, commits: commits, versions)
            next = (answer.id, answer.epoch)
            return answer.error
        }
        ledger.ended(tried, commits: commits)
        if next != identity { sequences = [:] }
        self.identity = next
    }

    /// Nil while it cannot be told.
    private func nextStep() async throws -> Offset? {
        do throws(ClientFault) {
            return try await client.stableOffset(group, TransactionCast.input, 0).map { max($0, 0) }
        } catch {
            throw Stop.lost
        }
    }

    private func batch(_ tried: TransactionLedger.Try, _ partition: Int32) -> [UInt8] {
        var builder = BatchBuilder(
            BatchIdentity(
                producerID: identity.id, epoch: identity.epoch, baseSequence: sequences[partition] ?? 0, isTransactional: true))
        builder.append(timestamp: 1_700_000_000_000, key: nil, value: TransactionLedger.value(of: tried))
        var output = ByteBuffer()
        builder.finish(into: &output, contexts: CodecContexts())
        return output.array
    }

    /// What may happen between any two calls.
    private func mishap() async throws {
        guard !stage.isCalm else { return }
        switch random.below(60) {
        case 0: throw Stop.restart
        case 1:
            // it sleeps, and is taken for dead
            if cast.start(producer, on: host, TransactionVersions.all[random.below(2)]) { hasSuccessor = true }
            await client.loop.sleep(for: .milliseconds(Int64(random.below(900))))
        case 2, 3: await client.loop.sleep(for: .milliseconds(Int64(random.below(600))))
        default: break
        }
    }
}
