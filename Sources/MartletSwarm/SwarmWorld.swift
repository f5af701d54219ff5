package import MartletBasics
import MartletBroker
package import MartletChecker
import MartletModel
package import MartletReactor
import MartletSimulation

/// What a seed switches on.
struct SwarmPlan {
    var workload: Set<Workload> = []
    var faults: [FaultKind] = []

    /// Each of both with a chance of its own: a run with everything at once hides what a run with little shows.
    init(_ random: inout SeededRandom) {
        for one in Workload.allCases where random.chance(1, in: 2) { workload.insert(one) }
        for one in FaultKind.allCases where one != .tornPage && random.chance(1, in: 3) { faults.append(one) }
        if faults.isEmpty { faults = [.kill] }
    }
}

/// One run of the swarm: a whole broker with its keeper on a machine that fails, and many clients on machines that do not.
/// 120 seconds of virtual time in several lives of the broker, each ended as the seed says; then nothing fails any more, and
/// everything that is there is read, and once more after the power was cut.
package final class SwarmWorld: @unchecked Sendable {
    /// What a run came to.
    package struct Report: Sendable {
        package var seed: UInt64
        /// The hash of all that happened in the world, and of all that clients were told.
        package var history: UInt64
        package var told: UInt64
        package var verdicts: [Verdict]
        package var events: [HistoryEvent]
        package var answered: [Int16: Int]
        package var advertised: [Int16]
        package var faults: [FaultKind: Int]
        package var acknowledgedCount: Int
        package var seenCount: Int
        package var damageDetectedCount: Int
        package var livesCount: Int
        /// How often a reader found that the cleaner had taken something.
        package var gapsCount: Int
        package var transactionsCount: (committed: Int, aborted: Int)
        package var resendsCount: (all: Int, written: Int)
        /// How much virtual time passed.
        package var virtualSeconds: Int

        /// Whether it came to anything at all.
        package var triedSomething: Bool { acknowledgedCount > 0 && seenCount > 0 }
        package var answersCount: Int { answered.values.reduce(0, +) }
    }

    /// Who is told of a run as it goes, so that also one that comes to no end leaves something.
    package struct Listener {
        /// What clients asked, were told and saw, with faults and the broker's log.
        var onEvent: (HistoryEvent) -> Void
        /// What happened in the world.
        var onLine: (String) -> Void

        package init(onEvent: @escaping (HistoryEvent) -> Void, onLine: @escaping (String) -> Void) {
            self.onEvent = onEvent
            self.onLine = onLine
        }
    }

    /// How much virtual time passes before nothing fails any more, where nobody wants less.
    package static let spanUsual = Interval.seconds(112)
    /// Virtual time in which clients come to their end.
    static let patience = Interval.seconds(120)
    private static let startAttemptsLimit = 8
    static let port: UInt16 = 9092
    static let roomyBytes: Int64 = 1 << 40
    /// Answers of a life that has ended, or of a moment when the disk was full, come after that.
    static let stragglers = Interval.seconds(1)
    /// What is armed has so long to fall, and when there is room again, so long to be used.
    private static let armedPatience = Interval.seconds(8)
    private static let roomPatience = Interval.seconds(40)
    /// A partition for which there was no room is there so long after there is some.
    private static let makingPatience = Interval.seconds(10)
    /// How often it is looked whether the groups have settled.
    private static let look = Interval.milliseconds(500)

    let simulated: SimulatedWorld
    let stage: Stage
    let plan: SwarmPlan
    private let span: Interval
    let clients: [SimulatedHost]
    let config: BrokerConfig
    private(set) var host: SimulatedHost
    var random: SeededRandom
    private(set) var life: BrokerLife!
    private var livesCount = 0
    /// Until when a stall or partition lasts that outlasts its burst.
    var blockEnd: Int64 = 0
    var hurt = DiskHurt()
    var armed: ArmedFault?
    /// How many calls of the disk ran into a fault.
    var diskFaultsCount = 0
    /// The power is to go while the broker starts next.
    var cutsNextStart = false
    /// What the disk is to do while the broker starts next.
    var hurtsNextStart: (() -> Void)?
    /// Nothing is synced when it stops next.
    var failsNextStop = false
    private(set) var groups: [GroupMembers.Group] = []
    let members: GroupMembers
    let transactors: SwarmTransactors
    private let sink: any LogSink

    var record: Recorder { stage.record }
    var files: SimulatedFileSystem { host.files }

    package init(
        seed: UInt64, planted: PlantedBugs = [], listener: Listener? = nil, span: Interval = SwarmWorld.spanUsual
    ) throws {
        self.span = span
        simulated = SimulatedWorld(seed: seed, onLine: listener?.onLine)
        var random = simulated.makeRandom("script")
        plan = SwarmPlan(&random)
        host = simulated.makeHost("broker", loops: plan.workload.contains(.severalLoops) ? 2 : 1)
        host.planted = planted
        clients = [simulated.makeHost("client-1"), simulated.makeHost("client-2")]
        simulated.network.powerCutSilence = .milliseconds(300)
        stage = Stage(
            simulated, broker: SocketAddress(host: host.address, port: Self.port), machines: clients.count)
        members = GroupMembers(stage)
        // what a coordinator ends by its clock waits for ever where that is turned back
        let clocks: [FaultKind] = [.clockBack, .clockDrift]
        transactors = SwarmTransactors(stage, mayAbandon: !plan.faults.contains { clocks.contains($0) })
        stage.record.onEvent = listener?.onEvent
        sink = listener != nil ? LogNotes(stage.record) : SilentLog()
        var settings = [
            ("listeners", "PLAINTEXT://\(host.address):\(Self.port)"),
            ("log.dirs", plan.workload.contains(.moves) || random.chance(1, in: 2) ? "/data/a,/data/b" : "/data/a"),
            ("martlet.keeper.dir", "/data/keeper"),
            ("auto.create.topics.enable", "false"), ("offsets.topic.replication.factor", "1"),
            ("offsets.topic.num.partitions", "\(1 + random.below(3))"), ("log.retention.ms", "-1"),
            ("group.min.session.timeout.ms", "100"),
            ("group.initial.rebalance.delay.ms", random.chance(1, in: 2) ? "0" : "500"),
            // clocks jump
            ("log.message.timestamp.after.max.ms", "\(Int64.max)"), ("log.message.timestamp.before.max.ms", "\(Int64.max)"),
        ]
        if plan.workload.contains(.smallSegments) {
            settings += [
                ("log.segment.bytes", "\(2048 << random.below(4))"),
                ("offsets.topic.segment.bytes", "\(2048 << random.below(6))"),
            ]
        }
        if plan.workload.contains(.transactions) {
            settings += [
                ("transaction.state.log.num.partitions", "\(1 + random.below(3))"),
                ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500"),
            ]
        }
        if plan.workload.contains(.compaction) {
            settings += [("log.cleaner.backoff.ms", ["200", "1000", "4000"][random.below(3)])]
        }
        config = try BrokerConfig.resolve(overrides: settings)
        self.random = random
        if plan.workload.contains(.scarceMemory) { files.evictionOneIn = 4 }
        files.onFault = { [unowned self] in diskRefused($0, $1, $2) }
    }

    /// The whole run of a seed, judged.
    package static func run(
        seed: UInt64, planted: PlantedBugs = [], listener: Listener? = nil, span: Interval = SwarmWorld.spanUsual
    ) throws -> Report {
        let world = try SwarmWorld(seed: seed, planted: planted, listener: listener, span: span)
        defer { world.simulated.end() }
        world.run()
        for sentence in world.members.ledger.violations { world.record.broken(sentence) }
        if world.files.tornPagesCount > 0 { world.record.fell(.tornPage) }
        let record = world.record
        return Report(
            seed: seed, history: world.simulated.history, told: record.digest, verdicts: Checks.judge(record.events),
            events: record.events, answered: record.answered, advertised: record.advertised, faults: record.faults,
            acknowledgedCount: record.acknowledgedCount, seenCount: record.seenCount,
            damageDetectedCount: record.damageDetectedCount, livesCount: world.livesCount,
            gapsCount: record.gapsCount, transactionsCount: record.transactionsCount, resendsCount: record.resendsCount,
            virtualSeconds: Int(world.simulated.now.nanoseconds / 1_000_000_000))
    }

    private func run() {
        stage.nextBurst = 1_000_000_000
        stage.burstEnd = 1_200_000_000
        startClients()
        guard startBroker() else { return }
        while simulated.now.nanoseconds < span.nanoseconds {
            stage.nextBurst = simulated.now.nanoseconds + Int64(3_000 + random.below(9_000)) * 1_000_000
            stage.burstEnd = stage.nextBurst + Int64(60 + random.below(240)) * 1_000_000
            guard passBurst() else { return }
        }
        guard comeToRest() else { return }
        waitForTransactions(transactors.patience)
        readEverything("last")
        let isPowerCut = random.chance(2, in: 3)
        end(isPowerCut ? .powerCut : .kill)
        guard startBroker() else { return }
        waitForTransactions(.seconds(4))
        readEverything("very-last")
        stopBroker()
    }

    // MARK: The broker

    /// Starts it, again where the power goes while it starts. False where it cannot be started.
    func startBroker() -> Bool {
        for _ in 0..<Self.startAttemptsLimit {
            livesCount += 1
            stage.life = livesCount
            let isCut = cutsNextStart || (plan.faults.contains(.powerCutAtStart) && random.chance(1, in: 4))
            cutsNextStart = false
            if isCut, !stage.isCalm { host.powerCut(afterDiskOperations: random.below(40)) }
            if !stage.isCalm { hurtsNextStart?() }
            hurtsNextStart = nil
            life = BrokerLife(simulated, host, config, sink: sink)
            let outcome = life.start()
            takeArmed()
            switch outcome {
            case .serves:
                heal()
                return true
            case .hung:
                record.broken("the broker did not come to the end of its start")
                return false
            case .failed where mayGiveUp:
                end(.kill)
                continue
            case .failed(let sentence):
                record.broken("the broker did not start: \(sentence)")
                return false
            case .died: record.fell(.powerCutAtStart)
            }
            end(.powerCut)
        }
        record.broken("the broker did not start in \(Self.startAttemptsLimit) attempts")
        return false
    }

    /// Ends the life, whether it still lasts or not, and takes the machine up again.
    func end(_ how: LifeEnd) {
        switch how {
        case .stop, .kill: host.kill()
        case .powerCut: host.powerCut()
        }
        // what acks=1 was told of a disk that failed is not safe, however the life ends
        record.note(.ended(hurt.losesWrites ? .powerCut : how))
        hurt = DiskHurt()
        stage.unmade = []
        host = host.restart()
        heal()
        stage.storageFailsUntil = simulated.now.nanoseconds + Self.stragglers.nanoseconds
    }

    func heal() {
        host.forgetCountdowns()
        files.heal()
        files.capacityBytes = Self.roomyBytes
        files.shortOneIn = 0
        files.syncLatency = Latency(.microseconds(150), .microseconds(900), slowOneIn: 32, slowest: .milliseconds(20))
        files.writeLatency = Latency(.microseconds(2), .microseconds(40), slowOneIn: 64, slowest: .milliseconds(4))
        files.readLatency = Latency(.microseconds(2), .microseconds(400), slowOneIn: 64, slowest: .milliseconds(8))
        simulated.network.latency = Latency(.microseconds(60), .microseconds(250), slowOneIn: 128, slowest: .milliseconds(5))
        simulated.network.heal()
    }

    func stopBroker() {
        if !life.stop() { record.broken("the broker did not come to the end of its stop") }
    }

    /// Waits for the burst, lets a fault fall in it, and goes on to its end. False where nothing can go on.
    private func passBurst() -> Bool {
        simulated.run(until: Instant(nanoseconds: stage.nextBurst))
        guard host.isAlive, life.lastWords == nil else { return goOn(after: nil) }
        let fault = plan.faults[random.below(plan.faults.count)]
        var ends: LifeEnd?
        for _ in 0..<(fault.isMomentary ? 1 + random.below(3) : 1) {
            if fault.hurtsRequests { waitForRequests() }
            ends = inject(fault)
        }
        runBurst(until: stage.burstEnd)
        // some blocks outlast sessions
        if blockEnd > simulated.now.nanoseconds { runBurst(until: blockEnd) }
        awaitFall()
        takeArmed()
        return goOn(after: ends)
    }

    /// What waits for a call has some time more, and then what comes of it.
    private func awaitFall() {
        guard let armed, armed.kind.awaitsCall, !armed.hasFallen() else { return }
        let (host, life) = (self.host, self.life!)
        let isOver = { !host.isAlive || life.lastWords != nil }
        _ = simulated.run(atMost: Self.armedPatience) { armed.hasFallen() || isOver() }
        if armed.hasFallen() { _ = simulated.run(atMost: .milliseconds(Int64(random.below(400))), until: isOver) }
    }

    private func takeArmed() {
        if let armed, armed.hasFallen() { record.fell(armed.kind) }
        armed = nil
    }

    private func runBurst(until end: Int64) {
        let (host, life) = (self.host, self.life!)
        let length = Interval.nanoseconds(max(end - simulated.now.nanoseconds, 0))
        _ = simulated.run(atMost: length) { !host.isAlive || life.lastWords != nil }
    }

    /// To some moment of the burst when a producer that numbers its batches waits for an answer: its request is on its way,
    /// under way or answered.
    private func waitForRequests() {
        let left = max(Int(stage.burstEnd - simulated.now.nanoseconds), 1)
        simulated.run(for: .nanoseconds(Int64(random.below(left / 2 + 1))))
        let rest = Interval.nanoseconds(max(stage.burstEnd - simulated.now.nanoseconds, 0))
        _ = simulated.run(atMost: rest) { self.stage.unanswered.contains { $0 > 0 } }
        simulated.run(for: .microseconds(Int64(random.below(1_500))))
    }

    /// `planned`: how this life is to end; nil where it goes on.
    private func goOn(after planned: LifeEnd?) -> Bool {
        if let sentence = life.lastWords {
            if !mayGiveUp { record.broken("the broker gave up, and could have gone on: \(sentence)") }
            end(.kill)
            return startBroker()
        }
        guard host.isAlive else {
            end(host.hasPower ? .kill : .powerCut)
            return startBroker()
        }
        heal()
        guard let planned else {
            useRoom()
            return true
        }
        if planned == .stop {
            if failsNextStop { files.fail(.syncFileSystem, with: .inputOutput) }
            stopBroker()
            if failsNextStop, !hurt.failed.isEmpty { record.fell(.failedSync) }
            failsNextStop = false
        }
        end(planned)
        if plan.faults.contains(.bitRot), random.chance(1, in: 2) { rot() }
        return startBroker()
    }

    /// Where the disk was full, and there is room again: what was refused is taken.
    private func useRoom() {
        guard hurt.wasFull, hurt.failed.isEmpty else { return }
        hurt.wasFull = false
        stage.storageFailsUntil = simulated.now.nanoseconds + Self.stragglers.nanoseconds
        stage.unmadeUntil = simulated.now.nanoseconds + Self.makingPatience.nanoseconds
        let before = record.acknowledgedBatchesCount
        let (host, life) = (self.host, self.life!)
        let isUsed = simulated.run(atMost: Self.roomPatience) {
            record.acknowledgedBatchesCount > before || !host.isAlive || life.lastWords != nil
        }
        if !isUsed { record.broken("there is room on the disk again, and nothing is acknowledged") }
    }

    /// Nothing fails any more; clients come to their end.
    private func comeToRest() -> Bool {
        heal()
        stage.isCalm = true
        host.wallDrift = 0
        if !hurt.failed.isEmpty {
            end(.kill)
            guard startBroker() else { return false }
        }
        simulated.run(for: .seconds(8))
        guard host.isAlive, life.lastWords == nil else {
            record.broken("the broker gave up when nothing failed any more: \(life.lastWords ?? "it is dead")")
            return false
        }
        for group in groups { members.settle(group, look: Self.look) { members.believed(group) } }
        stage.isOver = true
        guard simulated.run(atMost: Self.patience, until: { self.stage.running.isEmpty }) else {
            record.broken("these clients do not come to their end: \(stage.running)")
            return false
        }
        return true
    }

    /// No producer is there any more: after a while no transaction is open.
    private func waitForTransactions(_ patience: Interval) {
        guard plan.workload.contains(.transactions) else { return }
        simulated.run(for: patience)
        record.note(.transactionsOver)
    }

    // MARK: The clients

    private func startClients() {
        for index in 0..<1 + random.below(2) {
            stage.topics.append(StageTopic(name: "topic-\(index)", partitions: Int32(1 + random.below(3))))
        }
        let soundCount = stage.topics.count
        if plan.workload.contains(.compaction) { stage.topics.append(makeCompacted()) }
        if plan.faults.contains(.bitRot) { stage.topics.append(StageTopic(name: "rotting", partitions: 1, mayRot: true)) }
        let administrator = SwarmAdministrator(
            stage, stage.client("administrator", on: clients[0]), workload: plan.workload,
            random: simulated.makeRandom("administrator"))
        stage.start("administrator", on: clients[0].loops[0]) { await administrator.run() }
        for index in 0..<2 + random.below(3) { startProducer(index, topic: random.below(soundCount)) }
        for index in soundCount..<stage.topics.count {
            startProducer(7 + index, topic: index, mustFinish: !stage.topics[index].mayRot)
        }
        if plan.workload.contains(.transactions) { startTransactors() }
        for index in stage.topics.indices {
            for reader in 0..<1 + random.below(2) { startConsumer("consumer-\(index)-\(reader)", topic: index) }
        }
        if plan.workload.contains(.probes) || plan.workload.contains(.moves) {
            let probes = SwarmProbes(
                stage, stage.client("probes", on: clients[1]), directories: config.logDirs,
                moves: plan.workload.contains(.moves), random: simulated.makeRandom("probes"))
            stage.start("probes", on: clients[1].loops[0]) { await probes.run() }
        }
        if plan.workload.contains(.groups) { startGroups() }
    }

    /// With settings that have it cleaned again and again.
    private func makeCompacted() -> StageTopic {
        StageTopic(
            name: "compacted", partitions: Int32(1 + random.below(2)),
            compaction: [
                ("cleanup.policy", "compact"), ("segment.bytes", "\(1024 << random.below(4))"),
                ("min.cleanable.dirty.ratio", ["0.0", "0.2", "0.5"][random.below(3)]),
                ("delete.retention.ms", ["0", "1000", "10000"][random.below(3)]),
            ])
    }

    private func startTransactors() {
        for _ in 0..<1 + random.below(2) {
            let id = transactors.addID(&random)
            let versions = TransactionVersions.all[random.below(TransactionVersions.all.count)]
            transactors.start(id, on: clients[random.below(clients.count)], versions)
        }
    }

    private func startProducer(_ index: Int, topic: Int, mustFinish: Bool = true) {
        let host = clients[index % clients.count]
        // the first is always idempotent; of the others acks vary
        let isIdempotent = mustFinish && (index == 0 || random.chance(1, in: 3))
        let acks: Int16 = isIdempotent || !mustFinish ? -1 : [-1, 1, 1, 0][random.below(4)]
        let name = "producer-\(index)"
        let producer = SwarmProducer(
            stage, stage.client(name, on: host), machine: index % clients.count, topic: topic, acks: acks,
            isIdempotent: isIdempotent, codec: CompressionCodec.allCases[random.below(5)], random: simulated.makeRandom(name))
        stage.start(name, on: host.loops[0]) { await producer.run() }
    }

    private func startConsumer(_ name: String, topic: Int) {
        let host = clients[topic % clients.count]
        let manner = SwarmConsumer.Manner(
            keepsSessions: plan.workload.contains(.fetchSessions) && random.chance(2, in: 3),
            waitsLong: plan.workload.contains(.longPolls),
            isCommitted: random.chance(plan.workload.contains(.transactions) ? 2 : 1, in: 3))
        let consumer = SwarmConsumer(
            stage, stage.client(name, on: host), topic: topic, manner: manner, random: simulated.makeRandom(name))
        stage.start(name, on: host.loops[0]) { await consumer.run() }
    }

    private func startGroups() {
        for index in 0..<1 + random.below(2) {
            let topic = stage.topics[index % stage.topics.count]
            groups.append(
                GroupMembers.Group(
                    name: "group-\(index)", topic: topic.name, partitions: topic.partitions,
                    sessionMs: Int32(7_000 + random.below(6_000)), rebalanceMs: Int32(4_000 + random.below(6_000))))
        }
        for group in groups {
            for index in 0..<1 + random.below(4) {
                let versions = GroupVersions.all[random.below(GroupVersions.all.count)]
                let instance = random.chance(1, in: 3) ? "\(group.name)-instance-\(index)" : nil
                members.start(
                    group, on: clients[random.below(clients.count)], instance: instance,
                    versions: instance == nil ? versions : .newest)
            }
        }
    }
}
