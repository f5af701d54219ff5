import MartletBasics
import MartletCluster
import MartletLog
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// Two brokers with a replica each of one partition, a controller that decides as values, clients, and everything that
/// can go wrong.
///
/// The controller is right by construction (one decision after another, in epochs), but slow: what it decided arrives
/// late, out of order, or only when it is said again. It elects only who is in sync.
final class ReplicaPair {
    static let chaos = Interval.milliseconds(900)
    static let lagLimit = Interval.milliseconds(60)
    static let clientPatience = Interval.milliseconds(150)

    let world: SimulatedWorld
    var random: SeededRandom
    let durability: Durability
    let config: TopicConfig
    let brokers: [Broker]
    var isUp = [true, true]
    private var linkIsUp = true
    private var isHealing = false
    var faults: [String] = []

    // the controller's state
    private var leader: BrokerID = 1
    private var leaderEpoch: LeaderEpoch = 0
    private var partitionEpoch: Int32 = 0
    private var inSync: [BrokerID] = [1, 2]

    // what was seen
    /// By base offset: bytes of batches that were below some replica's high watermark.
    private(set) var committed: [Offset: [UInt8]] = [:]
    /// What an append with acks=all was promised.
    private(set) var acknowledged: [(offset: Offset, value: String)] = []
    private(set) var elections = 0
    private(set) var crashes = 0
    private var clients: [Client] = []
    /// What happened, for who looks into a seed.
    private(set) var story: [String] = []
    private func tell(_ line: String) { story.append("\(world.now.nanoseconds / 1000) µs: \(line)") }

    init(seed: UInt64) {
        world = SimulatedWorld(seed: seed)
        random = world.makeRandom("chaos")
        durability = random.below(4) == 0 ? .pageCache : .fsync
        let durability = durability
        config = smallTopic { $0.durability = durability }
        brokers = [Broker(world, id: 1), Broker(world, id: 2)]
        clients = [
            Client(0, producerID: 100), Client(1, producerID: 101), Client(2, producerID: nil), Client(3, producerID: nil),
        ]
    }

    func run() {
        for index in 0...1 {
            start(index)
            repeatFetches(index)
        }
        repeatDecisions()
        for client in clients { repeatAppends(client) }
        repeatTrouble()
        repeatChecks()
        world.run(for: Self.chaos)
        heal()
        let isWhole = world.run(atMost: .seconds(20)) { !self.faults.isEmpty || self.isWhole }
        if !isWhole { faults.append("the replicas do not come together again: \(state)") }
        check()
        checkPromises()
    }

    private var state: String {
        "leader \(leader) epoch \(leaderEpoch).\(partitionEpoch) in sync \(inSync) up \(isUp)"
            + brokers.map { broker in
                guard let partition = partition(broker) else { return " none" }
                return
                    " [hw \(partition.highWatermark) durable \(partition.durableOffset) end \(partition.logEndOffset) "
                    + "epoch \(partition.leaderEpoch)]"
            }.joined()
    }

    private func partition(_ broker: Broker) -> Partition? { broker.replicas?.topics.partition(first) }

    private var isWhole: Bool {
        guard isUp == [true, true], leader >= 0, inSync.count == 2 else { return false }
        let both = brokers.compactMap(partition)
        guard both.count == 2 else { return false }
        let ends = both.map(\.logEndOffset)
        return ends[0] == ends[1] && both.allSatisfy { $0.highWatermark == ends[0] }
    }

    private func soon(_ most: Int64) -> Interval { .microseconds(Int64(random.below(Int(most * 1000))) + 1) }

    // MARK: Brokers

    private func start(_ index: Int) {
        let broker = brokers[index]
        do { try broker.open() } catch {
            if broker.host.isAlive { faults.append("broker \(broker.id) does not start: \(error)") }
            return
        }
        let (replicas, host) = (broker.replicas!, broker.host)
        let box = Unchecked((self, broker))
        host.loops[0].spawn {
            let (pair, broker) = box.value
            do { try await replicas.claim(brokerID: broker.id, clusterID: "cluster") } catch {
                pair.faults.append("broker \(broker.id) claims nothing: \(error)")
            }
            pair.hasStarted(broker)
        }
    }

    private func hasStarted(_ broker: Broker) {
        world.after(soon(5)) { [self] in
            guard isUp[Int(broker.id) - 1] else { return }
            if leader == broker.id || leader == -1, world.now.nanoseconds > 10_000_000 {
                // another process than the one that led: what it led is over
                elect(avoiding: nil)
            } else {
                tell(broker)
            }
        }
    }

    private func crash(_ index: Int) {
        let broker = brokers[index]
        guard isUp[index] else { return }
        isUp[index] = false
        crashes += 1
        tell("broker \(broker.id) crashes: \(state)")
        switch durability == .pageCache ? 0 : random.below(3) {
        case 0: broker.host.kill()
        case 1: broker.host.powerCut()
        default:
            broker.host.powerCut(afterDiskOperations: Int(random.below(12)) + 1)
            let host = broker.host
            world.after(soon(6)) { if host.isAlive { host.powerCut() } }
        }
        let noticed = soon(20)
        world.after(noticed) { [self] in controllerNotices(broker) }
        world.after(noticed + .milliseconds(7) + soon(isHealing ? 10 : 120)) { [self] in restart(index) }
    }

    private func restart(_ index: Int) {
        brokers[index].host = brokers[index].host.restart()
        tell("broker \(index + 1) starts")
        isUp[index] = true
        start(index)
    }

    private func heal() {
        isHealing = true
        linkIsUp = true
    }

    // MARK: The controller

    private func controllerNotices(_ broker: Broker) {
        if leader == broker.id { return elect(avoiding: broker.id) }
        // it may also leave the in-sync set by its lag alone
        guard inSync.contains(broker.id), inSync.count > 1, random.below(3) > 0 else { return }
        inSync.removeAll { $0 == broker.id }
        leaderEpoch += 1
        partitionEpoch += 1
        tellAll()
    }

    /// Only who is in sync may lead.
    private func elect(avoiding gone: BrokerID?) {
        let candidates = inSync.filter { $0 != gone && isUp[Int($0) - 1] }
        leader = candidates.isEmpty ? -1 : candidates[Int(random.below(candidates.count))]
        if let gone, inSync.count > 1 { inSync.removeAll { $0 == gone } }
        leaderEpoch += 1
        partitionEpoch += 1
        elections += 1
        tell("elected: \(state)")
        tellAll()
    }

    private func tellAll() { for broker in brokers where random.below(5) > 0 { tell(broker) } }

    private func tell(_ broker: Broker) {
        let assignment = PartitionLeadership.Assignment(
            leader: leader, leaderEpoch: leaderEpoch, partitionEpoch: partitionEpoch, replicas: [1, 2], inSyncReplicas: inSync)
        let (host, config) = (broker.host, config)
        guard isUp[Int(broker.id) - 1], let replicas = broker.replicas else { return }
        let box = Unchecked(self)
        world.after(soon(12)) {
            guard host.isAlive else { return }
            host.loops[0].spawn {
                do {
                    try await replicas.apply(
                        topic: topicName, id: topicID, config: config, partition: 0, assignment: assignment, isNew: true)
                } catch {
                    if host.isAlive, !host.diesSoon { box.value.faults.append("\(host.name) refuses its part: \(error)") }
                }
            }
        }
    }

    /// What was decided is said again; a leader is moved now and then.
    private func repeatDecisions() {
        world.after(.milliseconds(20) + soon(20)) { [self] in
            if leader == -1 { elect(avoiding: nil) }
            if !isHealing, leader >= 0, inSync.count == 2, random.below(4) == 0 { elect(avoiding: nil) }
            for broker in brokers { tell(broker) }
            repeatDecisions()
        }
    }

    private func decide(_ proposal: Partition.InSyncProposal, of broker: Broker, _ partition: Partition) {
        guard proposal.leaderEpoch == leaderEpoch, proposal.partitionEpoch == partitionEpoch, leader == broker.id else {
            let host = broker.host
            world.after(soon(5)) { if host.isAlive { host.loops[0].execute { partition.inSyncProposalRefused(proposal) } } }
            return
        }
        inSync = proposal.inSyncReplicas
        partitionEpoch += 1
        tell("in sync: \(state)")
        tellAll()
    }

    // MARK: Replication

    private func repeatFetches(_ index: Int) {
        world.after(.microseconds(200) + soon(2)) { [self] in
            if isUp[index], let partition = partition(brokers[index]) {
                let broker = brokers[index]
                let box = Unchecked((self, broker))
                broker.host.loops[0].execute { box.value.0.fetch(box.value.1, partition) }
            }
            repeatFetches(index)
        }
    }

    private func fetch(_ broker: Broker, _ partition: Partition) {
        if let proposal = partition.proposeInSync(now: world.now, lagLimit: Self.lagLimit) {
            world.after(soon(10)) { [self] in decide(proposal, of: broker, partition) }
        }
        guard linkIsUp, var request = partition.nextFollowerFetch() else { return }
        let leaderID = partition.currentLeader.leader
        request.maxBytes = Int(random.below(3000)) + 1
        let other = brokers[Int(leaderID) - 1]
        let (host, leaderHost) = (broker.host, other.host)
        guard let leading = self.partition(other) else { return }
        let box = Unchecked(self)
        world.after(soon(2)) { [request] in
            guard leaderHost.isAlive else { return }
            leaderHost.loops[0].execute {
                let found = leading.fetch(request)
                guard let records = try? bytes(found.slice) else { return }
                let answer = Partition.LeaderAnswer(
                    to: request, error: found.error, highWatermark: found.highWatermark,
                    logStartOffset: found.logStartOffset, divergingEpoch: found.divergingEpoch)
                box.value.deliver(answer, records, to: partition, on: host)
            }
        }
    }

    private func deliver(_ answer: Partition.LeaderAnswer, _ records: [UInt8], to partition: Partition, on host: SimulatedHost)
    {
        let box = Unchecked(self)
        world.after(soon(2)) {
            guard host.isAlive else { return }
            host.loops[0].execute {
                do { try records.withUnsafeBytes { try partition.follow(answer, records: $0) } } catch {
                    if host.isAlive, !host.diesSoon { box.value.faults.append("\(host.name) cannot follow: \(error)") }
                }
            }
        }
    }

    // MARK: Clients

    /// With a producer id it sends each batch until it is acknowledged; without, once.
    private final class Client {
        let index: Int
        let producerID: ProducerID?
        var sequence: Int32 = 0
        var count = 0
        var values: [String] = []
        var attempt = 0
        var isWaiting = false

        init(_ index: Int, producerID: ProducerID?) {
            self.index = index
            self.producerID = producerID
        }
    }

    private func repeatAppends(_ client: Client) {
        world.after(soon(8)) { [self] in
            if !client.isWaiting, !isHealing || !client.values.isEmpty { send(client) }
            repeatAppends(client)
        }
    }

    private func send(_ client: Client) {
        if client.values.isEmpty {
            client.values = (0...Int(random.below(3))).map { _ in
                client.count += 1
                return "client \(client.index) record \(client.count)"
            }
        }
        // a client may know no better than an earlier leader
        let target = random.below(8) == 0 || leader < 0 ? Int(random.below(2)) : Int(leader) - 1
        guard isUp[target], let partition = partition(brokers[target]) else { return }
        var identity = BatchIdentity()
        if let id = client.producerID { identity = BatchIdentity(producerID: id, epoch: 0, baseSequence: client.sequence) }
        let attempt = Attempt(
            client: client, number: client.attempt + 1, values: client.values, bytes: batch(client.values, identity: identity),
            acknowledgement: client.producerID != nil || random.below(3) > 0 ? .committed : .written, host: brokers[target].host
        )
        client.attempt += 1
        client.isWaiting = true
        let isLate = random.below(8) == 0
        let box = Unchecked((self, attempt))
        attempt.host.loops[0].execute { box.value.0.append(box.value.1, to: partition, isLate: isLate) }
        world.after(Self.clientPatience) { [self] in finish(attempt, nil, base: nil) }
    }

    private struct Attempt {
        var client: Client
        var number: Int
        var values: [String]
        var bytes: BatchBytes
        var acknowledgement: Acknowledgement
        var host: SimulatedHost
    }

    /// As a turn of a loop does: reserved here, written at the turn's end, or (as if by another) later.
    private func append(_ attempt: Attempt, to partition: Partition, isLate: Bool) {
        let producer = Producer(attempt.host.loops[0])
        var base: Offset?
        producer.told = { [self] _, outcome in finish(attempt, outcome.error, base: base) }
        let request = AppendRequest(
            attempt.acknowledgement, owner: producer, token: AppendToken(answer: 0, index: attempt.number),
            deadline: world.now + .milliseconds(100))
        switch partition.append(attempt.bytes.all, request) {
        case .refused(let code, _): finish(attempt, code, base: nil)
        case .duplicate(let offset, _, let isWaiting):
            base = offset
            if !isWaiting { finish(attempt, ErrorCode.none, base: offset) }
        case .reserved(let offset, _):
            base = offset
            let write = {
                _ = attempt.bytes
                var effects = PartitionEffects()
                partition.writeReserved(&effects)
                effects.deliver()
            }
            if isLate {
                attempt.host.loops[0].schedule(after: .microseconds(500), write)
            } else {
                attempt.host.loops[0].atEndOfTurn(write)
            }
        }
    }

    private func finish(_ attempt: Attempt, _ error: ErrorCode?, base: Offset?) {
        let client = attempt.client
        if error == ErrorCode.none, attempt.acknowledgement == .committed {
            for (index, value) in attempt.values.enumerated() { acknowledged.append((base! + Int64(index), value)) }
        }
        guard attempt.number == client.attempt, client.isWaiting else { return }
        client.isWaiting = false
        if error == .outOfOrderSequenceNumber || error == .unknownProducerID {
            faults.append("client \(client.index) lost its place: sequence \(client.sequence), \(error!)")
        }
        guard client.producerID == nil || error == ErrorCode.none else { return }
        client.sequence += Int32(attempt.values.count)
        client.values = []
    }

    // MARK: Trouble

    private func repeatTrouble() {
        world.after(.milliseconds(10) + soon(70)) { [self] in
            guard !isHealing else { return }
            switch random.below(6) {
            case 0...2: crash(Int(random.below(2)))
            case 3: linkIsUp.toggle()
            case 4:
                crash(0)
                crash(1)
            default: brokers[Int(random.below(2))].host.pause(for: soon(80))
            }
            repeatTrouble()
        }
    }

    // MARK: What must hold

    private func repeatChecks() {
        world.after(.milliseconds(20)) { [self] in
            check()
            repeatChecks()
        }
    }

    /// The batches in a replica's files, read beside the broker.
    private func batchesOnDisk(_ broker: Broker) -> [(base: Offset, next: Offset, bytes: [UInt8])] {
        let folder = "data/log/\(topicName)-0"
        return broker.files(folder).filter { $0.hasSuffix(".log") }.sorted().flatMap { name in
            batches(in: (try? broker.host.disk.contents(folder + "/" + name)) ?? [])
        }
    }

    /// What one replica's high watermark has passed stays as it is, on every replica whose high watermark passes it.
    private func check() {
        for (index, broker) in brokers.enumerated() where isUp[index] && faults.isEmpty {
            guard let partition = partition(broker), !partition.isOffline else { continue }
            let highWatermark = partition.highWatermark
            var end: Offset = 0
            for batch in batchesOnDisk(broker) where batch.next <= highWatermark {
                if let known = committed[batch.base], known != batch.bytes {
                    faults.append("offset \(batch.base) has other bytes on broker \(broker.id) than were committed: \(state)")
                }
                committed[batch.base] = batch.bytes
                if batch.base != end {
                    faults.append("broker \(broker.id) has a gap between \(end) and \(batch.base): \(state)")
                }
                end = batch.next
            }
            tell("checked broker \(broker.id) up to \(highWatermark): \(state)")
            if end != highWatermark {
                faults.append("broker \(broker.id) holds \(end) of \(highWatermark) committed: \(state)")
            }
        }
    }

    private func checkPromises() {
        for broker in brokers {
            var values: [Offset: String] = [:]
            var counts: [String: Int] = [:]
            let found = batchesOnDisk(broker)
            for batch in found {
                for record in records(of: batch.bytes) {
                    values[record.offset] = record.value
                    counts[record.value, default: 0] += 1
                }
            }
            for (offset, value) in acknowledged where values[offset] != value {
                faults.append("acknowledged \(value) at \(offset) is \(values[offset] ?? "gone") on broker \(broker.id)")
            }
            for value in counts.keys.sorted() where counts[value]! > 1 {
                faults.append("\(value) is \(counts[value]!) times on broker \(broker.id)")
            }
            for base in committed.keys.sorted()
            where !found.contains(where: { $0.base == base && $0.bytes == committed[base]! }) {
                faults.append("what was committed at \(base) is not on broker \(broker.id)")
            }
        }
    }
}

extension SimulatedHost {
    /// A disk that refuses because the machine is going down says nothing.
    var diesSoon: Bool { (try? disk.status("data")) == nil }
}
