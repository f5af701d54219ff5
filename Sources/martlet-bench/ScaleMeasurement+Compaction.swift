import MartletBasics
import MartletModel
import MartletReactor

extension ScaleMeasurement {
    private static let segments = 8
    /// The least that a topic's `segment.bytes` may be.
    private static let leastSegmentBytes = 1 << 20
    private static let connections = 4
    /// For how long it is looked what a broker computes that has nothing to do.
    private static let idle = Interval.milliseconds(500)
    private static let look = Interval.milliseconds(20)
    /// The kernel counts in hundredths of a second: a limit is measured until it has some.
    private static let enoughCPUSeconds = 0.3
    private static let passesLimit = 8

    /// Megabytes per second of CPU that a cleaning takes of a topic's closed segments, counted as they were before, and
    /// before they were compressed.
    ///
    /// The topic is filled while nothing compacts it, and then told to be compacted. The limit is this process's own computing
    /// for reading the same files, checking each batch and writing all of it to a new one.
    func compaction(bytes: Int, _ codec: CompressionCodec) async throws(BenchFault) -> ScaleFigures {
        guard let logs, let disk else { throw BenchFault("--logs is needed: the cleaner says there how far it is") }
        let control = try await control()
        defer { control.close() }
        let topic = "bench-compaction-\(suffix())"
        let filled = KeyedFill(bytes: bytes, codec: codec)
        try await control.create(
            topic, partitions: 1, settings: [("segment.bytes", "\(max(bytes / Self.segments, Self.leastSegmentBytes))")])
        let swarm = try await Swarm(Self.connections, host: host, address: address)
        defer { swarm.close() }
        try await filled.fill(topic, swarm: swarm, host: host)

        let folder = "\(logs)/\(topic)-0"
        let closed = try closedSegments(folder)
        let own = ProcessFigures(disk: host.disk, process: "self")
        // the first pass takes pages from the machine's host
        let size = try disk.rewrite(closed.paths)
        let (before, start) = (try own.cpuSeconds(), host.clock.now)
        var (rewritten, passes) = (0, 0)
        repeat {
            rewritten += try disk.rewrite(closed.paths)
            passes += 1
        } while try own.cpuSeconds() - before < Self.enoughCPUSeconds && passes < Self.passesLimit
        let ownCPU = try own.cpuSeconds() - before
        let ownSeconds = Double((host.clock.now - start).nanoseconds) / 1e9

        let idle = try await spent { () async throws(BenchFault) in await host.loops[0].sleep(for: Self.idle) }
        let spent = try await spent { () async throws(BenchFault) in
            try await control.set("cleanup.policy", to: "compact", of: topic)
            try await cleaned(topic, upTo: closed.end, logs)
        }
        let left = try self.size(try closedSegments(folder).paths)
        guard left < size else { throw BenchFault("a cleaning left \(left) of \(size) bytes: nothing was compacted") }
        let held = try server.anonymousMegabytes()
        try await control.delete(topic)

        let share = filled.uncompressedShare
        let cpu = max(spent.cpu - idle.cpu / idle.seconds * spent.seconds, 0)
        return ScaleFigures(
            figure: cpu > 0 ? Double(size) * share / 1e6 / cpu : 0,
            limit: ownCPU > 0 ? .most(Double(rewritten) * share / 1e6 / ownCPU) : nil,
            beside: "checking and rewriting the same files", seconds: spent.seconds, cpuSeconds: spent.cpu, megabytes: held,
            further: [
                ScaleFigures.Further(
                    name: "MB a second by the clock", figure: Double(size) * share / 1e6 / spent.seconds,
                    limit: .most(Double(rewritten) * share / 1e6 / ownSeconds), beside: "the same, synced as well"),
                ScaleFigures.Further(name: "% of the bytes stay", figure: Double(left) / Double(size) * 100),
            ])
    }

    /// Comes back when the cleaner has noted that everything below the offset was looked at.
    private func cleaned(_ topic: String, upTo end: Int64, _ logs: String) async throws(BenchFault) {
        let limit = host.clock.now + Self.patience
        while true {
            let noted: [UInt8]?
            do { noted = try host.disk.contents("\(logs)/cleaner-offset-checkpoint") } catch {
                throw BenchFault("the cleaner's checkpoint cannot be read: \(error)")
            }
            for line in String(decoding: noted ?? [], as: UTF8.self).split(separator: "\n") {
                let fields = line.split(separator: " ")
                guard fields.count == 3, fields[0] == topic, let offset = Int64(fields[2]) else { continue }
                if offset >= end { return }
            }
            guard host.clock.now < limit else { throw BenchFault("\(topic) is not compacted up to offset \(end)") }
            await host.loops[0].sleep(for: Self.look)
        }
    }

    /// All but the last, which is written to, and the offset where that begins.
    private func closedSegments(_ folder: String) throws(BenchFault) -> (paths: [String], end: Int64) {
        let names: [String]
        do { names = try host.disk.list(folder).filter { $0.hasSuffix(".log") } } catch {
            throw BenchFault("the broker's segments cannot be listed: \(error)")
        }
        guard names.count > 1, let end = Int64(names[names.count - 1].dropLast(4)) else {
            throw BenchFault("\(folder) has no closed segment")
        }
        return (names.dropLast().map { "\(folder)/\($0)" }, end)
    }

    private func size(_ paths: [String]) throws(BenchFault) -> Int {
        do { return Int(try paths.reduce(0) { try $0 + (host.disk.status($1)?.size ?? 0) }) } catch {
            throw BenchFault("the broker's segments cannot be looked at: \(error)")
        }
    }
}

/// Fills a topic with records that have keys, and one batch more than its segments take.
private final class KeyedFill {
    private let bytes: Int
    private var records: KeyedRecords
    private var (sent, uncompressed, wire) = (0, 0, 0)

    init(bytes: Int, codec: CompressionCodec) {
        self.bytes = bytes
        records = KeyedRecords(bytes: bytes, codec: codec)
    }

    /// Bytes before they were compressed, for each that is stored.
    var uncompressedShare: Double { Double(uncompressed) / Double(max(wire, 1)) }

    func fill(_ topic: String, swarm: Swarm, host: any Host) async throws(BenchFault) {
        func next() throws(BenchFault) -> Frame? {
            guard uncompressed < bytes + 2 * KeyedRecords.batchBytes else { return nil }
            let batch = records.batch(timestamp: host.clock.wallMilliseconds)
            uncompressed += batch.uncompressedBytes
            wire += batch.bytes.count
            return try Frame(producing: batch.bytes, to: topic, partition: 0, acks: -1, correlationID: 0)
        }
        try await swarm.run(within: ScaleMeasurement.patience) { (_) throws(BenchFault) in
            try next()
        } answered: {
            (_, answer) throws(BenchFault) in
            try ProduceAnswer.check(answer, correlationID: 0)
            return try next()
        }
    }
}
