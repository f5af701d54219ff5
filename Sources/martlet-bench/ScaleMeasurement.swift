import MartletBasics
import MartletModel
import MartletReactor
import MartletWire

/// One measurement of a case of scale: many members, topics, connections at a time.
struct ScaleMeasurement {
    let host: any Host
    let address: SocketAddress
    let serverProcess: String
    let scale: Case.Scale
    let extent: Extent
    /// Where the broker keeps its logs: there it is seen what the disk can do without one. Nil where nobody has said.
    let logs: String?

    /// What one step of a load may take.
    static let patience = Interval.seconds(60)
    private static let topicsPerRequest = 50
    /// Everything is divided by this, to see that the case runs.
    private var divisor: Int { extent.bytesDivisor }
    var server: ProcessFigures { ProcessFigures(disk: host.disk, process: serverProcess) }

    func run() async throws(BenchFault) -> ScaleFigures {
        switch scale {
        case .rebalance(let members, let times):
            try await rebalance(members: max(2, members / divisor), times: times)
        case .heartbeats(let members, let times):
            try await heartbeats(members: max(2, members / divisor), times: times)
        case .commits(let count, let connections):
            try await commits(count / divisor, connections: connections)
        case .metadata(let topics, let partitions, let milliseconds):
            try await metadata(topics: max(1, topics / divisor), partitions: partitions, milliseconds / Int64(divisor))
        case .idle(let connections):
            try await idle(connections: max(1, connections / divisor))
        case .transactions(let producers, let spoken):
            try await transactions(producers: max(min(producers, 4), producers / divisor), spoken)
        case .compaction(let bytes, let codec):
            try await compaction(bytes: max(bytes / divisor, 8 << 20), codec)
        }
    }

    func control() async throws(BenchFault) -> Control { try await Control(host: host, address: address) }

    /// For names that no measurement before this one has used.
    func suffix() -> String { host.freshSuffix() }

    /// What the server computes while `body` runs, and how long that takes.
    func spent(_ body: () async throws(BenchFault) -> Void) async throws(BenchFault) -> (cpu: Double, seconds: Double) {
        let (cpu, start) = (try server.cpuSeconds(), host.clock.now)
        try await body()
        return (try server.cpuSeconds() - cpu, Double((host.clock.now - start).nanoseconds) / 1e9)
    }

    // MARK: Groups

    /// CPU of one rebalance in which every member joins and gets its assignment.
    private func rebalance(members: Int, times: Int) async throws(BenchFault) -> ScaleFigures {
        let control = try await control()
        defer { control.close() }
        let group = "bench-\(suffix())"
        try await control.findCoordinator(of: group)
        let swarm = try await Swarm(members, host: host, address: address)
        defer { swarm.close() }
        let crowd = GroupCrowd(group: group, swarm: swarm)
        try await crowd.enter()
        try await crowd.rebalance()
        let spent = try await spent { () async throws(BenchFault) in
            for _ in 0..<times { try await crowd.rebalance() }
        }
        return ScaleFigures(
            figure: spent.cpu / Double(times), seconds: spent.seconds / Double(times), cpuSeconds: spent.cpu,
            megabytes: try server.anonymousMegabytes())
    }

    /// Microseconds of CPU that a heartbeat costs in a consumer group that has settled.
    private func heartbeats(members: Int, times: Int) async throws(BenchFault) -> ScaleFigures {
        let control = try await control()
        defer { control.close() }
        let suffix = suffix()
        let (group, topic) = ("bench-\(suffix)", "bench-heartbeats-\(suffix)")
        try await control.create(topic, partitions: 100)
        try await control.findCoordinator(of: group)
        let swarm = try await Swarm(members, host: host, address: address)
        defer { swarm.close() }
        let crowd = ConsumerCrowd(group: group, topic: topic, swarm: swarm, loop: host.loops[0])
        try await crowd.settle()
        let spent = try await spent { () async throws(BenchFault) in try await crowd.beat(times: times) }
        let held = try server.anonymousMegabytes()
        let asked = try await self.spent { () async throws(BenchFault) in try await ask(swarm, times: times) }
        try await control.delete(topic)
        let each = 1_000_000 / Double(members * times)
        return ScaleFigures(
            figure: spent.cpu * each, limit: .least(asked.cpu * each), beside: "ApiVersions on the same connections",
            seconds: spent.seconds, cpuSeconds: spent.cpu, megabytes: held)
    }

    /// So many requests on each connection that ask for nothing that must be looked for.
    private func ask(_ swarm: Swarm, times: Int) async throws(BenchFault) {
        let asked = try Frame(ApiVersionsRequest.bench, version: SpokenVersion.apiVersions, correlationID: 0)
        var left = Array(repeating: times, count: swarm.count)
        try await swarm.run(within: Self.patience) { _ in
            asked
        } answered: { index, _ in
            left[index] -= 1
            return left[index] > 0 ? asked : nil
        }
    }

    /// CPU of so many commits of one offset each.
    private func commits(_ count: Int, connections: Int) async throws(BenchFault) -> ScaleFigures {
        let control = try await control()
        defer { control.close() }
        let suffix = suffix()
        let (group, topic) = ("bench-\(suffix)", "bench-commits-\(suffix)")
        try await control.create(topic, partitions: 100)
        try await control.findCoordinator(of: group)
        let swarm = try await Swarm(connections, host: host, address: address)
        defer { swarm.close() }
        var sent = 0
        func next() throws(BenchFault) -> Frame? {
            guard sent < count else { return nil }
            defer { sent += 1 }
            return try Frame(committing: group, topic: topic, partition: Int32(sent % 100), offset: Int64(sent))
        }
        let spent = try await spent { () async throws(BenchFault) in
            try await swarm.run(within: Self.patience) { (_) throws(BenchFault) in
                try next()
            } answered: {
                (_, answer) throws(BenchFault) in
                let response = try decoded(OffsetCommitResponse.self, answer, version: SpokenVersion.offsetCommit)
                let code = response.topics.first?.partitions.first?.errorCode ?? .unknownServerError
                guard code == .none else { throw BenchFault("OffsetCommit was answered with \(code)") }
                return try next()
            }
        }
        let held = try server.anonymousMegabytes()
        try await control.delete(topic)
        return ScaleFigures(figure: spent.cpu, seconds: spent.seconds, cpuSeconds: spent.cpu, megabytes: held)
    }

    // MARK: Topics

    /// Milliseconds of CPU that a request for all topics costs. The topics are made where they are not there yet.
    private func metadata(
        topics: Int, partitions: Int32, _ milliseconds: Int64
    ) async throws(BenchFault) -> ScaleFigures {
        let control = try await control()
        defer { control.close() }
        for start in stride(from: 0, to: topics, by: Self.topicsPerRequest) {
            let names = (start..<min(start + Self.topicsPerRequest, topics)).map { "bench-wide-\($0)" }
            try await control.ensure(names, partitions: partitions)
        }
        let end = host.clock.now + .milliseconds(max(milliseconds, 1))
        var count = 0
        let spent = try await spent { () async throws(BenchFault) in
            repeat {
                let found = try await control.topicCount()
                guard found >= topics else { throw BenchFault("Metadata told of \(found) topics") }
                count += 1
            } while host.clock.now < end
        }
        return ScaleFigures(
            figure: spent.cpu / Double(count) * 1000, seconds: spent.seconds / Double(count), cpuSeconds: spent.cpu,
            megabytes: try server.anonymousMegabytes())
    }

    // MARK: Connections

    /// Megabytes of the server's own memory while so many clients are connected, each of which has asked once.
    private func idle(connections: Int) async throws(BenchFault) -> ScaleFigures {
        do { _ = try DescriptorLimit.raise() } catch { throw BenchFault("descriptors: \(error)") }
        let control = try await control()
        defer { control.close() }
        let start = (host.clock.now, try server.cpuSeconds())
        let swarm = try await Swarm(connections, host: host, address: address)
        defer { swarm.close() }
        let asked = try Frame(ApiVersionsRequest.bench, version: SpokenVersion.apiVersions, correlationID: 0)
        try await swarm.run(within: Self.patience) { _ in
            asked
        } answered: { _, _ in
            nil
        }
        return ScaleFigures(
            figure: try server.anonymousMegabytes(), seconds: Double((host.clock.now - start.0).nanoseconds) / 1e9,
            cpuSeconds: try server.cpuSeconds() - start.1, megabytes: try server.anonymousMegabytes())
    }
}

extension ApiVersionsRequest {
    fileprivate static var bench: ApiVersionsRequest {
        var request = ApiVersionsRequest()
        request.clientSoftwareName = "martlet-bench"
        request.clientSoftwareVersion = "1"
        return request
    }
}

extension Frame {
    fileprivate convenience init(
        committing group: String, topic: String, partition: Int32, offset: Offset
    ) throws(BenchFault) {
        var one = OffsetCommitRequest.OffsetCommitRequestPartition()
        one.partitionIndex = partition
        one.committedOffset = offset
        var asked = OffsetCommitRequest.OffsetCommitRequestTopic()
        asked.name = topic
        asked.partitions = [one]
        var request = OffsetCommitRequest()
        request.groupID = group
        request.topics = [asked]
        try self.init(request, version: SpokenVersion.offsetCommit, correlationID: 0)
    }
}
