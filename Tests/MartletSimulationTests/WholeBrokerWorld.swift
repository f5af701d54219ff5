import MartletBasics
import MartletBroker
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// One broker on a machine that fails, and its clients on machines that do not: several lives of the broker on one
/// disk, each ended as the seed says, and then a comparison of all that is there with all that was told.
final class WholeBrokerWorld: @unchecked Sendable {
    struct Story: Equatable {
        var history: UInt64
        var told: UInt64
    }

    /// Virtual time in which clients come to their end.
    private static let patience = Interval.seconds(40)
    private static let startAttemptsLimit = 8

    let simulated: SimulatedWorld
    let audience: Audience
    let hasDiskFaults: Bool
    private(set) var host: SimulatedHost
    private let clients: [SimulatedHost]
    private var random: SeededRandom
    private var life: BrokerLife!
    private let config: BrokerConfig
    private var topics: [(name: String, partitions: Int32)] = []

    private var ledger: Ledger { audience.ledger }
    private var files: SimulatedFileSystem { host.files }

    init(seed: UInt64, keepsLines: Bool = false) throws {
        simulated = SimulatedWorld(seed: seed, keepsLines: keepsLines)
        random = simulated.makeRandom("script")
        hasDiskFaults = random.chance(1, in: 4)
        host = simulated.makeHost("broker", loops: 1 + random.below(2))
        clients = [simulated.makeHost("client-1"), simulated.makeHost("client-2")]
        simulated.network.powerCutSilence = .milliseconds(300)
        audience = Audience(brokerAddress: host.address)
        let directories = random.chance(1, in: 2) ? "/data/a" : "/data/a,/data/b"
        config = try BrokerConfig.resolve(overrides: [
            ("listeners", "PLAINTEXT://\(host.address):\(Audience.brokerPort)"), ("log.dirs", directories),
            ("martlet.keeper.dir", "/data/keeper"), ("auto.create.topics.enable", "false"),
            ("log.segment.bytes", "\(4096 << random.below(5))"),
        ])
    }

    /// The whole story of a seed. What was wrong is in the ledger.
    static func tell(seed: UInt64) throws -> (story: Story, ledger: Ledger) {
        let world = try WholeBrokerWorld(seed: seed)
        defer { world.simulated.end() }
        world.run()
        return (Story(history: world.simulated.history, told: world.ledger.digest), world.ledger)
    }

    func run() {
        startClients()
        for _ in 0..<2 + random.below(3) {
            guard startBroker() else { return }
            live()
        }
        files.heal()
        files.capacityBytes = 1 << 40
        guard startBroker() else { return }
        simulated.run(for: .milliseconds(40))
        audience.isOver = true
        guard simulated.run(atMost: Self.patience, until: { audience.runningCount == 0 }) else {
            return ledger.violated("these clients do not come to their end: \(audience.running)")
        }
        readEverything()
        ledger.closeRecords()
        stopBroker()
    }

    // MARK: The broker

    /// Starts it, again where the power goes while it starts. False where it cannot be started.
    private func startBroker() -> Bool {
        for _ in 0..<Self.startAttemptsLimit {
            if random.chance(1, in: 6) { host.powerCut(afterDiskOperations: 1 + random.below(40)) }
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
            files.heal()
            files.capacityBytes = 1 << 40
            end(host.isAlive ? .kill : .powerCut)
        }
        ledger.violated("the broker did not start in \(Self.startAttemptsLimit) attempts")
        return false
    }

    private func end(_ end: Ledger.End) {
        ledger.lifeEnded(end)
        switch end {
        case .stop, .kill: host.kill()
        case .powerCut: host.powerCut()
        }
        host = host.restart()
    }

    private func stopBroker() {
        if !life.stop() { ledger.violated("the broker did not come to the end of its stop") }
    }

    private func live() {
        if hasDiskFaults { hurtTheDisk() }
        let host = self.host
        let span = Interval.milliseconds(Int64(20 + random.below(160)))
        let choice = random.below(8)
        if choice < 3 { host.powerCut(afterDiskOperations: 20 + random.below(400)) }
        _ = simulated.run(atMost: span) { !host.isAlive || life.lastWords != nil }
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
            // what a clean stop left outlives the power; one on a disk that failed may not be clean
            ledger.lifeEnded(!hasDiskFaults ? .stop : choice == 6 ? .powerCut : .kill)
            if choice == 6 { host.powerCut() }
            self.host = host.restart()
        }
    }

    /// A full disk for a while, or a write that fails. What the life did not live to see does not happen: the last
    /// broker has a sound disk.
    private func hurtTheDisk() {
        let (files, ledger, life) = (self.files, self.ledger, self.ledger.life)
        let moment = Interval.milliseconds(Int64(random.below(120)))
        if random.chance(1, in: 2) {
            let room = Int64(random.below(64 << 10))
            let span = Interval.milliseconds(Int64(10 + random.below(60)))
            simulated.after(moment) { if ledger.life == life { files.capacityBytes = files.usedBytes + room } }
            simulated.after(moment + span) { files.capacityBytes = 1 << 40 }
        } else {
            simulated.after(moment) { if ledger.life == life { files.fail(.write, of: "/data/", with: .inputOutput) } }
        }
    }

    // MARK: The clients

    private func startClients() {
        let topicsCount = 1 + random.below(2)
        var orders: [Administrator.Order] = []
        for index in 0..<topicsCount {
            let topic = (name: "topic-\(index)", partitions: Int32(1 + random.below(3)))
            topics.append(topic)
            orders.append(.make(topic.name, partitions: topic.partitions))
        }
        for index in 0..<4 + random.below(6) {
            orders.append(.make("passing-\(index)", partitions: Int32(1 + random.below(2))))
            if random.chance(1, in: 2) { orders.append(.delete("passing-\(random.below(index + 1))")) }
        }
        orders = Self.withoutSecondDeletions(orders)
        let administrator = Administrator(
            audience, SimulatedClient("administrator", on: clients[0]), orders, random: simulated.makeRandom("administrator"))
        audience.start("the administrator", on: clients[0].loops[0]) { await administrator.run() }
        for index in 0..<2 + random.below(3) { startSender(index) }
        for (index, topic) in topics.enumerated() {
            let host = clients[index % clients.count]
            let reader = Reader(
                audience, SimulatedClient("reader-\(index)", on: host), topic: topic.name, partitions: topic.partitions,
                random: simulated.makeRandom("reader-\(index)"))
            audience.start("reader \(index)", on: host.loops[0]) { await reader.run() }
        }
        guard config.logDirs.count > 1 else { return }
        let mover = Mover(
            audience, SimulatedClient("mover", on: clients[1]), directories: config.logDirs, topics: topics,
            random: simulated.makeRandom("mover"))
        audience.start("the mover", on: clients[1].loops[0]) { await mover.run() }
    }

    /// A topic is deleted once, and not made again.
    private static func withoutSecondDeletions(_ orders: [Administrator.Order]) -> [Administrator.Order] {
        var deleted: Set<String> = []
        return orders.filter { order in
            guard case .delete(let name) = order else { return true }
            return deleted.insert(name).inserted
        }
    }

    private func startSender(_ index: Int) {
        let host = clients[index % clients.count]
        let topic = topics[random.below(topics.count)]
        // the first is always idempotent; of the others acks vary
        let isIdempotent = index == 0 || random.chance(1, in: 3)
        let acks: Int16 = isIdempotent ? -1 : [-1, 1, 1, 0][random.below(4)]
        let sender = Sender(
            audience, SimulatedClient("sender-\(index)", on: host), topic: topic.name, partitions: topic.partitions,
            acks: acks, isIdempotent: isIdempotent, codec: CompressionCodec.allCases[random.below(5)],
            random: simulated.makeRandom("sender-\(index)"))
        audience.start("sender \(index)", on: host.loops[0]) { await sender.run() }
    }

    /// A client that was not there before reads all topics from their beginning.
    private func readEverything() {
        let isDone = Box(false)
        let reader = SimulatedClient("last-reader", on: clients[1])
        let random = simulated.makeRandom("last-reader")
        clients[1].loops[0].spawn { [self] in
            do throws(ClientFault) {
                try await reader.connect(to: audience.broker)
                let found = try await reader.metadata()
                ledger.sawTopics(found.topics.map { ($0.name ?? "", $0.topicID, $0.partitions.count) })
                for topic in topics {
                    let last = Reader(audience, reader, topic: topic.name, partitions: topic.partitions, random: random)
                    while try await !last.readToTheEnd() { await reader.loop.sleep(for: .milliseconds(20)) }
                }
            } catch {
                ledger.violated("the last reader: \(error)")
            }
            reader.close()
            isDone.value = true
        }
        guard simulated.run(atMost: Self.patience, until: { isDone.value }) else {
            return ledger.violated("the last reader waits for answers that never come")
        }
    }
}
