import MartletBasics
import MartletBroker
import MartletChecker
import MartletModel
import MartletReactor
import MartletSimulation
import MartletSwarm

/// One broker on a machine that fails: several lives of it on one disk, each ended as the seed says, and the clients' machines,
/// which do not fail. What is wrong is written into the stage's record.
final class BrokerLives: @unchecked Sendable {
    /// What a run came to.
    struct Story: Equatable {
        var history: UInt64
        var told: UInt64
    }

    private static let port: UInt16 = 9092
    private static let roomyBytes: Int64 = 1 << 40
    private static let startAttemptsLimit = 8
    /// Virtual time in which clients come to their end.
    private static let patience = Interval.seconds(60)

    let simulated: SimulatedWorld
    let stage: Stage
    var random: SeededRandom
    private let clients: [SimulatedHost]
    private var host: SimulatedHost
    private let hasDiskFaults: Bool
    private let config: BrokerConfig
    private var life: BrokerLife!

    private var record: Recorder { stage.record }
    /// One of the machines that do not fail.
    func someClient() -> SimulatedHost { clients[random.below(clients.count)] }

    /// The disk fails in one of so many seeds. `settings` are those of the world's own.
    init(
        seed: UInt64, diskFailsOneIn: Int, settings: (inout SeededRandom) -> [(String, String)]
    ) throws {
        simulated = SimulatedWorld(seed: seed)
        var random = simulated.makeRandom("script")
        hasDiskFaults = random.chance(1, in: diskFailsOneIn)
        host = simulated.makeHost("broker", loops: 1 + random.below(2))
        clients = [simulated.makeHost("client-1"), simulated.makeHost("client-2")]
        simulated.network.powerCutSilence = .milliseconds(100)
        stage = Stage(simulated, broker: SocketAddress(host: host.address, port: Self.port))
        stage.burstEnd = .max
        let all = [
            ("listeners", "PLAINTEXT://\(host.address):\(Self.port)"), ("log.dirs", "/data/log"),
            ("martlet.keeper.dir", "/data/keeper"), ("offsets.topic.replication.factor", "1"),
            ("offsets.topic.num.partitions", "\(1 + random.below(2))"),
        ]
        config = try BrokerConfig.resolve(overrides: all + settings(&random))
        self.random = random
    }

    var story: Story { Story(history: simulated.history, told: record.digest) }

    // MARK: One life after the other

    /// Starts it, again where the power goes while it starts. False where it cannot be started.
    func start() -> Bool {
        for _ in 0..<Self.startAttemptsLimit {
            if random.chance(1, in: 8) { host.powerCut(afterDiskOperations: 1 + random.below(40)) }
            life = BrokerLife(simulated, host, config)
            switch life.start() {
            case .serves: return true
            case .hung:
                record.broken("the broker did not come to the end of its start")
                return false
            case .failed(let sentence) where !hasDiskFaults:
                record.broken("the broker did not start: \(sentence)")
                return false
            case .failed, .died: break
            }
            end(host.isAlive ? .kill : .powerCut)
        }
        record.broken("the broker did not start in \(Self.startAttemptsLimit) attempts")
        return false
    }

    func stop() {
        if !life.stop() { record.broken("the broker did not come to the end of its stop") }
    }

    private func end(_ end: LifeEnd) {
        switch end {
        case .stop, .kill: host.kill()
        case .powerCut: host.powerCut()
        }
        record.note(.ended(end))
        host = host.restart()
        host.files.heal()
        host.files.capacityBytes = Self.roomyBytes
    }

    /// A few lives, up to one that nothing has befallen yet. False where it cannot be started again.
    func passLives() -> Bool {
        for _ in 0..<1 + random.below(3) {
            live()
            guard start() else { return false }
        }
        simulated.run(for: .milliseconds(Int64(random.below(400))))
        return true
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
            if !hasDiskFaults { record.broken("a broker on a sound disk gave up: \(sentence)") }
            return end(.kill)
        }
        if !host.isAlive { return end(.powerCut) }
        switch choice {
        case 0..<4: end(.powerCut)
        case 4..<6: end(.kill)
        default:
            stop()
            end(choice == 6 ? .powerCut : .stop)
        }
    }

    /// Nothing fails any more. A broker whose disk has failed it is started again, on one that is sound; false where it cannot
    /// be.
    func comeToRest() -> Bool {
        stage.isCalm = true
        simulated.network.heal()
        guard hasDiskFaults else { return true }
        end(.kill)
        return start()
    }

    /// One more end when all is calm, in one of so many seeds, and what is there is looked at once more.
    func endOnceMore(oneIn chance: Int, thenLook look: () -> Void) -> Bool {
        guard random.chance(1, in: chance) else { return true }
        end(random.chance(1, in: 2) ? .kill : .powerCut)
        guard start() else { return false }
        look()
        return true
    }

    /// Clients come to their end.
    func sendClientsHome() -> Bool {
        stage.isOver = true
        if simulated.run(atMost: Self.patience, until: { self.stage.running.isEmpty }) { return true }
        record.broken("these clients wait for answers that never come: \(stage.running)")
        return false
    }

    // MARK: What fails

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

    /// For a while nothing comes through to the broker from one machine, or neither way: what clients asked long ago arrives
    /// late.
    private func hurtTheNetwork() {
        let (host, client) = (self.host, someClient())
        let moment = Interval.milliseconds(Int64(random.below(400)))
        let span = Interval.milliseconds(Int64(50 + random.below(700)))
        let isOneWay = random.chance(1, in: 2)
        simulated.after(moment) { [self] in
            guard !stage.isCalm else { return }
            if isOneWay { simulated.network.stall(from: client, to: host) } else { simulated.network.partition(client, host) }
        }
        simulated.after(moment + span) { [self] in simulated.network.heal(client, host) }
    }

    // MARK: Clients of the world itself

    /// Topics, made by a client that tries until it is done. False where that cannot be.
    func make(_ topics: [(name: String, partitions: Int32)]) -> Bool {
        let isDone = Box(false)
        let client = stage.client("administrator", on: clients[0])
        clients[0].loops[0].spawn { [stage] in
            for topic in topics {
                while true {
                    do throws(ClientFault) {
                        if !client.isConnected { try await client.connect(to: stage.broker) }
                        let error = try await client.createTopic(topic.name, partitions: topic.partitions).errorCode
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
                record.broken("topics cannot be made")
                return false
            }
            end(.powerCut)
            guard start() else { return false }
        }
        return true
    }

    /// A client that was not there before looks at what is there, when nothing fails any more.
    func look(_ body: @escaping @Sendable (SimulatedClient) async throws(ClientFault) -> Void) {
        let reader = stage.client("last-reader", on: clients[1])
        do {
            let hasEnded = try clients[1].run(atMost: Self.patience) { [stage] in
                defer { reader.close() }
                try await reader.connect(to: stage.broker)
                try await body(reader)
            }
            if !hasEnded { record.broken("the last reader waits for answers that never come") }
        } catch {
            record.broken("the last reader: \(error)")
        }
    }
}
