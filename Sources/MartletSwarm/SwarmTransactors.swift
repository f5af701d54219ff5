import MartletBasics
import MartletChecker
import MartletModel
import MartletSimulation

/// The transactional ids of one run, and the processes that have them, one after the other or at once.
final class SwarmTransactors: @unchecked Sendable {
    /// A transactional id, with the group whose offset each of its transactions may commit.
    struct ID {
        var name: String
        var group: String
        var timeoutMs: Int32
        /// Its place among producers.
        var number: Int32
    }

    private static let processesLimit = 12
    /// The offsets of one group only rise: each tells by which transaction it was committed.
    private static let firstOffset: Offset = 2_000_000

    let stage: Stage
    /// A process may end for good, with its transaction open: the coordinator is to end it, by a clock that nobody turns.
    let mayAbandon: Bool
    private(set) var ids: [ID] = []
    private var processesCount = 0
    private var transactionsCount: Int64 = 0

    init(_ stage: Stage, mayAbandon: Bool) {
        self.stage = stage
        self.mayAbandon = mayAbandon
    }

    /// When every transaction that was begun has had its end, after the last request of a producer.
    var patience: Interval { .milliseconds(Int64(ids.map(\.timeoutMs).max() ?? 0) + 4_000) }

    func addID(_ random: inout SeededRandom) -> Int {
        let name = "transactor-\(ids.count)"
        ids.append(
            ID(
                name: name, group: "group-of-\(name)", timeoutMs: [500, 2_000, 8_000][random.below(3)],
                number: stage.record.addProducer()))
        return ids.count - 1
    }

    /// The place whose offset each group commits. It has to be there: for any other the broker refuses a commit.
    var place: Place { Place(written[0].name, 0) }
    /// Where transactions write.
    var written: [StageTopic] { stage.topics.filter { !$0.mayRot && !$0.isCompacted } }

    func nextTransaction(of id: ID) -> (name: String, offset: Offset) {
        transactionsCount += 1
        return ("\(id.name)/\(transactionsCount)", Self.firstOffset + transactionsCount)
    }

    /// A process with this id; perhaps not the only one. False where there have been enough.
    @discardableResult
    func start(_ id: Int, on host: SimulatedHost, _ versions: TransactionVersions) -> Bool {
        guard processesCount < Self.processesLimit else { return false }
        processesCount += 1
        let name = "\(ids[id].name)-\(processesCount)"
        let process = SwarmTransactor(
            self, id, stage.client(name, on: host), host, versions, stage.world.makeRandom(name))
        stage.start(name, on: host.loops[0]) { await process.run() }
        return true
    }

    private var recordsCount: Int32 = 0

    /// A name that no record has.
    func nextRecord(of id: ID) -> RecordName {
        recordsCount += 1
        return RecordName(producer: id.number, number: recordsCount)
    }
}

/// One process of a transactional producer: one transaction after the other, some ended by an abort. Between any two
/// requests it may die and begin anew, sleep while another takes its place, or go for ever.
final class SwarmTransactor: @unchecked Sendable {
    /// Why a transaction came to no end.
    private enum Stop: Error {
        case lost
        /// Another has its id: it is not to come again.
        case fenced
        /// Whatever it was, it begins with its epoch anew.
        case restart
        case gone
    }

    private static let pause = Interval.milliseconds(15)
    private static let retriesLimit = 400

    private let fleet: SwarmTransactors
    private let stage: Stage
    private let client: SimulatedClient
    private let host: SimulatedHost
    private let index: Int
    private let versions: TransactionVersions
    private let contexts = CodecContexts()
    private var random: SeededRandom
    private var identity: (id: ProducerID, epoch: ProducerEpoch) = (-1, -1)
    private var sequences: [Place: Int32] = [:]
    /// A sleeper does not begin anew when it finds itself fenced.
    private var hasSuccessor = false

    private var id: SwarmTransactors.ID { fleet.ids[index] }
    private var record: Recorder { stage.record }

    init(
        _ fleet: SwarmTransactors, _ index: Int, _ client: SimulatedClient, _ host: SimulatedHost,
        _ versions: TransactionVersions, _ random: SeededRandom
    ) {
        self.fleet = fleet
        stage = fleet.stage
        self.client = client
        self.host = host
        self.index = index
        self.versions = versions
        self.random = random
    }

    func run() async {
        var isGone = false
        while !stage.isOver, !isGone {
            do {
                try await begin()
                while !stage.isOver {
                    try await transact()
                    await stage.rest(client.loop, &random, busy: 500..<8_000)
                }
            } catch Stop.fenced where hasSuccessor {
                isGone = true
            } catch Stop.gone {
                isGone = true
            } catch {
                client.close()
                await stage.rest(client.loop, &random)
            }
        }
        // what it may have left open is aborted by who takes its id last
        if !isGone, !hasSuccessor { await leave() }
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
        record.broken("\(client.name) cannot get its epoch")
    }

    /// Takes the id, which ends what was open under it.
    private func begin() async throws {
        for _ in 0..<Self.retriesLimit {
            let answer: (error: ErrorCode, id: ProducerID, epoch: ProducerEpoch)
            do throws(ClientFault) {
                if !client.isConnected {
                    try await client.connect(to: stage.broker)
                    _ = try await client.findCoordinator(of: id.name, kind: 1)
                    _ = try await client.findCoordinator(of: id.group, kind: 0)
                }
                answer = try await client.initialize(id.name, timeoutMs: id.timeoutMs, versions)
            } catch {
                stage.note(error, of: client.name)
                throw Stop.lost
            }
            if answer.error == .none {
                identity = (answer.id, answer.epoch)
                sequences = [:]
                return
            }
            guard passesByItself(answer.error) else {
                record.broken("\(client.name): InitProducerId was answered with \(answer.error)")
                throw Stop.restart
            }
            await client.loop.sleep(for: Self.pause)
        }
        throw Stop.restart
    }

    /// What passes by itself.
    private static let retriable: Set<ErrorCode> = [
        .concurrentTransactions, .coordinatorLoadInProgress, .coordinatorNotAvailable, .notCoordinator, .notEnoughReplicas,
        .requestTimedOut, .unknownTopicOrPartition, .notLeaderOrFollower, .leaderNotAvailable, .notEnoughReplicasAfterAppend,
        .operationNotAttempted,
    ]
    /// What one may be told whose transaction was ended by others, or whose records are not known to have been written.
    private static let passing: Set<ErrorCode> = [
        .invalidTxnState, .outOfOrderSequenceNumber, .unknownProducerID, .transactionAbortable,
    ]

    private func passesByItself(_ error: ErrorCode) -> Bool {
        Self.retriable.contains(error) || (error == .kafkaStorageError && stage.mayStorageFail(nil))
    }

    /// Takes an error for what it means; returns where the request is to be sent again.
    private func heed(_ error: ErrorCode, _ what: String) async throws {
        switch error {
        case .producerFenced, .invalidProducerEpoch: throw Stop.fenced
        case _ where passesByItself(error): await client.loop.sleep(for: Self.pause)
        case _ where Self.passing.contains(error): throw Stop.restart
        default:
            record.broken("\(client.name): \(what) was answered with \(error)")
            throw Stop.restart
        }
    }

    /// Asks until the answer is no retriable error.
    private func patiently(_ what: String, _ ask: () async throws(ClientFault) -> ErrorCode) async throws {
        try await mishap()
        for _ in 0..<Self.retriesLimit {
            let error: ErrorCode
            do throws(ClientFault) { error = try await ask() } catch {
                stage.note(error, of: client.name)
                throw Stop.lost
            }
            if error == .none { return }
            try await heed(error, what)
        }
        throw Stop.restart
    }

    // MARK: A transaction

    private func transact() async throws {
        let transaction = fleet.nextTransaction(of: id)
        let places = choosePlaces()
        if versions.addsPartitions {
            for topic in Set(places.map(\.topic)).sorted() {
                let partitions = Set(places.filter { $0.topic == topic }.map { Int32($0.partition) }).sorted()
                try await patiently("AddPartitionsToTxn") { () async throws(ClientFault) in
                    try await client.add(partitions, of: topic, to: id.name, identity)
                }
            }
        }
        for place in places { try await send(to: place, in: transaction.name) }
        let takesOffset = random.chance(2, in: 3)
        if takesOffset { try await add(transaction.offset) }
        try await end(transaction.name, offset: takesOffset ? transaction.offset : nil, commits: !random.chance(1, in: 4))
    }

    /// One or several partitions, some of them twice.
    private func choosePlaces() -> [Place] {
        let topics = fleet.written
        return (0...random.below(4)).map { _ in
            let topic = topics[random.below(topics.count)]
            return Place(topic.name, random.below(Int(topic.partitions)))
        }
    }

    private func send(to place: Place, in transaction: String) async throws {
        let names = (0...random.below(3)).map { _ in fleet.nextRecord(of: id) }
        var builder = BatchBuilder(
            BatchIdentity(
                producerID: identity.id, epoch: identity.epoch, baseSequence: sequences[place] ?? 0, isTransactional: true))
        for name in names {
            builder.append(timestamp: client.loop.clock.wallMilliseconds, key: nil, value: name.value)
        }
        var output = ByteBuffer()
        builder.finish(into: &output, contexts: contexts)
        try await mishap()
        for _ in 0..<Self.retriesLimit {
            let operation = record.operation()
            record.note(
                .send(
                    SentBatch(
                        operation: operation, producer: id.name, place: place, values: names.map(\.text), acks: -1,
                        isIdempotent: true, transaction: transaction)))
            let answer: (error: ErrorCode, offset: Offset)
            do throws(ClientFault) {
                answer = try await client.produce(
                    output.array, to: place.topic, Int32(place.partition), in: id.name, versions)
            } catch {
                record.note(.told(operation: operation, .unknown("\(error)")))
                stage.note(error, of: client.name)
                throw Stop.lost
            }
            switch answer.error {
            case .none, .duplicateSequenceNumber:
                let offset = answer.error == .none && answer.offset >= 0 ? answer.offset : nil
                record.note(.told(operation: operation, .accepted(at: offset)))
                sequences[place, default: 0] += Int32(names.count)
                return
            case _ where passesByItself(answer.error):
                record.note(.told(operation: operation, .unknown("\(answer.error)")))
            default: record.note(.told(operation: operation, .refused("\(answer.error)")))
            }
            try await heed(answer.error, "Produce")
        }
        throw Stop.restart
    }

    private func add(_ offset: Offset) async throws {
        let place = fleet.place
        if versions.addsPartitions {
            try await patiently("AddOffsetsToTxn") { () async throws(ClientFault) in
                try await client.addOffsets(of: id.group, to: id.name, identity)
            }
        }
        try await patiently("TxnOffsetCommit") { () async throws(ClientFault) in
            try await client.commit(
                offset, of: place.topic, Int32(place.partition), in: id.group, id.name, identity, versions)
        }
    }

    /// Ends it. The offset is committed by that, and by nothing before.
    private func end(_ transaction: String, offset: Offset?, commits: Bool) async throws {
        let operation = record.operation()
        let commit = commits && offset != nil ? record.operation() : nil
        record.note(.endTransaction(operation: operation, transaction: transaction, commits: commits))
        if let commit {
            record.note(
                .commit(
                    operation: commit, group: id.group, place: fleet.place, offset: offset,
                    transaction: transaction))
        }
        let tell = { [record] (outcome: Outcome) in
            record.note(.told(operation: operation, outcome))
            if let commit { record.note(.told(operation: commit, outcome)) }
        }
        // an error that passes may be told although it is decided
        var isOpen = false
        var next = identity
        do {
            try await patiently("EndTxn") { () async throws(ClientFault) in
                let wasOpen = isOpen
                isOpen = true
                let answer = try await client.end(id.name, identity, commits: commits, versions)
                next = (answer.id, answer.epoch)
                isOpen = wasOpen || passesByItself(answer.error)
                return answer.error
            }
        } catch {
            tell(isOpen ? .unknown("\(error)") : .refused("\(error)"))
            throw error
        }
        tell(.accepted(at: nil))
        record.transactionEnded(commits: commits)
        if next != identity { sequences = [:] }
        identity = next
    }

    /// What may happen between any two requests.
    private func mishap() async throws {
        guard !stage.isCalm else { return }
        switch random.below(90) {
        case 0: throw Stop.restart
        case 1:
            // it sleeps, and is taken for dead
            if !hasSuccessor, fleet.start(index, on: host, TransactionVersions.all[random.below(2)]) { hasSuccessor = true }
            await client.loop.sleep(for: .milliseconds(Int64(random.below(2_000))))
        case 2: await client.loop.sleep(for: .milliseconds(Int64(random.below(3_000))))
        case 3 where fleet.mayAbandon && random.chance(1, in: 3): throw Stop.gone
        default: break
        }
    }
}
