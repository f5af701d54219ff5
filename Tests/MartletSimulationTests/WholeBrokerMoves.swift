import MartletBasics
import MartletModel
import MartletReactor
import MartletSimulation
import MartletWire

/// Has replicas moved between the broker's log directories, whatever else happens to them, and looks at where they are.
final class Mover: @unchecked Sendable {
    private static let moveVersion: Int16 = 2
    private static let describeVersion: Int16 = 4

    private let audience: Audience
    private let client: SimulatedClient
    private let directories: [String]
    private let topics: [(name: String, partitions: Int32)]
    private var random: SeededRandom
    /// Where each replica was seen last.
    private var places: [TopicPartition: String] = [:]

    init(
        _ audience: Audience, _ client: SimulatedClient, directories: [String], topics: [(name: String, partitions: Int32)],
        random: SeededRandom
    ) {
        self.audience = audience
        self.client = client
        self.directories = directories
        self.topics = topics
        self.random = random
    }

    func run() async {
        while !audience.isOver {
            do throws(ClientFault) {
                if !client.isConnected { try await client.connect(to: audience.broker) }
                if random.chance(1, in: 2) { try await move() }
                try await look()
            } catch {
                if case .malformed(let what) = error { audience.ledger.violated("the mover: \(what)") }
            }
            await client.loop.sleep(for: .milliseconds(Int64(1 + random.below(20))))
        }
        client.close()
    }

    private func move() async throws(ClientFault) {
        let topic = topics[random.below(topics.count)]
        var wanted = AlterReplicaLogDirsRequest.AlterReplicaLogDirTopic()
        wanted.name = topic.name
        wanted.partitions = [Int32(random.below(Int(topic.partitions)))]
        var directory = AlterReplicaLogDirsRequest.AlterReplicaLogDir()
        directory.path = directories[random.below(directories.count)]
        directory.topics = [wanted]
        var request = AlterReplicaLogDirsRequest()
        request.dirs = [directory]
        let response = try await client.ask(request, version: Self.moveVersion)
        for partition in response.results.flatMap(\.partitions) {
            // one that is not made yet, or whose directory failed
            let passing: [ErrorCode] = [.none, .unknownTopicOrPartition, .kafkaStorageError]
            if !passing.contains(partition.errorCode) {
                audience.ledger.violated("moving \(topic.name) to \(directory.path) was refused with \(partition.errorCode)")
            }
        }
    }

    private func look() async throws(ClientFault) {
        var request = DescribeLogDirsRequest()
        request.topics = nil
        let response = try await client.ask(request, version: Self.describeVersion)
        var seen: Set<TopicPartition> = []
        for directory in response.results {
            for topic in directory.topics {
                for partition in topic.partitions where !partition.isFutureKey {
                    let id = TopicPartition(topic.name, partition.partitionIndex)
                    if !seen.insert(id).inserted { audience.ledger.violated("\(id) lies in two directories") }
                    if let before = places.updateValue(directory.logDir, forKey: id), before != directory.logDir {
                        audience.ledger.movesCount += 1
                    }
                }
            }
        }
    }
}
