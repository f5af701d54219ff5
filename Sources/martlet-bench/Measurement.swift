import MartletBasics
import MartletReactor

/// One measurement of one case against one server: makes a topic, loads it, and deletes it.
struct Measurement {
    let host: any Host
    let address: SocketAddress
    let serverProcess: String
    let measured: Case
    let extent: Extent

    /// Beyond the time that a load takes by itself.
    private static let patience = Interval.seconds(60)
    private var loop: any EventLoop { host.loops[0] }

    func run() async throws(BenchFault) -> Figures {
        let control = try await Control(host: host, address: address)
        defer { control.close() }
        let suffix = host.freshSuffix()
        let topic = "bench-\(measured.name)-\(suffix)"
        try await control.create(topic, partitions: measured.partitions)
        let figures: Figures
        switch measured.load {
        case .produce(let shape): figures = try await produce(shape, to: topic, extent)
        case .fetch(let shape): figures = try await fetch(shape, from: topic)
        case .endToEnd(let shape): figures = try await endToEnd(shape, over: topic)
        case .scale: preconditionFailure("cases of scale have a measurement of their own")
        }
        try await control.delete(topic)
        return figures
    }

    private func produce(
        _ shape: Case.Produce, to topic: String, _ extent: Extent
    ) async throws(BenchFault) -> Figures {
        var source = RecordSource()
        let batch = source.batch(
            bytes: shape.batchBytes, codec: shape.codec, timestamp: host.clock.wallMilliseconds)
        let sockets = try await connections(shape.connections)
        let requests = max(1, shape.wireBytesLimit / extent.bytesDivisor / batch.bytes.count)
        let meter = meter(extent, requestsLimit: requests)
        let load = try ProduceLoad(
            shape, batch: batch, topic: topic, partitions: measured.partitions, meter: meter,
            conclusion: conclusion(extent), loop: loop)
        try await load.run(over: sockets)
        return try meter.figures()
    }

    private func fetch(_ shape: Case.Fetch, from topic: String) async throws(BenchFault) -> Figures {
        // until the topic holds what is to be read, however long that takes
        let filling = Case.Produce(
            connections: 4, depth: 4, acks: 1, batchBytes: 128 << 10, wireBytesLimit: shape.topicBytes)
        let fill = Extent(warmUpMilliseconds: 0, milliseconds: 120_000, bytesDivisor: extent.bytesDivisor)
        _ = try await produce(filling, to: topic, fill)

        let sockets = try await connections(shape.connections)
        let meter = meter(extent)
        let load = FetchLoad(shape, topic: topic, meter: meter, conclusion: conclusion(extent), loop: loop)
        try await load.run(over: sockets)
        return try meter.figures()
    }

    private func endToEnd(_ shape: Case.EndToEnd, over topic: String) async throws(BenchFault) -> Figures {
        let sockets = try await connections(2)
        let meter = meter(extent)
        let load = EndToEndLoad(
            shape, extent: extent, topic: topic, meter: meter, conclusion: conclusion(extent), loop: loop)
        try await load.run(producing: sockets[0], consuming: sockets[1])
        return try meter.figures()
    }

    private func connections(_ count: Int) async throws(BenchFault) -> [any StreamSocket] {
        var sockets: [any StreamSocket] = []
        for _ in 0..<count { sockets.append(try await connected(to: address, host)) }
        return sockets
    }

    private func meter(_ extent: Extent, requestsLimit: Int = .max) -> Meter {
        Meter(host: host, serverProcess: serverProcess, extent: extent, requestsLimit: requestsLimit)
    }

    private func conclusion(_ extent: Extent) -> Conclusion {
        Conclusion(
            on: loop, within: .milliseconds(extent.warmUpMilliseconds + extent.milliseconds) + Self.patience)
    }
}

extension Host {
    /// Makes a name one that nobody has had before.
    func freshSuffix() -> String { randomBytes(4).map { String($0, radix: 16) }.joined() }
}
