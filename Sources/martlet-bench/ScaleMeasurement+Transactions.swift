import MartletBasics
import MartletModel
import MartletReactor

extension ScaleMeasurement {
    /// A producer's partitions are two of these.
    private static let partitions: Int32 = 16
    /// What a transaction has to make durable one after the other, in either protocol: that its partitions are in it, its
    /// records, the decision, the markers, the completion. The next one of the same producer waits for the last.
    private static let syncsInARow = 5.0

    /// Transactions a second, and microseconds of CPU that one costs.
    ///
    /// The limit is what the disk can do, if one sync at a time is all that a producer waits for, and what this broker does
    /// with as many requests that carry the same records and no transaction, whichever is less.
    func transactions(producers: Int, _ spoken: Case.TransactionProtocol) async throws(BenchFault) -> ScaleFigures {
        let control = try await control()
        defer { control.close() }
        let name = "bench-transactions-\(suffix())"
        try await control.create(name, partitions: Self.partitions)
        try await control.findCoordinator(ofTransactional: name)
        let swarm = try await Swarm(producers, host: host, address: address)
        defer { swarm.close() }
        let crowd = TransactionCrowd(name, topic: name, partitions: Self.partitions, spoken, swarm: swarm, host: host)
        try await crowd.initialize()
        let syncBefore = try syncSeconds()
        let meter = Meter(host: host, serverProcess: serverProcess, extent: extent)
        try await crowd.run(meter)
        let found = try meter.figures()
        let plainMeter = Meter(host: host, serverProcess: serverProcess, extent: extent.half)
        try await crowd.runPlain(plainMeter)
        let plain = try plainMeter.figures()
        // the limit is what the disk can do where it is not busy with something else
        let sync = [syncBefore, try syncSeconds()].compactMap(\.self).min()
        let held = try server.anonymousMegabytes()
        try await control.delete(name)

        let requests = Double(TransactionCrowd.requests(spoken))
        let plainRate = Double(plain.requests) / plain.seconds / requests
        let diskRate = sync.map { Double(producers) / ($0 * Self.syncsInARow) }
        let plainCPU = plain.serverCPUSeconds / Double(plain.requests) * requests * 1_000_000
        let each = Double(found.requests)
        let byRequests = "\(Int(requests)) requests without a transaction"
        let bySyncs = "five syncs of this disk, one after the other"
        let isDiskLess = diskRate.map { $0 < plainRate } ?? false
        var further = [
            ScaleFigures.Further(
                name: "µs of CPU a transaction", figure: found.serverCPUSeconds / each * 1_000_000,
                limit: .least(plainCPU), beside: byRequests),
            ScaleFigures.Further(name: "ms a transaction, the median", figure: Double(found.latencies.permille(500)) / 1e6),
        ]
        if let sync {
            further[1].limit = .least(sync * Self.syncsInARow * 1000)
            further[1].beside = bySyncs
        }
        return ScaleFigures(
            figure: each / found.seconds, limit: .most(min(plainRate, diskRate ?? plainRate)),
            beside: isDiskLess ? bySyncs : byRequests, seconds: found.seconds, cpuSeconds: found.serverCPUSeconds,
            megabytes: held, further: further)
    }

    private func syncSeconds() throws(BenchFault) -> Double? {
        guard let disk else { return nil }
        return try disk.syncSeconds()
    }

    /// Nil where nobody has said where the broker's logs are.
    var disk: DiskLimit? { logs.map { DiskLimit(disk: host.disk, folder: $0, clock: host.clock) } }
}

extension Extent {
    fileprivate var half: Extent {
        Extent(
            warmUpMilliseconds: warmUpMilliseconds / 2, milliseconds: max(milliseconds / 2, 1), bytesDivisor: bytesDivisor)
    }
}
