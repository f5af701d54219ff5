import MartletBasics
import MartletClient
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire
import Testing

/// Fake brokers, and a client on a machine of its own.
final class ClientWorld: @unchecked Sendable {
    let simulated: SimulatedWorld
    let brokers: [FakeBroker]
    let machine: SimulatedHost
    let client: Client
    /// Who leads partition 0, 1, … of `orders`, and who the controller is; what Metadata answers.
    var leaders: [BrokerID] = [1]
    var controller: BrokerID = 1
    var orders = "orders"

    init(seed: UInt64 = 1, brokers count: Int = 1, _ change: (inout ClientSettings) -> Void = { _ in }) throws {
        let simulated = SimulatedWorld(seed: seed)
        self.simulated = simulated
        brokers = (1...count).map { FakeBroker(simulated.makeHost("broker-\($0)"), id: BrokerID($0)) }
        machine = simulated.makeHost("client")
        var settings = ClientSettings(bootstrap: [BrokerEndpoint(host: brokers[0].host.address, port: 9092)])
        change(&settings)
        client = Client(host: machine, loop: machine.loops[0], settings: settings)
        for broker in brokers {
            try broker.listen()
            broker.on(MetadataRequest.self) { [unowned self] request, _ in .answer(metadata(request)) }
        }
    }

    deinit { simulated.end() }

    var broker: FakeBroker { brokers[0] }

    private func metadata(_ request: MetadataRequest) -> MetadataResponse {
        var response = MetadataResponse()
        response.clusterID = "cluster"
        response.controllerID = controller
        response.brokers = brokers.map { broker in
            var entry = MetadataResponse.MetadataResponseBroker()
            entry.nodeID = broker.id
            entry.host = broker.host.address
            entry.port = 9092
            return entry
        }
        let names = request.topics.map { $0.compactMap(\.name) } ?? [orders]
        response.topics = names.map { name in
            var topic = MetadataResponse.MetadataResponseTopic()
            topic.name = name
            topic.errorCode = name == orders ? .none : .unknownTopicOrPartition
            guard name == orders else { return topic }
            topic.partitions = leaders.enumerated().map { index, leader in
                var part = MetadataResponse.MetadataResponsePartition()
                part.partitionIndex = Int32(index)
                part.leaderID = leader
                part.errorCode = leader < 0 ? .leaderNotAvailable : .none
                part.replicaNodes = [leader]
                part.isrNodes = [leader]
                return part
            }
            return topic
        }
        return response
    }

    /// Runs a task on the client's loop to its end, in virtual time.
    func run<Value: Sendable>(
        atMost limit: Interval = .seconds(600), _ body: @escaping @Sendable (Client) async throws -> Value
    ) throws -> Result<Value, ClientError> {
        let ended = Ended<Value>()
        let client = client
        machine.loops[0].spawn {
            do {
                ended.result = .success(try await body(client))
            } catch {
                ended.result = .failure(error)
            }
        }
        try #require(simulated.run(atMost: limit) { ended.result != nil }, "the client waits for something that never comes")
        let result = try #require(ended.result)
        do { return .success(try result.get()) } catch {
            guard let error = error as? ClientError else { throw error }
            return .failure(error)
        }
    }

    /// How long a task takes, in virtual time.
    func seconds(_ body: () throws -> Void) rethrows -> Double {
        let start = simulated.now
        try body()
        return Double((simulated.now - start).milliseconds) / 1000
    }
}

private final class Ended<Value>: @unchecked Sendable {
    var result: Result<Value, any Error>?
}

extension Result where Failure == ClientError {
    var error: ClientError? { if case .failure(let error) = self { error } else { nil } }
}
