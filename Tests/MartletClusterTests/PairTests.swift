import MartletBasics
import MartletCluster
import MartletKeeper
import MartletModel
import MartletReactor
import MartletSimulation
import Testing

/// Several members on one tree, whose controllers reach each other by a direct call instead of a network.
final class Brokers: @unchecked Sendable {
    let world = SimulatedWorld(seed: 5)
    let host: SimulatedHost
    private(set) var keeper: EmbeddedKeeper!
    private(set) var members: [BrokerID: ClusterMember] = [:]
    private(set) var replicas: [BrokerID: RememberedReplicas] = [:]
    private var disks: [BrokerID: RememberedReplicas.Disk] = [:]

    final class DirectChannel: ControllerChannel, @unchecked Sendable {
        private let find: () -> ClusterMember?
        init(_ find: @escaping () -> ClusterMember?) { self.find = find }
        func send(_ request: ControllerRequest) async throws(ChannelFault) -> ControllerResponse {
            guard let response = await find()?.requests.handle(request) else { throw ChannelFault("it does not answer") }
            return response
        }
        func close() {}
    }

    private let settings: [(name: String, value: String)]

    init(_ settings: [(name: String, value: String)] = []) {
        self.settings = settings
        host = world.makeHost("machine")
    }
    deinit { world.end() }

    func run(at location: SourceLocation = #_sourceLocation, _ body: @escaping @Sendable (Brokers) async throws -> Void) {
        host.finish(atMost: .seconds(600), at: location) { [self] in try await body(self) }
    }

    func start(_ id: BrokerID, at location: SourceLocation = #_sourceLocation) {
        run(at: location) { brokers in
            if brokers.keeper == nil {
                brokers.keeper = try await EmbeddedKeeper.open(
                    host: brokers.host, loop: brokers.host.loops[0], settings: KeeperSettings(directory: "/keeper"),
                    logger: Logger("keeper", to: SilentLog()))
            }
            let disk = brokers.disks[id] ?? RememberedReplicas.Disk()
            brokers.disks[id] = disk
            let replicas = RememberedReplicas(disk: disk, loop: brokers.host.loops[0])
            brokers.replicas[id] = replicas
            let member = ClusterMember(
                host: brokers.host, config: try BrokerConfig.resolve(overrides: [("broker.id", "\(id)")] + brokers.settings),
                coordination: .embedded(brokers.keeper, on: brokers.host.loops[0]), replicas: replicas, sink: SilentLog(),
                remoteChannel: { [unowned brokers] live in DirectChannel { brokers.members[live.id] } })
            brokers.members[id] = member
            try await member.start(listeners: [BrokerEndpoint(listener: "PLAINTEXT", host: "b\(id)", port: 9092)])
        }
    }

    func stop(_ id: BrokerID, at location: SourceLocation = #_sourceLocation) {
        run(at: location) { brokers in await brokers.members.removeValue(forKey: id)?.close() }
        world.run(for: .seconds(1))
    }

    func create(_ name: String, _ assignments: [[BrokerID]], on id: BrokerID, at location: SourceLocation = #_sourceLocation) {
        run(at: location) { brokers in
            let wanted = NewTopic(
                name: name, partitionCount: -1, replicationFactor: -1,
                assignments: assignments.enumerated().map { .init(partition: Int32($0), brokers: $1) })
            _ = try await brokers.members[id]?.createTopic(wanted, validateOnly: false).get()
        }
        world.run(for: .seconds(1))
    }

    /// What clients of a broker are told: `leader/epoch/in-sync` of each partition.
    func told(_ id: BrokerID) -> [String] {
        (members[id]?.metadata.current.topics ?? []).flatMap { topic in
            topic.partitions.map { "\(topic.name)-\($0.index) \($0.leader)/\($0.leaderEpoch)/\($0.inSyncReplicas)" }
        }
    }

    func role(_ id: BrokerID, _ topic: String, _ partition: Int32 = 0) -> String {
        replicas[id]?.roles[TopicPartition(topic, partition)].map { "\($0.leader)/\($0.leaderEpoch)" } ?? "none"
    }
}

@Suite struct SeveralMembers {
    @Test func twoBrokersShareATopicAndBothTellTheSameOfIt() {
        let brokers = Brokers()
        brokers.start(1)
        brokers.start(2)
        brokers.create("t", [[1, 2], [2, 1]], on: 1)
        #expect(brokers.told(1) == ["t-0 1/0/[1, 2]", "t-1 2/0/[2, 1]"])
        #expect(brokers.told(2) == brokers.told(1))
        #expect(brokers.role(2, "t", 0) == "1/0")
        #expect(brokers.role(2, "t", 1) == "2/0")
        #expect(brokers.members[2]?.metadata.current.controllerID == 1)
        #expect(brokers.members[2]?.clusterID == brokers.members[1]?.clusterID)
    }

    @Test func aBrokerThatIsNotTheControllerSaysSo() {
        let brokers = Brokers()
        brokers.start(1)
        brokers.start(2)
        brokers.run { brokers in
            let wanted = NewTopic(name: "t", partitionCount: 1, replicationFactor: 1)
            guard case .failure(let fault)? = await brokers.members[2]?.createTopic(wanted, validateOnly: false) else {
                Issue.record("it made a topic")
                return
            }
            #expect(fault.error == .notController)
            #expect(await brokers.members[2]?.deleteTopic("t", id: .zero)?.error == .notController)
            brokers.members[2]?.createAutomatically("asked")
        }
        brokers.world.run(for: .seconds(1))
        #expect(brokers.told(1).count == 1, "what Metadata asks for, any broker makes")
        #expect(brokers.told(2) == brokers.told(1))
    }

    @Test func whenTheControllerGoesTheOtherIsElectedAndLeads() {
        let brokers = Brokers()
        brokers.start(1)
        brokers.start(2)
        brokers.create("t", [[1, 2], [2, 1]], on: 1)
        brokers.create("solo", [[1]], on: 1)
        brokers.stop(1)
        #expect(brokers.members[2]?.metadata.current.controllerID == 2)
        #expect(brokers.told(2) == ["solo-0 -1/1/[1]", "t-0 2/2/[2]", "t-1 2/1/[2]"])
        #expect(brokers.role(2, "t", 0) == "2/2")
        brokers.start(1)
        brokers.world.run(for: .seconds(1))
        #expect(brokers.told(1) == ["solo-0 1/2/[1]", "t-0 2/2/[2]", "t-1 2/1/[2]"])
        #expect(brokers.told(2) == brokers.told(1))
        #expect(brokers.role(1, "t", 0) == "2/2")
        #expect(brokers.role(1, "solo") == "1/2")
    }

    @Test func aTopicDeletedWhileABrokerIsAwayIsDeletedThereWhenItReturns() {
        let brokers = Brokers()
        brokers.start(1)
        brokers.start(2)
        brokers.create("t", [[1, 2]], on: 1)
        brokers.stop(2)
        brokers.run { brokers in
            let id = brokers.members[1]?.metadata.current.topic("t")?.id ?? .zero
            #expect(await brokers.members[1]?.deleteTopic("t", id: id) == nil, "answered though a replica is away")
        }
        #expect(brokers.replicas[1]?.orders.suffix(2) == ["t-0 stopped", "t-0 deleted"])
        brokers.start(2)
        brokers.world.run(for: .seconds(1))
        #expect(brokers.replicas[2]?.orders == ["t-0 stopped", "t-0 deleted"], "it was never served again")
        brokers.create("t", [[2]], on: 1)
        #expect(brokers.told(2) == ["t-0 2/0/[2]"])
    }

    @Test(arguments: [("false", "t-0 -1/2/[1]"), ("true", "t-0 2/3/[2]")])
    func aReplicaOutOfSyncLeadsOnlyWhereThatIsAllowed(allowed: String, told: String) {
        let brokers = Brokers([("unclean.leader.election.enable", allowed)])
        brokers.start(1)
        brokers.start(2)
        brokers.create("t", [[1, 2]], on: 1)
        brokers.stop(2)
        brokers.stop(1)
        brokers.start(2)
        brokers.world.run(for: .seconds(1))
        #expect(brokers.told(2) == [told])
    }

    @Test func aSecondBrokerOfTheSameIDOrAddressIsRefused() {
        let brokers = Brokers()
        brokers.start(1)
        brokers.run { brokers in
            for (id, address, isRight) in [
                (1, "elsewhere", { (error: ClusterError) in if case .brokerIDTaken(1) = error { true } else { false } }),
                (2, "b1", { (error: ClusterError) in if case .endpointTaken(_, by: 1) = error { true } else { false } }),
            ] as [(BrokerID, String, (ClusterError) -> Bool)] {
                let loop = brokers.host.loops[0]
                let member = ClusterMember(
                    host: brokers.host, config: try BrokerConfig.resolve(overrides: [("broker.id", "\(id)")]),
                    coordination: .embedded(brokers.keeper, on: loop),
                    replicas: RememberedReplicas(disk: RememberedReplicas.Disk(), loop: loop), sink: SilentLog())
                do throws(ClusterError) {
                    try await member.start(listeners: [BrokerEndpoint(listener: "PLAINTEXT", host: address, port: 9092)])
                    Issue.record("it started")
                } catch {
                    #expect(isRight(error), "\(error)")
                }
            }
        }
    }
}
