import MartletBasics
import MartletBroker
import MartletModel
import MartletReactor
import MartletSimulation
import MartletSwarm

/// One broker on a machine that fails, and transactional producers that die, sleep and are replaced: several lives of the
/// broker on one disk, each ended as the seed says. Then nothing fails any more: no transaction may hang, and what is
/// committed is read from the beginning.
final class TransactionSimulationWorld: @unchecked Sendable {
    struct Story: Equatable {
        var history: UInt64
        var told: UInt64
    }

    private enum End { case stop, kill, powerCut }

    private static let port: UInt16 = 9092
    private static let roomyBytes: Int64 = 1 << 40
    /// Virtual time in which clients come to their end.
    private static let patience = Interval.seconds(60)
    private static let startAttemptsLimit = 8

    let simulated: SimulatedWorld
    let stage: TransactionStage
    private var host: SimulatedHost
    private let clients: [SimulatedHost]
    private let hasDiskFaults: Bool
    private var random: SeededRandom
    private var life: BrokerLife!
    private let config: BrokerConfig
    private let producers: Int
    private let partitions: Int32

    private var ledger: TransactionLedger { stage.ledger }

    init(seed: UInt64, keepsLines: Bool = false) throws {
        simulated = SimulatedWorld(seed: seed, keepsLines: keepsLines)
        random = simulated.makeRandom("script")
        hasDiskFaults = random.chance(1, in: 6)
        host = simulated.makeHost("broker", loops: 1 + random.below(2))
        clients = [simulated.makeHost("client-1"), simulated.makeHost("client-2")]
        simulated.network.powerCutSilence = .milliseconds(100)
        producers = 1 + random.below(3)
        partitions = Int32(1 + random.below(3))
        stage = TransactionStage(
            simulated, broker: SocketAddress(host: host.address, port: Self.port), partitions: partitions)
        config = try BrokerConfig.resolve(overrides: [
            ("listeners", "PLAINTEXT://\(host.address):\(Self.port)"), ("log.dirs", "/data/log"),
            ("martlet.keeper.dir", "/data/keeper"),
            ("offsets.topic.num.partitions", "\(1 + random.below(2))"), ("offsets.topic.replication.factor", "1"),
            ("transaction.state.log.num.partitions", "\(1 + random.below(3))"),
            ("transaction.state.log.segment.bytes", "\(4096 << random.below(8))"),
            ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "200"),
        ])
    }

    /// The whole story of a seed. What was wrong is in the ledger.
    static func tell(seed: UInt64) throws -> (story: Story, ledger: TransactionLedger) {
        let world = try TransactionSimulationWorld(seed: seed)
        defer { world.simulated.end() }
        world.run()
        return (Story(history: world.simulated.history, told: world.ledger.digest), world.ledger)
    }

    func run() {
        guard startBroker(), makeTopics() else { return }
        for producer in 0..<producers {
            stage.start(producer, on: clients[random.below(2)], TransactionVersions.all[random.below(2)])
        }
        for partition in 0..<partitions { stage.startReader(partition, on: clients[random.below(2)]) }
        for _ in 0..<1 + random.below(3) {
            live()
            guard startBroker() else { return }
        }
        simulated.run(for: .milliseconds(Int64(random.below(400))))
        stage.isCalm = true
        simulated.network.heal()
        if hasDiskFaults {
            // a broker whose disk has failed it is started again, on one that is sound
            end(.kill)
            guard startBroker() else { return }
        }
        simulated.run(for: .milliseconds(300))
        _ = simulated.run(atMost: .seconds(10)) { self.ledger.committedCount > 0 && self.ledger.seenCount > 0 }
        stage.isOver = true
        guard simulated.run(atMost: Self.patience, until: { self.stage.runningCount == 0 }) else {
            return ledger.violated("producers wait for answers that never come")
        }
        readEverything()
        if random.chance(1, in: 3) {
            end(random.chance(1, in: 2) ? .kill : .powerCut)
            guard startBroker() else { return }
            readEverything()
        }
        stopBroker()
    }

    // MARK: The broker

    /// Starts it, again where the power goes while it starts. False where it cannot be started.
    private func startBroker() -> Bool {
        for _ in 0..<Self.startAttemptsLimit {
            if random.chance(1, in: 8) { host.powerCut(afterDiskOperations: 1 + random.below(40)) }
            life = BrokerLife(simulated, host, config)
            switch life.start() {
            case .serves: return true
            case .hung:
                ledger.violated("the broker did not come to the end of its start")
                return false
            case .failed(let sentence) where !hasDiskFaults:
                ledger.violated("the broker did not start: \(sentence)")
                return false
            case .failed, .died: break
            }
            end(host.isAlive ? .kill : .powerCut)
        }
        ledger.violated("the broker did not start in \(Self.startAttemptsLimit) attempts")
        return false
    }

    private func end(_ end: End) {
        switch end {
        case .stop, .kill: host.kill()
        case .powerCut: host.powerCut()
        }
        host = host.restart()
        host.files.heal()
        host.files.capacityBytes = Self.roomyBytes
    }

    private func stopBroker() {
        if !life.stop() { ledger.violated("the broker did not come to the end of its stop") }
    }

    private func live() {
        if hasDiskFaults { hurtTheDisk() }
        if random.chance(1, in: 2) { hurtTheNetwork() }
        let host = self.host
        let span = Interval.milliseconds(Int64(100 + random.below(1_500)))
        let choice = random.below(8)
        if choice < 2 { host.powerCut(afterDiskOperations: 20 + random.below(200)) }
        _ = simulated.run(atMost: span) { !host.isAlive || self.life.lastWords != nil }
        if let sentence = life.lastWords {
            if !hasDiskFaults { ledger.violated("a broker on a sound disk gave up: \(sentence)") }
            return end(.kill)
        }
        if !host.isAlive { return end(.powerCut) }
        switch choice {
        case 0..<4: end(.powerCut)
        case 4..<6: end(.kill)
        default:
            stopBroker()
            end(choice == 6 ? .powerCut : .stop)
        }
    }

    /// A full disk for a while, or a write that fails: what was decided cannot be written.
    private func hurtTheDisk() {
        let files = host.files
        let moment = Interval.milliseconds(Int64(random.below(400)))
        if random.chance(1, in: 2) {
            let room = Int64(random.below(4 << 10))
            let span = Interval.milliseconds(Int64(10 + random.below(200)))
            simulated.after(moment) { [self] in if !stage.isCalm { files.capacityBytes = files.usedBytes + room } }
            simulated.after(moment + span) { files.capacityBytes = Self.roomyBytes }
        } else {
            simulated.after(moment) { [self] in if !stage.isCalm { files.fail(.write, of: "/data/log/", with: .inputOutput) } }
        }
    }

    /// For a while nothing comes through to the broker from one machine, or neither way: what producers sent long ago arrives
    /// late.
    private func hurtTheNetwork() {
        let (host, client) = (self.host, clients[random.below(clients.count)])
        let moment = Interval.milliseconds(Int64(random.below(400)))
        let span = Interval.milliseconds(Int64(50 + random.below(700)))
        let isOneWay = random.chance(1, in: 2)
        simulated.after(moment) { [self] in
            guard !stage.isCalm else { return }
            if isOneWay { simulated.network.stall(from: client, to: host) } else { simulated.network.partition(client, host) }
        }
        simulated.after(moment + span) { [self] in simulated.network.heal(client, host) }
    }

    // MARK: Clients

    private func makeTopics() -> Bool {
        let isDone = Box(false)
        let client = SimulatedClient("administrator", on: clients[0])
        clients[0].loops[0].spawn { [self] in
            for (topic, count) in [(TransactionStage.output, partitions), (TransactionStage.input, 1)] {
                while true {
                    do throws(ClientFault) {
                        if !client.isConnected { try await client.connect(to: stage.broker) }
                        let error = try await client.createTopic(topic, partitions: count).errorCode
                        if error == .none || error == .topicAlreadyExists { break }
                    } catch {
                        client.close()
                    }
                    await client.loop.sleep(for: .milliseconds(20))
                }
            }
            client.close()
            isDone.value = true
        }
        while !simulated.run(atMost: Self.patience, until: { isDone.value || !self.host.isAlive }) || !isDone.value {
            guard !host.isAlive else {
                ledger.violated("topics cannot be made")
                return false
            }
            end(.powerCut)
            guard startBroker() else { return false }
        }
        return true
    }

    /// What is committed, asked by a client that was not there before. Every transaction has an end by now.
    private func readEverything() {
        let outcome = Box<(records: [[(offset: Offset, value: [UInt8])]], offsets: [Offset])?>(nil)
        let hasFailed = Box(false)
        let reader = SimulatedClient("last-reader", on: clients[1])
        clients[1].loops[0].spawn { [self] in
            do throws(ClientFault) {
                try await reader.connect(to: stage.broker)
                var records: [[(offset: Offset, value: [UInt8])]] = []
                for partition in 0..<partitions { records.append(try await readAll(partition, reader)) }
                var offsets: [Offset] = []
                while offsets.count < producers {
                    let group = TransactionStage.group(of: offsets.count)
                    _ = try await reader.findCoordinator(of: group, kind: 0)
                    if let offset = try await reader.stableOffset(group, TransactionStage.input, 0) {
                        offsets.append(max(offset, 0))
                    } else {
                        await reader.loop.sleep(for: .milliseconds(20))
                    }
                }
                outcome.value = (records, offsets)
            } catch {
                hasFailed.value = true
                ledger.violated("the last reader: \(error)")
            }
            reader.close()
        }
        guard simulated.run(atMost: Self.patience, until: { outcome.value != nil || hasFailed.value }) else {
            return ledger.violated("a transaction hangs: the last reader waits for its end")
        }
        if let found = outcome.value { ledger.finished(found.records, offsets: found.offsets) }
    }

    private func readAll(
        _ partition: Int32, _ reader: SimulatedClient
    ) async throws(ClientFault) -> [(offset: Offset, value: [UInt8])] {
        var records: [(offset: Offset, value: [UInt8])] = []
        var offset: Offset = 0
        while true {
            let found = try await reader.fetchCommitted(TransactionStage.output, partition, from: offset)
            for batch in found.batches {
                for (index, value) in batch.values.enumerated() { records.append((batch.baseOffset + Int64(index), value)) }
            }
            if found.error == .none {
                offset = found.nextOffset
                if offset >= found.highWatermark, found.lastStableOffset == found.highWatermark { return records }
            }
            await reader.loop.sleep(for: .milliseconds(10))
        }
    }
}
