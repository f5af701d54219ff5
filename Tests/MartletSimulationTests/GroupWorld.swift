import MartletBasics
import MartletBroker
import MartletModel
import MartletReactor
import MartletSimulation
import MartletSwarm

/// One broker on a machine that fails, and groups whose members come and go: several lives of the broker on one disk,
/// each ended as the seed says; then nothing fails any more, every group must settle, and what is committed is read
/// from the broker and, once more, from the one after it.
final class GroupWorld: @unchecked Sendable {
    struct Story: Equatable {
        var history: UInt64
        var told: UInt64
    }

    private enum End { case stop, kill, powerCut }

    private static let port: UInt16 = 9092
    private static let roomyBytes: Int64 = 1 << 40
    /// Virtual time in which clients come to their end.
    private static let patience = Interval.seconds(40)
    private static let startAttemptsLimit = 8
    /// How often it is looked whether the groups have settled, and how many looks in a row must find the same.
    private static let look = Interval.milliseconds(100)
    private static let looksLimit = 300
    private static let steadyLooks = 10

    let simulated: SimulatedWorld
    let stage: GroupStage
    private var host: SimulatedHost
    private let clients: [SimulatedHost]
    private let hasDiskFaults: Bool
    private var random: SeededRandom
    private var life: BrokerLife!
    private let config: BrokerConfig
    private var groups: [GroupStage.Group] = []

    private var ledger: GroupLedger { stage.ledger }

    init(seed: UInt64, keepsLines: Bool = false) throws {
        simulated = SimulatedWorld(seed: seed, keepsLines: keepsLines)
        random = simulated.makeRandom("script")
        hasDiskFaults = random.chance(1, in: 5)
        host = simulated.makeHost("broker", loops: 1 + random.below(2))
        clients = [simulated.makeHost("client-1"), simulated.makeHost("client-2")]
        simulated.network.powerCutSilence = .milliseconds(100)
        stage = GroupStage(simulated, broker: SocketAddress(host: host.address, port: Self.port))
        config = try BrokerConfig.resolve(overrides: [
            ("listeners", "PLAINTEXT://\(host.address):\(Self.port)"), ("log.dirs", "/data/log"),
            ("martlet.keeper.dir", "/data/keeper"),
            ("offsets.topic.num.partitions", "\(1 + random.below(2))"), ("offsets.topic.replication.factor", "1"),
            ("offsets.topic.segment.bytes", "\(2048 << random.below(8))"), ("group.min.session.timeout.ms", "100"),
            ("group.consumer.min.session.timeout.ms", "100"),
            ("group.consumer.session.timeout.ms", "\(200 + random.below(200))"),
            ("group.consumer.min.heartbeat.interval.ms", "10"), ("group.consumer.heartbeat.interval.ms", "50"),
            ("group.consumer.assignment.interval.ms", random.chance(1, in: 2) ? "0" : "40"),
            ("group.initial.rebalance.delay.ms", random.chance(1, in: 2) ? "0" : "60"),
        ])
        for index in 0..<1 + random.below(2) {
            groups.append(
                GroupStage.Group(
                    name: "group-\(index)", topic: "topic-\(index)", partitions: Int32(1 + random.below(5)),
                    sessionMs: Int32(200 + random.below(200)), rebalanceMs: Int32(200 + random.below(400)),
                    isMixed: random.chance(1, in: 2)))
        }
    }

    /// The whole story of a seed. What was wrong is in the ledger.
    static func tell(seed: UInt64) throws -> (story: Story, ledger: GroupLedger) {
        let world = try GroupWorld(seed: seed)
        defer { world.simulated.end() }
        world.run()
        return (Story(history: world.simulated.history, told: world.ledger.digest), world.ledger)
    }

    func run() {
        guard startBroker(), makeTopics() else { return }
        for group in groups { startMembers(of: group) }
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
        settle()
        readEverything()
        if random.chance(1, in: 2) {
            end(random.chance(1, in: 2) ? .kill : .powerCut)
            guard startBroker() else { return }
            settle()
            readEverything()
        }
        stage.isOver = true
        guard simulated.run(atMost: Self.patience, until: { self.stage.runningCount == 0 }) else {
            return ledger.violated("members wait for answers that never come")
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
        ledger.lifeEnded()
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

    /// A full disk for a while, or a write that fails: some commits and assignments cannot be written.
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

    /// For a while nothing comes through to the broker from one machine, or neither way: what members asked long ago
    /// arrives late.
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

    // MARK: The groups

    /// Done by a client that tries until it is done; only then is there something to be in a group for.
    private func makeTopics() -> Bool {
        let isDone = Box(false)
        let client = SimulatedClient("administrator", on: clients[0])
        clients[0].loops[0].spawn { [self] in
            for group in groups {
                while true {
                    do throws(ClientFault) {
                        if !client.isConnected { try await client.connect(to: stage.broker) }
                        let error = try await client.createTopic(group.topic, partitions: group.partitions).errorCode
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

    private func startMembers(of group: GroupStage.Group) {
        for index in 0..<1 + random.below(4) {
            let versions = GroupVersions.all[random.below(GroupVersions.all.count)]
            let instance = random.chance(1, in: 3) ? "\(group.name)-instance-\(index)" : nil
            if group.isMixed {
                stage.startModern(
                    group, on: clients[random.below(clients.count)], instance: instance, isClassic: random.chance(1, in: 3))
                continue
            }
            stage.start(
                group, on: clients[random.below(clients.count)], instance: instance,
                versions: instance == nil ? versions : .newest)
        }
    }

    /// Nothing fails any more: after a while everybody has what is his, and keeps it.
    private func settle() {
        for group in groups {
            var steady = 0
            var generation: Int32 = -1
            for _ in 0..<Self.looksLimit where steady < Self.steadyLooks {
                simulated.run(for: Self.look)
                let believed = stage.believed(group)
                let isInOrder = believed.map { GroupLedger.unsettled(partitions: group.partitions, $0) == nil } ?? false
                let current = believed?.first?.generation ?? -1
                steady = isInOrder && (steady == 0 || current == generation) ? steady + 1 : 0
                generation = current
            }
            guard steady < Self.steadyLooks else { continue }
            guard let believed = stage.believed(group) else {
                return ledger.violated("\(group.name) does not settle: a member has nothing")
            }
            ledger.settled(group.name, partitions: group.partitions, believed)
            if ledger.violations.isEmpty {
                ledger.violated("\(group.name) does not settle: its generations follow each other, now \(generation)")
            }
        }
    }

    /// What is committed, asked by a client that was not there before.
    private func readEverything() {
        let isDone = Box(false)
        let reader = SimulatedClient("last-reader", on: clients[1])
        clients[1].loops[0].spawn { [self] in
            do throws(ClientFault) {
                try await reader.connect(to: stage.broker)
                for group in groups {
                    while true {
                        let asked = ledger.moment()
                        if let found = try await reader.committed(group.name, group.topic, Array(0..<group.partitions)) {
                            for one in found { ledger.read(one.offset, group.name, one.partition, asked: asked) }
                            break
                        }
                        await reader.loop.sleep(for: .milliseconds(20))
                    }
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
